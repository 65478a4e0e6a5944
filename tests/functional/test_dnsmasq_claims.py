"""What docs/names.md says of dnsmasq, each claim tried on the real one; DHCP between two network namespaces."""

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.installation import wait_until
from tests.wire import Wire, wire

SERVER_NS, CLIENT_NS = "tnm-server", "tnm-client"
GATEWAY, ZONE = "10.103.8.1", "claims.internal"
OLD_MAC, NEW_MAC = "52:54:00:10:38:01", "52:54:00:10:38:02"
RANGE = "--dhcp-range=10.103.8.100,10.103.8.150,5m"
UNCHANGED_SECONDS = 1.0
"""After so long without a change there will be none: what changes does so in milliseconds."""


@pytest.fixture
def cable() -> Iterator[Wire]:
    with wire(SERVER_NS, CLIENT_NS, f"{GATEWAY}/24") as made:
        yield made


class Dnsmasq:
    """In the server's namespace, with a folder of its own."""

    def __init__(self, folder: Path, cable: Wire) -> None:
        self.folder = folder
        self.lease = cable.lease
        self.user = "root"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *options: str) -> None:
        """Returns once it listens; one that was there before is ended. Leases are kept."""
        self.stop()
        log = self.folder / "log"
        log.write_text("")
        with log.open("ab") as file:
            self._process = subprocess.Popen(
                ["ip", "netns", "exec", SERVER_NS, "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null",
                 f"--user={self.user}", "--log-facility=-", "--log-dhcp", "--no-hosts", "--no-resolv", "--no-ping",
                 f"--dhcp-leasefile={self.folder}/leases", f"--pid-file={self.folder}/pid", f"--domain={ZONE}",
                 f"--local=/{ZONE}/", "--local=/arpa/", "--bind-interfaces", f"--listen-address={GATEWAY}", *options],
                stdin=subprocess.DEVNULL, stdout=file, stderr=file,
            )  # fmt: skip
        try:
            wait_until(lambda: self.ask("nobody", check=False) is not None, 20, "dnsmasq answers")
        except AssertionError as error:
            raise AssertionError(log.read_text()) from error

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None

    def hang_up(self) -> None:
        assert self._process is not None
        os.kill(int((self.folder / "pid").read_text()), signal.SIGHUP)

    def ask(self, name: str, *options: str, check: bool = True) -> str | None:
        """The answer in short, "" for none; None when nobody answers."""
        fqdn = name if name.endswith(".arpa") else f"{name}.{ZONE}"
        done = subprocess.run(
            ["ip", "netns", "exec", SERVER_NS, "dig", "+short", "+tries=1", "+time=2", f"@{GATEWAY}", fqdn, *options],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0 or not check, done.stdout
        return done.stdout.strip() if done.returncode == 0 else None

    def becomes(self, name: str, answer: str) -> None:
        wait_until(lambda: self.ask(name) == answer, 10, f"{name} becomes {answer!r}")

    def stays(self, name: str, answer: str) -> None:
        time.sleep(UNCHANGED_SECONDS)
        assert self.ask(name) == answer


@pytest.fixture
def dnsmasq(cable: Wire) -> Iterator[Dnsmasq]:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        server = Dnsmasq(Path(folder), cable)
        try:
            yield server
        finally:
            server.stop()


def renamed_into(path: Path, text: str) -> None:
    fresh = path.with_name(f".{path.name}")
    fresh.write_text(text)
    fresh.replace(path)


# --- DHCP: whom a mapping is keyed on ---


def test_a_mapping_by_mac_breaks_when_the_vm_is_provisioned_anew(dnsmasq: Dnsmasq) -> None:
    dnsmasq.start(RANGE, f"--dhcp-host={OLD_MAC},10.103.8.20,web")
    assert dnsmasq.lease(OLD_MAC) == "10.103.8.20"
    assert dnsmasq.ask("web") == "10.103.8.20"

    other = dnsmasq.lease(NEW_MAC)

    assert other.startswith("10.103.8.1") and other != "10.103.8.20"
    assert dnsmasq.ask("web") == "10.103.8.20"  # the name leads to the VM that is gone


def test_a_name_that_clients_give_leads_to_whoever_came_last(dnsmasq: Dnsmasq) -> None:
    """Without any mapping; the address is another one with each MAC."""
    dnsmasq.start(RANGE)
    first = dnsmasq.lease(OLD_MAC, "-x", "hostname:web")
    assert dnsmasq.ask("web") == first

    second = dnsmasq.lease(NEW_MAC, "-x", "hostname:web")

    assert second != first
    assert dnsmasq.ask("web") == second


def test_a_mapping_by_client_id_holds_for_another_mac(dnsmasq: Dnsmasq) -> None:
    dnsmasq.start(RANGE, "--dhcp-host=id:web-1,10.103.8.21,web")
    assert dnsmasq.lease(OLD_MAC, "-x", "0x3d:7765622d31") == "10.103.8.21"

    assert dnsmasq.lease(NEW_MAC, "-x", "0x3d:7765622d31") == "10.103.8.21"


def test_a_mapping_by_name_holds_for_another_mac_once_the_lease_is_given_back(dnsmasq: Dnsmasq) -> None:
    dnsmasq.start(RANGE, "--dhcp-host=web,10.103.8.22")
    assert dnsmasq.lease(OLD_MAC, "-x", "hostname:web") == "10.103.8.22"
    assert dnsmasq.lease(NEW_MAC, "-x", "hostname:web") != "10.103.8.22"  # leased to the other one still

    dnsmasq.stop()
    (dnsmasq.folder / "leases").unlink()
    dnsmasq.start(RANGE, "--dhcp-host=web,10.103.8.22")
    assert dnsmasq.lease(NEW_MAC, "-x", "hostname:web") == "10.103.8.22"


def test_a_mapping_by_name_believes_whoever_claims_the_name(dnsmasq: Dnsmasq) -> None:
    dnsmasq.start(RANGE, "--dhcp-host=web,10.103.8.22")

    assert dnsmasq.lease("52:54:00:10:38:66", "-x", "hostname:web") == "10.103.8.22"


def test_a_name_from_dhcp_answers_only_once_there_is_a_lease(dnsmasq: Dnsmasq) -> None:
    dnsmasq.start(RANGE, f"--dhcp-host={OLD_MAC},10.103.8.20,web")
    assert dnsmasq.ask("web") == ""

    dnsmasq.lease(OLD_MAC)

    assert dnsmasq.ask("web") == "10.103.8.20"


# --- names: what is read, and when again ---


def test_host_record_answers_both_ways_and_is_read_at_the_start_only(dnsmasq: Dnsmasq) -> None:
    conf = dnsmasq.folder / "more.conf"
    conf.write_text(f"host-record=web.{ZONE},10.103.8.30\n")
    dnsmasq.start(f"--conf-file={conf}")
    assert dnsmasq.ask("web") == "10.103.8.30"
    assert dnsmasq.ask("30.8.103.10.in-addr.arpa", "PTR") == f"web.{ZONE}."

    conf.write_text(f"host-record=web.{ZONE},10.103.8.31\n")
    dnsmasq.hang_up()
    dnsmasq.stays("web", "10.103.8.30")

    dnsmasq.start(f"--conf-file={conf}")
    assert dnsmasq.ask("web") == "10.103.8.31"


def test_addn_hosts_is_read_again_on_sighup_only(dnsmasq: Dnsmasq) -> None:
    hosts = dnsmasq.folder / "hosts"
    hosts.write_text(f"10.103.8.30 web.{ZONE}\n")
    dnsmasq.start(f"--addn-hosts={hosts}")
    renamed_into(hosts, f"10.103.8.31 web.{ZONE}\n")
    dnsmasq.stays("web", "10.103.8.30")

    dnsmasq.hang_up()

    dnsmasq.becomes("web", "10.103.8.31")


def test_hostsdir_is_followed_without_a_signal_and_forgets(dnsmasq: Dnsmasq) -> None:
    folder = dnsmasq.folder / "hosts.d"
    folder.mkdir()
    dnsmasq.start(f"--hostsdir={folder}")

    renamed_into(folder / "web", f"10.103.8.30 web.{ZONE}\n")
    dnsmasq.becomes("web", "10.103.8.30")
    renamed_into(folder / "web", f"10.103.8.31 web.{ZONE}\n")
    dnsmasq.becomes("web", "10.103.8.31")
    (folder / "web").unlink()
    dnsmasq.becomes("web", "")


def test_hostsdir_passes_over_dotfiles(dnsmasq: Dnsmasq) -> None:
    folder = dnsmasq.folder / "hosts.d"
    folder.mkdir()
    dnsmasq.start(f"--hostsdir={folder}")

    (folder / ".web").write_text(f"10.103.8.30 web.{ZONE}\n")
    dnsmasq.stays("web", "")

    (folder / ".web").rename(folder / "web")
    dnsmasq.becomes("web", "10.103.8.30")


def test_dhcp_hostsdir_learns_without_a_signal_and_forgets_on_sighup_only(dnsmasq: Dnsmasq) -> None:
    folder = dnsmasq.folder / "dhcp.d"
    folder.mkdir()
    dnsmasq.start(RANGE, f"--dhcp-hostsdir={folder}")
    renamed_into(folder / "web", f"{OLD_MAC},10.103.8.40\n")
    wait_until(
        lambda: "read" in (dnsmasq.folder / "log").read_text().rpartition(str(folder))[0][-80:], 10, "it is read"
    )
    assert dnsmasq.lease(OLD_MAC) == "10.103.8.40"

    (folder / "web").unlink()
    time.sleep(UNCHANGED_SECONDS)
    assert dnsmasq.lease(OLD_MAC) == "10.103.8.40"

    dnsmasq.hang_up()
    time.sleep(UNCHANGED_SECONDS)
    assert dnsmasq.lease(OLD_MAC) != "10.103.8.40"


def test_a_folder_that_its_user_may_not_pass_is_no_failure_to_dnsmasq(dnsmasq: Dnsmasq) -> None:
    closed = dnsmasq.folder / "closed"
    (closed / "hosts.d").mkdir(parents=True)
    (closed / "hosts.d" / "web").write_text(f"10.103.8.30 web.{ZONE}\n")
    closed.chmod(0o700)
    dnsmasq.user = "nobody"

    dnsmasq.start(f"--hostsdir={closed / 'hosts.d'}")

    assert dnsmasq.ask("web") == ""

"""Names on a real dnsmasq, at the gateway of a real network, asked from the host and from a guest's place."""

import os
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Network
from pathlib import Path

import dns.message
import dns.query
import dns.rcode
import pytest

from torpor.adapters.names.dnsmasq import DnsmasqNames
from torpor.adapters.names.process import DnsmasqSettings
from torpor.domain.errors import BackendFailed, Invalid, MissingPart
from torpor.domain.naming import NameRecord

NAMESPACE, INTERFACE, ZONE = "torpor-test-dns", "torpor-td0", "names.internal"
GATEWAY, GUEST = "10.103.4.1", "10.103.4.7"
RECORD = NameRecord("alpha", GUEST)


def ip(*words: str, check: bool = True) -> None:
    subprocess.run(["ip", *words], capture_output=True, check=check)


def plug() -> None:
    """A guest's place, on a cable to the gateway."""
    ip("link", "add", INTERFACE, "type", "veth", "peer", "name", "eth0", "netns", NAMESPACE)
    ip("addr", "add", f"{GATEWAY}/24", "dev", INTERFACE)
    ip("link", "set", INTERFACE, "up")
    ip("-n", NAMESPACE, "addr", "add", f"{GUEST}/24", "dev", "eth0")
    ip("-n", NAMESPACE, "link", "set", "eth0", "up")


def clean() -> None:
    ip("link", "del", INTERFACE, check=False)
    ip("netns", "del", NAMESPACE, check=False)


@pytest.fixture
def ethernet() -> Iterator[None]:
    clean()
    try:
        ip("netns", "add", NAMESPACE)
        plug()
        yield
    finally:
        clean()


@pytest.fixture
def settings() -> Iterator[DnsmasqSettings]:
    with tempfile.TemporaryDirectory() as folder:  # pytest's own folders are closed to the server's user
        Path(folder).chmod(0o755)
        yield DnsmasqSettings(Path(folder) / "names", GATEWAY, ZONE, IPv4Network("10.103.4.0/22"))


@pytest.fixture
def names(ethernet: None, settings: DnsmasqSettings) -> Iterator[DnsmasqNames]:
    names = DnsmasqNames(settings)
    try:
        yield names
    finally:
        names.stop()


def ask(name: str, kind: str = "A") -> str:
    """What the host is told: the first answer, or why there is none."""
    answer = dns.query.udp(dns.message.make_query(name, kind), GATEWAY, timeout=5)
    found = [str(data) for answers in answer.answer for data in answers]
    return found[0] if found else dns.rcode.to_text(answer.rcode())


def ask_from_guest(name: str) -> str:
    words = ["ip", "netns", "exec", NAMESPACE, "dig", "+short", "+time=5", f"@{GATEWAY}", name]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()


def servers(settings: DnsmasqSettings) -> list[int]:
    """Processes that read our directory."""
    mark = f"--hostsdir={settings.hosts}".encode()
    found = []
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if mark in process.read_bytes().split(b"\0"):
                found.append(int(process.parent.name))
        except OSError:
            continue
    return found


def slay(settings: DnsmasqSettings) -> None:
    (pid,) = servers(settings)
    os.kill(pid, signal.SIGKILL)
    while pid in servers(settings):
        time.sleep(0.005)


def test_a_name_answers_from_the_host_and_from_a_guest(names: DnsmasqNames) -> None:
    names.ensure()
    names.publish([RECORD])

    for name in (f"alpha.{ZONE}", "alpha"):
        assert ask(name) == GUEST
        assert ask_from_guest(name) == GUEST
    assert ask("7.4.103.10.in-addr.arpa", "PTR") == f"alpha.{ZONE}."


def test_the_gateway_has_a_name(names: DnsmasqNames) -> None:
    names.ensure()

    assert ask_from_guest(f"gateway.{ZONE}") == GATEWAY
    assert names.records() == ()


def test_names_that_are_not_there_are_denied_and_others_refused(names: DnsmasqNames) -> None:
    names.ensure()

    assert ask(f"nobody.{ZONE}") == "NXDOMAIN"
    assert ask("9.7.103.10.in-addr.arpa", "PTR") == "NXDOMAIN"
    assert ask("example.com") == "REFUSED"


def test_a_name_made_anew_at_once_has_its_new_address_only(names: DnsmasqNames) -> None:
    names.ensure()
    for number in range(30):
        names.publish([NameRecord("alpha", f"10.103.5.{number + 1}")])
        assert ask(f"alpha.{ZONE}") == f"10.103.5.{number + 1}"
        names.withdraw(["alpha"])
        assert ask(f"alpha.{ZONE}") == "NXDOMAIN"


def test_a_gang_is_published_and_withdrawn_at_once(names: DnsmasqNames) -> None:
    names.ensure()
    gang = [NameRecord(f"gang-{number}", f"10.103.5.{number + 1}") for number in range(100)]

    names.publish(gang)
    assert {ask(f"{record.name}.{ZONE}") for record in gang} == {record.address for record in gang}

    names.withdraw([record.name for record in gang])
    assert {ask(f"{record.name}.{ZONE}") for record in gang} == {"NXDOMAIN"}


def test_a_server_that_died_is_started_again_with_all_records(names: DnsmasqNames, settings: DnsmasqSettings) -> None:
    names.ensure()
    names.publish([RECORD])
    slay(settings)

    names.ensure()

    assert ask(f"alpha.{ZONE}") == GUEST


def test_publishing_starts_a_server_that_died(names: DnsmasqNames, settings: DnsmasqSettings) -> None:
    names.ensure()
    slay(settings)

    names.publish([RECORD])

    assert ask(f"alpha.{ZONE}") == GUEST
    assert len(servers(settings)) == 1


def test_withdrawing_needs_no_server(names: DnsmasqNames, settings: DnsmasqSettings) -> None:
    names.publish([RECORD])
    slay(settings)

    names.withdraw(["alpha"])
    assert servers(settings) == []

    names.ensure()
    assert ask(f"alpha.{ZONE}") == "NXDOMAIN"


def test_a_server_that_hangs_is_replaced(names: DnsmasqNames, settings: DnsmasqSettings) -> None:
    names.ensure()
    (hung,) = servers(settings)
    os.kill(hung, signal.SIGSTOP)

    names.publish([RECORD])

    assert ask(f"alpha.{ZONE}") == GUEST
    assert hung not in servers(settings)


def test_a_new_daemon_takes_over_the_server_that_runs(names: DnsmasqNames, settings: DnsmasqSettings) -> None:
    names.ensure()
    names.publish([RECORD])
    before = servers(settings)

    successor = DnsmasqNames(settings)
    successor.ensure()

    assert servers(settings) == before
    assert successor.records() == (RECORD,)
    assert ask(f"alpha.{ZONE}") == GUEST


def test_the_server_is_in_a_session_of_its_own_and_not_root(names: DnsmasqNames, settings: DnsmasqSettings) -> None:
    names.ensure()
    (pid,) = servers(settings)

    assert os.getsid(pid) != os.getsid(0)
    assert Path(f"/proc/{pid}").stat().st_uid != 0


def test_changed_settings_reach_the_server_and_the_records(names: DnsmasqNames, settings: DnsmasqSettings) -> None:
    names.ensure()
    names.publish([RECORD])
    before = servers(settings)

    moved = DnsmasqNames(replace(settings, zone="other.internal"))
    moved.ensure()

    assert ask("alpha.other.internal") == GUEST
    assert ask(f"alpha.{ZONE}") == "REFUSED"
    assert len(servers(settings)) == 1
    assert servers(settings) != before


def test_what_is_no_record_is_cleared_away(names: DnsmasqNames, settings: DnsmasqSettings) -> None:
    names.publish([RECORD])
    (settings.hosts / ".beta").write_text("half wri")
    (settings.hosts / "evil").write_text(f"10.103.4.66 www.example.com\n10.103.4.66 evil.{ZONE} evil\n")

    names.ensure()

    assert [path.name for path in settings.hosts.iterdir()] == ["alpha"]
    assert ask("www.example.com") == "REFUSED"


def test_a_change_behind_the_back_of_a_stopped_daemon_is_noticed(
    names: DnsmasqNames, settings: DnsmasqSettings
) -> None:
    names.publish([RECORD])
    subprocess.run(["rm", "-r", str(settings.hosts)], check=True)
    successor = DnsmasqNames(settings)

    successor.ensure()
    assert ask(f"alpha.{ZONE}") == "NXDOMAIN"

    successor.publish([RECORD])
    assert ask(f"alpha.{ZONE}") == GUEST


def test_a_hosts_directory_that_was_swapped_is_read_all_the_same(
    names: DnsmasqNames, settings: DnsmasqSettings
) -> None:
    names.ensure()
    settings.hosts.rename(settings.directory / "aside")
    settings.hosts.mkdir()  # the server still watches the old one

    names.publish([RECORD])

    assert ask(f"alpha.{ZONE}") == GUEST


def test_an_interface_made_anew_is_served_again(names: DnsmasqNames) -> None:
    names.publish([RECORD])
    ip("link", "del", INTERFACE)
    plug()

    names.ensure()

    assert ask_from_guest(f"alpha.{ZONE}") == GUEST


def test_without_the_gateways_address_the_reason_is_told_and_the_record_kept(settings: DnsmasqSettings) -> None:
    names = DnsmasqNames(settings)

    with pytest.raises(BackendFailed, match=f"no interface has the address {GATEWAY}"):
        names.publish([RECORD])

    assert names.records() == (RECORD,)


def test_records_kept_while_no_server_could_run_answer_once_it_does(
    ethernet: None, names: DnsmasqNames, settings: DnsmasqSettings
) -> None:
    with pytest.raises(MissingPart, match="install dnsmasq-base"):
        DnsmasqNames(replace(settings, binary="no-such-dnsmasq")).publish([RECORD])

    names.ensure()

    assert ask(f"alpha.{ZONE}") == GUEST


def test_a_port_that_is_taken_is_told(ethernet: None, names: DnsmasqNames) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind((GATEWAY, 53))
        with pytest.raises(BackendFailed, match="another name server has that port"):
            names.ensure()


def test_a_port_that_is_just_being_given_up_is_waited_for(ethernet: None, names: DnsmasqNames) -> None:
    """A server that was killed may keep its sockets for a moment after it has gone from the list of processes."""
    other = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    other.bind((GATEWAY, 53))
    end = threading.Timer(0.5, other.close)
    end.start()
    try:
        names.ensure()
    finally:
        end.join()

    assert ask(f"gateway.{ZONE}") == GATEWAY


def test_a_folder_that_the_server_may_not_pass_is_named(ethernet: None, settings: DnsmasqSettings) -> None:
    settings.directory.parent.chmod(0o700)
    names = DnsmasqNames(settings)

    with pytest.raises(MissingPart, match=f"chmod o\\+x {settings.directory.parent}"):
        names.ensure()

    assert [check.name for check in names.checks() if not check.ok] == ["names: records", "names: server"]


@pytest.mark.parametrize("name", ["../escape", "Alpha", "a.b", "", "gateway", "with space", "-dash"])
def test_what_is_no_label_is_refused(names: DnsmasqNames, name: str) -> None:
    with pytest.raises(Invalid):
        names.publish([NameRecord(name, GUEST)])
    with pytest.raises(Invalid):
        names.withdraw([name])
    assert names.records() == ()


def test_what_is_no_address_is_refused(names: DnsmasqNames) -> None:
    with pytest.raises(Invalid, match="not an IPv4 address"):
        names.publish([NameRecord("alpha", "10.103.4.7 evil")])


def test_with_a_forwarder_other_names_are_asked_for_there(ethernet: None, settings: DnsmasqSettings) -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        upstream = DnsmasqNames(
            DnsmasqSettings(Path(folder) / "names", "127.0.103.4", "up.internal", IPv4Network("10.104.0.0/24"))
        )
        names = DnsmasqNames(replace(settings, forwarders=("127.0.103.4",)))
        try:
            upstream.publish([NameRecord("far", "10.104.0.9")])
            names.publish([RECORD])

            assert ask_from_guest("far.up.internal") == "10.104.0.9"
            assert ask(f"nobody.{ZONE}") == "NXDOMAIN"
        finally:
            names.stop()
            upstream.stop()


def test_with_five_thousand_names_a_change_still_answers(names: DnsmasqNames, settings: DnsmasqSettings) -> None:
    """How fast is measured by the benchmark; here, that nothing is missed among so many."""
    crowd = [NameRecord(f"n-{number}", f"10.103.{4 + number // 2000}.{number % 250 + 2}") for number in range(5000)]
    settings.hosts.mkdir(parents=True)
    for record in crowd:  # as an earlier daemon left them
        (settings.hosts / record.name).write_text(f"{record.address} {record.name}.{ZONE} {record.name}\n")
    names.publish(crowd)

    names.publish([RECORD])
    assert ask(f"alpha.{ZONE}") == GUEST
    names.withdraw(["alpha", "n-4999"])

    assert ask(f"n-4999.{ZONE}") == "NXDOMAIN"
    assert ask(f"n-4998.{ZONE}") == crowd[4998].address
    assert len(names.records()) == 4999

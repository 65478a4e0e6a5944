"""The contract of `ports.Names`: on the fake, and wherever else names are published, on the real servers."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path

import dns.message
import dns.query
import dns.reversename
import pytest
from tests.hosts_reader import hosts_reader
from tests.named import named
from tests.sshd import HOST, sshd

from torpor.adapters.fakes import FakeNames
from torpor.adapters.names.dnsmasq import DnsmasqNames
from torpor.adapters.names.hosts_file import HostsFileNames
from torpor.adapters.names.process import DnsmasqSettings
from torpor.adapters.names.rfc2136 import Rfc2136Names, Rfc2136Settings
from torpor.adapters.names.ssh_file import SshFile, SshSettings
from torpor.domain.errors import Conflict, Invalid
from torpor.domain.naming import NameRecord
from torpor.ports import Names

SERVER, PORT, ZONE = "127.0.103.1", 10353, "contract.internal"
READER, READER_PORT = "127.0.103.2", 10354
NAMED_PORT = 10355
REVERSE = ("103.10.in-addr.arpa", "d.f.ip6.arpa")


@dataclass(frozen=True)
class Served:
    names: Names
    lookup: Callable[[str], str | None]
    lookup6: Callable[[str], str | None]
    reverse: Callable[[str], str | None]


def asked_at(server: str, port: int, names: Names) -> Served:
    def ask(name: str, kind: str) -> str | None:
        answer = dns.query.udp(dns.message.make_query(name, kind), server, port=port, timeout=5)
        found = [data for answers in answer.answer for data in answers]
        assert len(found) <= 1
        return str(found[0]) if found else None

    def host_of(address: str) -> str | None:
        pointer = ask(dns.reversename.from_address(address).to_text(), "PTR")
        return pointer.removesuffix(f".{ZONE}.") if pointer else None

    return Served(names, lambda name: ask(f"{name}.{ZONE}", "A"), lambda name: ask(f"{name}.{ZONE}", "AAAA"), host_of)


@contextmanager
def on_fake(folder: Path) -> Iterator[Served]:
    fake = FakeNames()
    fake.ensure()
    yield Served(fake, fake.lookup, fake.lookup6, fake.reverse)


@contextmanager
def on_dnsmasq(folder: Path) -> Iterator[Served]:
    names = DnsmasqNames(DnsmasqSettings(folder / "names", SERVER, ZONE, IPv4Network("10.103.0.0/24"), port=PORT))
    try:
        names.ensure()
        yield asked_at(SERVER, PORT, names)
    finally:
        names.stop()


@contextmanager
def on_hosts_file(folder: Path) -> Iterator[Served]:
    with hosts_reader(folder, READER, READER_PORT, ZONE) as reader:
        names = reader.names()
        names.ensure()
        yield asked_at(READER, READER_PORT, names)


@contextmanager
def on_hosts_file_over_ssh(folder: Path) -> Iterator[Served]:
    (folder / "sshd").mkdir()
    with (
        sshd(folder / "sshd", 10423) as server,
        hosts_reader(folder, "127.0.103.8", 10361, ZONE) as reader,
    ):
        place = SshFile(SshSettings(HOST, reader.hosts, folder / "s", server.config, reader.pid_file))
        names = HostsFileNames(reader.settings(), place)
        names.ensure()
        yield asked_at(reader.address, reader.port, names)


@contextmanager
def on_bind(folder: Path) -> Iterator[Served]:
    with named(NAMED_PORT, [ZONE, *REVERSE]) as server:
        names = Rfc2136Names(
            Rfc2136Settings(folder / "names", server.address, ZONE, "lab", server.key_file, REVERSE, NAMED_PORT)
        )
        names.ensure()
        yield asked_at(server.address, NAMED_PORT, names)


PUBLISHERS: dict[str, Callable[[Path], AbstractContextManager[Served]]] = {
    "fake": on_fake,
    "dnsmasq": on_dnsmasq,
    "hosts-file": on_hosts_file,
    "hosts-file-ssh": on_hosts_file_over_ssh,
    "rfc2136": on_bind,
}


@pytest.fixture(params=PUBLISHERS)
def served(request: pytest.FixtureRequest) -> Iterator[Served]:
    with tempfile.TemporaryDirectory() as folder:  # pytest's own folders are closed to the server's user
        Path(folder).chmod(0o755)
        with PUBLISHERS[request.param](Path(folder)) as served:
            yield served


def test_a_published_name_answers_forward_and_reverse(served: Served) -> None:
    served.names.publish([NameRecord("alpha", "10.103.0.10"), NameRecord("beta", "10.103.0.11")])

    assert served.lookup("alpha") == "10.103.0.10"
    assert served.lookup("beta") == "10.103.0.11"
    assert served.reverse("10.103.0.11") == "beta"


def test_a_withdrawn_name_answers_no_more_and_its_neighbours_do(served: Served) -> None:
    served.names.publish([NameRecord("alpha", "10.103.0.10"), NameRecord("beta", "10.103.0.11")])

    served.names.withdraw(["alpha"])

    assert served.lookup("alpha") is None
    assert served.reverse("10.103.0.10") is None
    assert served.lookup("beta") == "10.103.0.11"


def test_a_new_address_takes_the_place_of_the_old(served: Served) -> None:
    served.names.publish([NameRecord("alpha", "10.103.0.10")])

    served.names.publish([NameRecord("alpha", "10.103.0.20")])

    assert served.lookup("alpha") == "10.103.0.20"
    assert served.reverse("10.103.0.20") == "alpha"
    assert served.reverse("10.103.0.10") is None


def test_an_address_goes_to_another_name_once_its_first_name_is_withdrawn(served: Served) -> None:
    served.names.publish([NameRecord("alpha", "10.103.0.10")])
    served.names.withdraw(["alpha"])
    served.names.publish([NameRecord("beta", "10.103.0.10")])

    assert served.reverse("10.103.0.10") == "beta"
    assert served.lookup("alpha") is None


def test_publishing_and_withdrawing_again_changes_nothing(served: Served) -> None:
    record = NameRecord("alpha", "10.103.0.10")
    served.names.publish([record])
    served.names.publish([record])
    assert served.names.records() == (record,)

    served.names.withdraw(["alpha"])
    served.names.withdraw(["alpha", "never-published"])
    assert served.names.records() == ()


def test_records_are_what_is_published_by_name(served: Served) -> None:
    served.names.publish([NameRecord("beta", "10.103.0.11"), NameRecord("alpha", "10.103.0.10")])

    assert served.names.records() == (NameRecord("alpha", "10.103.0.10"), NameRecord("beta", "10.103.0.11"))


def test_ensuring_again_keeps_what_is_published(served: Served) -> None:
    served.names.publish([NameRecord("alpha", "10.103.0.10")])

    served.names.ensure()

    assert served.lookup("alpha") == "10.103.0.10"


def test_a_running_server_passes_its_checks(served: Served) -> None:
    checks = served.names.checks()

    assert checks
    assert [check for check in checks if not check.ok] == []


def test_a_name_that_never_was_does_not_answer(served: Served) -> None:
    assert served.lookup("nobody") is None


def test_a_name_has_an_address_of_each_kind(served: Served) -> None:
    served.names.publish([NameRecord("alpha", "10.103.0.10", "fd00:103::10")])

    assert served.lookup("alpha") == "10.103.0.10"
    assert served.lookup6("alpha") == "fd00:103::10"
    assert served.reverse("10.103.0.10") == "alpha"
    assert served.reverse("fd00:103::10") == "alpha"


def test_a_name_may_have_an_ipv6_address_only(served: Served) -> None:
    record = NameRecord("alpha", address6="fd00:103::10")
    served.names.publish([record])

    assert served.lookup("alpha") is None
    assert served.lookup6("alpha") == "fd00:103::10"
    assert served.names.records() == (record,)


def test_an_address_that_a_name_has_no_more_is_forgotten(served: Served) -> None:
    served.names.publish([NameRecord("alpha", "10.103.0.10", "fd00:103::10")])
    served.names.publish([NameRecord("alpha", "10.103.0.10")])

    assert served.lookup6("alpha") is None
    assert served.reverse("fd00:103::10") is None
    assert served.lookup("alpha") == "10.103.0.10"


def test_letters_outside_ascii_answer_encoded(served: Served) -> None:
    served.names.publish([NameRecord("b\u00fccher", "10.103.0.10")])

    assert served.lookup("xn--bcher-kva") == "10.103.0.10"
    assert served.reverse("10.103.0.10") == "xn--bcher-kva"

    served.names.withdraw(["b\u00fccher"])
    assert served.lookup("xn--bcher-kva") is None


@pytest.mark.parametrize(
    "name",
    [
        "a.b",
        "www.example.com",
        "with space",
        "x" * 64,
        "$(id)",
        "a\n10.0.0.1 evil",
        "localhost",
        "*",
        "a#b",
        "\uff41",
        "",
    ],
)
def test_a_hostile_name_is_refused_and_its_neighbours_are_not_published_either(served: Served, name: str) -> None:
    with pytest.raises(Invalid):
        served.names.publish([NameRecord("alpha", "10.103.0.10"), NameRecord(name, "10.103.0.11")])
    with pytest.raises(Invalid):
        served.names.withdraw([name])

    assert served.names.records() == ()
    assert served.lookup("alpha") is None


def test_two_instances_of_one_name_are_refused_and_the_one_that_had_it_keeps_it(served: Served) -> None:
    served.names.publish([NameRecord("alpha", "10.103.0.10")])

    with pytest.raises(Conflict, match=r"'alpha'.*10\.103\.0\.11 and 10\.103\.0\.12"):
        served.names.publish([NameRecord("alpha", "10.103.0.11"), NameRecord("alpha", "10.103.0.12")])

    assert served.lookup("alpha") == "10.103.0.10"


def test_a_gang_is_published_and_withdrawn_at_once(served: Served) -> None:
    gang = [NameRecord(f"gang-{n}", f"10.103.0.{n + 10}") for n in range(120)]

    served.names.publish(gang)
    assert [served.lookup(record.name) for record in gang] == [record.address for record in gang]

    served.names.withdraw([record.name for record in gang])
    assert [served.lookup(record.name) for record in gang] == [None] * 120
    assert served.reverse("10.103.0.10") is None

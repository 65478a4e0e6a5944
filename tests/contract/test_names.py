"""The contract of `ports.Names`, on a real dnsmasq and on the fake."""

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path

import dns.message
import dns.query
import dns.reversename
import pytest

from torpor.adapters.fakes import FakeNames
from torpor.adapters.names.dnsmasq import DnsmasqNames
from torpor.adapters.names.process import DnsmasqSettings
from torpor.domain.naming import NameRecord
from torpor.ports import Names

SERVER, PORT, ZONE = "127.0.103.1", 10353, "contract.internal"


@dataclass(frozen=True)
class Served:
    names: Names
    lookup: Callable[[str], str | None]
    reverse: Callable[[str], str | None]


def ask(name: str, kind: str) -> str | None:
    answer = dns.query.udp(dns.message.make_query(name, kind), SERVER, port=PORT, timeout=5)
    found = [data for answers in answer.answer for data in answers]
    return str(found[0]) if found else None


def host_of(address: str) -> str | None:
    pointer = ask(dns.reversename.from_address(address).to_text(), "PTR")
    return pointer.removesuffix(f".{ZONE}.") if pointer else None


@pytest.fixture(params=["fake", "dnsmasq"])
def served(request: pytest.FixtureRequest) -> Iterator[Served]:
    if request.param == "fake":
        fake = FakeNames()
        fake.ensure()
        yield Served(fake, fake.lookup, fake.reverse)
        return
    with tempfile.TemporaryDirectory() as folder:  # pytest's own folders are closed to the server's user
        Path(folder).chmod(0o755)
        names = DnsmasqNames(
            DnsmasqSettings(Path(folder) / "names", SERVER, ZONE, IPv4Network("10.103.0.0/24"), port=PORT)
        )
        try:
            names.ensure()
            yield Served(names, lambda name: ask(f"{name}.{ZONE}", "A"), host_of)
        finally:
            names.stop()


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

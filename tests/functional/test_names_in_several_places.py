"""Names published in every place at once, bound as the configuration says, on the real servers."""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import dns.message
import dns.query
import pytest
from tests.hosts_reader import HostsReader, hosts_reader
from tests.named import Named, named

from torpor.config import load
from torpor.domain.errors import BackendFailed, Conflict
from torpor.domain.naming import NameRecord
from torpor.ports import Names
from torpor.wiring import names as wiring

ZONE, REVERSE = "several.internal", "103.10.in-addr.arpa"
GATEWAY = "127.0.105.1"
ALPHA, BETA = NameRecord("alpha", "10.103.0.10"), NameRecord("beta", "10.103.0.11")


@dataclass(frozen=True)
class Everywhere:
    names: Names
    reader: HostsReader
    server: Named

    def answers(self, name: str) -> list[list[str]]:
        """Of our own dnsmasq, of the one that reads the hosts file, and of BIND."""
        query = dns.message.make_query(f"{name}.{ZONE}", "A")
        own = dns.query.udp(query, GATEWAY, timeout=5)
        fqdn = f"{name}.{ZONE}"
        return [
            [str(data) for answers in own.answer for data in answers],
            self.reader.ask(fqdn, "A"),
            self.server.ask(fqdn, "A"),
        ]


@pytest.fixture
def everywhere() -> Iterator[Everywhere]:
    with (
        tempfile.TemporaryDirectory() as name,
        hosts_reader(Path(name), "127.0.103.5", 10358, ZONE) as reader,
        named(10359, [ZONE, REVERSE]) as server,
    ):
        folder = Path(name)
        folder.chmod(0o755)
        config = folder / "torpor.toml"
        config.write_text(f"""
state_dir = "{folder}/state"
[network]
subnet = "127.0.105.0/24"
zone = "{ZONE}"
[names]
publish = ["hosts-file", "rfc2136", "dnsmasq"]
[names.hosts-file]
path = "{reader.hosts}"
pid_file = "{reader.pid_file}"
ask = "{reader.address}"
ask_port = {reader.port}
[names.rfc2136]
server = "{server.address}"
port = {server.port}
owner = "lab"
key_file = "{server.key_file}"
reverse_zones = ["{REVERSE}"]
""")
        bound = wiring.bind(load(config))
        try:
            bound.names.ensure()
            yield Everywhere(bound.names, reader, server)
        finally:
            bound.stop()


def test_a_name_answers_everywhere_and_nowhere_any_more(everywhere: Everywhere) -> None:
    everywhere.names.publish([ALPHA, BETA])
    assert everywhere.answers("alpha") == [["10.103.0.10"]] * 3
    assert everywhere.names.records() == (ALPHA, BETA)
    assert [check for check in everywhere.names.checks() if not check.ok] == []

    everywhere.names.withdraw(["alpha"])
    assert everywhere.answers("alpha") == [[], [], []]
    assert everywhere.answers("beta") == [["10.103.0.11"]] * 3


def test_one_place_that_fails_is_told_and_keeps_the_others_from_nothing(everywhere: Everywhere) -> None:
    everywhere.server.kill()
    with pytest.raises(BackendFailed, match=r"127\.0\.0\.1 port 10359: Connection refused"):
        everywhere.names.publish([ALPHA])
    everywhere.server.start()
    assert everywhere.answers("alpha") == [["10.103.0.10"], ["10.103.0.10"], []]

    everywhere.names.ensure()
    assert everywhere.answers("alpha") == [["10.103.0.10"]] * 3


def test_a_name_that_is_taken_in_one_place_is_taken_back_from_all_by_whoever_published_it(
    everywhere: Everywhere,
) -> None:
    everywhere.server.change(ZONE, "alpha", "300", "A", "192.0.2.1")
    with pytest.raises(Conflict):
        everywhere.names.publish([ALPHA])

    everywhere.names.withdraw(["alpha"])

    assert everywhere.answers("alpha") == [[], [], ["192.0.2.1"]]
    assert everywhere.names.records() == ()


def test_two_instances_of_one_name_are_refused_before_anything_is_published(everywhere: Everywhere) -> None:
    with pytest.raises(Conflict, match="two instances"):
        everywhere.names.publish([ALPHA, NameRecord("alpha", "10.103.0.99")])

    assert everywhere.answers("alpha") == [[], [], []]

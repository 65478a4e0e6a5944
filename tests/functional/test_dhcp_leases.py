"""Pinned leases on a real dnsmasq, asked for by a real DHCP client on the other end of a cable."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.wire import Wire, wire

from torpor.adapters.fakes.names import FakeNames
from torpor.adapters.names.leases import DhcpSettings, DnsmasqLeases
from torpor.adapters.names.with_leases import NamesWithLeases
from torpor.domain.dhcp import DhcpService, DhcpSubnet, PinnedLease
from torpor.domain.errors import BackendFailed, MissingPart
from torpor.domain.naming import NameRecord
from torpor.processes import find

SERVER, CLIENT = "tdl-server", "tdl-client"
ADDRESS, ZONE = "10.103.9.1", "leases.internal"
WEB = PinnedLease("52:54:00:10:39:01", "10.103.9.20", "web")
OTHER_MAC = "52:54:00:10:39:02"
SUBNET = DhcpSubnet("10.103.9.0/24", ADDRESS, ADDRESS, (ADDRESS,))
SERVICE = DhcpService(ZONE, (SUBNET,), (WEB,), mtu=1400)


@pytest.fixture
def cable() -> Iterator[Wire]:
    with wire(SERVER, CLIENT, f"{ADDRESS}/24") as made:
        yield made


@pytest.fixture
def settings() -> Iterator[DhcpSettings]:
    with tempfile.TemporaryDirectory(prefix="torpor-leases-") as folder:
        Path(folder).chmod(0o755)
        yield DhcpSettings(Path(folder, "dhcp"), "eth0", SERVER)


@pytest.fixture
def server(cable: Wire, settings: DhcpSettings) -> Iterator[DnsmasqLeases]:
    made = DnsmasqLeases(settings)
    try:
        yield made
    finally:
        made.stop()


def pids(settings: DhcpSettings) -> list[int]:
    return [process.pid for process in find(lambda argv: f"--log-facility={settings.log}" in argv)]


def test_a_port_is_leased_its_own_address_and_told_what_it_needs(server: DnsmasqLeases, cable: Wire) -> None:
    server.serve(SERVICE)
    told = cable.ask(WEB.mac, "-O", "hostname", "-O", "mtu", "-O", "domain")
    assert told["ip"] == WEB.address
    assert told["mask"] == "24"
    assert (told["router"], told["dns"], told["mtu"]) == (ADDRESS, ADDRESS, "1400")
    assert (told["hostname"], told["domain"]) == ("web", ZONE)


def test_who_is_not_known_is_not_answered(server: DnsmasqLeases, cable: Wire) -> None:
    server.serve(SERVICE)
    assert cable.ask(OTHER_MAC, tries=2) == {}
    assert cable.lease(WEB.mac) == WEB.address, "it serves"


def test_a_port_that_comes_later_is_served_without_a_restart(
    server: DnsmasqLeases, cable: Wire, settings: DhcpSettings
) -> None:
    server.serve(SERVICE)
    before = pids(settings)
    server.serve(replace(SERVICE, leases=(WEB, PinnedLease(OTHER_MAC, "10.103.9.21"))))
    assert cable.lease(OTHER_MAC) == "10.103.9.21"
    assert pids(settings) == before


def test_an_address_that_changes_hands_is_leased_to_its_new_owner_at_once(server: DnsmasqLeases, cable: Wire) -> None:
    server.serve(SERVICE)
    assert cable.lease(WEB.mac) == WEB.address
    server.serve(replace(SERVICE, leases=(replace(WEB, mac=OTHER_MAC),)))
    assert cable.lease(OTHER_MAC) == WEB.address
    assert cable.ask(WEB.mac, tries=2) == {}


def test_a_port_that_goes_interrupts_nobody(server: DnsmasqLeases, cable: Wire, settings: DhcpSettings) -> None:
    """The server answers for names as well, perhaps: a restart would lose the questions of that moment."""
    stays = PinnedLease(OTHER_MAC, "10.103.9.21")
    server.serve(replace(SERVICE, leases=(WEB, stays)))
    before = pids(settings)
    server.serve(replace(SERVICE, leases=(stays,)))
    assert pids(settings) == before
    assert cable.ask(WEB.mac, tries=2) == {}
    assert cable.lease(OTHER_MAC) == stays.address


def test_a_port_whose_address_changes_is_leased_the_new_one(server: DnsmasqLeases, cable: Wire) -> None:
    server.serve(SERVICE)
    assert cable.lease(WEB.mac) == WEB.address
    server.serve(replace(SERVICE, leases=(replace(WEB, address="10.103.9.50"),)))
    assert cable.lease(WEB.mac) == "10.103.9.50"


def test_without_a_router_none_is_told_and_other_routes_are(server: DnsmasqLeases, cable: Wire) -> None:
    routes = (("10.99.0.0/16", "10.103.9.7"),)
    server.serve(replace(SERVICE, subnets=(replace(SUBNET, router="", routes=routes),)))
    told = cable.ask(WEB.mac, "-O", "staticroutes")
    assert "router" not in told
    assert told["staticroutes"] == "10.99.0.0/16 10.103.9.7"


def test_a_server_that_was_killed_or_is_not_known_to_us_is_replaced(
    server: DnsmasqLeases, cable: Wire, settings: DhcpSettings
) -> None:
    server.serve(SERVICE)
    (pid,) = pids(settings)
    os.kill(pid, signal.SIGKILL)
    server.serve(SERVICE)
    assert cable.lease(WEB.mac) == WEB.address
    successor = DnsmasqLeases(settings)
    successor.serve(replace(SERVICE, leases=(replace(WEB, address="10.103.9.30"),)))
    assert len(pids(settings)) == 1
    assert cable.lease(WEB.mac) == "10.103.9.30"
    successor.stop()
    assert pids(settings) == []
    successor.stop()


def test_names_answer_beside_the_leases_from_a_directory_of_others(cable: Wire, settings: DhcpSettings) -> None:
    hosts = settings.directory.with_name("hosts")
    hosts.mkdir()
    server = DnsmasqLeases(replace(settings, hosts=hosts))
    try:
        server.serve(SERVICE)
        assert dig(cable, f"web.{ZONE}") == "", "a lease gives no name"
        hosts.joinpath(".db").write_text(f"10.103.9.40 db.{ZONE} db\n")
        hosts.joinpath(".db").rename(hosts / "db")
        assert wait_for(cable, f"db.{ZONE}", "10.103.9.40")
        cable.lease(WEB.mac)
        assert dig(cable, f"web.{ZONE}") == "", "nor does one that was given"
        (hosts / "db").unlink()
        assert wait_for(cable, f"db.{ZONE}", "")
    finally:
        server.stop()


def dig(cable: Wire, name: str) -> str:
    done = subprocess.run(
        ["ip", "netns", "exec", cable.server, "dig", "+short", "+tries=2", "+time=2", f"@{ADDRESS}", name],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout.strip()


def wait_for(cable: Wire, name: str, answer: str) -> bool:
    return any(dig(cable, name) == answer for _ in range(50))


def test_what_keeps_it_from_starting_is_told(cable: Wire, settings: DhcpSettings) -> None:
    with pytest.raises(BackendFailed, match="eth7"):
        DnsmasqLeases(replace(settings, interface="eth7")).serve(SERVICE)
    hidden = settings.directory.with_name("hidden")
    hidden.mkdir(mode=0o700)
    with pytest.raises(MissingPart, match="may not pass"):
        DnsmasqLeases(replace(settings, directory=hidden / "dhcp")).serve(SERVICE)


def test_what_has_a_name_has_a_lease(server: DnsmasqLeases, cable: Wire) -> None:
    leases: list[PinnedLease] = []
    names = NamesWithLeases(FakeNames(), server, lambda: replace(SERVICE, leases=tuple(leases)))
    names.ensure()
    assert cable.ask(WEB.mac, tries=2) == {}
    leases.append(WEB)
    names.publish([NameRecord(WEB.name, WEB.address)])
    assert [record.name for record in names.records()] == ["web"]
    assert cable.lease(WEB.mac) == WEB.address
    leases[:] = [PinnedLease(OTHER_MAC, WEB.address)]
    names.withdraw(["web"])
    assert cable.lease(OTHER_MAC) == WEB.address, "who has the address now"

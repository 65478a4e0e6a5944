"""Names follow servers and ports of a real Neutron network that nobody made through Torpor."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import groupby

import pytest
from lab.openstack.clouds import ORDINARY, connect
from lab.openstack.settings import Lab
from openstack.compute.v2.server import Server
from openstack.connection import Connection
from tests.installation import wait_until
from tests.lab_machines import PATIENCE
from tests.names.conftest import NETWORK, SOON, ZONE, NamesService, address_of, boot, make_port, port_of

pytestmark = pytest.mark.timeout(1800)

CROWD, ROUNDS = 100, 3
BREATH = 0.25
"""Seconds between two rounds of questions for all names: the cloud is on the same two cores."""
SLOTS = 3
"""As many servers at once as the lab has room for."""


def test_the_name_of_a_server_follows_it(service: NamesService, member: Connection) -> None:
    """From its creation to its deletion, and to the next server of that name at once, whatever that one's address."""
    server = boot(member, "web")
    service.follow("web", [address_of(port_of(member, server))])
    member.compute.delete_server(server)
    service.follow("web", [])
    member.compute.wait_for_delete(server, wait=PATIENCE)
    port = make_port(member, "kept")
    again = boot(member, "web", port)
    wait_until(lambda: member.network.get_port(port.id).device_id == again.id, PATIENCE, "it has its port")
    service.follow("web", [address_of(port)])


def test_of_two_servers_of_one_name_the_first_has_it_and_that_is_told(
    service: NamesService, member: Connection
) -> None:
    first = make_port(member, "twin")
    time.sleep(1.1)  # Neutron tells to the second when a port was made
    second = make_port(member, "twin")
    service.follow("twin", [address_of(first)])
    wait_until(lambda: f"and not to {address_of(second)}" in service.says(), SOON, "it is told")
    member.network.delete_port(first)
    service.follow("twin", [address_of(second)])


def test_hostile_names_reach_no_name_server(service: NamesService, member: Connection) -> None:
    hostile = ["localhost", "*", "a b", "x.y.z", "$(reboot)", "new\nline", "a" * 64, "bücher", "evil.com."]
    ports = [make_port(member, name) for name in hostile]
    service.follow("a-b", [address_of(ports[2])])
    service.follow("xn--bcher-kva", [address_of(ports[7])])
    assert service.answers("localhost") == []
    assert service.answers("*") == []
    assert service.answers("evil") == []
    assert service.answers("new") == []


def test_no_wrong_answer_while_a_crowd_is_deleted_and_made_again(service: NamesService, member: Connection) -> None:
    """A hundred names, at new addresses in each round: from the moment that a new one was told, no other is."""
    names = [f"n{number:03d}" for number in range(CROWD)]
    for _ in range(ROUNDS):
        with _asking(service, names) as told:
            ports = {name: make_port(member, name) for name in names}
            for name, port in ports.items():
                service.lead(name, [address_of(port)])
        assert {name: set(answers) for name, answers in told.items()} == {
            name: {address_of(port)} for name, port in ports.items()
        }
        for port in ports.values():
            member.network.delete_port(port)
        for name in names:
            service.lead(name, [])


class _Seen:
    """What is in the cloud, listed once for all who wait: what each of them asked for by itself would cost its time."""

    def __init__(self, cloud: Connection) -> None:
        self._cloud = cloud
        self._network = cloud.network.find_network(NETWORK, ignore_missing=False).id
        self._lock = threading.Lock()
        self._listed = 0.0
        self._addresses: dict[str, str] = {}
        self._servers: set[str] = set()

    def address(self, server: Server) -> str | None:
        """Once Nova has made its port."""
        self._list()
        return self._addresses.get(server.id)

    def lacks(self, server: Server) -> bool:
        self._list()
        return server.id not in self._servers

    def _list(self) -> None:
        with self._lock:
            if time.monotonic() - self._listed > 1.0:
                ports = self._cloud.network.ports(network_id=self._network)
                self._addresses = {port.device_id: address_of(port) for port in ports if port.fixed_ips}
                self._servers = {server.id for server in self._cloud.compute.servers(details=False)}
                self._listed = time.monotonic()


def test_no_wrong_answer_while_a_hundred_servers_are_deleted_and_made_again(
    service: NamesService, member: Connection, lab: Lab, blank: str
) -> None:
    """As many at a time as there is room for; each name comes twice, with another server and its address each time."""
    names = [f"s{number:03d}" for number in range(CROWD)]
    lives: dict[str, list[str]] = {name: [] for name in names}
    seen = _Seen(member)

    def live(slot: int) -> None:
        cloud = connect(lab, ORDINARY[0])
        for name in names[slot::SLOTS] * 2:
            server = boot(cloud, name, config_drive=False, image=blank)
            address = wait_until(partial(seen.address, server), PATIENCE, f"{name} has an address")
            service.lead(name, [address], PATIENCE)
            lives[name].append(address)
            cloud.compute.delete_server(server)
            service.lead(name, [], PATIENCE)
            wait_until(partial(seen.lacks, server), PATIENCE, f"{name} is gone")

    with _asking(service, names) as told, ThreadPoolExecutor(SLOTS) as pool:
        for done in [pool.submit(live, slot) for slot in range(SLOTS)]:
            done.result()
    for name in names:
        turns = iter(lives[name])
        heard = [address for address, _ in groupby(told[name])]
        # Each in its turn and no other: an old address was never told after a new one. A short life may go unheard.
        assert heard and all(address in turns for address in heard), (name, heard, lives[name])


@contextmanager
def _asking(service: NamesService, names: list[str]) -> Iterator[dict[str, list[str]]]:
    """Somebody asks all the time; yields what each name was said to lead to, answer by answer."""
    told: dict[str, list[str]] = {name: [] for name in names}
    stop = threading.Event()

    def ask() -> None:
        while True:
            last = stop.is_set()  # each is asked for once more after all have been seen
            for name in names:
                told[name].extend(service.answers(name) or [])
            if last:
                return
            time.sleep(BREATH)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield told
    finally:
        stop.set()
        thread.join()


def test_name_servers_that_were_killed_have_everything_again(service: NamesService, member: Connection) -> None:
    """Whichever, at any moment, also while names come and go; what is in BIND of others is as it was."""
    service.bind.change(ZONE, f"theirs.{ZONE}.", "300", "A", "10.10.9.9")
    ports = [make_port(member, f"k{number}") for number in range(5)]
    for port in ports:
        service.follow(port.name, [address_of(port)])
    for number in range(3):
        service.kill_dnsmasq()
        service.bind.kill()
        late = make_port(member, f"late{number}")
        time.sleep(number)
        service.bind.start()
        for port in (*ports, late):
            service.follow(port.name, [address_of(port)], 10.0)
        member.network.delete_port(late)
        service.follow(late.name, [], 10.0)
    assert service.bind.ask(f"theirs.{ZONE}", "A") == ["10.10.9.9"]


def test_what_happened_while_the_service_was_dead_is_caught_up_with(service: NamesService, member: Connection) -> None:
    gone, stays = make_port(member, "gone"), make_port(member, "stays")
    service.follow("gone", [address_of(gone)])
    service.follow("stays", [address_of(stays)])
    service.end(signal.SIGKILL)
    member.network.delete_port(gone)
    new = make_port(member, "new")
    assert service.answers("stays") == [address_of(stays)], "its name server goes on"
    service.start()
    service.follow("new", [address_of(new)], 10.0)
    service.follow("gone", [], 10.0)
    service.follow("stays", [address_of(stays)], 10.0)

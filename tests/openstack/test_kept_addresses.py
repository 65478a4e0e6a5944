"""A server that is run again under its name, on a real Neutron: whether it has its address and MAC again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from openstack.connection import Connection
from tests.openstack.conftest import Scene

pytestmark = pytest.mark.timeout(1800)

NAME = "again"


@pytest.fixture
def campus(scene: Scene) -> Iterator[Any]:
    """A network of the administrator's project that all may use."""
    network = scene.admin.network.create_network(name="campus", shared=True)
    scene.admin.network.create_subnet(
        network_id=network.id, ip_version=4, cidr="10.30.0.0/24", enable_dhcp=False, gateway_ip=None
    )
    yield network
    for port in scene.admin.network.ports(network_id=network.id):
        scene.admin.network.delete_port(port)
    scene.admin.network.delete_network(network)


def run(scene: Scene, *words: str) -> tuple[str, str]:
    """Address and MAC."""
    scene.torpor.ok("run", NAME, "--image", "tiny", "--flavor", "g256", *words, timeout=600.0)
    (instance,) = scene.torpor.show(NAME)["instances"]
    return instance["address"], instance["mac"]


def delete(scene: Scene) -> None:
    scene.torpor.ok("delete", NAME, "--yes", timeout=600.0)


def test_a_server_that_is_run_again_has_the_address_and_mac_of_before(running: Scene, owner: Connection) -> None:
    before = run(running, "--wait")
    (old,) = running.servers(NAME)
    delete(running)
    try:
        assert run(running, "--keep-address", "--wait") == before
        (new,) = running.servers(NAME)
        assert new.id != old.id
        (port,) = owner.network.ports(device_id=new.id)
        assert (port.fixed_ips[0]["ip_address"], port.mac_address) == before
        assert running.torpor.resolve(NAME) == [before[0]]
    finally:
        delete(running)


def test_on_a_network_that_is_shared_it_may_choose_and_is_refused_what_somebody_else_has(
    running: Scene, campus: Any
) -> None:
    before = run(running, "--network", campus.name)
    delete(running)
    taken = running.admin.network.create_port(network_id=campus.id, fixed_ips=[{"ip_address": before[0]}])
    words = ("run", NAME, "--image", "tiny", "--flavor", "g256", "--network", campus.name, "--keep-address")
    refused = running.torpor.cli(*words)
    assert refused.returncode == 4
    assert f"{NAME} can't keep the address {before[0]}" in refused.stderr
    assert not running.torpor.has(NAME)
    running.admin.network.delete_port(taken)
    try:
        assert run(running, "--network", campus.name, "--keep-address") == before
    finally:
        delete(running)

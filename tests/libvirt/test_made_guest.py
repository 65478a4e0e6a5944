"""A guest of Torpor's making on Torpor's libvirt network, from its boot to its return after the host's reboot."""

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path

import pytest
from tests.installation import CACHE, cached_image, wait_until
from tests.vms import ignore

from private_libvirtd import LibvirtHost
from torpor.adapters.config_drive import config_drive_image
from torpor.adapters.guest.guest import AgentGuest, Ethernet
from torpor.adapters.images.store import ImageStore
from torpor.adapters.libvirt import LibvirtSettings
from torpor.adapters.libvirt.addresses import ethernet
from torpor.adapters.libvirt.agent import through_libvirt
from torpor.adapters.libvirt.backend import LibvirtBackend, make_backend
from torpor.adapters.libvirt.connection import Connection
from torpor.adapters.libvirt.guest import LibvirtGuest
from torpor.adapters.libvirt.network import LibvirtNetwork
from torpor.adapters.libvirt.network_xml import LibvirtNetworkSettings
from torpor.domain.errors import AgentSilent
from torpor.domain.ids import HostId, InstanceId, WorkloadId
from torpor.domain.instance import Instance, InstanceSpec, NetworkConfig
from torpor.domain.workload import Flavor

pytestmark = pytest.mark.slow

SETTINGS = LibvirtNetworkSettings("torpor-made", "torpor-tl4", IPv4Network("10.106.0.0/24"))
ADDRESS, MAC = "10.106.0.5", "52:54:00:10:60:05"
ID = InstanceId(str(uuid.uuid4()))
SPEC = InstanceSpec(
    ID, "made", "tiny", Flavor(1, 128), MAC, NetworkConfig(ADDRESS, 24, str(SETTINGS.gateway), (), "test.internal")
)
INSTANCE = Instance(ID, WorkloadId("w"), "made", 0, ADDRESS, MAC)


@dataclass(frozen=True)
class Made:
    backend: LibvirtBackend
    network: LibvirtNetwork
    guest: LibvirtGuest

    def sh(self, command: str) -> str:
        pid = self.guest.execute(ID, command)
        result = wait_until(lambda: r if (r := self.guest.execution(ID, pid)).finished else None, 60.0, command)
        assert result.exit_code == 0, result
        return str(result.output)


@pytest.fixture
def made(daemon: LibvirtHost, connection: Connection, tmp_path: Path) -> Iterator[Made]:
    cached_image("tiny")
    settings = LibvirtSettings(
        tmp_path / "s", HostId("local"), daemon.uri, save_dir=daemon.managed_saves, tb_size_mb=32, network=SETTINGS.name
    )
    backend = make_backend(settings, ImageStore(CACHE), config_drive_image, connection)
    network = LibvirtNetwork(connection, SETTINGS)
    converse = through_libvirt(connection)
    inner = AgentGuest(converse, lambda instance: Ethernet(*ethernet(connection, instance)))
    try:
        network.ensure()
        yield Made(backend, network, LibvirtGuest(connection, inner, converse))
    finally:
        backend.hypervisor.erase(ID)
        network.remove()


def test_it_has_its_address_and_has_it_again_after_the_hosts_reboot(made: Made, daemon: LibvirtHost) -> None:
    made.backend.hypervisor.boot(SPEC)
    wait_until(lambda: made.guest.probe(INSTANCE), 120.0, "the guest has its address")
    wait_until(lambda: made.guest.agent_answers(ID), 60.0, "its agent answers")
    assert list(made.guest.addresses(ID)) == [ADDRESS]
    arp = f"grep {SETTINGS.gateway} /proc/net/arp"
    made.sh(f"echo x | nc -w 1 -u {SETTINGS.gateway} 9; {arp} | grep -qi {SETTINGS.gateway_mac}")

    made.backend.hypervisor.pause(ID)
    made.backend.suspension.save(SPEC, ignore)
    made.backend.suspension.release(ID)
    with pytest.raises(AgentSilent):
        made.guest.execute(ID, "true")
    daemon.virsh("net-destroy", SETTINGS.name)
    daemon.restart()
    made.network.ensure()
    made.backend.suspension.restore(SPEC, ignore)
    made.backend.suspension.spend(ID)
    made.backend.hypervisor.run_on(ID)

    wait_until(lambda: made.guest.probe(INSTANCE), 30.0, "the guest has its address")
    assert "true" in made.sh(f"{arp} | grep -qi {SETTINGS.gateway_mac} && echo true")
    made.guest.assign_address(INSTANCE, 24, str(SETTINGS.gateway))
    assert list(made.guest.addresses(ID)) == [ADDRESS]

"""The ports on a host whose VMs are under libvirt. Imported only where it is asked for: it needs libvirt's binding."""

from torpor.adapters.address_pool import AddressPool
from torpor.adapters.config_drive import config_drive_image
from torpor.adapters.guest.guest import AgentGuest, Ethernet
from torpor.adapters.libvirt.addresses import ethernet
from torpor.adapters.libvirt.adoption import LibvirtAdoption
from torpor.adapters.libvirt.agent import through_libvirt
from torpor.adapters.libvirt.backend import make_backend
from torpor.adapters.libvirt.connection import Connection
from torpor.adapters.libvirt.guest import LibvirtGuest
from torpor.adapters.libvirt.network import LibvirtNetwork
from torpor.adapters.libvirt.network_xml import LibvirtNetworkSettings
from torpor.adapters.libvirt.settings import LibvirtSettings
from torpor.adapters.no_batch_system import NoBatchSystem
from torpor.adapters.sql import open_records
from torpor.config import Config
from torpor.domain.ids import HostId
from torpor.domain.instance import Instance
from torpor.engine.parts import Parts
from torpor.wiring import around, names
from torpor.wiring.bound import Bound, Doctor


def bind(config: Config) -> Bound:
    """Raises MissingPart, Conflict, StateDamaged. libvirtd need not be there yet."""
    around.prepare(config)
    images = around.images(config)
    section = config.network
    connection = Connection(config.libvirt.uri)
    settings = LibvirtNetworkSettings(config.libvirt.network, section.interface, section.subnet, section.nat)
    network = LibvirtNetwork(connection, settings)
    backend = make_backend(_settings(config), images, config_drive_image, connection)
    converse = through_libvirt(connection)

    def met_at(instance: Instance) -> Ethernet:
        return Ethernet(*ethernet(connection, instance))

    ledger, journal, inventory, history = open_records(config.state_dir)
    published = names.bind_with_leases(config, inventory)
    parts = Parts(
        hypervisor=backend.hypervisor,
        gangs=backend.gangs,
        suspension=backend.suspension,
        states=backend.states,
        guest=LibvirtGuest(connection, AgentGuest(converse, met_at), converse),
        names=published.names,
        batch_system=NoBatchSystem(),
        images=images,
        diagnostics=Doctor(backend.diagnostics, network),
        ledger=ledger,
        journal=journal,
        inventory=inventory,
        history=history,
        clock=around.WallClock(),
        snapshots=backend.snapshots,
        adoption=LibvirtAdoption(connection),
        provisions=AddressPool(str(section.subnet)),
    )
    return Bound(parts, network, published.stop, connection.on_change)


def _settings(config: Config) -> LibvirtSettings:
    host, libvirt = config.host, config.libvirt
    return LibvirtSettings(
        state_dir=config.state_dir,
        host=HostId(host.name),
        uri=libvirt.uri,
        accelerator=libvirt.accelerator,
        save_dir=libvirt.save_dir,
        bypass_cache=libvirt.bypass_cache,
        save_timeout=libvirt.save_timeout_seconds,
        tb_size_mb=libvirt.tb_size_mb,
        vcpus=host.vcpus,
        memory_mb=host.memory_mb,
        disk_mb=host.disk_mb,
        reserve_mb=host.reserve_mb,
        network=libvirt.network,
    )

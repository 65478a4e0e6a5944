"""The ports on QEMU, with everything below `state_dir`."""

from collections.abc import Callable

from torpor.adapters.address_pool import AddressPool
from torpor.adapters.config_drive import config_drive_image
from torpor.adapters.guest.agent import over_socket
from torpor.adapters.guest.guest import AgentGuest, Ethernet
from torpor.adapters.no_adoption import NoAdoption
from torpor.adapters.no_batch_system import NoBatchSystem
from torpor.adapters.qemu.backend import make_backend
from torpor.adapters.qemu.layout import Layout
from torpor.adapters.qemu.network import BridgeNetwork, NetworkSettings
from torpor.adapters.qemu.settings import QemuSettings
from torpor.adapters.sql import open_records
from torpor.config import Config
from torpor.domain.ids import HostId
from torpor.engine.parts import Parts
from torpor.wiring import around, names
from torpor.wiring.bound import Bound, Doctor


def bind(config: Config) -> Bound:
    """Raises MissingPart, Conflict, StateDamaged."""
    around.prepare(config)
    images = around.images(config)
    layout = Layout(config.state_dir)
    guest = AgentGuest(
        over_socket(lambda i: layout.instance(i).agent_socket),
        lambda _: Ethernet(config.network.interface, config.network.gateway),
        link_up=lambda i: backend.vms.require(i).set_link(up=True),
    )
    section = config.network
    network = BridgeNetwork(NetworkSettings(section.namespace, section.interface, section.subnet, section.nat))
    backend = make_backend(_settings(config), images, config_drive_image, network, guest)
    ledger, journal, inventory, history = open_records(config.state_dir)
    published = names.bind_with_leases(config, inventory)
    parts = Parts(
        hypervisor=backend.hypervisor,
        gangs=backend.gangs,
        suspension=backend.suspension,
        states=backend.states,
        guest=guest,
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
        adoption=NoAdoption(),
        provisions=AddressPool(str(section.subnet)),
    )
    return Bound(parts, network, published.stop, _nobody_else)


def _nobody_else(changed: Callable[[], None]) -> None:
    """Its VMs are its own: what happens to them is seen soon enough by looking."""


def _settings(config: Config) -> QemuSettings:
    host, qemu = config.host, config.qemu
    return QemuSettings(
        state_dir=config.state_dir,
        host=HostId(host.name),
        binary=qemu.binary,
        user=qemu.user,
        accelerator=qemu.accelerator,
        tb_size_mb=qemu.tb_size_mb,
        save_threads=qemu.save_threads,
        codec=qemu.codec,
        codec_level=qemu.codec_level,
        restore=qemu.restore,
        vcpus=host.vcpus,
        memory_mb=host.memory_mb,
        disk_mb=host.disk_mb,
        reserve_mb=host.reserve_mb,
    )

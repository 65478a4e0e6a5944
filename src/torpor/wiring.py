"""The composition root: the only importer of adapters. Reads the configuration, binds ports, starts threads.

What another backend needs is a function beside `parts` and a key in the configuration.
"""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torpor.adapters.config_drive import config_drive_image
from torpor.adapters.guest.agent import over_socket
from torpor.adapters.guest.guest import AgentGuest, Ethernet
from torpor.adapters.images.store import ImageStore
from torpor.adapters.names.dnsmasq import DnsmasqNames
from torpor.adapters.names.process import DnsmasqSettings
from torpor.adapters.no_adoption import NoAdoption
from torpor.adapters.no_batch_system import NoBatchSystem
from torpor.adapters.qemu.backend import make_backend
from torpor.adapters.qemu.layout import Layout
from torpor.adapters.qemu.network import BridgeNetwork, NetworkSettings
from torpor.adapters.qemu.settings import QemuSettings
from torpor.adapters.sql import open_records
from torpor.config import Config
from torpor.domain.errors import MissingPart, TorporError
from torpor.domain.ids import HostId
from torpor.domain.plan import Policy
from torpor.engine.execute import Executor
from torpor.engine.guests import GuestWatch
from torpor.engine.loop import Loop
from torpor.engine.parts import Parts, Settings
from torpor.engine.queue import Queue
from torpor.engine.reading import Reader
from torpor.engine.records import Records
from torpor.engine.scrub import Scrub
from torpor.engine.service import Service
from torpor.engine.states import StateKeeper
from torpor.ports import Check, Diagnostics, Names

log = logging.getLogger(__name__)


class WallClock:
    """The machine's own clock."""

    def now(self) -> float:
        return time.time()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


@dataclass(frozen=True, slots=True)
class _Doctor:
    """The hypervisor's checks and the network's, as one."""

    qemu: Diagnostics
    network: BridgeNetwork

    def checks(self) -> Sequence[Check]:
        return (*self.qemu.checks(), *self.network.checks())

    def self_test(self, progress: Callable[[str], None]) -> Check:
        return self.qemu.self_test(progress)


@dataclass(frozen=True, slots=True)
class App:
    """The daemon's inside: what it starts, stops and offers."""

    service: Service
    _loop: Loop
    _queue: Queue
    _network: BridgeNetwork
    _names: Names
    _stop_names: Callable[[], None]

    def start(self) -> None:
        """Recover what a crash left, then begin to act."""
        for ensure in (self._network.ensure, self._names.ensure):
            try:
                ensure()
            except TorporError as error:
                # VMs and their states are looked after all the same; `torpor doctor` tells.
                log.warning("%s", error)
        self._queue.start()
        self._loop.start()

    def stop(self) -> None:
        """Come to rest: the operation under way ends, or goes on at the next start where it takes too long."""
        self._loop.stop()

    def remove_network(self) -> None:
        """End the name server and remove bridge, taps and namespace. Converges."""
        self._stop_names()
        self._network.remove()


def build(config: Config) -> App:
    """Everything, bound and at rest. Raises MissingPart, Conflict, StateDamaged."""
    return assemble(config, parts(config))


def network(config: Config) -> BridgeNetwork:
    section = config.network
    return BridgeNetwork(NetworkSettings(section.namespace, section.interface, section.subnet, section.nat))


def names(config: Config) -> DnsmasqNames:
    section = config.network
    return DnsmasqNames(
        DnsmasqSettings(
            directory=config.state_dir / "names",
            listen_address=section.gateway,
            zone=section.zone,
            subnet=section.subnet,
            forwarders=tuple(str(address) for address in section.forwarders),
        )
    )


def parts(config: Config) -> Parts:
    """The ports on QEMU, dnsmasq and SQLite, with everything below `state_dir`."""
    _prepare(config)
    images = ImageStore(config.state_dir / "images")
    layout = Layout(config.state_dir)
    guest = AgentGuest(
        over_socket(lambda i: layout.instance(i).agent_socket),
        lambda _: Ethernet(config.network.interface, config.network.gateway),
        link_up=lambda i: backend.vms.require(i).set_link(up=True),
    )
    bridge = network(config)
    settings = _qemu_settings(config)
    backend = make_backend(settings, images, config_drive_image, bridge, guest)
    ledger, journal, inventory, history = open_records(config.state_dir)
    return Parts(
        hypervisor=backend.hypervisor,
        gangs=backend.gangs,
        suspension=backend.suspension,
        states=backend.states,
        guest=guest,
        names=names(config),
        batch_system=NoBatchSystem(),
        images=images,
        diagnostics=_Doctor(backend.diagnostics, bridge),
        ledger=ledger,
        journal=journal,
        inventory=inventory,
        history=history,
        clock=WallClock(),
        snapshots=backend.snapshots,
        adoption=NoAdoption(),
    )


def assemble(config: Config, bound: Parts) -> App:
    """The engine on these ports."""
    settings = _settings(config)
    records = Records(bound)
    executor = Executor(bound, records, settings)
    queue = Queue(bound, records, settings, executor)
    loop = Loop(bound, queue, GuestWatch(bound, records, settings), Scrub(bound, records, executor))
    reader = Reader(bound, records, settings, executor, queue)
    service = Service(bound, records, settings, loop, reader, StateKeeper(bound, records, settings, executor))
    return App(service, loop, queue, network(config), bound.names, lambda: names(config).stop())


def _prepare(config: Config) -> None:
    """Others may pass through the state directory (QEMU's user and dnsmasq's must), and read nothing there."""
    try:
        config.state_dir.mkdir(parents=True, exist_ok=True)
        config.state_dir.chmod(0o711)
    except OSError as error:
        raise MissingPart(
            f"state directory {config.state_dir} can't be prepared",
            detail=error.strerror or str(error),
            remedy="make it writable for root, or set `state_dir` to another",
        ) from error


def _qemu_settings(config: Config) -> QemuSettings:
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


def _settings(config: Config) -> Settings:
    policy = config.policy
    return Settings(
        policy=Policy(policy.min_run_seconds, policy.max_victims, config.qemu.overhead_mb, config.host.states_mb),
        subnet=str(config.network.subnet),
        zone=config.network.zone,
        stop_grace=policy.stop_grace_seconds,
        boot_grace=policy.boot_grace_seconds,
        max_attempts=policy.max_attempts,
        console_log=str(config.state_dir / "instances" / "{instance}" / "console.log"),
        ssh_keys=config.ssh_authorized_keys,
    )

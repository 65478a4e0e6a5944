"""One domain's part of a live snapshot: libvirt writes its memory while it runs, and freezes its disks as it ends."""

import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import libvirt

from torpor.adapters.libvirt.chains import live_xml, tidy
from torpor.adapters.libvirt.connection import Connection
from torpor.adapters.libvirt.domains import Domains, Vm
from torpor.adapters.libvirt.layers import Layer, Layers, new_path
from torpor.adapters.libvirt.overlay import sync_file
from torpor.adapters.libvirt.snapshot_files import FrozenDisk, SnapshotFiles, SnapshotFolder, SnapshotManifest
from torpor.adapters.libvirt.snapshot_xml import FileDisk, disks_to_keep, snapshot_xml
from torpor.domain.errors import BackendFailed, TorporError
from torpor.domain.instance import BackendState
from torpor.ports import Progress

_EVENT_SECONDS = 5.0
"""How long libvirt may take to tell that a domain runs on, once it does."""
_FLAGS = libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_ATOMIC | libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_NO_METADATA
ENOUGH = 2
"""Times its memory: a guest that writes faster than libvirt is stopped once that much was written."""


class _Standstill:
    """When the domain stood still, by libvirt's events."""

    def __init__(self) -> None:
        self.stopped_at: float | None = None
        self.runs_on = threading.Event()
        self.seconds = 0.0
        self._since = 0.0

    def hear(self, _host: object, _domain: object, event: int, _detail: int, _: object) -> None:
        """In libvirt's thread."""
        if event == libvirt.VIR_DOMAIN_EVENT_SUSPENDED and self.stopped_at is None:
            self.stopped_at, self._since = time.time(), time.monotonic()
        elif event == libvirt.VIR_DOMAIN_EVENT_RESUMED and self._since and not self.runs_on.is_set():
            self.seconds = time.monotonic() - self._since
            self.runs_on.set()


@dataclass(slots=True)
class Take:
    """A snapshot that is being taken of one domain. It has a connection of its own: libvirtd serves few calls of one
    client at a time, and these are long."""

    domains: Domains
    vm: Vm
    ran: bool
    files: SnapshotFiles
    folder: SnapshotFolder
    disks: tuple[FileDisk, ...]
    overlays: Mapping[str, Path]
    memory_most: int
    """Bytes that its guest may have."""
    connection: Connection
    standstill: _Standstill = field(default_factory=_Standstill)
    memory_bytes: int = 0
    held: bool = False
    woken: bool = False

    def run(self) -> None:
        """Returns when libvirt is done."""
        live = libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_LIVE if self.ran else 0
        xml = snapshot_xml(live_xml(self.vm), self.folder.name, self.folder.memory.path, self.overlays)
        domain = self.connection.require(self.vm.id)
        with self.connection.call(f"no snapshot is taken of domain {self.vm.name}") as host:
            if self.ran:  # one that stood still before tells nothing
                host.domainEventRegisterAny(domain, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, self.standstill.hear, None)
            began = time.time()
            domain.snapshotCreateXML(xml, _FLAGS | live)
            stats = domain.jobStats(libvirt.VIR_DOMAIN_JOB_STATS_COMPLETED)
        self.memory_bytes = min(int(stats.get("memory_normal_bytes", 0)), self.memory_most)
        if self.ran:
            self.standstill.runs_on.wait(_EVENT_SECONDS)
        if self.standstill.stopped_at is None:
            self.standstill.stopped_at = time.time() if self.ran else began
            self.standstill.seconds = int(stats.get("downtime", 0)) / 1000 if self.ran else 0.0
        self.let_run()

    def written(self) -> int:
        """Bytes that are in the memory's file by now."""
        with suppress(OSError):
            return self.folder.memory.path.stat().st_size
        return 0

    def hold_if_endless(self) -> None:
        """A guest that makes more to write than is written stands still until it is over."""
        if self.ran and not self.held and self.written() > ENOUGH * self.memory_most:
            self.held = True
            with suppress(TorporError):
                self.vm.suspend()

    def call_off(self) -> None:
        """Converges; libvirt may take a while to heed it."""
        with suppress(TorporError), self.vm.connection.call("the snapshot can't be called off"):
            self.vm.domain.abortJob()

    def manifest(self, progress: Progress) -> SnapshotManifest:
        """All of it durable, and read once."""
        self.folder.memory.sync()
        checksum = self.folder.memory.checksum(progress)
        if not self.folder.memory.is_whole():
            raise BackendFailed(f"no snapshot is taken of {self.vm.name}", detail="libvirt did not write all of it")
        disks = tuple(_frozen(disk) for disk in self.disks)
        return SnapshotManifest(
            self.folder.name,
            self.standstill.stopped_at or time.time(),
            round(self.standstill.seconds, 6),
            checksum,
            self.memory_bytes or self.written(),
            sum(self._room(disk) for disk in self.disks),
            disks,
        )

    def let_run(self) -> None:
        """If it still stands still for us. What can't be asked because it is gone need not be asked.

        One that stood still before runs for a moment: until it has, QEMU neither saves it again nor writes its disks.
        """
        with suppress(TorporError):
            if self.ran and self.vm.state() is BackendState.PAUSED:
                self.vm.resume()
            elif not self.ran and not self.woken:
                self.woken = True
                self.vm.resume()
                self.vm.suspend()

    def undo(self) -> None:
        """Nothing is left of the snapshot; a disk that has a layer more goes on in it until that can be merged."""
        self.let_run()
        self.files.remove(self.folder.name)
        tidy(self.domains, self.vm)

    def _room(self, disk: FileDisk) -> int:
        """An owner's disk is not in our books, and neither is what lies beside it."""
        own = self.vm.folder.path in disk.path.parents
        return disk.path.stat().st_blocks * 512 if own else 0


def begin_take(domains: Domains, vm: Vm, name: str, ran: bool) -> Take:
    """Everything is noted that libvirt is about to make. Raises Refused, StateDamaged, OSError."""
    disks = tuple(disks_to_keep(live_xml(vm), vm.name))
    files, layers = SnapshotFiles(vm.folder), Layers(vm.folder.layers)
    taken = {layer.path for layer in layers.all()}
    new = [Layer(disk.target, new_path(disk.path, name, taken), disk.path, disk.format) for disk in disks]
    for disk in disks:
        sync_file(disk.path)  # so that there is little to write out while the guest stands still
    layers.enter(new)
    folder = files.begin(name)
    overlays = {layer.target: layer.path for layer in new}
    connection = Connection(vm.connection.uri)
    return Take(domains, vm, ran, files, folder, disks, overlays, vm.memory_bytes(), connection)


def _frozen(disk: FileDisk) -> FrozenDisk:
    sync_file(disk.path)
    found = disk.path.stat()
    return FrozenDisk(disk.target, str(disk.path), disk.format, found.st_size, found.st_mtime_ns)

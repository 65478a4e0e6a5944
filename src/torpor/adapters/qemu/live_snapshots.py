"""Live snapshots: implements the `Snapshots` port."""

import errno
import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace

from torpor.adapters.qemu import background, disks, origin, snapshots, transfer
from torpor.adapters.qemu.background import Background
from torpor.adapters.qemu.fitting import fitting_machine, manifest_of, running_machine
from torpor.adapters.qemu.layout import InstanceFolder
from torpor.adapters.qemu.machine import prepare_seed
from torpor.adapters.qemu.sink import Sink
from torpor.adapters.qemu.snapshot_files import SnapshotFiles, SnapshotFolder, SnapshotManifest, disk_snapshot_name
from torpor.adapters.qemu.spec_file import read_spec, write_spec
from torpor.adapters.qemu.state_files import StateFiles, Writer
from torpor.adapters.qemu.stream import check_stream, write_stream
from torpor.adapters.qemu.vms import Vm, Vms, unable
from torpor.domain.errors import BackendFailed, Conflict, NoRoomForState, NotFound, StateDamaged, TorporError
from torpor.domain.ids import InstanceId
from torpor.domain.instance import BackendState, InstanceSpec, Mechanism, Snapshot
from torpor.files import sync_folder
from torpor.ports import Disk, Progress

log = logging.getLogger(__name__)

_AHEAD_BYTES = 256 << 20
"""Of streams that wait in memory for the disk, all VMs of a snapshot together."""
_LOOK_SECONDS = 0.02


class QemuSnapshots:
    """Memory, device state and disk of one instant, while the VM runs on."""

    def __init__(self, vms: Vms, config_drive: Callable[[InstanceSpec], bytes]) -> None:
        self._vms = vms
        self._config_drive = config_drive

    def take(self, specs: Sequence[InstanceSpec], name: str, progress: Progress) -> Sequence[Snapshot]:
        """A VM that runs on a file's pages (lazy restore) stands still until all of its memory is written."""
        with ExitStack() as stack, _explained(name):
            for spec in sorted(specs, key=lambda s: s.id):
                stack.enter_context(self._vms.exclusive(spec.id))
            takes = [stack.enter_context(self._opened(spec, name, len(specs))) for spec in specs]
            if any(take.live for take in takes) and background.allow_userfaultfd():
                log.info("vm.unprivileged_userfaultfd is 1 now: live snapshots need it")
            self._begin(takes)
            _await_all(takes, progress)
            written = [take.end() for take in takes]
            done = [take.publish(manifest) for take, manifest in zip(takes, written, strict=True)]
            for take in takes:
                take.whole = True
            return [folder.snapshot() for folder in done]

    def list(self, instance: InstanceId) -> Sequence[Snapshot]:
        with _explained(instance):
            found = []
            for folder in SnapshotFiles(self._vms.layout.instance(instance)).all():
                with suppress(StateDamaged):  # `verify` and `lay_down` tell what is wrong with it
                    found.append(folder.snapshot())
            return found

    def remove(self, instance: InstanceId, name: str) -> None:
        with self._vms.exclusive(instance), _explained(name):
            folder, vm = self._vms.layout.instance(instance), self._vms.find(instance)
            if vm:
                background.end_stream(vm)  # of a daemon that died; without one it is nothing
            SnapshotFiles(folder).remove(name)
            snapshots.delete_named(folder, vm, disk_snapshot_name(name))

    def verify(self, instance: InstanceId, name: str, progress: Progress) -> None:
        with _explained(name):
            found = self._find(instance, name)
            manifest = found.manifest().state
            fitting_machine(self._vms, read_spec(self._vms.layout.instance(instance).spec), manifest)
            check_stream(found.stream, manifest.device_checksum, lambda done, total: progress(2 * done, total))

    def lay_down(self, spec: InstanceSpec, source: InstanceId, name: str) -> None:
        with self._vms.exclusive(spec.id), _explained(name):
            if self._vms.find(spec.id):
                raise Conflict(
                    f"instance {spec.name} can't become what snapshot {name} has",
                    detail="it has a process",
                    remedy="stop it first",
                )
            found = self._find(source, name)
            manifest = found.manifest().state
            fitting_machine(self._vms, spec, manifest)
            folder = self._vms.layout.instance(spec.id)
            files = StateFiles(folder)
            newest, whole = files.newest(), files.whole()
            if whole and (whole.manifest().snapshot, whole.manifest().created_at) == (name, manifest.created_at):
                return
            if whole:
                files.mark_spent(whole)  # its disk is about to be another; `revert` would take it back
            if spec.id != source:
                self._make_instance(spec, folder, source, name, anew=newest is not None)
            elif folder.disk.exists():
                disks.become(folder.disk, disk_snapshot_name(name))
            number = newest.number + 1 if newest else 1
            with files.new(number) as state:
                os.link(found.stream, state.stream)
                sync_folder(state.path)
                if folder.disk.exists():
                    disks.keep(folder.disk, number)
                laid = replace(
                    manifest,
                    instance=spec.id,
                    generation=number,
                    writer=Writer(0, 0),
                    origin=None if spec.id == source else source,
                    snapshot=name,
                )
                files.publish(state, laid)

    # Parts of the above

    @staticmethod
    def _begin(takes: "Sequence[_Take]") -> None:
        """All stand still at one instant; all that ran run again on return, whatever happened."""
        try:
            with ThreadPoolExecutor(len(takes), thread_name_prefix="snapshot") as pool:
                _together(pool, _Take.prepare, takes)
                _together(pool, _Take.stand_still, takes)
                _together(pool, _Take.go_on, takes)
        finally:
            for take in takes:
                take.let_run()

    @contextmanager
    def _opened(self, spec: InstanceSpec, name: str, count: int) -> Iterator["_Take"]:
        """A snapshot of one VM; unless it becomes `whole`, nothing is left of it, and the VM is as it was."""
        vm = self._vms.require(spec.id)
        state = vm.state()
        if state not in (BackendState.RUNNING, BackendState.PAUSED):
            raise unable(spec.name, "be kept in a snapshot", state, "let it run first")
        files = SnapshotFiles(vm.folder)
        if files.find(name):
            raise Conflict(f"there is a snapshot {name} of {spec.name} already", remedy="remove it first")
        ran = state is BackendState.RUNNING
        live = ran and not origin.is_mapped(vm)
        with files.new(name) as folder:
            transfer.require_room(folder.path, spec.flavor.memory_mb << 20)
            take = _Take(self._vms, vm, spec, files, folder, ran)
            if live:
                take.live = Background(vm, Sink(folder.stream, _AHEAD_BYTES // count), spec.flavor.memory_mb << 20)
            try:
                yield take
            finally:
                if not take.whole:
                    take.undo()

    def _find(self, instance: InstanceId, name: str) -> SnapshotFolder:
        found = SnapshotFiles(self._vms.layout.instance(instance)).find(name)
        if found is None:
            raise NotFound(f"instance {instance} has no snapshot {name!r}", remedy="see `torpor snapshot ls`")
        return found

    def _make_instance(
        self, spec: InstanceSpec, folder: InstanceFolder, source: InstanceId, name: str, *, anew: bool
    ) -> None:
        """Folder, config drive and disk of a clone; `anew`: the disk that it has got is another's by now. Converges."""
        boot = self._vms.machine(spec).boot
        self._vms.make_folders(folder)
        prepare_seed(folder, self._config_drive(spec))
        if isinstance(boot, Disk):
            if anew:
                folder.disk.unlink(missing_ok=True)
            original = self._vms.layout.instance(source).disk
            disks.copy_snapshot(original, disk_snapshot_name(name), boot, folder.disk, self._vms.settings.user)
        write_spec(folder.spec, spec)
        sync_folder(self._vms.layout.instances_dir)


@dataclass(slots=True)
class _Take:
    """A snapshot that is being taken of one VM."""

    vms: Vms
    vm: Vm
    spec: InstanceSpec
    files: SnapshotFiles
    folder: SnapshotFolder
    ran: bool
    live: Background | None = None
    whole: bool = False
    stopped: bool = False
    stopped_at: float = 0.0
    """By the monotonic clock."""
    instant: float = 0.0
    """Since the epoch."""
    pause: float = 0.0
    stream: tuple[str, int] = ("", 0)

    def prepare(self) -> None:
        if self.vm.folder.disk.exists():
            disks.sync_file(self.vm.folder.disk)  # so that there is little to write out while the guest stands still
        if self.live:
            self.live.prepare()

    def stand_still(self) -> None:
        self.stopped_at, self.stopped = time.monotonic(), self.ran
        if self.ran:
            self.vm.execute("stop")
        self.instant = time.time()

    def go_on(self) -> None:
        """Keep the disk, and let the guest run as soon as its memory can't be lost any more."""
        snapshots.keep_named(self.vm, disk_snapshot_name(self.folder.name))
        if self.live:
            self.live.begin()
        else:
            self.stream = write_stream(self.vm, self.folder.stream, _ignore)
            if self.ran:
                self.vm.execute("cont")
        self.stopped = False
        self.pause = time.monotonic() - self.stopped_at if self.ran else 0.0

    def end(self) -> SnapshotManifest:
        if self.live:
            self.stream = self.live.end()
        disk_bytes = 0
        if self.vm.folder.disk.exists():
            disks.sync_file(self.vm.folder.disk)
            disk_bytes = min(self.vm.folder.disk.stat().st_blocks * 512, self.spec.flavor.disk_mb << 20)
        digest, memory = self.stream
        written = transfer.Written({}, None, digest, memory, self.folder.stream.stat().st_blocks * 512)
        machine = running_machine(self.vms, self.vm, self.spec)
        sizes = dict(origin.blocks(self.vm))
        state = manifest_of(self.vm, machine, 0, Mechanism.STREAM, sizes, written)
        return SnapshotManifest(
            self.folder.name, round(self.pause, 6), disk_bytes, replace(state, created_at=self.instant)
        )

    def publish(self, manifest: SnapshotManifest) -> SnapshotFolder:
        return self.files.publish(self.folder, manifest)

    def let_run(self) -> None:
        """If it still stands still for us. What can't be asked because it is gone need not be asked."""
        if self.stopped:
            with suppress(TorporError):
                self.vm.execute("cont")
            self.stopped = False

    def undo(self) -> None:
        """Nothing is left of the snapshot. What QEMU can't do because it is gone is not needed."""
        if self.live:
            self.live.give_up()
        self.files.remove(self.folder.name)
        with suppress(TorporError):
            vm = self.vm if self.vm.process.alive() else None
            snapshots.delete_named(self.vm.folder, vm, disk_snapshot_name(self.folder.name))


def _together(pool: ThreadPoolExecutor, act: Callable[[_Take], None], takes: Sequence[_Take]) -> None:
    """`act` on all at once. Returns when all have ended; the first failure is raised."""
    futures = [pool.submit(act, take) for take in takes]
    wait(futures)
    for future in futures:
        future.result()


def _await_all(takes: Sequence[_Take], progress: Progress) -> None:
    """Until every stream is over."""
    running = [take.live for take in takes if take.live]
    last, moved_at = -1, time.monotonic()
    while True:
        seen = [live.progress() for live in running]
        done, total = sum(d for _, d, _ in seen), sum(t for _, _, t in seen)
        progress(done, total)
        if all(over for over, _, _ in seen):
            return
        if done != last:
            last, moved_at = done, time.monotonic()
        background.require_moving(moved_at)
        time.sleep(_LOOK_SECONDS)


@contextmanager
def _explained(what: str) -> Iterator[None]:
    """What the file system refuses, as one sentence."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise NoRoomForState(
                f"snapshot {what} can't be written",
                detail=f"the disk is full ({error.strerror})",
                remedy="make room below state_dir",
            ) from error
        raise BackendFailed(
            f"the files of snapshot {what} can't be reached",
            detail=f"{error.filename or 'its folder'}: {error.strerror or error}",
            remedy="look at the disk below state_dir",
        ) from error


def _ignore(done: int, total: int) -> None:
    """Progress that nobody watches."""

"""What lies on disk of saved states: implements the `StateStore` port."""

import os
from collections.abc import Iterator, Set
from contextlib import contextmanager
from pathlib import Path

from torpor.adapters.qemu import origin, snapshots, transfer
from torpor.adapters.qemu.disk_speed import DiskSpeed
from torpor.adapters.qemu.estimate import Estimates
from torpor.adapters.qemu.layout import InstanceFolder
from torpor.adapters.qemu.state_files import Generation, StateFiles
from torpor.adapters.qemu.vms import Vms
from torpor.domain.errors import BackendFailed, Conflict, InstanceGone, NotFound, StateDamaged
from torpor.domain.ids import InstanceId
from torpor.files import remove_tree
from torpor.ports import Progress


class QemuStateStore:
    """Verifies, removes and tidies up; never touches a state that something still needs."""

    def __init__(self, vms: Vms) -> None:
        self._vms = vms
        self._estimates = Estimates(DiskSpeed(vms.settings.state_dir))

    def verify(self, instance: InstanceId, generation: int, progress: Progress) -> None:
        """The instance may be suspended, resumed or deleted meanwhile: a state that goes is not found."""
        state = self._find(instance, generation)
        size = 0

        def told(done: int, total: int) -> None:
            nonlocal size
            size = total
            progress(done, total)

        try:
            with _explained(instance):
                transfer.check_parts(state, state.manifest(), told)
        except (StateDamaged, BackendFailed) as error:
            if not state.path.exists():
                raise _unknown(instance, generation) from error
            raise
        progress(size, size)  # of a stream it was told as half of a restore

    def remove(self, instance: InstanceId, generation: int) -> None:
        with self._vms.exclusive(instance), _explained(instance):
            state = self._find(instance, generation)
            files = StateFiles(self._vms.layout.instance(instance))
            if not state.spent:
                raise Conflict(
                    f"saved state {generation} of instance {instance} can't be removed",
                    detail="it is whole: nothing else is left of the instance's memory",
                    remedy="resume the workload, or delete it",
                )
            if self.mapped(instance) and state == files.newest():
                raise Conflict(
                    f"saved state {generation} of instance {instance} can't be removed",
                    detail="the instance runs on it, its pages are read as they are touched",
                    remedy="suspend the workload; its next state takes the place of this one",
                )
            files.remove(state)
            folder = self._vms.layout.instance(instance)
            snapshots.keep_only(folder, self._vms.find(instance), {kept.number for kept in files.all()})

    def collect(self, known: Set[InstanceId]) -> int:
        return sum(self._collect(folder, folder.id in known) for folder in self._vms.layout.instances())

    def to_write(self, instance: InstanceId) -> int:
        vm = self._vms.find(instance)
        return self._estimates.to_write(vm) if vm else 0

    def mapped(self, instance: InstanceId) -> bool:
        vm = self._vms.find(instance)
        if vm is None:
            return False
        try:
            return origin.is_mapped(vm)
        except InstanceGone:
            return False

    def _find(self, instance: InstanceId, generation: int) -> Generation:
        for state in StateFiles(self._vms.layout.instance(instance)).all():
            if state.number == generation:
                return state
        raise _unknown(instance, generation)

    def _collect(self, folder: InstanceFolder, known: bool) -> int:
        """Nobody writes a state while we hold the instance, so what is half written has no writer any more."""
        with self._vms.exclusive(folder.id), _explained(folder.id):
            before = _bytes_below(folder.path)
            if not known and self._vms.find(folder.id) is None:
                self._vms.remove_tap(folder.id)
                remove_tree(folder.path)
            else:
                StateFiles(folder).sweep()
            return max(0, before - _bytes_below(folder.path))


def _unknown(instance: InstanceId, generation: int) -> NotFound:
    return NotFound(f"instance {instance} has no saved state {generation}", remedy="see `torpor state ls`")


def _bytes_below(folder: Path) -> int:
    """Room on disk; a file with several names counts once."""
    seen: set[int] = set()
    total = 0
    for path, _, names in os.walk(folder):
        for name in names:
            try:
                found = Path(path, name).lstat()
            except FileNotFoundError:
                continue  # QEMU takes its sockets away when it ends
            total += found.st_blocks * 512 if found.st_ino not in seen else 0
            seen.add(found.st_ino)
    return total


@contextmanager
def _explained(instance: InstanceId) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise BackendFailed(
            f"the saved states of instance {instance} can't be reached",
            detail=f"{error.filename or 'their folder'}: {error.strerror or error}",
            remedy="look at the disk below state_dir",
        ) from error

"""Live snapshots: implements the `Snapshots` port."""

import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, suppress

from torpor.adapters.libvirt.chains import tidy
from torpor.adapters.libvirt.domains import Domains, Vm, unable
from torpor.adapters.libvirt.laying_down import check_disks, lay, partial_image
from torpor.adapters.libvirt.layout import free_bytes
from torpor.adapters.libvirt.live_take import ENOUGH, Take, begin_take
from torpor.adapters.libvirt.managed_saves import check
from torpor.adapters.libvirt.saved_states import SavedStates, saved_states
from torpor.adapters.libvirt.saving import await_end_of_job
from torpor.adapters.libvirt.snapshot_files import SnapshotFiles, explained
from torpor.domain.errors import Conflict, NoRoomForState, Refused, StateDamaged, TimedOut, TorporError
from torpor.domain.ids import InstanceId
from torpor.domain.instance import BackendState, InstanceSpec, Snapshot
from torpor.ports import Progress

_LOOK_SECONDS = 0.05
_HEAD_ROOM = 16 << 20
"""Bytes that an image has beside guest memory."""


class LibvirtSnapshots:
    """Memory and disks of one instant, while the domain runs on. Its disks go on in new layers; see `chains`."""

    def __init__(self, domains: Domains) -> None:
        self._domains = domains

    def take(self, specs: Sequence[InstanceSpec], name: str, progress: Progress) -> Sequence[Snapshot]:
        """A domain's instant is when libvirt has written its memory: within a gang they differ, see `created_at`.

        Raises Refused where a disk can't be frozen.
        """
        takes: list[Take] = []
        with ExitStack() as stack, explained(name):
            for spec in sorted(specs, key=lambda s: s.id):
                stack.enter_context(self._domains.exclusive(spec.id))
            vms = [self._fit(spec, name) for spec in specs]
            self._require_room(name, vms)
            try:
                for vm in vms:
                    runs = vm.state() is BackendState.RUNNING
                    takes.append(begin_take(self._domains, vm, name, runs))
                self._run(takes, progress)
                manifests = [take.manifest(_ignore) for take in takes]
                whole = [take.files.publish(take.folder, m) for take, m in zip(takes, manifests, strict=True)]
                return [folder.snapshot(vm.id) for folder, vm in zip(whole, vms, strict=True)]
            except BaseException:
                for take in takes:
                    with suppress(TorporError, OSError):
                        take.undo()
                raise
            finally:
                for take in takes:
                    take.connection.close()

    def list(self, instance: InstanceId) -> Sequence[Snapshot]:
        with explained(instance):
            found = []
            for folder in SnapshotFiles(self._domains.layout.instance(instance)).all():
                with suppress(StateDamaged):  # `verify` and `lay_down` tell what is wrong with it
                    found.append(folder.snapshot(instance))
            return found

    def remove(self, instance: InstanceId, name: str) -> None:
        """The layers that were there for its sake are merged as far as that goes now. Those of a suspended domain
        stay, for its image names them, and those below what another snapshot needs: until a later call finds them.

        Of a domain that is not ours any more the memory is removed; its disks are its owner's as they are.
        """
        with self._domains.exclusive(instance), explained(name):
            try:
                vm = self._domains.find(instance)
            except Conflict:
                vm = None
            if vm:
                self._await(vm)
            SnapshotFiles(self._domains.layout.instance(instance)).remove(name)
            if vm:
                partial_image(self._states(vm).image).unlink(missing_ok=True)
                tidy(self._domains, vm)

    def verify(self, instance: InstanceId, name: str, progress: Progress) -> None:
        """That nobody wrote to a frozen disk is told by its size and time of change: reading it would take too long."""
        with explained(name):
            found = SnapshotFiles(self._domains.layout.instance(instance)).require(name)
            manifest = found.manifest()
            check_disks(manifest)
            try:
                check(found.memory, manifest.checksum, progress)
            except FileNotFoundError as error:
                raise StateDamaged(
                    f"snapshot {name} can't be used",
                    detail=f"{found.memory.path} is not there",
                    remedy="remove it, and take another",
                ) from error

    def lay_down(self, spec: InstanceSpec, source: InstanceId, name: str) -> None:
        """Raises Refused for another instance than `source`: an image keeps the UUID that it has."""
        if spec.id != source:
            raise Refused(
                f"instance {spec.name} can't become what snapshot {name} has",
                detail="libvirt restores a domain's memory as that domain only",
                remedy="go back to the snapshot with the VM that it is of",
            )
        with self._domains.exclusive(spec.id), explained(name):
            found = SnapshotFiles(self._domains.layout.instance(source)).require(name)
            vm = self._domains.find(spec.id)
            if vm is None or vm.active():
                raise Conflict(
                    f"instance {spec.name} can't become what snapshot {name} has",
                    detail="it has a process" if vm else "libvirt has no such domain any more",
                    remedy="stop it first" if vm else "define it anew, with the same UUID and disks",
                )
            lay(vm, self._states(vm), found)
            tidy(self._domains, vm)

    # Parts of the above

    def _states(self, vm: Vm) -> SavedStates:
        return saved_states(vm, self._domains.settings.save_dir)

    def _await(self, vm: Vm) -> None:
        """The end of a snapshot that an earlier life began, which libvirt goes on with."""
        await_end_of_job(vm, self._domains.settings.save_timeout)

    def _fit(self, spec: InstanceSpec, name: str) -> Vm:
        """Raises InstanceGone, and Conflict where no snapshot can be taken now."""
        vm = self._domains.require(spec.id)
        self._await(vm)
        state = vm.state()
        if state not in (BackendState.RUNNING, BackendState.PAUSED):
            raise unable(spec.name, "be kept in a snapshot", state, "let it run first")
        if SnapshotFiles(vm.folder).find(name):
            raise Conflict(f"there is a snapshot {name} of {spec.name} already", remedy="remove it first")
        if self._states(vm).image.is_there():
            raise Conflict(
                f"instance {spec.name} can't be kept in a snapshot",
                detail="it is being resumed: its saved state is still needed, with its disks as they are",
                remedy="let it run first",
            )
        tidy(self._domains, vm)
        return vm

    def _require_room(self, name: str, vms: Sequence[Vm]) -> None:
        """A guest that runs may write its memory once more while it is being saved. Raises NoRoomForState."""
        most = sum(
            self._domains.resident_bytes(vm) * (ENOUGH if vm.state() is BackendState.RUNNING else 1) + _HEAD_ROOM
            for vm in vms
        )
        folder = self._domains.layout.state_dir
        free = free_bytes(folder)
        if most > free:
            raise NoRoomForState(
                f"snapshot {name} can't be written",
                detail=f"it may take {most >> 20} MiB, {free >> 20} MiB are free in {folder}",
                remedy=f"make room in {folder}",
            )

    def _run(self, takes: Sequence[Take], progress: Progress) -> None:
        """All begin at once. When one fails, or time is over, the others are called off; a failure is raised."""
        deadline = time.monotonic() + self._domains.settings.save_timeout
        late, total = False, sum(take.memory_most for take in takes)
        with ThreadPoolExecutor(len(takes), thread_name_prefix="snapshot") as pool:
            running = {pool.submit(take.run): take for take in takes}
            while left := [take for future, take in running.items() if not future.done()]:
                late = time.monotonic() > deadline
                for take in left:
                    take.call_off() if late or _any_failed(running) else take.hold_if_endless()
                progress(min(total, sum(take.written() for take in takes)), total)
                wait(running, _LOOK_SECONDS)
        for take in takes:
            take.let_run()  # one may have been stopped in the very moment in which it was over
        for future in running:
            try:
                future.result()
            except TorporError as error:
                if not late:
                    raise
                raise TimedOut(
                    "no snapshot was taken in time",
                    detail=f"after {self._domains.settings.save_timeout:g} s it was called off",
                    remedy="see why the disk is slow, or raise libvirt.save_timeout",
                ) from error
        progress(total, total)


def _any_failed(running: "dict[Future[None], Take]") -> bool:
    return any(future.done() and future.exception() for future in running)


def _ignore(done: int, total: int) -> None:
    """Progress that nobody watches."""

"""Saved states: implements the `Suspension` port."""

import errno
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from torpor.adapters.qemu import origin, snapshots, transfer
from torpor.adapters.qemu.codec import Packing
from torpor.adapters.qemu.command_line import Incoming, Machine
from torpor.adapters.qemu.disk_speed import DiskSpeed
from torpor.adapters.qemu.fitting import fitting_machine, manifest_of, running_machine
from torpor.adapters.qemu.installed import Accelerator
from torpor.adapters.qemu.machine import prepare_seed, quit_or_kill
from torpor.adapters.qemu.self_test_record import passed_here
from torpor.adapters.qemu.state_files import Generation, StateFiles, Writer
from torpor.adapters.qemu.stream import write_stream
from torpor.adapters.qemu.transfer import Saving
from torpor.adapters.qemu.vms import Vm, Vms, unable
from torpor.domain.errors import BackendFailed, Conflict, NoRoomForState, TorporError
from torpor.domain.ids import InstanceId
from torpor.domain.instance import BackendState, Codec, InstanceSpec, Mechanism, SavedState
from torpor.ports import Progress

_STILL = (BackendState.PAUSED, BackendState.IO_ERROR)


class QemuSuspension:
    """Memory, device state and disk of paused VMs to disk and back."""

    def __init__(
        self, vms: Vms, config_drive: Callable[[InstanceSpec], bytes], mechanism: Mechanism | None = None
    ) -> None:
        """`mechanism` overrides the choice, which is made by accelerator and self-test."""
        self._vms = vms
        self._config_drive = config_drive
        self._mechanism = mechanism
        settings = vms.settings
        packing = None if settings.codec == "auto" else Packing(Codec(settings.codec), settings.codec_level)
        if settings.codec == "auto" and settings.restore == "lazy":
            packing = Packing(Codec.NONE)  # what is packed can't be mapped
        self._saving = Saving(settings.save_threads, packing, DiskSpeed(settings.state_dir))

    def save(self, spec: InstanceSpec, progress: Progress) -> SavedState:
        with self._vms.exclusive(spec.id):
            vm = self._vms.require(spec.id)
            state = vm.state()
            if state not in _STILL:
                raise unable(spec.name, "be saved", state, "pause it first")
            files = StateFiles(vm.folder)
            whole = files.whole()
            if whole:
                return whole.saved_state(spec.id)
            newest = files.newest()
            with _explained(spec.name, vm):
                return self._write(vm, spec, files, newest.number + 1 if newest else 1, progress)

    def release(self, instance: InstanceId) -> None:
        with self._vms.exclusive(instance):
            vm = self._vms.find(instance)
            if vm is None:
                return
            if not StateFiles(vm.folder).whole() or vm.state() not in _STILL:
                raise Conflict(
                    f"instance {instance} can't be released",
                    detail="it is not paused with a whole saved state",
                    remedy="pause and save it first",
                )
            quit_or_kill(vm)

    def restore(self, spec: InstanceSpec, progress: Progress) -> None:
        with self._vms.exclusive(spec.id):
            files = StateFiles(self._vms.layout.instance(spec.id))
            state = _restorable(spec, files)
            vm = self._vms.find(spec.id)
            if vm:
                if self._restored_already(vm, spec):
                    return
                vm.end()
            manifest = state.manifest()
            machine = fitting_machine(self._vms, spec, manifest)
            folder = self._vms.layout.instance(spec.id)
            with _explained(spec.name, None):
                self._vms.make_folders(folder)
                prepare_seed(folder, self._config_drive(spec))
                mapped = self._vms.settings.restore == "lazy" and transfer.mappable(manifest)
                file = state.part(origin.MEMORY) if mapped else None
                vm = self._vms.start(machine, Incoming(manifest.bare or manifest.mechanism is Mechanism.MEMORY, file))
                try:
                    transfer.load_parts(vm, state, manifest, mapped, self._saving.threads, progress)
                    if manifest.origin and machine.nic:  # loading has set the link as it was in the other one
                        vm.set_link(up=False)
                except BaseException:
                    vm.end()
                    raise

    def spend(self, instance: InstanceId) -> None:
        with self._vms.exclusive(instance):
            files = self._files(instance)
            with _explained(instance, None):
                files.mark_spent(_newest(instance, files))

    def revert(self, instance: InstanceId) -> None:
        with self._vms.exclusive(instance):
            files = self._files(instance)
            newest = _newest(instance, files)
            vm = self._vms.find(instance)
            if vm:
                vm.end()
            with _explained(instance, None):
                snapshots.take_back(self._vms.layout.instance(instance), newest.number)
                files.mark_whole(newest)

    def drop(self, instance: InstanceId) -> None:
        with self._vms.exclusive(instance):
            files = self._files(instance)
            vm = self._vms.find(instance)
            with _explained(instance, None):
                files.sweep()
                whole = files.whole()
                if whole:
                    self._drop(instance, vm, files, whole)
                self._prune(instance, files, vm)

    def settle(self, instance: InstanceId) -> None:
        with self._vms.exclusive(instance):
            files = self._files(instance)
            with _explained(instance, None):
                for old in files.all()[1:]:
                    files.remove(old)
                self._prune(instance, files, self._vms.find(instance))

    def states(self, instance: InstanceId) -> Sequence[SavedState]:
        return self._files(instance).saved_states()

    # Parts of the above

    def _files(self, instance: InstanceId) -> StateFiles:
        return StateFiles(self._vms.layout.instance(instance))

    def _prune(self, instance: InstanceId, files: StateFiles, vm: Vm | None) -> None:
        """Disk contents are kept of the states that there are."""
        snapshots.keep_only(self._vms.layout.instance(instance), vm, {s.number for s in files.all()})

    def _drop(self, instance: InstanceId, vm: Vm | None, files: StateFiles, newest: Generation) -> None:
        if vm is None:
            raise Conflict(
                f"the saved state of instance {instance} is not dropped",
                detail="the instance has no process, so nothing else is left of it",
                remedy="restore it instead",
            )
        if newest.manifest().writer == Writer(vm.process.pid, vm.process.started):
            files.remove(newest)

    def _write(self, vm: Vm, spec: InstanceSpec, files: StateFiles, number: int, progress: Progress) -> SavedState:
        machine = running_machine(self._vms, vm, spec)
        sizes = dict(origin.blocks(vm))
        mechanism = self._choose(machine, sizes)
        try:
            with files.new(number) as state:
                snapshots.take(vm, number)
                if mechanism is Mechanism.MEMORY:
                    written = transfer.write_parts(vm, state, files.all(), self._saving, progress)
                else:
                    transfer.require_room(state.path, 0)
                    digest, memory_bytes = write_stream(vm, state.stream, progress)
                    written = transfer.Written({}, None, digest, memory_bytes, state.stored_bytes())
                manifest = manifest_of(vm, machine, number, mechanism, sizes, written)
                return files.publish(state, manifest).saved_state(spec.id)
        except BaseException:
            with suppress(TorporError):
                self._prune(spec.id, files, vm if vm.process.alive() else None)
            raise

    def _choose(self, machine: Machine, sizes: dict[str, int]) -> Mechanism:
        if self._mechanism:
            return self._mechanism
        qemu = self._vms.installed.qemu().version
        return choose_mechanism(machine.accelerator, sizes, self._vms.layout.self_test, qemu)

    @staticmethod
    def _restored_already(vm: Vm, spec: InstanceSpec) -> bool:
        """Whether its process stands where the state does; one that is still being filled is of no use."""
        now = vm.state()
        if now is BackendState.LOADING:
            return False
        if now is BackendState.PAUSED:
            return True
        raise unable(spec.name, "be restored", now, "it has a process; stop it first")


def choose_mechanism(accelerator: Accelerator, sizes: Mapping[str, int], self_test: Path, qemu: str) -> Mechanism:
    """How a VM with RAM blocks of these sizes is saved: by QEMU itself where our own way is not known to be safe.

    Which under TCG it is, and under KVM once the self-test of this host, whose result is in the file `self_test`, has
    passed with this version of QEMU.
    """
    if origin.unknown_blocks(sizes):
        return Mechanism.STREAM
    safe = accelerator is Accelerator.TCG or passed_here(self_test, qemu, accelerator)
    return Mechanism.MEMORY if safe else Mechanism.STREAM


def _newest(instance: InstanceId, files: StateFiles) -> Generation:
    newest = files.newest()
    if newest is None:
        raise Conflict(f"instance {instance} has no saved state", remedy="save it first")
    return newest


def _restorable(spec: InstanceSpec, files: StateFiles) -> Generation:
    newest = files.newest()
    if newest is None:
        raise Conflict(f"instance {spec.name} can't be restored", detail="it has no saved state", remedy="boot it")
    if newest.spent:
        raise Conflict(
            f"instance {spec.name} can't be restored",
            detail=f"it has run on from its saved state {newest.number}",
            remedy="revert it first",
        )
    return newest


@contextmanager
def _explained(name: str, vm: Vm | None) -> Iterator[None]:
    """What the file system refuses, as one sentence; what fails because QEMU is gone, as that."""
    try:
        yield
    except BackendFailed as error:
        if vm and not vm.process.alive():
            raise vm.gone() from error
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise NoRoomForState(
                f"the state of {name} can't be saved",
                detail=f"the disk is full ({error.strerror})",
                remedy="make room below state_dir",
            ) from error
        where = f"{Path(error.filename)}: " if isinstance(error.filename, str) else ""
        raise BackendFailed(
            f"the saved states of {name} can't be reached",
            detail=f"{where}{error.strerror or error}",
            remedy="make state_dir writable",
        ) from error

"""Saved states as libvirt's managed save images: implements the `Suspension` port."""

import errno
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import libvirt

from torpor.adapters.libvirt.domain_xml import NAMESPACE, PREFIX
from torpor.adapters.libvirt.domains import Domains, Vm, unable
from torpor.adapters.libvirt.failures import ConnectionLost, is_code
from torpor.adapters.libvirt.layout import free_bytes
from torpor.adapters.libvirt.managed_saves import Image
from torpor.adapters.libvirt.manifests import BEGUN, Manifest, Manifests
from torpor.adapters.libvirt.saved_states import SavedStates, read_through, remove_image, saved_states
from torpor.adapters.libvirt.saving import await_end_of_job, have_it_run, save_watched
from torpor.domain.errors import BackendFailed, Conflict, InstanceGone, MissingPart, NoRoomForState
from torpor.domain.ids import InstanceId
from torpor.domain.instance import BackendState, InstanceSpec, SavedState
from torpor.ports import Progress

_STILL = (BackendState.PAUSED, BackendState.IO_ERROR)
_HEAD_ROOM = 16 << 20
"""Bytes that an image has beside guest memory: its XML, device state, the stream's own."""


class LibvirtSuspension:
    """A save ends the domain's process; a restore reads the image and leaves it until it is spent."""

    def __init__(self, domains: Domains) -> None:
        self._domains = domains

    def save(self, spec: InstanceSpec, progress: Progress) -> SavedState:
        """Raises Conflict for an instance that runs."""
        with self._domains.exclusive(spec.id), explained(spec.name):
            vm = self._domains.find(spec.id)
            if vm is None:
                raise _gone(spec.name)
            await_end_of_job(vm, self._domains.settings.save_timeout)  # of an earlier save that nobody waits for
            states = self._states(vm)
            told = _Told(progress, max(1, self._domains.resident_bytes(vm)))
            state = vm.state()
            if state is BackendState.ABSENT:
                manifest = self._saved_already(vm, states, told)
            elif state not in _STILL:
                raise unable(spec.name, "be saved", state, "pause it first")
            elif whole := self._filled_from(vm, states):
                vm.destroy()
                manifest = whole
            else:
                manifest = self._write(vm, states, told)
            told.all()
            return manifest.saved_state(spec.id)

    def release(self, instance: InstanceId) -> None:
        with self._domains.exclusive(instance), explained(instance):
            vm = self._domains.find(instance)
            if vm is None or not vm.active():
                return
            if vm.state() not in _STILL or not self._filled_from(vm, self._states(vm)):
                raise Conflict(
                    f"instance {instance} can't be released",
                    detail="it is not paused with a whole saved state",
                    remedy="pause and save it first",
                )
            vm.destroy()

    def restore(self, spec: InstanceSpec, progress: Progress) -> None:
        """An instance that somebody else has started from its state counts as restored."""
        with self._domains.exclusive(spec.id), explained(spec.name):
            vm = self._domains.find(spec.id)
            if vm is None:
                raise _never_saved(spec.name)
            await_end_of_job(vm, self._domains.settings.save_timeout)  # of an earlier restore that nobody waits for
            states = self._states(vm)
            if self._restored_already(vm, spec, states):
                return
            newest = _restorable(spec, states)
            told = _Told(progress, max(1, newest.stored_bytes))
            checked = read_through(vm, states, newest, told.first_half)
            states.begin_restore(checked)
            _load(vm, states.image)
            states.end_restore(checked, self._domains.processes.identity(vm.id))
            told.all()

    def spend(self, instance: InstanceId) -> None:
        """Raises InstanceGone for one without a process: its image is all that is left of it."""
        with self._domains.exclusive(instance), explained(instance):
            vm = self._domains.require(instance)
            states = self._states(vm)
            newest = states.newest()
            if newest is None:
                raise Conflict(f"instance {instance} has no saved state", remedy="save it first")
            states.spend(newest)
            remove_image(vm, states.image)

    def revert(self, instance: InstanceId) -> None:
        """Takes a restore back. Raises Conflict once the instance may have run on."""
        with self._domains.exclusive(instance), explained(instance):
            vm = self._domains.find(instance)
            newest = self._states(vm).newest() if vm else None
            if vm is None or newest is None:
                raise Conflict(f"instance {instance} has no saved state", remedy="save it first")
            if newest.spent or (vm.active() and not self._filled_from(vm, self._states(vm))):
                raise Conflict(
                    f"instance {instance} can't be taken back to its saved state",
                    detail="it has run on from it, and its disks, of which libvirt keeps no older contents, with it",
                    remedy="let it run on, or boot it anew",
                )
            vm.destroy()

    def drop(self, instance: InstanceId) -> None:
        with self._domains.exclusive(instance), explained(instance):
            vm = self._domains.find(instance)
            if vm is None:
                return
            states = self._states(vm)
            if not vm.active():
                if states.whole():
                    raise Conflict(
                        f"the saved state of instance {instance} is not dropped",
                        detail="the instance has no process, so nothing else is left of it",
                        remedy="restore it instead",
                    )
                return
            states.manifests.sweep()
            if states.image.is_there() and not states.image.is_whole():
                await_end_of_job(vm, self._domains.settings.save_timeout)
                if vm.active():
                    remove_image(vm, states.image)

    def settle(self, instance: InstanceId) -> None:
        with explained(instance):
            manifests = Manifests(self._domains.layout.instance(instance).states)
            for old in manifests.all()[1:]:
                manifests.remove(old.generation)

    def states(self, instance: InstanceId) -> Sequence[SavedState]:
        """None of a domain that lost its mark: it is others' now."""
        with explained(instance):
            vm = self._domains.marked(instance)
            return [m.saved_state(instance) for m in self._states(vm).all()] if vm else []

    # Parts of the above

    def _states(self, vm: Vm) -> SavedStates:
        return saved_states(vm, self._domains.settings.save_dir)

    def _saved_already(self, vm: Vm, states: SavedStates, told: "_Told") -> Manifest:
        """By a save that ended without us, or by somebody else. Raises InstanceGone."""
        whole = states.whole()
        if whole is None:
            raise _gone(vm.name)
        if whole.checksum:
            return whole
        have_it_run(vm)
        return states.record(0, told.second_half)

    def _write(self, vm: Vm, states: SavedStates, told: "_Told") -> Manifest:
        settings = self._domains.settings
        _require_room(vm.name, settings.save_dir, self._domains.resident_bytes(vm))
        if states.image.is_there():
            remove_image(vm, states.image)  # a partial or a spent one
        try:
            memory_bytes = save_watched(vm, settings.bypass_cache, settings.save_timeout, told.moved)
        except ConnectionLost:
            if manifest := self._saved_meanwhile(vm.id, told):
                return manifest
            raise
        have_it_run(vm)
        return states.record(memory_bytes, told.second_half)

    def _saved_meanwhile(self, instance: InstanceId, told: "_Told") -> Manifest | None:
        """Where only the connection broke, libvirt went on saving."""
        vm = self._domains.find(instance)
        if vm is None:
            return None
        await_end_of_job(vm, self._domains.settings.save_timeout)
        states = self._states(vm)
        if vm.state() is not BackendState.ABSENT or not states.whole():
            return None
        return self._saved_already(vm, states, told)

    def _filled_from(self, vm: Vm, states: SavedStates) -> Manifest | None:
        """The whole state that its process was restored from, if it stands there still.

        Others may have started it from the image by means that leave the image where it is.
        """
        whole = states.whole()
        if whole is None or vm.state() not in (BackendState.LOADING, *_STILL):
            return None
        return whole if whole.restored in (BEGUN, self._domains.processes.identity(vm.id)) else None

    def _restored_already(self, vm: Vm, spec: InstanceSpec, states: SavedStates) -> bool:
        """Whether it has a process, be it by an earlier restore or because somebody else has started it."""
        state = vm.state()
        if state is BackendState.ABSENT:
            return False
        if state not in (BackendState.RUNNING, *_STILL):
            raise unable(spec.name, "be restored", state, "it has a process; stop it first")
        if states.newest() is None:
            raise _never_saved(spec.name)
        return True


class _Told:
    """Progress of two halves, of which neither knows of the other; never goes back."""

    def __init__(self, progress: Progress, total: int) -> None:
        self._progress = progress
        self._total = total
        self._done = 0

    def moved(self, num_bytes: int) -> None:
        self._tell(min(num_bytes, self._total) // 2)

    def first_half(self, done: int, total: int) -> None:
        self._tell(self._total * done // (2 * max(1, total)))

    def second_half(self, done: int, total: int) -> None:
        self._tell(self._total // 2 + self._total * done // (2 * max(1, total)))

    def all(self) -> None:
        self._tell(self._total)

    def _tell(self, done: int) -> None:
        self._done = min(self._total, max(self._done, done))
        self._progress(self._done, self._total)


@contextmanager
def explained(name: str) -> Iterator[None]:
    """What the file system refuses, as one sentence."""
    try:
        yield
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
            remedy="make state_dir writable, and have libvirt.save_dir name libvirt's own folder",
        ) from error


def _load(vm: Vm, image: Image) -> None:
    """Paused; the image stays. What was just read is in the page cache, so it is not read past that."""
    with vm.connection.call(f"domain {vm.name} can't be restored") as host:
        host.restoreFlags(str(image.path), None, libvirt.VIR_DOMAIN_SAVE_PAUSED)
    _renew_mark(vm)


def _renew_mark(vm: Vm) -> None:
    """The mark that came out of the image is as old as it: what was said of the domain meanwhile takes its place."""
    with vm.connection.call(f"the mark of domain {vm.name} can't be renewed"):
        try:
            kind, config = libvirt.VIR_DOMAIN_METADATA_ELEMENT, libvirt.VIR_DOMAIN_AFFECT_CONFIG
            lasting = vm.domain.metadata(kind, NAMESPACE, config)
            if lasting != vm.domain.metadata(kind, NAMESPACE, libvirt.VIR_DOMAIN_AFFECT_LIVE):
                vm.domain.setMetadata(kind, lasting, PREFIX, NAMESPACE, libvirt.VIR_DOMAIN_AFFECT_LIVE)
        except libvirt.libvirtError as error:
            if not is_code(error, libvirt.VIR_ERR_NO_DOMAIN_METADATA):
                raise


def _require_room(name: str, save_dir: Path, num_bytes: int) -> None:
    """Raises NoRoomForState, and MissingPart where libvirt's folder is not to be seen."""
    if not save_dir.is_dir():
        raise MissingPart(
            f"instance {name} can't be saved",
            detail=f"{save_dir}, where libvirt is said to put saved domains, is not there",
            remedy="set libvirt.save_dir",
        )
    free = free_bytes(save_dir)
    if num_bytes + _HEAD_ROOM > free:
        raise NoRoomForState(
            f"the state of {name} can't be saved",
            detail=f"it may take {(num_bytes + _HEAD_ROOM) >> 20} MiB, {free >> 20} MiB are free in {save_dir}",
            remedy=f"make room in {save_dir}",
        )


def _restorable(spec: InstanceSpec, states: SavedStates) -> Manifest:
    newest = states.newest()
    if newest is None:
        raise _never_saved(spec.name)
    if newest.spent:
        raise Conflict(
            f"instance {spec.name} can't be restored",
            detail=f"it has run on from its saved state {newest.generation}",
            remedy="boot it anew",
        )
    return newest


def _never_saved(name: str) -> Conflict:
    return Conflict(f"instance {name} can't be restored", detail="it has no saved state", remedy="boot it")


def _gone(name: str) -> InstanceGone:
    return InstanceGone(
        f"instance {name} has no process", detail="nothing is left that could be saved", remedy="run it anew"
    )

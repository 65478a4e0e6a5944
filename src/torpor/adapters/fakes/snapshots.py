"""Live snapshots of a fake host's VMs: the `Snapshots` port in memory."""

from collections.abc import Sequence
from dataclasses import replace

from torpor.adapters.fakes.host import MIB, FakeSnapshot, FakeState, FakeVm
from torpor.adapters.fakes.hypervisor import STATE_OVERHEAD_BYTES, FakeHypervisor
from torpor.domain.errors import Conflict, NoRoomForState, NotFound, Refused, StateDamaged
from torpor.domain.ids import InstanceId
from torpor.domain.instance import BackendState, InstanceSpec, Mechanism, SavedState, Snapshot, StateStatus
from torpor.ports import Progress

PAUSE_SECONDS = 0.004


class FakeSnapshots:
    """Over the VMs of a `FakeHypervisor`."""

    def __init__(self, hypervisor: FakeHypervisor) -> None:
        self._hypervisor = hypervisor
        self._model = hypervisor.model
        self._faults = hypervisor.faults

    def corrupt(self, instance: InstanceId, name: str) -> None:
        """A byte of the snapshot flips."""
        self._find(instance, name).damaged = True

    # Snapshots

    def take(self, specs: Sequence[InstanceSpec], name: str, progress: Progress) -> Sequence[Snapshot]:
        with self._faults.around("take"), self._model.lock:
            vms = [self._model.alive(spec.id) for spec in specs]
            for vm in vms:
                if vm.state not in (BackendState.RUNNING, BackendState.PAUSED):
                    raise Conflict(f"no snapshot is taken of {vm.spec.name}", detail=f"it is {vm.state.value}")
                if name in vm.snapshots:
                    raise Conflict(f"there is a snapshot {name} of {vm.spec.name} already", remedy="remove it first")
            taken: list[FakeVm] = []
            try:
                for vm in vms:
                    self._faults.strike_within("take_one", vm.spec.id)
                    self._take(vm, name, progress)
                    taken.append(vm)
            except Exception:
                for vm in taken:
                    del vm.snapshots[name]
                raise
            return tuple(vm.snapshots[name].kept for vm in vms)

    def list(self, instance: InstanceId) -> Sequence[Snapshot]:
        with self._faults.around("list_snapshots", instance), self._model.lock:
            vm = self._model.vms.get(instance)
            return tuple(s.kept for s in vm.snapshots.values()) if vm else ()

    def remove(self, instance: InstanceId, name: str) -> None:
        with self._faults.around("remove_snapshot", instance), self._model.lock:
            vm = self._model.vms.get(instance)
            if vm:
                vm.snapshots.pop(name, None)

    def verify(self, instance: InstanceId, name: str, progress: Progress) -> None:
        with self._faults.around("verify_snapshot", instance), self._model.lock:
            found = self._find(instance, name)
            if found.damaged:
                raise StateDamaged(
                    f"snapshot {name} can't be used",
                    detail="its checksum does not match",
                    remedy="remove it, and take another",
                )
            progress(found.kept.memory_bytes, found.kept.memory_bytes)

    def lay_down(self, spec: InstanceSpec, source: InstanceId, name: str) -> None:
        with self._faults.around("lay_down", spec.id), self._model.lock:
            found = self._find(source, name)
            if spec.id != source and not self._hypervisor.capabilities().clones:
                raise Refused(f"VM {spec.name} can't become a snapshot", detail="it is another VM's")
            vm = self._model.vms.get(spec.id) or self._new_vm(spec, found)
            if vm.pid is not None:
                raise Conflict(f"VM {spec.name} can't become a snapshot", detail="it has a process", remedy="stop it")
            whole = vm.whole
            if whole is None or whole.instant != found.instant:
                vm.states.append(self._state(vm, source, found))
            vm.disk_instant = found.instant
            vm.memory = found.memory
            vm.corrupt = False

    # Parts of the above

    def _find(self, instance: InstanceId, name: str) -> FakeSnapshot:
        vm = self._model.vms.get(instance)
        if vm is None or name not in vm.snapshots:
            raise NotFound(f"instance {instance} has no snapshot {name!r}", remedy="see `torpor snapshot ls`")
        return vm.snapshots[name]

    def _take(self, vm: FakeVm, name: str, progress: Progress) -> None:
        """The guest stands still for no time of the fake clock, and both memory and disk get their instant."""
        stored = vm.resident_bytes + STATE_OVERHEAD_BYTES
        if self._faults.disk_full or self._model.disk_bytes() + stored > self._model.total.disk_mb * MIB:
            raise NoRoomForState(f"no snapshot is taken of {vm.spec.name}", detail="the disk is full")
        ran = vm.state is BackendState.RUNNING
        self._model.set_still(vm, BackendState.PAUSED)
        kept = Snapshot(
            vm.spec.id, name, Mechanism.STREAM, self._model.clock.now(), PAUSE_SECONDS, stored, vm.resident_bytes
        )
        vm.snapshots[name] = FakeSnapshot(kept, vm.memory, vm.instant)
        if ran:
            self._model.set_running(vm)
        progress(vm.resident_bytes, vm.resident_bytes)

    def _new_vm(self, spec: InstanceSpec, found: FakeSnapshot) -> FakeVm:
        vm = FakeVm(spec, found.kept.memory_bytes, found.instant, found.memory)
        self._model.vms[spec.id] = vm
        return vm

    def _state(self, vm: FakeVm, source: InstanceId, found: FakeSnapshot) -> FakeState:
        saved = SavedState(
            instance=vm.spec.id,
            generation=(vm.newest.saved.generation if vm.newest else 0) + 1,
            mechanism=Mechanism.STREAM,
            status=StateStatus.WHOLE,
            created_at=found.kept.created_at,
            stored_bytes=found.kept.stored_bytes,
            memory_bytes=found.kept.memory_bytes,
            origin=None if source == vm.spec.id else source,
        )
        return FakeState(saved, replace(found.memory), found.instant, pid=0, damaged=found.damaged)

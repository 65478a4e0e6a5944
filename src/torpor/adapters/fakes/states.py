"""What lies on the fake host's disk of saved states: the `StateStore` port in memory."""

from collections.abc import Set

from torpor.adapters.fakes.host import MIB, FakeState, FakeVm
from torpor.adapters.fakes.hypervisor import FakeHypervisor
from torpor.domain.errors import Conflict, NotFound, StateDamaged
from torpor.domain.ids import InstanceId
from torpor.domain.instance import StateStatus
from torpor.ports import Progress


class FakeStateStore:
    """Over the states of a `FakeHypervisor`."""

    def __init__(self, hypervisor: FakeHypervisor) -> None:
        self._model = hypervisor.model
        self._faults = hypervisor.faults
        self.verified: list[tuple[InstanceId, int]] = []
        """What was asked for, in its order."""

    def verify(self, instance: InstanceId, generation: int, progress: Progress) -> None:
        with self._faults.around("verify", instance), self._model.lock:
            _, state = self._find(instance, generation)
            self.verified.append((instance, generation))
            progress(state.saved.stored_bytes // 2, state.saved.stored_bytes)
            if state.damaged:
                raise StateDamaged(
                    f"saved state {generation} does not match its checksums",
                    detail="a byte of it has flipped",
                    remedy="bring the file back from a backup, or delete the workload",
                )
            progress(state.saved.stored_bytes, state.saved.stored_bytes)

    def remove(self, instance: InstanceId, generation: int) -> None:
        with self._faults.around("remove_state", instance), self._model.lock:
            vm, state = self._find(instance, generation)
            what = f"saved state {generation} of VM {vm.spec.name} can't be removed"
            if state.saved.status is StateStatus.WHOLE:
                raise Conflict(what, detail="it is whole", remedy="resume the workload, or delete it")
            if vm.mapped and state is vm.newest:
                raise Conflict(what, detail="the VM runs on it", remedy="suspend the workload first")
            vm.states.remove(state)

    def collect(self, known: Set[InstanceId]) -> int:
        with self._faults.around("collect"), self._model.lock:
            freed = 0
            for id, vm in list(self._model.vms.items()):
                freed += vm.partial_bytes
                vm.partial_bytes = 0
                if id not in known and vm.pid is None:
                    freed += vm.spec.flavor.disk_mb * MIB + sum(state.saved.stored_bytes for state in vm.states)
                    del self._model.vms[id]
            return freed

    def to_write(self, instance: InstanceId) -> int:
        with self._faults.around("to_write", instance), self._model.lock:
            vm = self._model.vms.get(instance)
            return vm.resident_bytes if vm is not None and vm.pid is not None else 0

    def mapped(self, instance: InstanceId) -> bool:
        with self._faults.around("mapped", instance), self._model.lock:
            vm = self._model.vms.get(instance)
            return vm is not None and vm.mapped

    def _find(self, instance: InstanceId, generation: int) -> tuple[FakeVm, FakeState]:
        vm = self._model.vms.get(instance)
        for state in vm.states if vm else ():
            if vm and state.saved.generation == generation:
                return vm, state
        raise NotFound(f"instance {instance} has no saved state {generation}", remedy="see `torpor state ls`")

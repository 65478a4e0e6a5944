"""A host that is shared: the `Adoption` port, and what VMs' owners do with them beside us."""

import uuid
from collections.abc import Sequence
from dataclasses import replace

from torpor.adapters.fakes.host import MIB, FakeState, FakeVm, GuestMemory
from torpor.adapters.fakes.hypervisor import STATE_OVERHEAD_BYTES, FakeHypervisor
from torpor.domain.adoption import Mark, Stranger
from torpor.domain.errors import Conflict, NotFound
from torpor.domain.ids import InstanceId
from torpor.domain.instance import BackendState, InstanceSpec, Mechanism, NetworkConfig, SavedState, StateStatus
from torpor.domain.workload import Flavor


class FakeAdoption:
    """Implements `Adoption` on a `FakeHypervisor`."""

    def __init__(self, hypervisor: FakeHypervisor) -> None:
        self._model = hypervisor.model
        self._faults = hypervisor.faults

    def strangers(self) -> Sequence[Stranger]:
        with self._faults.around("strangers", None), self._model.lock:
            found = [vm for vm in self._model.vms.values() if not vm.made]
            return tuple(
                Stranger(vm.spec.id, vm.name, vm.spec.flavor, vm.spec.mac, vm.state, vm.mark)
                for vm in sorted(found, key=lambda vm: vm.name)
            )

    def mark(self, instance: InstanceId, mark: Mark) -> None:
        with self._faults.around("mark", instance), self._model.lock:
            self._stranger(instance).mark = mark

    def unmark(self, instance: InstanceId) -> None:
        with self._faults.around("unmark", instance), self._model.lock:
            if instance in self._model.vms:
                self._stranger(instance).mark = None

    def _stranger(self, instance: InstanceId) -> FakeVm:
        vm = self._model.vms.get(instance)
        if vm is None:
            raise NotFound(f"there is no VM {instance}", remedy="see `torpor adopt`")
        if vm.made:
            raise Conflict(f"VM {vm.spec.name} is Torpor's own", remedy="leave its mark as it is")
        return vm


class FakeOwner:
    """Somebody who makes VMs on the same host and does as they like with them and with ours."""

    def __init__(self, hypervisor: FakeHypervisor) -> None:
        self._model = hypervisor.model

    def define(self, name: str, flavor: Flavor, address: str = "192.0.2.7", mark: Mark | None = None) -> InstanceId:
        """A VM that is shut off."""
        number = self._model.number()
        id = InstanceId(str(uuid.UUID(int=number)))
        network = NetworkConfig(address, 24, "192.0.2.1", (), "example.net")
        spec = InstanceSpec(id, name, "", flavor, f"52:54:00:ff:00:{number % 256:02x}", network)
        vm = FakeVm(spec, flavor.memory_mb * MIB // 2, self._model.number(), GuestMemory(0, 0.0, 0.0))
        vm.made, vm.mark, vm.name, vm.state = False, mark, name, BackendState.SHUT_OFF
        with self._model.lock:
            self._model.vms[id] = vm
        return id

    def start(self, instance: InstanceId) -> None:
        """It goes on from its saved state, or boots where it has none."""
        with self._model.lock:
            vm = self._model.vms[instance]
            state = vm.whole
            self._model.start_process(vm, BackendState.PAUSED, by_owner=True)
            if state is not None:
                vm.memory, vm.instant = state.memory, state.instant
                state.saved = replace(state.saved, status=StateStatus.SPENT)
            else:
                vm.memory = GuestMemory(self._model.number(), 0.0, self._model.clock.now(), owner=instance)
            self._model.set_running(vm)

    def pause(self, instance: InstanceId) -> None:
        with self._model.lock:
            self._model.set_still(self._model.vms[instance], BackendState.PAUSED)

    def save(self, instance: InstanceId) -> None:
        """To disk, process and all."""
        with self._model.lock:
            vm = self._model.alive(instance)
            self._model.set_still(vm, BackendState.PAUSED)
            generation = (vm.newest.saved.generation if vm.newest else 0) + 1
            saved = SavedState(
                instance, generation, Mechanism.STREAM, StateStatus.WHOLE, self._model.clock.now(),
                vm.resident_bytes + STATE_OVERHEAD_BYTES, vm.resident_bytes,
            )  # fmt: skip
            vm.states.append(FakeState(saved, vm.memory, vm.instant, vm.pid or 0))
            self._model.end_process(vm)

    def shut_down(self, instance: InstanceId) -> None:
        with self._model.lock:
            vm = self._model.vms[instance]
            self._model.end_process(vm)
            vm.state = BackendState.SHUT_OFF

    def forget_state(self, instance: InstanceId) -> None:
        """Throw its saved state away."""
        with self._model.lock:
            self._model.vms[instance].states.clear()

    def undefine(self, instance: InstanceId) -> None:
        with self._model.lock:
            self._model.end_process(self._model.vms[instance])
            del self._model.vms[instance]

"""What fake guests answer: the `Guest` port."""

from collections.abc import Sequence
from dataclasses import replace

from torpor.adapters.fakes.host import GuestMemory, GuestProcess
from torpor.adapters.fakes.hypervisor import FakeHypervisor
from torpor.domain.errors import BackendFailed
from torpor.domain.ids import InstanceId
from torpor.domain.instance import BackendState, ClockGap, Execution, Instance
from torpor.ports import Clock


class FakeGuest:
    """Guests of a `FakeHypervisor`, seen from inside and from the network.

    A guest has its agent and its address once it has run for `boot_seconds`. A command
    succeeds after `command_seconds` of running unless `script` says otherwise.
    """

    def __init__(
        self, hypervisor: FakeHypervisor, clock: Clock, boot_seconds: float = 0.0, command_seconds: float = 1.0
    ) -> None:
        self._hypervisor = hypervisor
        self._clock = clock
        self._faults = hypervisor.faults
        self._boot_seconds = boot_seconds
        self._command_seconds = command_seconds
        self._without_agent: set[InstanceId] = set()
        self._addresses: dict[InstanceId, str | None] = {}
        self._scripts: dict[str, tuple[int, float, str]] = {}

    # What a test may arrange

    def remove_agent(self, instance: InstanceId) -> None:
        self._without_agent.add(instance)

    def put_address(self, instance: InstanceId, address: str | None) -> None:
        """Let the interface have this address, or none, instead of the one from the config drive."""
        self._addresses[instance] = address

    def script(self, command: str, exit_code: int, seconds: float, output: str = "") -> None:
        """Let `command` end with `exit_code` after `seconds` of running."""
        self._scripts[command] = (exit_code, seconds, output)

    # Guest

    def agent_answers(self, instance: InstanceId) -> bool:
        with self._faults.around("agent_answers", instance):
            return instance not in self._without_agent and self._up(instance)

    def vantage(self) -> str:
        return "on its interface"

    def probe(self, instance: Instance) -> bool:
        with self._faults.around("probe", instance.id):
            linked = self._up(instance.id) and self._hypervisor.model.vms[instance.id].link_up
            return linked and self._address(instance.id) == instance.address

    def addresses(self, instance: InstanceId) -> Sequence[str]:
        with self._faults.around("addresses", instance):
            self._ask(instance)
            address = self._address(instance)
            return (address,) if address else ()

    def assign_address(self, instance: Instance, network_prefix: int, gateway: str) -> None:
        with self._faults.around("assign_address", instance.id):
            self._ask(instance.id)
            self._addresses[instance.id] = instance.address

    def take_identity(self, instance: Instance, network_prefix: int, gateway: str) -> None:
        with self._faults.around("take_identity", instance.id), self._hypervisor.model.lock:
            self._ask(instance.id)
            vm = self._hypervisor.model.vms[instance.id]
            vm.memory = replace(vm.memory, owner=instance.id)
            vm.link_up = True

    def set_clock(self, instance: InstanceId, now: float) -> ClockGap:
        with self._faults.around("set_clock", instance), self._hypervisor.model.lock:
            memory = self._ask(instance)
            behind = now - (memory.clock_base + memory.counter)
            vm = self._hypervisor.model.vms[instance]
            vm.memory = replace(vm.memory, clock_base=now - memory.counter)
            return ClockGap(behind, 0.0)

    def execute(self, instance: InstanceId, command: str) -> int:
        with self._faults.around("execute", instance), self._hypervisor.model.lock:
            memory = self._ask(instance)
            exit_code, seconds, output = self._scripts.get(command, (0, self._command_seconds, ""))
            pid = 100 + self._hypervisor.model.number()
            process = GuestProcess(pid, memory.counter, seconds, exit_code, output)
            vm = self._hypervisor.model.vms[instance]
            vm.memory = replace(vm.memory, processes=(*vm.memory.processes, process))
            return pid

    def execution(self, instance: InstanceId, pid: int) -> Execution:
        with self._faults.around("execution", instance), self._hypervisor.model.lock:
            memory = self._ask(instance)
            found = [process for process in memory.processes if process.pid == pid]
            if not found:
                raise BackendFailed(f"the guest agent of {instance} knows no command {pid}")
            if memory.counter - found[0].started < found[0].seconds:
                return Execution(finished=False)
            vm = self._hypervisor.model.vms[instance]
            vm.memory = replace(vm.memory, processes=tuple(p for p in vm.memory.processes if p.pid != pid))
            return Execution(True, found[0].exit_code, found[0].output)

    def _up(self, instance: InstanceId) -> bool:
        with self._hypervisor.model.lock:
            vm = self._hypervisor.model.vms.get(instance)
            if vm is None or vm.state is not BackendState.RUNNING:
                return False
            return self._hypervisor.model.memory_of(vm).counter >= self._boot_seconds

    def _ask(self, instance: InstanceId) -> GuestMemory:
        """The guest's memory, if its agent answers. Raises BackendFailed."""
        if instance in self._without_agent or not self._up(instance):
            raise BackendFailed(f"the guest agent of {instance} does not answer")
        return self._hypervisor.memory(instance)

    def _address(self, instance: InstanceId) -> str | None:
        vms = self._hypervisor.model.vms
        owner = vms.get(vms[instance].memory.owner or instance, vms[instance])
        return self._addresses.get(instance, owner.spec.network.address)

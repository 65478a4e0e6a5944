"""Fakes of the ports that touch the world, for tests and for trying Torpor out without VMs.

The same contract suites run against these and against the real adapters. The world of a
`FakeHypervisor` outlives its callers, as VMs outlive the daemon. Records have fakes of their
own in `fakes_records`. Never used by a real installation.
"""

import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from torpor.adapters.fakes_faults import Faults
from torpor.adapters.fakes_gangs import FakeGangs
from torpor.adapters.fakes_host import FakeHost, GuestMemory, GuestProcess, HostFaults
from torpor.adapters.fakes_hypervisor import FakeHypervisor
from torpor.adapters.fakes_snapshots import FakeSnapshots
from torpor.adapters.fakes_states import FakeStateStore
from torpor.domain.errors import BackendFailed, Conflict, Invalid, NotFound
from torpor.domain.ids import InstanceId
from torpor.domain.image import Image, ImageKind
from torpor.domain.instance import BackendState, ClockGap, Execution, Instance, InstanceSpec
from torpor.domain.naming import NameRecord
from torpor.ports import Check, Clock

__all__ = [
    "FakeBatchSystem",
    "FakeGangs",
    "FakeGuest",
    "FakeHost",
    "FakeHypervisor",
    "FakeImages",
    "FakeNames",
    "FakeSnapshots",
    "FakeStateStore",
    "Faults",
    "GuestMemory",
    "HostFaults",
    "ManualClock",
]


class ManualClock:
    """A clock that moves when it is told to, and when somebody sleeps by it. Thread-safe."""

    def __init__(self, now: float = 1_700_000_000.0) -> None:
        self._now = now
        self._lock = threading.Lock()

    def now(self) -> float:
        with self._lock:
            return self._now

    def sleep(self, seconds: float) -> None:
        self.advance(seconds)

    def advance(self, seconds: float) -> None:
        """Let `seconds` go by; time does not go backwards."""
        with self._lock:
            self._now += max(0.0, seconds)


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


class FakeNames:
    """A name server in memory: `lookup` and `reverse` answer as its clients would be answered."""

    def __init__(self, faults: Faults | None = None) -> None:
        self.faults = faults or Faults()
        self.running = False
        """Set it to False to let the server die; `ensure` brings it back."""
        self._records: dict[str, str] = {}
        self._lock = threading.Lock()

    def ensure(self) -> None:
        with self.faults.around("ensure"):
            self.running = True

    def publish(self, records: Sequence[NameRecord]) -> None:
        with self.faults.around("publish"), self._lock:
            self._records.update({record.name: record.address for record in records})

    def withdraw(self, names: Sequence[str]) -> None:
        with self.faults.around("withdraw"), self._lock:
            for name in names:
                self._records.pop(name, None)

    def records(self) -> Sequence[NameRecord]:
        with self.faults.around("records"), self._lock:
            return tuple(NameRecord(name, address) for name, address in sorted(self._records.items()))

    def checks(self) -> Sequence[Check]:
        return (Check("fake name server", self.running, "running" if self.running else "not running"),)

    def lookup(self, name: str) -> str | None:
        with self._lock:
            return self._records.get(name) if self.running else None

    def reverse(self, address: str) -> str | None:
        with self._lock:
            names = sorted(name for name, known in self._records.items() if known == address)
            return names[0] if names and self.running else None


class FakeImages:
    """Images by name. A path that ends in .qcow2, .raw or .img counts as a disk image."""

    def __init__(
        self, clock: Clock, names: Iterable[str] = ("test",), recipes: Iterable[str] = ("busybox", "debian")
    ) -> None:
        self._clock = clock
        self._recipes = frozenset(recipes)
        self._images = {name: self._image(name, "qcow2") for name in names}

    def list(self) -> "Sequence[Image]":
        return tuple(image for _, image in sorted(self._images.items()))

    def get(self, name: str) -> Image:
        if name not in self._images:
            raise NotFound(f"there is no image {name!r}", remedy="see `torpor image ls`")
        return self._images[name]

    def add(self, name: str, path: str) -> Image:
        suffix = path.rpartition(".")[2]
        if suffix not in ("qcow2", "raw", "img"):
            raise Invalid(f"{path} is not a disk image", remedy="give a qcow2 or raw image")
        return self._keep(self._image(name, "qcow2" if suffix == "qcow2" else "raw"))

    def build(self, name: str, recipe: str, progress: Callable[[str], None]) -> Image:
        if recipe not in self._recipes:
            raise Invalid(f"there is no recipe {recipe!r}", remedy=f"choose from {', '.join(sorted(self._recipes))}")
        progress(f"building {name}")
        return self._keep(self._image(name, "qcow2"))

    def remove(self, name: str) -> None:
        self.get(name)
        del self._images[name]

    def _keep(self, image: Image) -> Image:
        if image.name in self._images:
            raise Conflict(f"there is an image {image.name!r} already", remedy="choose another name")
        self._images[image.name] = image
        return image

    def _image(self, name: str, format: str) -> Image:
        return Image(name, ImageKind.DISK, format, 1 << 20, 1 << 30, "0" * 64, self._clock.now())


class FakeBatchSystem:
    """Records what it is told, and notes nodes that slept, or were woken, untold.

    `nodes` are the hostnames that belong to it; without them every VM does.
    """

    def __init__(self, hypervisor: FakeHypervisor, nodes: Iterable[str] | None = None) -> None:
        self.calls: list[tuple[str, tuple[str, ...]]] = []
        self.violations: list[str] = []
        self.asleep: set[str] = set()
        """Nodes that are drained, their jobs suspended."""
        self._hypervisor = hypervisor
        self._nodes = None if nodes is None else frozenset(nodes)
        hypervisor.model.listeners.append(self._hears)

    def before_suspend(self, nodes: Sequence[str]) -> None:
        with self._hypervisor.faults.around("before_suspend"):
            self.calls.append(("before_suspend", tuple(nodes)))
            self.asleep.update(nodes)

    def after_resume(self, nodes: Sequence[str]) -> None:
        with self._hypervisor.faults.around("after_resume"):
            self.calls.append(("after_resume", tuple(nodes)))
            self.violations.extend(f"{node} was undrained before it ran" for node in nodes if not self._runs(node))
            self.asleep.difference_update(nodes)

    def _hears(self, act: str, spec: InstanceSpec) -> None:
        ours = self._nodes is None or spec.name in self._nodes
        if act == "pause" and ours and spec.name not in self.asleep:
            self.violations.append(f"{spec.name} was paused before the batch system was told")

    def _runs(self, node: str) -> bool:
        vms = self._hypervisor.model.vms.values()
        return any(vm.spec.name == node and vm.state is BackendState.RUNNING for vm in vms)

"""A host in memory: processes, guests, disks and saved states, and what reality would not forgive.

A guest's memory is a counter that goes on with the clock while the guest runs. Its disk has
a content that changes as soon as the guest runs; every standstill is an `instant`, known by
a number, and memory fits a disk only when both are of one instant.
"""

import itertools
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from torpor.adapters.fakes.faults import Faults
from torpor.domain.adoption import Mark
from torpor.domain.capacity import Resources
from torpor.domain.errors import InstanceGone
from torpor.domain.ids import InstanceId
from torpor.domain.instance import BackendState, InstanceSpec, SavedState, Snapshot, StateStatus
from torpor.ports import Clock

MIB = 1024 * 1024
Listener = Callable[[str, InstanceSpec], None]
"""Told the name of an act, and of whom, right before it."""


@dataclass(frozen=True, slots=True)
class GuestProcess:
    """A command in a guest; it ends after `seconds` of the guest's running."""

    pid: int
    started: float
    seconds: float
    exit_code: int
    output: str


@dataclass(frozen=True, slots=True)
class GuestMemory:
    """What a guest has in RAM, and nowhere else."""

    nonce: int
    """Drawn at boot: another one means that the guest was booted again."""
    counter: float
    """Seconds that the guest has run since it booted."""
    clock_base: float
    """Its wall clock shows this plus the counter."""
    processes: tuple[GuestProcess, ...] = ()
    owner: InstanceId | None = None
    """Which instance it takes itself for: by name, MAC and address."""


@dataclass(slots=True)
class FakeState:
    """A saved state with the memory and the instant that it holds."""

    saved: SavedState
    memory: GuestMemory
    instant: int
    pid: int
    """Process that it was written of."""
    damaged: bool = False


@dataclass(slots=True)
class FakeSnapshot:
    """A snapshot with the memory and the instant that it holds."""

    kept: Snapshot
    memory: GuestMemory
    instant: int
    damaged: bool = False


@dataclass(slots=True)
class FakeVm:
    """One instance on the host, with or without a process."""

    spec: InstanceSpec
    resident_bytes: int
    disk_instant: int
    memory: GuestMemory
    state: BackendState = BackendState.ABSENT
    pid: int | None = None
    instant: int = 0
    """Of the memory, while it stands still."""
    since: float | None = None
    """When it began to run; None while it stands still."""
    states: list[FakeState] = field(default_factory=list)
    """Newest last."""
    snapshots: dict[str, FakeSnapshot] = field(default_factory=dict)
    """By name, oldest first."""
    link_up: bool = True
    partial_bytes: int = 0
    """Of a state that was not finished."""
    mapped: bool = False
    """Its process reads memory from its newest state as it is touched."""
    corrupt: bool = False
    """The guest ran with memory and disk of different instants."""
    made: bool = True
    """By Torpor; the others' are there whether or not Torpor knows of them."""
    mark: Mark | None = None
    """Of one that Torpor did not make."""
    name: str = ""
    """As its owner calls it, where that is not Torpor."""

    @property
    def ours(self) -> bool:
        """Whether Torpor may know of it and touch it."""
        return self.made or self.mark is not None

    @property
    def newest(self) -> FakeState | None:
        return self.states[-1] if self.states else None

    @property
    def whole(self) -> FakeState | None:
        """The newest state, if it is whole."""
        newest = self.newest
        return newest if newest and newest.saved.status is StateStatus.WHOLE else None


class FakeHost:
    """The model behind `FakeHypervisor`. It survives whatever becomes of its callers."""

    def __init__(self, total: Resources, clock: Clock, overhead_mb: int) -> None:
        self.total = total
        self.clock = clock
        self.overhead_mb = overhead_mb
        self.vms: dict[InstanceId, FakeVm] = {}
        self.violations: list[str] = []
        self.discarded: dict[InstanceId, float] = {}
        """Seconds of running that `revert` took back, by instance."""
        self.listeners: list[Listener] = []
        self.lock = threading.RLock()
        self._numbers = itertools.count(1)

    def number(self) -> int:
        """A number that was not given out before."""
        return next(self._numbers)

    def violate(self, instance: InstanceId, what: str) -> None:
        vm = self.vms.get(instance)
        self.violations.append(f"{vm.spec.name if vm else instance}: {what}")

    def tell(self, act: str, vm: FakeVm) -> None:
        for listener in self.listeners:
            listener(act, vm.spec)

    def alive(self, instance: InstanceId) -> FakeVm:
        """The VM, which must have a process. Raises InstanceGone."""
        vm = self.vms.get(instance)
        if vm is None or vm.pid is None:
            raise InstanceGone(
                f"VM {vm.spec.name if vm else instance} has no process", remedy="see `torpor show` for what can be done"
            )
        return vm

    def memory_of(self, vm: FakeVm) -> GuestMemory:
        """The guest's memory at this moment."""
        if vm.since is None:
            return vm.memory
        return replace(vm.memory, counter=vm.memory.counter + max(0.0, self.clock.now() - vm.since))

    def set_running(self, vm: FakeVm) -> None:
        """Let the vCPUs run: memory and disk move on together."""
        if vm.link_up and vm.memory.owner not in (None, vm.spec.id):
            self.violate(vm.spec.id, "it ran with another's address on the network")
        if vm.since is None:
            vm.since = self.clock.now()
            vm.disk_instant = self.number()
        vm.state = BackendState.RUNNING

    def set_still(self, vm: FakeVm, state: BackendState) -> None:
        """Stop the vCPUs, if they run."""
        if vm.since is not None:
            vm.memory = self.memory_of(vm)
            vm.since = None
            vm.instant = vm.disk_instant = self.number()
        vm.state = state

    def start_process(self, vm: FakeVm, state: BackendState, by_owner: bool = False) -> None:
        """Give the VM a process and look whether the host can bear it; what its owner does is not held against us."""
        vm.pid = 1000 + self.number()
        vm.state = state
        if by_owner:
            return
        used = self.used_by_processes()
        if not Resources(used.vcpus, used.memory_mb).fits_in(self.total):
            self.violate(
                vm.spec.id,
                f"its process over-commits the host: {used.vcpus} of {self.total.vcpus} vCPUs, "
                f"{used.memory_mb} of {self.total.memory_mb} MiB",
            )

    def end_process(self, vm: FakeVm) -> None:
        """The process is gone, its memory with it; the disk stays as it is."""
        if vm.pid is None:
            return
        vm.memory = self.memory_of(vm)
        vm.since = None
        vm.pid = None
        vm.mapped = False
        vm.state = BackendState.ABSENT

    def used_by_processes(self) -> Resources:
        """vCPUs and memory of every VM that has a process."""
        return self.held_by(vm for vm in self.vms.values() if vm.pid is not None)

    def held_by(self, vms: Iterable[FakeVm]) -> Resources:
        """vCPUs and memory that these take with a process."""
        sizes = (vm.spec.flavor for vm in vms)
        return sum((Resources(f.vcpus, f.memory_mb + self.overhead_mb) for f in sizes), Resources())

    def disk_bytes(self) -> int:
        """What disks (taken as full), states and remains of states take."""
        disks = sum(vm.spec.flavor.disk_mb * MIB for vm in self.vms.values())
        states = sum(state.saved.stored_bytes for vm in self.vms.values() for state in vm.states)
        snapshots = sum(s.kept.stored_bytes for vm in self.vms.values() for s in vm.snapshots.values())
        return disks + states + snapshots + sum(vm.partial_bytes for vm in self.vms.values())


class HostFaults(Faults):
    """Faults of calls, and blows of fate that strike the host's VMs at once."""

    def __init__(self, host: FakeHost) -> None:
        super().__init__()
        self._host = host

    def kill(self, instance: InstanceId) -> None:
        """The VM's process dies."""
        with self._host.lock:
            self._host.end_process(self._host.alive(instance))

    def reboot_host(self) -> None:
        """Every process dies; disks and saved states are still there afterwards."""
        with self._host.lock:
            for vm in self._host.vms.values():
                self._host.end_process(vm)
                vm.partial_bytes = 0

    def guest_powers_off(self, instance: InstanceId) -> None:
        """The guest shuts itself down; its process stays."""
        self._halt(instance, BackendState.SHUT_OFF)

    def io_error(self, instance: InstanceId) -> None:
        """The VM stops itself at a disk error."""
        self._halt(instance, BackendState.IO_ERROR)

    def corrupt_state(self, instance: InstanceId) -> None:
        """A byte of the newest saved state flips."""
        with self._host.lock:
            newest = self._host.vms[instance].newest
            if newest is None:
                raise ValueError(f"{instance} has no saved state to corrupt")
            newest.damaged = True

    def _halt(self, instance: InstanceId, state: BackendState) -> None:
        with self._host.lock:
            vm = self._host.alive(instance)
            if vm.state is not BackendState.RUNNING:
                raise ValueError(f"{vm.spec.name} is {vm.state.value}, not running")
            self._host.set_still(vm, state)

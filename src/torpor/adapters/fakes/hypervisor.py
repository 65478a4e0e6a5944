"""A hypervisor in memory: Hypervisor, Suspension and Diagnostics over one `FakeHost`."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

from torpor.adapters.fakes.host import MIB, FakeHost, FakeState, FakeVm, GuestMemory, HostFaults
from torpor.domain.capacity import Host, Resources
from torpor.domain.errors import Conflict, NoRoomForState, StateDamaged
from torpor.domain.ids import HostId, InstanceId
from torpor.domain.instance import (
    BackendState,
    InstanceSpec,
    Mechanism,
    Observation,
    SavedState,
    StateStatus,
)
from torpor.ports import Capabilities, Check, Clock, Progress

STATE_OVERHEAD_BYTES = 64 * 1024
"""Device state and manifest of a saved state."""
LOCAL = HostId("local")
SMALL_HOST = Resources(vcpus=4, memory_mb=4096, disk_mb=65536)
ABLE = Capabilities(gang_pause=True, revert=True, guest_agent=True, snapshots=True, clones=True)
SHARED = Capabilities(
    gang_pause=True, revert=False, guest_agent=True, snapshots=True, keeps_process=False, adoption=True
)
"""What a host can do that is shared with others, as with libvirt."""
CLOUD = Capabilities(
    gang_pause=False, revert=False, guest_agent=False, keeps_process=False, adoption=True, shared_books=True
)
"""What a cloud can do whose scheduler has the books, as OpenStack."""


class FakeHypervisor:
    """One host's VMs. What reality would not forgive is written to `violations`, not raised.

    `overhead_mb` is what a process takes besides the guest's memory. With `bytes_per_second`
    saving and restoring take time on the clock, else none. `lazy` guests run on their states unverified.
    """

    def __init__(
        self,
        clock: Clock,
        host: HostId = LOCAL,
        total: Resources = SMALL_HOST,
        overhead_mb: int = 128,
        capabilities: Capabilities = ABLE,
        bytes_per_second: float | None = None,
        lazy: bool = False,
    ) -> None:
        self.model = FakeHost(total, clock, overhead_mb)
        self.faults = HostFaults(self.model)
        self._id = host
        self._capabilities = capabilities
        self._bytes_per_second = bytes_per_second
        self._lazy = lazy

    # What a test may look at

    @property
    def violations(self) -> list[str]:
        return self.model.violations

    @property
    def discarded(self) -> Mapping[InstanceId, float]:
        """Seconds of running that `revert` took back, by instance."""
        return self.model.discarded

    def memory(self, instance: InstanceId) -> GuestMemory:
        """What the guest has in RAM now. Raises InstanceGone."""
        with self.model.lock:
            return self.model.memory_of(self.model.alive(instance))

    def counter(self, instance: InstanceId) -> float:
        """Seconds that the guest has run since it booted, as the guest knows it. Raises InstanceGone."""
        return self.memory(instance).counter

    def nonce(self, instance: InstanceId) -> int:
        """The guest's number of this boot. Raises InstanceGone."""
        return self.memory(instance).nonce

    def corrupt(self, instance: InstanceId) -> bool:
        """Whether the guest was run with memory and disk that do not belong together."""
        return self.model.vms[instance].corrupt

    def set_resident(self, instance: InstanceId, num_bytes: int) -> None:
        """Let the guest use this much of its memory (default: half)."""
        with self.model.lock:
            self.model.vms[instance].resident_bytes = num_bytes

    # Hypervisor

    def capabilities(self) -> Capabilities:
        return self._capabilities

    def host(self) -> Host:
        others = [vm for vm in self.model.vms.values() if vm.pid is not None and not vm.ours]
        return Host(self._id, self.model.total - self.model.held_by(others))

    def observe(self) -> Mapping[InstanceId, Observation]:
        with self._call("observe"):
            return {
                id: self._observation(vm)
                for id, vm in self.model.vms.items()
                if vm.ours and (vm.pid is not None or vm.state is BackendState.SHUT_OFF)
            }

    def boot(self, spec: InstanceSpec) -> None:
        with self._call("boot", spec.id):
            vm = self.model.vms.get(spec.id) or self._new_vm(spec)
            if vm.pid is not None and vm.state is not BackendState.SHUT_OFF:
                self._finish_boot(vm)
                return
            self.model.end_process(vm)
            if vm.whole:
                self.model.violate(spec.id, "booted although it has a whole saved state")
            vm.memory = GuestMemory(self.model.number(), 0.0, self.model.clock.now(), owner=spec.id)
            vm.link_up = True
            vm.spec = spec
            vm.corrupt = False
            self.model.start_process(vm, BackendState.PAUSED)
            self.model.set_running(vm)

    def pause(self, instance: InstanceId) -> None:
        with self._call("pause", instance):
            saved = self.model.vms.get(instance)
            if not self._capabilities.gang_pause and saved and saved.pid is None and saved.whole:
                return
            vm = self.model.alive(instance)
            if vm.state is BackendState.LOADING:
                raise self._not_now(vm, "be paused", "restore it first")
            if vm.state in (BackendState.RUNNING, BackendState.IO_ERROR):
                self.model.tell("pause", vm)
                self.model.set_still(vm, BackendState.PAUSED)
                if not self._capabilities.gang_pause:
                    self._save(vm, _ignore)

    def run_on(self, instance: InstanceId) -> None:
        with self._call("run_on", instance):
            saved = self.model.vms.get(instance)
            if not self._capabilities.gang_pause and saved and saved.pid is None and saved.whole:
                self._load(saved, saved.states[-1], _ignore)
                self._mark(saved, StateStatus.SPENT)
                saved.states[-1].saved = replace(saved.states[-1].saved, stored_bytes=0)  # it is used up
            vm = self.model.alive(instance)
            if vm.state in (BackendState.LOADING, BackendState.SHUT_OFF):
                raise self._not_now(vm, "run on", "restore or boot it first")
            if vm.state is not BackendState.RUNNING:
                self.model.tell("run_on", vm)
                self._run_on(vm)

    def stop(self, instance: InstanceId, grace: float) -> None:
        with self._call("stop", instance):
            vm = self._of_ours(instance)
            if vm:
                self.model.end_process(vm)
                vm.state = BackendState.ABSENT

    def erase(self, instance: InstanceId) -> None:
        with self._call("erase", instance):
            vm = self._of_ours(instance)
            if vm and not vm.made:
                raise self._not_now(vm, "be erased", "it is its owner's; let go of it")
            self.model.vms.pop(instance, None)

    # Suspension

    def save(self, spec: InstanceSpec, progress: Progress) -> SavedState:
        with self._call("save", spec.id):
            saved = self.model.vms.get(spec.id)
            if saved and saved.pid is None and saved.whole and not self._capabilities.keeps_process:
                return saved.whole.saved
            vm = self.model.alive(spec.id)
            if vm.state is not BackendState.PAUSED or vm.pid is None:
                raise self._not_now(vm, "be saved", "pause it first")
            newest = vm.whole
            if newest and newest.instant == vm.instant:
                return newest.saved
            return self._save(vm, progress)

    def release(self, instance: InstanceId) -> None:
        with self._call("release", instance):
            vm = self.model.vms.get(instance)
            if vm is None or vm.pid is None:
                return
            newest = vm.whole
            if newest is None:
                raise self._not_now(vm, "be released", "its newest saved state is not whole; save it first")
            if vm.state is not BackendState.PAUSED or newest.instant != vm.instant:
                self.model.violate(
                    instance, "release was asked for although its newest state is not of this standstill"
                )
                raise self._not_now(
                    vm, "be released", "its newest saved state is not of this standstill; save it first"
                )
            self.model.end_process(vm)

    def restore(self, spec: InstanceSpec, progress: Progress) -> None:
        with self._call("restore", spec.id):
            vm = self.model.vms.get(spec.id)
            if vm is None or vm.newest is None:
                raise Conflict(f"VM {spec.name} can't be restored", detail="it has no saved state", remedy="boot it")
            newest = vm.newest
            if vm.state is BackendState.PAUSED and vm.whole and newest.instant == vm.instant:
                return
            if vm.state is BackendState.RUNNING and not vm.whole and self._capabilities.adoption:
                return  # its owner was first
            if vm.state not in (BackendState.ABSENT, BackendState.LOADING):
                raise self._not_now(vm, "be restored", "it has a process; stop it first")
            if not vm.whole:
                raise self._not_now(vm, "be restored", "its newest saved state is spent; revert it first")
            if not self._capabilities.gang_pause:
                return  # `run_on` brings it back
            self.model.end_process(vm)
            self._load(vm, newest, progress)

    def spend(self, instance: InstanceId) -> None:
        with self._call("spend", instance):
            vm = self._with_state(instance)
            if self._capabilities.gang_pause:
                self._mark(vm, StateStatus.SPENT)

    def revert(self, instance: InstanceId) -> None:
        with self._call("revert", instance):
            vm = self._with_state(instance)
            newest = vm.states[-1]
            if not vm.whole and not self._capabilities.revert:
                raise self._not_now(vm, "be taken back", "its disk has moved on, and can't be taken back here")
            lost = self.model.memory_of(vm).counter - newest.memory.counter
            if vm.disk_instant != newest.instant and lost > 0.0:
                self.model.discarded[instance] = self.model.discarded.get(instance, 0.0) + lost
            self.model.end_process(vm)
            vm.disk_instant = newest.instant
            vm.memory = newest.memory
            vm.corrupt = False
            self._mark(vm, StateStatus.WHOLE)

    def drop(self, instance: InstanceId) -> None:
        with self._call("drop", instance):
            vm = self.model.vms.get(instance)
            if vm is None:
                return
            vm.partial_bytes = 0
            newest = vm.whole
            if newest is None:
                return
            if vm.pid is None:
                self.model.violate(instance, "its whole saved state was to be dropped although it has no process")
                raise self._not_now(vm, "lose its saved state", "it has no process; restore it instead")
            if newest.pid == vm.pid:
                vm.states.pop()

    def settle(self, instance: InstanceId) -> None:
        with self._call("settle", instance):
            vm = self.model.vms.get(instance)
            if vm is None:
                return
            if len(vm.states) > 1 and vm.states[-1].damaged:
                self.model.violate(instance, "an older state was deleted although its successor is damaged")
            del vm.states[:-1]

    def states(self, instance: InstanceId) -> Sequence[SavedState]:
        with self._call("states", instance):
            vm = self.model.vms.get(instance)
            return tuple(state.saved for state in reversed(vm.states)) if vm else ()

    # Diagnostics

    def checks(self) -> Sequence[Check]:
        return (Check("fake hypervisor", True, f"{len(self.model.vms)} instances in memory"),)

    def self_test(self, progress: Callable[[str], None]) -> Check:
        progress("nothing to test")
        return Check("self-test", True, "memory of fake guests always comes back")

    # Parts of the above

    @contextmanager
    def _call(self, name: str, instance: InstanceId | None = None) -> Iterator[None]:
        with self.model.lock, self.faults.around(name, instance):
            yield

    def _not_now(self, vm: FakeVm, what: str, remedy: str) -> Conflict:
        return Conflict(f"VM {vm.spec.name} can't {what}", detail=f"it is {vm.state.value}", remedy=remedy)

    def _new_vm(self, spec: InstanceSpec) -> FakeVm:
        nothing = GuestMemory(0, 0.0, 0.0)
        vm = FakeVm(spec, spec.flavor.memory_mb * MIB // 2, self.model.number(), nothing)
        self.model.vms[spec.id] = vm
        return vm

    def _finish_boot(self, vm: FakeVm) -> None:
        """A process is there already: of a boot that got no further, or of one that is done."""
        if vm.state is BackendState.RUNNING:
            return
        if vm.state is not BackendState.PAUSED or vm.whole:
            raise self._not_now(vm, "be booted", "it holds a saved state or stopped by itself; restore or stop it")
        self.model.set_running(vm)

    def _run_on(self, vm: FakeVm) -> None:
        if vm.whole:
            self.model.violate(vm.spec.id, "it ran on although its newest state was not marked spent before")
        if vm.instant != vm.disk_instant:
            vm.corrupt = True
            self.model.violate(vm.spec.id, "it ran on with memory and disk of different instants")
        self.model.set_running(vm)

    def _observation(self, vm: FakeVm) -> Observation:
        return Observation(vm.state, vm.resident_bytes, vm.resident_bytes + self.model.overhead_mb * MIB, vm.pid)

    def _next_state(self, vm: FakeVm) -> SavedState:
        return SavedState(
            instance=vm.spec.id,
            generation=(vm.newest.saved.generation if vm.newest else 0) + 1,
            mechanism=Mechanism.MEMORY,
            status=StateStatus.WHOLE,
            created_at=self.model.clock.now(),
            stored_bytes=vm.resident_bytes + STATE_OVERHEAD_BYTES,
            memory_bytes=vm.resident_bytes,
        )

    def _save(self, vm: FakeVm, progress: Progress) -> SavedState:
        state = FakeState(self._next_state(vm), vm.memory, vm.instant, vm.pid or 0)
        self._write(vm, state.saved, progress)
        vm.states.append(state)
        if not self._capabilities.keeps_process:
            self.model.end_process(vm)
        return state.saved

    def _write(self, vm: FakeVm, saved: SavedState, progress: Progress) -> None:
        """Find room for the state and write it. What is left after a failure goes, unless the caller died."""
        full = self.faults.disk_full
        vm.partial_bytes = 0
        if self.model.disk_bytes() + saved.stored_bytes > self.model.total.disk_mb * MIB:
            full = True
            self.model.violate(vm.spec.id, "its state has no room on the host's disk")
        if full:
            raise NoRoomForState(
                f"the state of VM {vm.spec.name} can't be saved", detail="the disk is full", remedy="make room on it"
            )
        vm.partial_bytes = saved.stored_bytes // 2
        try:
            self._move(saved.memory_bytes, progress)
        except Exception:
            vm.partial_bytes = 0
            raise
        vm.partial_bytes = 0

    def _load(self, vm: FakeVm, state: FakeState, progress: Progress) -> None:
        self.model.start_process(vm, BackendState.LOADING)
        try:
            if state.damaged and not self._lazy:
                raise StateDamaged(
                    f"the saved state of VM {vm.spec.name} can't be restored",
                    detail="its checksum does not match",
                    remedy="bring the file back from a backup, or delete the workload",
                )
            self._move(state.saved.memory_bytes, progress)
        except Exception:
            self.model.end_process(vm)
            raise
        if vm.disk_instant != state.instant:
            self.model.violate(vm.spec.id, "it was restored onto a disk that had moved on")
        vm.memory = state.memory
        vm.instant = state.instant
        vm.mapped = self._lazy
        vm.link_up = state.saved.origin is None
        vm.state = BackendState.PAUSED

    def _move(self, num_bytes: int, progress: Progress) -> None:
        progress(num_bytes // 2, num_bytes)
        if self._bytes_per_second:
            self.model.clock.sleep(num_bytes / self._bytes_per_second)
        progress(num_bytes, num_bytes)

    def _with_state(self, instance: InstanceId) -> FakeVm:
        vm = self.model.vms.get(instance)
        if vm is None or vm.newest is None:
            name = vm.spec.name if vm else instance
            raise Conflict(f"VM {name} has no saved state", detail="none was written", remedy="save it first")
        return vm

    def _of_ours(self, instance: InstanceId) -> FakeVm | None:
        vm = self.model.vms.get(instance)
        if vm and not vm.ours:
            self.model.violate(instance, "touched although it is not marked")
        return vm

    def _mark(self, vm: FakeVm, status: StateStatus) -> None:
        newest = vm.states[-1]
        newest.saved = replace(newest.saved, status=status)


def _ignore(done: int, total: int) -> None:
    """Progress that nobody watches."""

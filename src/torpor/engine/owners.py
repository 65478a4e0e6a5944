"""A host that is shared: what VMs' owners do with them beside us is accepted, recorded, and the books follow."""

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from enum import Enum, auto

from torpor.domain.capacity import Claim, ClaimKind, Host, Resources
from torpor.domain.errors import InstanceGone, NoCapacity, TorporError
from torpor.domain.ids import HostId, InstanceId
from torpor.domain.instance import BackendState, Instance, Observation, StateStatus
from torpor.domain.operation import OperationKind
from torpor.domain.workload import Workload, WorkloadState
from torpor.engine.operations import begin
from torpor.engine.parts import Parts, Settings
from torpor.engine.records import Records
from torpor.engine.state_claims import StateClaims

_AT_REST = (WorkloadState.SUSPENDED, WorkloadState.DONE, WorkloadState.FAILED)
_NO_ROOM = "its VMs run, and the books have no room for them: see `torpor hosts` and `host.vcpus`"
Seen = Mapping[InstanceId, Observation]


class Standing(Enum):
    """What is there of an instance, whoever brought it about."""

    RUNS = auto()
    """It has a process."""
    SAVED = auto()
    """It has no process and a whole saved state."""
    OFF = auto()
    """It was shut down."""
    GONE = auto()
    """It has neither, and nobody shut it down: it crashed, or there is no such VM any more."""


class Owners:
    """Follows what others did. The caller holds the records' lock and leaves out workloads with open operations."""

    def __init__(self, parts: Parts, records: Records, settings: Settings) -> None:
        self._parts = parts
        self._records = records
        self._settings = settings
        self._claims = StateClaims(parts, settings)
        self._told: set[tuple[str, str]] = set()

    def follow(self, workload: Workload, instances: Sequence[Instance], put_off: bool, seen: Seen) -> bool:
        """Make the records say what is there. Returns whether that was a change, so that nothing else is to be done.

        A gang of which its owner saved or started a part is made whole; where the last try failed a moment ago
        (`put_off`), it stays as it is for now.
        """
        for instance in instances:
            self._follow_move(instance, seen.get(instance.id))
        if any(i.id in seen and seen[i.id].state is BackendState.LOADING for i in instances):
            return True  # somebody is starting it: what came of that is seen once it is loaded
        standing = [self._standing(i, seen) for i in instances]
        if workload.state is WorkloadState.ACTIVE:
            return self._follow_active(workload, instances, standing, put_off, seen)
        if workload.state not in _AT_REST:
            return False
        if standing and all(s is Standing.RUNS for s in standing):
            return self._runs_again(workload, instances, seen)
        if workload.state is WorkloadState.SUSPENDED:
            return self._follow_suspended(workload, instances, standing, put_off, seen)
        if workload.adopted and standing and all(s is Standing.SAVED for s in standing):
            self._record_saved(workload, instances)
            return True
        return False

    def _follow_move(self, instance: Instance, seen: Observation | None) -> None:
        """Of a VM that others have moved to another host."""
        if seen is None or seen.host is None or seen.host == instance.host:
            return
        self._records.change_instance(instance.workload, instance.id, host=seen.host)
        self._records.event("instance-moved", instance.name, f"{instance.name} is on {seen.host} now.")

    # --- the books ---

    def keep_books(self, seen: Seen) -> None:
        """The books offer what the host has, less what others' VMs have, less what runs of ours without a claim.

        Claims that were there before others took the room stay: the books are full then, never over-committed.
        A scheduler knows its hosts itself; there it is only looked whether they are over-committed.
        """
        if self._parts.hypervisor.capabilities().shared_books:
            for host in self._parts.ledger.hosts():
                self._tell_of_excess(host.total - self._unclaimed(seen, on=host.id), host)
            return
        self._tell_of_excess(*self._write_books(seen))

    def _tell_of_excess(self, room: Resources, booked: Host) -> None:
        left = Resources(max(0, room.vcpus), max(0, room.memory_mb))
        if booked.used.vcpus > left.vcpus or booked.used.memory_mb > left.memory_mb:
            self._tell_once(
                "host-overcommitted", booked.id,
                f"Others have taken room on {booked.id} that is claimed: {left.vcpus} vCPUs and {left.memory_mb} MiB "
                f"are left for {booked.used.vcpus} vCPUs and {booked.used.memory_mb} MiB.",
            )  # fmt: skip
        else:
            self._told.discard(("host-overcommitted", booked.id))

    def _write_books(self, seen: Seen, spare: Collection[InstanceId] = ()) -> tuple[Resources, Host]:
        """What is left of the host, and what was booked there. `spare`: instances that are about to get a claim."""
        host = self._parts.hypervisor.host()
        room = host.total - self._unclaimed(seen, spare)
        booked = next((h for h in self._parts.ledger.hosts() if h.id == host.id), None)
        if booked is None:
            self._parts.ledger.set_host(host.id, host.total)
            booked = next(h for h in self._parts.ledger.hosts() if h.id == host.id)
        total = Resources(
            max(room.vcpus, booked.used.vcpus), max(room.memory_mb, booked.used.memory_mb), booked.total.disk_mb
        )
        if total != booked.total:
            self._parts.ledger.set_host(host.id, total)
        return room, booked

    def _unclaimed(self, seen: Seen, spare: Collection[InstanceId] = (), on: HostId | None = None) -> Resources:
        claimed = {c.consumer for c in self._parts.ledger.claims() if c.kind is ClaimKind.COMPUTE}
        sizes = {w.id: self._compute(w) for w in self._parts.inventory.workloads()}
        found = (
            sizes[i.workload]
            for i in self._parts.inventory.instances()
            if i.id in seen
            and seen[i.id].pid is not None
            and i.id not in claimed
            and i.id not in spare
            and on in (None, seen[i.id].host)
        )
        return sum(found, Resources())

    def _compute(self, workload: Workload) -> Resources:
        return workload.compute_claim(self._settings.policy.overhead_mb)

    def _claim(self, workload: Workload, instances: Sequence[Instance], seen: Seen) -> bool:
        """Whether the books have room for what the instances have already, or are to have."""
        held = {c.consumer for c in self._parts.ledger.claims() if c.kind is ClaimKind.COMPUTE}
        if all(i.id in held for i in instances):
            return True
        ours = not self._parts.hypervisor.capabilities().shared_books
        if ours:
            self._write_books(seen, [i.id for i in instances])
        compute = self._compute(workload)
        try:
            self._parts.ledger.claim(
                [Claim(i.id, ClaimKind.COMPUTE, i.host, compute) for i in instances if i.host is not None]
            )
        except NoCapacity:
            if ours:
                self._write_books(seen)
            return False
        return True

    # --- what happened ---

    def _follow_active(
        self, workload: Workload, instances: Sequence[Instance], standing: Sequence[Standing], put_off: bool, seen: Seen
    ) -> bool:
        if all(s is Standing.SAVED for s in standing):
            self._record_saved(workload, instances)
            return True
        saved = [i.name for i, s in zip(instances, standing, strict=True) if s is Standing.SAVED]
        if saved and all(s in (Standing.SAVED, Standing.RUNS) for s in standing):
            if put_off:
                return True
            why = f"somebody saved {', '.join(saved)}"
            self._records.event("gang-half-saved", workload.name, f"{why}: the rest of {workload.name} follows.")
            begin(self._parts, self._records, OperationKind.SUSPEND, workload, why)
            self._records.change(workload.id, held=True)
            return True
        if all(s is Standing.RUNS for s in standing) and not self._claim(workload, instances, seen):
            if 0 < workload.attempts < self._settings.max_attempts and not put_off:
                return self._started_without_room(workload)  # its suspension has failed
            self._tell_no_room(workload)
        return False

    def _follow_suspended(
        self, workload: Workload, instances: Sequence[Instance], standing: Sequence[Standing], put_off: bool, seen: Seen
    ) -> bool:
        lost = [i.name for i, s in zip(instances, standing, strict=True) if s in (Standing.OFF, Standing.GONE)]
        if lost:
            self._record_lost(workload, lost)
            return True
        if all(s is Standing.SAVED for s in standing):
            self._release_saved(instances)
            return False
        if workload.attempts >= self._settings.max_attempts:
            return False
        if put_off:
            return True
        if self._claim(workload, instances, seen):
            started = [i.name for i, s in zip(instances, standing, strict=True) if s is Standing.RUNS]
            why = f"somebody started {', '.join(started)}"
            self._records.event("gang-half-started", workload.name, f"{why}: the rest of {workload.name} follows.")
            begin(self._parts, self._records, OperationKind.RESUME, workload, why)
            return True
        return self._started_without_room(workload)

    def _release_saved(self, instances: Sequence[Instance]) -> None:
        """What one of them held that had been started alone, and was saved again; or what a tool that writes the
        scheduler's books anew has given it. What owners have saved themselves keeps its room there."""
        held = {c.consumer for c in self._parts.ledger.claims() if c.kind is ClaimKind.COMPUTE}
        shared = self._parts.hypervisor.capabilities().shared_books
        saved = [i for i in instances if i.id in held and not (shared and self._saved_by_others(i))]
        if not saved:
            return
        self._parts.ledger.release([i.id for i in saved], [ClaimKind.COMPUTE])
        if shared:
            with suppress(TorporError):  # there is no room for it any more, and the state is there all the same
                self._claims.fit(saved)  # written anew, it had no room for the state
            names = ", ".join(i.name for i in saved)
            self._records.event(
                "books-mended", names, f"The books gave {names} what it holds no more; it was released."
            )

    def _saved_by_others(self, instance: Instance) -> bool:
        newest = next(iter(self._parts.suspension.states(instance.id)), None)
        return newest is not None and not newest.ours

    def _runs_again(self, workload: Workload, instances: Sequence[Instance], seen: Seen) -> bool:
        if not self._claim(workload, instances, seen):
            return self._started_without_room(workload)
        self._claims.fit(instances)
        if not self._parts.hypervisor.capabilities().gang_pause:
            with suppress(TorporError):  # takes off what keeps others from saved VMs; those that are paused stay so
                running = [i.id for i in instances if seen[i.id].state is BackendState.RUNNING]
                self._parts.gangs.run_on(running)
        self._records.change(
            workload.id,
            state=WorkloadState.ACTIVE,
            running_since=self._parts.clock.now(),
            held=False,
            attempts=0,
            problem=None,
            reason="",
        )
        self._told.discard(("started-without-room", workload.name))
        self._records.event("workload-active", workload.name, f"{workload.name} runs: its owner has it so.")
        if workload.state is WorkloadState.SUSPENDED:
            self._tell_of_loss(workload, instances)
        return True

    def _tell_of_loss(self, workload: Workload, instances: Sequence[Instance]) -> None:
        """Of guests that were not brought back but booted anew."""
        if lost := [i.name for i in instances if not self._parts.suspension.states(i.id)]:
            self._records.event(
                "memory-lost", workload.name,
                f"{', '.join(lost)} was suspended, and somebody else booted it anew: what it had in memory is lost.",
            )  # fmt: skip

    def _started_without_room(self, workload: Workload) -> bool:
        lives = workload.state in (WorkloadState.ACTIVE, WorkloadState.SUSPENDED)
        again = lives and self._settings.unplanned_start == "suspend"
        self._tell_no_room(workload, "; it is suspended again" if again else "")
        if not again and workload.reason != _NO_ROOM:
            self._records.change(workload.id, reason=_NO_ROOM)
        if again:
            begin(self._parts, self._records, OperationKind.SUSPEND, workload, "it was started without room")
            self._records.change(workload.id, held=workload.held)
        return again

    def _tell_no_room(self, workload: Workload, then: str = "") -> None:
        self._tell_once(
            "started-without-room", workload.name,
            f"{workload.name} was started by somebody else, and the books have no room for it{then}.",
        )  # fmt: skip
        if then:
            self._told.discard(("started-without-room", workload.name))

    def _record_saved(self, workload: Workload, instances: Sequence[Instance]) -> None:
        """It stays so until somebody brings it back: whoever saved it had a reason.

        Where a scheduler asks nobody when a VM is brought back, it must keep its room.
        """
        if not self._parts.hypervisor.capabilities().shared_books:
            self._parts.ledger.release([i.id for i in instances], [ClaimKind.COMPUTE])
        self._claims.fit(instances)
        now = self._parts.clock.now()
        self._records.change(
            workload.id,
            state=WorkloadState.SUSPENDED,
            held=True,
            running_since=None,
            ran_for=workload.ran(now),
            problem=None,
            reason="saved by somebody else",
        )
        self._records.event(
            "workload-suspended", workload.name,
            f"{workload.name} was saved by somebody else; `torpor resume {workload.name}` brings it back.",
        )  # fmt: skip

    def _record_lost(self, workload: Workload, lost: Sequence[str]) -> None:
        problem = InstanceGone(
            f"the saved state of {', '.join(lost)} is gone",
            detail="somebody else removed it, or used it and ended the VM",
            remedy="the disks are as they were left; start the VMs, or let go of the workload",
        ).problem
        self._records.change(workload.id, state=WorkloadState.FAILED, problem=problem, reason=problem.what)
        self._records.event("workload-failed", workload.name, problem.sentence)

    def _standing(self, instance: Instance, seen: Seen) -> Standing:
        observed = seen.get(instance.id)
        if observed is not None and observed.pid is not None:
            return Standing.RUNS
        if observed is not None and observed.state is BackendState.SHUT_OFF:
            return Standing.OFF
        newest = next(iter(self._parts.suspension.states(instance.id)), None)
        return Standing.SAVED if newest is not None and newest.status is StateStatus.WHOLE else Standing.GONE

    def _tell_once(self, kind: str, subject: str, message: str) -> None:
        if (kind, subject) not in self._told:
            self._told.add((kind, subject))
            self._records.event(kind, subject, message)

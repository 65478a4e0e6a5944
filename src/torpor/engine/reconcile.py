"""What the backend says against what the records say: deaths, ends, and things done behind our back."""

from collections.abc import Collection, Mapping, Sequence

from torpor.domain.capacity import ClaimKind
from torpor.domain.errors import InstanceGone, TorporError
from torpor.domain.ids import InstanceId, WorkloadId
from torpor.domain.instance import BackendState, Instance, Observation, StateStatus
from torpor.domain.naming import NameRecord
from torpor.domain.operation import OperationKind
from torpor.domain.plan import Gang
from torpor.domain.workload import Workload, WorkloadState
from torpor.engine.operations import begin
from torpor.engine.owners import Owners
from torpor.engine.parts import Parts
from torpor.engine.records import Records

_ABSENT = Observation(BackendState.ABSENT)
Seen = Mapping[InstanceId, Observation]


def can_go_back(parts: Parts, instance: InstanceId) -> bool:
    """Whether it could be taken back to its newest saved state."""
    newest = next(iter(parts.suspension.states(instance)), None)
    revert = parts.hypervisor.capabilities().revert
    return newest is not None and (revert or newest.status is StateStatus.WHOLE)


class Reconciler:
    """Looks at every workload that no operation is changing."""

    def __init__(self, parts: Parts, records: Records, owners: Owners) -> None:
        self._parts = parts
        self._records = records
        self._owners = owners
        self._shared = parts.hypervisor.capabilities().adoption
        self._told: set[tuple[InstanceId, BackendState]] = set()

    def reconcile(
        self, gangs: Sequence[Gang], busy: Collection[WorkloadId], put_off: Collection[str], seen: Seen
    ) -> None:
        """`busy`: workloads that an operation is changing; `put_off`: those whose last one failed a moment ago.

        The caller holds the records' lock.
        """
        for gang in gangs:
            if gang.workload.id not in busy:
                self._look_at(gang.workload, gang.instances, gang.workload.id in put_off, seen)
        known = {instance.id for gang in gangs for instance in gang.instances}
        for stranger in seen.keys() - known:
            self._tell_once(
                stranger, seen[stranger].state, stranger,
                f"Process {seen[stranger].pid} runs an instance that is not in the records; it was left alone.",
            )  # fmt: skip

    def _look_at(self, workload: Workload, instances: tuple[Instance, ...], put_off: bool, seen: Seen) -> None:
        if self._shared and self._owners.follow(workload, instances, put_off, seen):
            return
        states = {i.id: seen.get(i.id, _ABSENT).state for i in instances}
        if workload.state is WorkloadState.ACTIVE:
            self._look_at_active(workload, instances, states)
        elif workload.state in (WorkloadState.SUSPENDED, WorkloadState.PENDING):
            for instance in instances:
                if states[instance.id] is not BackendState.ABSENT:
                    self._tell_once(
                        instance.id, states[instance.id], instance.name,
                        f"{instance.name} has a process though its workload is {workload.state}; it was left alone.",
                    )  # fmt: skip
        elif workload.state is WorkloadState.FAILED:
            self._release_dead(instances, states)
        elif workload.state is WorkloadState.DELETING:
            begin(self._parts, self._records, OperationKind.DELETE, workload, "asked for")

    def _look_at_active(
        self, workload: Workload, instances: tuple[Instance, ...], states: Mapping[InstanceId, BackendState]
    ) -> None:
        dead = [i for i in instances if states[i.id] is BackendState.ABSENT]
        if dead:
            self._fail(workload, dead)
            self._release_dead(instances, states)
            return
        if all(s is BackendState.SHUT_OFF for s in states.values()):
            begin(self._parts, self._records, OperationKind.END, workload, "its guests have shut down")
            return
        # Whoever shares the host may have paused it, and may let it run on.
        woken = {BackendState.IO_ERROR} if self._shared else {BackendState.PAUSED, BackendState.IO_ERROR}
        for instance in instances:
            if states[instance.id] in woken:
                self._wake(instance, states[instance.id])

    def _fail(self, workload: Workload, dead: list[Instance]) -> None:
        names = ", ".join(i.name for i in dead)
        kept = all(can_go_back(self._parts, i.id) for i in self._records.instances(workload.id))
        problem = InstanceGone(
            f"the hypervisor process of {names} ended unexpectedly",
            detail="it was killed, it crashed, or the machine was restarted; the disk is kept",
            remedy=(
                f"`torpor resume {workload.name}` takes the whole workload back to its last saved state"
                if kept
                else f"look at `torpor console {dead[0].name}`, then `torpor delete {workload.name}` and run it anew"
            ),
        ).problem
        for instance in dead:
            self._records.change_instance(workload.id, instance.id, problem=problem)
        now = self._parts.clock.now()
        self._records.change(
            workload.id,
            state=WorkloadState.FAILED,
            problem=problem,
            reason=problem.what,
            running_since=None,
            ran_for=workload.ran(now),
        )
        self._records.event("workload-failed", workload.name, problem.sentence)

    def _release_dead(self, instances: tuple[Instance, ...], states: Mapping[InstanceId, BackendState]) -> None:
        """What a dead process held is free; survivors of a failed gang keep what they hold.

        Where a scheduler asks nobody when a VM is started again, the dead keep it too, until they are deleted.
        """
        if self._parts.hypervisor.capabilities().shared_books:
            return
        claimed = {c.consumer for c in self._parts.ledger.claims() if c.kind is ClaimKind.COMPUTE}
        dead = [i.id for i in instances if states[i.id] is BackendState.ABSENT and i.id in claimed]
        if dead:
            self._parts.ledger.release(dead, [ClaimKind.COMPUTE])

    def _wake(self, instance: Instance, state: BackendState) -> None:
        """Nobody of ours paused it: let it run on; after a disk error that is worth trying again and again."""
        why = (
            "its disk could not be written (is the host's disk full?)"
            if state is BackendState.IO_ERROR
            else "it was paused behind our back"
        )
        self._tell_once(instance.id, state, instance.name, f"{instance.name} stood still: {why}; it is let run on.")
        try:
            self._parts.hypervisor.run_on(instance.id)
        except TorporError as error:
            self._records.event("instance-stuck", instance.name, str(error))

    def _tell_once(self, instance: InstanceId, state: BackendState, subject: str, message: str) -> None:
        if (instance, state) not in self._told:
            self._told.add((instance, state))
            self._records.event("unexpected-state", subject, message)

    def audit(self, seen: Seen) -> None:
        """At the daemon's start: claims of instances that are no more, and names that should answer."""
        with self._records.lock:
            known = {i.id for i in self._parts.inventory.instances()}
            lost = {c.consumer for c in self._parts.ledger.claims()} - known - seen.keys()
            if lost:
                self._parts.ledger.release(sorted(lost), list(ClaimKind))
                self._records.event("claims-released", "ledger", f"Claims of {len(lost)} unknown instances released.")
            self._audit_names()

    def _audit_names(self) -> None:
        alive = {w.id for w in self._parts.inventory.workloads() if w.state is not WorkloadState.DELETING}
        wanted = [
            NameRecord(i.name, i.address)
            for i in self._parts.inventory.instances()
            if i.workload in alive and i.address
        ]
        stale = {r.name for r in self._parts.names.records()} - {r.name for r in wanted}
        try:
            self._parts.names.withdraw(sorted(stale))
            self._parts.names.publish(wanted)
        except TorporError as error:
            self._records.event("names-not-served", "names", str(error))

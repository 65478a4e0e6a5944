"""What each kind of operation consists of, and how one is begun."""

import uuid
from collections.abc import Mapping

from torpor.domain.errors import Conflict
from torpor.domain.ids import HostId, InstanceId, OperationId
from torpor.domain.instance import Instance
from torpor.domain.operation import Operation, OperationKind, Step, StepKind
from torpor.domain.workload import Workload, WorkloadState
from torpor.engine.parts import Parts
from torpor.engine.records import Records

_GANG = {
    # One step for the whole gang; every other kind is a step for each instance.
    StepKind.CLAIM_COMPUTE,
    StepKind.PUBLISH_NAMES,
    StepKind.CLAIM_STATE,
    StepKind.TELL_BATCH_SYSTEM,
    StepKind.PAUSE,
    StepKind.RELEASE_COMPUTE,
    StepKind.SETTLE_STATE,
    StepKind.SPEND,
    StepKind.RUN_ON,
    StepKind.CONFIRM,
    StepKind.WITHDRAW_NAMES,
    StepKind.PASS_ON,
    StepKind.RELEASE_ALL,
    StepKind.FORGET,
    StepKind.RECORD,
    StepKind.CLAIM_SNAPSHOT,
    StepKind.TAKE_SNAPSHOT,
    StepKind.SETTLE_SNAPSHOTS,
    StepKind.GIVE_UP,
}

STEPS: Mapping[OperationKind, tuple[StepKind, ...]] = {
    OperationKind.RUN: (
        StepKind.CLAIM_COMPUTE,
        StepKind.PUBLISH_NAMES,
        StepKind.BOOT,
        StepKind.RECORD,
    ),
    OperationKind.SUSPEND: (
        StepKind.CLAIM_STATE,
        StepKind.TELL_BATCH_SYSTEM,
        StepKind.PAUSE,
        StepKind.SAVE,
        StepKind.RELEASE_MEMORY,
        StepKind.RELEASE_COMPUTE,
        StepKind.SETTLE_STATE,
        StepKind.RECORD,
    ),
    OperationKind.RESUME: (
        StepKind.CLAIM_COMPUTE,
        StepKind.RESTORE,
        StepKind.SPEND,
        StepKind.RUN_ON,
        StepKind.IDENTIFY,
        StepKind.CONFIRM,
        StepKind.TELL_BATCH_SYSTEM,
        StepKind.RECORD,
    ),
    OperationKind.END: (
        StepKind.STOP,
        StepKind.RELEASE_COMPUTE,
        StepKind.RECORD,
    ),
    OperationKind.DELETE: (
        StepKind.WITHDRAW_NAMES,
        StepKind.ERASE,
        StepKind.RELEASE_ALL,
        StepKind.FORGET,
    ),
    OperationKind.GO_BACK: (
        StepKind.REVERT,
        StepKind.RELEASE_COMPUTE,
        StepKind.RECORD,
    ),
    OperationKind.SNAPSHOT: (
        StepKind.CLAIM_SNAPSHOT,
        StepKind.TAKE_SNAPSHOT,
        StepKind.SETTLE_SNAPSHOTS,
    ),
    OperationKind.RESTORE_SNAPSHOT: (
        StepKind.VERIFY_SNAPSHOT,
        StepKind.CLAIM_STATE,
        StepKind.GIVE_UP,
        StepKind.STOP,
        StepKind.LAY_DOWN,
        StepKind.RELEASE_COMPUTE,
        StepKind.SETTLE_STATE,
        StepKind.RECORD,
    ),
    OperationKind.REMOVE_SNAPSHOT: (
        StepKind.REMOVE_SNAPSHOT,
        StepKind.SETTLE_SNAPSHOTS,
    ),
    OperationKind.CLONE: (
        StepKind.CLAIM_COMPUTE,
        StepKind.PUBLISH_NAMES,
        StepKind.LAY_DOWN,
        StepKind.SETTLE_STATE,
        StepKind.RESTORE,
        StepKind.SPEND,
        StepKind.RUN_ON,
        StepKind.IDENTIFY,
        StepKind.CONFIRM,
        StepKind.RECORD,
    ),
}

SHARED_BOOKS: Mapping[OperationKind, tuple[StepKind, ...]] = {
    # Where others claim what is released: who waits gets it from hand to hand.
    OperationKind.END: (
        StepKind.STOP,
        StepKind.PASS_ON,
        StepKind.RELEASE_COMPUTE,
        StepKind.RECORD,
    ),
    OperationKind.DELETE: (
        StepKind.WITHDRAW_NAMES,
        StepKind.STOP,
        StepKind.PASS_ON,
        StepKind.ERASE,
        StepKind.RELEASE_ALL,
        StepKind.FORGET,
    ),
}

NO_RETURN: Mapping[OperationKind, StepKind] = {
    # From the first step of this kind on, an operation is not undone any more but tried again until it
    # is through: the state is the only whole copy, or the guests run and must not be set back.
    OperationKind.RUN: StepKind.RECORD,
    OperationKind.SUSPEND: StepKind.RELEASE_MEMORY,
    OperationKind.RESUME: StepKind.TELL_BATCH_SYSTEM,
    OperationKind.END: StepKind.STOP,
    OperationKind.DELETE: StepKind.WITHDRAW_NAMES,
    OperationKind.GO_BACK: StepKind.REVERT,
    OperationKind.SNAPSHOT: StepKind.SETTLE_SNAPSHOTS,
    OperationKind.RESTORE_SNAPSHOT: StepKind.GIVE_UP,
    OperationKind.REMOVE_SNAPSHOT: StepKind.REMOVE_SNAPSHOT,
    OperationKind.CLONE: StepKind.RECORD,
}

UNDERWAY: Mapping[OperationKind, WorkloadState] = {
    # The workload's state while the operation is open. A run stays `pending` until it runs; the kinds that are not
    # here leave the state as it is, at least at first.
    OperationKind.RUN: WorkloadState.PENDING,
    OperationKind.SUSPEND: WorkloadState.SUSPENDING,
    OperationKind.RESUME: WorkloadState.RESUMING,
    OperationKind.END: WorkloadState.ACTIVE,
    OperationKind.DELETE: WorkloadState.DELETING,
    OperationKind.GO_BACK: WorkloadState.RESUMING,
    OperationKind.CLONE: WorkloadState.PENDING,
}


def steps_of(kind: OperationKind, instances: tuple[Instance, ...], shared_books: bool = False) -> tuple[Step, ...]:
    """The steps, numbered from 0."""
    acts: list[tuple[StepKind, InstanceId | None]] = []
    for step in SHARED_BOOKS.get(kind, STEPS[kind]) if shared_books else STEPS[kind]:
        if step in _GANG:
            acts.append((step, None))
        else:
            acts.extend((step, instance.id) for instance in instances)
    return tuple(Step(i, step, instance) for i, (step, instance) in enumerate(acts))


def may_turn_back(operation: Operation, failed: Step, revert: bool) -> bool:
    """Whether a failure of this step can still be answered by undoing the operation.

    Without `revert` a saved state that is spent is used up, so there is no way back from there either.
    """
    final = {NO_RETURN[operation.kind]} | (set() if revert else {StepKind.SPEND})
    last = next(s.index for s in operation.steps if s.kind in final)
    return failed.index < last


def busy(parts: Parts, workload: Workload) -> bool:
    """Whether an operation on it is open."""
    return any(o.workload == workload.id for o in parts.journal.open())


def expect(parts: Parts, workload: Workload, *states: WorkloadState) -> None:
    """Raises Conflict unless it is in one of these states and at rest."""
    at_work = busy(parts, workload)
    if workload.state not in states or at_work:
        raise Conflict(
            f"workload {workload.name} is {workload.state}",
            detail=f"this needs it to be {' or '.join(states)}" + (" and at rest" if at_work else ""),
            remedy="see `torpor show " + workload.name + "`",
        )


def begin(
    parts: Parts,
    records: Records,
    kind: OperationKind,
    workload: Workload,
    reason: str,
    predicted_seconds: float | None = None,
    placement: Mapping[InstanceId, HostId] | None = None,
    snapshot: str = "",
) -> Operation:
    """Record the operation with all its steps pending. Nothing is done yet."""
    with records.lock:
        for instance, host in (placement or {}).items():
            records.change_instance(workload.id, instance, host=host)
        operation = Operation(
            id=OperationId(str(uuid.uuid4())),
            kind=kind,
            workload=workload.id,
            workload_name=workload.name,
            reason=reason,
            steps=steps_of(kind, records.instances(workload.id), parts.hypervisor.capabilities().shared_books),
            created_at=parts.clock.now(),
            predicted_seconds=predicted_seconds,
            snapshot=snapshot,
        )
        parts.journal.begin(operation)
        if kind in UNDERWAY:
            records.change(workload.id, state=UNDERWAY[kind], reason=reason)
    return operation

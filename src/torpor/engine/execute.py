"""Carrying an operation out, forward or back, from wherever it stands.

The invariant, at every interruption: a step is DONE only if its act happened, and an act happens
only while its step is at least INTENDED. So whoever finds an open operation goes on at its first step
that is not DONE (or, when it is being undone, at the last one that is not PENDING or UNDONE).
"""

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace

from torpor.domain.errors import BackendFailed, NoCapacity, NotFound, Problem, TorporError
from torpor.domain.ids import InstanceId, OperationId
from torpor.domain.operation import (
    Operation,
    OperationKind,
    OperationStatus,
    Step,
    StepKind,
    StepStatus,
)
from torpor.domain.workload import WorkloadState
from torpor.engine.operations import may_turn_back
from torpor.engine.parts import Parts, Settings
from torpor.engine.records import Records
from torpor.engine.scene import Done, Scene
from torpor.engine.steps import Steps

log = logging.getLogger(__name__)


class Executor:
    """Carries operations out, one at a time; the only place from which acts are called."""

    def __init__(self, parts: Parts, records: Records, settings: Settings) -> None:
        self._parts = parts
        self._records = records
        self._settings = settings
        self._steps = Steps(parts, records, settings)
        self._progress: dict[OperationId, tuple[int, int]] = {}
        self._one_at_a_time = threading.Lock()

    def let_decide(self, next_in_place_of: Callable[[Sequence[InstanceId]], Operation | None]) -> None:
        """Have this asked who gets what a workload held that has ended (see `Steps.next_in_place_of`)."""
        self._steps.next_in_place_of = next_in_place_of

    def progress(self, operation: OperationId) -> tuple[int, int]:
        """(bytes done, bytes in all) of the step under way; zeros where it moves no bytes."""
        return self._progress.get(operation, (0, 0))

    @contextmanager
    def at_rest(self) -> Iterator[None]:
        """No operation is carried out meanwhile; waits for the one that is."""
        with self._one_at_a_time:
            yield

    def carry_out(self, id: OperationId) -> Operation:
        """Go on with the operation until it has ended, or until it can't go on for now.

        Returns the operation as it is then; when it is still open, call again later.
        """
        with self._one_at_a_time:
            operation = self._parts.journal.get(id)
            try:
                if operation.status is OperationStatus.FORWARD:
                    self._forward(operation)
                if self._parts.journal.get(id).status is OperationStatus.UNDOING:
                    self._back(self._parts.journal.get(id))
            except TorporError:
                self._let_run(operation)
                raise
            finally:
                self._progress.pop(id, None)
            return self._parts.journal.get(id)

    def _let_run(self, operation: Operation) -> None:
        """The journal itself can't be written: who stands still for an unfinished suspension must not wait for that.

        Once it can be written again the operation goes on, finds running guests that it can't save, and is undone.
        """
        saves = [s for s in self._parts.journal.get(operation.id).steps if s.kind is StepKind.SAVE]
        if operation.kind is not OperationKind.SUSPEND or all(s.status is StepStatus.DONE for s in saves):
            return  # once all is saved it is only released, and that needs no disk
        scene = self._steps.scene(operation, lambda done, total: None)
        with suppress(TorporError):
            self._steps.gang.let_run(scene)

    # --- forward ---

    def _forward(self, operation: Operation) -> None:
        for step in operation.steps:
            if step.status is StepStatus.DONE:
                continue
            problem = self._take(operation, step, self._steps.do, StepStatus.DONE)
            if problem is None:
                continue
            if may_turn_back(operation, step, self._parts.hypervisor.capabilities().revert):
                self._parts.journal.turn_back(operation.id, problem)
            else:
                self._report(operation, f"step {step.kind} is tried again: {problem.sentence}")
            return
        self._finish(operation, OperationStatus.SUCCEEDED)

    def _back(self, operation: Operation) -> None:
        """Undo in reverse. What can't be undone now does not stop the rest, but keeps the operation open."""
        stuck = False
        for step in reversed(operation.steps):
            if step.status in (StepStatus.PENDING, StepStatus.UNDONE):
                continue
            problem = self._take(operation, step, self._steps.undo, StepStatus.UNDONE)
            if problem is not None:
                stuck = True
                self._report(operation, f"undoing step {step.kind} is tried again: {problem.sentence}")
        if not stuck:
            self._record_undone(operation)
            self._finish(operation, OperationStatus.UNDONE)

    def _take(
        self, operation: Operation, step: Step, act: Callable[[Step, Scene], Done], done: StepStatus
    ) -> Problem | None:
        """One act between its two records. Returns what went wrong."""
        journal, clock = self._parts.journal, self._parts.clock
        self._progress[operation.id] = (0, 0)
        if done is StepStatus.DONE:
            journal.intend(operation.id, step.index, clock.now())
        try:
            told = self._act(operation, step, act)
        except Exception as error:  # whatever an act raises must lead to a defined end of the operation
            problem = as_problem(error)
            if done is StepStatus.DONE:
                journal.record(operation.id, step.index, StepStatus.FAILED, clock.now(), problem.sentence)
            return problem
        journal.record(operation.id, step.index, done, clock.now(), told.detail, told.skew)
        return None

    def _act(self, operation: Operation, step: Step, act: Callable[[Step, Scene], Done]) -> Done:
        def progress(done: int, total: int) -> None:
            self._progress[operation.id] = (done, total)

        try:
            # Steps recorded in this very run carry their times; a scene is always the latest record.
            scene = self._steps.scene(self._parts.journal.get(operation.id), progress)
        except NotFound:
            if operation.kind is OperationKind.DELETE:
                return Done("the workload is out of the records")
            raise
        return act(step, scene)

    # --- ends ---

    def _finish(self, operation: Operation, status: OperationStatus) -> None:
        self._parts.journal.finish(operation.id, status, self._parts.clock.now())
        ended = self._parts.journal.get(operation.id)
        if status is OperationStatus.SUCCEEDED:
            self._report(ended, "done", kind=f"{operation.kind}-succeeded")
        else:
            problem = ended.problem.sentence if ended.problem else ""
            self._report(ended, f"taken back: {problem}", kind=f"{operation.kind}-undone")

    def _record_undone(self, operation: Operation) -> None:
        """The workload is what it was before, and says why."""
        if operation.kind in (OperationKind.SNAPSHOT, OperationKind.RESTORE_SNAPSHOT):
            return  # it changed nothing of the workload
        workload = self._records.workload(operation.workload)
        problem = operation.problem
        lost_a_race = problem is not None and problem.code == NoCapacity.code
        attempts = workload.attempts + (0 if lost_a_race else 1)  # somebody else was sooner: it waits as before
        reason = problem.sentence if problem else ""
        state = {
            OperationKind.SUSPEND: WorkloadState.ACTIVE,
            OperationKind.RESUME: WorkloadState.SUSPENDED,
            OperationKind.RUN: WorkloadState.PENDING,
            OperationKind.CLONE: WorkloadState.PENDING,
        }[operation.kind]
        final = (
            bool(problem) and (not problem.retryable or attempts >= self._settings.max_attempts) if problem else False
        )
        if state is WorkloadState.PENDING and final:
            state = WorkloadState.FAILED
        held = workload.held if operation.kind is not OperationKind.SUSPEND else False
        if operation.kind is OperationKind.RESUME and final:
            held = True
            reason += " It stays suspended until `torpor resume`."
        if operation.kind is OperationKind.RUN:
            for instance in self._records.instances(workload.id):
                self._records.change_instance(workload.id, instance.id, host=None)
        self._records.change(workload.id, state=state, attempts=attempts, problem=problem, held=held, reason=reason)

    def _report(self, operation: Operation, message: str, kind: str = "operation-retried") -> None:
        text = f"{operation.kind} of {operation.workload_name}: {message}"
        log.info(text)
        self._records.event(kind, operation.workload_name, text)


def as_problem(error: Exception) -> Problem:
    """A failure as data. What is no TorporError is a bug: it is logged with its traceback."""
    if isinstance(error, TorporError):
        return error.problem
    log.error("unexpected %s", type(error).__name__, exc_info=error)
    unexpected = BackendFailed(
        "an unexpected error stopped this step",
        detail=f"{type(error).__name__}: {error}",
        remedy="the daemon's log has the details",
    )
    return replace(unexpected.problem, code="internal")

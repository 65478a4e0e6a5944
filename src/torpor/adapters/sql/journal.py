"""Operations in SQL: every method is on disk before it returns."""

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, delete, func, insert, select, update

from torpor.adapters.sql import problem as problems
from torpor.adapters.sql.database import Database
from torpor.adapters.sql.schema import operations, steps
from torpor.domain.errors import Conflict, Invalid, NotFound, Problem
from torpor.domain.ids import InstanceId, OperationId, WorkloadId
from torpor.domain.operation import Operation, OperationKind, OperationStatus, Step, StepKind, StepStatus

_OPEN = (OperationStatus.FORWARD.value, OperationStatus.UNDOING.value)


class SqlJournal:
    """`ports.Journal` on a database. An ended operation is history: to change it raises Conflict.

    Of the ended ones those are kept that are among the last `keep` begun.
    """

    def __init__(self, database: Database, *, keep: int = 2_000) -> None:
        self._database = database
        self._keep = keep

    def begin(self, operation: Operation) -> None:
        with self._database.writing() as connection:
            if connection.scalar(select(operations.c.number).where(operations.c.id == operation.id)):
                raise Conflict(f"operation {operation.id} has been begun before")
            connection.execute(insert(operations).values(_operation_values(operation)))
            if operation.steps:
                connection.execute(insert(steps), [_step_values(operation.id, step) for step in operation.steps])

    def intend(self, operation: OperationId, step: int, at: float) -> None:
        self._change_step(
            operation,
            step,
            {"status": StepStatus.INTENDED.value, "started_at": at, "ended_at": None, "detail": "", "skew": None},
        )

    def record(
        self,
        operation: OperationId,
        step: int,
        status: StepStatus,
        at: float,
        detail: str = "",
        skew: float | None = None,
    ) -> None:
        self._change_step(operation, step, {"status": status.value, "ended_at": at, "detail": detail, "skew": skew})

    def turn_back(self, operation: OperationId, problem: Problem) -> None:
        self._change(operation, {"status": OperationStatus.UNDOING.value, "problem": problems.to_json(problem)})

    def finish(self, operation: OperationId, status: OperationStatus, at: float) -> None:
        if status.value in _OPEN:
            raise Invalid(f"operation {operation} can't end as {status.value}")
        self._change(operation, {"status": status.value, "ended_at": at})
        newest = select(func.max(operations.c.number)).scalar_subquery()
        too_old = operations.c.number <= newest - self._keep
        with self._database.writing() as connection:
            connection.execute(delete(operations).where(too_old, operations.c.status.not_in(_OPEN)))

    def get(self, operation: OperationId) -> Operation:
        found = self._read(select(operations).where(operations.c.id == operation))
        if not found:
            raise _unknown(operation)
        return found[0]

    def open(self) -> Sequence[Operation]:
        return self._read(select(operations).where(operations.c.status.in_(_OPEN)).order_by(operations.c.number))

    def recent(self, limit: int) -> Sequence[Operation]:
        return self._read(select(operations).order_by(operations.c.number.desc()).limit(max(0, limit)))

    def _read(self, query: Select[*tuple[Any, ...]]) -> tuple[Operation, ...]:
        with self._database.reading() as connection:
            rows = connection.execute(query).all()
            by_operation = _steps(connection, [row.id for row in rows])
        return tuple(_operation(row, by_operation.get(row.id, ())) for row in rows)

    def _change_step(self, operation: OperationId, step: int, values: dict[str, object]) -> None:
        change = (
            update(steps)
            .where(steps.c.operation == operation, steps.c.position == step, _is_open(operation))
            .values(values)
        )
        with self._database.writing() as connection:
            if connection.execute(change).rowcount == 0:
                _refuse_ended(connection, operation)
                raise NotFound(f"operation {operation} has no step {step}")

    def _change(self, operation: OperationId, values: dict[str, object]) -> None:
        change = update(operations).where(operations.c.id == operation, operations.c.status.in_(_OPEN)).values(values)
        with self._database.writing() as connection:
            if connection.execute(change).rowcount == 0:
                _refuse_ended(connection, operation)


def _is_open(operation: OperationId) -> ColumnElement[bool]:
    return select(operations.c.id).where(operations.c.id == operation, operations.c.status.in_(_OPEN)).exists()


def _refuse_ended(connection: Connection, operation: OperationId) -> None:
    status = connection.scalar(select(operations.c.status).where(operations.c.id == operation))
    if status is None:
        raise _unknown(operation)
    if status not in _OPEN:
        raise Conflict(f"operation {operation} can't be changed", detail=f"it has ended as {status}")


def _unknown(operation: OperationId) -> NotFound:
    return NotFound(f"there is no operation {operation}")


def _steps(connection: Connection, ids: Sequence[str]) -> dict[str, list[Step]]:
    found: dict[str, list[Step]] = {}
    query = select(steps).where(steps.c.operation.in_(ids)).order_by(steps.c.operation, steps.c.position)
    for row in connection.execute(query) if ids else ():
        found.setdefault(row.operation, []).append(_step(row))
    return found


def _operation(row: Row[*tuple[Any, ...]], its_steps: Iterable[Step]) -> Operation:
    return Operation(
        id=OperationId(row.id),
        kind=OperationKind(row.kind),
        workload=WorkloadId(row.workload),
        workload_name=row.workload_name,
        reason=row.reason,
        steps=tuple(its_steps),
        created_at=row.created_at,
        predicted_seconds=row.predicted_seconds,
        status=OperationStatus(row.status),
        ended_at=row.ended_at,
        problem=problems.from_json(row.problem),
        snapshot=row.snapshot,
    )


def _operation_values(operation: Operation) -> dict[str, object]:
    return {
        "id": operation.id,
        "kind": operation.kind.value,
        "workload": operation.workload,
        "workload_name": operation.workload_name,
        "reason": operation.reason,
        "created_at": operation.created_at,
        "predicted_seconds": operation.predicted_seconds,
        "status": operation.status.value,
        "ended_at": operation.ended_at,
        "problem": problems.to_json(operation.problem),
        "snapshot": operation.snapshot,
    }


def _step(row: Row[*tuple[Any, ...]]) -> Step:
    return Step(
        index=row.position,
        kind=StepKind(row.kind),
        instance=None if row.instance is None else InstanceId(row.instance),
        status=StepStatus(row.status),
        started_at=row.started_at,
        ended_at=row.ended_at,
        detail=row.detail,
        skew=row.skew,
    )


def _step_values(operation: OperationId, step: Step) -> dict[str, object]:
    return {
        "operation": operation,
        "position": step.index,
        "kind": step.kind.value,
        "instance": step.instance,
        "status": step.status.value,
        "started_at": step.started_at,
        "ended_at": step.ended_at,
        "detail": step.detail,
        "skew": step.skew,
    }

"""Operations and their steps."""

from pydantic import BaseModel

from torpor.api.schemas.problem import ProblemSchema
from torpor.domain.operation import OperationKind, OperationStatus, Step, StepKind, StepStatus
from torpor.engine.views import OperationView


class StepSchema(BaseModel):
    index: int
    kind: StepKind
    instance: str | None
    """Id of the instance; null where the step is about the whole gang."""
    status: StepStatus
    started_at: float | None
    ended_at: float | None
    detail: str

    @classmethod
    def of(cls, step: Step) -> "StepSchema":
        return cls(
            index=step.index,
            kind=step.kind,
            instance=step.instance,
            status=step.status,
            started_at=step.started_at,
            ended_at=step.ended_at,
            detail=step.detail,
        )


class OperationSchema(BaseModel):
    id: str
    kind: OperationKind
    workload: str
    """Name of the workload."""
    status: OperationStatus
    reason: str
    created_at: float
    ended_at: float | None
    predicted_seconds: float | None
    bytes_done: int
    bytes_total: int
    """Of the step that is under way; 0 where it moves no bytes."""
    problem: ProblemSchema | None
    steps: list[StepSchema]

    @classmethod
    def of(cls, view: OperationView) -> "OperationSchema":
        operation = view.operation
        return cls(
            id=operation.id,
            kind=operation.kind,
            workload=operation.workload_name,
            status=operation.status,
            reason=operation.reason,
            created_at=operation.created_at,
            ended_at=operation.ended_at,
            predicted_seconds=operation.predicted_seconds,
            bytes_done=view.bytes_done,
            bytes_total=view.bytes_total,
            problem=ProblemSchema.maybe(operation.problem),
            steps=[StepSchema.of(step) for step in operation.steps],
        )


class OperationsSchema(BaseModel):
    operations: list[OperationSchema]
    """Newest first."""

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
    skew_seconds: float | None
    """Between the first instance's standstill (or going on) and the last one's; null where it is not one instant."""

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
            skew_seconds=step.skew,
        )


class OperationSchema(BaseModel):
    id: str
    kind: OperationKind
    workload: str
    """Name of the workload."""
    status: OperationStatus
    reason: str
    snapshot: str
    """Name of the snapshot that it is about; empty where it is not about one."""
    created_at: float
    ended_at: float | None
    predicted_seconds: float | None
    bytes_done: int
    bytes_total: int
    """Of the step that is under way; 0 where it moves no bytes."""
    problem: ProblemSchema | None
    skew_seconds: float | None
    """How far from one instant the gang stood still, or ran on; null where it did not, or one stood still before."""
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
            snapshot=operation.snapshot,
            created_at=operation.created_at,
            ended_at=operation.ended_at,
            predicted_seconds=operation.predicted_seconds,
            bytes_done=view.bytes_done,
            bytes_total=view.bytes_total,
            problem=ProblemSchema.maybe(operation.problem),
            skew_seconds=max((s.skew for s in operation.steps if s.skew is not None), default=None),
            steps=[StepSchema.of(step) for step in operation.steps],
        )


class OperationsSchema(BaseModel):
    operations: list[OperationSchema]
    """Newest first."""

"""Plans, and the actions that they are made of."""

from pydantic import BaseModel

from torpor.domain.operation import OperationKind
from torpor.domain.plan import Action, Plan, Verdict


class ActionSchema(BaseModel):
    kind: OperationKind
    name: str
    """Of the workload that it is done to."""
    reason: str
    predicted_seconds: float
    placement: dict[str, str]
    """Host by instance id, where instances are placed."""

    @classmethod
    def of(cls, action: Action) -> "ActionSchema":
        return cls(
            kind=action.kind,
            name=action.name,
            reason=action.reason,
            predicted_seconds=action.predicted_seconds,
            placement={str(instance): str(host) for instance, host in action.placement.items()},
        )


class PlanSchema(BaseModel):
    name: str
    """Of the workload that the plan is for."""
    verdict: Verdict
    reason: str
    predicted_seconds: float
    retry_at: float | None
    victims: list[str]
    """Names of the workloads that would be suspended."""
    actions: list[ActionSchema]

    @classmethod
    def of(cls, plan: Plan) -> "PlanSchema":
        return cls(
            name=plan.name,
            verdict=plan.verdict,
            reason=plan.reason,
            predicted_seconds=plan.predicted_seconds,
            retry_at=plan.retry_at,
            victims=[action.name for action in plan.victims],
            actions=[ActionSchema.of(action) for action in plan.actions],
        )


class PlansSchema(BaseModel):
    plans: list[PlanSchema]
    """In the order of the queue."""

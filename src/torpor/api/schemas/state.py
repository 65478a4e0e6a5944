"""Saved states on their own: listed, verified, removed."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from torpor.api.schemas.instance import SavedStateSchema
from torpor.api.schemas.problem import ProblemSchema
from torpor.engine.views import RemovedStates, StateCheck, StateView


class StateSchema(SavedStateSchema):
    workload: str
    instance: str
    """Name of the instance."""
    mapped: bool
    """The guest runs on it: pages that it has not touched yet are read from there."""

    @classmethod
    def from_view(cls, view: StateView) -> "StateSchema":
        state = SavedStateSchema.of(view.state).model_dump()
        return cls(**state, workload=view.workload, instance=view.instance, mapped=view.mapped)


class StatesSchema(BaseModel):
    states: list[StateSchema]
    """By instance, newest first."""


class VerifyBody(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    workload: Annotated[str, Field(min_length=1, max_length=255)] | None = None
    """Null: all workloads."""


class CheckedSchema(BaseModel):
    """What was found of one state."""

    workload: str
    instance: str
    generation: int
    whole: bool | None
    """Null where it was removed before it was read to its end."""
    damage: ProblemSchema | None

    @classmethod
    def of(cls, check: StateCheck) -> "CheckedSchema":
        return cls(
            workload=check.workload,
            instance=check.instance,
            generation=check.generation,
            whole=None if check.gone else check.problem is None,
            damage=ProblemSchema.maybe(check.problem),
        )


class VerifyLine(BaseModel):
    """One line of the answer to a verification; the last one has `checked`, or a problem."""

    instance: str | None = None
    generation: int | None = None
    bytes_done: int | None = None
    bytes_total: int | None = None
    checked: list[CheckedSchema] | None = None
    problem: ProblemSchema | None = None


class RemovedSchema(BaseModel):
    workload: str
    generation: int
    instances: list[str]
    """Names of those that had it."""
    freed_bytes: int
    lost: str
    """What can't be done any more, in words."""

    @classmethod
    def of(cls, removed: RemovedStates) -> "RemovedSchema":
        return cls(
            workload=removed.workload,
            generation=removed.generation,
            instances=list(removed.instances),
            freed_bytes=removed.freed_bytes,
            lost=removed.lost,
        )


class CollectedSchema(BaseModel):
    freed_bytes: int

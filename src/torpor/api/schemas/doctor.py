"""Findings of `torpor doctor`."""

from pydantic import BaseModel

from torpor.api.schemas.problem import ProblemSchema
from torpor.ports import Check


class CheckSchema(BaseModel):
    name: str
    ok: bool
    detail: str
    remedy: str

    @classmethod
    def of(cls, check: Check) -> "CheckSchema":
        return cls(name=check.name, ok=check.ok, detail=check.detail, remedy=check.remedy)


class ChecksSchema(BaseModel):
    checks: list[CheckSchema]


class SelfTestLine(BaseModel):
    """One line of the answer to a self-test; the last one has a check or a problem."""

    progress: str | None = None
    check: CheckSchema | None = None
    problem: ProblemSchema | None = None

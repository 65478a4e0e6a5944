"""Failures, as they go over the wire."""

from pydantic import BaseModel

from torpor.domain.errors import Problem


class ProblemSchema(BaseModel):
    """The body of every answer that is not a success, and the `problem` of whatever went wrong earlier."""

    code: str
    """Stable; `docs/reference/exit-codes.md` lists them."""
    what: str
    detail: str
    remedy: str
    retryable: bool
    message: str
    """The whole as one sentence for people."""

    @classmethod
    def of(cls, problem: Problem) -> "ProblemSchema":
        return cls(
            code=problem.code,
            what=problem.what,
            detail=problem.detail,
            remedy=problem.remedy,
            retryable=problem.retryable,
            message=problem.sentence,
        )

    @classmethod
    def maybe(cls, problem: Problem | None) -> "ProblemSchema | None":
        return cls.of(problem) if problem else None

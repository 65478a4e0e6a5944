"""From what the API answers to an error with its exit code."""

from collections.abc import Iterator, Mapping
from typing import Any

from torpor.domain.errors import TorporError

INTERRUPTED = 130


class Reported(Exception):
    """A finished sentence for standard error, and the exit code to end with."""

    def __init__(self, sentence: str, exit_code: int) -> None:
        super().__init__(sentence)
        self.exit_code = exit_code


def _kinds(root: type[TorporError]) -> Iterator[type[TorporError]]:
    yield root
    for kind in root.__subclasses__():
        yield from _kinds(kind)


def exit_codes() -> dict[str, int]:
    """Exit code by error code, as `docs/reference/exit-codes.md` lists them."""
    return {kind.code: kind.exit_code for kind in _kinds(TorporError)}


def error_of(problem: Mapping[str, Any]) -> TorporError:
    """The error that the daemon had. A code that this version does not know counts as `internal`."""
    by_code = {kind.code: kind for kind in _kinds(TorporError)}
    kind = by_code.get(str(problem.get("code")), TorporError)
    return kind(
        str(problem.get("what") or "the daemon could not do it"),
        detail=str(problem.get("detail") or ""),
        remedy=str(problem.get("remedy") or ""),
    )

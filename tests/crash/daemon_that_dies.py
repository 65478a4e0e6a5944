"""`torpor serve`, killed by SIGKILL at a chosen moment of a chosen step.

    python -m tests.crash.daemon_that_dies CONFIG OPERATION STEP MOMENT INSTANCE

MOMENT: `intended` (the intent is on disk, the act has not begun) or `acted` (the act has happened, its record has
not). INSTANCE: of which of the gang, from 0, where each has such a step.
"""

import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from torpor import wiring
from torpor.config import Config, load
from torpor.daemon import serve
from torpor.domain.ids import OperationId
from torpor.domain.operation import Operation, StepStatus
from torpor.ports import Journal


class DeadlyJournal:
    """The real journal, and a trap in it."""

    def __init__(self, journal: Journal, operation: str, step: str, moment: str, instance: int) -> None:
        self._journal = journal
        self._where = (operation, step)
        self._moment = moment
        self._instance = instance
        self._begun: set[OperationId] = set()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._journal, name)

    def begin(self, operation: Operation) -> None:
        """The trap is for operations of this daemon's own, not for the one that it recovers."""
        self._begun.add(operation.id)
        self._journal.begin(operation)

    def intend(self, operation: OperationId, step: int, at: float) -> None:
        self._journal.intend(operation, step, at)
        self._trap("intended", operation, step)

    def record(
        self,
        operation: OperationId,
        step: int,
        status: StepStatus,
        at: float,
        detail: str = "",
        skew: float | None = None,
    ) -> None:
        if status is StepStatus.DONE:
            self._trap("acted", operation, step)
        self._journal.record(operation, step, status, at, detail, skew)

    def _trap(self, moment: str, operation: OperationId, step: int) -> None:
        if operation not in self._begun:
            return
        record = self._journal.get(operation)
        kind = record.steps[step].kind
        alike = [s.index for s in record.steps if s.kind == kind]
        if (moment, record.kind, kind) == (self._moment, *self._where) and alike.index(step) == self._instance:
            os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    path, operation, step, moment, instance = sys.argv[1:]

    def build(config: Config) -> wiring.App:
        bound = wiring.bind(config)
        journal = DeadlyJournal(bound.parts.journal, operation, step, moment, int(instance))
        return wiring.assemble(config, replace(bound, parts=replace(bound.parts, journal=journal)))

    serve(load(Path(path)), build)


if __name__ == "__main__":
    main()

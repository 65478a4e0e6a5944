"""`torpor serve`, in whose world something breaks at a chosen moment, once.

    python -m tests.crash.daemon_with_trap CONFIG TRAP INSTANCE

TRAP: `kill-saving` (the QEMU of the instance of that name dies while its memory is being written),
`kill-saved` (it dies once its own state is whole, before the rest of the gang is saved), `kill-ran-on`
(it dies once the gang has run on, before that is recorded), `fill-disk` (somebody else takes the last
byte of the state directory's file system while that instance is being saved).
"""

import errno
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil

from torpor import wiring
from torpor.config import Config, load
from torpor.daemon import serve
from torpor.domain.ids import OperationId
from torpor.domain.instance import InstanceSpec, SavedState
from torpor.domain.operation import StepKind, StepStatus
from torpor.engine.parts import Parts
from torpor.ports import Journal, Progress, Suspension

FILLER = "filler"


class Once:
    """Does it the first time that it is called for."""

    def __init__(self, act: Callable[[], None]) -> None:
        self._act: Callable[[], None] | None = act

    def __call__(self) -> None:
        act, self._act = self._act, None
        if act is not None:
            act()


class TrappedSuspension:
    """The real one; the trap snaps within, or right after, the save of one instance."""

    def __init__(self, suspension: Suspension, name: str, during: Once | None, after: Once | None) -> None:
        self._suspension = suspension
        self._name = name
        self._during = during
        self._after = after

    def __getattr__(self, name: str) -> Any:
        return getattr(self._suspension, name)

    def save(self, spec: InstanceSpec, progress: Progress) -> SavedState:
        if spec.name != self._name:
            return self._suspension.save(spec, progress)

        def watched(done: int, total: int) -> None:
            progress(done, total)
            if self._during is not None:
                self._during()

        state = self._suspension.save(spec, watched)
        if self._after is not None:
            self._after()
        return state


class TrappedJournal:
    """The real one; the trap snaps when the gang has run on, before that is recorded."""

    def __init__(self, journal: Journal, trap: Once) -> None:
        self._journal = journal
        self._trap = trap

    def __getattr__(self, name: str) -> Any:
        return getattr(self._journal, name)

    def record(
        self,
        operation: OperationId,
        step: int,
        status: StepStatus,
        at: float,
        detail: str = "",
        skew: float | None = None,
    ) -> None:
        if status is StepStatus.DONE and self._journal.get(operation).steps[step].kind is StepKind.RUN_ON:
            self._trap()
        self._journal.record(operation, step, status, at, detail, skew)


def kill_qemu(parts: Parts, name: str) -> None:
    """SIGKILL the process of the instance with this name, and wait until its memory is gone."""
    (instance,) = [i for i in parts.inventory.instances() if i.name == name]
    pid = parts.hypervisor.observe()[instance.id].pid
    assert pid is not None
    psutil.Process(pid).kill()
    while pid in {o.pid for o in parts.hypervisor.observe().values()}:
        time.sleep(0.01)


def fill_disk(state_dir: Path) -> None:
    """Leave no room at all."""
    chunk = bytes(1 << 20)
    with (state_dir / FILLER).open("wb", buffering=0) as filler:
        while chunk:
            try:
                filler.write(chunk)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                chunk = chunk[: len(chunk) // 2]


def trapped(parts: Parts, config: Config, trap: str, name: str) -> Parts:
    kill = Once(lambda: kill_qemu(parts, name))
    if trap == "kill-ran-on":
        return replace(parts, journal=TrappedJournal(parts.journal, kill))
    during = {"kill-saving": kill, "fill-disk": Once(lambda: fill_disk(config.state_dir))}.get(trap)
    after = kill if trap == "kill-saved" else None
    assert during or after, trap
    return replace(parts, suspension=TrappedSuspension(parts.suspension, name, during, after))


def main() -> None:
    path, trap, name = sys.argv[1:]

    def build(config: Config) -> wiring.App:
        bound = wiring.bind(config)
        return wiring.assemble(config, replace(bound, parts=trapped(bound.parts, config, trap, name)))

    serve(load(Path(path)), build)


if __name__ == "__main__":
    main()

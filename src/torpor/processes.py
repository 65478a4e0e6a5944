"""Programs that go into the background and outlive us: found by their arguments, held by id and start time, never by an
id that was once written down."""

import os
import select
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from torpor.domain.errors import BackendFailed

_STOP_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class Process:
    """One that runs, or ran: its id may have been given to another since."""

    pid: int
    started: str
    argv: tuple[str, ...]

    def runs(self) -> bool:
        return look(self.pid) == self

    def send(self, number: signal.Signals) -> bool:
        """Signal that very process, not one that got its id later. Returns whether it was there."""
        descriptor = self._send(number)
        if descriptor is None:
            return False
        os.close(descriptor)
        return True

    def end(self, what: str) -> None:
        """Ask it to end, then make it. Converges. Raises BackendFailed; `what` is how it is called there."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            descriptor = self._send(number)
            if descriptor is None:
                return
            try:
                if select.select([descriptor], [], [], _STOP_SECONDS)[0]:
                    return
            finally:
                os.close(descriptor)
        raise BackendFailed(f"{what} (process {self.pid}) does not end", remedy="end it by hand")

    def _send(self, number: signal.Signals) -> int | None:
        """A descriptor of the process that was signalled; None when it has gone."""
        try:
            descriptor = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return None
        try:
            if self.runs():
                signal.pidfd_send_signal(descriptor, number)
                return descriptor
        except ProcessLookupError:
            pass
        os.close(descriptor)
        return None


def look(pid: int) -> Process | None:
    """What a process is; None when it has gone (a zombie has no arguments any more)."""
    try:
        argv = Path(f"/proc/{pid}/cmdline").read_bytes()
        if not argv:
            return None
        started = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return None
    return Process(pid, started, tuple(argv.decode(errors="replace").split("\0")[:-1]))


def find(wanted: Callable[[Sequence[str]], bool]) -> Sequence[Process]:
    """Every process with such arguments."""
    looks = (look(int(entry.name)) for entry in Path("/proc").iterdir() if entry.name.isdigit())
    return tuple(found for found in looks if found and wanted(found.argv))

"""Telling a name server on this machine to read its hosts file again."""

import os
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from torpor.domain.errors import BackendFailed, MissingPart
from torpor.ports import Check

_COMMAND_SECONDS = 20.0
_CHECK = "names: who reads the hosts file"


class Reload(Protocol):
    def __call__(self) -> None: ...

    def check(self) -> Check: ...


@dataclass(frozen=True, slots=True)
class NoReload:
    """Nobody is told: whoever reads the file looks by itself."""

    def __call__(self) -> None:
        return

    def check(self) -> Check:
        return Check(_CHECK, True, "nobody is told of changes: neither pid_file nor command is set")


@dataclass(frozen=True, slots=True)
class ByPidFile:
    """SIGHUP to the process whose number is in a file, where it has the name that it should have.

    A number that was left behind may be somebody else's by now, whom SIGHUP would end.
    """

    pid_file: Path
    process: str

    def __call__(self) -> None:
        descriptor = self._process()
        if descriptor is None:
            return  # it reads the file when it starts
        try:
            signal.pidfd_send_signal(descriptor, signal.SIGHUP)
        except ProcessLookupError:
            return
        except PermissionError as error:
            raise MissingPart(f"{self.process} may not be told of new names", detail=str(error)) from error
        finally:
            os.close(descriptor)

    def check(self) -> Check:
        descriptor = self._process()
        if descriptor is not None:
            os.close(descriptor)
        return Check(
            _CHECK, descriptor is not None,
            f"{self.process}, by its number in {self.pid_file}" if descriptor is not None
            else f"{self.pid_file} names no process {self.process!r} that runs",
            f"start {self.process}, or mend pid_file and process in [names.hosts-file]",
        )  # fmt: skip

    def _process(self) -> int | None:
        """A descriptor of it."""
        try:
            pid = int(self.pid_file.read_text())
            descriptor = os.pidfd_open(pid)
        except (OSError, ValueError, OverflowError):
            return None
        try:
            if Path(f"/proc/{pid}/comm").read_text().rstrip("\n") == self.process[:15]:
                return descriptor
        except OSError:
            pass
        os.close(descriptor)
        return None


@dataclass(frozen=True, slots=True)
class ByCommand:
    """A program that is run without a shell."""

    argv: Sequence[str]

    def __call__(self) -> None:
        what = f"`{' '.join(self.argv)}` did not have the hosts file read again"
        try:
            done = subprocess.run(
                self.argv,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=_COMMAND_SECONDS,
                check=False,
            )
        except OSError as error:
            raise MissingPart(
                what, detail=error.strerror or str(error), remedy="mend command in [names.hosts-file]"
            ) from error
        except subprocess.TimeoutExpired as error:
            raise BackendFailed(what, detail=f"it took longer than {_COMMAND_SECONDS:.0f} s") from error
        if done.returncode != 0:
            said = " ".join((done.stderr or done.stdout).split())[:200]
            raise BackendFailed(what, detail=said or f"exit code {done.returncode}")

    def check(self) -> Check:
        return Check(_CHECK, True, f"told by `{' '.join(self.argv)}`")

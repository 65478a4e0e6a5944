"""The lock that makes one process the only one of a state directory: a daemon, or `torpor names serve`."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from torpor.domain.errors import Conflict, MissingPart

_FILE = "daemon.lock"
_PID_CHARACTERS = 20


@contextlib.contextmanager
def locked(state_dir: Path) -> Iterator[None]:
    """Hold it. The kernel lets go of it when we die. Raises MissingPart, and Conflict where another has it."""
    try:
        state_dir.mkdir(parents=True, exist_ok=True)
        file = (state_dir / _FILE).open("a+")
    except OSError as error:
        raise MissingPart(
            f"state directory {state_dir} can't be written",
            detail=error.strerror or str(error),
            remedy="make it writable, or set `state_dir` to another",
        ) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise Conflict(
                f"another daemon serves {state_dir}",
                detail=f"process {file.read(_PID_CHARACTERS).strip() or 'unknown'} holds its lock",
                remedy="use that one, or stop it with `torpor down`",
            ) from error
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


def holder(state_dir: Path) -> str:
    """Number of the process that holds it; empty where none does, or where we may not look. Changes nothing there."""
    try:
        file = (state_dir / _FILE).open()
    except OSError:
        return ""
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # let go of at once
        except BlockingIOError:
            return file.read(_PID_CHARACTERS).strip() or "unknown"
    return ""

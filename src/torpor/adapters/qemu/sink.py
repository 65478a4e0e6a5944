"""Where a live snapshot's stream goes: a pipe, and a program of its own that takes it to a file. See drain.py.

The pipe is full from the beginning, and nobody empties it until it is said: who writes to it waits.
"""

import fcntl
import json
import mmap
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from torpor.adapters.qemu import drain
from torpor.domain.errors import BackendFailed

_PIPE = 1 << 20
_END_SECONDS = 600.0


class Sink:
    """A new file at the end of a pipe that is held."""

    def __init__(self, path: Path, room: int) -> None:
        """`room`: bytes that may wait in memory for the disk."""
        reader, self.writer = os.pipe()
        held, self._hold = os.pipe()
        self._path = path
        try:
            with suppress(OSError):  # more than there may be: the pipe stays as small as it is
                fcntl.fcntl(self.writer, fcntl.F_SETPIPE_SZ, _PIPE)
            # -P: the folder of the program has modules whose names others may use.
            self._process = subprocess.Popen(
                [sys.executable, "-P", drain.__file__, str(path), str(room), str(_fill(self.writer)), str(held)],
                stdin=reader,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                pass_fds=(held,),
                start_new_session=True,
            )
        except BaseException:
            self.close_writer()
            self.let_go()
            raise
        finally:
            os.close(reader)
            os.close(held)

    def let_go(self) -> None:
        """From now on what is written is taken in; so it is when we die. Converges."""
        if self._hold >= 0:
            os.close(self._hold)
            self._hold = -1

    def close_writer(self) -> None:
        """Once QEMU has the pipe's end of its own. Converges."""
        if self.writer >= 0:
            os.close(self.writer)
            self.writer = -1

    def finish(self) -> str:
        """Wait until everything is written and durable; return the checksum (xxh3_128, hex).

        Raises what the file did as OSError, BackendFailed.
        """
        self.close_writer()
        self.let_go()
        try:
            output, _ = self._process.communicate(timeout=_END_SECONDS)
            found = json.loads(output)
        except (subprocess.TimeoutExpired, ValueError) as error:
            raise BackendFailed(
                "the stream of a snapshot was lost", detail="the program that writes it has failed"
            ) from error
        if "errno" in found:
            number = int(found["errno"])
            raise OSError(number, os.strerror(number), str(self._path))
        return str(found["checksum"])

    def abandon(self) -> None:
        """Nobody wants it any more. What still comes is taken in: QEMU must not find the pipe broken."""
        with suppress(OSError, BackendFailed):
            self.finish()


def _fill(pipe: int) -> int:
    """Until nothing more goes in; how many bytes that were."""
    page, filled = bytes(mmap.PAGESIZE), 0
    os.set_blocking(pipe, False)
    try:
        while True:
            filled += os.write(pipe, page)
    except BlockingIOError:
        return filled
    finally:
        os.set_blocking(pipe, True)

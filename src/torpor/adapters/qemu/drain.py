"""`python drain.py FILE BYTES FILLED HELD`: standard input into a new file, hashed on its way; a program of its own.

QEMU writes a live snapshot's stream in the very thread that resolves the guest's write faults. A pipe that stalls is
a guest that stalls, and with a pipe that breaks QEMU 7.2 hangs for good: nobody is left to resolve a fault of a thread
that holds QEMU's lock. So this reads to the end whatever happens: up to BYTES ahead of the disk, on after the
daemon's death, and on after the disk was full, into nothing then.

It takes in a little at a time, and no more than PACE. Woken for every page that QEMU writes it would take the guest's
processor away from it; and as fast as QEMU can, stream and disk together keep a small host so busy that the guest is
held up.

It begins when the pipe HELD (a file descriptor) ends, and leaves out the FILLED bytes that come first.

Prints one line of JSON at its end: `{"checksum": xxh3_128 in hex}` or `{"errno": number}`. The file is durable then.
It is started by its path, and imports nothing of Torpor: it is to be there at once.
"""

import errno
import fcntl
import json
import mmap
import os
import sys
import threading
import time
from queue import SimpleQueue

import xxhash

PIECE = 4 << 20
PACE = 100 << 20
"""Bytes a second. QEMU's thread alone, with a core to itself, comes to twice as much or so."""
_GULP = 256 << 10
"""Bytes at a time. The guest's write faults wait for as long as a gulp takes at that pace: a few milliseconds."""
_LEAST_SECONDS = 0.001
_CATCH_UP_SECONDS = 0.003


class Pace:
    """When to read again."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._due = 0.0

    def delay(self, size: int, now: float) -> float:
        """Seconds to wait after `size` bytes. What was missed long ago is not caught up: it would be a burst."""
        self._due = max(self._due, now - _CATCH_UP_SECONDS) + size / self._rate
        return max(_LEAST_SECONDS, self._due - now)


class Drain:
    """One thread takes in, one writes out; between them go buffers, of which there are so many and no more."""

    def __init__(self, source: int, path: str, room: int) -> None:
        self._source = source
        self._path = path
        self._digest = xxhash.xxh3_128()
        self._free: SimpleQueue[mmap.mmap] = SimpleQueue()
        self._full: SimpleQueue[tuple[mmap.mmap, int] | None] = SimpleQueue()
        self._to_make = max(2, room // PIECE)
        self._pace = Pace(PACE)
        self._failure: OSError | None = None

    def run(self) -> dict[str, object]:
        writer = threading.Thread(target=self._write, name="write")
        writer.start()
        filled = PIECE
        while filled == PIECE:
            buffer = self._buffer()
            filled = fill(self._source, buffer, self._pace)
            self._full.put((buffer, filled))
        self._full.put(None)
        writer.join()
        if self._failure:
            return {"errno": self._failure.errno or errno.EIO}
        return {"checksum": self._digest.hexdigest()}

    def _buffer(self) -> mmap.mmap:
        """One that was written out already, or a new one while there may be more."""
        if self._to_make and self._free.empty():
            self._to_make -= 1
            return mmap.mmap(-1, PIECE)
        return self._free.get()

    def _write(self) -> None:
        file, offset = -1, 0
        try:
            file = open_direct(self._path)
        except OSError as error:
            self._failure = error
        while (filled := self._full.get()) is not None:
            buffer, size = filled
            if self._failure is None and size:
                try:
                    self._put(file, memoryview(buffer)[:size], offset)
                except OSError as error:
                    self._failure = error
            offset += size
            self._free.put(buffer)
        if self._failure is None:
            try:
                os.fsync(file)
                os.close(file)
            except OSError as error:
                self._failure = error

    def _put(self, file: int, piece: memoryview, offset: int) -> None:
        self._digest.update(piece)
        if len(piece) < PIECE:  # the last one has any length, which a direct write may not have
            fcntl.fcntl(file, fcntl.F_SETFL, fcntl.fcntl(file, fcntl.F_GETFL) & ~os.O_DIRECT)
        done = 0
        while done < len(piece):
            done += os.pwrite(file, piece[done:], offset + done)


def fill(fd: int, buffer: mmap.mmap, pace: Pace) -> int:
    """Read until the buffer is full or the pipe has ended."""
    view, filled = memoryview(buffer), 0
    while filled < PIECE:
        got = os.readv(fd, [view[filled : filled + _GULP]])
        if not got:
            break
        filled += got
        time.sleep(pace.delay(got, time.monotonic()))
    return filled


def await_end(pipe: int) -> None:
    """Whoever holds the other end closes it, or dies."""
    while os.read(pipe, 1):
        continue
    os.close(pipe)


def skip(fd: int, size: int) -> None:
    while size > 0 and (got := os.read(fd, min(size, PIECE))):
        size -= len(got)


def open_direct(path: str) -> int:
    """Past the page cache, whose own writing back would come in gulps, where the file system can."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        return os.open(path, flags | os.O_EXCL | os.O_DIRECT, 0o600)
    except OSError as error:
        if error.errno != errno.EINVAL:  # no direct writes here; the file was made all the same
            raise
        return os.open(path, flags, 0o600)


if __name__ == "__main__":
    path, room, filled, held = sys.argv[1:]
    await_end(int(held))
    skip(0, int(filled))
    sys.stdout.write(json.dumps(Drain(0, path, int(room)).run()) + "\n")

"""A pipe into a file, hashed on its way, by threads that never let the writer of the pipe wait for the disk."""

import fcntl
import mmap
import os
import threading
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue

import xxhash

from torpor.domain.errors import BackendFailed

_PIECE = 4 << 20
_PIPE = 1 << 20
_JOIN_SECONDS = 600.0


class Sink:
    """Takes in what comes through its pipe as fast as it comes, up to `room` bytes ahead of the disk.

    QEMU writes a live snapshot's stream in the very thread that a guest waits for when it writes to memory that
    is not saved yet: a pipe that stalls is a guest that stalls. The file is written past the page cache, whose
    own writing back would come in gulps.
    """

    def __init__(self, path: Path, room: int) -> None:
        """The file must not be there yet."""
        self._reader, self.writer = os.pipe()
        with suppress(OSError):  # more than this user's share: the pipe stays as small as it is
            fcntl.fcntl(self.writer, fcntl.F_SETPIPE_SZ, _PIPE)
        self._file = _open_direct(path)
        self._digest = xxhash.xxh3_128()
        self._free: SimpleQueue[mmap.mmap | None] = SimpleQueue()
        self._full: SimpleQueue[tuple[mmap.mmap, int] | None] = SimpleQueue()
        self._to_make = max(2, room // _PIECE)
        self._failure: OSError | None = None
        self._threads = [
            threading.Thread(target=self._take, name="snapshot-in", daemon=True),
            threading.Thread(target=self._write, name="snapshot-out", daemon=True),
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def close_writer(self) -> None:
        """Once QEMU has the pipe's end of its own. Converges."""
        if self.writer >= 0:
            os.close(self.writer)
            self.writer = -1

    @property
    def failure(self) -> OSError | None:
        """What the file said, if it could not be written."""
        return self._failure

    def finish(self) -> str:
        """Wait until everything is written and durable; return the checksum (xxh3_128, hex).

        Raises what the file did, BackendFailed.
        """
        self.close_writer()
        for thread in self._threads:
            thread.join(_JOIN_SECONDS)
        if any(thread.is_alive() for thread in self._threads):
            raise BackendFailed("QEMU did not end its stream")
        try:
            if self._failure:
                raise self._failure
            os.fsync(self._file)
        finally:
            os.close(self._file)
        return self._digest.hexdigest()

    def _take(self) -> None:
        try:
            while True:
                buffer = self._buffer()
                if buffer is None:
                    return
                filled = _fill(self._reader, buffer)
                if filled:
                    self._full.put((buffer, filled))
                if filled < _PIECE:
                    return
        except OSError as error:
            self._failure = error
        finally:
            self._full.put(None)
            os.close(self._reader)  # what QEMU writes now fails, and the snapshot with it

    def _buffer(self) -> mmap.mmap | None:
        """One that was written out already, or a new one while there may be more."""
        if self._to_make and self._free.empty():
            self._to_make -= 1
            return mmap.mmap(-1, _PIECE)
        return self._free.get()

    def _write(self) -> None:
        offset = 0
        try:
            while (filled := self._full.get()) is not None:
                buffer, size = filled
                piece = memoryview(buffer)[:size]
                self._digest.update(piece)
                if size < _PIECE:
                    _end_direct(self._file)
                _write_all(self._file, piece, offset)
                offset += size
                self._free.put(buffer)
        except OSError as error:
            self._failure = error
            self._free.put(None)  # the reader stops, and closes the pipe


def _fill(fd: int, buffer: mmap.mmap) -> int:
    """Read until the buffer is full or the pipe has ended."""
    view, filled = memoryview(buffer), 0
    while filled < _PIECE:
        got = os.readv(fd, [view[filled:]])
        if not got:
            break
        filled += got
    return filled


def _open_direct(path: Path) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        return os.open(path, flags | os.O_DIRECT, 0o600)
    except OSError:  # a file system without direct writes; it has made the file all the same
        path.unlink(missing_ok=True)
        return os.open(path, flags, 0o600)


def _end_direct(fd: int) -> None:
    """The last piece has any length, which a direct write may not have."""
    fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) & ~os.O_DIRECT)


def _write_all(fd: int, piece: memoryview, offset: int) -> None:
    done = 0
    while done < len(piece):
        done += os.pwrite(fd, piece[done:], offset + done)

"""Guest memory, read and written from outside the QEMU process, and what its copying to files and back needs.

Threads overlap the memory's copy, the hash, the codec and the disk.
"""

import errno
import mmap
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import numpy as np

from torpor.adapters.qemu.pages import Block, Numbers, checksum, damaged, neighbours
from torpor.adapters.qemu.ram import PAGE, Region, open_memory
from torpor.domain.errors import InstanceGone, StateDamaged
from torpor.ports import Progress

Item = TypeVar("Item")
LARGEST = 4 << 20
"""Bytes of the largest piece that is read at once, and so of a thread's buffer."""
GAP = (64 << 10) // PAGE
"""Pieces that are nearer to each other than this many pages are read and written as one."""
RUN = LARGEST // PAGE
"""Pages of the largest piece."""
_HUGE = 2 << 20
"""Bytes of a huge page, and what its address is a multiple of; where they are larger, buffers have small ones."""


class GuestMemory:
    """A RAM block of a QEMU process, as a row of pages."""

    def __init__(self, fd: int, region: Region) -> None:
        self._fd = fd
        self.region = region

    @property
    def pages(self) -> int:
        return self.region.size // PAGE

    def read(self, page: int, into: memoryview) -> None:
        self._copied(os.preadv, page, into)

    def gather(self, numbers: Numbers, into: memoryview) -> memoryview:
        """These pages one after the other, and no others: a page of a mapped file would have to come from the disk."""
        for at, many in neighbours(numbers):
            self.read(int(numbers[at]), into[at * PAGE : (at + many) * PAGE])
        return into[: len(numbers) * PAGE]

    def write(self, page: int, data: memoryview) -> None:
        self._copied(os.pwritev, page, data)

    def _copied(self, copy: Callable[[int, list[memoryview], int], int], page: int, data: memoryview) -> None:
        offset = page * PAGE
        if offset + len(data) > self.region.size:
            raise StateDamaged(
                "the saved memory does not fit this machine",
                detail=f"{len(data)} bytes at {offset} lie outside of {self.region.block}",
            )
        try:
            done = copy(self._fd, [data], self.region.address + offset)
        except OSError as error:
            raise _ended() from error
        if done != len(data):
            raise _ended()


@contextmanager
def guest_memory(pid: int, region: Region, flags: int) -> Iterator[GuestMemory]:
    """Raises InstanceGone, MissingPart."""
    try:
        fd = open_memory(pid, flags)
    except FileNotFoundError as error:
        raise _ended() from error
    try:
        yield GuestMemory(fd, region)
    finally:
        os.close(fd)


class Count:
    """Adds up what several threads have done."""

    def __init__(self, total: int, progress: Progress) -> None:
        self._total = total
        self._progress = progress
        self._done = 0
        self._lock = threading.Lock()
        progress(0, total)

    def add(self, size: int) -> None:
        with self._lock:
            self._done += size
            self._progress(self._done, self._total)


def each(work: Callable[[Item, memoryview], None], items: Sequence[Item], threads: int) -> None:
    """`work` on every item, each thread with a buffer of its own. The first failure stops all and is raised."""
    queue = iter(items)
    lock = threading.Lock()
    stop = threading.Event()

    def take() -> Item | None:
        with lock:
            return next(queue, None)

    def run() -> None:
        own = buffer()
        while not stop.is_set() and (item := take()) is not None:
            try:
                work(item, own)
            except BaseException:
                stop.set()
                raise

    with ThreadPoolExecutor(threads, thread_name_prefix="memory") as pool:
        futures = [pool.submit(run) for _ in range(threads)]
    for future in futures:
        future.result()


def buffer() -> memoryview:
    """Memory for the largest piece, and that O_DIRECT takes, in huge pages where the kernel has them.

    A direct read or write is handed to the disk page by page of memory: a buffer of small pages costs it, and the
    kernel, a thousand times the segments. It goes with its last user. Closed by hand it would put an error of its own
    in the place of the one that ended the work, whose traceback still holds a part of it.
    """
    room = mmap.mmap(-1, LARGEST + _HUGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with suppress(OSError):  # a kernel without them
        room.madvise(mmap.MADV_HUGEPAGE)
    start = -np.frombuffer(room, dtype=np.uint8).ctypes.data % _HUGE
    return memoryview(room)[start : start + LARGEST]


@contextmanager
def opened(path: Path, flags: int) -> Iterator[int]:
    """Past the page cache where the file system can: the state is written once and read once."""
    flags |= os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        fd = os.open(path, flags | os.O_DIRECT, 0o600)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        fd = os.open(path, flags & ~os.O_EXCL, 0o600)
    try:
        yield fd
    finally:
        os.close(fd)


def read(fd: int, into: memoryview, offset: int, path: Path) -> None:
    if os.preadv(fd, [into], offset) != len(into):
        raise damaged(path, f"it ends before {offset + len(into)}")


def read_block(fd: int, block: Block, buffer: memoryview, path: Path) -> memoryview:
    """What the file has there, compared with the block's checksum. Raises StateDamaged, OSError."""
    stored = buffer[: block.size]
    read(fd, stored, block.offset, path)
    if checksum(stored) != block.checksum:
        raise damaged(path, f"{block.size} bytes at {block.offset} don't match their checksum")
    return stored


def write_all(target: int, piece: memoryview, offset: int) -> None:
    done = 0
    while done < len(piece):
        done += os.pwrite(target, piece[done:], offset + done)


def _ended() -> InstanceGone:
    return InstanceGone("QEMU ended while its memory was copied", remedy="see qemu.log in the instance's folder")

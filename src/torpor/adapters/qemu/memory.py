"""Guest memory to a file and back, read and written from outside the QEMU process.

Every piece is hashed on its way: what is loaded was compared before. Threads overlap the
memory's copy, the hash and the disk.
"""

import errno
import mmap
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import xxhash

from torpor.adapters.qemu.ram import Extent, Region, open_memory
from torpor.domain.errors import InstanceGone, StateDamaged
from torpor.ports import Progress

Item = TypeVar("Item")
LARGEST = 4 << 20
"""Bytes of the largest piece, and so of a thread's buffer."""
GAP = 64 << 10
"""Pieces that are nearer to each other than this many bytes are written as one."""


@dataclass(frozen=True, slots=True)
class Sealed:
    """A piece of the memory file with its checksum (xxh3_128, hex)."""

    extent: Extent
    checksum: str


def checksum(data: bytes | memoryview) -> str:
    return xxhash.xxh3_128_hexdigest(data)


def copy_out(
    pid: int, regions: Sequence[Region], extents: Sequence[Extent], path: Path, threads: int, progress: Progress
) -> list[Sealed]:
    """Write these pieces of the process's memory to a new file, durable on return.

    Raises OSError of the file's, InstanceGone when the process ended meanwhile.
    """
    source = _open_source(pid)
    target = -1
    try:
        target = _open_direct(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        os.ftruncate(target, max((r.offset + r.size for r in regions), default=0))
        count = _Count(sum(e.size for e in extents), progress)
        checksums: dict[Extent, str] = {}

        def work(extent: Extent, buffer: memoryview) -> None:
            piece = buffer[: extent.size]
            _read_memory(source, piece, _address(regions, extent))
            checksums[extent] = checksum(piece)
            _write_all(target, piece, extent.offset)
            count.add(extent.size)

        _each(work, extents, threads)
        os.fsync(target)
        return [Sealed(extent, checksums[extent]) for extent in extents]
    finally:
        os.close(source)
        if target >= 0:
            os.close(target)


def copy_in(
    pid: int, regions: Sequence[Region], pieces: Sequence[Sealed], path: Path, threads: int, progress: Progress
) -> None:
    """Read these pieces of the file, compare them with their checksums, write them into the process's memory.

    Raises StateDamaged, InstanceGone, OSError of the file's.
    """
    target = open_memory(pid, os.O_RDWR)
    source = -1
    try:
        source = _open_direct(path, os.O_RDONLY)
        count = _Count(sum(p.extent.size for p in pieces), progress)

        def work(piece: Sealed, buffer: memoryview) -> None:
            data = buffer[: piece.extent.size]
            if os.preadv(source, [data], piece.extent.offset) != len(data) or checksum(data) != piece.checksum:
                raise StateDamaged(
                    "the saved memory is damaged",
                    detail=f"{len(data)} bytes at {piece.extent.offset} of {path} don't match their checksum",
                    remedy="bring the file back from a backup, or delete the workload",
                )
            _write_memory(target, data, _address(regions, piece.extent))
            count.add(len(data))

        _each(work, pieces, threads)
    finally:
        os.close(target)
        if source >= 0:
            os.close(source)


class _Count:
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


def _each(work: Callable[[Item, memoryview], None], items: Sequence[Item], threads: int) -> None:
    """`work` on every item, each thread with a buffer of its own. The first failure stops all and is raised."""
    queue = iter(items)
    lock = threading.Lock()
    stop = threading.Event()

    def take() -> Item | None:
        with lock:
            return next(queue, None)

    def run() -> None:
        buffer = _buffer()
        while not stop.is_set() and (item := take()) is not None:
            try:
                work(item, buffer)
            except BaseException:
                stop.set()
                raise

    with ThreadPoolExecutor(threads, thread_name_prefix="memory") as pool:
        futures = [pool.submit(run) for _ in range(threads)]
    for future in futures:
        future.result()


def _buffer() -> memoryview:
    """Memory that O_DIRECT takes: aligned to pages.

    It goes with its last user. Closed by hand it would put an error of its own in the place of the one
    that ended the work, whose traceback still holds a part of it.
    """
    return memoryview(mmap.mmap(-1, LARGEST))


def _address(regions: Sequence[Region], extent: Extent) -> int:
    for region in regions:
        if region.offset <= extent.offset and extent.offset + extent.size <= region.offset + region.size:
            return region.address + extent.offset - region.offset
    raise StateDamaged(
        "the saved memory does not fit this machine", detail=f"{extent.size} bytes at {extent.offset} lie in no block"
    )


def _open_source(pid: int) -> int:
    try:
        return open_memory(pid, os.O_RDONLY)
    except FileNotFoundError as error:
        raise _ended() from error


def _open_direct(path: Path, flags: int) -> int:
    """Past the page cache where the file system can: the state is written once and read once."""
    flags |= os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        return os.open(path, flags | os.O_DIRECT, 0o600)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    return os.open(path, flags & ~os.O_EXCL, 0o600)


def _read_memory(source: int, piece: memoryview, address: int) -> None:
    try:
        done = os.preadv(source, [piece], address)
    except OSError as error:
        raise _ended() from error
    if done != len(piece):
        raise _ended()


def _write_memory(target: int, piece: memoryview, address: int) -> None:
    try:
        done = os.pwritev(target, [piece], address)
    except OSError as error:
        raise _ended() from error
    if done != len(piece):
        raise _ended()


def _write_all(target: int, piece: memoryview, offset: int) -> None:
    done = 0
    while done < len(piece):
        done += os.pwrite(target, piece[done:], offset + done)


def _ended() -> InstanceGone:
    return InstanceGone("QEMU ended while its memory was copied", remedy="see qemu.log in the instance's folder")

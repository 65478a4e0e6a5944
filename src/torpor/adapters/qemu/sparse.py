"""Guest memory in a sparse file: every page at its own place, what is zero is a hole. QEMU can map such a file."""

import errno
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from torpor.adapters.qemu.memory import GAP, LARGEST, RUN, Count, GuestMemory, buffer, each, opened, read, write_all
from torpor.adapters.qemu.pages import (
    Hashes,
    Numbers,
    PageIndex,
    damaged,
    hashes_of,
    neighbours,
    runs,
    sorted_index,
    table_of,
)
from torpor.adapters.qemu.ram import PAGE
from torpor.ports import Progress


def save(
    source: GuestMemory, wanted: Sequence[tuple[int, int]], path: Path, threads: int, progress: Progress
) -> PageIndex:
    """Write these runs of pages to a new file, durable on return; zero pages are left out.

    Raises OSError of the file's, InstanceGone.
    """
    written: list[tuple[Numbers, Hashes]] = []
    with opened(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL) as target:
        os.ftruncate(target, source.region.size)
        count = Count(sum(n for _, n in wanted) * PAGE, progress)

        def work(run: tuple[int, int], buffer: memoryview) -> None:
            first, pages = run
            piece = buffer[: pages * PAGE]
            source.read(first, piece)
            hashes = hashes_of(piece)
            there = np.asarray(hashes.any(axis=1))
            for page, many in runs(there, GAP, RUN):
                write_all(target, piece[page * PAGE : (page + many) * PAGE], (first + page) * PAGE)
            places = np.flatnonzero(there)
            written.append(((places + first).astype(np.uint32), hashes[places]))
            count.add(len(piece))

        each(work, wanted, threads)
        os.fsync(target)
    return sorted_index(written)


def load(target: GuestMemory, index: PageIndex, path: Path, threads: int, progress: Progress) -> None:
    """Read the pages of the file, compare them, write them into the guest's memory.

    Raises StateDamaged, InstanceGone, OSError of the file's.
    """
    wanted = list(runs(table_of(target.pages, index).listed(), GAP, RUN))
    count = Count(sum(n for _, n in wanted) * PAGE, progress)
    with opened(path, os.O_RDONLY) as source:

        def work(run: tuple[int, int], buffer: memoryview) -> None:
            first, pages = run
            piece = buffer[: pages * PAGE]
            read(source, piece, first * PAGE, path)
            _compare(piece, first, index, path)
            target.write(first, piece)
            count.add(len(piece))

        each(work, wanted, threads)


def read_ahead(numbers: Numbers, path: Path) -> None:
    """Have these pages of a file that a guest maps read, all at a time.

    The kernel reads a page of the file before it lets a private copy of it be written, one after the other.
    """
    numbers = np.sort(numbers)
    with path.open("rb", buffering=0) as file:
        for at, many in neighbours(numbers):
            os.posix_fadvise(file.fileno(), int(numbers[at]) * PAGE, many * PAGE, os.POSIX_FADV_WILLNEED)


def check(index: PageIndex, path: Path, progress: Progress) -> None:
    """Read every byte of the file and compare it. Raises StateDamaged, OSError.

    It goes through the page cache: of a file that a guest maps this is the prefetch.
    """
    piece_buffer, seen, done = buffer(), 0, 0
    with path.open("rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        for first, pages in _data(file.fileno(), size):
            piece = piece_buffer[: pages * PAGE]
            read(file.fileno(), piece, first * PAGE, path)
            seen += _compare(piece, first, index, path)
            done += len(piece)
            progress(min(done, index.num_bytes), index.num_bytes)
    if seen != len(index.numbers):
        raise damaged(path, f"{len(index.numbers) - seen} pages are missing")


def _compare(piece: memoryview, first: int, index: PageIndex, path: Path) -> int:
    """How many of these pages are listed. Raises StateDamaged where one differs, or is not zero and not listed."""
    pages = len(piece) // PAGE
    start, end = np.searchsorted(index.numbers, [first, first + pages])
    places = index.numbers[start:end].astype(np.int64) - first
    if len(places) == pages:
        wrong = (hashes_of(piece) != index.hashes[start:end]).any(axis=1)
    else:
        hashes = np.zeros((pages, 2), dtype=np.uint64)
        hashes[places] = index.hashes[start:end]
        wrong = (hashes_of(piece) != hashes).any(axis=1)
    if wrong.any():
        at = (first + int(np.flatnonzero(wrong)[0])) * PAGE
        raise damaged(path, f"the page at {at} does not match its checksum")
    return len(places)


def _data(fd: int, size: int) -> Iterator[tuple[int, int]]:
    """(page, count) of what the file has that is no hole, at most a buffer's worth at a time."""
    at = 0
    while at < size:
        try:
            start = os.lseek(fd, at, os.SEEK_DATA) // PAGE * PAGE
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            raise
        at = os.lseek(fd, start, os.SEEK_HOLE)
        end = -(-at // PAGE) * PAGE
        for piece in range(start, end, LARGEST):
            yield piece // PAGE, min(LARGEST, end - piece) // PAGE

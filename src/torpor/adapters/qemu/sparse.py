"""Guest memory in a sparse file: every page at its own place, what is zero is a hole. QEMU can map such a file."""

import errno
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from torpor.adapters.qemu.memory import (
    GAP,
    LARGEST,
    RUN,
    Count,
    GuestMemory,
    buffer,
    each,
    opened,
    read,
    read_block,
    write_all,
)
from torpor.adapters.qemu.pages import (
    Block,
    Hashes,
    Numbers,
    PageIndex,
    checksum,
    damaged,
    hashes_of,
    neighbours,
    runs,
    sorted_index,
    table_of,
)
from torpor.adapters.qemu.ram import PAGE
from torpor.ports import Progress

_Extent = tuple[int, int, str]
"""First page, number of pages, checksum of what is in the file there."""


def save(
    source: GuestMemory, wanted: Sequence[tuple[int, int]], path: Path, threads: int, progress: Progress
) -> PageIndex:
    """Write these runs of pages to a new file, durable on return; zero pages are left out.

    Raises OSError of the file's, InstanceGone.
    """
    written: list[tuple[Numbers, Hashes]] = []
    extents: list[_Extent] = []
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
                extent = piece[page * PAGE : (page + many) * PAGE]
                write_all(target, extent, (first + page) * PAGE)
                extents.append((first + page, many, checksum(extent)))
            places = np.flatnonzero(there)
            written.append(((places + first).astype(np.uint32), hashes[places]))
            count.add(len(piece))

        each(work, wanted, threads)
        os.fsync(target)
    index = sorted_index(written)
    return replace(index, blocks=tuple(_blocks(index.numbers, sorted(extents))))


def load(target: GuestMemory, index: PageIndex, path: Path, threads: int, progress: Progress) -> None:
    """Read the pages of the file, compare them, write them into the guest's memory.

    Raises StateDamaged, InstanceGone, OSError of the file's.
    """
    blocks = index.blocks or tuple(_blocks(index.numbers, _unsummed(target.pages, index)))
    count = Count(sum(block.size for block in blocks), progress)
    with opened(path, os.O_RDONLY) as source:

        def work(block: Block, buffer: memoryview) -> None:
            first = block.offset // PAGE
            if block.checksum:
                piece = read_block(source, block, buffer, path)
            else:
                piece = buffer[: block.size]
                read(source, piece, block.offset, path)
                _compare(piece, first, index, path)
            target.write(first, piece)
            count.add(block.size)

        each(work, blocks, threads)


def _blocks(numbers: Numbers, extents: Sequence[_Extent]) -> Iterator[Block]:
    firsts = np.array([page for page, _, _ in extents], dtype=np.int64)
    lengths = np.array([many for _, many, _ in extents], dtype=np.int64)
    starts, ends = (np.searchsorted(numbers, edges).tolist() for edges in (firsts, firsts + lengths))
    for (page, many, digest), start, end in zip(extents, starts, ends, strict=True):
        yield Block(start, end - start, page * PAGE, many * PAGE, many * PAGE, digest)


def _unsummed(pages: int, index: PageIndex) -> Sequence[_Extent]:
    """Of a file that was written before there were checksums of more than a page."""
    return [(page, many, "") for page, many in runs(table_of(pages, index).listed(), GAP, RUN)]


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

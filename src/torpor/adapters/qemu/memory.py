"""Guest memory to files and back, read and written from outside the QEMU process.

Two formats. **Sparse**: every page at its own place in the file, what is zero is a hole; QEMU can map such a
file (lazy restore). **Packed**: pages one after the other in blocks, each block packed by a codec; for states that
are compressed, and for deltas, whose pages are scattered. Every page is hashed on its way, and what is loaded was
compared before. Threads overlap the memory's copy, the hash, the codec and the disk.
"""

import errno
import mmap
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from torpor.adapters.qemu.codec import Packing, unpack
from torpor.adapters.qemu.pages import (
    Block,
    Hashes,
    Numbers,
    PageIndex,
    Table,
    checksum,
    damaged,
    hashes_of,
    runs,
    sorted_index,
    table_of,
)
from torpor.adapters.qemu.ram import PAGE, Region, open_memory
from torpor.domain.errors import InstanceGone, StateDamaged
from torpor.domain.instance import Codec
from torpor.ports import Progress

Item = TypeVar("Item")
LARGEST = 4 << 20
"""Bytes of the largest piece that is read at once, and so of a thread's buffer."""
GAP = (64 << 10) // PAGE
"""Pieces that are nearer to each other than this many pages are read and written as one."""
_BLOCK = 1 << 20
"""Bytes of pages that are packed together."""
RUN = LARGEST // PAGE
EMPTY = PageIndex(np.empty(0, np.uint32), np.empty((0, 2), np.uint64), np.empty(0, np.uint32))
"""No page at all."""
_Pages = tuple[Numbers, Hashes, bytes]
"""Page numbers, hashes, contents."""


class TooMuchChanged(Exception):
    """The delta would be larger than what it may be."""


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


def save_sparse(
    source: GuestMemory, wanted: Sequence[tuple[int, int]], path: Path, threads: int, progress: Progress
) -> PageIndex:
    """Write these runs of pages to a new file, durable on return; zero pages are left out.

    Raises OSError of the file's, InstanceGone.
    """
    written: list[tuple[Numbers, Hashes]] = []
    with _opened(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL) as target:
        os.ftruncate(target, source.region.size)
        count = _Count(sum(n for _, n in wanted) * PAGE, progress)

        def work(run: tuple[int, int], buffer: memoryview) -> None:
            first, pages = run
            piece = buffer[: pages * PAGE]
            source.read(first, piece)
            hashes = hashes_of(piece)
            there = np.asarray(hashes.any(axis=1))
            for page, many in runs(there, GAP, RUN):
                _write_all(target, piece[page * PAGE : (page + many) * PAGE], (first + page) * PAGE)
            places = np.flatnonzero(there)
            written.append(((places + first).astype(np.uint32), hashes[places]))
            count.add(len(piece))

        _each(work, wanted, threads)
        os.fsync(target)
    return sorted_index(written)


def save_packed(
    source: GuestMemory, wanted: Sequence[tuple[int, int]], base: Table, gone: Numbers, limit: int | None,
    packing: Packing, path: Path, threads: int, progress: Progress,
) -> PageIndex:  # fmt: skip
    """Write those of the pages that differ from the base to a new file, durable on return.

    `gone` are pages that the base has and the guest has no more. Raises TooMuchChanged above `limit` pages,
    OSError of the file's, InstanceGone.
    """
    with _opened(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL) as target:
        packer = _Packer(target, packing, limit)
        count = _Count(sum(n for _, n in wanted) * PAGE, progress)
        zeros: list[Numbers] = [gone]

        def work(run: tuple[int, int], buffer: memoryview) -> None:
            first, pages = run
            piece = buffer[: pages * PAGE]
            source.read(first, piece)
            hashes = hashes_of(piece)
            other = base.differing(first, hashes)
            there = hashes.any(axis=1)
            zeros.append((np.flatnonzero(other & ~there) + first).astype(np.uint32))
            packer.add(piece, first, np.flatnonzero(other & there), hashes)
            count.add(len(piece))

        _each(work, wanted, threads)
        packer.finish()
        os.fsync(target)
    return packer.index(np.unique(np.concatenate(zeros)))


def load_sparse(target: GuestMemory, index: PageIndex, path: Path, threads: int, progress: Progress) -> None:
    """Read the pages of the file, compare them, write them into the guest's memory.

    Raises StateDamaged, InstanceGone, OSError of the file's.
    """
    wanted = list(runs(table_of(target.pages, index).listed(), GAP, RUN))
    count = _Count(sum(n for _, n in wanted) * PAGE, progress)
    with _opened(path, os.O_RDONLY) as source:

        def work(run: tuple[int, int], buffer: memoryview) -> None:
            first, pages = run
            piece = buffer[: pages * PAGE]
            _read(source, piece, first * PAGE, path)
            _compare(piece, first, index, path)
            target.write(first, piece)
            count.add(len(piece))

        _each(work, wanted, threads)


def load_packed(
    target: GuestMemory, index: PageIndex, codec: Codec, path: Path, threads: int, progress: Progress
) -> None:
    """The whole of a packed file into the guest's memory, and zeros where it lists them.

    Raises StateDamaged, InstanceGone, OSError of the file's.
    """
    count = _Count(index.num_bytes, progress)
    with _opened(path, os.O_RDONLY) as source:

        def work(block: Block, buffer: memoryview) -> None:
            data = _unpacked(source, block, codec, buffer, path)
            numbers = index.numbers[block.first : block.first + block.count]
            for at, many in _neighbours(numbers):
                target.write(int(numbers[at]), data[at * PAGE : (at + many) * PAGE])
            count.add(len(data))

        _each(work, index.blocks, threads)
    empty = memoryview(bytes(PAGE))
    for page in index.zeros.tolist():
        target.write(page, empty)


def check_sparse(index: PageIndex, path: Path, progress: Progress) -> None:
    """Read every byte of the file and compare it. Raises StateDamaged, OSError.

    It goes through the page cache: of a file that a guest maps this is the prefetch.
    """
    buffer, seen, done = _buffer(), 0, 0
    with path.open("rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        for first, pages in _data(file.fileno(), size):
            piece = buffer[: pages * PAGE]
            _read(file.fileno(), piece, first * PAGE, path)
            seen += _compare(piece, first, index, path)
            done += len(piece)
            progress(min(done, index.num_bytes), index.num_bytes)
    if seen != len(index.numbers):
        raise damaged(path, f"{len(index.numbers) - seen} pages are missing")


def check_packed(index: PageIndex, codec: Codec, path: Path, progress: Progress) -> None:
    """Read every byte of the file and compare it. Raises StateDamaged, OSError."""
    buffer, done = _buffer(), 0
    with _opened(path, os.O_RDONLY) as source:
        if os.fstat(source).st_size != sum(b.size for b in index.blocks):
            raise damaged(path, "it has not the size that it was written with")
        for block in index.blocks:
            data = _unpacked(source, block, codec, buffer, path)
            numbers = slice(block.first, block.first + block.count)
            if not np.array_equal(hashes_of(data), index.hashes[numbers]):
                raise damaged(path, f"the pages at {block.offset} don't match their checksums")
            done += len(data)
            progress(done, index.num_bytes)


class _Packer:
    """Gathers pages into blocks, packs them, and appends them to the file."""

    def __init__(self, target: int, packing: Packing, limit: int | None) -> None:
        self._target = target
        self._packing = packing
        self._limit = limit
        self._lock = threading.Lock()
        self._waiting: list[_Pages] = []
        self._waiting_pages = 0
        self._pages = 0
        self._end = 0
        self._written: list[tuple[Block, Numbers, Hashes]] = []

    def add(self, piece: memoryview, first: int, places: npt.NDArray[np.intp], hashes: Hashes) -> None:
        """Take the pages at these places of the piece. Called by several threads."""
        per_block = _BLOCK // PAGE
        pages = np.frombuffer(piece, dtype=np.uint8).reshape(-1, PAGE)
        for at in range(0, len(places), per_block):
            some = places[at : at + per_block]
            ready = self._gather(((some + first).astype(np.uint32), hashes[some], pages[some].tobytes()), per_block)
            if ready:
                self._write(ready)

    def finish(self) -> None:
        if self._waiting:
            self._write(self._waiting)
            self._waiting = []

    def index(self, zeros: Numbers) -> PageIndex:
        blocks, first = [], 0
        for block, numbers, _ in self._written:
            blocks.append(Block(first, len(numbers), block.offset, block.size, block.packed, block.checksum))
            first += len(numbers)
        numbers = np.concatenate([n for _, n, _ in self._written]) if self._written else EMPTY.numbers
        hashes = np.concatenate([h for _, _, h in self._written]) if self._written else EMPTY.hashes
        return PageIndex(numbers, hashes, zeros, tuple(blocks))

    def _gather(self, taken: _Pages, per_block: int) -> list[_Pages]:
        """Keep these pages; what waited before them, where both together are more than a block."""
        with self._lock:
            self._pages += len(taken[0])
            if self._limit is not None and self._pages > self._limit:
                raise TooMuchChanged
            ready: list[_Pages] = []
            if self._waiting_pages + len(taken[0]) > per_block:
                ready, self._waiting, self._waiting_pages = self._waiting, [], 0
            self._waiting.append(taken)
            self._waiting_pages += len(taken[0])
            return ready

    def _write(self, gathered: list[_Pages]) -> None:
        packed = self._packing.pack(b"".join(data for _, _, data in gathered))
        size = -(-len(packed) // PAGE) * PAGE
        buffer = memoryview(mmap.mmap(-1, size))
        buffer[: len(packed)] = packed
        with self._lock:
            offset, self._end = self._end, self._end + size
        _write_all(self._target, buffer, offset)
        numbers = np.concatenate([n for n, _, _ in gathered])
        block = Block(0, len(numbers), offset, size, len(packed), checksum(buffer))
        with self._lock:
            self._written.append((block, numbers, np.concatenate([h for _, h, _ in gathered])))


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


def _unpacked(source: int, block: Block, codec: Codec, buffer: memoryview, path: Path) -> memoryview:
    """The pages of a block, compared and unpacked."""
    stored = buffer[: block.size]
    _read(source, stored, block.offset, path)
    if checksum(stored) != block.checksum:
        raise damaged(path, f"{block.size} bytes at {block.offset} don't match their checksum")
    try:
        return unpack(codec, stored[: block.packed], block.count * PAGE)
    except ValueError as error:
        raise damaged(path, f"what lies at {block.offset} can't be unpacked: {error}") from error


def _neighbours(numbers: Numbers) -> Iterator[tuple[int, int]]:
    """(place, count) of pages that follow one another in the guest as they do in the block."""
    breaks = np.flatnonzero(np.diff(numbers.astype(np.int64)) != 1) + 1
    edges = [0, *breaks.tolist(), len(numbers)]
    for start, end in pairwise(edges):
        yield start, end - start


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


@contextmanager
def _opened(path: Path, flags: int) -> Iterator[int]:
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


def _read(fd: int, into: memoryview, offset: int, path: Path) -> None:
    if os.preadv(fd, [into], offset) != len(into):
        raise damaged(path, f"it ends before {offset + len(into)}")


def _write_all(target: int, piece: memoryview, offset: int) -> None:
    done = 0
    while done < len(piece):
        done += os.pwrite(target, piece[done:], offset + done)


def _ended() -> InstanceGone:
    return InstanceGone("QEMU ended while its memory was copied", remedy="see qemu.log in the instance's folder")

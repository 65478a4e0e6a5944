"""Pages one after the other in a file, in blocks that a codec has packed: for what is compressed, and for deltas."""

import os
import threading
from pathlib import Path

import numpy as np
import numpy.typing as npt

from torpor.adapters.qemu.codec import Packing, unpack
from torpor.adapters.qemu.memory import RUN, Count, GuestMemory, buffer, each, opened, read_block, write_all
from torpor.adapters.qemu.pages import (
    Block,
    Hashes,
    Numbers,
    PageIndex,
    Table,
    checksum,
    damaged,
    hashes_of,
    neighbours,
)
from torpor.adapters.qemu.ram import PAGE
from torpor.domain.instance import Codec
from torpor.ports import Progress

_BLOCK = 1 << 20
"""Bytes of pages that are packed together."""
_Pages = tuple[Numbers, Hashes, bytes]
"""Page numbers, hashes, contents."""
EMPTY = PageIndex(np.empty(0, np.uint32), np.empty((0, 2), np.uint64), np.empty(0, np.uint32))
"""No page at all."""


class TooMuchChanged(Exception):
    """The delta would be larger than what it may be."""


def save(
    source: GuestMemory, wanted: Numbers, base: Table, gone: Numbers, limit: int | None,
    packing: Packing, path: Path, threads: int, progress: Progress,
) -> PageIndex:  # fmt: skip
    """Write those of the pages that differ from the base to a new file, durable on return.

    `gone` are pages that the base has and the guest has no more. Raises TooMuchChanged above `limit` pages,
    OSError of the file's, InstanceGone.
    """
    with opened(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL) as target:
        packer = _Packer(target, packing, limit)
        count = Count(len(wanted) * PAGE, progress)
        zeros: list[Numbers] = [gone]

        def work(numbers: Numbers, buffer: memoryview) -> None:
            piece = source.gather(numbers, buffer)
            hashes = hashes_of(piece)
            other = base.differing(numbers, hashes)
            there = hashes.any(axis=1)
            zeros.append(numbers[other & ~there])
            packer.add(piece, numbers, np.flatnonzero(other & there), hashes)
            count.add(len(piece))

        each(work, [wanted[at : at + RUN] for at in range(0, len(wanted), RUN)], threads)
        packer.finish()
        os.fsync(target)
    return packer.index(np.unique(np.concatenate(zeros)))


def load(target: GuestMemory, index: PageIndex, codec: Codec, path: Path, threads: int, progress: Progress) -> None:
    """The whole of a packed file into the guest's memory, and zeros where it lists them.

    Raises StateDamaged, InstanceGone, OSError of the file's.
    """
    count = Count(index.num_bytes, progress)
    with opened(path, os.O_RDONLY) as source:

        def work(block: Block, buffer: memoryview) -> None:
            data = _unpacked(source, block, codec, buffer, path)
            numbers = index.numbers[block.first : block.first + block.count]
            for at, many in neighbours(numbers):
                target.write(int(numbers[at]), data[at * PAGE : (at + many) * PAGE])
            count.add(len(data))

        each(work, index.blocks, threads)
    empty = memoryview(bytes(PAGE))
    for page in index.zeros.tolist():
        target.write(page, empty)


def check(index: PageIndex, codec: Codec, path: Path, progress: Progress) -> None:
    """Read every byte of the file and compare it. Raises StateDamaged, OSError."""
    stored, done = buffer(), 0
    with opened(path, os.O_RDONLY) as source:
        if os.fstat(source).st_size != sum(b.size for b in index.blocks):
            raise damaged(path, "it has not the size that it was written with")
        for block in index.blocks:
            data = _unpacked(source, block, codec, stored, path)
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
        self._rooms: list[memoryview] = []
        """Where blocks are padded: as many as are written at a time, used again."""

    def add(self, piece: memoryview, numbers: Numbers, places: npt.NDArray[np.intp], hashes: Hashes) -> None:
        """Take the pages at these places of the piece. Called by several threads."""
        per_block = _BLOCK // PAGE
        pages = np.frombuffer(piece, dtype=np.uint8).reshape(-1, PAGE)
        for at in range(0, len(places), per_block):
            some = places[at : at + per_block]
            ready = self._gather((numbers[some], hashes[some], pages[some].tobytes()), per_block)
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
        with self._lock:
            offset, self._end = self._end, self._end + size
            room = self._rooms.pop() if self._rooms else buffer()
        padded = room[:size]
        padded[: len(packed)] = packed
        padded[len(packed) :] = bytes(size - len(packed))
        write_all(self._target, padded, offset)
        numbers = np.concatenate([n for n, _, _ in gathered])
        block = Block(0, len(numbers), offset, size, len(packed), checksum(padded))
        with self._lock:
            self._rooms.append(room)
            self._written.append((block, numbers, np.concatenate([h for _, h, _ in gathered])))


def _unpacked(source: int, block: Block, codec: Codec, buffer: memoryview, path: Path) -> memoryview:
    """The pages of a block, compared and unpacked."""
    stored = read_block(source, block, buffer, path)
    try:
        return unpack(codec, stored[: block.packed], block.count * PAGE)
    except ValueError as error:
        raise damaged(path, f"what lies at {block.offset} can't be unpacked: {error}") from error

"""Pages of guest memory: counted from the first page of the first saved RAM block, hashed, compared, listed.

A page that is not listed is all zeros.
"""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import xxhash

from torpor.adapters.qemu.ram import PAGE
from torpor.domain.errors import StateDamaged
from torpor.files import write_durably

Numbers = npt.NDArray[np.uint32]
Hashes = npt.NDArray[np.uint64]
"""(pages, 2): xxh3_128 of each page."""
Mask = npt.NDArray[np.bool_]

_HASH_WORDS = 2
_PAGE_WORDS = PAGE // 8
_STRIDE = 64
"""Of a page's words one in so many is looked at first: most pages that are not zero show it there."""


@dataclass(frozen=True, slots=True)
class Block:
    """Pages that were written together, and where they lie in the file."""

    first: int
    """Place of its first page in the index."""
    count: int
    offset: int
    size: int
    """Bytes in the file, padding included: a multiple of the page size."""
    packed: int
    """Bytes without padding; in a sparse file, where nothing is packed, as many as in the file."""
    checksum: str
    """xxh3_128 (hex) of the bytes in the file, padding included."""


@dataclass(frozen=True, slots=True)
class PageIndex:
    """What a file of pages holds, in the order of page numbers where it is sparse, of blocks where it is packed."""

    numbers: Numbers
    hashes: Hashes
    zeros: Numbers
    """Pages that are zero although the base has them otherwise."""
    blocks: tuple[Block, ...] = ()

    @property
    def num_bytes(self) -> int:
        """Of the pages that are in the file, unpacked."""
        return len(self.numbers) * PAGE


@dataclass(frozen=True, slots=True)
class Table:
    """The hash of every page of a machine; zeros where the page is zero."""

    hashes: Hashes

    @property
    def pages(self) -> int:
        return len(self.hashes)

    def listed(self) -> Mask:
        """The pages that are not zero."""
        return np.asarray(self.hashes.any(axis=1))

    def differing(self, numbers: Numbers, hashes: Hashes) -> Mask:
        """Which of these pages have other contents than these."""
        return np.asarray((self.hashes[numbers] != hashes).any(axis=1))


def table_of(pages: int, index: PageIndex) -> Table:
    """Raises StateDamaged when the index is of another machine."""
    if len(index.numbers) and int(index.numbers.max()) >= pages:
        raise StateDamaged("the saved memory does not fit this machine", detail="it has pages where no RAM is")
    hashes = np.zeros((pages, _HASH_WORDS), dtype=np.uint64)
    hashes[index.numbers] = index.hashes
    return Table(hashes)


def hashes_of(data: memoryview) -> Hashes:
    """xxh3_128 of every page; zeros for a page that is zero. `data` is whole pages."""
    digest = xxhash.xxh3_128_digest
    found = np.zeros((len(data) // PAGE, _HASH_WORDS), dtype=np.uint64)
    there = np.flatnonzero(~zero_pages(data))
    joined = b"".join([digest(data[at : at + PAGE]) for at in (there * PAGE).tolist()])
    found[there] = np.frombuffer(joined, dtype=np.uint64).reshape(-1, _HASH_WORDS)
    return found


def zero_pages(data: memoryview) -> Mask:
    """Which pages are all zeros."""
    words = np.frombuffer(data, dtype=np.uint64).reshape(-1, _PAGE_WORDS)
    zero = np.asarray(~words[:, ::_STRIDE].any(axis=1))
    maybe = np.flatnonzero(zero)
    zero[maybe] = ~words[maybe].any(axis=1)
    return zero


def checksum(data: bytes | memoryview) -> str:
    """xxh3_128, hex."""
    return xxhash.xxh3_128_hexdigest(data)


def runs(mask: Mask, gap: int, largest: int, first: int = 0) -> Iterator[tuple[int, int]]:
    """(page, count) of runs of pages that are set, joined across less than `gap` others, at most `largest` long.

    `first` is the number of the mask's first page.
    """
    edges = np.flatnonzero(np.diff(mask, prepend=False, append=False))
    starts, ends = edges[::2], edges[1::2]
    if not starts.size:
        return
    apart = starts[1:] - ends[:-1] >= max(gap, 1)
    firsts = starts[np.concatenate(([True], apart))].tolist()
    lasts = ends[np.concatenate((apart, [True]))].tolist()
    for start, end in zip(firsts, lasts, strict=True):
        for page in range(start, end, largest):
            yield first + page, min(largest, end - page)


def neighbours(numbers: Numbers) -> Iterator[tuple[int, int]]:
    """(place, count) of pages that follow one another in the guest as they do in the list."""
    breaks = np.flatnonzero(np.diff(numbers.astype(np.int64)) != 1) + 1
    edges = [0, *breaks.tolist(), len(numbers)] if len(numbers) else []
    for start, end in pairwise(edges):
        yield start, end - start


def sorted_index(pieces: Sequence[tuple[Numbers, Hashes]]) -> PageIndex:
    """One index of what several threads have written, by page number."""
    numbers = np.concatenate([n for n, _ in pieces]) if pieces else np.empty(0, np.uint32)
    hashes = np.concatenate([h for _, h in pieces]) if pieces else np.empty((0, _HASH_WORDS), np.uint64)
    order = np.argsort(numbers)
    return PageIndex(numbers[order], hashes[order], np.empty(0, np.uint32))


def write_index(path: Path, index: PageIndex) -> str:
    """Durable on return; its checksum. The format is numpy's npz."""
    out = io.BytesIO()
    places = [(b.first, b.count, b.offset, b.size, b.packed) for b in index.blocks]
    np.savez(
        out,
        numbers=index.numbers,
        hashes=index.hashes,
        zeros=index.zeros,
        blocks=np.array(places, np.int64).reshape(-1, 5),
        checksums=np.array([b.checksum for b in index.blocks], dtype="U32"),
    )
    data = out.getvalue()
    write_durably(path, data)
    return checksum(data)


def read_index(path: Path, expected: str) -> PageIndex:
    """Raises StateDamaged when the file is not what was written."""
    try:
        data = path.read_bytes()
        if checksum(data) != expected:
            raise ValueError("it does not match its checksum")
        with np.load(io.BytesIO(data), allow_pickle=False) as found:
            listed = zip(found["blocks"].tolist(), found["checksums"].tolist(), strict=True)
            blocks = tuple(Block(a, b, c, d, e, digest) for (a, b, c, d, e), digest in listed)
            return PageIndex(found["numbers"], found["hashes"], found["zeros"], blocks)
    except (OSError, ValueError, KeyError) as error:
        raise damaged(path, f"its list of pages is damaged: {error}") from error


def damaged(path: Path, what: str) -> StateDamaged:
    return StateDamaged(
        "the saved memory is damaged",
        detail=f"{path}: {what}",
        remedy="bring the file back from a backup, or delete the workload",
    )

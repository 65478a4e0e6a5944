"""Where guest memory lies in a QEMU process, and which of its pages are there."""

import mmap
import os
import re
import string
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from torpor.domain.errors import BackendFailed, MissingPart

PAGE = mmap.PAGESIZE
_IN_MEMORY = np.uint64(1 << 63 | 1 << 62)
"""pagemap: present, or swapped out."""
_FIELD = frozenset(string.ascii_uppercase.encode())
"""What the lines of smaps that are no mapping's own begin with."""
_PAGES_AT_A_TIME = 1 << 20
_BLOCK = re.compile(r"^\s*(\S+)\s+\d+ [KMG]iB\s+0x[0-9a-f]+\s+0x([0-9a-f]+)\s+0x([0-9a-f]+)", re.MULTILINE)
_ADDRESS = re.compile(r"\((\S+)\) is 0x([0-9a-f]+)")


@dataclass(frozen=True, slots=True)
class Region:
    """A RAM block that is saved: bytes `offset` to `offset + size` of the memory file, `address` in the process."""

    block: str
    offset: int
    size: int
    address: int


@dataclass(frozen=True, slots=True)
class Extent:
    """A piece of the memory file."""

    offset: int
    size: int


def parse_blocks(listing: str) -> Mapping[str, int]:
    """RAM blocks and their sizes in bytes, from HMP `info ramblock`."""
    return {name: int(total, 16) for name, _, total in _BLOCK.findall(listing)}


def parse_address(answer: str, block: str) -> int:
    """The address that HMP `gpa2hva` gives. Raises BackendFailed when it lies in another RAM block."""
    found = _ADDRESS.search(answer)
    if found is None or found.group(1) != block:
        raise BackendFailed(f"QEMU does not say where {block} lies in its memory", detail=answer.strip()[:200])
    return int(found.group(2), 16)


def extents_of(pid: int, region: Region, gap: int, largest: int) -> list[Extent]:
    """Pieces of the memory file that cover every page of the region that is there.

    Gaps smaller than `gap` bytes are covered too; no piece is larger than `largest` bytes.
    """
    runs = list(_runs(_present(pid, region), gap // PAGE))
    return [
        Extent(region.offset + piece * PAGE, min(largest, (end - piece) * PAGE))
        for start, end in runs
        for piece in range(start, end, largest // PAGE)
    ]


def resident(pid: int, address: int, size: int) -> int:
    """Bytes of this range that are in host memory or swapped out; 0 when the process is gone."""
    total = 0
    inside = False
    try:
        with Path(f"/proc/{pid}/smaps").open("rb") as smaps:
            for line in smaps:  # thousands of lines, several times a second: only those that matter are taken apart
                if line[0] not in _FIELD:
                    start, end = (int(part, 16) for part in line.split(None, 1)[0].split(b"-"))
                    inside = start < address + size and end > address
                elif inside and line.startswith((b"Rss:", b"Swap:")):
                    total += int(line.split()[1]) * 1024
    except (OSError, ValueError):
        return 0
    return min(total, size)


def open_memory(pid: int, flags: int) -> int:
    """A file descriptor of the process's memory. Raises MissingPart, or FileNotFoundError when it is gone."""
    try:
        return os.open(f"/proc/{pid}/mem", flags | os.O_CLOEXEC)
    except PermissionError as error:
        raise MissingPart(
            "QEMU's memory can't be opened",
            detail="the daemon has not got CAP_SYS_PTRACE",
            remedy="run it as root",
        ) from error


def _present(pid: int, region: Region) -> npt.NDArray[np.bool_]:
    pages = region.size // PAGE
    found = np.empty(pages, dtype=np.bool_)
    with Path(f"/proc/{pid}/pagemap").open("rb", buffering=0) as pagemap:
        pagemap.seek(region.address // PAGE * 8)
        done = 0
        while done < pages:
            entries = np.frombuffer(pagemap.read(min(_PAGES_AT_A_TIME, pages - done) * 8), dtype=np.uint64)
            if not entries.size:
                raise ProcessLookupError(f"process {pid} ended")
            found[done : done + entries.size] = entries & _IN_MEMORY != 0
            done += entries.size
    return found


def _runs(present: npt.NDArray[np.bool_], gap: int) -> Iterator[tuple[int, int]]:
    """(first page, page after the last) of runs of pages, joined across gaps of less than `gap` pages."""
    edges = np.flatnonzero(np.diff(present, prepend=False, append=False))
    starts, ends = edges[::2], edges[1::2]
    if not starts.size:
        return
    apart = starts[1:] - ends[:-1] >= max(gap, 1)
    firsts = starts[np.concatenate(([True], apart))]
    lasts = ends[np.concatenate((apart, [True]))]
    yield from zip(firsts.tolist(), lasts.tolist(), strict=True)

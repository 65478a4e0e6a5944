"""Where guest memory lies in a QEMU process, and which of its pages are there."""

import mmap
import os
import re
import string
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from torpor.domain.errors import BackendFailed, MissingPart

PAGE = mmap.PAGESIZE
_Entries = npt.NDArray[np.uint64]
_Seen = TypeVar("_Seen", np.bool_, np.uint64)
_IN_MEMORY = np.uint64(1 << 63 | 1 << 62)
"""pagemap: present, or swapped out."""
_FILE_PAGE = np.uint64(1 << 61)
"""pagemap: a file's page, or shared memory's."""
_EXCLUSIVE = np.uint64(1 << 63 | 1 << 56)
"""pagemap: present, and mapped by this process alone."""
_PRESENT = np.uint64(1 << 63)
_FRAME = np.uint64((1 << 55) - 1)
"""pagemap: the number of the page frame of what is present; 0 for who has not got CAP_SYS_ADMIN."""
_FIELD = frozenset(string.ascii_uppercase.encode())
"""What the lines of smaps that are no mapping's own begin with."""
_PAGES_AT_A_TIME = 1 << 20
_BLOCK = re.compile(r"^\s*(\S+)\s+\d+ [KMG]iB\s+0x[0-9a-f]+\s+0x([0-9a-f]+)\s+0x([0-9a-f]+)", re.MULTILINE)
_ADDRESS = re.compile(r"\((\S+)\) is 0x([0-9a-f]+)")


@dataclass(frozen=True, slots=True)
class Region:
    """A RAM block of a QEMU process: `size` bytes from `address` on."""

    block: str
    size: int
    address: int


def parse_blocks(listing: str) -> Mapping[str, int]:
    """RAM blocks and their sizes in bytes, from HMP `info ramblock`."""
    return {name: int(total, 16) for name, _, total in _BLOCK.findall(listing)}


def parse_address(answer: str, block: str) -> int:
    """The address that HMP `gpa2hva` gives. Raises BackendFailed when it lies in another RAM block."""
    found = _ADDRESS.search(answer)
    if found is None or found.group(1) != block:
        raise BackendFailed(f"QEMU does not say where {block} lies in its memory", detail=answer.strip()[:200])
    return int(found.group(2), 16)


def present(pid: int, region: Region) -> npt.NDArray[np.bool_]:
    """Which of the region's pages are there: in memory or swapped out. Raises ProcessLookupError, FileNotFoundError."""
    return _page_table(pid, region, lambda entries: entries & _IN_MEMORY != 0)


def exclusive(pid: int, region: Region) -> npt.NDArray[np.bool_]:
    """Which pages are in memory and mapped here alone: not the kernel's page of zeros, and nothing shared."""
    return _page_table(pid, region, lambda entries: entries & _EXCLUSIVE == _EXCLUSIVE)


def private(pid: int, region: Region) -> npt.NDArray[np.bool_]:
    """Which pages are there and are the process's own, not a file's: those that were written since it was mapped.

    Pages that were only read are the kernel's page of zeros, and left out where we may know which that is (as root).
    """
    zeros = _PRESENT | _frame_of_zeros()

    def written(entries: _Entries) -> npt.NDArray[np.bool_]:
        own = (entries & _IN_MEMORY != 0) & (entries & _FILE_PAGE == 0)
        return np.asarray(own & (entries & (_PRESENT | _FRAME) != zeros)) if zeros != _PRESENT else own

    return _page_table(pid, region, written)


def mapped_file(pid: int, address: int) -> tuple[int, int] | None:
    """(device, inode) of the file that is mapped there; None for memory that is no file's.

    Raises FileNotFoundError, ProcessLookupError when the process is gone. Format: proc(5), /proc/PID/maps.
    """
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        place, _, _, device, inode = line.split(None, 5)[:5]
        start, end = (int(part, 16) for part in place.split("-"))
        if start <= address < end:
            major, minor = (int(part, 16) for part in device.split(":"))
            return (os.makedev(major, minor), int(inode)) if int(inode) else None
    return None


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


def _frame_of_zeros() -> np.uint64:
    """The page that the kernel maps wherever memory was only read; 0 where we may not know."""
    with mmap.mmap(-1, PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as room:
        view = np.frombuffer(room, dtype=np.uint8)
        assert not view[0]
        address = view.ctypes.data
        del view  # else the room can't be closed
        (entry,) = _page_table(os.getpid(), Region("", PAGE, address), lambda entries: entries)
    # Not a page of our own, nor a part of the huge page of zeros: either may become somebody's memory.
    return np.uint64(entry & _FRAME if entry & (_EXCLUSIVE | _FILE_PAGE) == _PRESENT else 0)


def _page_table(pid: int, region: Region, look: Callable[[_Entries], npt.NDArray[_Seen]]) -> npt.NDArray[_Seen]:
    """What `look` sees in each page's entry of the kernel's page table. Format: the kernel's pagemap documentation.

    Raises ProcessLookupError, FileNotFoundError.
    """
    pages = region.size // PAGE
    found: list[npt.NDArray[_Seen]] = []
    with Path(f"/proc/{pid}/pagemap").open("rb", buffering=0) as pagemap:
        pagemap.seek(region.address // PAGE * 8)
        done = 0
        while done < pages:
            entries = np.frombuffer(pagemap.read(min(_PAGES_AT_A_TIME, pages - done) * 8), dtype=np.uint64)
            if not entries.size:
                raise ProcessLookupError(f"process {pid} ended")
            found.append(look(entries))
            done += entries.size
    return np.concatenate(found)

"""Which pages of a process hold something of its own, as the kernel's page table says."""

import mmap
import os
from contextlib import suppress
from pathlib import Path

import numpy as np

from torpor.adapters.qemu.ram import PAGE, Region, private

_HUGE = 2 << 20
_KNOWS_FRAMES = os.geteuid() == 0
"""Others are not told which page is that of zeros."""


def _seen(room: mmap.mmap, written: list[int], read: list[int]) -> list[int]:
    view = np.frombuffer(room, dtype=np.uint8)
    for page in written:
        view[page * PAGE] = 1
    for page in read:
        assert view[page * PAGE] == 0
    address = view.ctypes.data
    del view  # else the room can't be closed
    return np.flatnonzero(private(os.getpid(), Region("ram", len(room), address))).tolist()


def test_written_pages_are_there_and_such_as_were_only_read_are_not() -> None:
    with mmap.mmap(-1, 64 * PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as room:
        with suppress(OSError):
            room.madvise(mmap.MADV_NOHUGEPAGE)
        found = _seen(room, written=[0, 5, 63], read=[1, 40])
    assert found == ([0, 5, 63] if _KNOWS_FRAMES else [0, 1, 5, 40, 63])


def test_a_page_that_was_read_and_then_written_is_there() -> None:
    with mmap.mmap(-1, 4 * PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as room:
        _seen(room, written=[], read=[0, 1, 2, 3])
        assert 2 in _seen(room, written=[2], read=[])


def test_a_huge_page_of_zeros_is_not_there() -> None:
    with mmap.mmap(-1, 2 * _HUGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as room:
        with suppress(OSError):
            room.madvise(mmap.MADV_HUGEPAGE)
        found = _seen(room, written=[], read=list(range(len(room) // PAGE)))
    assert found == [] or not _KNOWS_FRAMES


def test_pages_of_a_file_are_not_its_own(tmp_path: Path) -> None:
    with (tmp_path / "file").open("w+b") as file:
        file.truncate(4 * PAGE)
        with mmap.mmap(file.fileno(), 4 * PAGE, flags=mmap.MAP_PRIVATE) as room:
            assert _seen(room, written=[1], read=[0, 2]) == [1]

"""What makes the standstill for a live snapshot short: done beforehand, while the guest runs.

QEMU touches every page of the guest and write-protects it while the guest stands still. That is quick where the
memory lies in large pages and every page is there; an earlier snapshot has split them.
"""

import ctypes
import mmap
import os
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from torpor.adapters.qemu import ram
from torpor.adapters.qemu.ram import PAGE, Region

_HUGE = 2 << 20
_PER_HUGE = _HUGE // PAGE
_AT_A_TIME = 64 << 20
_PROCESS_MADVISE = 440
_MADV_COLLAPSE = 25
"""Since Linux 6.1; where it is not known the guest stands still for a little longer."""


class _Range(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


def prepare_memory(pid: int, region: Region) -> None:
    """Have every page there, in large pages where that can be. Best effort.

    Raises ProcessLookupError, FileNotFoundError when the process is gone.
    """
    _collapse(pid, region, ram.exclusive(pid, region))
    _touch(pid, region, ram.present(pid, region))


def _collapse(pid: int, region: Region, there: npt.NDArray[np.bool_]) -> None:
    """Large pages out of small ones, where all small ones are the guest's own: pages of zeros would become memory."""
    skip = -region.address % _HUGE // PAGE
    whole = there[skip : skip + (len(there) - skip) // _PER_HUGE * _PER_HUGE].reshape(-1, _PER_HUGE).all(axis=1)
    try:
        fd = os.pidfd_open(pid)
    except OSError:
        return
    library = ctypes.CDLL(None, use_errno=True)
    try:
        for start, end in _runs(np.asarray(whole)):
            first, last = (region.address + skip * PAGE + place * _HUGE for place in (start, end))
            for at in range(first, last, _AT_A_TIME):
                piece = _Range(at, min(_AT_A_TIME, last - at))
                library.syscall(_PROCESS_MADVISE, fd, ctypes.byref(piece), ctypes.c_size_t(1), _MADV_COLLAPSE, 0)
    finally:
        os.close(fd)


def _touch(pid: int, region: Region, there: npt.NDArray[np.bool_]) -> None:
    """Read every page that is not there: the kernel maps its page of zeros."""
    buffer = memoryview(mmap.mmap(-1, _AT_A_TIME))
    fd = ram.open_memory(pid, os.O_RDONLY)
    try:
        for start, end in _runs(~there):
            for at in range(start * PAGE, end * PAGE, _AT_A_TIME):
                os.preadv(fd, [buffer[: min(_AT_A_TIME, end * PAGE - at)]], region.address + at)
    except OSError as error:
        raise ProcessLookupError(f"process {pid} ended") from error
    finally:
        os.close(fd)


def _runs(chosen: npt.NDArray[np.bool_]) -> list[tuple[int, int]]:
    """(first, end) of each run of places that are chosen."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], chosen, [False])).astype(np.int8)))
    return [(int(a), int(b)) for a, b in list(pairwise(edges))[::2]]

"""Memory of a machine that is a VM itself, whose host takes back what is free: its first use waits for that host.

Linux reports free memory to such a host within seconds (virtio-balloon's free page reporting).
"""

import mmap
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import numpy as np
import numpy.typing as npt
import psutil

from benchmark.states.talk import seconds

_SPARE = 1.1
_SHARE = 0.8
"""At most, of what is available."""
_PROBE_MB = 1024


def make_ready(megabytes: int) -> None:
    """Use as much free memory and a little more, as far as there is, and give it back."""
    available = psutil.virtual_memory().available >> 20
    _use(int(min(megabytes * _SPARE, available * _SHARE)), os.cpu_count() or 1)


def speed() -> dict[str, float]:
    """Seconds a GB that one thread takes: of memory that was free for long, and of memory that was used just now."""
    gigabytes = (_PROBE_MB << 20) / 1e9
    fresh, used = (seconds(lambda: _use(_PROBE_MB, 1)) / gigabytes for _ in range(2))
    return {"fresh_memory_seconds_per_gb": fresh, "used_memory_seconds_per_gb": used}


def _use(megabytes: int, threads: int) -> None:
    with mmap.mmap(-1, megabytes << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as room:
        with suppress(OSError):  # a kernel without huge pages
            room.madvise(mmap.MADV_HUGEPAGE)
        parts = np.array_split(np.frombuffer(room, dtype=np.uint8), threads)
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(_write_to, parts))
        del parts  # else the room can't be closed


def _write_to(part: npt.NDArray[np.uint8]) -> None:
    part[:: mmap.PAGESIZE] = 1

"""Memory of a machine that is a VM itself, whose host takes back what is free: its first use waits for that host.

Linux reports free memory to such a host within seconds (virtio-balloon's free page reporting).
"""

import mmap
from contextlib import suppress

import numpy as np
import psutil

from benchmark.states.talk import seconds

_GUESTS = 2.5
"""Times a guest's memory: for its own, for as much of its file in the page cache, and some to spare."""
_SHARE = 0.8
"""At most, of what is available."""
_PROBE_MB = 1024


def make_ready(guest_mb: int) -> None:
    """Use as much free memory as suspending or restoring a guest of this size takes, and give it back."""
    available = psutil.virtual_memory().available >> 20
    _use(min(int(guest_mb * _GUESTS), int(available * _SHARE)))


def speed() -> dict[str, float]:
    """Seconds a GB: of memory that was free for long, and of memory that was used just now."""
    gigabytes = (_PROBE_MB << 20) / 1e9
    fresh, used = (seconds(lambda: _use(_PROBE_MB)) / gigabytes for _ in range(2))
    return {"fresh_memory_seconds_per_gb": fresh, "used_memory_seconds_per_gb": used}


def _use(megabytes: int) -> None:
    with mmap.mmap(-1, megabytes << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as room:
        with suppress(OSError):  # a kernel without huge pages
            room.madvise(mmap.MADV_HUGEPAGE)
        pages = np.frombuffer(room, dtype=np.uint8)
        pages[:: mmap.PAGESIZE] = 1
        del pages  # else the room can't be closed

"""How much of a range of a process's memory is there, as the kernel says."""

import ctypes
import mmap
import os
import subprocess
import sys

from torpor.adapters.qemu.ram import PAGE, resident


def test_only_pages_that_were_touched_within_the_range_count() -> None:
    with mmap.mmap(-1, 64 * PAGE) as memory:  # shared: the kernel joins it to no other mapping
        view = ctypes.c_char.from_buffer(memory)
        address = ctypes.addressof(view)
        before = resident(os.getpid(), address, 64 * PAGE)
        for page in (0, 5, 40):
            memory[page * PAGE] = 1
        assert resident(os.getpid(), address, 64 * PAGE) == before + 3 * PAGE
        del view


def test_a_process_that_is_gone_has_nothing() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    assert resident(process.pid, 0x1000, PAGE) == 0

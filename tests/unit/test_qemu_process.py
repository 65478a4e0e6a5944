"""When a process is gone: not before its last thread, which holds its files and their locks."""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from torpor.adapters.qemu.process import QemuProcess

FIRST_THREAD_ENDS = """
import ctypes, threading, time
threading.Thread(target=time.sleep, args=(600,)).start()
print("begun", flush=True)
ctypes.CDLL(None).syscall(60, 0)  # exit, of this thread alone
"""


def stat(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


@pytest.fixture
def half_gone() -> Iterator["subprocess.Popen[bytes]"]:
    """Its first thread has ended, another sleeps."""
    child = subprocess.Popen([sys.executable, "-c", FIRST_THREAD_ENDS], stdout=subprocess.PIPE)
    assert child.stdout
    child.stdout.readline()
    while stat(child.pid)[0] != "Z":
        time.sleep(0.01)
    yield child
    child.kill()
    child.wait()


def test_a_process_is_gone_with_its_last_thread(half_gone: "subprocess.Popen[bytes]") -> None:
    process = QemuProcess(half_gone.pid, int(stat(half_gone.pid)[19]))
    assert process.alive()
    assert not process.wait_gone(0.1)
    process.kill()
    assert not process.alive()
    assert process.wait_gone(0.0)
    assert stat(half_gone.pid)[0] == "Z", "it is not reaped yet, and gone all the same"


def test_another_process_with_its_number_is_not_it(half_gone: "subprocess.Popen[bytes]") -> None:
    earlier = QemuProcess(half_gone.pid, int(stat(half_gone.pid)[19]) - 1)
    assert not earlier.alive()
    earlier.kill()
    assert earlier.wait_gone(0.0)
    assert half_gone.poll() is None, "nobody else was killed"

"""When a process is gone: not before its last thread, which holds its files and their locks."""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from torpor.adapters.qemu.layout import Layout
from torpor.adapters.qemu.process import Processes, QemuProcess
from torpor.domain.ids import InstanceId

INSTANCE = InstanceId("3c0b6f0e-6a1c-4f5e-9a53-2a7be8a0b6a1")
FIRST_THREAD_ENDS = """
import ctypes, sys, threading, time
threading.Thread(target=time.sleep, args=(600,)).start()
print("begun", flush=True)
sys.stdin.readline()
ctypes.CDLL(None).syscall(60, 0)  # exit, of this thread alone
"""


def stat(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path)


@pytest.fixture
def child(layout: Layout) -> Iterator["subprocess.Popen[bytes]"]:
    """A process with the arguments of an instance's QEMU; a line to it ends its first thread, another sleeps on."""
    arguments = ["-uuid", INSTANCE, str(layout.instance(INSTANCE).qmp_socket)]
    child = subprocess.Popen(
        [sys.executable, "-c", FIRST_THREAD_ENDS, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert child.stdout
    child.stdout.readline()
    yield child
    child.kill()
    child.communicate()


def end_first_thread(child: "subprocess.Popen[bytes]") -> None:
    assert child.stdin
    child.stdin.write(b"\n")
    child.stdin.flush()
    while stat(child.pid)[0] != "Z":
        time.sleep(0.01)


@pytest.fixture
def half_gone(child: "subprocess.Popen[bytes]") -> "subprocess.Popen[bytes]":
    end_first_thread(child)
    return child


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


def test_one_that_has_lost_its_arguments_and_still_holds_its_files_is_found(
    layout: Layout, child: "subprocess.Popen[bytes]"
) -> None:
    processes = Processes(layout, patience=0.1)
    seen = processes.running()
    assert seen[INSTANCE].pid == child.pid
    end_first_thread(child)
    assert not Path(f"/proc/{child.pid}/cmdline").read_bytes()
    assert processes.running() == seen
    assert processes.running() == seen, "however often one asks"
    child.kill()
    assert not Processes(layout).running() and not processes.running()


def test_one_that_dies_soon_is_waited_for(layout: Layout, child: "subprocess.Popen[bytes]") -> None:
    processes = Processes(layout, patience=60.0)
    assert processes.running()
    end_first_thread(child)
    killer = threading.Timer(0.3, child.kill)
    killer.start()
    assert not processes.running()
    assert stat(child.pid)[17] == "1", "its last thread has ended"
    killer.join()

"""QEMU processes: found by what they are, not by a pid that was once written down."""

import os
import select
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torpor.adapters.qemu.layout import Layout
from torpor.domain.errors import BackendFailed, MissingPart
from torpor.domain.ids import InstanceId

_STATE, _THREADS, _START = 0, 17, 19
"""Places in /proc/PID/stat after the command's closing parenthesis."""


@dataclass(frozen=True, slots=True)
class QemuProcess:
    """Identity: pid and start time (clock ticks since the machine's boot); argv had the instance's UUID."""

    pid: int
    started: int
    incoming: bool = False
    """It was started to be filled with a saved state."""

    def alive(self) -> bool:
        return _started(self.pid) == self.started

    def kill(self, timeout: float = 30.0) -> None:
        """End it by force and wait until it is gone. Converges. Raises BackendFailed."""
        try:
            handle = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return
        try:
            if self.alive():
                signal.pidfd_send_signal(handle, signal.SIGKILL)
            if not self._ended(handle, timeout):
                raise BackendFailed(
                    f"QEMU process {self.pid} does not end",
                    detail=f"it was killed {timeout:g} s ago",
                    remedy="it waits for a disk; see the kernel's log",
                )
        except ProcessLookupError:
            return
        finally:
            os.close(handle)

    def wait_gone(self, timeout: float) -> bool:
        """Whether it ended within `timeout` seconds."""
        try:
            handle = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return True
        try:
            return self._ended(handle, timeout)
        finally:
            os.close(handle)

    def was_told(self, text: str) -> bool:
        """Whether one of its arguments contains this; False when it is gone."""
        try:
            return os.fsencode(text) in Path(f"/proc/{self.pid}/cmdline").read_bytes()
        except OSError:
            return False

    def own_memory(self) -> int:
        """Bytes of host memory that are its own, page cache not counted; 0 when it is gone."""
        try:
            status = Path(f"/proc/{self.pid}/status").read_text()
        except OSError:
            return 0
        fields = ("RssAnon:", "RssShmem:")
        return sum(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith(fields))

    def _ended(self, handle: int, timeout: float) -> bool:
        if not self.alive():
            return True
        waiting = select.poll()
        waiting.register(handle, select.POLLIN)
        return bool(waiting.poll(timeout * 1000))


class Processes:
    """The QEMU processes that run for the instances below one state directory."""

    def __init__(self, layout: Layout, patience: float = 5.0) -> None:
        """`patience`: seconds to wait for one that is dying."""
        self._layout = layout
        self._patience = patience
        self._seen: Mapping[InstanceId, QemuProcess] = {}

    def running(self) -> Mapping[InstanceId, QemuProcess]:
        """Every one of them, those that dying takes long included.

        A process loses its arguments with its memory, before its files and their locks: one that was seen before
        and is not found any more is waited for, lest its disk be used beside it.
        """
        found = _found(self._layout)
        for id, process in self._seen.items():
            if id not in found and not process.wait_gone(self._patience):
                found[id] = process
        self._seen = found
        return found


def _found(layout: Layout) -> dict[InstanceId, QemuProcess]:
    marker = os.fsencode(f"{layout.instances_dir}/")
    found: dict[InstanceId, QemuProcess] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            arguments = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"-uuid" not in arguments or not any(marker in argument for argument in arguments):
            continue
        started = _started(int(entry.name))
        if started is not None:
            id = InstanceId(arguments[arguments.index(b"-uuid") + 1].decode())
            found[id] = QemuProcess(int(entry.name), started, b"-incoming" in arguments)
    return found


def launch(arguments: Sequence[str], log: Path) -> QemuProcess:
    """Start QEMU in a session of its own, tied to this process by nothing. Raises MissingPart, BackendFailed."""
    with log.open("wb") as output:
        try:
            child = subprocess.Popen(
                arguments, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True, cwd="/"
            )
        except FileNotFoundError as error:
            raise MissingPart(
                f"{arguments[0]} can't be started", detail="there is no such program", remedy="install it"
            ) from error
        except OSError as error:
            raise BackendFailed("QEMU can't be started", detail=error.strerror or str(error)) from error
    threading.Thread(target=child.wait, name=f"reap-{child.pid}", daemon=True).start()
    return QemuProcess(child.pid, _started(child.pid) or 0, "-incoming" in arguments)


def log_tail(log: Path) -> str:
    """The last line that QEMU wrote to its log, without QEMU's own name."""
    try:
        lines = log.read_text(errors="replace").strip().splitlines()
    except OSError:
        return ""
    telling = [line for line in lines if "vmdescription" not in line]  # harmless, and always there
    return telling[-1].split(": ", 1)[-1][:300] if telling else ""


def _started(pid: int) -> int | None:
    """Its start time; None when it is gone or only waits to be reaped.

    One whose first thread has ended before the others is not gone: those hold its files, and their locks.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    ended = fields[_STATE] in "ZX" and int(fields[_THREADS]) <= 1
    return None if ended else int(fields[_START])

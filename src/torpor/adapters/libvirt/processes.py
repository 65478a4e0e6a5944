"""QEMU processes of domains, seen from outside: libvirt's own notes of pids may lie in another mount namespace."""

import threading
from pathlib import Path

import psutil

from torpor.domain.ids import InstanceId


class Processes:
    """Finds them by the domain's UUID in their arguments; what was found is remembered while it lives."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[InstanceId, psutil.Process] = {}

    def find(self, instance: InstanceId) -> psutil.Process | None:
        with self._lock:
            known = self._known.get(instance)
            if known is None or not known.is_running():
                self._known = _running()
                known = self._known.get(instance)
            return known

    def identity(self, instance: InstanceId) -> str:
        """Tells this process of the domain from any that it had or will have; empty without one."""
        process = self.find(instance)
        return f"{process.pid} {process.create_time()}" if process else ""


def own_memory(process: psutil.Process) -> int:
    """Bytes of host memory that are its own, page cache not counted; 0 when it is gone."""
    try:
        status = Path(f"/proc/{process.pid}/status").read_text()
    except OSError:
        return 0
    fields = ("RssAnon:", "RssShmem:")
    return sum(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith(fields))


def _running() -> dict[InstanceId, psutil.Process]:
    found = {}
    for process in psutil.process_iter():
        try:
            arguments = process.cmdline()
            if "-uuid" in arguments and process.status() != psutil.STATUS_ZOMBIE:
                found[InstanceId(arguments[arguments.index("-uuid") + 1])] = process
        except (psutil.Error, IndexError):
            continue
    return found

"""QEMU processes as /proc shows them: which there are, and how much memory each has of its own."""

import os
import signal
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

INTERVAL = 0.2
"""Seconds between two samples."""
Document = Mapping[str, Any]
Find = Callable[[Collection[Document]], Mapping[str, int]]
"""Pid by instance id, of those of these instances that have a process."""


def pids(state_dir: Path) -> dict[str, int]:
    """Pid by instance id of every QEMU process that was started for an instance below this folder."""
    return pids_with(f"{state_dir}/instances/")


def pids_with(marker: str) -> dict[str, int]:
    """Pid by UUID of every QEMU process that has this in its arguments."""
    sought, found = os.fsencode(marker), {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            arguments = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"-uuid" in arguments and any(sought in argument for argument in arguments):
            found[arguments[arguments.index(b"-uuid") + 1].decode()] = int(entry.name)
    return found


def own_memory(pid: int) -> int:
    """Bytes that are in memory and are the process's own; pages of files are not counted."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(("RssAnon:", "RssShmem:")))


def memory_of(pids: Iterable[int]) -> int:
    """Bytes of all these processes."""
    return sum(own_memory(pid) for pid in pids)


def kill(state_dir: Path) -> list[int]:
    """End by force what is still there of ours; the pids."""
    left = list(pids(state_dir).values())
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    return left


class Sampler:
    """Watches memory by workload all along, in a thread of its own."""

    def __init__(self, find: Find) -> None:
        self._find = find
        self._groups: Mapping[str, Collection[Document]] = {}
        self._began = time.monotonic()
        self._stopped = threading.Event()
        self.samples: list[tuple[float, int, int]] = []
        self._thread = threading.Thread(target=self._watch, name="sampler", daemon=True)
        self._thread.start()

    def watch(self, batch: Collection[Document], priority: Collection[Document] = ()) -> None:
        self._groups = {"batch": batch, "priority": priority}

    def stop(self) -> list[tuple[float, int, int]]:
        self._stopped.set()
        self._thread.join()
        return self.samples

    def _watch(self) -> None:
        while not self._stopped.wait(INTERVAL):
            groups = self._groups
            if groups:
                sizes = {id: own_memory(pid) for id, pid in self._find([*chain(*groups.values())]).items()}
                batch, priority = (
                    sum(sizes.get(instance["id"], 0) for instance in groups[group]) for group in ("batch", "priority")
                )
                self.samples.append((time.monotonic() - self._began, batch, priority))

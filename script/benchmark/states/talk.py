"""What is the same for every contender: talk with the guest, a cold cache, the moment of the first tick."""

import json
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from benchmark.states.guest_image import PROGRAM
from torpor.domain.errors import BackendFailed
from torpor.domain.instance import Execution

TICK_MS = 10
"""Between two ticks on the serial line while nothing is measured more finely."""
BOOT_SECONDS = 120.0
COMMAND_SECONDS = 900.0


class Shell(Protocol):
    """A guest's agent, as the `Guest` port has it, of one guest."""

    def execute(self, command: str) -> int: ...

    def execution(self, pid: int) -> Execution: ...


class GuestFailed(RuntimeError):
    """The guest did not do what it was asked for; a run can't go on."""


class Talk:
    """Questions to the benchmark's program in one guest."""

    def __init__(self, shell: Shell) -> None:
        self._shell = shell

    def await_boot(self) -> None:
        """Until the program serves and ticks."""
        deadline = time.monotonic() + BOOT_SECONDS
        while True:
            try:
                self.run(f"setsid {PROGRAM} serve </dev/null >/dev/null 2>&1 &")
                break
            except (BackendFailed, GuestFailed):
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)
        while not self._serves():
            if time.monotonic() > deadline:
                raise GuestFailed("the benchmark's program does not start in the guest")
            time.sleep(0.1)
        self.tick()

    def tick(self, milliseconds: int = TICK_MS) -> None:
        self.ask(f"tick-start {milliseconds * 1000}")

    def ask(self, question: str) -> Any:
        """The answer. Raises GuestFailed unless it is good."""
        output = self.run(f"{PROGRAM} {question}")
        answer = json.loads(output)
        if not answer["ok"]:
            raise GuestFailed(f"{question}: {output}")
        return answer

    def run(self, command: str) -> str:
        pid = self._shell.execute(command)
        deadline = time.monotonic() + COMMAND_SECONDS
        while not (result := self._shell.execution(pid)).finished:
            if time.monotonic() > deadline:
                raise GuestFailed(f"{command} does not end")
            time.sleep(0.02)
        if result.exit_code:
            raise GuestFailed(f"{command}: exit code {result.exit_code}: {result.output}")
        return result.output

    def _serves(self) -> bool:
        try:
            return bool(self.ask("ping")["ok"])
        except (BackendFailed, GuestFailed):
            return False


def drop_caches() -> None:
    """Nothing of any file stays in memory but what processes have mapped."""
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("3")


def sync_file(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def until_first_tick(restore: Callable[[], object], console: Path) -> float:
    """Seconds from the call of `restore` until the serial line's log grows; `restore` has returned by then."""
    before = console.stat().st_size
    ticked: list[float] = []
    ended = threading.Event()

    def watch() -> None:
        while not ended.is_set():
            if console.stat().st_size > before:
                ticked.append(time.perf_counter())
                return
            time.sleep(0.001)

    watcher = threading.Thread(target=watch, daemon=True)
    began = time.perf_counter()
    watcher.start()
    try:
        restore()
        watcher.join(60.0)
    finally:
        ended.set()
    if not ticked:
        raise GuestFailed("the restored guest does not tick")
    return ticked[0] - began

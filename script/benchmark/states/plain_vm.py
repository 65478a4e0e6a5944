"""QEMU alone, and its own migration to a file."""

import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmark.states.contender import TB_SIZE_MB, Bench, Turn
from benchmark.states.record import Cell, Measure
from benchmark.states.talk import GuestFailed, Talk, seconds, sync_file, until_first_tick
from torpor.adapters.guest.agent import over_socket
from torpor.adapters.guest.guest import AgentGuest, Ethernet
from torpor.adapters.qemu.qmp import MonitorLost, Monitors
from torpor.domain.ids import InstanceId
from torpor.domain.instance import Execution

NAME = "qemu migrate"
_ID = InstanceId("plain")
_START_SECONDS = 60.0


class _Shell:
    def __init__(self, agent: Path) -> None:
        self._guest = AgentGuest(over_socket(lambda id: agent), lambda _: Ethernet("lo", "127.0.0.1"))

    def execute(self, command: str) -> int:
        return self._guest.execute(_ID, command)

    def execution(self, pid: int) -> Execution:
        return self._guest.execution(_ID, pid)


class PlainVm:
    """Implements `Contender`: `migrate` through a pipe into a file, as fast as it goes, and back."""

    def __init__(self, bench: Bench, cell: Cell) -> None:
        self._bench = bench
        self._cell = cell
        self._folder = bench.folder / "q"
        self._folder.mkdir()
        self._console = self._folder / "console.log"
        self._console.touch()
        self._stream = self._folder / "stream"
        self._monitor = self._folder / "qmp.sock"
        self._monitors = Monitors()
        self._process: subprocess.Popen[bytes] | None = None
        self.talk = Talk(_Shell(self._folder / "agent.sock"))

    def take_turn(self, turn: Turn) -> None:
        if not self._stream.exists():
            self.boot()
            self._save(turn)
        self._bench.before_restore(self._cell.memory_mb)
        turn.add(NAME, Measure.RESTORE, until_first_tick(self._wake, self._console))
        self.talk.ask("verify")
        self._save(turn)

    def boot(self) -> None:
        self._start(())
        self.talk.await_boot()
        self.talk.ask(f"fill {self._cell.data_mb}")

    @property
    def pid(self) -> int:
        assert self._process
        return self._process.pid

    def close(self) -> None:
        if self._process:
            self._process.kill()
            self._process.wait()
        self._monitors.close()
        shutil.rmtree(self._folder)

    def _save(self, turn: Turn) -> None:
        self._bench.before_suspension(self._cell.memory_mb)
        turn.add(NAME, Measure.SUSPEND, seconds(self._sleep))
        turn.add(NAME, Measure.SUSPEND_BYTES, self._stream.stat().st_blocks * 512)

    def _sleep(self) -> None:
        self._execute("stop")
        self._execute("migrate-set-parameters", {"max-bandwidth": 1 << 40})
        self._execute("migrate", {"uri": f"exec:cat >{self._stream}"})
        while (status := self._execute("query-migrate")["status"]) != "completed":
            assert status not in ("failed", "cancelled"), status
            time.sleep(0.01)
        self._execute("quit")
        assert self._process
        self._process.wait()
        sync_file(self._stream)
        self._monitors.forget(self._monitor)

    def _wake(self) -> None:
        self._start(("-incoming", f"exec:cat {self._stream}"))
        while self._execute("query-status")["status"] == "inmigrate":
            time.sleep(0.005)
        self._execute("cont")

    def _start(self, more: Sequence[str]) -> None:
        kernel, folder = self._bench.image.kernel, self._folder
        self._monitor.unlink(missing_ok=True)
        command = [
            "qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none", "-vga", "none",
            "-machine", "pc,usb=off", "-accel", f"tcg,tb-size={TB_SIZE_MB}", "-cpu", "max",
            "-smp", "1", "-m", f"{self._cell.memory_mb}M",
            "-qmp", f"unix:{self._monitor},server=on,wait=off",
            "-chardev", f"file,id=console,path={self._console},append=on", "-serial", "chardev:console",
            "-chardev", f"socket,id=agent,path={folder / 'agent.sock'},server=on,wait=off",
            "-device", "virtio-serial-pci", "-device", "virtserialport,chardev=agent,name=org.qemu.guest_agent.0",
            "-device", "virtio-rng-pci",
            "-kernel", str(kernel.kernel), "-initrd", str(kernel.initrd), "-append", kernel.cmdline, *more,
        ]  # fmt: skip
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        self._await_monitor(self._process)

    def _await_monitor(self, process: "subprocess.Popen[bytes]") -> None:
        deadline = time.monotonic() + _START_SECONDS
        while process.poll() is None and time.monotonic() < deadline:
            try:
                self._execute("query-status")
                return
            except MonitorLost:
                time.sleep(0.005)
        raise GuestFailed("plain QEMU did not start")

    def _execute(self, command: str, arguments: dict[str, object] | None = None) -> Any:
        return self._monitors.execute(self._monitor, command, arguments, timeout=60.0)

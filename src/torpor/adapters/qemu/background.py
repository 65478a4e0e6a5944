"""QEMU's background snapshot: the stream of one instant, written while the guest runs on.

QEMU touches all of the guest's memory, begins the stream, saves the devices of the paused guest, write-protects its
memory (userfaultfd) and lets it run; a page that the guest wants to write to is saved before. It lets the guest run by
itself, also one that had been paused.

Touching takes the longer the more memory there is. So QEMU is told to begin while the guest still runs, and held at the
stream's first bytes, at a pipe that nobody empties yet, until the guest stands still.
"""

import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from torpor.adapters.qemu.calm import prepare_memory
from torpor.adapters.qemu.command_line import RAM
from torpor.adapters.qemu.favour import favour
from torpor.adapters.qemu.qmp import CommandFailed
from torpor.adapters.qemu.ram import PAGE, Region
from torpor.adapters.qemu.sink import Sink
from torpor.adapters.qemu.vms import Vm
from torpor.domain.errors import BackendFailed, MissingPart, TorporError

USERFAULTFD = Path("/proc/sys/vm/unprivileged_userfaultfd")
_CAPABILITY = "background-snapshot"
_NAME = "torpor-snapshot"
_UNLIMITED = 1 << 40
_STALL_SECONDS = 120.0
_PROTECT_SECONDS = 30.0
_ACTIVE = ("setup", "active", "cancelling", "wait-unplug", "pre-switchover", "device")
_LOOK_SECONDS = 0.001
_TOUCH_SECONDS = 20.0
_LOOKS = 3


def userfaultfd() -> str:
    """What there is of it, for `torpor doctor`. Raises MissingPart."""
    try:
        on = USERFAULTFD.read_text().strip() == "1"
    except OSError as error:
        raise MissingPart(
            "live snapshots can't be taken",
            detail=f"there is no {USERFAULTFD}",
            remedy="use a Linux kernel 5.7 or newer with userfaultfd, or do without snapshots",
        ) from error
    return "vm.unprivileged_userfaultfd is 1" if on else "vm.unprivileged_userfaultfd is set to 1 at the first snapshot"


def allow_userfaultfd() -> bool:
    """Let QEMU, which runs as an ordinary user, catch faults of its own memory; whether that was not so before.

    Raises MissingPart.
    """
    try:
        if USERFAULTFD.read_text().strip() == "1":
            return False
        USERFAULTFD.write_text("1")
    except OSError as error:
        raise MissingPart(
            "live snapshots can't be taken",
            detail=f"{USERFAULTFD} can't be set to 1: {error.strerror}",
            remedy="run 'sysctl vm.unprivileged_userfaultfd=1' on a kernel with userfaultfd",
        ) from error
    return True


def switch(vm: Vm, *, on: bool) -> None:
    """Whether the VM's next migration is a background snapshot. Raises MissingPart where QEMU or the kernel can't."""
    capability = {"capability": _CAPABILITY, "state": on}
    try:
        vm.execute("migrate-set-capabilities", {"capabilities": [capability]})
    except CommandFailed as error:
        raise MissingPart(
            "live snapshots can't be taken",
            detail=error.detail,
            remedy="use a Linux kernel 5.7 or newer and QEMU 6 or newer, with vm.unprivileged_userfaultfd=1",
        ) from error


@dataclass(slots=True)
class Background:
    """One VM's stream. The calls come in their order; `give_up` may come at any time."""

    vm: Vm
    sink: Sink
    size: int
    """Of guest memory, bytes."""

    def prepare(self) -> None:
        """What takes time, while the guest still runs."""
        favour(self.vm, on=True)
        region = Region(RAM, self.size, self.vm.address_of(RAM, 0))
        try:
            prepare_memory(self.vm.process.pid, region)
        except (FileNotFoundError, ProcessLookupError) as error:
            raise self.vm.gone() from error
        switch(self.vm, on=True)
        self.vm.execute("migrate-set-parameters", {"max-bandwidth": _UNLIMITED})
        self.vm.execute("getfd", {"fdname": _NAME}, fd=self.sink.writer)
        self.sink.close_writer()
        before = _threads(self.vm.process.pid)
        self.vm.execute("migrate", {"uri": f"fd:{_NAME}"})
        _await_held(self.vm.process.pid, before)

    def begin(self) -> None:
        """Of the paused guest; it runs on return."""
        self.sink.let_go()
        give_up = time.monotonic() + _PROTECT_SECONDS
        while self.vm.status() != "running":
            if self._status() == "failed" or time.monotonic() > give_up:
                raise self._failed()
            time.sleep(_LOOK_SECONDS)

    def progress(self) -> tuple[bool, int, int]:
        """(whether it is over, bytes done, bytes in all). Raises BackendFailed."""
        answer = self.vm.execute("query-migrate")
        status, ram = answer.get("status"), answer.get("ram", {})
        if status == "failed" or status == "cancelled":
            raise self._failed()
        done = int(ram.get("transferred", 0))
        left = int(ram.get("total", 0)) - int(ram.get("duplicate", 0)) * PAGE
        return status == "completed", done, max(done, left)

    def end(self) -> tuple[str, int]:
        """(checksum, bytes of guest memory) of the stream, durable."""
        memory = int(self.vm.execute("query-migrate").get("ram", {}).get("normal", 0)) * PAGE
        checksum = self.sink.finish()
        favour(self.vm, on=False)
        switch(self.vm, on=False)
        return checksum, memory

    def give_up(self) -> None:
        """Leave QEMU as it was. What can't be done because QEMU is gone need not be done."""
        with suppress(TorporError):
            self.vm.execute("closefd", {"fdname": _NAME})
        self.sink.close_writer()
        self.sink.let_go()
        with suppress(TorporError):
            end_stream(self.vm)
        self.sink.abandon()

    def _status(self) -> str:
        return str(self.vm.execute("query-migrate").get("status", ""))

    def _failed(self) -> Exception:
        detail = self.vm.execute("query-migrate").get("error-desc", "no reason given")
        return BackendFailed("QEMU could not take a live snapshot", detail=str(detail))


def _threads(pid: int) -> set[Path]:
    try:
        return set(Path(f"/proc/{pid}/task").iterdir())
    except FileNotFoundError:
        return set()


def _await_held(pid: int, before: set[Path]) -> None:
    """Until the thread that writes the stream sleeps at the full pipe, and has touched all memory by then.

    Best effort: what it has still to touch later, the guest stands still for.
    """
    give_up, asleep = time.monotonic() + _TOUCH_SECONDS, 0
    while asleep < _LOOKS and time.monotonic() < give_up and (threads := _threads(pid)):
        states = {_state(thread) for thread in threads - before}
        asleep = asleep + 1 if states == {"S"} else 0
        time.sleep(_LOOK_SECONDS)


def _state(thread: Path) -> str:
    """One letter, as in proc(5)."""
    try:
        return (thread / "stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def require_moving(moved_at: float) -> None:
    """Raises BackendFailed when nothing has moved since `moved_at` (monotonic) for too long."""
    if time.monotonic() - moved_at > _STALL_SECONDS:
        raise BackendFailed("QEMU's stream stands still", detail=f"nothing was written for {_STALL_SECONDS:g} s")


def end_stream(vm: Vm) -> None:
    """Let a background snapshot that nobody waits for come to its end; the next migration is an ordinary one.

    It is not cancelled: QEMU 7.2 then hangs, for nobody resolves the write faults of those who hold its lock.
    Converges.
    """
    last, moved_at = -1, time.monotonic()
    while (answer := vm.execute("query-migrate")).get("status") in _ACTIVE:
        done = int(answer.get("ram", {}).get("transferred", 0))
        if done != last:
            last, moved_at = done, time.monotonic()
        require_moving(moved_at)
        time.sleep(0.02)
    favour(vm, on=False)
    switch(vm, on=False)

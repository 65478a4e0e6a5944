"""VMs with a process: found, asked, started, ended. What the hypervisor and the suspension stand on."""

import os
import pwd
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from weakref import WeakValueDictionary

from torpor.adapters.qemu import command_line
from torpor.adapters.qemu.command_line import NETDEV, Incoming, Machine
from torpor.adapters.qemu.installed import Choice, InstalledQemu, choose_accelerator
from torpor.adapters.qemu.layout import InstanceFolder, Layout
from torpor.adapters.qemu.network import Tap
from torpor.adapters.qemu.process import Processes, QemuProcess, launch, log_tail
from torpor.adapters.qemu.qmp import DEFAULT_TIMEOUT, MonitorLost, Monitors
from torpor.adapters.qemu.ram import parse_address
from torpor.adapters.qemu.settings import QemuSettings
from torpor.domain.errors import BackendFailed, Conflict, InstanceGone, MissingPart, TimedOut
from torpor.domain.ids import InstanceId
from torpor.domain.instance import BackendState, InstanceSpec
from torpor.ports import BootImages

_START_SECONDS = 60.0
_DYING_SECONDS = 5.0
"""How long a QEMU that hangs up may take to be gone: it gives its memory back first."""
_STATES = {
    "running": BackendState.RUNNING,
    "paused": BackendState.PAUSED,
    "postmigrate": BackendState.PAUSED,
    "save-vm": BackendState.PAUSED,
    "finish-migrate": BackendState.PAUSED,
    "suspended": BackendState.RUNNING,
    "watchdog": BackendState.PAUSED,
    "debug": BackendState.PAUSED,
    "inmigrate": BackendState.LOADING,
    "prelaunch": BackendState.LOADING,
    "restore-vm": BackendState.LOADING,
    "shutdown": BackendState.SHUT_OFF,
    "guest-panicked": BackendState.SHUT_OFF,
    "io-error": BackendState.IO_ERROR,
    "internal-error": BackendState.IO_ERROR,
}


class Taps(Protocol):
    """The guests' network: one tap an instance."""

    def tap(self, instance: InstanceId, user: str) -> Tap:
        """The instance's tap, made and on the bridge. Converges."""
        ...

    def remove_tap(self, instance: InstanceId) -> None:
        """Converges."""
        ...


def backend_state(status: str) -> BackendState:
    """What QEMU's run state means to the engine."""
    return _STATES.get(status, BackendState.PAUSED)


@dataclass(frozen=True, slots=True)
class Vm:
    """An instance's process and its monitor."""

    folder: InstanceFolder
    process: QemuProcess
    monitors: Monitors

    def execute(
        self,
        command: str,
        arguments: Mapping[str, object] | None = None,
        *,
        timeout: float = DEFAULT_TIMEOUT,
        fd: int | None = None,
    ) -> Any:
        """QEMU's answer. Raises InstanceGone when the process is gone, CommandFailed, TimedOut, MonitorLost."""
        try:
            return self.monitors.execute(self.folder.qmp_socket, command, arguments, timeout=timeout, fd=fd)
        except MonitorLost as error:
            if self.process.wait_gone(_DYING_SECONDS):
                raise self.gone() from error
            raise

    def hmp(self, line: str) -> str:
        """The human monitor's answer, for what has no command of its own."""
        return str(self.execute("human-monitor-command", {"command-line": line}))

    def status(self, timeout: float = DEFAULT_TIMEOUT) -> str:
        """QEMU's run state."""
        return str(self.execute("query-status", timeout=timeout)["status"])

    def state(self) -> BackendState:
        return backend_state(self.status())

    def address_of(self, block: str, guest_address: int) -> int:
        """Where a guest's physical address lies in the process. Raises BackendFailed."""
        return parse_address(self.hmp(f"gpa2hva {guest_address:#x}"), block)

    def set_link(self, *, up: bool) -> None:
        """Plug the guest's network cable in, or pull it."""
        self.execute("set_link", {"name": NETDEV, "up": up})

    def gone(self) -> InstanceGone:
        return InstanceGone(
            f"the process of instance {self.folder.id} is gone",
            detail=log_tail(self.folder.qemu_log) or f"process {self.process.pid} ended by itself or was killed",
        )

    def end(self) -> None:
        """Kill it and wait until it is gone. Converges."""
        self.process.kill()
        self.monitors.forget(self.folder.qmp_socket)


class Vms:
    """Finds the VMs of one state directory, and starts them."""

    def __init__(
        self, settings: QemuSettings, layout: Layout, monitors: Monitors, images: BootImages, taps: Taps | None
    ) -> None:
        self.settings = settings
        self.layout = layout
        self.installed = InstalledQemu(settings.binary)
        self.monitors = monitors
        self._images = images
        self._taps = taps
        self._processes = Processes(layout)
        self._locks: WeakValueDictionary[InstanceId, threading.RLock] = WeakValueDictionary()
        self._guard = threading.Lock()

    def apart(self, settings: QemuSettings) -> "Vms":
        """VMs of another state directory, without network."""
        return Vms(settings, Layout(settings.state_dir), self.monitors, self._images, None)

    @contextmanager
    def exclusive(self, instance: InstanceId) -> Iterator[None]:
        """One change of an instance at a time."""
        with self._guard:
            lock = self._locks.setdefault(instance, threading.RLock())
        with lock:
            yield

    def find(self, instance: InstanceId) -> Vm | None:
        """The instance's VM, if it has a process."""
        process = self._processes.running().get(instance)
        return self._vm(instance, process) if process else None

    def require(self, instance: InstanceId) -> Vm:
        """Raises InstanceGone."""
        vm = self.find(instance)
        if vm is None:
            raise InstanceGone(f"instance {instance} has no process", remedy="resume it from its state, or run it anew")
        return vm

    def all(self) -> list[Vm]:
        return [self._vm(id, process) for id, process in self._processes.running().items()]

    def accelerator(self) -> Choice:
        return choose_accelerator(self.settings.accelerator)

    def machine(self, spec: InstanceSpec, type: str | None = None, reports_free_pages: bool | None = None) -> Machine:
        """The machine for an instance, as new or as it was started. Raises MissingPart, NotFound.

        A guest that reports free pages can't be restored lazily, so where that is wanted a new one does not.
        """
        chosen = type or self.installed.qemu().machine
        accelerator = self.accelerator().accelerator
        reports = self.settings.restore == "eager" if reports_free_pages is None else reports_free_pages
        return Machine(chosen, accelerator, spec, self._images.boot(spec.image), self._taps is not None, reports)

    def start(self, machine: Machine, incoming: Incoming | None) -> Vm:
        """A process for the instance, whose monitor answers. What fails leaves no process.

        Raises MissingPart, BackendFailed, TimedOut.
        """
        id = machine.spec.id
        folder = self.layout.instance(id)
        self.check_user()
        tap = self._taps.tap(id, self.settings.user) if self._taps else None
        for socket in folder.sockets:
            self.monitors.forget(socket)
            socket.unlink(missing_ok=True)
        arguments = command_line.command(
            machine, folder, self.installed.path(), self.settings.user, self.settings.tb_size_mb, tap, incoming
        )
        process = launch(arguments, folder.qemu_log)
        vm = self._vm(id, process)
        try:
            self._await_monitor(vm)
        except BaseException:
            vm.end()
            raise
        return vm

    def remove_tap(self, instance: InstanceId) -> None:
        if self._taps:
            self._taps.remove_tap(instance)

    def check_user(self) -> pwd.struct_passwd:
        """The user that QEMU runs as. Raises MissingPart."""
        try:
            return pwd.getpwnam(self.settings.user)
        except KeyError as error:
            raise MissingPart(
                f"user {self.settings.user} is not there",
                detail="QEMU runs as it",
                remedy=f"make it with 'useradd --system {self.settings.user}', or set qemu.user",
            ) from error

    def make_folders(self, folder: InstanceFolder) -> None:
        """Raises OSError."""
        account = self.check_user()
        self.layout.check()
        for path in (self.layout.state_dir, self.layout.instances_dir, folder.path):
            path.mkdir(mode=0o711, parents=True, exist_ok=True)
        folder.run.mkdir(mode=0o700, exist_ok=True)
        os.chown(folder.run, account.pw_uid, account.pw_gid)

    def _vm(self, instance: InstanceId, process: QemuProcess) -> Vm:
        return Vm(self.layout.instance(instance), process, self.monitors)

    def _await_monitor(self, vm: Vm) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            if not vm.process.alive():
                raise BackendFailed(
                    "QEMU did not start",
                    detail=log_tail(vm.folder.qemu_log) or "it said nothing",
                    remedy=f"see {vm.folder.qemu_log}",
                )
            if vm.folder.qmp_socket.exists():
                try:
                    vm.monitors.execute(vm.folder.qmp_socket, "query-status", timeout=_START_SECONDS)
                    return
                except MonitorLost:
                    pass  # not listening yet, or ending: the next round knows
            time.sleep(0.01)
        raise TimedOut(f"QEMU did not open its monitor within {_START_SECONDS:g} s")


def unable(spec_name: str, what: str, state: BackendState, remedy: str) -> Conflict:
    """The instance is not in a state in which this can be done."""
    return Conflict(f"instance {spec_name} can't {what}", detail=f"it is {state.value}", remedy=remedy)


def free_bytes(path: Path) -> int:
    """What is free for us on the file system that holds `path`, which may not be there yet."""
    while not path.exists():
        path = path.parent
    found = os.statvfs(path)
    return found.f_bavail * found.f_frsize

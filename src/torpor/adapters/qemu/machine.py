"""The life of VMs: implements the `Hypervisor` port."""

import os
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import psutil

from torpor.adapters.qemu import ram
from torpor.adapters.qemu.command_line import RAM
from torpor.adapters.qemu.disks import create_overlay
from torpor.adapters.qemu.layout import InstanceFolder
from torpor.adapters.qemu.process import QemuProcess
from torpor.adapters.qemu.spec_file import read_spec, write_spec
from torpor.adapters.qemu.state_files import StateFiles
from torpor.adapters.qemu.vms import Vm, Vms, backend_state, free_bytes, unable
from torpor.domain.capacity import Host, Resources
from torpor.domain.errors import BackendFailed, Conflict, TorporError
from torpor.domain.ids import InstanceId
from torpor.domain.instance import BackendState, InstanceSpec, Observation
from torpor.files import remove_tree, sync_folder, write_durably
from torpor.ports import Capabilities, Disk

_COUNT_SECONDS = 5.0
_OBSERVE_SECONDS = 0.5
_FORCE_SECONDS = 5.0
_DISK_SHARE = 0.9
_STANDING = (BackendState.PAUSED, BackendState.SHUT_OFF)


class SoftShutdown(Protocol):
    def shutdown(self, instance: InstanceId) -> None:
        """Ask the guest, through its agent, to power off; return at once. Raises BackendFailed."""
        ...


class QemuHypervisor:
    """VMs on this host, each a QEMU process of its own that outlives the daemon."""

    def __init__(
        self,
        vms: Vms,
        config_drive: Callable[[InstanceSpec], bytes],
        shutdown: SoftShutdown | None = None,
        guest_agent: bool = True,
    ) -> None:
        self._vms = vms
        self._config_drive = config_drive
        self._shutdown = shutdown
        self._guest_agent = guest_agent
        self._memory = _GuestMemory()

    def capabilities(self) -> Capabilities:
        return Capabilities(gang_pause=True, revert=True, guest_agent=self._guest_agent, snapshots=True, clones=True)

    def host(self) -> Host:
        settings = self._vms.settings
        vcpus = settings.vcpus or os.cpu_count() or 1
        memory = settings.memory_mb or max(0, (psutil.virtual_memory().total >> 20) - settings.reserve_mb)
        disk = settings.disk_mb or int(self._disk_bytes() * _DISK_SHARE) >> 20
        return Host(settings.host, Resources(vcpus, memory, disk))

    def observe(self) -> Mapping[InstanceId, Observation]:
        vms = self._vms.all()
        answers = self._vms.monitors.execute_on_all(
            [vm.folder.qmp_socket for vm in vms], "query-status", timeout=_OBSERVE_SECONDS
        )
        seen = {}
        for vm in vms:
            answer = answers.get(vm.folder.qmp_socket)
            state = backend_state(answer["status"]) if answer else _unheard(vm.process)
            if vm.process.alive():
                own = vm.process.own_memory()
                seen[vm.folder.id] = Observation(
                    state, self._memory.resident(vm, answer is not None, own), own, vm.process.pid
                )
        return seen

    def boot(self, spec: InstanceSpec) -> None:
        """Raises Conflict when it has a whole saved state, MissingPart, NotFound, Invalid, BackendFailed."""
        with self._vms.exclusive(spec.id):
            vm = self._vms.find(spec.id)
            if vm and self._runs_already(vm, spec):
                return
            self._refuse_whole_state(spec)
            folder = self._vms.layout.instance(spec.id)
            new = not folder.path.exists()
            try:
                self._prepare(spec, folder)
                self._vms.start(self._vms.machine(spec), None)
            except TorporError:
                self._clean_up(folder, new)
                raise
            except OSError as error:
                self._clean_up(folder, new)
                raise BackendFailed(
                    f"instance {spec.name} can't be started",
                    detail=f"{error.filename or folder.path}: {error.strerror}",
                    remedy="make state_dir writable and roomy",
                ) from error

    def pause(self, instance: InstanceId) -> None:
        with self._vms.exclusive(instance):
            vm = self._vms.require(instance)
            if to_pause(vm, vm.state()):
                vm.execute("stop")

    def run_on(self, instance: InstanceId) -> None:
        """Raises Conflict while its newest state is whole: it must be marked spent before."""
        with self._vms.exclusive(instance):
            vm = self._vms.require(instance)
            if to_run_on(vm, vm.state()):
                vm.execute("cont")
                announce(vm)

    def stop(self, instance: InstanceId, grace: float) -> None:
        with self._vms.exclusive(instance):
            vm = self._vms.find(instance)
            if vm is None:
                return
            if grace > 0:
                self._ask_politely(vm, grace)
            quit_or_kill(vm)
            self._memory.forget(instance)

    def erase(self, instance: InstanceId) -> None:
        with self._vms.exclusive(instance):
            vm = self._vms.find(instance)
            if vm:
                vm.end()
            self._vms.remove_tap(instance)
            self._memory.forget(instance)
            remove_tree(self._vms.layout.instance(instance).path)

    # Parts of the above

    def _disk_bytes(self) -> int:
        """What is free below the state directory, and what is ours already."""
        state_dir = self._vms.layout.state_dir
        return free_bytes(state_dir) + _used_bytes(state_dir)

    def _runs_already(self, vm: Vm, spec: InstanceSpec) -> bool:
        """Whether an earlier boot got this far; a guest that powered itself off is ended, to be booted anew."""
        state = vm.state()
        if state is BackendState.RUNNING:
            return True
        if state is BackendState.SHUT_OFF:
            vm.end()
            return False
        raise unable(spec.name, "be booted", state, "restore it, let it run on, or stop it")

    def _refuse_whole_state(self, spec: InstanceSpec) -> None:
        whole = StateFiles(self._vms.layout.instance(spec.id)).whole()
        if whole:
            raise Conflict(
                f"instance {spec.name} can't be booted",
                detail=f"its saved state {whole.number} would be lost",
                remedy="restore it, or delete the instance",
            )

    def _prepare(self, spec: InstanceSpec, folder: InstanceFolder) -> None:
        """Folder, config drive, disk: everything that a process needs, durable. Converges."""
        machine = self._vms.machine(spec)
        self._vms.make_folders(folder)
        prepare_seed(folder, self._config_drive(spec))
        if isinstance(machine.boot, Disk):
            create_overlay(folder.disk, machine.boot, spec.flavor.disk_mb, self._vms.settings.user)
        write_spec(folder.spec, spec)
        sync_folder(self._vms.layout.instances_dir)

    def _clean_up(self, folder: InstanceFolder, new: bool) -> None:
        if new:
            self._vms.remove_tap(folder.id)
            shutil.rmtree(folder.path, ignore_errors=True)

    def _ask_politely(self, vm: Vm, grace: float) -> None:
        """By ACPI and by the agent; guests differ in which they heed."""
        try:
            if vm.state() is not BackendState.RUNNING:
                return
            vm.execute("system_powerdown")
            if self._shutdown:
                self._ask_agent(vm.folder.id, self._shutdown)
            deadline = time.monotonic() + grace
            while time.monotonic() < deadline and vm.state() not in _STANDING:
                time.sleep(0.1)
        except TorporError:
            return  # by force, then

    @staticmethod
    def _ask_agent(instance: InstanceId, shutdown: SoftShutdown) -> None:
        try:
            shutdown.shutdown(instance)
        except TorporError:
            return


def to_pause(vm: Vm, state: BackendState) -> bool:
    """Whether it is still to be paused. Raises Conflict when it can't be."""
    if state is BackendState.LOADING:
        raise unable(vm.folder.id, "be paused", state, "restore it first")
    return state in (BackendState.RUNNING, BackendState.IO_ERROR)


def to_run_on(vm: Vm, state: BackendState) -> bool:
    """Whether it is still to be let run on. Raises Conflict when it can't be."""
    if state is BackendState.RUNNING:
        return False
    if state in (BackendState.LOADING, BackendState.SHUT_OFF):
        raise unable(vm.folder.id, "run on", state, "restore or boot it first")
    whole = StateFiles(vm.folder).whole()
    if whole:
        raise Conflict(
            f"instance {vm.folder.id} can't run on",
            detail=f"its saved state {whole.number} would be used up",
            remedy="mark it spent, or drop it, before",
        )
    return True


def prepare_seed(folder: InstanceFolder, image: bytes) -> None:
    """The config drive, written once: a restored guest must find the very same."""
    if not folder.seed.exists():
        write_durably(folder.seed, image, 0o444)


def quit_or_kill(vm: Vm) -> None:
    """End the process, its disk closed in order where it still listens. It is gone on return."""
    try:
        vm.execute("quit", timeout=_FORCE_SECONDS)
    except TorporError:
        pass  # what does not listen is killed
    else:
        vm.process.wait_gone(_FORCE_SECONDS)
    vm.end()


@dataclass(frozen=True, slots=True)
class _Count:
    """Bytes of guest memory that were there when the whole process had `own` bytes."""

    process: QemuProcess
    resident: int
    own: int
    at: float


class _GuestMemory:
    """How much of each guest's memory is on the host; remembers where it lies in the process.

    To count it the kernel walks all of the process's pages, so that is done now and then; in between, what the
    process has more or less than at the count is taken for the guest's.
    """

    def __init__(self) -> None:
        self._places: dict[InstanceId, tuple[QemuProcess, int, int]] = {}
        self._counts: dict[InstanceId, _Count] = {}
        self._lock = threading.Lock()

    def resident(self, vm: Vm, answers: bool, own: int) -> int:
        """Bytes; `own` is what the whole process has now."""
        place = self._place(vm, answers)
        if place is None:
            return 0
        with self._lock:
            last = self._counts.get(vm.folder.id)
        if last is None or last.process != vm.process or time.monotonic() - last.at > _COUNT_SECONDS:
            last = _Count(vm.process, ram.resident(vm.process.pid, *place), own, time.monotonic())
            with self._lock:
                self._counts[vm.folder.id] = last
        return min(place[1], max(0, last.resident + own - last.own))

    def forget(self, instance: InstanceId) -> None:
        with self._lock:
            self._places.pop(instance, None)
            self._counts.pop(instance, None)

    def _place(self, vm: Vm, answers: bool) -> tuple[int, int] | None:
        """(address, size), asked of QEMU once a process."""
        with self._lock:
            known = self._places.get(vm.folder.id)
        if known and known[0] == vm.process:
            return known[1:]
        if not answers:
            return None
        try:
            address = vm.address_of(RAM, 0)
            size = read_spec(vm.folder.spec).flavor.memory_mb << 20
        except TorporError:
            return None
        with self._lock:
            self._places[vm.folder.id] = (vm.process, address, size)
        return (address, size)


def _unheard(process: QemuProcess) -> BackendState:
    """What is assumed of a process whose monitor does not answer in time."""
    return BackendState.LOADING if process.incoming else BackendState.RUNNING


def announce(vm: Vm) -> None:
    """Let switches learn anew where the guest's MAC is. The guest runs whether or not this works."""
    try:
        vm.execute("announce-self", {"initial": 50, "max": 550, "rounds": 5, "step": 100})
    except TorporError:
        return


def _used_bytes(folder: Path) -> int:
    total = 0
    for path, _, names in os.walk(folder):
        for name in names:
            try:
                total += Path(path, name).lstat().st_blocks * 512
            except OSError:
                continue
    return total

"""What the backend needs of this host, found or missing: implements the `Diagnostics` port."""

import os
import subprocess
import tempfile
from collections.abc import Callable, Sequence

from torpor.adapters.qemu import ram
from torpor.adapters.qemu.background import userfaultfd
from torpor.adapters.qemu.command_line import FREE_PAGE_REPORTING
from torpor.adapters.qemu.self_test import run_self_test
from torpor.adapters.qemu.self_test_record import passed_here, record_result
from torpor.adapters.qemu.vms import Vms, free_bytes
from torpor.domain.errors import TorporError
from torpor.domain.instance import InstanceSpec, Mechanism
from torpor.ports import Check

_SELF_TEST = "save and restore"
_LITTLE_ROOM = 2 << 30


class QemuDiagnostics:
    """The embedded backend's part of `torpor doctor`."""

    def __init__(self, vms: Vms, config_drive: Callable[[InstanceSpec], bytes]) -> None:
        self._vms = vms
        self._config_drive = config_drive

    def checks(self) -> Sequence[Check]:
        tries: tuple[tuple[str, Callable[[], str]], ...] = (
            ("qemu", self._binary),
            ("accelerator", self._accelerator),
            ("qemu user", self._user),
            ("state_dir", self._state_dir),
            ("guest memory", self._memory_access),
            ("live snapshots", userfaultfd),
            ("restore", self._restore),
        )
        return (*(_try(name, find) for name, find in tries), self._mechanism())

    def self_test(self, progress: Callable[[str], None]) -> Check:
        try:
            qemu = self._vms.installed.qemu()
            accelerator = self._vms.accelerator().accelerator
            detail = run_self_test(self._vms, self._config_drive, progress)
            record_result(self._vms.layout.self_test, qemu.version, accelerator, True)
        except TorporError as error:
            self._record_failure()
            return Check(_SELF_TEST, False, str(error.problem.what) + _because(error), error.remedy)
        except OSError as error:
            return Check(_SELF_TEST, False, f"{error.filename}: {error.strerror}", "make state_dir writable")
        return Check(_SELF_TEST, True, detail)

    def _record_failure(self) -> None:
        try:
            qemu, accelerator = self._vms.installed.qemu(), self._vms.accelerator().accelerator
            record_result(self._vms.layout.self_test, qemu.version, accelerator, False)
        except (TorporError, OSError):
            return  # without a record the stream is used, as after a failure

    def _binary(self) -> str:
        qemu = self._vms.installed.qemu()
        return f"{self._vms.installed.path()}, version {qemu.version}, machine {qemu.machine}"

    def _accelerator(self) -> str:
        choice = self._vms.accelerator()
        return f"{choice.accelerator} ({choice.reason})"

    def _user(self) -> str:
        account = self._vms.check_user()
        return f"{account.pw_name}, uid {account.pw_uid}"

    def _state_dir(self) -> str:
        folder = self._vms.layout.state_dir
        self._vms.layout.check()
        folder.mkdir(mode=0o711, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
        free = free_bytes(folder)
        return f"{folder} is writable, {free >> 20} MiB free" + (", which is little" if free < _LITTLE_ROOM else "")

    def _restore(self) -> str:
        if self._vms.settings.restore == "eager":
            return "eager: all memory is read and verified before a guest runs on"
        reporting = sum(vm.process.was_told(FREE_PAGE_REPORTING) for vm in self._vms.all())
        kept = f"; {reporting} running guests were booted under `eager` and stay so until they are run anew"
        return "lazy: memory is read as it is touched" + (kept if reporting else "")

    @staticmethod
    def _memory_access() -> str:
        child = subprocess.Popen(["sleep", "60"])  # somebody else's memory, as QEMU's is
        try:
            os.close(ram.open_memory(child.pid, os.O_RDWR))
        finally:
            child.kill()
            child.wait()
        return "the memory of other processes can be opened"

    def _mechanism(self) -> Check:
        try:
            accelerator = self._vms.accelerator().accelerator
            version = self._vms.installed.qemu().version
        except TorporError as error:
            return Check(_SELF_TEST, False, error.what, error.remedy)
        if passed_here(self._vms.layout.self_test, version, accelerator):
            return Check(
                _SELF_TEST, True, "the self-test has passed with this QEMU and kernel; memory is saved directly"
            )
        remedy = "run 'torpor doctor --self-test'"
        if accelerator == "tcg":
            return Check(_SELF_TEST, True, "memory is saved directly; not yet tested on this host", remedy)
        return Check(_SELF_TEST, True, f"{Mechanism.STREAM}: the slower way, until the self-test has passed", remedy)


def _try(name: str, find: Callable[[], str]) -> Check:
    try:
        return Check(name, True, find())
    except TorporError as error:
        return Check(name, False, error.what + _because(error), error.remedy)
    except OSError as error:
        return Check(name, False, f"{error.filename}: {error.strerror}", "make it accessible to the daemon")


def _because(error: TorporError) -> str:
    return f": {error.detail}" if error.detail else ""

"""The QEMU that is installed here: its version, its machine types, and the accelerator that this host allows."""

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Literal

from torpor.domain.errors import MissingPart

_KVM = Path("/dev/kvm")


class Accelerator(StrEnum):
    KVM = "kvm"
    TCG = "tcg"


@dataclass(frozen=True, slots=True)
class Choice:
    accelerator: Accelerator
    reason: str


@dataclass(frozen=True, slots=True)
class Qemu:
    """What one QEMU binary is."""

    version: str
    machine: str
    """The newest versioned machine type: a saved state names it, so `pc`, which changes its meaning, won't do."""
    machines: frozenset[str]

    @property
    def series(self) -> str:
        """Major and minor version: what a saved state is bound to."""
        return ".".join(self.version.split(".")[:2])


class InstalledQemu:
    """Asks the binary once, and again when it was replaced."""

    def __init__(self, binary: str) -> None:
        self._binary = binary
        self._known: tuple[tuple[int, int, int], Qemu] | None = None

    def path(self) -> str:
        """Raises MissingPart."""
        found = shutil.which(self._binary)
        if found is None:
            raise MissingPart(
                f"{self._binary} is not there",
                detail="VMs need it",
                remedy="install qemu-system-x86, or set qemu.binary",
            )
        return found

    def qemu(self) -> Qemu:
        """Raises MissingPart."""
        path = self.path()
        status = Path(path).stat()
        key = (status.st_dev, status.st_ino, status.st_mtime_ns)
        if self._known is None or self._known[0] != key:
            self._known = (key, _ask(path))
        return self._known[1]


def choose_accelerator(
    setting: Literal["auto", "kvm", "tcg"], cpuinfo: Path = Path("/proc/cpuinfo"), kvm: Path = _KVM
) -> Choice:
    """KVM only where the CPU says that it can: a /dev/kvm that opens may still hang every guest.

    Raises MissingPart when KVM is demanded and not to be had.
    """
    if setting == "tcg":
        return Choice(Accelerator.TCG, "configured")
    obstacle = _kvm_obstacle(cpuinfo, kvm)
    if not obstacle:
        return Choice(Accelerator.KVM, "configured" if setting == "kvm" else "/dev/kvm opens, the CPU has vmx or svm")
    if setting == "kvm":
        raise MissingPart("KVM can't be used", detail=obstacle, remedy='set qemu.accelerator to "auto" or "tcg"')
    return Choice(Accelerator.TCG, obstacle)


def host_cpu(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """What a guest with the host's CPU can't do without: model and flags."""
    text = cpuinfo.read_text()
    wanted = (re.search(rf"^{field}\s*:\s*(.*)$", text, re.MULTILINE) for field in ("model name", "flags"))
    return " / ".join(match.group(1) for match in wanted if match)


def _kvm_obstacle(cpuinfo: Path, kvm: Path) -> str:
    try:
        os.close(os.open(kvm, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        return f"/dev/kvm does not open: {error.strerror}"
    flags = re.search(r"^flags\s*:\s*(.*)$", cpuinfo.read_text(), re.MULTILINE)
    if flags is None or not {"vmx", "svm"} & set(flags.group(1).split()):
        return "/dev/kvm opens, but the CPU has neither vmx nor svm"
    return ""


def _ask(path: str) -> Qemu:
    version = re.search(r"version (\d+\.\d+(?:\.\d+)?)", _output(path, "--version"))
    listing = _output(path, "-machine", "help")
    alias = re.search(r"\(alias of (pc-i440fx-[\w.]+)\)", listing)
    if version is None or alias is None:
        raise MissingPart(
            f"{path} can't be used",
            detail="it does not name its version or has no pc-i440fx machine",
            remedy="install qemu-system-x86",
        )
    machines = frozenset(re.findall(r"^(pc-i440fx-[\w.]+)", listing, re.MULTILINE))
    return Qemu(version.group(1), alias.group(1), machines | {alias.group(1)})


def _output(path: str, *arguments: str) -> str:
    try:
        return subprocess.run(
            [path, *arguments], capture_output=True, text=True, timeout=30, check=True, stdin=subprocess.DEVNULL
        ).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise MissingPart(f"{path} does not run", detail=str(error), remedy="install qemu-system-x86") from error

"""Whether domains of Torpor's making use KVM."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torpor.domain.errors import MissingPart


@dataclass(frozen=True, slots=True)
class Choice:
    type: Literal["kvm", "qemu"]
    """As libvirt calls it: `qemu` is TCG."""
    reason: str


def choose(setting: Literal["auto", "kvm", "tcg"], offered: bool, cpuinfo: Path = Path("/proc/cpuinfo")) -> Choice:
    """KVM only where libvirt offers it and the CPU says that it can: a /dev/kvm that opens may still hang every guest.

    Raises MissingPart when KVM is demanded and not to be had.
    """
    if setting == "tcg":
        return Choice("qemu", "configured")
    flags = re.search(r"^flags\s*:\s*(.*)$", cpuinfo.read_text(), re.MULTILINE)
    able = flags is not None and bool({"vmx", "svm"} & set(flags.group(1).split()))
    if offered and able:
        return Choice("kvm", "libvirt offers it, the CPU has vmx or svm")
    obstacle = "the CPU has neither vmx nor svm" if offered else "libvirt does not offer it on this host"
    if setting == "kvm":
        raise MissingPart("KVM can't be used", detail=obstacle, remedy='set libvirt.accelerator to "auto" or "tcg"')
    return Choice("qemu", obstacle)

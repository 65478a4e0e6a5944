"""What a suspension of a VM would have to move, judged by a sample of its pages while it runs."""

import os
import time
from dataclasses import dataclass

import numpy as np

from torpor.adapters.qemu.disk_speed import DiskSpeed
from torpor.adapters.qemu.memory import GuestMemory
from torpor.adapters.qemu.origin import DELTA_SHARE, MEMORY, Origin, look, open_ram
from torpor.adapters.qemu.pages import Mask, hashes_of
from torpor.adapters.qemu.process import QemuProcess
from torpor.adapters.qemu.ram import PAGE
from torpor.adapters.qemu.state_files import StateFiles
from torpor.adapters.qemu.vms import Vm
from torpor.domain.errors import TorporError
from torpor.domain.ids import InstanceId

_SAMPLE = 512
"""Pages. The error of a share of a half is then about 2 %."""
_READ_RATE = 1.5e9
"""Bytes a second at which memory is read and hashed, measured on two cores of 2023."""
_FRESH_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class _Estimate:
    process: QemuProcess
    num_bytes: int
    at: float


class Estimates:
    """Remembered for some seconds: to look again costs some milliseconds a gigabyte."""

    def __init__(self, speed: DiskSpeed) -> None:
        self._speed = speed
        self._known: dict[InstanceId, _Estimate] = {}

    def to_write(self, vm: Vm) -> int:
        """Bytes whose writing takes as long as the suspension's reading and writing of memory.

        Of a VM that can't be asked it is all that its process has: a plan must not fail because one QEMU hangs.
        """
        id = vm.folder.id
        known = self._known.get(id)
        if known is None or known.process != vm.process or time.monotonic() - known.at > _FRESH_SECONDS:
            try:
                num_bytes = self._look(vm)
            except TorporError:
                num_bytes = vm.process.own_memory()
            known = self._known[id] = _Estimate(vm.process, num_bytes, time.monotonic())
        return known.num_bytes

    def _look(self, vm: Vm) -> int:
        with open_ram(vm, MEMORY, os.O_RDONLY) as source:
            origin, own, there = look(vm, source, StateFiles(vm.folder).all())
            pages = _pages(source, origin, own, there)
        read = int(own.sum()) * PAGE * min(1.0, self._speed.write_rate() / _READ_RATE)
        return int(pages * PAGE + read)


def worth_a_delta(source: GuestMemory, origin: Origin, own: Mask) -> bool:
    """Whether so little has changed, as far as a sample can tell, that only that is to be written."""
    limit = _limit(origin)
    return int(own.sum()) <= limit or _changed(source, origin, own) <= limit


def _pages(source: GuestMemory, origin: Origin | None, own: Mask, there: Mask) -> float:
    """Pages that would be written."""
    if origin:
        changed = _changed(source, origin, own)
        if changed <= _limit(origin):
            return changed
    return _share(source, there, None) * int(there.sum())


def _changed(source: GuestMemory, origin: Origin, own: Mask) -> float:
    return _share(source, own, origin) * int(own.sum())


def _limit(origin: Origin) -> float:
    return int(origin.table.listed().sum()) * DELTA_SHARE


def _share(source: GuestMemory, among: Mask, origin: Origin | None) -> float:
    """How many of the pages differ from the origin's; without one, from zeros. 0 to 1."""
    numbers = np.flatnonzero(among).astype(np.uint32)
    chosen = numbers[:: max(1, len(numbers) // _SAMPLE)]
    if not len(chosen):
        return 0.0
    found = hashes_of(source.gather(chosen, memoryview(bytearray(len(chosen) * PAGE))))
    differing = origin.table.differing(chosen, found) if origin else found.any(axis=1)
    return float(differing.mean())

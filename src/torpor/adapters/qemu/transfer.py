"""A paused VM into the parts of a saved state, and those parts into a waiting QEMU."""

import os
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from torpor.adapters.qemu import memory, ram
from torpor.adapters.qemu.command_line import RAM
from torpor.adapters.qemu.disks import sync_file
from torpor.adapters.qemu.ram import Region
from torpor.adapters.qemu.state_files import Generation, Manifest
from torpor.adapters.qemu.stream import check_stream
from torpor.adapters.qemu.vms import Vm
from torpor.domain.errors import BackendFailed, InstanceGone, NoRoomForState, StateDamaged, TorporError
from torpor.domain.instance import Mechanism
from torpor.ports import Progress

_SAVED = {RAM: 0, "pc.bios": 0xFFFC0000}
"""RAM blocks whose contents a state holds, and where the guest has them."""
_REMADE = frozenset({"pc.rom", "/rom@etc/acpi/tables", "/rom@etc/table-loader", "/rom@etc/acpi/rsdp"})
"""RAM blocks that every QEMU fills by itself, with the same."""
_REMADE_PREFIX = "/rom@genroms/"
_DEVICE_SECONDS = 60.0
_INCOMING_SECONDS = 120.0
_FDSET = 1
_INCOMING = "torpor-incoming"


@dataclass(frozen=True, slots=True)
class Written:
    """What a manifest says of the memory and device state that were written."""

    pieces: tuple[memory.Sealed, ...]
    placed: tuple[tuple[str, int, int], ...]
    device_checksum: str
    memory_bytes: int


def blocks(vm: Vm) -> Mapping[str, int]:
    """The VM's RAM blocks and their sizes in bytes."""
    return ram.parse_blocks(vm.hmp("info ramblock"))


def unknown_blocks(found: Mapping[str, int]) -> set[str]:
    """RAM blocks whose contents would be lost, were memory saved from outside."""
    return {b for b in found if b not in _SAVED and b not in _REMADE and not b.startswith(_REMADE_PREFIX)}


def write_parts(vm: Vm, state: Generation, threads: int, progress: Progress) -> Written:
    """Write memory and device state of a paused VM, durable on return.

    Raises NoRoomForState, InstanceGone, BackendFailed, OSError of the files'.
    """
    sizes = blocks(vm)
    placed = _place(sizes)
    regions = [Region(name, offset, size, vm.address_of(name, _SAVED[name])) for name, offset, size in placed]
    try:
        extents = [e for r in regions for e in ram.extents_of(vm.process.pid, r, memory.GAP, memory.LARGEST)]
    except (FileNotFoundError, ProcessLookupError) as error:
        raise vm.gone() from error
    total = sum(e.size for e in extents)
    require_room(state.path, total)
    device = _write_device(vm, state.device)
    pieces = memory.copy_out(vm.process.pid, regions, extents, state.memory, threads, progress)
    return Written(tuple(pieces), placed, device, total)


def load_parts(vm: Vm, state: Generation, manifest: Manifest, threads: int, progress: Progress) -> None:
    """Fill a waiting QEMU; afterwards it is paused where the saved VM was. Nothing unverified is loaded.

    Raises StateDamaged, BackendFailed, InstanceGone, OSError of the files'.
    """
    if manifest.mechanism is Mechanism.STREAM:
        check_stream(state.stream, manifest.device_checksum, progress)
        _take_in(vm, state.stream)
        return
    device = state.device.read_bytes()
    if memory.checksum(device) != manifest.device_checksum:
        raise StateDamaged(
            "the saved device state is damaged",
            detail=f"{state.device} does not match its checksum",
            remedy="bring the file back from a backup, or delete the workload",
        )
    _compare_blocks(blocks(vm), manifest)
    regions = [Region(name, at, size, vm.address_of(name, _SAVED[name])) for name, at, size in manifest.placed]
    memory.copy_in(vm.process.pid, regions, manifest.pieces, state.memory, threads, progress)
    _take_in(vm, state.device)


def require_room(folder: Path, needed: int) -> None:
    """Raises NoRoomForState before anything is written that would not fit."""
    found = os.statvfs(folder)
    free = found.f_bavail * found.f_frsize
    if free < needed:
        raise NoRoomForState(
            "the state has no room on the disk",
            detail=f"it takes {needed >> 20} MiB, {free >> 20} MiB are free below state_dir",
            remedy="make room below state_dir",
        )


def _place(sizes: Mapping[str, int]) -> tuple[tuple[str, int, int], ...]:
    """(RAM block, offset in the memory file, size), guest memory first."""
    placed, offset = [], 0
    for name in _SAVED:
        placed.append((name, offset, sizes[name]))
        offset += sizes[name]
    return tuple(placed)


def _write_device(vm: Vm, path: Path) -> str:
    """Every device's and CPU's state, no RAM; its checksum. QEMU gets an open file, for the folder is root's."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        vm.execute("add-fd", {"fdset-id": _FDSET}, fd=fd)
    finally:
        os.close(fd)
    try:
        # live=False: else QEMU gives its disks up, and could not run on.
        arguments = {"filename": f"/dev/fdset/{_FDSET}", "live": False}
        vm.execute("xen-save-devices-state", arguments, timeout=_DEVICE_SECONDS)
    finally:
        with suppress(TorporError):
            vm.execute("remove-fd", {"fdset-id": _FDSET})
    sync_file(path)
    return memory.checksum(path.read_bytes())


def _compare_blocks(found: Mapping[str, int], manifest: Manifest) -> None:
    if dict(found) != manifest.blocks:
        differing = sorted(set(found.items()) ^ set(manifest.blocks.items()))
        raise StateDamaged(
            "the saved state does not fit this QEMU",
            detail=f"RAM block {differing[0][0]} has another size than when it was saved",
            remedy="install the QEMU that it was saved with",
        )


def _take_in(vm: Vm, path: Path) -> None:
    """Let the waiting QEMU load this file."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        vm.execute("getfd", {"fdname": _INCOMING}, fd=fd)
    finally:
        os.close(fd)
    try:
        vm.execute("migrate-incoming", {"uri": f"fd:{_INCOMING}"})
        _await_loaded(vm)
    except InstanceGone as error:
        raise BackendFailed("QEMU could not take up the saved state", detail=error.detail) from error


def _await_loaded(vm: Vm) -> None:
    deadline = time.monotonic() + _INCOMING_SECONDS
    while time.monotonic() < deadline:
        status = vm.status()
        if status == "paused":
            return
        if status != "inmigrate":
            raise BackendFailed("QEMU could not take up the saved state", detail=f"it is {status} afterwards")
        time.sleep(0.01)
    raise BackendFailed(f"QEMU did not take up the saved state within {_INCOMING_SECONDS:g} s")

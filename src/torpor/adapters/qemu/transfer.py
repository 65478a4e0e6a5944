"""A paused VM into the parts of a saved state, and those parts into a waiting QEMU."""

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from torpor.adapters.qemu import codec, packed, sparse
from torpor.adapters.qemu.codec import Packing
from torpor.adapters.qemu.command_line import reports_free_pages
from torpor.adapters.qemu.disk_speed import DiskSpeed
from torpor.adapters.qemu.disks import sync_file
from torpor.adapters.qemu.estimate import worth_a_delta
from torpor.adapters.qemu.memory import GAP, RUN, GuestMemory
from torpor.adapters.qemu.origin import DELTA, DELTA_SHARE, FIRMWARE, MEMORY, Origin, blocks, look, open_ram
from torpor.adapters.qemu.packed import EMPTY, TooMuchChanged
from torpor.adapters.qemu.pages import (
    Mask,
    Numbers,
    PageIndex,
    Table,
    checksum,
    read_index,
    runs,
    table_of,
    write_index,
)
from torpor.adapters.qemu.ram import PAGE
from torpor.adapters.qemu.state_files import Generation, Manifest, Part
from torpor.adapters.qemu.stream import check_stream
from torpor.adapters.qemu.vms import Vm
from torpor.domain.errors import BackendFailed, InstanceGone, NoRoomForState, StateDamaged, TimedOut, TorporError
from torpor.domain.instance import Codec, Mechanism
from torpor.ports import Progress

_SAMPLES, _SAMPLE_PAGES = 32, 16
_DEVICE_SECONDS = 60.0
_STALL_SECONDS = 120.0
_LOOK_SECONDS = 1.0
_FDSET = 1
_INCOMING = "torpor-incoming"


@dataclass(frozen=True, slots=True)
class Saving:
    """How memory is written and read."""

    threads: int
    packing: Packing | None
    """None: whichever is soonest done with this memory on this disk."""
    speed: DiskSpeed


@dataclass(frozen=True, slots=True)
class Written:
    """What a manifest says of the memory and device state that were written."""

    parts: dict[str, Part]
    base: int | None
    device_checksum: str
    memory_bytes: int
    written_bytes: int


@dataclass(frozen=True, slots=True)
class _Job:
    """One save of a VM's memory."""

    source: GuestMemory
    state: Generation
    packing: Packing
    threads: int
    progress: Progress


@dataclass(frozen=True, slots=True)
class _Saved:
    """Guest memory, written."""

    parts: dict[str, Part]
    base: int | None
    pages: int
    """That are not zero."""
    room: int
    """Bytes on disk of what was written now."""


def write_parts(vm: Vm, state: Generation, older: Sequence[Generation], how: Saving, progress: Progress) -> Written:
    """Write memory and device state of a paused VM, durable on return.

    Of a VM that was restored from one of the `older` states only what changed since is written.
    Raises NoRoomForState, InstanceGone, BackendFailed, OSError of the files'.
    """
    with open_ram(vm, MEMORY, os.O_RDONLY) as source:
        origin, own, there = look(vm, source, older)
        require_room(state.path, int(there.sum()) * PAGE)
        device, firmware = _write_device(vm, state.device), _write_firmware(vm, state)
        job = _Job(source, state, how.packing or _choose(source, there, how), how.threads, progress)
        delta = _write_delta(job, origin, own, there) if origin and worth_a_delta(source, origin, own) else None
        saved = delta or _write_whole(job, there, how.speed)
    parts = {FIRMWARE: firmware, **saved.parts}
    return Written(parts, saved.base, device, saved.pages * PAGE, saved.room)


def load_parts(vm: Vm, state: Generation, manifest: Manifest, mapped: bool, threads: int, progress: Progress) -> None:
    """Fill a waiting QEMU; afterwards it is paused where the saved VM was. Nothing unverified is loaded.

    `mapped`: it maps the part `memory` already.
    Raises StateDamaged, BackendFailed, InstanceGone, OSError of the files'.
    """
    _compare_blocks(blocks(vm), manifest)
    if manifest.mechanism is Mechanism.STREAM:
        check_stream(state.stream, manifest.device_checksum, progress)
        _take_in(vm, state.stream, lambda done, total: progress((total + done) // 2, total))
        return
    _check_device(state, manifest)
    wanted = {name: part for name, part in manifest.parts.items() if not (mapped and name == MEMORY)}
    for name, part, told in _in_turn(wanted, progress):
        index = read_index(state.index(name), part.index_checksum)
        if mapped and name == DELTA:
            sparse.read_ahead(index.numbers, state.part(MEMORY))
        with open_ram(vm, name, os.O_RDWR) as target:
            if part.packed:
                packed.load(target, index, part.codec, state.part(name), threads, told)
            else:
                sparse.load(target, index, state.part(name), threads, told)
    _take_in(vm, state.device)


def check_parts(state: Generation, manifest: Manifest, progress: Progress) -> None:
    """Read every byte of a state and compare it with its checksums. Raises StateDamaged, OSError."""
    if manifest.mechanism is Mechanism.STREAM:
        check_stream(state.stream, manifest.device_checksum, progress)
        return
    _check_device(state, manifest)
    for name, part, told in _in_turn(manifest.parts, progress):
        index = read_index(state.index(name), part.index_checksum)
        if part.packed:
            packed.check(index, part.codec, state.part(name), told)
        else:
            sparse.check(index, state.part(name), told)


def mappable(manifest: Manifest) -> bool:
    """Whether a guest may run on the saved memory itself, its pages read as they are touched.

    Not where the guest reports free pages: QEMU would punch them out of the file (seen with QEMU 7.2).
    """
    part = manifest.parts.get(MEMORY)
    return part is not None and not part.packed and not reports_free_pages(manifest.arguments)


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


def _write_delta(job: _Job, origin: Origin, own: Mask, there: Mask) -> _Saved | None:
    """What differs from the origin, whose memory is shared. None when that is too much."""
    listed = origin.table.listed()
    gone = _numbers(listed & ~there)
    try:
        index = _packed(job, DELTA, _numbers(own), origin.table, gone, int(listed.sum() * DELTA_SHARE))
    except TooMuchChanged:
        job.state.part(DELTA).unlink()
        return None
    job.state.take_over(origin.state, MEMORY)
    listed[index.zeros] = False
    listed[index.numbers] = True
    parts = {MEMORY: origin.part, DELTA: _part(job, DELTA, index, packed=True)}
    return _Saved(parts, origin.base, int(listed.sum()), _room(job.state, DELTA))


def _write_whole(job: _Job, there: Mask, speed: DiskSpeed) -> _Saved:
    began = time.monotonic()
    plain = job.packing.codec is Codec.NONE
    if not plain:
        nothing = table_of(job.source.pages, EMPTY)
        index = _packed(job, MEMORY, _numbers(there), nothing, EMPTY.numbers, None)
    else:
        wanted = list(runs(there, GAP, RUN))
        index = sparse.save(job.source, wanted, job.state.part(MEMORY), job.threads, job.progress)
        speed.learn(index.num_bytes, time.monotonic() - began)
    parts = {MEMORY: _part(job, MEMORY, index, packed=not plain)}
    return _Saved(parts, None, len(index.numbers), _room(job.state, MEMORY))


def _write_firmware(vm: Vm, state: Generation) -> Part:
    with open_ram(vm, FIRMWARE, os.O_RDONLY) as source:
        job = _Job(source, state, Packing(Codec.NONE), 1, _ignore)
        all_of_it, nothing = np.arange(source.pages, dtype=np.uint32), table_of(source.pages, EMPTY)
        return _part(job, FIRMWARE, _packed(job, FIRMWARE, all_of_it, nothing, EMPTY.numbers, None), packed=True)


def _packed(job: _Job, name: str, wanted: Numbers, base: Table, gone: Numbers, limit: int | None) -> PageIndex:
    return packed.save(
        job.source, wanted, base, gone, limit, job.packing, job.state.part(name), job.threads, job.progress
    )


def _numbers(chosen: Mask) -> Numbers:
    return np.flatnonzero(chosen).astype(np.uint32)


def _part(job: _Job, name: str, index: PageIndex, *, packed: bool) -> Part:
    digest = write_index(job.state.index(name), index)
    return Part(packed, job.packing.codec, digest, index.num_bytes)


def _choose(source: GuestMemory, there: Mask, how: Saving) -> Packing:
    """By samples of the memory that is to be written."""
    numbers = np.flatnonzero(there[: source.pages - _SAMPLE_PAGES])
    samples = []
    for page in numbers[:: max(1, len(numbers) // _SAMPLES)][:_SAMPLES].tolist():
        sample = memoryview(bytearray(_SAMPLE_PAGES * PAGE))
        source.read(page, sample)
        samples.append(bytes(sample))
    return codec.choose(samples, how.speed.write_rate(), os.cpu_count() or 1)


def _room(state: Generation, name: str) -> int:
    return sum(p.stat().st_blocks * 512 for p in (state.part(name), state.index(name)))


def _in_turn(parts: Mapping[str, Part], progress: Progress) -> Iterator[tuple[str, Part, Progress]]:
    """The parts, each with a progress that goes on where that of the one before ended."""
    total, before = sum(part.num_bytes for part in parts.values()), 0
    for name, part in parts.items():

        def told(done: int, _: int, before: int = before) -> None:
            progress(min(before + done, total), total)

        yield name, part, told
        before += part.num_bytes


def _ignore(done: int, total: int) -> None:
    """What takes no time."""


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
    return checksum(path.read_bytes())


def _check_device(state: Generation, manifest: Manifest) -> None:
    if not state.device.exists() or checksum(state.device.read_bytes()) != manifest.device_checksum:
        raise StateDamaged(
            "the saved device state is damaged",
            detail=f"{state.device} does not match its checksum",
            remedy="bring the file back from a backup, or delete the workload",
        )


def _compare_blocks(found: Mapping[str, int], manifest: Manifest) -> None:
    if dict(found) != manifest.blocks:
        differing = sorted(set(found.items()) ^ set(manifest.blocks.items()))
        raise StateDamaged(
            "the saved state does not fit this QEMU",
            detail=f"RAM block {differing[0][0]} has another size than when it was saved",
            remedy="install the QEMU that it was saved with",
        )


def _take_in(vm: Vm, path: Path, progress: Progress = lambda done, total: None) -> None:
    """Let the waiting QEMU load this file."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        vm.execute("getfd", {"fdname": _INCOMING}, fd=fd)
        vm.execute("migrate-incoming", {"uri": f"fd:{_INCOMING}"})
        _await_loaded(vm, fd, progress)
    except InstanceGone as error:
        raise BackendFailed("QEMU could not take up the saved state", detail=error.detail) from error
    finally:
        os.close(fd)


def _await_loaded(vm: Vm, fd: int, progress: Progress) -> None:
    """QEMU answers nobody while it loads guest memory, but it moves the file offset that it shares with us."""
    size, at, moved_at = os.fstat(fd).st_size, -1, time.monotonic()
    while True:
        with suppress(TimedOut):
            status = vm.status(_LOOK_SECONDS)
            if status == "paused":
                return
            if status != "inmigrate":
                raise BackendFailed("QEMU could not take up the saved state", detail=f"it is {status} afterwards")
        last, at = at, os.lseek(fd, 0, os.SEEK_CUR)
        if at != last:
            moved_at = time.monotonic()
            progress(at, size)
        elif time.monotonic() - moved_at > _STALL_SECONDS:
            raise BackendFailed(
                "QEMU does not take up the saved state", detail=f"it has read nothing for {_STALL_SECONDS:g} s"
            )
        time.sleep(0.01)

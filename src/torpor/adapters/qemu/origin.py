"""A VM's guest memory: its RAM blocks, which of its pages there are, and the state that they were restored from."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from torpor.adapters.qemu import ram
from torpor.adapters.qemu.command_line import RAM
from torpor.adapters.qemu.memory import GuestMemory, guest_memory
from torpor.adapters.qemu.pages import Mask, Table, read_index, table_of
from torpor.adapters.qemu.ram import Region
from torpor.adapters.qemu.state_files import Generation, Part
from torpor.adapters.qemu.vms import Vm
from torpor.domain.errors import StateDamaged

MEMORY, FIRMWARE, DELTA = "memory", "firmware", "delta"
"""Parts of a state: guest memory, or that of the state that this one differs from; the BIOS; what differs."""
_BLOCKS = {MEMORY: RAM, FIRMWARE: "pc.bios", DELTA: RAM}
_ADDRESSES = {RAM: 0, "pc.bios": 0xFFFC0000}
"""RAM blocks whose contents a state holds, and where the guest has them."""
_REMADE = frozenset({"pc.rom", "/rom@etc/acpi/tables", "/rom@etc/table-loader", "/rom@etc/acpi/rsdp"})
"""RAM blocks that every QEMU fills by itself, with the same."""
_REMADE_PREFIX = "/rom@genroms/"
DELTA_SHARE = 0.5
"""A delta may have this share of the memory's pages. Above it the memory is written anew: it costs little more then,
and the next delta is small again."""


@dataclass(frozen=True, slots=True)
class Origin:
    """The state that a process was restored from, with which it shares most of its memory."""

    state: Generation
    base: int
    """The generation that wrote the part `memory`."""
    part: Part
    table: Table


def blocks(vm: Vm) -> Mapping[str, int]:
    """The VM's RAM blocks and their sizes in bytes."""
    return ram.parse_blocks(vm.hmp("info ramblock"))


def unknown_blocks(found: Mapping[str, int]) -> set[str]:
    """RAM blocks whose contents would be lost, were memory saved from outside."""
    return {b for b in found if b not in _ADDRESSES and b not in _REMADE and not b.startswith(_REMADE_PREFIX)}


def is_mapped(vm: Vm) -> bool:
    """Whether the VM's memory is a file's, read as it is touched. Raises InstanceGone."""
    try:
        return ram.mapped_file(vm.process.pid, vm.address_of(RAM, 0)) is not None
    except (FileNotFoundError, ProcessLookupError) as error:
        raise vm.gone() from error


@contextmanager
def open_ram(vm: Vm, part: str, flags: int) -> Iterator[GuestMemory]:
    """The RAM block that this part is of."""
    block = _BLOCKS[part]
    region = Region(block, blocks(vm)[block], vm.address_of(block, _ADDRESSES[block]))
    with guest_memory(vm.process.pid, region, flags) as opened:
        yield opened


def look(vm: Vm, source: GuestMemory, older: Sequence[Generation]) -> tuple[Origin | None, Mask, Mask]:
    """Where the memory comes from; the pages that are the process's own; those that may not be zero.

    Raises InstanceGone.
    """
    try:
        return _look(vm, source, older)
    except (FileNotFoundError, ProcessLookupError) as error:
        raise vm.gone() from error


def _look(vm: Vm, source: GuestMemory, older: Sequence[Generation]) -> tuple[Origin | None, Mask, Mask]:
    pid, region = vm.process.pid, source.region
    file = ram.mapped_file(pid, region.address)
    origin = _origin(older, file, source.pages) if vm.process.incoming else None
    own = ram.private(pid, region)
    if file is None:
        return origin, own, own
    return origin, own, own | origin.table.listed() if origin else np.ones(source.pages, np.bool_)


def _origin(older: Sequence[Generation], file: tuple[int, int] | None, pages: int) -> Origin | None:
    """Of the file that the process maps; else the newest: what is the same in it is found by its contents.

    None where that state can't be relied on any more: all is written anew then.
    """
    for state in older:
        try:
            manifest = state.manifest()
            part = manifest.parts.get(MEMORY)
            if part is None or (file is not None and _identity(state.part(MEMORY)) != file):
                continue
            table = table_of(pages, read_index(state.index(MEMORY), part.index_checksum))
            return Origin(state, manifest.base or state.number, part, table)
        except (StateDamaged, FileNotFoundError):
            continue
    return None


def _identity(path: Path) -> tuple[int, int]:
    found = path.stat()
    return (found.st_dev, found.st_ino)

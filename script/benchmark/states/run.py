"""The rounds: every contender once, then all of them again, guest by guest."""

import os
import shutil
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmark.states import host_memory
from benchmark.states.bit_flips import Flips, flip_bits
from benchmark.states.contender import Bench, Contender, Turn
from benchmark.states.disk import Disk, RandomBytes
from benchmark.states.gang import measure_gang
from benchmark.states.guest_image import make_guest_image
from benchmark.states.libvirt_vm import LibvirtVm
from benchmark.states.plain_vm import PlainVm
from benchmark.states.record import Cell, Record
from benchmark.states.running import measure_running_costs
from benchmark.states.torpor_vm import TorporVm
from torpor.domain.instance import Codec

CONTENDERS = ("torpor", "virsh", "qemu", "dd")
PARTS = (*CONTENDERS, "running", "gang", "flips")
Say = Callable[[str], None]


@dataclass(frozen=True)
class Options:
    sizes: Sequence[int] = (512, 1024, 2048, 4096)
    """MiB."""
    fills: Sequence[int] = (20, 80)
    """Per cent."""
    repeat: int = 5
    only: Sequence[str] = PARTS
    codecs: Sequence[Codec] = (Codec.LZ4, Codec.ZSTD, Codec.NONE)
    formats: Sequence[str] = ("lzop",)
    """Of `virsh save`, beside raw."""
    packed_up_to: int = 1024
    """MiB: larger guests are not packed. What packing costs and gains shows in the small ones."""
    flips: int = 1000
    folder: Path = Path("/var/tmp")
    ready_memory: bool = False

    @property
    def cells(self) -> list[Cell]:
        """Those first that the summary speaks of: so a run that is stopped has something to say."""
        *others, largest = sorted(self.sizes)
        sizes = [largest, *others]
        return [Cell(size, fill) for fill in sorted(self.fills, reverse=True) for size in sizes]

    def packs(self, cell: Cell) -> bool:
        return cell.memory_mb <= self.packed_up_to


@dataclass
class Run:
    """What came of it."""

    record: Record = field(default_factory=Record)
    flips: Flips | None = None
    failures: list[str] = field(default_factory=list)
    gang: Record = field(default_factory=Record)
    memory: dict[str, float] = field(default_factory=dict)
    """How fast this machine's own memory is."""


def run(options: Options, done: Run, say: Say) -> None:
    """Measure into `done`. What fails is noted, and left out of the rest of its cell."""
    with _folder(options.folder) as folder:
        done.memory = host_memory.speed()
        say(f"everything is written below {folder}, on one disk ({_device(folder)})")
        bench = Bench(folder, make_guest_image(folder), done.record, options.repeat, options.ready_memory)
        if "flips" in options.only:
            _flips(bench, options, done, say)
        if "gang" in options.only:
            _gang(bench, options, done, say)
        source = RandomBytes(folder.name)
        try:
            for cell in options.cells:
                _cell(bench, cell, options, source, done, say)
        finally:
            source.remove()


def _cell(bench: Bench, cell: Cell, options: Options, source: RandomBytes, done: Run, say: Say) -> None:
    if "running" in options.only and cell == options.cells[0]:
        _running(bench, cell, done, say)
    contenders: dict[str, Contender] = {}
    try:
        for name in CONTENDERS:
            if name in options.only:
                with _noted(f"{cell}: {name}", done, say):
                    contenders[name] = _make(name, bench, cell, options, source, contenders)
        for number in range(options.repeat):
            for name in list(contenders):
                turn = Turn(done.record, cell, number)
                began = time.monotonic()
                with _noted(f"{cell}, round {number + 1}: {name}", done, say) as noted:
                    contenders[name].take_turn(turn)
                taken = time.monotonic() - began
                say(f"{cell}, round {number + 1} of {options.repeat}: {name} took {taken:.0f} s")
                if noted.failed:
                    contenders.pop(name).close()
    finally:
        for contender in contenders.values():
            contender.close()


def _make(
    name: str, bench: Bench, cell: Cell, options: Options, source: RandomBytes, others: dict[str, Contender]
) -> Contender:
    match name:
        case "torpor":
            return TorporVm(bench, cell, [c for c in options.codecs if c is Codec.NONE or options.packs(cell)])
        case "virsh":
            return LibvirtVm(bench, cell, options.formats if options.packs(cell) else ())
        case "qemu":
            return PlainVm(bench, cell)
        case _:
            return Disk(bench.folder, source, lambda: _state_bytes(cell, others.get("torpor")))


def _state_bytes(cell: Cell, torpor: Contender | None) -> int:
    """What the first suspension wrote, or the data alone where there is none."""
    return (torpor.first_bytes if isinstance(torpor, TorporVm) else 0) or cell.data_mb << 20


def _flips(bench: Bench, options: Options, done: Run, say: Say) -> None:
    say(f"{options.flips} bit flips")
    with _noted("bit flips", done, say):
        done.flips = flip_bits(bench, options.codecs, options.flips)


def _gang(bench: Bench, options: Options, done: Run, say: Say) -> None:
    rounds = 2 * options.repeat
    say(f"a gang of two, {rounds} times asleep and awake")
    with _noted("the gang", done, say):
        measure_gang(bench, done.gang, rounds)


def _running(bench: Bench, cell: Cell, done: Run, say: Say) -> None:
    began = time.monotonic()
    with _noted(f"{cell}: running costs", done, say):
        measure_running_costs(bench, cell)
    say(f"{cell}: running costs took {time.monotonic() - began:.0f} s")


@dataclass
class _Outcome:
    failed: bool = False


@contextmanager
def _noted(what: str, done: Run, say: Say) -> Iterator[_Outcome]:
    outcome = _Outcome()
    try:
        yield outcome
    except Exception as error:
        outcome.failed = True
        done.failures.append(f"{what}: {error!r}")
        say(f"{what} failed:\n{traceback.format_exc()}")


@contextmanager
def _folder(parent: Path) -> Iterator[Path]:
    """Short, for the sockets below it; passable, for QEMU's user."""
    folder = Path(tempfile.mkdtemp(prefix="tb-", dir=parent))
    folder.chmod(0o711)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _device(folder: Path) -> str:
    number = folder.stat().st_dev
    found = f"{os.major(number)}:{os.minor(number)}"
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split()
        if fields[2] == found:
            return f"{fields[fields.index('-') + 2]}, {fields[fields.index('-') + 1]}"
    return found

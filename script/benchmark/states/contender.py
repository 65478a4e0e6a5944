"""What every contender is told, and what it is."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from benchmark.states.guest_image import GuestImage
from benchmark.states.host_memory import make_ready
from benchmark.states.record import Cell, Measure, Record
from benchmark.states.talk import drop_caches

TB_SIZE_MB = 64
"""QEMU's buffer for translated code, the same for all."""
CHANGED_PERCENT = 1.0
WORK_COUNT = 2_000_000


@dataclass(frozen=True)
class Bench:
    """The run that a contender takes part in."""

    folder: Path
    """Everything that is written lies below it, so on one disk."""
    image: GuestImage
    record: Record
    repeat: int
    ready_memory: bool = False
    """Free memory is used and given back before each suspension and restore."""

    def before_suspension(self, memory_mb: int) -> None:
        if self.ready_memory:
            make_ready(memory_mb)  # a file's in the page cache

    def before_restore(self, memory_mb: int) -> None:
        drop_caches()
        if self.ready_memory:
            make_ready(2 * memory_mb)  # a file's and a guest's


@dataclass(frozen=True)
class Turn:
    """Where a contender's samples go in one round of one cell."""

    record: Record
    cell: Cell
    round: int

    def add(self, contender: str, measure: Measure, value: float) -> None:
        self.record.add(self.cell, self.round, contender, measure, value)


class Contender(Protocol):
    """One guest of a cell. Between its turns it sleeps on disk: nothing of it is in memory."""

    def take_turn(self, turn: Turn) -> None:
        """Measure everything once."""
        ...

    def close(self) -> None:
        """End its processes, remove its files."""
        ...

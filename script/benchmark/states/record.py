"""What was measured: one sample a line, and the ratios of samples of one round."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from statistics import median
from typing import Any


class Measure(StrEnum):
    """Seconds are from the call; a suspension's until the state is durable and the process is gone, a restore's
    until the guest's first tick is on its serial line."""

    SUSPEND = "suspend_seconds"
    SUSPEND_BYTES = "suspend_bytes"
    RESUSPEND_LAZY = "resuspend_lazy_seconds"
    """Of a guest that was restored lazily and changed."""
    RESUSPEND_LAZY_BYTES = "resuspend_lazy_bytes"
    RESUSPEND_EAGER = "resuspend_eager_seconds"
    RESUSPEND_EAGER_BYTES = "resuspend_eager_bytes"
    RESTORE = "restore_seconds"
    LAZY_RESTORE = "lazy_restore_seconds"
    READ_ALL = "restore_and_read_all_seconds"
    """From the restore's call until the guest has read all of its data once."""
    LAZY_READ_ALL = "lazy_restore_and_read_all_seconds"
    SNAPSHOT = "snapshot_seconds"
    SNAPSHOT_GAP = "snapshot_gap_ms"
    """Largest gap between two ticks of a 1 ms ticker, as its serial line shows it, during a snapshot."""
    SNAPSHOT_GUEST_GAP = "snapshot_guest_gap_ms"
    """The same by the guest's own clock, which stands still while it is stopped."""
    SNAPSHOT_TOLD = "snapshot_told_pause_ms"
    """The pause, as Torpor tells it."""
    PLAIN_GAP = "plain_gap_ms"
    """As SNAPSHOT_GAP, for as long (but no longer than some seconds), without a snapshot."""
    PLAIN_GUEST_GAP = "plain_guest_gap_ms"
    WORK = "work_per_second"
    """Read-modify-writes at random places; the first pass after what the contender's name says."""
    WORK_AGAIN = "work_again_per_second"
    """The second pass over the same places."""
    ANONYMOUS = "anonymous_bytes"
    """Of the guest's process, as the kernel tells it (smaps)."""
    HUGE_PAGES = "anonymous_huge_page_bytes"
    """Of these, in large pages."""
    SCRUB = "lazy_scrub_seconds"
    """From the moment that a lazily restored guest runs until all of its state was verified behind it."""
    PAUSE_SKEW = "pause_skew_ms"
    """Between the first and the last standstill in a gang, as Torpor tells it."""
    RUN_ON_SKEW = "run_on_skew_ms"
    CLOCK_BEHIND = "clock_behind_ms"
    """After a resumption, before the clock is set."""
    CLOCK_OFF = "clock_off_ms"
    """After it was set, ahead or behind; by the guest's agent, right to half of the time that its answer takes."""


@dataclass(frozen=True, order=True)
class Cell:
    """One guest: its memory and the share of it that holds random data."""

    memory_mb: int
    fill_percent: int

    @property
    def data_mb(self) -> int:
        return self.memory_mb * self.fill_percent // 100

    def __str__(self) -> str:
        return f"{self.memory_mb} MB, {self.fill_percent} %"


@dataclass(frozen=True)
class Sample:
    cell: Cell
    round: int
    contender: str
    measure: Measure
    value: float


@dataclass(frozen=True)
class Side:
    """One side of a ratio."""

    contender: str
    measure: Measure


@dataclass
class Record:
    """Every sample of one run."""

    samples: list[Sample] = field(default_factory=list)

    def add(self, cell: Cell, round: int, contender: str, measure: Measure, value: float) -> None:
        self.samples.append(Sample(cell, round, contender, measure, value))

    def cells(self) -> list[Cell]:
        return sorted({s.cell for s in self.samples})

    def contenders(self) -> list[str]:
        """In the order of their first sample."""
        return list(dict.fromkeys(s.contender for s in self.samples))

    def values(self, cell: Cell, side: Side) -> list[float]:
        return [value for _, value in sorted(self._by_round(cell, side))]

    def median(self, cell: Cell, side: Side) -> float | None:
        values = self.values(cell, side)
        return median(values) if values else None

    def ratio(self, cell: Cell, above: Side, below: Side) -> float | None:
        """The median of the rounds' ratios; None where no round has both. Several samples of a round count by
        their median."""
        over, under = self._of_rounds(cell, above), self._of_rounds(cell, below)
        ratios = [over[n] / under[n] for n in over.keys() & under.keys() if under[n]]
        return median(ratios) if ratios else None

    def document(self) -> list[dict[str, Any]]:
        return [{**asdict(s), "cell": str(s.cell), **asdict(s.cell)} for s in self.samples]

    def _by_round(self, cell: Cell, side: Side) -> Iterator[tuple[int, float]]:
        for s in self.samples:
            if (s.cell, s.contender, s.measure) == (cell, side.contender, side.measure):
                yield s.round, s.value

    def _of_rounds(self, cell: Cell, side: Side) -> dict[int, float]:
        rounds: dict[int, list[float]] = {}
        for number, value in self._by_round(cell, side):
            rounds.setdefault(number, []).append(value)
        return {number: median(values) for number, values in rounds.items()}

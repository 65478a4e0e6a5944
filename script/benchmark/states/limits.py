"""What the summary of a full run is to show: the promises that Torpor is held to, and whether a run keeps them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Limit:
    """One figure of the summary, and how far it may go."""

    key: str
    wording: str
    least: float | None = None
    most: float | None = None

    @property
    def bound(self) -> str:
        return f">= {self.least:g}" if self.least is not None else f"<= {self.most:g}"

    def kept(self, value: float | None) -> bool:
        """What was not measured is not kept."""
        if value is None:
            return False
        return (self.least is None or value >= self.least) and (self.most is None or value <= self.most)


LIMITS = (
    Limit("first_suspend_vs_dd", "first suspension, share of dd's write rate", least=0.75),
    Limit("first_suspend_vs_managedsave", "first suspension, times as fast as virsh managedsave", least=4),
    Limit("second_suspend_bytes_share", "second suspension (lazily restored), share of the bytes", most=0.05),
    Limit("second_suspend_bytes_share_eager", "second suspension (eagerly restored), share of the bytes", most=0.05),
    Limit("second_suspend_vs_managedsave", "second suspension (lazily restored), times as fast", least=20),
    Limit("second_suspend_vs_managedsave_eager", "second suspension (eagerly restored), times as fast", least=5),
    Limit("lazy_restore_seconds_4gb", "lazy restore of 4 GB to the first tick, seconds", most=1),
    Limit("lazy_restore_4gb_vs_512mb", "lazy restore of 4 GB beside 0.5 GB", most=1.2),
    Limit("lazy_restore_vs_virsh_start", "lazy restore, times as fast as virsh start", least=5),
    Limit("lazy_read_all_vs_virsh", "until all memory was read once, times as fast as virsh", least=1),
    Limit("eager_restore_vs_dd", "eager restore, share of dd's read rate", least=0.75),
    Limit("eager_restore_vs_virsh_start", "eager restore, times as fast as virsh start", least=3),
    Limit("snapshot_pause_ms", "live snapshot, pause in ms", most=50),
    Limit("gang_pause_skew_ms", "pause of a gang of two, skew in ms", most=5),
    Limit("clock_off_ms", "guest's clock after a resumption, off by ms", most=100),
    Limit("bit_flips", "single bits flipped in saved states", least=1000),
    Limit("bit_flips_missed", "of these not seen", most=0),
)


def judge(file: Path, console: Console) -> int:
    """Print each limit with what the run in this JSON file shows. The exit code: 1 for a miss, 2 for no such run."""
    try:
        summary = json.loads(file.read_text())["summary"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        console.print(f"{file} is not what `script/bench --json` writes: {error!r}", markup=False)
        return 2
    return 1 if show(summary, console) else 0


def missed(summary: Mapping[str, float | None]) -> Sequence[Limit]:
    return [limit for limit in LIMITS if not limit.kept(summary.get(limit.key))]


def show(summary: Mapping[str, float | None], console: Console) -> int:
    """How many are missed."""
    table = Table(title="limits", title_justify="left")
    for column, justify in (("", "left"), ("limit", "right"), ("measured", "right"), ("", "left")):
        table.add_column(column, justify=justify)  # type: ignore[arg-type]
    misses = missed(summary)
    for limit in LIMITS:
        value = summary.get(limit.key)
        figure = "-" if value is None else f"{value:.4g}"
        table.add_row(limit.wording, limit.bound, figure, "miss" if limit in misses else "pass")
    console.print(table)
    return len(misses)

"""What is shown while something is waited for: a line that moves on a terminal, else one line a change."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from torpor.cli.client import Document
from torpor.cli.quantities import show_bytes, show_seconds
from torpor.cli.tables import plain

BAR = 20
SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"


class Display:
    """Told over and over how things are; says it at most once a change where it can't redraw."""

    def __init__(self, console: Console, live: Live | None) -> None:
        self._console = console
        self._live = live
        self._began = time.monotonic()
        self._said = ""

    def show(self, headline: str, detail: str = "", done: int = 0, total: int = 0) -> None:
        """`headline` changes seldom (one line each), `detail` and the bytes often (terminal only)."""
        if self._live is not None:
            self._live.update(self._line(headline, detail, done, total))
        elif headline != self._said:
            self._console.print(plain(headline), markup=False)
        self._said = headline

    def note(self, text: str) -> None:
        """A line that stays."""
        self._console.print(plain(text), markup=False)

    def _line(self, headline: str, detail: str, done: int, total: int) -> Table:
        elapsed = time.monotonic() - self._began
        line = Text(SPINNER[int(elapsed * 10) % len(SPINNER)] + " ", style="cyan")
        line.append(plain(headline), style="bold")
        if detail:
            line.append("  " + plain(detail))
        if total > 0:
            filled = round(BAR * min(1.0, done / total))
            line.append("  " + "━" * filled, style="green").append("━" * (BAR - filled), style="bright_black")
            line.append(f" {show_bytes(done)} of {show_bytes(total)}")
        row = Table.grid(padding=(0, 1, 0, 0))
        row.add_column(no_wrap=True, overflow="ellipsis")
        row.add_column(no_wrap=True, justify="right", style="bright_black", min_width=7)
        row.add_row(line, show_seconds(elapsed))
        return row


@contextmanager
def display(console: Console, quiet: bool = False) -> Iterator[Display]:
    """A display on `console`; with `quiet` (the answer is for a program) only a terminal shows it."""
    if console.is_terminal:
        with Live(console=console, transient=True, refresh_per_second=10) as live:
            yield Display(console, live)
    else:
        yield Display(Console(quiet=True) if quiet else console, None)


def describe(workload: Document) -> tuple[str, str, int, int]:
    """Headline, detail, bytes done and bytes in all, of what goes on with a workload."""
    operation = workload.get("operation")
    if operation is None:
        waiting = workload["waiting_for"]
        return (f"{workload['name']} is {workload['state']}" + (f", waiting: {waiting}" if waiting else ""), "", 0, 0)
    names = {instance["id"]: instance["name"] for instance in workload["instances"]}
    return describe_operation(operation, workload["name"], names)


def describe_operation(
    operation: Document, workload: str, names: Mapping[str, str] | None = None
) -> tuple[str, str, int, int]:
    """The same of an operation alone; `names` are those of the instances, by id."""
    headline = f"{workload}: {'undoing ' if operation['status'] == 'undoing' else ''}{operation['kind']}"
    if operation["predicted_seconds"]:
        headline += f", about {show_seconds(operation['predicted_seconds'])} in all"
    return headline, _step(operation, names or {}), operation["bytes_done"], operation["bytes_total"]


def _step(operation: Document, names: Mapping[str, str]) -> str:
    for step in operation["steps"]:
        if step["status"] == "intended":
            whom = names.get(step["instance"], "")
            return f"{step['kind']} {whom}".strip()
    return ""

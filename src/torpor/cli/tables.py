"""Tables: readable at 80 columns on a terminal, uncut when piped."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

PIPED_WIDTH = 100_000


def output() -> Console:
    """Where answers go. Piped output has no colours and no line breaks of its own."""
    console = Console(highlight=False, soft_wrap=False)
    return console if console.is_terminal else Console(highlight=False, width=PIPED_WIDTH, color_system=None)


def notices() -> Console:
    """Where progress and notices go."""
    return Console(stderr=True, highlight=False, soft_wrap=True)


def plain(value: object) -> str:
    """`value` on one line, without control characters: it may come from a guest."""
    return "".join(c if c.isprintable() else " " for c in str(value))


STYLES = {
    "active": "green", "running": "green", "verified": "green", "ok": "green", "yes": "green", "ready": "green",
    "failed": "red", "mismatch": "red", "io-error": "red", "no": "red", "FAIL": "red", "refused": "red",
    "suspended": "cyan", "suspending": "yellow", "resuming": "yellow", "deleting": "yellow", "pending": "yellow",
    "wait": "yellow",
}  # fmt: skip


def cell(value: object) -> Text:
    shown = plain(value)
    return Text(shown, style=STYLES.get(shown, ""))


@dataclass(frozen=True, slots=True)
class Column:
    """One column; `left`, `right`, `name` and `text` make them."""

    title: str
    flush_right: bool = False
    shrinks: bool = False
    """May be cut where the terminal is too narrow; the others never are."""
    wraps: bool = False
    """Takes what room is left, on several lines if need be; left out when it is empty in every row."""


def left(title: str) -> Column:
    return Column(title)


def right(title: str) -> Column:
    return Column(title, flush_right=True)


def name(title: str) -> Column:
    return Column(title, shrinks=True)


def text(title: str) -> Column:
    return Column(title, wraps=True)


GAP = 2
NARROWEST = 12


def print_table(
    console: Console, columns: Sequence[Column], rows: Sequence[Sequence[object]], notes: Sequence[str] = ()
) -> None:
    """`notes`, one a row: on a terminal a line below each row that has one, piped a last column NOTE."""
    if any(notes) and not console.is_terminal:
        columns = [*columns, text("NOTE")]
        rows = [[*row, note] for row, note in zip(rows, notes, strict=True)]
    kept = [i for i, column in enumerate(columns) if not column.wraps or any(plain(row[i]) for row in rows)]
    shown = [columns[i] for i in kept]
    table = _table(shown, _widths(shown, [[plain(row[i]) for i in kept] for row in rows], console.width))
    for row in rows:
        table.add_row(*(cell(row[i]) for i in kept))
    if console.is_terminal:
        _print_lines(console, table, notes)
        return
    with console.capture() as captured:
        console.print(table)
    for line in captured.get().splitlines():
        console.print(line.rstrip(), markup=False, soft_wrap=True)


def _table(columns: Sequence[Column], widths: Sequence[int]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="bold")
    for column, width in zip(columns, widths, strict=True):
        table.add_column(
            column.title,
            justify="right" if column.flush_right else "left",
            no_wrap=not column.wraps,
            overflow="fold" if column.wraps else "ellipsis",
            width=width,
        )
    return table


def _widths(columns: Sequence[Column], rows: Sequence[Sequence[str]], room: int) -> list[int]:
    """Natural widths, less what is too much for `room`, taken from columns that may give."""
    widths = [
        max(len(column.title), *(cell_len(row[i]) for row in rows)) if rows else len(column.title)
        for i, column in enumerate(columns)
    ]
    excess = sum(widths) + GAP * (len(widths) - 1) - room
    for i in sorted(range(len(columns)), key=lambda i: not columns[i].wraps):
        if excess > 0 and (columns[i].wraps or columns[i].shrinks):
            given = min(excess, max(0, widths[i] - NARROWEST))
            widths[i] -= given
            excess -= given
    return widths


def _print_lines(console: Console, table: Table, notes: Sequence[str]) -> None:
    if not any(notes):
        console.print(table)
        return
    # Rows with a note have one line each: only then does a line tell which note belongs below it.
    with console.capture() as captured:
        console.print(table)
    heading, *lines = captured.get().splitlines()
    console.print(Text.from_ansi(heading), soft_wrap=True)
    for line, note in zip(lines, notes, strict=True):
        console.print(Text.from_ansi(line), soft_wrap=True)
        if note:
            console.print(Padding(Text(plain(note), style="bright_black"), (0, 0, 0, 2)))

"""Tables: readable at 80 columns on a terminal, uncut when piped."""

from collections.abc import Sequence

from rich.console import Console
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


def plain(text: object) -> str:
    """`text` on one line, without control characters: it may come from a guest."""
    return "".join(c if c.isprintable() else " " for c in str(text))


STYLES = {
    "active": "green", "running": "green", "verified": "green", "ok": "green", "yes": "green", "ready": "green",
    "failed": "red", "mismatch": "red", "io-error": "red", "no": "red", "refused": "red",
    "suspended": "cyan", "suspending": "yellow", "resuming": "yellow", "deleting": "yellow", "pending": "yellow",
    "wait": "yellow",
}  # fmt: skip


def cell(value: object) -> Text:
    text = plain(value)
    return Text(text, style=STYLES.get(text, ""))


def print_table(console: Console, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Columns whose heading begins with `>` are flush right; the last one takes what room is left, and wraps."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for index, column in enumerate(columns):
        last = index == len(columns) - 1
        table.add_column(
            column.removeprefix(">"),
            justify="right" if column.startswith(">") else "left",
            no_wrap=not last,
            overflow="fold" if last else "ellipsis",
        )
    for row in rows:
        table.add_row(*(cell(value) for value in row))
    console.print(table)

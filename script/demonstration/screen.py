"""What a person sees: a line a step, notes below it, and at the end one table and one picture."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from demonstration.findings import MIB, Findings

BLOCKS = " ▁▂▃▄▅▆▇█"
CHART_WIDTH = 54
SHOWN = 20
"""Characters of a checksum or nonce that are shown; compared are all."""


class Screen:
    """Writes for people; with `--json` that is standard error, so that standard output is the document alone."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._number = 0
        self._notes: list[str] = []

    def say(self, text: str, style: str = "") -> None:
        self._console.print(Text(text, style=style))

    def note(self, text: str) -> None:
        """Something about the step under way; printed when it has ended."""
        self._notes.append(text)

    @contextmanager
    def step(self, key: str, title: str, seconds: dict[str, float]) -> Iterator[None]:
        """One step; its seconds go into `seconds`."""
        self._number += 1
        self._notes = []
        began = time.monotonic()
        mark, style = "FAILED", "bold red"
        try:
            if self._console.is_terminal:
                with self._console.status(f"{self._number:2}  {title}"):
                    yield
            else:
                yield
            mark, style = "", "bold"
        finally:
            seconds[key] = time.monotonic() - began
            line = Text(f"{self._number:2}  {title} ", style=style)
            line.append("." * max(2, 62 - len(line)), style="dim")
            line.append(f" {seconds[key]:5.1f} s {mark}", style="cyan" if not mark else style)
            self._console.print(line)
            for note in self._notes:
                self._console.print(Padding(Text(note, style="dim"), (0, 0, 0, 4)))

    # --- the end ---

    def comparison(self, found: Findings) -> None:
        table = Table(
            title="Before the suspension and after the restoration",
            title_justify="left",
            box=None,
            padding=(0, 2, 0, 0),
        )
        for column in ("", "what", "before", "after"):
            table.add_column(column, overflow="fold")
        for name, before in found.before.items():
            after = found.after.get(name, {})
            for what in ("hostname", "address", "nonce", "counter"):
                grows = what == "counter"
                old, new = before[what], after.get(what)
                right = new is not None and (new > old if grows else new == old)
                _row(table, right, f"{name} {what}", old, new)
            _row(table, True, f"{name} job, step", before["job"]["step"], (after.get("job") or {}).get("step"))
            verified = found.verified.get(name, {})
            right = bool(verified) and verified["ok"] and verified["found"] == before["fill_sum"]
            _row(table, right, f"{name} {before['fill_mb']} MiB random", before["fill_sum"], verified.get("found"))
            if before["tcp"]:
                tcp = after.get("tcp") or {}
                _row(table, found.tcp_survived(), f"{name} TCP port, rounds",
                     _tcp(before["tcp"]), _tcp(tcp) if tcp else None)  # fmt: skip
        self._console.print()
        self._console.print(table)

    def chart(self, found: Findings) -> None:
        """Memory of the QEMU processes over time, as it was sampled."""
        if not found.samples:
            return
        last = found.samples[-1][0] or 1.0
        columns = [
            [s for s in found.samples if int(s[0] / last * (CHART_WIDTH - 1)) == column]
            for column in range(CHART_WIDTH)
        ]
        peak = max(max(batch, priority) for _, batch, priority in found.samples) or 1
        self._console.print()
        self._console.print(Text("Memory of the QEMU processes (from /proc)", style="italic"))
        for label, which, style in (("batch", 1, "blue"), ("urgent", 2, "dark_orange")):
            line, height = "", 0.0
            for samples in columns:
                height = max((sample[which] for sample in samples), default=height)
                line += BLOCKS[round(height / peak * (len(BLOCKS) - 1))]
            most = max(sample[which] for sample in found.samples) / MIB
            row = Text(f"{label:>7} ").append(line, style=style)
            self._console.print(row.append(f" at most {most:.0f} MiB", style="dim"))
        self._console.print(Text(f"        0 s{last:>{CHART_WIDTH - 3}.0f} s", style="dim"))

    def verdict(self, found: Findings, total: float) -> None:
        complaints = found.complaints()
        self._console.print()
        if complaints:
            for complaint in complaints:
                self.say(f"WRONG: {complaint}.", "bold red")
            return
        names = len(found.answers)
        self.say(
            f"Nothing was lost: {found.released_mb()} MiB were lent to the priority VMs, and every counter, checksum, "
            f"job, address, name ({names} answers) and the TCP connection are as they were. {total:.0f} s in all.",
            "bold green",
        )


def _row(table: Table, right: bool, what: str, before: object, after: object) -> None:
    table.add_row(
        Text("ok" if right else "NO", style="green" if right else "bold red"), what, _short(before),
        "-" if after is None else _short(after),
    )  # fmt: skip


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def _tcp(tcp: dict[str, object]) -> str:
    return f"{tcp['local_port']}, {tcp['rounds']}" + ("" if tcp["connected"] else " (broken)")

"""A run as a table for people and as JSON for programs."""

import json
import os
import platform
import re
import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmark.states import gang, summary
from benchmark.states.contender import CHANGED_PERCENT
from benchmark.states.record import Cell, Measure, Record, Side
from benchmark.states.run import Options, Run

_COLUMNS = (
    ("suspend s", Measure.SUSPEND),
    ("again s (lazy)", Measure.RESUSPEND_LAZY),
    ("again s (eager)", Measure.RESUSPEND_EAGER),
    ("restore s", Measure.RESTORE),
    ("lazy s", Measure.LAZY_RESTORE),
)
_BYTES = (
    ("MB", Measure.SUSPEND_BYTES),
    ("again MB", Measure.RESUSPEND_LAZY_BYTES),
)


def show(run: Run, options: Options, console: Console) -> None:
    """Medians by guest and contender, then the summary."""
    for cell in run.record.cells():
        console.print(_table(run.record, cell))
    figures = Table(
        title="summary", title_justify="left", caption="above 1: Torpor is faster; _vs_dd: share of dd's rate"
    )
    figures.add_column("")
    figures.add_column("", justify="right")
    for name, value in _summary(run).items():
        figures.add_row(name, "-" if value is None else f"{value:.4g}")
    console.print(figures)
    for failure in run.failures:
        console.print(f"failed: {failure}", markup=False)
    sizes, fills = (", ".join(map(str, sorted(some))) for some in (options.sizes, options.fills))
    console.print(f"guests of {sizes} MB with {fills} % of random data, {CHANGED_PERCENT:g} % changed in between;")
    console.print(f"medians of {options.repeat} rounds; {_words(machine() | run.memory)}")
    if options.ready_memory:
        console.print("free memory was used and given back before each suspension and restore")


def write(run: Run, options: Options, file: Path) -> None:
    """Summary, ratios of every guest, and every sample. Raises OSError."""
    document = {
        "benchmark": "states",
        "at": time.time(),
        "machine": machine() | run.memory,
        "settings": {
            "sizes_mb": list(options.sizes),
            "fills_percent": list(options.fills),
            "repeat": options.repeat,
            "only": list(options.only),
            "codecs": [codec.value for codec in options.codecs],
            "packed_up_to_mb": options.packed_up_to,
            "ready_memory": options.ready_memory,
            "changed_percent": CHANGED_PERCENT,
            "bit_flips": run.flips.made if run.flips else 0,
        },
        "summary": _summary(run),
        "by_guest": summary.by_cell(run.record),
        "failures": run.failures,
        "bit_flips_missed": list(run.flips.missed) if run.flips else [],
        "samples": run.record.document() + run.gang.document(),
    }
    file.write_text(json.dumps(document, indent=1) + "\n")


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    return {
        "cpus": os.cpu_count(),
        "kernel": platform.release(),
        "qemu": _version("qemu-system-x86_64"),
        "libvirt": _version("virsh"),
        "load": os.getloadavg(),
    }


def _version(program: str) -> str | None:
    """The first number with dots that it says of itself; None where it is not there."""
    if not shutil.which(program):
        return None
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"\d+(\.\d+)+", said)
    return found[0] if found else said.strip()


def _summary(run: Run) -> summary.Figures:
    figures = summary.summarise(run.record)
    figures.update(gang.figures(run.gang))
    figures["bit_flips"] = run.flips.made if run.flips else None
    figures["bit_flips_missed"] = len(run.flips.missed) if run.flips else None
    return figures


def _table(record: Record, cell: Cell) -> Table:
    table = Table(title=str(cell), title_justify="left")
    table.add_column("", no_wrap=True)
    for name, _ in (*_COLUMNS, *_BYTES):
        table.add_column(name, justify="right")
    for contender in record.contenders():
        times = [_figure(record, cell, Side(contender, measure), 1.0, 3) for _, measure in _COLUMNS]
        sizes = [_figure(record, cell, Side(contender, measure), 1e6, 1) for _, measure in _BYTES]
        if any((*times, *sizes)):
            table.add_row(contender, *times, *sizes)
    return table


def _figure(record: Record, cell: Cell, side: Side, unit: float, digits: int) -> str:
    value = record.median(cell, side)
    return "" if value is None else f"{value / unit:.{digits}f}"


def _words(facts: dict[str, Any]) -> str:
    return ", ".join(f"{key.replace('_', ' ')} {_plain(value)}" for key, value in facts.items())


def _plain(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3g}"
    return f"{value[0]:.1f}" if isinstance(value, Sequence) and not isinstance(value, str) else str(value)

"""What was measured, and how it is shown."""

import json
import os
import platform
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Quantity:
    """One thing that was measured several times."""

    name: str
    unit: str
    samples: list[float]

    @property
    def summary(self) -> dict[str, float]:
        return {"median": median(self.samples), "min": min(self.samples), "max": max(self.samples)}


@dataclass
class Measurement:
    """One run of a benchmark."""

    title: str
    settings: dict[str, Any]
    quantities: list[Quantity] = field(default_factory=list)

    def add(self, name: str, unit: str, samples: list[float]) -> None:
        self.quantities.append(Quantity(name, unit, samples))

    def show(self, console: Console) -> None:
        table = Table(title=self.title, title_justify="left", caption=_words(self.settings), caption_justify="left")
        table.add_column("")
        for column in ("median", "least", "most"):
            table.add_column(column, justify="right")
        table.add_column("unit")
        table.add_column("samples", justify="right")
        for q in self.quantities:
            figures = (f"{q.summary[key]:.4g}" for key in ("median", "min", "max"))
            table.add_row(q.name, *figures, q.unit, str(len(q.samples)))
        console.print(table)

    def write(self, file: Path) -> None:
        """Every sample, and a summary of each quantity. Raises OSError."""
        document = {
            "benchmark": self.title,
            "at": time.time(),
            "machine": {"cpus": os.cpu_count(), "kernel": platform.release(), "load": os.getloadavg()},
            "settings": self.settings,
            "quantities": [
                {"name": q.name, "unit": q.unit, "samples": q.samples, "summary": q.summary} for q in self.quantities
            ],
        }
        file.write_text(json.dumps(document, indent=1) + "\n")


def _words(settings: dict[str, Any]) -> str:
    load = f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} CPUs"
    return ", ".join([*(f"{key} {value}" for key, value in settings.items()), load])

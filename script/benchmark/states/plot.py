"""A run as a picture: how long each contender takes, by the guest's memory, for every fill."""

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmark.states import disk, libvirt_vm, plain_vm, torpor_vm
from benchmark.states.record import Cell, Measure, Record, Side
from torpor.domain.instance import Codec

_NONE = torpor_vm.name_of(Codec.NONE)
_RAW = libvirt_vm.direct_name("raw")
_SUSPENSIONS = (
    ("virsh managedsave", Side(libvirt_vm.MANAGED, Measure.SUSPEND), "#b0413e"),
    ("virsh save --bypass-cache", Side(_RAW, Measure.SUSPEND), "#e0a39f"),
    ("QEMU's migrate to a file", Side(plain_vm.NAME, Measure.SUSPEND), "#c9a227"),
    ("dd, direct, the same bytes", Side(disk.NAME, Measure.SUSPEND), "#999999"),
    ("Torpor, first", Side(_NONE, Measure.SUSPEND), "#1f4e79"),
    ("Torpor, second, after an eager restore", Side(_NONE, Measure.RESUSPEND_EAGER), "#2e86c1"),
    ("Torpor, second, after a lazy restore", Side(_NONE, Measure.RESUSPEND_LAZY), "#85c1e9"),
)
_RESTORES = (
    ("virsh start", Side(libvirt_vm.MANAGED, Measure.RESTORE), "#b0413e"),
    ("virsh restore --bypass-cache", Side(_RAW, Measure.RESTORE), "#e0a39f"),
    ("QEMU's migrate from a file", Side(plain_vm.NAME, Measure.RESTORE), "#c9a227"),
    ("dd, direct, the same bytes", Side(disk.NAME, Measure.RESTORE), "#999999"),
    ("Torpor, eager", Side(_NONE, Measure.RESTORE), "#1f4e79"),
    ("Torpor, lazy", Side(_NONE, Measure.LAZY_RESTORE), "#85c1e9"),
)
_ROWS = (
    ("suspension: pause to durable, memory given back", _SUSPENSIONS),
    ("restore: call to the guest's first tick, cold cache", _RESTORES),
)

_LEAST_SECONDS = 0.1
"""Where the logarithmic axis begins."""


def draw(record: Record, folder: Path) -> list[Path]:
    """`states.svg` and `states.png` in the folder, which is made. Raises OSError."""
    fills = sorted({cell.fill_percent for cell in record.cells()})
    figure = Figure(figsize=(5.5 * len(fills) + 1, 8.5), layout="constrained")
    grid = figure.subplots(len(_ROWS), len(fills), squeeze=False, sharey="row")
    for row, (title, lines) in zip(grid, _ROWS, strict=True):
        for axes, fill in zip(row, fills, strict=True):
            _panel(axes, record, fill, lines)
            axes.set_title(f"{title}\n{fill} % of memory is random data", fontsize=9)
        row[0].set_ylabel("seconds (median)")
        row[0].set_ylim(bottom=_LEAST_SECONDS)  # of the whole row, whose top is the longest bar's only now
        row[-1].legend(fontsize=7, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / "states.svg", folder / "states.png"]
    for file in files:
        figure.savefig(file, dpi=110)
    return files


def _panel(axes: Axes, record: Record, fill: int, lines: tuple[tuple[str, Side, str], ...]) -> None:
    sizes = sorted({cell.memory_mb for cell in record.cells() if cell.fill_percent == fill})
    width = 0.85 / len(lines)
    measured = False
    for n, (label, side, colour) in enumerate(lines):
        medians = [record.median(Cell(size, fill), side) for size in sizes]
        places = [at + (n - (len(lines) - 1) / 2) * width for at in range(len(sizes))]
        axes.bar(places, [value or 0 for value in medians], width, label=label, color=colour)
        measured = measured or any(medians)
    if measured:
        axes.set_yscale("log")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("")
    axes.set_xticks(range(len(sizes)), [f"{size / 1024:g} GB" for size in sizes])
    axes.grid(axis="y", alpha=0.3)

"""The few figures that a run comes down to. Above 1 means that Torpor is faster, except where it says otherwise."""

from collections.abc import Callable, Sequence

from benchmark.states import disk, libvirt_vm, running, torpor_vm
from benchmark.states.record import Cell, Measure, Record, Side
from torpor.domain.instance import Codec

Figures = dict[str, float | None]
_LARGE_MB = 1000
"""Of random data: from here on rates count."""
_TORPOR = torpor_vm.name_of(Codec.NONE)
_WHOLE = Side(_TORPOR, Measure.SUSPEND)
_LAZY = Side(_TORPOR, Measure.LAZY_RESTORE)
_EAGER = Side(_TORPOR, Measure.RESTORE)
_MANAGED_SAVE = Side(libvirt_vm.MANAGED, Measure.SUSPEND)
_VIRSH_START = Side(libvirt_vm.MANAGED, Measure.RESTORE)
_DD_WRITE = Side(disk.NAME, Measure.SUSPEND)
_DD_READ = Side(disk.NAME, Measure.RESTORE)


def summarise(record: Record) -> Figures:
    """What can't be said for lack of samples is None."""
    cells = record.cells()
    if not cells:
        return {}
    biggest = max(cells)
    large = [cell for cell in cells if cell.data_mb >= _LARGE_MB] or [biggest]
    return {
        **_suspensions(record, biggest, large),
        **_restores(record, biggest, large),
        **_snapshots(record, cells),
        **_running_costs(record, biggest),
    }


def by_cell(record: Record) -> dict[str, Figures]:
    """Every ratio of the summary, cell by cell."""
    found = {}
    for cell in record.cells():
        figures = {**_suspensions(record, cell, [cell]), **_restores(record, cell, [cell])}
        found[str(cell)] = {**figures, **_snapshots(record, [cell]), **_running_costs(record, cell)}
    return found


def _suspensions(record: Record, biggest: Cell, large: Sequence[Cell]) -> Figures:
    lazily = Side(_TORPOR, Measure.RESUSPEND_LAZY)
    eagerly = Side(_TORPOR, Measure.RESUSPEND_EAGER)
    first_bytes = Side(_TORPOR, Measure.SUSPEND_BYTES)
    lazy_bytes = Side(_TORPOR, Measure.RESUSPEND_LAZY_BYTES)
    eager_bytes = Side(_TORPOR, Measure.RESUSPEND_EAGER_BYTES)
    return {
        "first_suspend_vs_dd": _worst(large, lambda cell: record.ratio(cell, _DD_WRITE, _WHOLE)),
        "first_suspend_vs_managedsave": _worst(large, lambda cell: record.ratio(cell, _MANAGED_SAVE, _WHOLE)),
        "second_suspend_vs_managedsave": record.ratio(biggest, _MANAGED_SAVE, lazily),
        "second_suspend_vs_managedsave_eager": record.ratio(biggest, _MANAGED_SAVE, eagerly),
        "second_suspend_bytes_share": record.ratio(biggest, lazy_bytes, first_bytes),
        "second_suspend_bytes_share_eager": record.ratio(biggest, eager_bytes, first_bytes),
        "dd_vs_managedsave": _worst(large, lambda cell: record.ratio(cell, _MANAGED_SAVE, _DD_WRITE)),
    }


def _restores(record: Record, biggest: Cell, large: Sequence[Cell]) -> Figures:
    read_all = Side(libvirt_vm.MANAGED, Measure.READ_ALL)
    lazy_read_all = Side(_TORPOR, Measure.LAZY_READ_ALL)
    small = Cell(512, biggest.fill_percent)
    times = [time for cell in record.cells() if cell.memory_mb == 4096 and (time := record.median(cell, _LAZY))]
    of_4gb = record.median(Cell(4096, biggest.fill_percent), _LAZY)
    of_512mb = record.median(small, _LAZY)
    return {
        "lazy_restore_seconds_4gb": max(times, default=None),
        "lazy_restore_4gb_vs_512mb": of_4gb / of_512mb if of_4gb and of_512mb else None,
        "lazy_restore_vs_virsh_start": record.ratio(biggest, _VIRSH_START, _LAZY),
        "lazy_read_all_vs_virsh": record.ratio(biggest, read_all, lazy_read_all),
        "eager_restore_vs_dd": _worst(large, lambda cell: record.ratio(cell, _DD_READ, _EAGER)),
        "eager_restore_vs_virsh_start": _worst(large, lambda cell: record.ratio(cell, _VIRSH_START, _EAGER)),
        "dd_vs_virsh_start": _worst(large, lambda cell: record.ratio(cell, _VIRSH_START, _DD_READ)),
    }


def _snapshots(record: Record, cells: Sequence[Cell]) -> Figures:
    """Of the cell whose median is the largest; `worst` is the largest of all samples."""
    gap, plain = Side(_TORPOR, Measure.SNAPSHOT_GAP), Side(_TORPOR, Measure.PLAIN_GAP)
    medians = {cell: value for cell in cells if (value := record.median(cell, gap)) is not None}
    if not medians:
        return {"snapshot_pause_ms": None, "snapshot_pause_worst_ms": None, "no_snapshot_gap_ms": None}
    slowest = max(medians, key=lambda cell: medians[cell])
    return {
        "snapshot_pause_ms": medians[slowest],
        "snapshot_pause_worst_ms": max(value for cell in cells for value in record.values(cell, gap)),
        "no_snapshot_gap_ms": record.median(slowest, plain),
    }


def _running_costs(record: Record, cell: Cell) -> Figures:
    """Random memory accesses a second, as a share of plain QEMU's; `first` is the first pass over the memory.

    And the share of the process's own memory that is in large pages.
    """
    costs: Figures = {}
    for key, contender in (
        ("suspendable", running.DEFAULT),
        ("suspendable_lazily", running.FRESH),
        ("restored_eagerly", running.EAGER),
        ("restored_lazily", running.LAZY),
    ):
        for suffix, measure in (("_first", Measure.WORK), ("", Measure.WORK_AGAIN)):
            plain = Side(running.beside(contender), measure)
            costs[f"work_{key}{suffix}_vs_plain"] = record.ratio(cell, Side(contender, measure), plain)
    for key, contender in (("fresh", running.DEFAULT), ("restored_eagerly", running.EAGER)):
        huge, all_of_it = Side(contender, Measure.HUGE_PAGES), Side(contender, Measure.ANONYMOUS)
        costs[f"huge_pages_share_{key}"] = record.ratio(cell, huge, all_of_it)
    return costs


def _worst(cells: Sequence[Cell], ratio: Callable[[Cell], float | None]) -> float | None:
    return min((found for cell in cells if (found := ratio(cell)) is not None), default=None)

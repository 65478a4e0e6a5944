"""What the benchmark makes of its samples; the measuring itself is tried by running it."""

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from benchmark.states import gang, running
from benchmark.states.bit_flips import Flips, flipped, places
from benchmark.states.limits import LIMITS, judge
from benchmark.states.record import Cell, Measure, Record, Side
from benchmark.states.report import write
from benchmark.states.run import Options, Run
from benchmark.states.summary import by_cell, summarise

SMALL, LARGE = Cell(512, 80), Cell(4096, 80)
OURS = Side("torpor none", Measure.SUSPEND)
THEIRS = Side("virsh managedsave", Measure.SUSPEND)


def recorded(*samples: tuple[Cell, int, Side, float]) -> Record:
    record = Record()
    for cell, number, side, value in samples:
        record.add(cell, number, side.contender, side.measure, value)
    return record


def test_a_ratio_is_of_samples_of_the_same_round() -> None:
    record = recorded(
        (LARGE, 0, OURS, 1.0), (LARGE, 0, THEIRS, 4.0),
        (LARGE, 1, OURS, 10.0), (LARGE, 1, THEIRS, 50.0),  # a slow minute for both
        (LARGE, 2, OURS, 1.0), (LARGE, 2, THEIRS, 6.0),
        (LARGE, 3, OURS, 1.0),  # the other one failed
    )  # fmt: skip
    assert record.ratio(LARGE, THEIRS, OURS) == 5.0


def test_the_summary_is_of_the_worst_of_the_large_guests() -> None:
    slow = Cell(2048, 80)
    record = recorded(
        (SMALL, 0, OURS, 1.0), (SMALL, 0, THEIRS, 1.0),
        (slow, 0, OURS, 1.0), (slow, 0, THEIRS, 4.0),
        (LARGE, 0, OURS, 1.0), (LARGE, 0, THEIRS, 7.0),
    )  # fmt: skip
    assert summarise(record)["first_suspend_vs_managedsave"] == 4.0
    assert by_cell(record)[str(SMALL)]["first_suspend_vs_managedsave"] == 1.0


def test_what_was_not_measured_is_null_not_good() -> None:
    figures = summarise(recorded((SMALL, 0, OURS, 1.0)))
    assert figures["first_suspend_vs_dd"] is None
    assert figures["lazy_restore_seconds_4gb"] is None
    assert figures["snapshot_pause_ms"] is None


def test_lazy_restores_of_large_and_small_guests_are_compared() -> None:
    lazy = Side("torpor none", Measure.LAZY_RESTORE)
    figures = summarise(recorded((SMALL, 0, lazy, 0.5), (LARGE, 0, lazy, 0.6), (Cell(4096, 20), 0, lazy, 0.4)))
    assert figures["lazy_restore_4gb_vs_512mb"] == pytest.approx(1.2)
    assert figures["lazy_restore_seconds_4gb"] == 0.6


def test_the_document_has_a_summary_beside_every_sample(tmp_path: Path) -> None:
    run = Run(recorded((LARGE, 0, OURS, 1.0), (LARGE, 0, THEIRS, 4.0)), Flips(1000, ("1/memory: bit 3 of byte 7",)))
    write(run, Options(), tmp_path / "out.json")
    document = json.loads((tmp_path / "out.json").read_text())
    assert document["summary"]["first_suspend_vs_managedsave"] == 4.0
    assert (document["summary"]["bit_flips"], document["summary"]["bit_flips_missed"]) == (1000, 1)
    assert [(s["contender"], s["memory_mb"], s["value"]) for s in document["samples"]] == [
        ("torpor none", 4096, 1.0),
        ("virsh managedsave", 4096, 4.0),
    ]


def test_a_flipped_bit_is_the_only_change_and_is_taken_back(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(bytes(range(256)))
    with flipped(file, 17, 3):
        assert [(n, byte) for n, byte in enumerate(file.read_bytes()) if byte != n] == [(17, 17 ^ 8)]
    assert file.read_bytes() == bytes(range(256))


def test_bits_are_flipped_only_where_a_state_has_data(tmp_path: Path) -> None:
    file = tmp_path / "file"
    with file.open("wb") as sparse:
        sparse.seek(1 << 20)
        sparse.write(b"x" * 4096)
        sparse.truncate(4 << 20)
    assert places(file) == [(1 << 20, 4096)]


GOOD: dict[str, float | None] = {
    "first_suspend_vs_dd": 0.8,
    "first_suspend_vs_managedsave": 4.0,
    "second_suspend_bytes_share": 0.02,
    "second_suspend_bytes_share_eager": 0.02,
    "second_suspend_vs_managedsave": 25.0,
    "second_suspend_vs_managedsave_eager": 6.0,
    "lazy_restore_seconds_4gb": 0.5,
    "lazy_restore_4gb_vs_512mb": 1.1,
    "lazy_restore_vs_virsh_start": 9.0,
    "lazy_read_all_vs_virsh": 1.3,
    "eager_restore_vs_dd": 0.75,
    "eager_restore_vs_virsh_start": 3.0,
    "snapshot_pause_ms": 50.0,
    "gang_pause_skew_ms": 1.0,
    "clock_off_ms": 20.0,
    "bit_flips": 1000,
    "bit_flips_missed": 0,
}


def judged(tmp_path: Path, summary: dict[str, float | None]) -> tuple[int, str]:
    """Exit code and what `script/bench --check` prints, of a run with this summary."""
    file, printed = tmp_path / "states.json", Console(record=True, width=120, file=io.StringIO())
    file.write_text(json.dumps({"summary": summary}))
    return judge(file, printed), printed.export_text()


def test_a_run_that_keeps_every_limit_passes(tmp_path: Path) -> None:
    code, table = judged(tmp_path, GOOD)
    assert code == 0
    assert "miss" not in table
    assert {limit.key for limit in LIMITS} == set(GOOD)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("first_suspend_vs_dd", 0.74),
        ("first_suspend_vs_managedsave", 3.99),
        ("second_suspend_bytes_share", 0.051),
        ("second_suspend_vs_managedsave", 19.9),
        ("second_suspend_vs_managedsave_eager", 4.9),
        ("lazy_restore_seconds_4gb", 1.01),
        ("lazy_restore_4gb_vs_512mb", 1.21),
        ("lazy_restore_vs_virsh_start", 4.9),
        ("lazy_read_all_vs_virsh", 0.99),
        ("eager_restore_vs_dd", 0.74),
        ("eager_restore_vs_virsh_start", 2.9),
        ("snapshot_pause_ms", 51.0),
        ("bit_flips_missed", 1),
        ("snapshot_pause_ms", None),
    ],
)
def test_one_figure_beyond_its_limit_is_a_miss(tmp_path: Path, key: str, value: float | None) -> None:
    code, table = judged(tmp_path, {**GOOD, key: value})
    assert code == 1
    assert table.count("miss") == 1


def test_a_figure_that_is_not_there_is_a_miss(tmp_path: Path) -> None:
    del (summary := dict(GOOD))["clock_off_ms"]
    assert judged(tmp_path, summary)[0] == 1


def test_what_is_no_run_is_said_to_be_none(tmp_path: Path) -> None:
    (tmp_path / "states.json").write_text("[1]")
    assert judge(tmp_path / "states.json", Console(file=io.StringIO())) == 2


def test_a_stopped_run_has_measured_what_the_summary_speaks_of() -> None:
    assert [str(cell) for cell in Options(sizes=(512, 1024, 4096), fills=(20, 80)).cells][:4] == [
        "4096 MB, 80 %", "512 MB, 80 %", "1024 MB, 80 %", "4096 MB, 20 %",
    ]  # fmt: skip


def test_a_gang_s_figures_are_the_median_and_the_worst() -> None:
    record = Record()
    for number, skew in enumerate((1.0, 9.0, 2.0)):
        record.add(gang.CELL, number, gang.GANG, Measure.PAUSE_SKEW, skew)
    figures = gang.figures(record)
    assert (figures["gang_pause_skew_ms"], figures["gang_pause_skew_worst_ms"]) == (2.0, 9.0)
    assert figures["clock_off_ms"] is None


def test_running_costs_are_beside_the_plain_guest_of_the_same_moment() -> None:
    record = Record()
    for number, (ours, plain) in enumerate(((1.0, 2.0), (10.0, 20.0), (4.0, 5.0))):
        record.add(LARGE, number, running.EAGER, Measure.WORK_AGAIN, ours)
        record.add(LARGE, number, running.beside(running.EAGER), Measure.WORK_AGAIN, plain)
    assert summarise(record)["work_restored_eagerly_vs_plain"] == 0.5

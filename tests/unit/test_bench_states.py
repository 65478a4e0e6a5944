"""What the benchmark makes of its samples; the measuring itself is tried by running it."""

import json
from pathlib import Path

import pytest

from benchmark.states.bit_flips import Flips, flipped, places
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

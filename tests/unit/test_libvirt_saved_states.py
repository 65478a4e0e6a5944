"""Manifests beside images: what counts as whole, as spent, and as somebody else's, without a libvirt."""

import struct
from pathlib import Path

import pytest

pytest.importorskip("libvirt")

from torpor.adapters.libvirt.managed_saves import Image, check
from torpor.adapters.libvirt.manifests import BEGUN, Manifests
from torpor.adapters.libvirt.saved_states import SavedStates
from torpor.domain.errors import StateDamaged
from torpor.domain.instance import StateStatus

WHOLE, SPENT = StateStatus.WHOLE, StateStatus.SPENT


def told(done: int, total: int) -> None:
    assert 0 <= done <= total


@pytest.fixture
def states(tmp_path: Path) -> SavedStates:
    return SavedStates(
        Image(tmp_path / "vm.save"), Manifests(tmp_path / "instances" / "id" / "states"), lambda: 9_000_000
    )


def write_image(states: SavedStates, body: bytes, whole: bool = True, format: int = 0) -> None:
    """As libvirt lays it out: header, XML, QEMU's stream."""
    magic = b"LibvirtQemudSave" if whole else b"LibvirtQemudPart"
    states.image.path.unlink(missing_ok=True)
    states.image.path.write_bytes(struct.pack("=16sIIII", magic, 2, 10, 1, format) + b"<domain/>\0" + body)


def seen(states: SavedStates) -> list[tuple[int, StateStatus]]:
    return [(m.generation, m.status) for m in states.all()]


def test_without_an_image_there_is_no_state(states: SavedStates) -> None:
    assert seen(states) == []
    assert states.whole() is None


def test_an_image_that_was_recorded_is_whole_until_it_is_spent(states: SavedStates) -> None:
    write_image(states, b"one" * 1000)
    first = states.record(5000, told)
    assert seen(states) == [(1, WHOLE)]
    assert (first.memory_bytes, first.image_format, first.libvirt) == (5000, "raw", 9_000_000)
    states.spend(first)
    assert seen(states) == [(1, SPENT)], "though the image is still there"
    states.image.remove()
    states.image.remove()
    assert seen(states) == [(1, SPENT)]
    write_image(states, b"two" * 1000)
    assert states.record(0, told).generation == 2
    assert seen(states) == [(2, WHOLE), (1, SPENT)]


def test_a_half_written_image_is_no_state(states: SavedStates) -> None:
    write_image(states, b"x" * 1000, whole=False)
    assert seen(states) == []


def test_an_image_that_nobody_recorded_is_others_and_is_recorded_once(states: SavedStates) -> None:
    write_image(states, b"x" * 1000, format=1)
    assert seen(states) == [(1, WHOLE)]
    assert (states.all()[0].checksum, states.all()[0].image_format) == ("", "gzip")
    recorded = states.record(0, told)
    assert seen(states) == [(1, WHOLE)]
    check(states.image, recorded.checksum, told)


def test_an_image_that_others_used_up_leaves_a_spent_state(states: SavedStates) -> None:
    write_image(states, b"x" * 1000)
    states.record(0, told)
    states.image.remove()
    assert seen(states) == [(1, SPENT)]


def test_an_image_that_took_the_place_of_ours_is_the_newest_state(states: SavedStates) -> None:
    write_image(states, b"x" * 1000)
    states.record(0, told)
    write_image(states, b"y" * 2000)
    assert seen(states) == [(2, WHOLE), (1, SPENT)]


def test_an_image_of_the_same_size_is_not_taken_for_a_spent_one(states: SavedStates) -> None:
    write_image(states, b"x" * 1000)
    states.spend(states.record(0, told))
    write_image(states, b"y" * 1000)  # its inode may well be the same
    assert seen(states) == [(2, WHOLE), (1, SPENT)]


def test_a_damaged_image_is_still_ours_and_found_out(states: SavedStates) -> None:
    write_image(states, b"x" * 200_000)
    recorded = states.record(0, told)
    with states.image.path.open("r+b") as opened:
        opened.seek(-1, 2)
        opened.write(b"!")
    assert seen(states) == [(1, WHOLE)]
    with pytest.raises(StateDamaged):
        check(states.image, recorded.checksum, told)


def test_an_image_from_a_backup_is_ours(states: SavedStates, tmp_path: Path) -> None:
    write_image(states, b"x" * 200_000)
    states.record(0, told)
    copy = tmp_path / "backup"
    copy.write_bytes(states.image.path.read_bytes())
    copy.replace(states.image.path)
    assert seen(states) == [(1, WHOLE)]


def test_a_damaged_manifest_leaves_an_image_that_counts_as_others(states: SavedStates, tmp_path: Path) -> None:
    write_image(states, b"x" * 1000)
    states.record(0, told)
    (tmp_path / "instances" / "id" / "states" / "1.json").write_text("{")
    assert seen(states) == [(2, WHOLE), (1, SPENT)]


def test_which_process_was_filled_from_it_is_noted_and_forgotten(states: SavedStates) -> None:
    write_image(states, b"x" * 1000)
    states.begin_restore(states.record(0, told))
    assert states.all()[0].restored == BEGUN
    states.end_restore(states.all()[0], "4711 1.5")
    assert states.all()[0].restored == "4711 1.5"
    states.spend(states.all()[0])
    assert states.all()[0].restored == ""


def test_an_image_of_a_format_that_is_not_known_is_named_by_its_number(states: SavedStates) -> None:
    write_image(states, b"x", format=42)
    assert states.image.format() == "format 42"

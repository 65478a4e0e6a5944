"""Sizes and durations, as people write and read them."""

import pytest
import typer

from torpor.cli.quantities import disk, duration, memory, show_bytes, show_mb, show_seconds


@pytest.mark.parametrize(
    ("written", "mebibytes"),
    [("512", 512), ("512M", 512), ("512mb", 512), ("2G", 2048), ("1.5G", 1536), ("1TiB", 1048576), ("2048K", 2)],
)
def test_sizes_are_read(written: str, mebibytes: int) -> None:
    assert memory(written) == mebibytes


@pytest.mark.parametrize("written", ["", "M", "-1", "1.3M", "1e3", "1K", "5 apples", "9" * 40, "\u0661", "0", "0G"])
def test_what_is_no_size_is_refused(written: str) -> None:
    with pytest.raises(typer.BadParameter):
        memory(written)


def test_a_disk_of_no_size_is_as_large_as_the_image() -> None:
    assert disk("0") == 0


@pytest.mark.parametrize(
    ("written", "seconds"),
    [("90", 90), ("90s", 90), ("15m", 900), ("2h", 7200), ("1h30m", 5400), ("0.5s", 0.5), ("1d", 86400)],
)
def test_durations_are_read(written: str, seconds: float) -> None:
    assert duration(written) == seconds


@pytest.mark.parametrize("written", ["", "s", "-5", "5x", "1h-5m", "0", "0h", "inf", "nan", "9" * 40])
def test_what_is_no_duration_is_refused(written: str) -> None:
    with pytest.raises(typer.BadParameter):
        duration(written)


def test_sizes_are_shown_short() -> None:
    assert [show_mb(n) for n in (0, 512, 1024, 1536, 3 * 1024 * 1024)] == ["0", "512M", "1G", "1.5G", "3T"]
    assert [show_bytes(n) for n in (0, 5, 4096, 5 * 1024**2, 3 * 1024**3)] == ["0", "1K", "4K", "5M", "3G"]


def test_durations_are_shown_short() -> None:
    shown = [show_seconds(n) for n in (-1, 0.44, 9.94, 9.96, 59.4, 59.6, 200, 7500, 90000)]
    assert shown == ["0.0 s", "0.4 s", "9.9 s", "10 s", "59 s", "1m 00s", "3m 20s", "2h 05m", "1d 01h"]

"""Sizes and durations, as people write and read them."""

import re

import typer

_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([kmgt]?)(?:i?b)?", re.IGNORECASE)
_MIB = {"k": 1 / 1024, "": 1, "m": 1, "g": 1024, "t": 1024 * 1024}
_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)([smhd]?)", re.IGNORECASE)
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


def _size(text: str) -> int:
    match = _SIZE.fullmatch(text.strip())
    if match is None or len(text) > 30:
        raise typer.BadParameter(f"{text[:40]!r} is not a size; write 512M, 2G or a number of MiB")
    mebibytes = float(match[1]) * _MIB[match[2].lower()]
    if mebibytes != int(mebibytes):
        raise typer.BadParameter(f"{text!r} is not a whole number of MiB")
    return int(mebibytes)


def memory(text: str) -> int:
    """MiB of `512M`, `2G` or `512`; at least 1. Raises typer.BadParameter."""
    size = _size(text)
    if size < 1:
        raise typer.BadParameter(f"{text!r} is less than 1M")
    return size


def disk(text: str) -> int:
    """As `memory`, but 0 is allowed: as large as the image."""
    return _size(text)


def duration(text: str) -> float:
    """Seconds of `90`, `90s`, `15m`, `2h` or `1h30m`; more than 0. Raises typer.BadParameter."""
    compact = text.strip().replace(" ", "")
    parts = _PART.findall(compact)
    if not parts or "".join(number + unit for number, unit in parts) != compact or len(compact) > 30:
        raise typer.BadParameter(f"{text[:40]!r} is not a duration; write 90s, 15m, 2h or a number of seconds")
    seconds = sum(float(number) * _SECONDS[unit.lower()] for number, unit in parts)
    if seconds <= 0:
        raise typer.BadParameter(f"{text!r} is no time at all")
    return seconds


def show_mb(mebibytes: int) -> str:
    """`0`, `512M`, `2G`, `1.5G`."""
    if mebibytes == 0:
        return "0"
    for unit, factor in (("T", 1024 * 1024), ("G", 1024)):
        if mebibytes >= factor:
            return f"{mebibytes / factor:.1f}".removesuffix(".0") + unit
    return f"{mebibytes}M"


def show_bytes(count: int) -> str:
    """`0`, `12K`, `312M`, `1.2G`, in powers of 1024."""
    if count <= 0:
        return "0"
    if count < 1024 * 1024:
        return f"{max(1, count // 1024)}K"
    return show_mb(count // (1024 * 1024))


def show_seconds(seconds: float) -> str:
    """`0.4 s`, `12 s`, `3m 20s`, `2h 05m`, `3d 04h`."""
    if seconds < 9.95:
        return f"{max(0.0, seconds):.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02}s"
    if whole < 86400:
        return f"{whole // 3600}h {whole % 3600 // 60:02}m"
    return f"{whole // 86400}d {whole % 86400 // 3600:02}h"

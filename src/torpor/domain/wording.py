"""Amounts and lists as people read them, for the reasons in plans."""

from collections.abc import Sequence

from torpor.domain.capacity import Resources


def amount(resources: Resources) -> str:
    """`2 vCPUs and 1280 MiB`; parts that are zero are left out."""
    parts = []
    if resources.vcpus:
        parts.append(f"{resources.vcpus} vCPU{'' if resources.vcpus == 1 else 's'}")
    if resources.memory_mb:
        parts.append(f"{resources.memory_mb} MiB")
    if resources.disk_mb:
        parts.append(f"{resources.disk_mb} MiB of disk")
    return listed(parts) if parts else "nothing"


def room(free: Resources, like: Resources) -> str:
    """What is free, in those parts that `like` asks for; zero is said."""
    parts = []
    if like.vcpus:
        parts.append(f"{free.vcpus} vCPU{'' if free.vcpus == 1 else 's'}")
    if like.memory_mb:
        parts.append(f"{free.memory_mb} MiB")
    if like.disk_mb:
        parts.append(f"{free.disk_mb} MiB of disk")
    return listed(parts) if parts else "nothing"


def listed(parts: Sequence[str], most: int = 4) -> str:
    """`a`, `a and b`, `a, b and c`; what is beyond `most` is counted."""
    shown = list(parts[:most])
    if len(parts) > most:
        shown.append(f"{len(parts) - most} more")
    return " and ".join((", ".join(shown[:-1]), shown[-1])) if len(shown) > 1 else "".join(shown)


def seconds(value: float) -> str:
    """`1.2 s`, `45 s`, `3 min`."""
    if value < 10.0:
        return f"{value:.1f} s"
    return f"{value:.0f} s" if value < 120.0 else f"{value / 60.0:.0f} min"

"""Hostnames: which are allowed, and what belongs to one."""

import re
from dataclasses import dataclass

from torpor.domain.errors import Invalid

_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_RESERVED = frozenset({"localhost", "gateway"})


@dataclass(frozen=True, slots=True)
class NameRecord:
    """A hostname (one label, no zone) and its IPv4 address, forward and reverse."""

    name: str
    address: str


def check_label(name: str, what: str = "name", why: str = "it becomes part of hostnames") -> str:
    """Return `name` if it is an RFC 1123 hostname label in lower case, else raise Invalid, which says `why`."""
    if not _LABEL.fullmatch(name):
        raise Invalid(
            f"{what} {name[:80]!r} is not a hostname label",
            detail=why,
            remedy="use 1 to 63 of a-z, 0-9 and '-', beginning and ending with a letter or digit",
        )
    if name in _RESERVED:
        raise Invalid(f"{what} {name!r} is reserved", remedy="choose another name")
    return name


def hostname_of(name: str) -> str:
    """The hostname label that is nearest to a VM's name as its owner wrote it. Raises Invalid where none is near."""
    label = re.sub(r"[^a-z0-9-]+", "-", name.lower()).strip("-")
    return check_label(label[:63].rstrip("-"), f"hostname of VM {name[:80]!r},", "its name was made from the VM's")


def instance_names(workload: str, count: int) -> tuple[str, ...]:
    """Hostnames of a workload's instances: its own name for one, `name-0`, `name-1`, ... for more."""
    check_label(workload, "workload name")
    names = (workload,) if count == 1 else tuple(f"{workload}-{i}" for i in range(count))
    for name in names:
        check_label(name, "hostname")
    return names

"""Which name a port of a network gets: keyed on the port and its server, never on a MAC or a lease."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from torpor.domain.errors import Invalid
from torpor.domain.naming import NameRecord, check_record, hostname_of


@dataclass(frozen=True, slots=True)
class NamedPort:
    """A port that is to have a name."""

    id: str
    name: str
    """As its owner wrote it: the server's, or the port's own."""
    owner: str
    """The server that it is on; the port itself where it is on none."""
    since: str
    """When it was made; text that sorts."""
    address: str = ""
    """IPv4."""
    address6: str = ""
    """IPv6."""
    network: str = ""
    """Id of the network that it is on."""


@dataclass(frozen=True, slots=True)
class Naming:
    """What every port is called, and why some are not."""

    records: tuple[NameRecord, ...]
    """By name."""
    holders: Mapping[str, NamedPort]
    """By name: the port that it leads to."""
    refused: Mapping[str, str]
    """By port: a sentence."""


def name_all(ports: Iterable[NamedPort]) -> Naming:
    """Each name leads to one port: to whoever had it first, as long as that one is there.

    Of a server's several ports the oldest has its name. A port without an address has none yet.
    """
    holders: dict[str, NamedPort] = {}
    records: list[NameRecord] = []
    refused: dict[str, str] = {}
    for port in sorted(ports, key=lambda port: (port.since, port.id)):
        if not port.address and not port.address6:
            continue
        try:
            record = _record(port.name, port.address, port.address6)
        except Invalid as error:
            refused[port.id] = f"{port.name!r} is not published: {error}"
            continue
        holder = holders.setdefault(record.name, port)
        if holder is port:
            records.append(record)
        elif holder.owner != port.owner:
            refused[port.id] = (
                f"{record.name} leads to {holder.address or holder.address6}, which had the name first, "
                f"and not to {port.address or port.address6} of {port.owner}: give one of them another name."
            )
    return Naming(tuple(sorted(records, key=lambda record: record.name)), holders, refused)


@lru_cache(maxsize=2**15)  # of ten thousand ports that are looked at every second hardly one has changed
def _record(name: str, address: str, address6: str) -> NameRecord:
    """Raises Invalid."""
    return check_record(NameRecord(hostname_of(name), address, address6))

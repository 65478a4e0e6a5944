"""Whom the host has heard on its Ethernets, as the kernel lists them.

libvirt offers the same (`VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_ARP`), but libvirt 9 can't read the table of newer kernels:
"wrong nlmsg len".
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_TABLE = Path("/proc/net/arp")
_COMPLETE = 0x2


@dataclass(frozen=True, slots=True)
class Neighbour:
    mac: str
    """Lower case."""
    address: str
    device: str


def neighbours() -> Sequence[Neighbour]:
    return parse_neighbours(_TABLE.read_text())


def parse_neighbours(table: str) -> Sequence[Neighbour]:
    """Those that have answered, from the text of /proc/net/arp: a line of headings, then a line a neighbour."""
    entries = (line.split() for line in table.splitlines()[1:])
    return tuple(
        Neighbour(mac.lower(), address, device)
        for address, _, flags, mac, _, device in entries
        if int(flags, 16) & _COMPLETE
    )

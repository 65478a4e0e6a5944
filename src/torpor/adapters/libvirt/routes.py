"""The host's own IPv4 routes, as the kernel lists them."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

_ROUTES = Path("/proc/net/route")
_GATEWAY = 0x2
_NO_DEVICE = "*"


@dataclass(frozen=True, slots=True)
class Route:
    """A route other than a default route."""

    destination: IPv4Network
    device: str
    """Empty where the route leads nowhere."""
    connected: bool
    """The network is on the device itself, not behind a router."""


def overlapping(subnet: IPv4Network) -> Sequence[Route]:
    """Routes of the main table that lead to a part of `subnet`, or to more than it."""
    return tuple(route for route in parse_routes(_ROUTES.read_text()) if route.destination.overlaps(subnet))


def parse_routes(table: str) -> Sequence[Route]:
    """Routes but default ones, from the text of /proc/net/route: a line of headings, then a line a route.

    Addresses and masks are the network's bytes, printed as one hexadecimal number of this machine.
    """
    routes = []
    for line in table.splitlines()[1:]:
        device, destination, _, flags, _, _, _, mask, *_ = line.split()
        network = IPv4Network((_address(destination), str(_address(mask))))
        device = "" if device == _NO_DEVICE else device
        if network.prefixlen > 0:
            routes.append(Route(network, device, bool(device) and not int(flags, 16) & _GATEWAY))
    return tuple(routes)


def _address(hexadecimal: str) -> IPv4Address:
    return IPv4Address(struct.pack("=I", int(hexadecimal, 16)))

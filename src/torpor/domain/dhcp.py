"""DHCP that gives every port its own address and nothing else: who gets what, as data."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PinnedLease:
    """What the interface with this MAC is leased, whenever it asks."""

    mac: str
    """Six lower-case hex pairs joined by colons."""
    address: str
    """IPv4, of one of the subnets."""
    name: str = ""
    """Hostname that the client is told; empty for none."""


@dataclass(frozen=True, slots=True)
class DhcpSubnet:
    """An IPv4 subnet on which DHCP is served, and what its clients are told beside their address."""

    cidr: str
    server: str
    """The DHCP server's own address there."""
    router: str = ""
    """Their default route; empty for none."""
    dns: tuple[str, ...] = ()
    """Name servers, in the order in which they are to be asked."""
    routes: tuple[tuple[str, str], ...] = ()
    """Further routes: destination (CIDR) and next hop."""


@dataclass(frozen=True, slots=True)
class DhcpService:
    """All that a DHCP server needs to be told. Who is not among the leases is not answered."""

    zone: str
    """Domain of the clients' hostnames."""
    subnets: tuple[DhcpSubnet, ...]
    leases: tuple[PinnedLease, ...]
    mtu: int = 0
    """Bytes; 0 where nothing is to be said of it."""
    forwarders: tuple[str, ...] = ()
    """Name servers that are asked for names outside the zone, where the DHCP server answers for names as well."""

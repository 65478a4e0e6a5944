"""A Neutron port of ours, plugged in on this machine: in a network namespace, on the bridge of its network.

As Neutron's own DHCP agent does it on a Linux bridge: one end of a veth pair is called after the port, and the Linux
bridge agent, which looks for such names, puts it on the bridge of the port's network. The other end, with the port's
MAC and addresses, is in the namespace.
"""

from dataclasses import dataclass
from pathlib import Path

from torpor.domain.errors import MissingPart
from torpor.iproute import parse_addresses, parse_links, run

INTERFACE = "port0"
_NAMESPACES = Path("/run/netns")


@dataclass(frozen=True, slots=True)
class Plugged:
    """A port, as it is to be plugged in."""

    id: str
    mac: str
    addresses: tuple[str, ...]
    """IPv4, with prefix lengths."""
    mtu: int
    gateway: str = ""
    """Empty for none."""


def namespace_of(network: str, purpose: str) -> str:
    """Where our port for that purpose on the Neutron network is."""
    return f"torpor-{purpose}-{network[:13]}"


def is_there(namespace: str) -> bool:
    """Whether it is a mounted namespace; after a crash in between it may be an empty file."""
    try:
        return (_NAMESPACES / namespace).stat().st_dev != _NAMESPACES.stat().st_dev
    except OSError:
        return False


def plug_in(namespace: str, port: Plugged) -> bool:
    """Converges. Returns whether the interface is a new one. Raises MissingPart, BackendFailed."""
    if not is_there(namespace):
        if (_NAMESPACES / namespace).exists():
            run(["ip", "netns", "del", namespace])
        run(["ip", "netns", "add", namespace])
    outer, inside = _device(port.id), ["ip", "-n", namespace]
    new = outer not in _links() or INTERFACE not in _links(namespace)
    if new:
        if outer in _links():
            run(["ip", "link", "del", outer])
        if INTERFACE in _links(namespace):
            run([*inside, "link", "del", INTERFACE])
        run(["ip", "link", "add", outer, "type", "veth", "peer", "name", INTERFACE, "netns", namespace])
    # Without IPv6 addresses of their own making; the kernel wants to be told before they are up.
    settings = ["mtu", str(port.mtu), "addrgenmode", "none"]
    run(["ip", "link", "set", outer, *settings])
    run(["ip", "link", "set", outer, "up"])
    run([*inside, "link", "set", INTERFACE, "address", port.mac, *settings])
    for link in ("lo", INTERFACE):
        run([*inside, "link", "set", link, "up"])
    there = parse_addresses(run([*inside, "-json", "-4", "addr", "show", "dev", INTERFACE]))
    for stale in there - set(port.addresses):
        run([*inside, "addr", "del", stale, "dev", INTERFACE])
    for missing in sorted(set(port.addresses) - there):
        run([*inside, "addr", "add", missing, "dev", INTERFACE])
    if port.gateway:
        run([*inside, "route", "replace", "default", "via", port.gateway])
    return new


def unplug(namespace: str, port: str) -> None:
    """Take it away, namespace and all. Converges. Raises MissingPart, BackendFailed."""
    if port and _device(port) in _links():
        run(["ip", "link", "del", _device(port)])
    if (_NAMESPACES / namespace).exists():
        run(["ip", "netns", "del", namespace])


def require_bridge(vif_type: str, host: str) -> None:
    """Raises MissingPart where Neutron could not bind a port to this machine, or not so that it can be plugged in."""
    if vif_type == "bridge":
        return
    what = f"no port of this machine ({host}) can be plugged into the network"
    if vif_type == "binding_failed":
        raise MissingPart(
            what, detail="Neutron knows no agent there that has the network",
            remedy="run this on a compute or network host, under the name in `openstack network agent list` (--host)",
        )  # fmt: skip
    raise MissingPart(
        what, detail=f"its agent would have it as {vif_type or 'nothing'}, and Torpor knows Linux bridges only",
        remedy="run a DHCP server on a VM; `torpor doctor network NETWORK --dhcp-server VM --fix` lets it be heard",
    )  # fmt: skip


def _device(port: str) -> str:
    """As Neutron's Linux bridge agent finds it."""
    return f"tap{port[:11]}"


def _links(namespace: str = "") -> set[str]:
    inside = ["-n", namespace] if namespace else []
    return set(parse_links(run(["ip", *inside, "-json", "-details", "link", "show"])))

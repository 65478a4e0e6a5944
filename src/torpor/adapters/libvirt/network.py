"""The guests' network as a libvirt network: a bridge on the host, whose own address there is the gateway's.

libvirt hands out no addresses on it, answers no names and, unless NAT is asked for, writes no firewall rules: the
addresses come by config drive, the names from Torpor's own server. It is a persistent network like any other, so
that `virsh net-list` shows it and an owner may put a domain of their own on it.
"""

import threading
from collections.abc import Sequence
from pathlib import Path

import libvirt

from torpor.adapters.libvirt.connection import Connection
from torpor.adapters.libvirt.network_xml import (
    LibvirtNetworkSettings,
    NetworkShape,
    network_xml,
    parse_shape,
    wanted_shape,
)
from torpor.adapters.libvirt.routes import Route, overlapping
from torpor.domain.errors import Conflict, TorporError
from torpor.ports import Check

_LINKS = Path("/sys/class/net")
_FORWARDING = Path("/proc/sys/net/ipv4/ip_forward")


class LibvirtNetwork:
    """The network of one host. Thread-safe. Errors: Conflict, MissingPart, BackendFailed."""

    def __init__(self, connection: Connection, settings: LibvirtNetworkSettings) -> None:
        self._connection = connection
        self._settings = settings
        self._lock = threading.Lock()

    def ensure(self) -> None:
        """Have the network defined as the settings say, and active. Converges.

        Raises Conflict when its name, bridge or subnet is in use for something else, and when it would have to
        change under guests that are on it.
        """
        with self._lock, self._connection.call(f"{self._title} can't be made") as host:
            there = self._find(host)
            live = _live_shape(there)
            self._refuse_overlap(live)
            wanted = wanted_shape(self._settings)
            if there is not None and live not in (None, wanted):
                self._refuse_in_use(live, "its settings have changed since it was made")
                there.destroy()
                live = None
            if live is None:
                self._refuse_taken_bridge(host)
            if there is None or not there.isPersistent() or _kept_shape(there) != wanted:
                there = host.networkDefineXML(network_xml(self._settings))
            if live is None:
                _start(there, forwards=self._settings.nat)

    def remove(self) -> None:
        """Take it away, and leave the host as it was. Converges; leaves a network alone that is not ours.

        Raises Conflict while VMs are on it.
        """
        with self._lock, self._connection.call(f"{self._title} can't be removed") as host:
            there = _lookup(host, self._settings.name)
            if there is None or there.UUIDString() != self._settings.uuid:
                return
            self._refuse_in_use(_live_shape(there), "it can't be removed")
            if there.isActive():
                there.destroy()
            if there.isPersistent():
                there.undefine()

    def checks(self) -> Sequence[Check]:
        """What this network needs of the machine. Never raises."""
        return (self._check_subnet(), self._check_made())

    @property
    def _title(self) -> str:
        return f"libvirt's network {self._settings.name!r}"

    # --- libvirt's networks ---

    def _find(self, host: libvirt.virConnect) -> libvirt.virNetwork | None:
        """Ours, if it is defined. Raises Conflict for somebody else's of that name."""
        there = _lookup(host, self._settings.name)
        if there is not None and there.UUIDString() != self._settings.uuid:
            raise Conflict(
                f"libvirt has a network {self._settings.name!r} that is not Torpor's",
                remedy="set libvirt.network to another name",
            )
        return there

    def _refuse_taken_bridge(self, host: libvirt.virConnect) -> None:
        """libvirt would take the name of a bridge that is not there now, and fail at the start of either network."""
        bridge, remedy = self._settings.bridge, "set network.interface to another name"
        for other in host.listAllNetworks():
            if other.UUIDString() != self._settings.uuid and parse_shape(other.XMLDesc()).bridge == bridge:
                raise Conflict(f"libvirt's network {other.name()!r} has a bridge {bridge!r} already", remedy=remedy)
        if (_LINKS / bridge).exists():
            raise Conflict(
                f"interface {bridge!r} is there already and is not Torpor's",
                remedy=f"{remedy}, or remove it with `ip link del {bridge}`",
            )

    def _refuse_in_use(self, live: NetworkShape | None, why: str) -> None:
        """libvirt would pull the bridge from under guests, and not put them back on it."""
        ports = _ports(live.bridge) if live else ()
        if ports:
            raise Conflict(
                f"{self._title} is left as it is",
                detail=f"{why}, and VMs are on it ({', '.join(ports)})",
                remedy="suspend or stop the VMs that are on it, then try again",
            )

    # --- subnet ---

    def _overlapping(self, live: NetworkShape | None) -> Sequence[Route]:
        own = {self._settings.bridge} | ({live.bridge} if live else set())
        return tuple(route for route in overlapping(self._settings.subnet) if route.device not in own)

    def _refuse_overlap(self, live: NetworkShape | None) -> None:
        """A wider network behind a router only loses our part of it, which may be meant; all else would break."""
        subnet = self._settings.subnet
        for route in self._overlapping(live):
            if route.connected or route.destination.subnet_of(subnet):
                raise Conflict(
                    f"network {subnet} can't be used for guests",
                    detail=f"the host reaches {route.destination} through {route.device or 'another route'}",
                    remedy="set network.subnet to a network that is not in use",
                )

    def _check_subnet(self) -> Check:
        name, remedy = "network: subnet", "set network.subnet to a network that is not in use"
        found = self._overlapping(None)
        if not found:
            return Check(name, True, f"{self._settings.subnet} is used for nothing else")
        routes = ", ".join(f"{route.destination} through {route.device or 'no device'}" for route in found)
        return Check(name, False, f"{self._settings.subnet} overlaps {routes}", remedy)

    def _check_made(self) -> Check:
        """The daemon makes it at its start; somebody may have stopped it since, or kept it from being made."""
        name, wanted = "network: made", wanted_shape(self._settings)
        try:
            with self._connection.call(f"{self._title} can't be looked at") as host:
                live = _live_shape(self._find(host))
        except TorporError as error:
            return Check(name, False, error.problem.sentence, error.remedy)
        if live == wanted:
            where = f"guests and host meet on {wanted.bridge}, {wanted.address}"
            return Check(name, True, f"{where}: {self._title}")
        return Check(
            name,
            False,
            f"{self._title} {'does not run' if live is None else 'is not as configured'}",
            "restart the daemon (`torpor down`, then any command); its log says what is in the way",
        )


def _lookup(host: libvirt.virConnect, name: str) -> libvirt.virNetwork | None:
    return next((network for network in host.listAllNetworks() if network.name() == name), None)


def _live_shape(network: libvirt.virNetwork | None) -> NetworkShape | None:
    """As it runs; None where it does not."""
    return parse_shape(network.XMLDesc()) if network is not None and network.isActive() else None


def _kept_shape(network: libvirt.virNetwork) -> NetworkShape:
    """As it will be at its next start."""
    return parse_shape(network.XMLDesc(libvirt.VIR_NETWORK_XML_INACTIVE))


def _ports(bridge: str) -> Sequence[str]:
    """Interfaces on a bridge, whoever put them there; libvirt itself knows only those that came by the network."""
    folder = _LINKS / bridge / "brif"
    return sorted(port.name for port in folder.iterdir()) if folder.is_dir() else ()


def _start(network: libvirt.virNetwork, forwards: bool) -> None:
    """Without NAT the host does not begin to forward: libvirt switches that on for every network but isolated ones."""
    before = _FORWARDING.read_text()
    network.create()
    if not forwards and before.strip() == "0":
        _FORWARDING.write_text(before)

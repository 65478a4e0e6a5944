"""The guests' network: a bridge in a network namespace of its own, one tap an instance.

A veth pair joins the bridge to the host. The host's end carries the gateway's address, so the
operator's shell and the guests are neighbours on one Ethernet. Nobody answers DHCP on it.
Everything is named after the settings, so that it is found again after a crash, and made
anew after a reboot of the machine.
"""

import hashlib
import os
import pwd
import re
import shutil
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from torpor.adapters.qemu.nat import Nat
from torpor.domain.errors import BackendFailed, Conflict, Invalid, MissingPart
from torpor.domain.ids import InstanceId
from torpor.iproute import Link, Route, parse_addresses, parse_links, parse_routes, run
from torpor.ports import Check

BRIDGE = "br0"
UPLINK = "uplink0"
_TAP_PREFIX = "tap"
_NAMESPACES = Path("/run/netns")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


@dataclass(frozen=True, slots=True)
class NetworkSettings:
    """Raises Invalid for names that the kernel would not take."""

    namespace: str
    interface: str
    """The host's end of the veth pair, at most 15 characters."""
    subnet: IPv4Network
    """Its first address is the gateway's."""
    nat: bool = False

    def __post_init__(self) -> None:
        for what, name, longest in (("namespace", self.namespace, 64), ("interface", self.interface, 15)):
            if not _NAME.fullmatch(name) or len(name) > longest:
                raise Invalid(
                    f"network {what} {name[:80]!r} is not a name that can be used",
                    remedy=f"use at most {longest} letters, digits, '_', '.' and '-'",
                )

    @property
    def gateway(self) -> IPv4Address:
        return self.subnet.network_address + 1

    @property
    def gateway_mac(self) -> str:
        """The same after every reboot, for a restored guest still has it in its ARP cache."""
        digest = hashlib.sha256(f"{self.namespace} {self.interface} {self.subnet}".encode()).digest()
        return ":".join(f"{byte:02x}" for byte in b"\x02" + digest[:5])


@dataclass(frozen=True, slots=True)
class Tap:
    """A tap interface, and the network namespace that it is in."""

    namespace: str
    name: str


def tap_name(instance: InstanceId) -> str:
    """15 characters, the longest name that the kernel takes: 48 random bits of the instance's UUID."""
    return _TAP_PREFIX + instance.replace("-", "")[:12]


class BridgeNetwork:
    """The network of one host. Needs root. Thread-safe. Errors: MissingPart, Conflict, BackendFailed."""

    def __init__(self, settings: NetworkSettings) -> None:
        self._settings = settings
        self._nat = Nat(settings.interface, settings.subnet)
        self._lock = threading.Lock()

    def ensure(self) -> None:
        """Have the whole network there but the taps. Converges.

        Raises Conflict when the subnet or the interface's name is in use for something else.
        """
        with self._lock:
            self._refuse_overlap()
            self._ensure_namespace()
            self._ensure_bridge()
            self._ensure_veth()
            self._ensure_gateway()
            if self._settings.nat:
                self._nat.add()
            else:
                self._nat.remove()

    def tap(self, instance: InstanceId, user: str) -> Tap:
        """A tap on the bridge that a process of `user` may open. Converges."""
        name, namespace = tap_name(instance), self._settings.namespace
        try:
            uid = pwd.getpwnam(user).pw_uid
        except KeyError as error:
            raise MissingPart(
                f"there is no user {user!r} to own a tap", remedy="create it, or set qemu.user to another one"
            ) from error
        with self._lock:
            there = self._links(namespace).get(name)
            if there is not None and there.owner not in (user, str(uid)):
                self._ip("link", "del", name, inside=True)
                there = None
            if there is None:
                self._ip("tuntap", "add", "dev", name, "mode", "tap", "user", str(uid), inside=True)
            self._up(name, "master", BRIDGE, inside=True)
        return Tap(namespace, name)

    def remove_tap(self, instance: InstanceId) -> None:
        """Converges."""
        name = tap_name(instance)
        with self._lock:
            if self._namespace_works() and name in self._links(self._settings.namespace):
                self._ip("link", "del", name, inside=True)

    def taps(self) -> Sequence[Tap]:
        """Every tap on the network, ordered by name."""
        if not self._namespace_works():
            return ()
        links = self._links(self._settings.namespace)
        return tuple(Tap(self._settings.namespace, name) for name in sorted(links) if _is_tap(links[name]))

    def remove(self) -> None:
        """Take everything away, taps too, and leave the host as it was. Converges."""
        with self._lock:
            self._nat.remove()
            if self._namespace_works():
                # A process may hold on to the namespace; its links go at once all the same.
                links = self._links(self._settings.namespace)
                ours = [name for name, link in links.items() if _is_tap(link) or name in (BRIDGE, UPLINK)]
                for name in ours:
                    self._ip("link", "del", name, inside=True)
            if self._is_ours(self._links().get(self._settings.interface)):
                self._ip("link", "del", self._settings.interface)
            if self._namespace_file.exists():
                self._ip("netns", "del", self._settings.namespace)

    def checks(self) -> Sequence[Check]:
        """What this network needs of the machine. Never raises."""
        checks = [
            Check("network: root", os.geteuid() == 0, f"running as uid {os.geteuid()}", "start the daemon as root"),
            _program("ip", "iproute2"),
            Check(
                "network: tap device", Path("/dev/net/tun").exists(), "/dev/net/tun",
                "load the kernel module `tun`",
            ),
        ]  # fmt: skip
        if self._settings.nat:
            checks.append(_program("nft", "nftables"))
        if shutil.which("ip"):
            checks += [self._check_subnet(), self._check_made()]
        return tuple(checks)

    # --- namespace, bridge, veth ---

    @property
    def _namespace_file(self) -> Path:
        return _NAMESPACES / self._settings.namespace

    def _namespace_works(self) -> bool:
        """Whether the file is a mounted namespace; after a crash in between it may be an empty file."""
        try:
            return self._namespace_file.stat().st_dev != _NAMESPACES.stat().st_dev
        except OSError:
            return False

    def _ensure_namespace(self) -> None:
        if self._namespace_works():
            return
        if self._namespace_file.exists():
            self._ip("netns", "del", self._settings.namespace)
        self._ip("netns", "add", self._settings.namespace)

    def _ensure_bridge(self) -> None:
        there = self._links(self._settings.namespace).get(BRIDGE)
        if there is not None and there.kind != "bridge":
            raise Conflict(
                f"namespace {self._settings.namespace!r} has an interface {BRIDGE!r} that is no bridge",
                remedy="set network.namespace to another name",
            )
        if there is None:
            self._ip(
                "link", "add", BRIDGE, "type", "bridge", "stp_state", "0", "forward_delay", "0", "mcast_snooping", "0",
                inside=True,
            )  # fmt: skip
        self._up(BRIDGE, inside=True)
        self._ip("link", "set", "lo", "up", inside=True)

    def _ensure_veth(self) -> None:
        interface, namespace = self._settings.interface, self._settings.namespace
        outer, inner = self._links().get(interface), self._links(namespace).get(UPLINK)
        if outer is None or inner is None or (outer.index, outer.peer_index) != (inner.peer_index, inner.index):
            if outer is not None and not self._is_ours(outer):
                raise Conflict(
                    f"interface {interface!r} is there already and is not Torpor's",
                    remedy=f"set network.interface to another name, or remove it with `ip link del {interface}`",
                )
            if inner is not None:
                self._ip("link", "del", UPLINK, inside=True)
            if interface in self._links():
                self._ip("link", "del", interface)
            self._ip("link", "add", interface, "type", "veth", "peer", "name", UPLINK, "netns", namespace)
        self._up(UPLINK, "master", BRIDGE, inside=True)

    def _is_ours(self, link: Link | None) -> bool:
        """A veth with the gateway's address, or with none: all that we can have left behind."""
        if link is None or link.kind != "veth":
            return False
        return self._addresses(link.name) <= {self._gateway_with_prefix}

    def _ensure_gateway(self) -> None:
        interface, wanted = self._settings.interface, self._gateway_with_prefix
        self._up(interface, "address", self._settings.gateway_mac)
        present = self._addresses(interface)
        for stale in present - {wanted}:
            self._ip("addr", "del", stale, "dev", interface)
        if wanted not in present:
            self._ip("addr", "add", wanted, "dev", interface)

    @property
    def _gateway_with_prefix(self) -> str:
        return f"{self._settings.gateway}/{self._settings.subnet.prefixlen}"

    # --- subnet ---

    def _overlapping(self) -> Sequence[Route]:
        routes = parse_routes(self._ip("-json", "-4", "route", "show"))
        return tuple(
            route
            for route in routes
            if route.device != self._settings.interface and route.destination.overlaps(self._settings.subnet)
        )

    def _refuse_overlap(self) -> None:
        """A wider network behind a router only loses our part of it, which may be meant; all else would break."""
        subnet = self._settings.subnet
        for route in self._overlapping():
            if route.connected or route.destination.subnet_of(subnet):
                raise Conflict(
                    f"network {subnet} can't be used for guests",
                    detail=f"the host reaches {route.destination} through {route.device or 'another route'}",
                    remedy="set network.subnet to a network that is not in use",
                )

    def _check_made(self) -> Check:
        """The daemon makes it at its start; something else may have taken it down since, or kept it from being made."""
        name, interface = "network: made", self._settings.interface
        try:
            there = self._namespace_works() and interface in self._links()
            there = there and self._gateway_with_prefix in self._addresses(interface)
        except (BackendFailed, MissingPart) as error:
            return Check(name, False, str(error))
        if there:
            return Check(name, True, f"guests and host meet on {interface}, {self._gateway_with_prefix}")
        return Check(
            name,
            False,
            f"{interface} with {self._gateway_with_prefix} is not there",
            "restart the daemon (`torpor down`, then any command); its log says what is in the way",
        )

    def _check_subnet(self) -> Check:
        name, remedy = "network: subnet", "set network.subnet to a network that is not in use"
        try:
            overlapping = self._overlapping()
        except (BackendFailed, MissingPart) as error:
            return Check(name, False, str(error))
        if not overlapping:
            return Check(name, True, f"{self._settings.subnet} is used for nothing else")
        routes = ", ".join(f"{route.destination} through {route.device or 'no device'}" for route in overlapping)
        return Check(name, False, f"{self._settings.subnet} overlaps {routes}", remedy)

    # --- iproute2 ---

    def _links(self, namespace: str | None = None) -> Mapping[str, Link]:
        return parse_links(self._ip("-json", "-details", "link", "show", inside=namespace is not None))

    def _addresses(self, interface: str) -> set[str]:
        return parse_addresses(self._ip("-json", "-4", "addr", "show", "dev", interface))

    def _up(self, link: str, *settings: str, inside: bool = False) -> None:
        """Without IPv6 addresses of its own making; the kernel wants to be told before the link is up."""
        self._ip("link", "set", link, *settings, "addrgenmode", "none", inside=inside)
        self._ip("link", "set", link, "up", inside=inside)

    def _ip(self, *words: str, inside: bool = False) -> str:
        return run(["ip", *(("-n", self._settings.namespace) if inside else ()), *words])


def _is_tap(link: Link) -> bool:
    return link.kind == "tun" and link.name.startswith(_TAP_PREFIX)


def _program(name: str, package: str) -> Check:
    path = shutil.which(name)
    return Check(f"network: {package}", path is not None, path or f"{name} is not there", f"install {package}")

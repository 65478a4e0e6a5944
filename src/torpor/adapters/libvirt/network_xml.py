"""The guests' network as libvirt describes it: XML in, XML out."""

import hashlib
import re
import uuid
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from xml.etree import ElementTree as ET

from torpor.domain.errors import Invalid

_OURS = uuid.UUID("0f6f2cb2-98a4-5f86-b4bb-6b9d3f0f4f3e")
"""Namespace of our networks' UUIDs: by it a network is known as ours, for libvirt 9 keeps no metadata of networks."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


@dataclass(frozen=True, slots=True)
class LibvirtNetworkSettings:
    """Raises Invalid for names that libvirt or the kernel would not take."""

    name: str
    """As libvirt calls it."""
    bridge: str
    """The host's interface, at most 15 characters."""
    subnet: IPv4Network
    """Its first address is the gateway's."""
    nat: bool = False

    def __post_init__(self) -> None:
        for what, name, longest in (("libvirt.network", self.name, 64), ("network.interface", self.bridge, 15)):
            if not _NAME.fullmatch(name) or len(name) > longest:
                raise Invalid(
                    f"{what} {name[:80]!r} is not a name that can be used",
                    remedy=f"use at most {longest} letters, digits, '_', '.' and '-'",
                )

    @property
    def gateway(self) -> IPv4Address:
        return self.subnet.network_address + 1

    @property
    def gateway_mac(self) -> str:
        """The same after every reboot, for a restored guest still has it in its ARP cache."""
        digest = hashlib.sha256(f"{self.name} {self.bridge} {self.subnet}".encode()).digest()
        return ":".join(f"{byte:02x}" for byte in b"\x02" + digest[:5])

    @property
    def uuid(self) -> str:
        return str(uuid.uuid5(_OURS, self.name))


@dataclass(frozen=True, slots=True)
class NetworkShape:
    """What of a network's description is ours to say; two of the same shape are the same network to guests."""

    bridge: str
    mac: str
    address: str
    """Of the host on it, with prefix length; several are joined by spaces."""
    forward: str
    """libvirt's mode; empty where guests are kept from other networks."""
    stp: bool = False
    dhcp: bool = False
    names: bool = False
    """libvirt's own name server answers on it."""


def wanted_shape(settings: LibvirtNetworkSettings) -> NetworkShape:
    address = f"{settings.gateway}/{settings.subnet.prefixlen}"
    return NetworkShape(settings.bridge, settings.gateway_mac, address, "nat" if settings.nat else "open")


def network_xml(settings: LibvirtNetworkSettings) -> str:
    """The description that libvirt is given. Without IPv6: nobody would hand out its addresses."""
    shape = wanted_shape(settings)
    network = ET.Element("network")
    for tag, text in (("name", settings.name), ("uuid", settings.uuid)):
        ET.SubElement(network, tag).text = text
    for tag, attributes in (
        ("forward", {"mode": shape.forward}),
        ("bridge", {"name": shape.bridge, "stp": "off", "delay": "0"}),
        ("mac", {"address": shape.mac}),
        ("dns", {"enable": "no"}),
        ("ip", {"address": str(settings.gateway), "prefix": str(settings.subnet.prefixlen)}),
    ):
        ET.SubElement(network, tag, attributes)
    return ET.tostring(network, encoding="unicode")


def parse_shape(xml: str) -> NetworkShape:
    """Of a network's description, as libvirt shows it."""
    network = ET.fromstring(xml)
    forward, bridge, mac, dns = (network.find(tag) for tag in ("forward", "bridge", "mac", "dns"))
    return NetworkShape(
        bridge="" if bridge is None else bridge.get("name", ""),
        mac="" if mac is None else mac.get("address", "").lower(),
        address=" ".join(_with_prefix(ip) for ip in network.findall("ip")),
        forward="" if forward is None else forward.get("mode", "nat"),
        stp=bridge is not None and bridge.get("stp", "on") != "off",
        dhcp=network.find("ip/dhcp") is not None,
        names=dns is None or dns.get("enable", "yes") != "no",
    )


def _with_prefix(ip: ET.Element) -> str:
    address, prefix = ip.get("address", ""), ip.get("prefix")
    if prefix is None and ip.get("netmask"):
        prefix = str(IPv4Network(f"0.0.0.0/{ip.get('netmask')}").prefixlen)
    return f"{address}/{prefix}"

"""Where a domain is on the network: the addresses that its interfaces have, and where the host meets it."""

import socket
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface
from typing import Any, Protocol

import libvirt
import psutil

from torpor.adapters.libvirt.connection import Connection
from torpor.adapters.libvirt.domain_xml import Described, described
from torpor.adapters.libvirt.neighbours import neighbours
from torpor.adapters.libvirt.network_xml import parse_shape
from torpor.domain.errors import AgentRefused, AgentSilent, BackendFailed
from torpor.domain.ids import InstanceId
from torpor.domain.instance import Instance

_AGENT_SECONDS = 5.0


class Conversation(Protocol):
    def ask(self, command: str, timeout: float, **arguments: object) -> Any: ...


Converse = Callable[[InstanceId], AbstractContextManager[Conversation]]


@dataclass(frozen=True, slots=True)
class Held:
    """An IPv4 address and the MAC of the interface that has it, lower case."""

    mac: str
    address: str


class NotMet(BackendFailed):
    """The host is not on the Ethernet of this guest, so it can't ask there."""


def held(connection: Connection, converse: Converse, instance: InstanceId) -> Sequence[Held]:
    """The domain's IPv4 addresses, those of its first interface first.

    Its agent knows best; without one, what libvirt handed out by DHCP, and else what the host has heard by ARP.
    Raises BackendFailed where nobody knows, InstanceGone.
    """
    try:
        found = _from_agent(converse, instance)
    except (AgentSilent, AgentRefused) as error:
        found = _from_host(connection, instance)
        if not found:
            raise BackendFailed(
                "the VM's address is not known",
                detail=f"no agent tells it ({error.detail}), libvirt has given none, and the host has heard of none",
                remedy="run qemu-guest-agent in the guest",
            ) from error
    return _ordered(found, _description(connection, instance).mac)


def ethernet(connection: Connection, instance: Instance) -> tuple[str, str]:
    """The host's interface on the Ethernet of the domain's first interface, and the host's IPv4 address there.

    Of several addresses the one whose subnet the instance is in. Raises NotMet, InstanceGone.
    """
    domain = _description(connection, instance.id)
    bridge = domain.bridge or _bridge_of(connection, domain.network)
    if not bridge:
        raise NotMet(
            f"{domain.name} can't be asked for its address from this host",
            detail="its first network interface is on no bridge of the host" if domain.mac else "it has no interface",
        )
    own = [a for a in psutil.net_if_addrs().get(bridge, ()) if a.family == socket.AF_INET]
    if not own:
        raise NotMet(
            f"{domain.name} can't be asked for its address from this host",
            detail=f"the host has no IPv4 address on {bridge}",
            remedy=f"give {bridge} an address in the VM's network, or run qemu-guest-agent in the guest",
        )
    near = (a.address for a in own if _in_subnet(instance.address, a.address, a.netmask))
    return bridge, next(near, own[0].address)


# Sources


def _from_agent(converse: Converse, instance: InstanceId) -> Sequence[Held]:
    with converse(instance) as talk:
        answer = talk.ask("guest-network-get-interfaces", _AGENT_SECONDS)
    try:
        return agent_addresses(answer)
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        # A guest may send anything: what can't be made sense of is its failure, not ours.
        raise AgentSilent("the guest agent's answer makes no sense", detail=repr(error)[:300]) from error


def agent_addresses(interfaces: Sequence[Mapping[str, Any]]) -> Sequence[Held]:
    """From the answer to guest-network-get-interfaces. Raises whatever an answer of another shape leads to."""
    return _kept(
        (str(interface.get("hardware-address", "")), str(entry["ip-address"]))
        for interface in interfaces
        for entry in interface.get("ip-addresses", ())
        if entry.get("ip-address-type") == "ipv4"
    )


def _from_host(connection: Connection, instance: InstanceId) -> Sequence[Held]:
    """Leases; what was heard by ARP only of interfaces that have none, for a host may remember older addresses."""
    domain = connection.require(instance)
    with connection.call("the VM's address can't be looked up"):
        if not domain.isActive():
            return ()
        leased = lease_addresses(domain.interfaceAddresses(libvirt.VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_LEASE))
        silent = macs_in(domain.XMLDesc()) - {each.mac for each in leased}
    return (*leased, *(Held(n.mac, n.address) for n in neighbours() if n.mac in silent))


def macs_in(xml: str) -> set[str]:
    """Of all interfaces of a domain, lower case."""
    return {mac.get("address", "").lower() for mac in ET.fromstring(xml).iterfind("devices/interface/mac")}


def lease_addresses(interfaces: Mapping[str, Mapping[str, Any]]) -> Sequence[Held]:
    """From what virDomainInterfaceAddresses returns."""
    return _kept(
        (str(interface.get("hwaddr") or ""), str(entry["addr"]))
        for interface in interfaces.values()
        for entry in interface.get("addrs") or ()
        if entry.get("type") == libvirt.VIR_IP_ADDR_TYPE_IPV4
    )


def _kept(pairs: Iterable[tuple[str, str]]) -> Sequence[Held]:
    """Each once; loopback left out. Raises ValueError for what is no address."""
    found = {Held(mac.lower(), address): None for mac, address in pairs if not IPv4Address(address).is_loopback}
    return tuple(found)


def _ordered(found: Sequence[Held], first: str) -> Sequence[Held]:
    return sorted(found, key=lambda each: each.mac != first)


# What libvirt says of domain and network


def _description(connection: Connection, instance: InstanceId) -> Described:
    """Raises InstanceGone."""
    domain = connection.require(instance)
    with connection.call("the VM can't be looked at"):
        return described(domain.XMLDesc())


def _bridge_of(connection: Connection, network: str) -> str:
    """Of a libvirt network; empty where it has none, or is not there."""
    with connection.call(f"network {network!r} can't be looked at") as host:
        return next((parse_shape(n.XMLDesc()).bridge for n in host.listAllNetworks() if n.name() == network), "")


def _in_subnet(address: str, own: str, netmask: str | None) -> bool:
    return bool(address and netmask) and IPv4Address(address) in IPv4Interface(f"{own}/{netmask}").network

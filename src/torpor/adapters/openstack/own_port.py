"""A port of ours on a Neutron network, plugged in on this machine: to serve DHCP from, or to look around.

It has no port security, for Neutron drops what a port with it sends from UDP port 67. Only an administrator, or a role
with that right, may bind a port to a machine (`binding:host_id`).
"""

from collections.abc import Sequence
from ipaddress import ip_network
from typing import Literal

from torpor.adapters.openstack.cloud import Cloud, Document
from torpor.adapters.openstack.plug import Plugged, namespace_of, plug_in, require_bridge, unplug
from torpor.domain.errors import MissingPart, NotFound

Purpose = Literal["dhcp", "probe"]
_LOWEST_MTU = 576


def is_owner(device_owner: str, purpose: Purpose | None = None) -> bool:
    """Whether a port with this `device_owner` is Torpor's own, on whichever machine."""
    return device_owner == _owner(purpose) if purpose else device_owner.startswith("torpor:")


class OwnPort:
    """One for each network, machine and purpose. One thread's."""

    def __init__(self, cloud: Cloud, network: Document, host: str, purpose: Purpose) -> None:
        """`network` as Neutron has it; `host`: what the Neutron agent on this machine calls it."""
        self._cloud = cloud
        self._network = network
        self._host = host
        self._purpose = purpose

    @property
    def namespace(self) -> str:
        return namespace_of(self._network["id"], self._purpose)

    def find(self) -> Document | None:
        """As Neutron has it."""
        listed = self._cloud.ask(
            "network", "GET", "/ports", "the ports can't be listed",
            query={"network_id": self._network["id"], "device_owner": _owner(self._purpose)},
        )["ports"]  # fmt: skip
        return next((port for port in listed if self.is_it(port)), None)

    def is_it(self, port: Document) -> bool:
        return bool(port["device_owner"] == _owner(self._purpose) and port["device_id"] == self._device)

    def ensure(self, subnets: Sequence[Document]) -> bool:
        """Have it there with an address on each of these subnets, and plugged in. Converges.

        Returns whether its interface is a new one. Raises MissingPart, BackendFailed.
        """
        there = self.find()
        port = self._with_addresses(there, subnets) if there else self._make(subnets)
        try:
            self._require_bound(port)
        except MissingPart:
            if there is None:  # what can't be used is not left behind
                self._delete(port)
            raise
        gateways = [subnet["gateway_ip"] for subnet in subnets if subnet["gateway_ip"]]
        return plug_in(
            self.namespace,
            Plugged(
                port["id"],
                port["mac_address"],
                tuple(f"{address}/{ip_network(s['cidr']).prefixlen}" for s, address in addresses_on(port, subnets)),
                max(int(self._network.get("mtu") or 0), _LOWEST_MTU),
                gateways[0] if gateways else "",
            ),
        )

    def remove(self) -> None:
        """Unplug and delete it. Converges."""
        port = self.find()
        unplug(self.namespace, port["id"] if port else "")
        if port:
            self._delete(port)

    # Parts of the above

    def _require_bound(self, port: Document) -> None:
        if "binding:vif_type" not in port:
            raise MissingPart(
                f"no port can be bound to this machine ({self._host})",
                detail="the account may not see or set binding:host_id",
                remedy="use an administrator's (--cloud)",
            )
        require_bridge(port["binding:vif_type"], self._host)

    def _delete(self, port: Document) -> None:
        try:
            self._cloud.ask("network", "DELETE", f"/ports/{port['id']}", f"port {port['name']} was not deleted")
        except NotFound:
            return

    @property
    def _device(self) -> str:
        return f"torpor-{self._purpose}-{self._host}"

    def _with_addresses(self, port: Document, subnets: Sequence[Document]) -> Document:
        has = {fixed["subnet_id"] for fixed in port["fixed_ips"]}
        missing = [{"subnet_id": subnet["id"]} for subnet in subnets if subnet["id"] not in has]
        if not missing:
            return port
        what = f"port {port['name']} has no address on a subnet"
        wanted = {"port": {"fixed_ips": [*port["fixed_ips"], *missing]}}
        changed: Document = self._cloud.ask("network", "PUT", f"/ports/{port['id']}", what, wanted)["port"]
        return changed

    def _make(self, subnets: Sequence[Document]) -> Document:
        wanted = {
            "network_id": self._network["id"],
            "name": f"torpor-{self._purpose}",
            "device_owner": _owner(self._purpose),
            "device_id": self._device,
            "binding:host_id": self._host,
            "port_security_enabled": False,
            "security_groups": [],
            "fixed_ips": [{"subnet_id": subnet["id"]} for subnet in subnets],
        }
        what = f"there is no port of ours on network {self._network['name']}"
        made: Document = self._cloud.ask("network", "POST", "/ports", what, {"port": wanted})["port"]
        return made


def addresses_on(port: Document, subnets: Sequence[Document]) -> list[tuple[Document, str]]:
    """The subnets on which the port has an address, with that address."""
    at = {fixed["subnet_id"]: str(fixed["ip_address"]) for fixed in port["fixed_ips"]}
    return [(subnet, at[subnet["id"]]) for subnet in subnets if subnet["id"] in at]


def _owner(purpose: Purpose) -> str:
    """`device_owner`: no server's, so it gets no name, and nobody takes it for unused."""
    return f"torpor:{purpose}"

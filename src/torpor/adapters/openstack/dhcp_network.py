"""A Neutron network whose ports are leased their own addresses: implements the `DhcpNetwork` port."""

from collections.abc import Mapping, Sequence

from torpor.adapters.openstack.cloud import Cloud, Document
from torpor.adapters.openstack.named_ports import NeutronPorts
from torpor.adapters.openstack.own_port import OwnPort, addresses_on, is_owner
from torpor.adapters.openstack.plug import namespace_of
from torpor.domain.dhcp import DhcpService, DhcpSubnet, PinnedLease
from torpor.domain.errors import NotFound, Refused
from torpor.domain.named_ports import name_all


class NeutronDhcpNetwork:
    """The network of the cloud's settings, where its id is. One thread's."""

    def __init__(self, cloud: Cloud, host: str, zone: str) -> None:
        """`host`: what the Neutron agent on this machine calls it."""
        self._cloud = cloud
        (self._id,) = cloud.settings.networks
        self._named = NeutronPorts(cloud)
        self._host = host
        self._zone = zone
        self._seen: tuple[Document, list[Document]] | None = None
        """Network and subnets, as they were when our port was last seen to."""

    @property
    def namespace(self) -> str:
        """Where it is plugged in."""
        return namespace_of(self._id, "dhcp")

    def attach(self) -> bool:
        network, subnets = self._network()
        if not subnets:
            raise Refused(
                f"there is nothing to serve on network {network['name']}",
                detail="it has no IPv4 subnet on which Neutron's own DHCP is off",
                remedy="switch that off (openstack subnet set --no-dhcp SUBNET), or let it serve",
            )
        self._seen = network, subnets
        return self._port(network).ensure(subnets)

    def look(self) -> DhcpService:
        named, ports = self._named.listed()
        network, subnets = self._seen or self._network()
        own = self._port(network)
        port = next((each for each in ports if own.is_it(each)), None)
        if port is None:
            raise NotFound("the DHCP server's port is gone", detail="somebody deleted it", remedy="it is made again")
        names = {record.address: record.name for record in name_all(named).records}
        return DhcpService(
            self._zone,
            tuple(_served(subnet, address) for subnet, address in addresses_on(port, subnets)),
            tuple(_leases(ports, subnets, names)),
            int(network.get("mtu") or 0),
            tuple(dict.fromkeys(server for subnet in subnets for server in subnet["dns_nameservers"])),
        )

    def detach(self) -> None:
        try:
            network, _ = self._network()
        except NotFound:
            return
        self._port(network).remove()

    # Parts of the above

    def _port(self, network: Document) -> OwnPort:
        return OwnPort(self._cloud, network, self._host, "dhcp")

    def _network(self) -> tuple[Document, list[Document]]:
        """With its subnets that are served, in an order that stays."""
        network = self._get(f"/networks/{self._id}", "the network can't be looked at")["network"]
        listed = self._get("/subnets", "the subnets can't be listed", network_id=self._id)["subnets"]
        off = [each for each in listed if each["ip_version"] == 4 and not each["enable_dhcp"]]
        return network, sorted(off, key=lambda subnet: str(subnet["id"]))

    def _get(self, path: str, what: str, **query: str) -> Document:
        return self._cloud.ask("network", "GET", path, what, query=query)


def _served(subnet: Document, address: str) -> DhcpSubnet:
    """Guests ask the DHCP server for names: it knows those of the network, and asks the subnet's servers for others."""
    return DhcpSubnet(
        subnet["cidr"],
        address,
        subnet["gateway_ip"] or "",
        (address,),
        tuple((route["destination"], route["nexthop"]) for route in subnet["host_routes"]),
    )


def _leases(ports: Sequence[Document], subnets: Sequence[Document], names: Mapping[str, str]) -> list[PinnedLease]:
    """Of each port the first address that it has on one of the subnets; in the order of addresses."""
    served = {subnet["id"] for subnet in subnets}
    found = []
    for port in ports:
        at = next((fixed["ip_address"] for fixed in port["fixed_ips"] if fixed["subnet_id"] in served), None)
        if at is not None and not is_owner(port["device_owner"]):
            found.append(PinnedLease(port["mac_address"], at, names.get(at, "")))
    return sorted(found, key=lambda lease: tuple(map(int, lease.address.split("."))))

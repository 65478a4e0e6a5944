"""What Neutron and Nova know of a network and the servers on it: implements the `NetworkPictures` port."""

from collections.abc import Callable, Mapping, Sequence

from torpor.adapters.openstack.cloud import Cloud, Document
from torpor.adapters.openstack.own_port import is_owner
from torpor.adapters.openstack.servers import visible
from torpor.domain.address_path import Attached, NetworkPicture, Subnet
from torpor.domain.errors import Invalid, NotFound, TorporError

_DHCP = 67
_LINES = 300
"""Of a console that are looked at."""


class NeutronPictures:
    """As the account of the settings' `cloud`: of what its project may see, and change."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud

    def look(self, subject: str) -> tuple[NetworkPicture, str]:
        network, server = self._find(subject)
        rules = self._get("/security-group-rules", "the security groups can't be looked at")["security_group_rules"]
        ports = self._get("/ports", "the ports can't be listed", network_id=network["id"])["ports"]
        subnets = self._get("/subnets", "the subnets can't be listed", network_id=network["id"])["subnets"]
        servers = {each["id"]: each for each in visible(self._cloud)}
        attached = [
            self._attached(port, servers[port["device_id"]], rules) for port in ports if port["device_id"] in servers
        ]
        ours = [_subnet(each, ports) for each in subnets if each["ip_version"] == 4]
        return NetworkPicture(network["name"] or network["id"], tuple(ours), tuple(attached), network["id"]), server

    def open_port(self, port: str) -> None:
        change = {"port": {"security_groups": [], "port_security_enabled": False}}
        self._cloud.ask("network", "PUT", f"/ports/{port}", f"port {port} keeps its port security", change)

    # Parts of the above

    def _find(self, subject: str) -> tuple[Document, str]:
        """The network of that name or id; or the one on which the server of that name or id has its first port."""
        listed = self._get("/networks", "the networks can't be listed")["networks"]
        if found := [each for each in listed if subject in (each["id"], each["name"])]:
            return _only(found, "networks", subject), ""
        servers = [each for each in visible(self._cloud) if subject in (each["id"], each["name"])]
        if not servers:
            raise NotFound(
                f"there is neither a network nor a server {subject!r}",
                detail="or the account may not see it",
                remedy="see `openstack network list`, `openstack server list`",
            )
        server = _only(servers, "servers", subject)["id"]
        ports = self._get("/ports", "the ports can't be listed", device_id=server)["ports"]
        found = [each for each in listed if ports and each["id"] == ports[0]["network_id"]]
        if not found:
            raise NotFound(f"server {subject!r} is on no network", remedy="openstack server add port SERVER PORT")
        return found[0], server

    def _attached(self, port: Document, server: Document, rules: Sequence[Document]) -> Attached:
        fixed = [each["ip_address"] for each in port["fixed_ips"] if "." in each["ip_address"]]
        groups = port.get("security_groups") or []
        return Attached(
            server=server["id"],
            name=server["name"],
            status=server["status"],
            config_drive=bool(server.get("config_drive")),
            port=port["id"],
            port_up=port["status"] == "ACTIVE",
            mac=port["mac_address"],
            address=fixed[0] if fixed else "",
            security=bool(port.get("port_security_enabled", True)),
            hears_dhcp=any(_lets_dhcp_in(rule) for rule in rules if rule["security_group_id"] in groups),
            console=self._console(server["id"]) if server["status"] == "ACTIVE" else None,
        )

    def _console(self, server: str) -> str | None:
        try:
            answer = self._cloud.compute(
                "POST", f"/servers/{server}/action", "the console can't be read",
                {"os-getConsoleOutput": {"length": _LINES}},
            )  # fmt: skip
        except TorporError:
            return None  # it has none, or the account may not read it
        return str(answer["output"])

    def _get(self, path: str, what: str, **query: str) -> Document:
        return self._cloud.ask("network", "GET", path, what, query=query)


def _only(found: Sequence[Document], kind: str, subject: str) -> Document:
    if len(found) > 1:
        raise Invalid(f"there are {len(found)} {kind} {subject!r}", remedy="give the id of one")
    return found[0]


def _subnet(told: Document, ports: Sequence[Document]) -> Subnet:
    def answering(wanted: Callable[[str], bool]) -> tuple[str, ...]:
        return tuple(
            fixed["ip_address"]
            for port in ports
            if wanted(port["device_owner"]) and port["status"] == "ACTIVE"
            for fixed in port["fixed_ips"]
            if fixed["subnet_id"] == told["id"]
        )

    neutrons = answering(lambda owner: owner == "network:dhcp")
    torpors = answering(lambda owner: is_owner(owner, "dhcp"))
    return Subnet(told["cidr"], bool(told["enable_dhcp"]), neutrons, torpors)


def _lets_dhcp_in(rule: Mapping[str, object]) -> bool:
    """A DISCOVER comes from 0.0.0.0, which is in no group and in no subnet."""
    low, high = rule.get("port_range_min"), rule.get("port_range_max")
    return (
        rule["direction"] == "ingress"
        and rule["ethertype"] == "IPv4"
        and rule.get("protocol") in (None, "udp", "17", "any")
        and (not isinstance(low, int) or not isinstance(high, int) or low <= _DHCP <= high)
        and rule.get("remote_ip_prefix") in (None, "0.0.0.0/0")
        and rule.get("remote_group_id") is None
    )

"""Ports of Neutron networks and what they are called: implements the `NamedPorts` port. Any account will do that may
see them: a project's member sees its own, an administrator everybody's."""

from collections.abc import Iterator, Mapping, Sequence

from torpor.adapters.openstack.cloud import Cloud, Document
from torpor.adapters.openstack.networks import Networks
from torpor.adapters.openstack.servers import visible
from torpor.domain.errors import TorporError
from torpor.domain.named_ports import NamedPort

_GOING = ("deleting", "soft-deleting")


class NeutronPorts:
    """As the account of the settings' `cloud`; of the settings' `networks`. One thread's."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self._networks: Sequence[str] | None = None

    def ports(self) -> Sequence[NamedPort]:
        """Those of servers, of servers that are being deleted no more; and ports on no server that have a name."""
        return self.listed()[0]

    def listed(self) -> tuple[Sequence[NamedPort], Sequence[Document]]:
        """The same, and all ports whatever they are for, as Neutron has them."""
        try:
            networks = self._find()
            listed = [port for network in networks for port in self._ports(network)]
            servers = self._servers() if any(_of_server(port) for port in listed) else {}
        except TorporError:
            self._networks = None  # looked for again: it may have been made anew
            raise
        return tuple(_named(listed, servers)), listed

    def networks(self) -> Sequence[str]:
        """Their ids."""
        return self._find()

    # Parts of the above

    def _find(self) -> Sequence[str]:
        """Ids. Neutron answers a first question for ports with an error, so networks are asked for before."""
        if self._networks is None:
            self._networks = Networks(self._cloud).find("", self._cloud.settings.networks)
        return self._networks

    def _ports(self, network: str) -> list[Document]:
        answer = self._cloud.ask(
            "network", "GET", "/ports", "the ports can't be listed", query={"network_id": network}
        )  # fmt: skip
        found: list[Document] = answer["ports"]
        return found

    def _servers(self) -> Mapping[str, str]:
        """Name by id, of those that stay."""
        return {each["id"]: each["name"] for each in visible(self._cloud) if not _going(each)}


def _going(server: Document) -> bool:
    return server["status"] == "SOFT_DELETED" or server.get("OS-EXT-STS:task_state") in _GOING


def _of_server(port: Document) -> bool:
    return str(port["device_owner"]).startswith("compute:")


def _named(ports: Sequence[Document], servers: Mapping[str, str]) -> Iterator[NamedPort]:
    for port in ports:
        if _of_server(port):
            if port["device_id"] not in servers:
                continue
            name, owner = servers[port["device_id"]], port["device_id"]
        elif not port["device_owner"] and port["name"] and not port["name"].startswith("torpor-"):
            name, owner = port["name"], port["id"]
        else:
            continue  # routers, DHCP servers; and ports of Torpor's own before their servers are there
        fixed = [each["ip_address"] for each in port["fixed_ips"]]
        yield NamedPort(
            port["id"],
            port.get("dns_name") or name,
            owner,
            port.get("created_at") or "",
            next((address for address in fixed if "." in address), ""),
            next((address for address in fixed if ":" in address), ""),
            port["network_id"],
        )

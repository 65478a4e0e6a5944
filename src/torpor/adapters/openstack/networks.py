"""Neutron's part: a port for each interface, made before its server, so that address and MAC are known beforehand."""

from collections.abc import Sequence, Set
from dataclasses import dataclass
from typing import Any

from torpor.adapters.openstack.cloud import Cloud, Document
from torpor.domain.errors import AddressPoolEmpty, BackendFailed, Conflict, Invalid, MissingPart, NotFound, TorporError
from torpor.domain.ids import InstanceId
from torpor.domain.instance import Instance
from torpor.domain.workload import ServerOptions

_PREFIX = "torpor-"


@dataclass(frozen=True, slots=True)
class Port:
    id: str
    name: str
    mac: str
    address: str
    """Its first fixed IPv4 address; empty where it has none."""
    status: str
    host: str
    security: bool


class Networks:
    """Thread-safe. Ports belong to the project of their server."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud

    def find(self, project: str, names: Sequence[str]) -> tuple[str, ...]:
        """Ids of networks that the project may use, by name or id; its only one where none is named.

        Raises NotFound, Invalid.
        """
        listed = self._get(project, "/networks", "the networks can't be listed")["networks"]
        open_ones = [each for each in listed if not each.get("router:external") or each.get("shared")]
        if not names:
            if len(open_ones) == 1:
                return (str(open_ones[0]["id"]),)
            raise Invalid(
                "it is not said on which network the servers are to be",
                detail=f"there are {', '.join(sorted(each['name'] for each in open_ones)) or 'none'}",
                remedy="say --network, or set openstack.networks",
            )
        return tuple(_one(name, listed, "network") for name in names)

    def find_groups(self, project: str, names: Sequence[str]) -> tuple[str, ...]:
        """Ids of security groups, by name or id. Raises NotFound, Invalid."""
        if not names:
            return ()
        listed = self._get(project, "/security-groups", "the security groups can't be listed")["security_groups"]
        return tuple(_one(name, listed, "security group") for name in names)

    def reserve(self, instance: Instance, options: ServerOptions) -> Port:
        """A port on each of the networks; the first one, with the address and MAC that the instance has, if it has.

        Converges. Raises AddressPoolEmpty, Refused, and Conflict or MissingPart where it can't have just those.
        """
        there = {port.name: port for port in self._ports(instance.id, options.project)}
        made = [
            there.get(_name(instance.id, number)) or self._make(instance, number, network, options)
            for number, network in enumerate(options.networks)
        ]
        if not made[0].address:
            raise BackendFailed(
                f"instance {instance.name} has got no address",
                detail="its network has no subnet for IPv4",
                remedy="add one, or choose another network",
            )
        return made[0]

    def ports(self, instance: InstanceId, options: ServerOptions) -> Sequence[str]:
        """Ids of what `reserve` has made, in the order of the networks. Raises NotFound."""
        found = self._ports(instance, options.project)
        if len(found) < len(options.networks):
            raise NotFound(
                f"{len(options.networks) - len(found)} ports of instance {instance} are gone",
                detail="somebody deleted them",
                remedy="delete the workload and run it anew",
            )
        return [port.id for port in found]

    def release(self, instance: InstanceId, project: str) -> None:
        """Delete its ports; in every project where it is not known which it is of. Converges."""
        for each in [project] if project else list(self._cloud.projects()):
            for port in self._ports(instance, each):
                try:
                    self._ask(each, "DELETE", f"/ports/{port.id}", f"port {port.name} was not deleted")
                except NotFound:
                    continue

    def collect(self, known: Set[InstanceId]) -> None:
        """Delete ports that no server uses, of instances that never came to be. Converges."""
        for project in self._cloud.projects():
            for told in self._get(project, "/ports", "the ports can't be listed")["ports"]:
                instance = InstanceId(told["name"].removeprefix(_PREFIX).rpartition("-")[0])
                if told["name"].startswith(_PREFIX) and not told["device_id"] and instance not in known:
                    self._ask(project, "DELETE", f"/ports/{told['id']}", f"port {told['name']} was not deleted")

    # Parts of the above

    def _ports(self, instance: InstanceId, project: str) -> list[Port]:
        """In the order of their numbers."""
        answer = self._get(project, "/ports", "the ports can't be listed", tags=_tag(instance))
        found = [_port(each) for each in answer["ports"]]
        return sorted(found, key=lambda port: int(port.name.rpartition("-")[2]))

    def _make(self, instance: Instance, number: int, network: str, options: ServerOptions) -> Port:
        wanted: Document = {"network_id": network, "name": _name(instance.id, number), "admin_state_up": True}
        if options.security_groups:
            wanted["security_groups"] = list(options.security_groups)
        keeps = number == 0 and instance.address != ""
        if keeps:
            wanted |= {"fixed_ips": [{"ip_address": instance.address}], "mac_address": instance.mac}
        what = f"instance {instance.name} has got no address"
        try:
            made = self._ask(options.project, "POST", "/ports", what, {"port": wanted})["port"]
        except TorporError as error:
            if "no more ip addresses" in error.detail.lower():
                raise AddressPoolEmpty(what, detail=error.detail, remedy="delete something there") from error
            if keeps and (refusal := _not_kept(instance, error)):
                raise refusal from error
            raise
        self._ask(options.project, "PUT", f"/ports/{made['id']}/tags/{_tag(instance.id)}", what)
        return _port(made)

    def _get(self, project: str, path: str, what: str, **query: str) -> Document:
        return self._ask(project, "GET", path, what, None, **query)

    def _ask(
        self, project: str, method: str, path: str, what: str, body: Document | None = None, **query: str
    ) -> Document:
        return self._cloud.ask("network", method, path, what, body, query=query, project=project)


def _not_kept(instance: Instance, error: TorporError) -> TorporError | None:
    """What it means that Neutron makes no port with just that address and MAC; None where it has another reason."""
    what = f"{instance.name} can't keep the address {instance.address} and the MAC {instance.mac}"
    said = error.detail.lower()
    if isinstance(error, MissingPart) and "policy" in said:
        return MissingPart(
            what,
            detail="Neutron lets nobody choose them on a network of another project",
            remedy="give the role `torpor` create_port:fixed_ips:ip_address and create_port:mac_address in Neutron's "
            "policy (see docs/how-to/run-torpor-on-openstack.md), or leave --keep-address out",
        )
    if "already allocated" in said or "is in use" in said:
        return Conflict(
            what,
            detail=error.detail,
            remedy="leave --keep-address out, or delete who has it "
            f"(`openstack port list --fixed-ip ip-address={instance.address}`)",
        )
    if "not a valid ip" in said:
        return Conflict(what, detail=error.detail, remedy="leave --keep-address out")
    return None


def _tag(instance: InstanceId) -> str:
    """Neutron's tags: at most 60 characters."""
    return f"{_PREFIX}{instance}"


def _name(instance: InstanceId, number: int) -> str:
    return f"{_PREFIX}{instance}-{number}"


def _port(told: Document) -> Port:
    fixed = [each["ip_address"] for each in told["fixed_ips"] if "." in each["ip_address"]]
    return Port(
        told["id"],
        told["name"],
        told["mac_address"],
        fixed[0] if fixed else "",
        told["status"],
        told.get("binding:host_id") or "",
        bool(told.get("port_security_enabled", True)),
    )


def _one(name: str, listed: Sequence[Any], what: str) -> str:
    found = [str(each["id"]) for each in listed if name in (each["id"], each["name"])]
    if not found:
        raise NotFound(f"there is no {what} {name!r} in that project", remedy=f"see `openstack {what} list`")
    if len(found) > 1:
        raise Invalid(f"there are {len(found)} {what}s {name!r} in that project", remedy="give its id")
    return found[0]

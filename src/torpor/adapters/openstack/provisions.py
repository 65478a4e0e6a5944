"""What a workload gets before there is room for it: implements the `Provisions` port."""

from collections.abc import Sequence, Set
from dataclasses import replace

from torpor.adapters.openstack.cloud import Cloud, Document
from torpor.adapters.openstack.networks import Networks, Port
from torpor.adapters.openstack.obstacles import obstacle
from torpor.domain.errors import Invalid, NotFound, Refused, TorporError
from torpor.domain.ids import InstanceId
from torpor.domain.instance import Instance
from torpor.domain.workload import Flavor, ServerOptions, Workload

_GIB_MB = 1024
_UNLIMITED = -1


class OpenStackProvisions:
    """Sizes are flavors, addresses are ports."""

    def __init__(self, cloud: Cloud, networks: Networks) -> None:
        self._cloud = cloud
        self._networks = networks

    def settle(self, workload: Workload) -> Workload:
        if workload.command is not None:
            raise Invalid(
                f"workload {workload.name} can't be run so",
                detail="under OpenStack there is no way into a guest by which its command could be run",
                remedy="have --user-data start it",
            )
        said = workload.options
        project, _ = self._cloud.find_project(said.project)
        flavor = self._flavor(project, said.flavor, workload.flavor)
        if workload.preemptible and (why := obstacle(flavor.get("extra_specs") or {}, {})):
            raise Refused(f"workload {workload.name} can't be preemptible", detail=why, remedy="use another flavor")
        self._require_key(said.key_name)
        options = ServerOptions(
            project,
            flavor["id"],
            self._networks.find(project, said.networks or self._cloud.settings.networks),
            said.key_name,
            self._networks.find_groups(project, said.security_groups),
        )
        self._require_quota(project, workload.count, flavor)
        disk_gb = int(flavor["disk"]) + int(flavor.get("OS-FLV-EXT-DATA:ephemeral") or 0)
        size = Flavor(int(flavor["vcpus"]), int(flavor["ram"]), disk_gb * _GIB_MB)
        return replace(workload, flavor=size, options=options)

    def propose(self, instances: Sequence[Instance], taken: Set[str], spare: Sequence[str] = ()) -> Sequence[Instance]:
        """Neutron chooses, when they are reserved; what is to be kept it is asked for then."""
        return instances

    def reserve(self, workload: Workload, instances: Sequence[Instance]) -> Sequence[Instance]:
        network = workload.options.networks[0]
        ports: dict[InstanceId, Port] = {}
        try:
            # Who keeps an address comes first: else Neutron might give it to one that may have any.
            for instance in sorted(instances, key=lambda each: not each.address):
                ports[instance.id] = self._networks.reserve(instance, workload.options)
        except TorporError:
            self.give_back(workload, instances)
            raise
        return tuple(replace(i, address=ports[i.id].address, mac=ports[i.id].mac, network=network) for i in instances)

    def give_back(self, workload: Workload, instances: Sequence[Instance]) -> None:
        for instance in instances:
            self._networks.release(instance.id, workload.options.project)

    # Parts of the above

    def _flavor(self, project: str, name: str, size: Flavor) -> Document:
        """By name or id, or the smallest disk of just that size. Raises NotFound."""
        listed = self._cloud.ask(
            "compute", "GET", "/flavors/detail", "the flavors can't be listed", None, "2.61", project=project
        )
        flavors = [each for each in listed["flavors"] if not each.get("OS-FLV-DISABLED:disabled")]
        if name:
            found = [each for each in flavors if name in (each["id"], each["name"])]
        else:
            found = [each for each in flavors if (each["vcpus"], each["ram"]) == (size.vcpus, size.memory_mb)]
            found = [each for each in found if int(each["disk"]) * _GIB_MB >= size.disk_mb] or found
        if not found:
            offered = ", ".join(f"{f['name']} ({f['vcpus']} vCPUs, {f['ram']} MB)" for f in flavors[:20])
            wanted = repr(name) if name else f"of {size.vcpus} vCPUs and {size.memory_mb} MB"
            raise NotFound(f"there is no flavor {wanted}", detail=f"there are {offered or 'none'}", remedy="use one")
        chosen: Document = min(found, key=lambda each: int(each["disk"]))
        return chosen

    def _require_key(self, name: str) -> None:
        if not name:
            return
        try:
            self._cloud.compute("GET", f"/os-keypairs/{name}", "the key pair can't be looked up")
        except NotFound as error:
            raise NotFound(
                f"Torpor's account has no key pair {name!r}",
                detail="Nova's key pairs belong to users, not to projects",
                remedy="import the public key there, or give it by --user-data",
            ) from error

    def _require_quota(self, project: str, count: int, flavor: Document) -> None:
        """Raises Refused. Nova counts suspended servers, too, unless it takes its figures from Placement."""
        limits = self._cloud.ask(
            "compute", "GET", "/limits", "the quota can't be looked at", None, "2.57", project=project
        )
        absolute = limits["limits"]["absolute"]
        short = [
            f"{what}: {used} of {most} are used, and {more} more are needed"
            for what, most, used, more in (
                ("instances", absolute["maxTotalInstances"], absolute["totalInstancesUsed"], count),
                ("cores", absolute["maxTotalCores"], absolute["totalCoresUsed"], count * int(flavor["vcpus"])),
                ("ram (MB)", absolute["maxTotalRAMSize"], absolute["totalRAMUsed"], count * int(flavor["ram"])),
            )
            if most != _UNLIMITED and used + more > most
        ]
        if short:
            raise Refused(
                "the project's quota does not allow it",
                detail="; ".join(short),
                remedy="have it raised, or have Nova count by Placement ([quota] count_usage_from_placement), which "
                "leaves out what suspended servers have given back",
            )

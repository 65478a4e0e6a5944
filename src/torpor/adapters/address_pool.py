"""Provisions of a backend that has addresses of its own to give: the lowest free ones of a subnet."""

from collections.abc import Sequence, Set
from dataclasses import replace

from torpor.domain.addressing import free_addresses, in_pool, mac_of
from torpor.domain.errors import Conflict, Invalid
from torpor.domain.instance import Instance
from torpor.domain.workload import NO_OPTIONS, Workload


class AddressPool:
    """The Provisions port. What is in the records is reserved, so there is nothing else to keep."""

    def __init__(self, subnet: str) -> None:
        """`subnet` in CIDR notation; its first address is the gateway's."""
        self._subnet = subnet

    def settle(self, workload: Workload) -> Workload:
        """Raises Invalid for options that only a cloud has."""
        if workload.options != NO_OPTIONS:
            raise Invalid(
                f"workload {workload.name} can't be run so",
                detail="projects, flavors, networks, key pairs and security groups are OpenStack's",
                remedy='leave them out, or use `backend = "openstack"`',
            )
        return workload

    def propose(self, instances: Sequence[Instance], taken: Set[str], spare: Sequence[str] = ()) -> Sequence[Instance]:
        kept = {instance.address for instance in instances if instance.address}
        for instance in instances:
            if instance.address and not in_pool(self._subnet, instance.address):
                raise Conflict(
                    f"{instance.name} can't keep the address {instance.address}",
                    detail=f"it is none of {self._subnet} any more",
                    remedy="leave --keep-address out",
                )
        bare = [instance for instance in instances if not instance.address]
        fresh = iter(free_addresses(self._subnet, taken | kept, len(bare), spare))
        return tuple(i if i.address else replace(i, address=next(fresh), mac=mac_of(i.id)) for i in instances)

    def reserve(self, workload: Workload, instances: Sequence[Instance]) -> Sequence[Instance]:
        return instances

    def give_back(self, workload: Workload, instances: Sequence[Instance]) -> None:
        """Nothing is kept."""

"""Provisions of a backend that has addresses of its own to give: the lowest free ones of a subnet."""

from collections.abc import Sequence, Set
from dataclasses import replace

from torpor.domain.addressing import free_addresses, mac_of
from torpor.domain.errors import Invalid
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

    def propose(self, instances: Sequence[Instance], taken: Set[str]) -> Sequence[Instance]:
        addresses = free_addresses(self._subnet, taken, len(instances))
        return tuple(
            replace(instance, address=address, mac=mac_of(instance.id))
            for instance, address in zip(instances, addresses, strict=True)
        )

    def reserve(self, workload: Workload, instances: Sequence[Instance]) -> Sequence[Instance]:
        return instances

    def give_back(self, workload: Workload, instances: Sequence[Instance]) -> None:
        """Nothing is kept."""

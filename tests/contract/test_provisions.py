"""The contract of `ports.Provisions` where it is about addresses: on the pool, and on a Neutron in memory.

`script/test openstack` has it on the lab's.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import pytest

from torpor.adapters.address_pool import AddressPool
from torpor.domain.errors import Conflict
from torpor.domain.ids import InstanceId, WorkloadId
from torpor.domain.instance import Instance
from torpor.domain.workload import Flavor, ServerOptions, Workload
from torpor.ports import Provisions

KINDS = ["openstack"] if os.environ.get("TORPOR_CONTRACT_ON_LAB") else ["pool", "neutron-in-memory"]
MAC = "fa:16:3e:5f:21:aa"


@dataclass
class Provider:
    """Provisions as the engine uses them: what it has accepted is in its records, and is others' no more."""

    provisions: Provisions
    workload: Workload
    """Whose instances they are; it is settled."""
    accepted: list[Instance] = field(default_factory=list)

    def accept(self, *instances: Instance) -> list[Instance]:
        proposed = self.provisions.propose(instances, {instance.address for instance in self.accepted})
        reserved = list(self.provisions.reserve(self.workload, proposed))
        self.accepted += reserved
        return reserved

    def forget(self, instance: Instance) -> None:
        self.provisions.give_back(self.workload, [instance])
        self.accepted.remove(instance)

    def new(self, index: int = 0) -> Instance:
        id = str(uuid.uuid4())
        return Instance(InstanceId(id), self.workload.id, f"t-{id[:8]}", index, "", "")


def workload(project: str = "", *networks: str) -> Workload:
    said = ServerOptions(project=project, networks=networks)
    return Workload(WorkloadId(str(uuid.uuid4())), "t", "tiny", Flavor(1, 256), 1, 0, time.time(), options=said)


@pytest.fixture(scope="module")
def lab() -> Iterator[Provisions]:
    from tests.lab_machines import lab_bench  # needs openstacksdk, which other tiers go without

    with lab_bench() as bench:
        yield bench.backend.provisions


@pytest.fixture(params=KINDS)
def provider(request: pytest.FixtureRequest) -> Iterator[Provider]:
    if request.param == "pool":
        yield Provider(AddressPool("10.10.0.0/29"), workload())
    elif request.param == "neutron-in-memory":
        from tests.neutron import NETWORK, PROJECT, Neutron

        from torpor.adapters.openstack.networks import Networks
        from torpor.adapters.openstack.provisions import OpenStackProvisions

        cloud = Neutron().cloud
        yield Provider(OpenStackProvisions(cloud, Networks(cloud)), workload(PROJECT, NETWORK))
    else:
        provisions = request.getfixturevalue("lab")
        made = Provider(provisions, provisions.settle(workload("demo", "n1")))
        yield made
        for instance in tuple(made.accepted):
            made.forget(instance)


def test_every_new_instance_has_an_address_and_a_mac_of_its_own(provider: Provider) -> None:
    found = [*provider.accept(provider.new(0), provider.new(1)), *provider.accept(provider.new())]
    assert len({i.address for i in found} - {""}) == len({i.mac for i in found} - {""}) == 3


def test_who_has_an_address_and_a_mac_already_gets_just_those_and_others_do_not(provider: Provider) -> None:
    (before,) = provider.accept(provider.new())
    provider.forget(before)
    again = replace(provider.new(1), address=before.address, mac=before.mac, network=before.network)
    first, kept, third = provider.accept(provider.new(0), again, provider.new(2))
    assert (kept.address, kept.mac, kept.network) == (before.address, before.mac, before.network)
    assert len({first.address, kept.address, third.address}) == 3
    assert before.mac not in (first.mac, third.mac)


def test_to_reserve_again_changes_nothing(provider: Provider) -> None:
    accepted = provider.accept(provider.new(0), provider.new(1))
    assert list(provider.provisions.reserve(provider.workload, accepted)) == accepted


def test_to_give_back_again_changes_nothing(provider: Provider) -> None:
    (one,) = provider.accept(provider.new())
    provider.forget(one)
    provider.provisions.give_back(provider.workload, [one])
    (same,) = provider.accept(one)
    assert (same.address, same.mac) == (one.address, one.mac)


def test_what_is_none_of_the_networks_addresses_can_not_be_kept_and_nothing_is_reserved(provider: Provider) -> None:
    (before,) = provider.accept(provider.new())
    provider.forget(before)
    fine = replace(provider.new(0), address=before.address, mac=before.mac, network=before.network)
    foreign = replace(provider.new(1), address="192.0.2.5", mac=MAC, network=before.network)
    with pytest.raises(Conflict, match=r"can't keep the address 192\.0\.2\.5"):
        provider.accept(fine, foreign)
    (again,) = provider.accept(replace(provider.new(), address=before.address, mac=before.mac, network=before.network))
    assert (again.address, again.mac) == (before.address, before.mac)

"""What is asked of Neutron for a new instance, and what is made of its refusals."""

from __future__ import annotations

import pytest
from tests.neutron import NETWORK, PROJECT, SHARED, Neutron

from torpor.adapters.openstack.networks import Networks
from torpor.domain.errors import AddressPoolEmpty, Conflict, MissingPart
from torpor.domain.ids import InstanceId, WorkloadId
from torpor.domain.instance import Instance
from torpor.domain.workload import ServerOptions

MAC = "fa:16:3e:5f:21:aa"
REMEDY = r"leave --keep-address out, or delete who has it \(`openstack port list --fixed-ip ip-address=10\.10\.0\.5`\)"


def instance(name: str, address: str = "", mac: str = "") -> Instance:
    return Instance(InstanceId(f"id-{name}"), WorkloadId("w"), name, 0, address, mac)


def on(*networks: str) -> ServerOptions:
    return ServerOptions(project=PROJECT, networks=networks)


def test_a_new_one_leaves_the_choice_to_neutron() -> None:
    neutron = Neutron()
    Networks(neutron.cloud).reserve(instance("web"), on(NETWORK))
    assert [sorted(each) for each in neutron.wanted] == [["admin_state_up", "name", "network_id"]]


def test_what_is_kept_is_asked_of_the_first_network_only() -> None:
    neutron = Neutron()
    port = Networks(neutron.cloud).reserve(instance("web", "10.10.0.5", MAC), on(NETWORK, SHARED))
    assert (port.address, port.mac) == ("10.10.0.5", MAC)
    first, second = neutron.wanted
    assert (first["fixed_ips"], first["mac_address"]) == ([{"ip_address": "10.10.0.5"}], MAC)
    assert not {"fixed_ips", "mac_address"} & second.keys()


@pytest.mark.parametrize(
    ("theirs", "words"),
    [
        (instance("theirs", "10.10.0.5", "fa:16:3e:00:00:77"), "IP address 10.10.0.5 already allocated in subnet s"),
        (instance("theirs", "10.10.0.6", MAC), f"network {NETWORK}. The mac address {MAC} is in use"),
    ],
)
def test_what_somebody_else_has_by_now_is_a_conflict_that_says_what_to_do(theirs: Instance, words: str) -> None:
    neutron = Neutron()
    networks = Networks(neutron.cloud)
    networks.reserve(theirs, on(NETWORK))
    what = rf"^web can't keep the address 10\.10\.0\.5 and the MAC {MAC}: .*{words}; {REMEDY}\.$"
    with pytest.raises(Conflict, match=what):
        networks.reserve(instance("web", "10.10.0.5", MAC), on(NETWORK))


def test_what_is_no_address_of_the_network_any_more_is_a_conflict() -> None:
    with pytest.raises(Conflict, match=r"keep the address 10\.10\.9\.5 .*not a valid IP.*; leave --keep-address out\."):
        Networks(Neutron().cloud).reserve(instance("web", "10.10.9.5", MAC), on(NETWORK))


def test_a_network_that_another_project_shares_needs_a_policy_and_its_name_is_told() -> None:
    kept = instance("web", "10.20.0.5", MAC)
    with pytest.raises(MissingPart, match="create_port:fixed_ips:ip_address and create_port:mac_address in Neutron's"):
        Networks(Neutron(lets_choose=False).cloud).reserve(kept, on(SHARED))
    assert Networks(Neutron(lets_choose=False).cloud).reserve(instance("web"), on(SHARED)).address
    assert Networks(Neutron().cloud).reserve(kept, on(SHARED)).address == "10.20.0.5"


def test_a_network_that_is_full_is_told_as_before() -> None:
    networks = Networks(Neutron().cloud)
    for number in range(6):
        networks.reserve(instance(f"n{number}"), on(NETWORK))
    with pytest.raises(AddressPoolEmpty, match="instance web has got no address: No more IP addresses"):
        networks.reserve(instance("web"), on(NETWORK))

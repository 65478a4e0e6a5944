"""Which addresses are given, and to whom those of the deleted go."""

from dataclasses import replace

import pytest

from torpor.domain.addressing import LastAddress, free_addresses, keep_addresses
from torpor.domain.errors import AddressPoolEmpty, Conflict
from torpor.domain.ids import InstanceId, WorkloadId
from torpor.domain.instance import Instance

SUBNET = "10.0.0.0/29"
"""Of which instances get .2 to .6."""


def named(name: str, address: str = "", network: str = "") -> Instance:
    return Instance(InstanceId(f"id-{name}"), WorkloadId("w"), name, 0, address, f"m-{address}", network=network)


def last_of(*addresses: str) -> list[str]:
    return [f"10.0.0.{last}" for last in addresses]


def test_the_lowest_free_addresses_are_given_and_the_gateways_never() -> None:
    assert free_addresses(SUBNET, {"10.0.0.3"}, 3) == ("10.0.0.2", "10.0.0.4", "10.0.0.5")


def test_those_that_somebody_may_want_back_come_last_and_in_their_order() -> None:
    assert free_addresses(SUBNET, {"10.0.0.4"}, 4, last_of("3", "2", "4")) == tuple(last_of("5", "6", "3", "2"))
    with pytest.raises(AddressPoolEmpty, match="5 addresses are needed and 4"):
        free_addresses(SUBNET, {"10.0.0.4"}, 5, last_of("3", "2", "4"))


def test_one_that_two_may_want_back_has_the_place_of_the_later() -> None:
    assert free_addresses(SUBNET, set(last_of("4", "5", "6")), 2, last_of("2", "3", "2")) == tuple(last_of("3", "2"))


@pytest.mark.parametrize("foreign", ["10.0.0.0", "10.0.0.1", "10.0.0.7", "10.0.1.3"])
def test_what_is_none_of_the_pool_is_never_given(foreign: str) -> None:
    with pytest.raises(AddressPoolEmpty):
        free_addresses(SUBNET, set(), 6, [foreign])


def test_each_keeps_what_its_own_hostname_had_and_a_new_one_has_nothing_to_keep() -> None:
    last = {"a": LastAddress("10.0.0.5", "m5", "n"), "b": LastAddress("10.0.0.3", "m3", "n")}
    kept = keep_addresses([named("b"), named("c")], last, [named("x", "10.0.0.3", "other")], "n")
    assert kept == (replace(named("b"), address="10.0.0.3", mac="m3", network="n"), named("c"))


@pytest.mark.parametrize(
    ("last", "words"),
    [
        (LastAddress("10.0.0.3", "m3"), r"a can't keep the address 10\.0\.0\.3: instance x has it now; leave --keep"),
        (LastAddress("10.0.0.4", "m4", "n1"), r"it had it on another network, n1; run it on that one"),
    ],
)
def test_what_it_can_not_have_is_told_with_the_reason_and_what_to_do(last: LastAddress, words: str) -> None:
    with pytest.raises(Conflict, match=words):
        keep_addresses([named("a")], {"a": last}, [named("x", "10.0.0.3")], "")


def test_two_hostnames_that_had_one_address_after_another_can_not_both_have_it() -> None:
    last = {name: LastAddress("10.0.0.3", f"m-{name}") for name in ("a", "b")}
    with pytest.raises(Conflict, match=r"b can't keep .* instance a has it now"):
        keep_addresses([named("a"), named("b")], last, [], "")
    assert keep_addresses([named("b")], last, [], "")[0].mac == "m-b"

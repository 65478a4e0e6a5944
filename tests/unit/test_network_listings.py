"""What iproute2 lists, read; and names that are given to the kernel."""

from ipaddress import IPv4Network
from uuid import uuid4

import pytest

from torpor.adapters.qemu.nat import nat_rules
from torpor.adapters.qemu.network import NetworkSettings, tap_name
from torpor.domain.errors import Invalid
from torpor.domain.ids import InstanceId
from torpor.iproute import Link, Route, parse_addresses, parse_links, parse_routes

SUBNET = IPv4Network("10.103.0.0/24")


def test_links_tell_their_kind_their_peer_and_a_taps_owner() -> None:
    listing = """[
      {"ifindex": 1, "ifname": "lo"},
      {"ifindex": 5, "link_index": 3, "ifname": "t0", "linkinfo": {"info_kind": "veth"}},
      {"ifindex": 6, "ifname": "tap0", "linkinfo": {"info_kind": "tun", "info_data": {"type": "tap", "user": 1001}}},
      {}
    ]"""

    assert parse_links(listing) == {
        "lo": Link("lo", "", 1, None, None),
        "t0": Link("t0", "veth", 5, 3, None),
        "tap0": Link("tap0", "tun", 6, None, "1001"),
    }


def test_routes_leave_out_the_default_and_tell_what_is_connected() -> None:
    listing = """[
      {"dst": "default", "gateway": "192.0.2.1", "dev": "eth0"},
      {"dst": "192.0.2.0/24", "dev": "eth0", "protocol": "kernel", "scope": "link"},
      {"dst": "10.0.0.0/8", "gateway": "192.0.2.9", "dev": "eth0"},
      {"dst": "198.51.100.7", "dev": "tun0"},
      {"type": "blackhole", "dst": "10.9.0.0/16"}
    ]"""

    assert parse_routes(listing) == (
        Route(IPv4Network("192.0.2.0/24"), "eth0", True),
        Route(IPv4Network("10.0.0.0/8"), "eth0", False),
        Route(IPv4Network("198.51.100.7/32"), "tun0", True),
        Route(IPv4Network("10.9.0.0/16"), "", False),
    )


def test_nothing_listed_is_nothing_there() -> None:
    assert parse_links("") == {}
    assert parse_routes("[]") == ()
    assert parse_addresses("[{}]") == set()


def test_addresses_come_with_their_prefix() -> None:
    listing = '[{"ifname": "t0", "addr_info": [{"family": "inet", "local": "10.103.0.1", "prefixlen": 24}]}]'

    assert parse_addresses(listing) == {"10.103.0.1/24"}


def test_a_taps_name_fits_the_kernel_and_is_the_instances_own() -> None:
    ids = [InstanceId(str(uuid4())) for _ in range(1000)]

    names = {tap_name(id) for id in ids}

    assert len(names) == len(ids)
    assert {len(name) for name in names} == {15}


@pytest.mark.parametrize("name", ["", "-x", "with space", "a/b", "x" * 65, "semi;colon"])
def test_names_that_can_not_be_used_are_refused(name: str) -> None:
    with pytest.raises(Invalid):
        NetworkSettings(name, "torpor0", SUBNET)
    with pytest.raises(Invalid):
        NetworkSettings("torpor", name, SUBNET)


def test_an_interface_name_longer_than_the_kernel_takes_is_refused() -> None:
    with pytest.raises(Invalid, match="at most 15"):
        NetworkSettings("torpor", "x" * 16, SUBNET)


def test_the_gateways_mac_is_local_and_follows_from_the_settings() -> None:
    mac = NetworkSettings("torpor", "torpor0", SUBNET).gateway_mac

    assert mac == NetworkSettings("torpor", "torpor0", SUBNET, nat=True).gateway_mac
    assert mac != NetworkSettings("torpor", "torpor1", SUBNET).gateway_mac
    assert int(mac[:2], 16) & 0b11 == 0b10


def test_nat_masquerades_our_subnet_only() -> None:
    rules = nat_rules("torpor_torpor0", "torpor0", SUBNET, "forwarding was on")

    assert 'ip saddr 10.103.0.0/24 oifname != "torpor0" masquerade' in rules
    assert rules.count("masquerade") == 1

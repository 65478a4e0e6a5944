"""libvirt's descriptions of networks, and the kernel's list of routes."""

from dataclasses import replace
from ipaddress import IPv4Network

import pytest

from torpor.adapters.libvirt.network_xml import (
    LibvirtNetworkSettings,
    NetworkShape,
    network_xml,
    parse_shape,
    wanted_shape,
)
from torpor.adapters.libvirt.routes import Route, parse_routes
from torpor.domain.errors import Invalid

SETTINGS = LibvirtNetworkSettings("torpor", "torpor0", IPv4Network("10.104.0.0/24"))

THEIRS = """
<network connections='2'>
  <name>default</name>
  <uuid>6c2d1f52-7f86-4f2b-9d0f-3d0d4a4c5a11</uuid>
  <forward mode='nat'><nat><port start='1024' end='65535'/></nat></forward>
  <bridge name='virbr0' stp='on' delay='0'/>
  <mac address='52:54:00:AA:BB:CC'/>
  <ip address='192.168.122.1' netmask='255.255.255.0'>
    <dhcp><range start='192.168.122.2' end='192.168.122.254'/></dhcp>
  </ip>
</network>
"""

ROUTES = (
    "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT  \n"
    "eth0\t00000000\t0100000A\t0003\t0\t0\t0\t00000000\t0\t0\t0   \n"
    "eth0\t0000000A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0   \n"
    "eth1\t0000680A\t0100000A\t0003\t0\t0\t0\t0000FFFF\t0\t0\t0   \n"
    "*\t000010AC\t00000000\t0200\t0\t0\t0\t0000F0FF\t0\t0\t0   \n"
)


@pytest.mark.parametrize("settings", [SETTINGS, replace(SETTINGS, nat=True)])
def test_what_is_written_is_what_is_wanted(settings: LibvirtNetworkSettings) -> None:
    assert parse_shape(network_xml(settings)) == wanted_shape(settings)


def test_a_network_of_somebody_else_is_read() -> None:
    assert parse_shape(THEIRS) == NetworkShape(
        "virbr0", "52:54:00:aa:bb:cc", "192.168.122.1/24", "nat", stp=True, dhcp=True, names=True
    )


def test_a_network_without_a_bridge_is_read() -> None:
    xml = "<network><name>direct</name><forward mode='bridge'><interface dev='eth0'/></forward></network>"
    assert parse_shape(xml).bridge == ""


def test_a_network_is_known_by_its_name_whatever_its_settings() -> None:
    assert replace(SETTINGS, bridge="other0", nat=True).uuid == SETTINGS.uuid
    assert replace(SETTINGS, name="other").uuid != SETTINGS.uuid


def test_the_gateways_mac_is_its_own_and_locally_administered() -> None:
    assert SETTINGS.gateway_mac.startswith("02:")
    assert replace(SETTINGS, name="other").gateway_mac != SETTINGS.gateway_mac


@pytest.mark.parametrize("change", [{"name": ""}, {"name": "a b"}, {"bridge": "sixteen-letters-"}, {"bridge": "../x"}])
def test_names_that_cannot_be_used_are_refused(change: dict[str, str]) -> None:
    with pytest.raises(Invalid, match="is not a name that can be used"):
        replace(SETTINGS, **change)  # type: ignore[arg-type]


def test_the_kernels_routes_are_read() -> None:
    assert parse_routes(ROUTES) == (
        Route(IPv4Network("10.0.0.0/24"), "eth0", True),
        Route(IPv4Network("10.104.0.0/16"), "eth1", False),
        Route(IPv4Network("172.16.0.0/12"), "", False),
    )

"""What agents, libvirt's DHCP and the kernel say of addresses, as it is read."""

from typing import Any

import pytest

pytest.importorskip("libvirt", reason="the libvirt backend needs its binding")

from torpor.adapters.libvirt.addresses import Held, agent_addresses, lease_addresses, macs_in
from torpor.adapters.libvirt.neighbours import Neighbour, parse_neighbours

MAC = "52:54:00:10:50:01"


def told(mac: str, *addresses: tuple[str, str]) -> dict[str, Any]:
    listed = [{"ip-address-type": kind, "ip-address": address, "prefix": 24} for kind, address in addresses]
    return {"name": "eth0", "hardware-address": mac, "ip-addresses": listed}


def test_an_agents_answer_is_read_without_loopback_and_ipv6() -> None:
    interfaces = [
        told("00:00:00:00:00:00", ("ipv4", "127.0.0.1")),
        told(MAC.upper(), ("ipv6", "fe80::1"), ("ipv4", "10.105.0.7"), ("ipv4", "10.105.0.7")),
        {"name": "sit0"},
    ]
    assert agent_addresses(interfaces) == (Held(MAC, "10.105.0.7"),)


@pytest.mark.parametrize("answer", [None, 7, ["eth0"], [told(MAC, ("ipv4", "10.105.0.7; reboot"))]])
def test_an_answer_that_makes_no_sense_is_no_address(answer: Any) -> None:
    with pytest.raises((AttributeError, LookupError, TypeError, ValueError)):
        agent_addresses(answer)


def test_leases_are_read() -> None:
    leases: dict[str, dict[str, Any]] = {
        "vnet0": {"hwaddr": MAC, "addrs": [{"addr": "10.105.1.12", "prefix": 24, "type": 0}]},
        "vnet1": {"hwaddr": "52:54:00:00:00:09", "addrs": [{"addr": "fd00::9", "prefix": 64, "type": 1}]},
        "vnet2": {"hwaddr": None, "addrs": None},
    }
    assert lease_addresses(leases) == (Held(MAC, "10.105.1.12"),)


def test_neighbours_that_did_not_answer_are_left_out() -> None:
    table = (
        "IP address       HW type     Flags       HW address            Mask     Device\n"
        "10.105.0.7       0x1         0x2         52:54:00:10:50:01     *        torpor0\n"
        "10.105.0.8       0x1         0x0         00:00:00:00:00:00     *        torpor0\n"
    )
    assert parse_neighbours(table) == (Neighbour(MAC, "10.105.0.7", "torpor0"),)


def test_all_interfaces_of_a_domain_count() -> None:
    macs = (MAC.upper(), "52:54:00:00:00:02")
    interfaces = "".join(f"<interface><mac address='{mac}'/></interface>" for mac in macs)
    assert macs_in(f"<domain><devices>{interfaces}</devices></domain>") == {MAC, "52:54:00:00:00:02"}

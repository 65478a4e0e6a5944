"""The guests' network under a real libvirtd. Guests are veth ends in namespaces of the test's own."""

import json
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import pytest
from tests.libvirt.conftest import FORWARDING

from private_libvirtd import LibvirtHost
from torpor.adapters.libvirt.connection import Connection
from torpor.adapters.libvirt.network import LibvirtNetwork
from torpor.adapters.libvirt.network_xml import LibvirtNetworkSettings
from torpor.domain.errors import Conflict

pytestmark = pytest.mark.slow

SETTINGS = LibvirtNetworkSettings("torpor-test", "torpor-tl0", IPv4Network("10.104.0.0/24"))
GATEWAY = "10.104.0.1"
GUEST = "torpor-test-lg"
OTHER_LINK, OTHER_BRIDGE = "torpor-tl9", "torpor-tl8"


def ip(*words: str, check: bool = True) -> str:
    return subprocess.run(["ip", *words], capture_output=True, text=True, check=check).stdout


def link(name: str) -> dict[str, Any] | None:
    listing = ip("-json", "-details", "addr", "show", "dev", name, check=False)
    return json.loads(listing)[0] if listing else None


def plug_in_a_guest() -> None:
    """A machine of its own, with a cable to the bridge."""
    ip("netns", "add", GUEST)
    ip("link", "add", OTHER_LINK, "type", "veth", "peer", "name", "eth0", "netns", GUEST)
    ip("link", "set", OTHER_LINK, "master", SETTINGS.bridge, "up")
    ip("-n", GUEST, "addr", "add", "10.104.0.2/24", "dev", "eth0")
    ip("-n", GUEST, "link", "set", "eth0", "up")


def reaches_the_gateway() -> bool:
    """From the guest, by ARP and UDP: a closed port's refusal needs no ping program."""
    script = (
        "import socket,sys\n"
        "s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM); s.settimeout(3); s.connect((sys.argv[1],9))\n"
        "s.send(b'x')\n"
        "try: s.recv(1)\n"
        "except ConnectionRefusedError: sys.exit(0)\n"
        "except OSError: pass\n"
        "sys.exit(1)\n"
    )
    return subprocess.run(["ip", "netns", "exec", GUEST, "python3", "-c", script, GATEWAY], check=False).returncode == 0


def clean(libvirt: LibvirtHost) -> None:
    ip("link", "del", OTHER_LINK, check=False)
    ip("netns", "del", GUEST, check=False)
    for name in libvirt.virsh("net-list", "--name").split():
        libvirt.virsh("net-destroy", name)
    for name in libvirt.virsh("net-list", "--all", "--name").split():
        libvirt.virsh("net-undefine", name)


@pytest.fixture
def libvirt(daemon: LibvirtHost) -> Iterator[LibvirtHost]:
    """Without networks, before and after."""
    clean(daemon)
    try:
        yield daemon
    finally:
        clean(daemon)


@pytest.fixture
def network(libvirt: LibvirtHost, connection: Connection) -> LibvirtNetwork:
    return LibvirtNetwork(connection, SETTINGS)


def define(libvirt: LibvirtHost, folder: Path, xml: str) -> None:
    file = folder / "network.xml"
    file.write_text(xml)
    libvirt.virsh("net-define", str(file))


def active(libvirt: LibvirtHost) -> list[str]:
    return libvirt.virsh("net-list", "--name").split()


def firewall() -> str:
    """What libvirt wrote, whichever way it went."""
    listed = [["iptables-save", "-t", "nat"], ["nft", "list", "ruleset"]]
    return "".join(subprocess.run(argv, capture_output=True, text=True, check=False).stdout for argv in listed)


def test_the_host_is_the_gateway_and_nothing_else_is_served(libvirt: LibvirtHost, network: LibvirtNetwork) -> None:
    network.ensure()

    bridge = link(SETTINGS.bridge)
    assert bridge is not None
    assert [(a["local"], a["prefixlen"]) for a in bridge["addr_info"]] == [(GATEWAY, 24)]
    assert bridge["address"] == SETTINGS.gateway_mac
    assert bridge["linkinfo"]["info_data"]["stp_state"] == 0
    assert "autostart:      no" in " ".join(libvirt.virsh("net-info", SETTINGS.name).lower().split("\n"))
    assert not list((libvirt.managed_saves.parents[1] / "dnsmasq").glob(f"{SETTINGS.name}.conf"))
    assert "10.104.0.0/24" not in firewall()
    assert [check for check in network.checks() if not check.ok] == []


def test_a_host_that_forwards_nothing_does_not_begin_to(network: LibvirtNetwork) -> None:
    before = FORWARDING.read_text()
    FORWARDING.write_text("0")
    try:
        network.ensure()
        after = FORWARDING.read_text()
    finally:
        FORWARDING.write_text(before)
    assert after.strip() == "0"


def test_a_guest_reaches_the_gateway(network: LibvirtNetwork) -> None:
    network.ensure()
    plug_in_a_guest()
    assert reaches_the_gateway()


def test_ensuring_again_changes_nothing_even_with_guests(libvirt: LibvirtHost, network: LibvirtNetwork) -> None:
    network.ensure()
    plug_in_a_guest()
    before = link(SETTINGS.bridge)
    description = libvirt.virsh("net-dumpxml", SETTINGS.name)

    network.ensure()

    assert libvirt.virsh("net-dumpxml", SETTINGS.name) == description
    after = link(SETTINGS.bridge)
    assert before and after
    assert (after["ifindex"], after["addr_info"]) == (before["ifindex"], before["addr_info"])


def test_after_a_reboot_it_is_started_as_it_was(libvirt: LibvirtHost, network: LibvirtNetwork) -> None:
    network.ensure()
    libvirt.virsh("net-destroy", SETTINGS.name)
    assert [check.ok for check in network.checks()] == [True, False]

    network.ensure()

    bridge = link(SETTINGS.bridge)
    assert bridge
    assert bridge["address"] == SETTINGS.gateway_mac


def test_it_outlives_the_daemon_and_is_known_again(libvirt: LibvirtHost, network: LibvirtNetwork) -> None:
    network.ensure()
    before = link(SETTINGS.bridge)

    libvirt.restart()
    network.ensure()

    after = link(SETTINGS.bridge)
    assert before and after
    assert after["ifindex"] == before["ifindex"]


@pytest.mark.parametrize(
    "changed",
    [
        replace(SETTINGS, subnet=IPv4Network("10.104.0.0/23")),
        replace(SETTINGS, bridge=OTHER_BRIDGE),
        replace(SETTINGS, bridge=OTHER_BRIDGE, subnet=IPv4Network("10.104.0.0/25")),
    ],
)
def test_changed_settings_are_put_in_place(
    connection: Connection, network: LibvirtNetwork, changed: LibvirtNetworkSettings
) -> None:
    network.ensure()

    LibvirtNetwork(connection, changed).ensure()

    bridge = link(changed.bridge)
    assert bridge
    assert [(a["local"], a["prefixlen"]) for a in bridge["addr_info"]] == [(GATEWAY, changed.subnet.prefixlen)]
    assert changed.bridge == SETTINGS.bridge or link(SETTINGS.bridge) is None


def test_changed_settings_wait_while_a_guest_is_on_it(connection: Connection, network: LibvirtNetwork) -> None:
    network.ensure()
    plug_in_a_guest()
    changed = LibvirtNetwork(connection, replace(SETTINGS, subnet=IPv4Network("10.104.0.0/23")))

    with pytest.raises(Conflict, match=rf"settings have changed.*VMs are on it \({OTHER_LINK}\)"):
        changed.ensure()

    assert reaches_the_gateway()
    assert [check.ok for check in network.checks()] == [True, True]


def test_what_an_owner_changed_in_the_description_is_put_back(
    libvirt: LibvirtHost, network: LibvirtNetwork, tmp_path: Path
) -> None:
    network.ensure()
    xml = libvirt.virsh("net-dumpxml", "--inactive", SETTINGS.name)
    define(libvirt, tmp_path, xml.replace("<dns enable='no'/>", "").replace('mode="open"', 'mode="nat"'))

    network.ensure()

    assert "<dns enable='no'/>" in libvirt.virsh("net-dumpxml", "--inactive", SETTINGS.name)
    assert link(SETTINGS.bridge)


def test_a_network_of_that_name_that_is_not_ours_is_not_touched(
    libvirt: LibvirtHost, network: LibvirtNetwork, tmp_path: Path
) -> None:
    define(libvirt, tmp_path, f"<network><name>{SETTINGS.name}</name><bridge name='{OTHER_BRIDGE}'/></network>")
    before = libvirt.virsh("net-dumpxml", SETTINGS.name)

    with pytest.raises(Conflict, match="is not Torpor's") as caught:
        network.ensure()
    network.remove()

    assert "libvirt.network" in caught.value.remedy
    assert libvirt.virsh("net-dumpxml", SETTINGS.name) == before
    assert [check.ok for check in network.checks()] == [True, False]


def test_a_bridge_of_another_network_is_refused(libvirt: LibvirtHost, network: LibvirtNetwork, tmp_path: Path) -> None:
    define(libvirt, tmp_path, f"<network><name>theirs</name><bridge name='{SETTINGS.bridge}'/></network>")

    with pytest.raises(Conflict, match="'theirs' has a bridge") as caught:
        network.ensure()

    assert "network.interface" in caught.value.remedy
    assert SETTINGS.name not in libvirt.virsh("net-list", "--all", "--name").split()


def test_an_interface_of_somebody_else_is_not_touched(libvirt: LibvirtHost, network: LibvirtNetwork) -> None:
    ip("link", "add", SETTINGS.bridge, "type", "bridge")
    try:
        with pytest.raises(Conflict, match=f"{SETTINGS.bridge}.* is there already"):
            network.ensure()
        network.remove()
        assert link(SETTINGS.bridge)
    finally:
        ip("link", "del", SETTINGS.bridge)


def test_a_subnet_that_the_host_uses_is_refused(libvirt: LibvirtHost, network: LibvirtNetwork) -> None:
    ip("link", "add", OTHER_LINK, "type", "bridge")
    ip("addr", "add", "10.104.0.129/25", "dev", OTHER_LINK)
    ip("link", "set", OTHER_LINK, "up")

    with pytest.raises(Conflict, match=rf"10\.104\.0\.128/25 through {OTHER_LINK}") as caught:
        network.ensure()

    assert "network.subnet" in caught.value.remedy
    assert SETTINGS.name not in active(libvirt)
    assert [check.ok for check in network.checks()] == [False, False]


def test_removal_leaves_nothing_behind(libvirt: LibvirtHost, network: LibvirtNetwork) -> None:
    before = (ip("route"), ip("-brief", "link"), firewall())
    network.ensure()

    network.remove()
    network.remove()

    assert (ip("route"), ip("-brief", "link"), firewall()) == before
    assert libvirt.virsh("net-list", "--all", "--name").split() == []


def test_it_is_not_removed_under_a_guest(network: LibvirtNetwork) -> None:
    network.ensure()
    plug_in_a_guest()

    with pytest.raises(Conflict, match=rf"VMs are on it \({OTHER_LINK}\)"):
        network.remove()

    assert reaches_the_gateway()


def test_nat_is_put_in_place_on_request_and_taken_away_again(connection: Connection, network: LibvirtNetwork) -> None:
    LibvirtNetwork(connection, replace(SETTINGS, nat=True)).ensure()
    assert "10.104.0.0/24" in firewall()
    assert FORWARDING.read_text().strip() == "1"

    network.ensure()  # the same network without NAT

    assert "10.104.0.0/24" not in firewall()

"""The guests' network in real namespaces. Guests are veth ends in namespaces of the test's own, or taps."""

import json
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from torpor.adapters.qemu.network import BRIDGE, UPLINK, BridgeNetwork, NetworkSettings, tap_name
from torpor.domain.errors import BackendFailed, Conflict, MissingPart
from torpor.domain.ids import InstanceId

SETTINGS = NetworkSettings("torpor-test-net", "torpor-tn0", IPv4Network("10.103.0.0/24"))
GATEWAY = "10.103.0.1"
GUESTS = ("torpor-test-g1", "torpor-test-g2")


def ip(*words: str, check: bool = True) -> str:
    return subprocess.run(["ip", *words], capture_output=True, text=True, check=check).stdout


def pings(address: str, namespace: str | None = None) -> bool:
    """By ARP and UDP: a closed port's refusal needs no ping program and no privilege of its own."""
    script = (
        "import socket,sys\n"
        "s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM); s.settimeout(3); s.connect((sys.argv[1],9))\n"
        "s.send(b'x')\n"
        "try: s.recv(1)\n"
        "except ConnectionRefusedError: sys.exit(0)\n"
        "except OSError: pass\n"
        "sys.exit(1)\n"
    )
    inside = ["ip", "netns", "exec", namespace] if namespace else []
    return subprocess.run([*inside, "python3", "-c", script, address], check=False).returncode == 0


@dataclass(frozen=True)
class Guest:
    namespace: str
    address: str


def add_guest(number: int) -> Guest:
    """A machine of its own, with a cable to the bridge."""
    guest = Guest(GUESTS[number - 1], f"10.103.0.{number + 1}")
    ip("netns", "add", guest.namespace)
    ip("-n", guest.namespace, "link", "add", "eth0", "type", "veth", "peer", "name", f"port{number}",
       "netns", SETTINGS.namespace)  # fmt: skip
    ip("-n", SETTINGS.namespace, "link", "set", f"port{number}", "master", BRIDGE, "up")
    ip("-n", guest.namespace, "addr", "add", f"{guest.address}/24", "dev", "eth0")
    ip("-n", guest.namespace, "link", "set", "eth0", "up")
    return guest


def links(namespace: str | None = None) -> dict[str, dict[str, Any]]:
    listing = ip(*(("-n", namespace) if namespace else ()), "-json", "-details", "link", "show")
    return {entry["ifname"]: entry for entry in json.loads(listing)}


def clean() -> None:
    BridgeNetwork(SETTINGS).remove()
    for name in (SETTINGS.interface, "torpor-tn9"):
        ip("link", "del", name, check=False)
    for name in GUESTS:
        ip("netns", "del", name, check=False)


@pytest.fixture
def network() -> Iterator[BridgeNetwork]:
    clean()
    try:
        yield BridgeNetwork(SETTINGS)
    finally:
        clean()


def instance() -> InstanceId:
    return InstanceId(str(uuid4()))


def test_guests_reach_one_another_and_the_gateway_and_the_host_reaches_them(network: BridgeNetwork) -> None:
    network.ensure()
    one, two = add_guest(1), add_guest(2)

    assert pings(two.address, one.namespace)
    assert pings(GATEWAY, two.namespace)
    assert pings(one.address)


def test_ensuring_again_changes_nothing(network: BridgeNetwork) -> None:
    network.ensure()
    before = snapshot()

    network.ensure()

    assert snapshot() == before


def snapshot() -> list[object]:
    """What makes an interface the same one; its operational state follows a moment later."""
    everything = [*links().values(), *links(SETTINGS.namespace).values()]
    addresses = ip("-json", "-4", "addr"), ip("-n", SETTINGS.namespace, "-json", "addr")
    kept = ("ifname", "ifindex", "address", "master", "inet6_addr_gen_mode")
    return [
        [[link.get(key) for key in kept] for link in everything if link["ifname"] != "lo"],
        [[entry["ifname"], entry["addr_info"]] for listing in addresses for entry in json.loads(listing)],
    ]


def half_made_file() -> None:
    Path("/run/netns").mkdir(exist_ok=True)
    (Path("/run/netns") / SETTINGS.namespace).touch()


def half_made_namespace() -> None:
    ip("netns", "add", SETTINGS.namespace)


def half_made_bridge() -> None:
    half_made_namespace()
    ip("-n", SETTINGS.namespace, "link", "add", BRIDGE, "type", "bridge")


def half_made_veth() -> None:
    half_made_bridge()
    ip("link", "add", SETTINGS.interface, "type", "veth", "peer", "name", UPLINK, "netns", SETTINGS.namespace)


def half_made_cable_to_nowhere() -> None:
    half_made_bridge()
    ip("link", "add", SETTINGS.interface, "type", "veth", "peer", "name", "torpor-tn9")


def half_made_with_an_older_address() -> None:
    half_made_veth()
    ip("addr", "add", "10.103.77.1/24", "dev", SETTINGS.interface)


@pytest.mark.parametrize(
    "leave",
    [
        half_made_file, half_made_namespace, half_made_bridge, half_made_veth, half_made_cable_to_nowhere,
        half_made_with_an_older_address,
    ],
)  # fmt: skip
def test_a_half_made_network_is_completed(network: BridgeNetwork, leave: Callable[[], None]) -> None:
    leave()

    network.ensure()

    assert pings(GATEWAY, add_guest(1).namespace)
    inet = json.loads(ip("-json", "-4", "addr", "show", "dev", SETTINGS.interface))[0]["addr_info"]
    assert [info["local"] for info in inet] == [GATEWAY]


def test_the_gateway_has_the_same_mac_when_the_network_is_made_anew(network: BridgeNetwork) -> None:
    network.ensure()
    before = links()[SETTINGS.interface]["address"]
    network.remove()

    network.ensure()

    assert links()[SETTINGS.interface]["address"] == before == SETTINGS.gateway_mac


def test_a_tap_is_on_the_bridge_up_and_its_users_own(network: BridgeNetwork) -> None:
    network.ensure()
    id = instance()

    tap = network.tap(id, "nobody")
    again = network.tap(id, "nobody")

    assert tap == again
    assert len(tap.name) <= 15
    link = links(SETTINGS.namespace)[tap.name]
    assert link["master"] == BRIDGE
    assert "UP" in str(link["flags"])
    assert link["linkinfo"]["info_data"]["user"] == "nobody"
    assert network.taps() == (tap,)


def test_a_tap_of_another_user_is_made_anew(network: BridgeNetwork) -> None:
    network.ensure()
    id = instance()
    network.tap(id, "daemon")

    tap = network.tap(id, "nobody")

    assert links(SETTINGS.namespace)[tap.name]["linkinfo"]["info_data"]["user"] == "nobody"


def test_a_removed_tap_is_gone_and_may_be_removed_again(network: BridgeNetwork) -> None:
    network.ensure()
    id, other = instance(), instance()
    network.tap(id, "nobody")
    kept = network.tap(other, "nobody")

    network.remove_tap(id)
    network.remove_tap(id)

    assert network.taps() == (kept,)


def test_a_tap_for_an_unknown_user_is_refused_with_the_reason(network: BridgeNetwork) -> None:
    network.ensure()

    with pytest.raises(MissingPart, match="no user 'no-such-user'"):
        network.tap(instance(), "no-such-user")


def test_removal_leaves_nothing_behind(network: BridgeNetwork) -> None:
    before = (set(links()), ip("route"), ip("netns"))
    network.ensure()
    network.tap(instance(), "nobody")

    network.remove()
    network.remove()

    assert (set(links()), ip("route"), ip("netns")) == before
    assert network.taps() == ()


def test_removal_takes_the_links_of_a_namespace_that_a_process_holds(network: BridgeNetwork) -> None:
    network.ensure()
    tap = network.tap(instance(), "nobody")
    with subprocess.Popen(["ip", "netns", "exec", SETTINGS.namespace, "sleep", "60"]) as holder:
        try:
            while Path(f"/proc/{holder.pid}/ns/net").readlink() == Path("/proc/self/ns/net").readlink():
                assert holder.poll() is None
            network.remove()
            left = Path(f"/proc/{holder.pid}/net/dev").read_text()
        finally:
            holder.kill()
    assert tap.name not in left
    assert BRIDGE not in left


def test_a_subnet_that_the_host_uses_is_refused(network: BridgeNetwork) -> None:
    ip("link", "add", "torpor-tn9", "type", "veth", "peer", "name", "torpor-tn8")
    ip("addr", "add", "10.103.0.129/25", "dev", "torpor-tn9")
    ip("link", "set", "torpor-tn9", "up")

    with pytest.raises(Conflict, match=r"10\.103\.0\.128/25 through torpor-tn9") as caught:
        network.ensure()

    assert "network.subnet" in caught.value.remedy
    assert SETTINGS.interface not in links()
    assert [check.ok for check in network.checks() if check.name == "network: subnet"] == [False]


def test_an_interface_of_somebody_else_is_not_touched(network: BridgeNetwork) -> None:
    ip("link", "add", SETTINGS.interface, "type", "bridge")
    try:
        with pytest.raises(Conflict, match="is not Torpor's"):
            network.ensure()
        network.remove()
        assert SETTINGS.interface in links()
    finally:
        ip("link", "del", SETTINGS.interface)


def test_a_working_machine_passes_the_checks(network: BridgeNetwork) -> None:
    network.ensure()

    assert [check for check in network.checks() if not check.ok] == []


def test_a_tap_without_a_network_fails_with_the_command_that_failed(network: BridgeNetwork) -> None:
    with pytest.raises(BackendFailed, match="ip -n torpor-test-net"):
        network.tap(instance(), "nobody")


def forwarding() -> str:
    return Path("/proc/sys/net/ipv4/ip_forward").read_text().strip()


def nat_table() -> str:
    return subprocess.run(
        ["nft", "list", "table", "ip", "torpor_torpor_tn0"], capture_output=True, text=True, check=False
    ).stdout


def test_nat_is_put_in_place_on_request_and_taken_away_again(network: BridgeNetwork) -> None:
    before = forwarding()
    natting = BridgeNetwork(replace(SETTINGS, nat=True))
    natting.ensure()
    natting.ensure()
    assert "masquerade" in nat_table()
    assert forwarding() == "1"

    network.ensure()  # the same network without NAT

    assert nat_table() == ""
    assert forwarding() == before


def test_a_guest_reaches_another_network_by_nat_and_is_not_reached_from_there(network: BridgeNetwork) -> None:
    BridgeNetwork(replace(SETTINGS, nat=True)).ensure()
    guest = add_guest(1)
    ip("-n", guest.namespace, "route", "add", "default", "via", GATEWAY)
    outside = GUESTS[1]
    ip("netns", "add", outside)
    ip("link", "add", "torpor-tn9", "type", "veth", "peer", "name", "eth0", "netns", outside)
    ip("addr", "add", "10.103.99.1/30", "dev", "torpor-tn9")
    ip("link", "set", "torpor-tn9", "up")
    ip("-n", outside, "addr", "add", "10.103.99.2/30", "dev", "eth0")
    ip("-n", outside, "link", "set", "eth0", "up")

    assert pings("10.103.99.2", guest.namespace)

    ip("-n", outside, "route", "add", "10.103.0.0/24", "via", "10.103.99.1")
    assert not pings(guest.address, outside)


def test_tap_names_of_different_instances_differ() -> None:
    assert len({tap_name(instance()) for _ in range(1000)}) == 1000

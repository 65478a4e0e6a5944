"""A real guest on two libvirt networks, one with DHCP and one without: its agent, its addresses, its clock."""

import socket
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.installation import cached_image, wait_until

from private_libvirtd import LibvirtHost
from torpor.adapters.guest.guest import AgentGuest, Ethernet
from torpor.adapters.libvirt.addresses import NotMet, ethernet
from torpor.adapters.libvirt.agent import through_libvirt
from torpor.adapters.libvirt.connection import Connection
from torpor.adapters.libvirt.domain_xml import NAMESPACE
from torpor.adapters.libvirt.guest import LibvirtGuest
from torpor.domain.errors import AgentRefused, AgentSilent, BackendFailed
from torpor.domain.ids import InstanceId, WorkloadId
from torpor.domain.instance import Instance

pytestmark = pytest.mark.slow

STATIC_MAC, LEASED_MAC, LOOSE_MAC = "52:54:00:10:50:01", "52:54:00:10:50:02", "52:54:00:10:50:03"
STATIC, STATIC_GATEWAY = "10.105.0.7", "10.105.0.1"
NO_DHCP = """
<network><name>static</name><forward mode='open'/><bridge name='torpor-tl1' stp='off' delay='0'/>
<dns enable='no'/><ip address='10.105.0.1' prefix='24'/></network>
"""
WITH_DHCP = """
<network><name>leased</name><forward mode='open'/><bridge name='torpor-tl2' stp='off' delay='0'/>
<ip address='10.105.1.1' prefix='24'><dhcp><range start='10.105.1.10' end='10.105.1.20'/></dhcp></ip></network>
"""
GUEST = """
<domain type='qemu'>
  <name>{name}</name><uuid>{id}</uuid>
  <metadata><torpor:workload xmlns:torpor='urn:torpor:domain:1' name='batch'/></metadata>
  <memory unit='MiB'>128</memory><vcpu>1</vcpu>
  <os>
    <type arch='x86_64' machine='pc'>hvm</type>
    <kernel>{image}/vmlinuz</kernel><initrd>{image}/initrd</initrd><cmdline>{cmdline}</cmdline>
  </os>
  <features><acpi/><apic/><tcg><tb-cache unit='MiB'>32</tb-cache></tcg></features><cpu mode='maximum'/>
  <devices>
    <controller type='usb' model='none'/>
    {interfaces}
    <channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>
    <memballoon model='none'/>
  </devices>
</domain>
"""
NIC = "<interface {type}><mac address='{mac}'/>{source}<model type='virtio'/><rom enabled='no'/></interface>"
CMDLINE = "console=ttyS0 quiet panic=1 net.ifnames=0 ipv6.disable=1 no_timer_check"
ASK_DHCP = (
    "printf '#!/bin/sh\\n[ $1 != bound ] || ip addr add $ip/24 dev $interface\\n' >/run/bound; chmod 755 /run/bound; "
    "ip link set eth1 up; udhcpc -i eth1 -s /run/bound -n -q"
)


@dataclass(frozen=True)
class Bench:
    guest: LibvirtGuest
    id: InstanceId
    connection: Connection
    daemon: LibvirtHost

    def instance(self, address: str = STATIC, mac: str = STATIC_MAC, id: InstanceId | None = None) -> Instance:
        return Instance(id or self.id, WorkloadId("w"), "guest", 0, address, mac)

    def sh(self, command: str) -> str:
        pid = self.guest.execute(self.id, command)
        result = wait_until(lambda: self._result(pid), 30.0, command)
        return str(result)

    def _result(self, pid: int) -> str | None:
        result = self.guest.execution(self.id, pid)
        if not result.finished:
            return None
        assert result.exit_code == 0, result
        return result.output or "nothing"

    def mark(self, element: str) -> None:
        self.daemon.virsh("metadata", self.id, NAMESPACE, "--key", "torpor", "--set", element)

    def without_agent(self, seconds: int) -> None:
        """The agent stands still, and goes on some time later."""
        self.guest.execute(self.id, f"sleep 0.3; kill -STOP $PPID; sleep {seconds}; kill -CONT $PPID")
        time.sleep(1.0)


def nic(type: str, mac: str, source: str) -> str:
    return NIC.format(type=type, mac=mac, source=source)


def define(daemon: LibvirtHost, folder: Path, interfaces: str, name: str) -> InstanceId:
    id = InstanceId(str(uuid.uuid4()))
    file = folder / "domain.xml"
    file.write_text(GUEST.format(name=name, id=id, image=cached_image("tiny"), cmdline=CMDLINE, interfaces=interfaces))
    daemon.virsh("define", str(file))
    return id


def looking_after(connection: Connection) -> LibvirtGuest:
    converse = through_libvirt(connection)
    inner = AgentGuest(converse, lambda instance: Ethernet(*ethernet(connection, instance)))
    return LibvirtGuest(connection, inner, converse)


def knock(address: str) -> None:
    """Have the host find out by ARP who has the address."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as packets:
        packets.connect((address, 9))
        packets.settimeout(5.0)
        packets.send(b"x")
        with suppress(ConnectionRefusedError):
            packets.recv(1)


@pytest.fixture(scope="module")
def bench(daemon: LibvirtHost, connection: Connection, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    folder = tmp_path_factory.mktemp("guest")
    for xml in (NO_DHCP, WITH_DHCP):
        (folder / "network.xml").write_text(xml)
        daemon.virsh("net-create", str(folder / "network.xml"))
    static, leased = (
        nic("type='network'", mac, f"<source network='{network}'/>")
        for mac, network in ((STATIC_MAC, "static"), (LEASED_MAC, "leased"))
    )
    id = define(daemon, folder, static + leased, "guest")
    daemon.virsh("start", "guest")
    made = Bench(looking_after(connection), id, connection, daemon)
    try:
        wait_until(lambda: made.guest.agent_answers(id), 90.0, "the guest's agent answers")
        made.sh(f"ip link set eth0 up; ip addr add {STATIC}/24 dev eth0; {ASK_DHCP}")
        yield made
    finally:
        daemon.virsh("destroy", "guest")
        daemon.virsh("undefine", "guest")
        for name in ("static", "leased"):
            daemon.virsh("net-destroy", name)


def test_a_command_runs_in_the_guest(bench: Bench) -> None:
    assert bench.sh("echo $((6 * 7))").strip() == "42"


def test_what_the_agent_refuses_is_told_apart_from_silence(bench: Bench) -> None:
    with through_libvirt(bench.connection)(bench.id) as talk:
        with pytest.raises(AgentRefused, match="guest-nonsense"):
            talk.ask("guest-nonsense", 2.0)
        assert talk.ask("guest-ping", 0.1) == {}


def test_the_clock_is_set_to_the_split_second(bench: Bench) -> None:
    now = time.time() + 1000.25
    gap = bench.guest.set_clock(bench.id, now)
    assert gap is not None
    assert gap.behind == pytest.approx(1000.25, abs=2.0)
    assert abs(gap.left) < 0.5


def test_the_agent_tells_all_addresses_those_of_the_first_interface_first(bench: Bench) -> None:
    first, *others = bench.guest.addresses(bench.id)
    assert first == STATIC
    assert [address.rpartition(".")[0] for address in others] == ["10.105.1"]


def test_the_host_asks_on_the_bridge_of_the_first_interface(bench: Bench) -> None:
    assert ethernet(bench.connection, bench.instance()) == ("torpor-tl1", STATIC_GATEWAY)
    assert bench.guest.probe(bench.instance())
    assert not bench.guest.probe(bench.instance(address="10.105.0.8"))
    assert not bench.guest.probe(bench.instance(mac=LEASED_MAC))
    assert not bench.guest.probe(bench.instance(address=""))


def test_without_an_agent_leases_and_arp_tell(bench: Bench) -> None:
    assert bench.guest.probe(bench.instance())
    known = bench.guest.addresses(bench.id)
    knock(STATIC)
    bench.without_agent(20)

    assert not bench.guest.agent_answers(bench.id)
    assert bench.guest.addresses(bench.id) == known

    wait_until(lambda: bench.guest.agent_answers(bench.id), 60.0, "the agent goes on")


def test_a_silent_agent_is_waited_for_in_bounds_and_heard_again(bench: Bench) -> None:
    bench.without_agent(15)
    began = time.monotonic()
    with pytest.raises(AgentSilent), through_libvirt(bench.connection, 1.0)(bench.id):
        pass
    assert time.monotonic() - began < 15
    wait_until(lambda: bench.guest.agent_answers(bench.id), 60.0, "the agent goes on")


def test_a_guest_that_stands_still_is_silent_at_once(bench: Bench) -> None:
    bench.daemon.virsh("suspend", "guest")
    try:
        assert not bench.guest.agent_answers(bench.id)
        with pytest.raises(BackendFailed):
            bench.guest.set_clock(bench.id, time.time())
    finally:
        bench.daemon.virsh("resume", "guest")


def test_an_address_that_is_its_owners_is_left_alone(bench: Bench) -> None:
    for act in (bench.guest.assign_address, bench.guest.take_identity):
        with pytest.raises(BackendFailed, match="its network is its owner's"):
            act(bench.instance(address="10.105.0.9"), 24, STATIC_GATEWAY)
    assert bench.guest.addresses(bench.id)[0] == STATIC


def test_a_guest_of_our_making_is_given_its_address(bench: Bench) -> None:
    bench.mark("<workload name='batch' made='yes'/>")
    try:
        bench.guest.assign_address(bench.instance(address="10.105.0.9"), 24, STATIC_GATEWAY)
        assert bench.guest.addresses(bench.id)[0] == "10.105.0.9"
        bench.guest.assign_address(bench.instance(), 24, STATIC_GATEWAY)
    finally:
        bench.mark("<workload name='batch'/>")


def test_the_agent_of_a_guest_without_a_mark_is_left_alone(bench: Bench) -> None:
    bench.mark("<workload name='this mark has a defect'/>")
    try:
        assert not bench.guest.agent_answers(bench.id)
        with pytest.raises(AgentSilent, match="no mark of Torpor's"):
            bench.guest.execute(bench.id, "reboot")
    finally:
        bench.mark("<workload name='batch'/>")


@pytest.mark.parametrize("interface", [nic("type='user'", LOOSE_MAC, ""), ""])
def test_a_guest_that_is_on_no_bridge_is_not_asked_by_arp(
    daemon: LibvirtHost, connection: Connection, tmp_path: Path, interface: str
) -> None:
    id = define(daemon, tmp_path, interface, "loose")
    instance = Instance(id, WorkloadId("w"), "loose", 0, "10.0.2.15", LOOSE_MAC)
    try:
        with pytest.raises(NotMet, match="loose can't be asked"):
            ethernet(connection, instance)
        with pytest.raises(BackendFailed, match="no agent tells it"):
            looking_after(connection).addresses(id)
    finally:
        daemon.virsh("undefine", "loose")


def test_a_bridge_on_which_the_host_has_no_address_is_said_to_have_none(
    daemon: LibvirtHost, connection: Connection, tmp_path: Path
) -> None:
    subprocess.run(["ip", "link", "add", "torpor-tl3", "type", "bridge"], check=True)
    id = define(daemon, tmp_path, nic("type='bridge'", LOOSE_MAC, "<source bridge='torpor-tl3'/>"), "loose")
    try:
        with pytest.raises(NotMet, match="no IPv4 address on torpor-tl3"):
            ethernet(connection, Instance(id, WorkloadId("w"), "loose", 0, "10.0.2.15", LOOSE_MAC))
    finally:
        daemon.virsh("undefine", "loose")
        subprocess.run(["ip", "link", "del", "torpor-tl3"], check=True)


def test_a_domain_that_is_gone_has_a_silent_agent(connection: Connection) -> None:
    assert not looking_after(connection).agent_answers(InstanceId(str(uuid.uuid4())))

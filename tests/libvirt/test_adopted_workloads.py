"""An existing host: its VMs are adopted, make room, come back, and are let go; their neighbours never notice."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import typer.main
from tests.installation import ROOT, Installation, cached_image, installation, wait_until
from tests.owner import VirshOwner
from tests.vms import BOOT_SECONDS

from private_libvirtd import LibvirtHost
from torpor.cli.main import create
from torpor.domain.ids import InstanceId
from torpor.domain.workload import Flavor

HOLDS_MB = 128 + 64
"""A guest's memory and QEMU's own, in the books."""
PATIENCE = 120.0
WITH_DHCP = """
<network><name>leased</name><forward mode='open'/><bridge name='torpor-tl4' stp='off' delay='0'/>
<ip address='10.105.4.1' prefix='24'><dhcp><range start='10.105.4.10' end='10.105.4.20'/></dhcp></ip></network>
"""
GUEST = """
<domain type='qemu'>
  <name>{name}</name><uuid>{id}</uuid>
  <memory unit='MiB'>128</memory><vcpu>1</vcpu>
  <os>
    <type arch='x86_64' machine='pc'>hvm</type>
    <kernel>{image}/vmlinuz</kernel><initrd>{image}/initrd</initrd>
    <cmdline>console=ttyS0 quiet panic=1 net.ifnames=0 ipv6.disable=1 no_timer_check</cmdline>
  </os>
  <features><acpi/><apic/><tcg><tb-cache unit='MiB'>32</tb-cache></tcg></features><cpu mode='maximum'/>
  <devices>
    <controller type='usb' model='none'/>
    <interface type='network'><source network='leased'/><model type='virtio'/><rom enabled='no'/></interface>
    <channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>
    <memballoon model='none'/>
  </devices>
</domain>
"""
ASK_DHCP = (
    "printf '#!/bin/sh\\n[ $1 != bound ] || ip addr add $ip/24 dev $interface\\n' >/run/bound; chmod 755 /run/bound; "
    "ip link set eth0 up; udhcpc -i eth0 -s /run/bound -n -q"
)
SMALL = Flavor(1, 32)


@dataclass(frozen=True)
class Site:
    """A host with two guests, `alpha` and `beta`, of somebody who has their own ways; there is room for them alone."""

    torpor: Installation
    daemon: LibvirtHost
    owner: VirshOwner
    ids: dict[str, InstanceId]

    def agent(self, name: str, command: str, **arguments: object) -> Any:
        question = json.dumps({"execute": command, "arguments": arguments})
        return json.loads(self.daemon.virsh("qemu-agent-command", name, question))["return"]

    def answers(self, name: str) -> bool:
        try:
            self.agent(name, "guest-ping")
        except RuntimeError:
            return False
        return True

    def used_mb(self) -> int:
        return int(self.torpor.get("hosts")["hosts"][0]["used"]["memory_mb"])

    def guests(self) -> dict[str, Any]:
        """What each says of itself, by the address that Torpor knows."""
        return {i["name"]: self.torpor.wait_guest(i["address"]) for i in self.torpor.show("pair")["instances"]}

    def marks(self) -> list[bool]:
        return ["urn:torpor" in self.daemon.virsh("dumpxml", id) for id in self.ids.values()]


def define(daemon: LibvirtHost, folder: Path, name: str) -> InstanceId:
    id = InstanceId(str(uuid.uuid4()))
    (folder / "guest.xml").write_text(GUEST.format(name=name, id=id, image=cached_image("tiny")))
    daemon.virsh("define", str(folder / "guest.xml"))
    daemon.virsh("start", name)
    return id


@pytest.fixture(scope="module")
def site(daemon: LibvirtHost, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    (folder / "network.xml").write_text(WITH_DHCP)
    daemon.virsh("net-create", str(folder / "network.xml"))
    owner = VirshOwner(daemon)
    ids = {name: define(daemon, folder, name) for name in ("alpha", "beta")}
    try:
        with installation(number=33, memory_mb=2 * HOLDS_MB + 32, libvirt=daemon) as torpor:
            site = Site(torpor, daemon, owner, ids)
            for name in ids:
                wait_until(lambda name=name: site.answers(name), BOOT_SECONDS, f"the agent of {name} answers")  # type: ignore[misc]
                site.agent(name, "guest-exec", path="/bin/sh", arg=["-c", ASK_DHCP])
            yield site
    finally:
        for name in ids:
            daemon.virsh("destroy", name)
            daemon.virsh("undefine", name)
        owner.undefine_all()
        daemon.virsh("net-destroy", "leased")


def test_from_an_existing_host_to_a_preemption_and_back(site: Site) -> None:
    torpor = site.torpor
    listed = {vm["name"]: vm for vm in torpor.json("adopt")["vms"]}
    assert {"alpha", "beta"} <= listed.keys()
    assert (listed["alpha"]["workload"], listed["alpha"]["unfit"]) == ("", "")

    torpor.ok("adopt", "alpha", "beta", "--workload", "pair", "--preemptible")
    torpor.wait_state("pair", "active")
    assert site.marks() == [True, True]
    wait_until(lambda: site.used_mb() == 2 * HOLDS_MB, 30, "they are in the books")
    wait_until(lambda: all(torpor.addresses("pair")), 60, "their addresses are found")
    names = {n["name"]: n["address"] for n in torpor.json("names")["names"]}
    for name in site.ids:
        assert names[name].startswith("10.105.4.")
        assert torpor.resolve(name) == [names[name]]

    before = site.guests()
    plan = torpor.json("run", "urgent", "--image", "tiny", "--memory", "256M", "--priority", "10", "--dry-run")["plan"]
    assert plan["victims"] == ["pair"]
    torpor.ok("run", "urgent", "--image", "tiny", "--memory", "256M", "--priority", "10", "--wait")
    assert torpor.state("pair") == "suspended"
    assert not {str(id) for id in site.ids.values()} & set(site.daemon.virsh("list", "--uuid").split())
    assert site.used_mb() == 256 + 64
    for name in site.ids:
        assert torpor.resolve(name) == [names[name]]

    torpor.ok("delete", "urgent", "--yes")
    torpor.wait_state("pair", "active", PATIENCE)
    after = site.guests()
    for name in site.ids:
        assert after[name]["nonce"] == before[name]["nonce"]
        assert after[name]["counter"] > before[name]["counter"]

    torpor.ok("release", "pair")
    assert site.marks() == [False, False]
    assert {str(id) for id in site.ids.values()} <= set(site.daemon.virsh("list", "--uuid").split())
    assert torpor.cli("show", "pair").returncode != 0
    assert torpor.resolve("alpha") == []
    assert site.used_mb() == 0


# --- what is not adopted is never touched ---


def state_of(site: Site, ids: Sequence[InstanceId]) -> object:
    saves = site.daemon.managed_saves
    processes = [(process.pid, process.info["create_time"]) for id in ids[:1] for process in [site.torpor.qemu_of(id)]]
    images = [(path.name, path.stat().st_mtime_ns, path.stat().st_ino) for path in saves.glob("n-*")]
    return [site.owner.description(id) for id in ids], processes, images


@pytest.fixture
def neighbours(site: Site) -> Iterator[Sequence[InstanceId]]:
    """One that runs, one that was saved, one that is shut off."""
    running, saved, off = (site.owner.define(f"n-{what}", SMALL) for what in ("running", "saved", "off"))
    for id in (running, saved):
        site.owner.start(id)
    site.owner.save(saved)
    yield running, saved, off
    site.owner.undefine_all()


def commands_at(name: str) -> Sequence[Sequence[str]]:
    """Every command that takes a name, given this one, and every one that takes none."""
    return (
        ("run", name, "--image", "tiny", "--memory", "32M", "--no-wait"),
        ("suspend", name),
        ("resume", name),
        ("delete", name, "--yes"),
        ("ps", "--all"),
        ("show", name),
        ("plan",),
        ("adopt",),
        ("adopt", name, "alpha", "--workload", "odd"),
        ("release", name),
        ("hosts",),
        ("names",),
        ("operations",),
        ("events",),
        ("console", name),
        ("doctor",),
        ("doctor", "--self-test"),
        ("state", "ls"),
        ("state", "show", name),
        ("state", "verify", name),
        ("state", "verify"),
        ("state", "rm", name, "1"),
        ("state", "gc"),
        ("snapshot", "ls"),
        ("snapshot", "create", name, "s"),
        ("snapshot", "show", name, "s"),
        ("snapshot", "restore", name, "s"),
        ("snapshot", "clone", name, "s", "c"),
        ("snapshot", "rm", name, "s"),
        ("image", "ls"),
        ("down", "--suspend"),
    )


def every_request(torpor: Installation, name: str) -> None:
    """Every route of the API, with this name wherever one is asked for; most are refused."""
    bodies: dict[str, dict[str, Any]] = {
        "/v1/workloads": {"name": name, "image": "tiny", "memory_mb": 32, "count": 1},
        "/v1/adopted": {"workload": "odd", "vms": [name, "alpha"]},
        "/v1/workloads/{workload}/snapshots": {"name": "s"},
        "/v1/workloads/{workload}/snapshots/{name}/clone": {"name": "c"},
    }
    routes = json.loads((ROOT / "docs/reference/openapi.json").read_text())["paths"]
    for path, methods in routes.items():
        filled = re.sub(r"{[^}]*}", lambda found: "1" if found[0] == "{generation}" else name, path)
        for method in methods:
            if not path.endswith(("/shutdown", "/images/build", "/self-test")):
                torpor.request(method.upper(), filled.removeprefix("/v1/"), **bodies.get(path, {}))


def test_no_command_touches_a_neighbour(site: Site, neighbours: Sequence[InstanceId]) -> None:
    torpor = site.torpor
    before = state_of(site, neighbours)
    torpor.ok("run", "ours", "--image", "tiny", "--memory", "64M", "--preemptible", "--wait")
    for words in commands_at("n-running"):
        torpor.cli(*words)
    torpor.wait_dead()  # of `down`
    torpor.start()
    torpor.wait_ready()
    for name in ("n-running", "n-saved", "n-off", *neighbours):
        every_request(torpor, name)
    for name in ("ours", "n-running", "n-saved", "n-off"):
        torpor.cli("delete", name, "--yes")
    assert state_of(site, neighbours) == before


def test_every_command_is_tried() -> None:
    """A new one must be put into the list above."""
    group: Any = typer.main.get_command(create())
    assert set(group.commands) - {"serve"} == {words[0] for words in commands_at("x")}
    for name in ("state", "snapshot"):
        assert set(group.commands[name].commands) == {words[1] for words in commands_at("x") if words[0] == name}

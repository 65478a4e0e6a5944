"""The lab brought up, from wherever it stands, and down again."""

import os
import shutil
import time
from collections.abc import Callable
from contextlib import suppress

from lab.openstack.accounts import make_accounts
from lab.openstack.clouds import ADMIN, ORDINARY, connect, write_clouds
from lab.openstack.databases import make_databases, map_compute_host
from lab.openstack.debian import configure, make_root, remove_root, template_folders
from lab.openstack.failure import LabFailed
from lab.openstack.guest import make_guest
from lab.openstack.namespaces import Cell
from lab.openstack.resources import make_flavors, make_image, make_networks
from lab.openstack.running import Running
from lab.openstack.services import AGENTS, CONTROL, KEEPERS, SERVICES, STORES, Listens, Service
from lab.openstack.settings import PASSWORD, Lab
from openstack.connection import Connection

_CLOSE_SECONDS = 20.0
_CAPACITY = "/run/lab/capacity"
_MARK = ".torpor-lab"
_MADE = "/var/lib/lab"
Say = Callable[[str], None]


def up(lab: Lab, say: Say) -> None:
    """Have the lab running and ready to use, in as much time as what is missing takes. Raises LabFailed."""
    cell = Cell(lab)
    if cell.first is None:
        _make(lab, say)
        cell.start()
    _check_capacity(cell, lab)

    running = Running(cell, lambda: connect(lab, ADMIN))
    running.start(STORES)
    running.wait(_named("mariadb", "libvirtd"))
    if not any(cell.pid(service.name) for service in CONTROL):
        configure(lab, "nova", _values(lab, _libvirt_memory_mb(cell)))
    _once(lab, say, "databases", lambda: make_databases(cell, lab))
    running.wait(STORES)
    say("databases, message queue and libvirt run")

    running.start(_named("keystone"))
    running.wait(_named("keystone"))
    _once(lab, say, "accounts", lambda: make_accounts(connect(lab, ADMIN), lab))
    running.start(CONTROL)  # not before, for Nova's end when they can't log in
    admin = connect(lab, ADMIN)
    running.wait([service for service in CONTROL if isinstance(service.ready, Listens)])
    list(admin.network.networks())  # Neutron 21 answers its first query with an error if that is for ports
    say("the APIs answer")
    running.start(AGENTS)
    running.wait(SERVICES)
    say("all services are ready")
    _once(lab, say, "compute-host", lambda: map_compute_host(cell))
    _once(lab, say, "resources", lambda: _make_resources(admin, lab))
    _wait_capacity(admin, lab)


def down(lab: Lab, say: Say, wipe: bool = False) -> None:
    """End all of the lab's processes, guests included; with `wipe` remove all that `up` made. Raises LabFailed."""
    cell = Cell(lab)
    if cell.first:
        _close(cell)
        cell.end()
        say("all processes have ended")
    if wipe and lab.folder.exists():
        _check_ours(lab)
        remove_root(lab)
        shutil.rmtree(lab.folder)
        say(f"{lab.folder} is removed")


def _make(lab: Lab, say: Say) -> None:
    lab.folder.mkdir(parents=True, exist_ok=True)
    if not any(lab.folder.iterdir()):
        (lab.folder / _MARK).touch()
    _check_ours(lab)
    lab.folder.chmod(0o755)
    if make_root(lab):
        say("Debian is installed")
    make_guest(lab.guest)
    say("the test guest is there")
    for folder in template_folders():
        if folder != "nova":
            configure(lab, folder, _values(lab, 0))
    _put_in_front(lab, "ebtables")
    lab.inside("etc/hostname").write_text(f"{lab.hostname}\n")
    write_clouds(lab)


def _put_in_front(lab: Lab, program: str) -> None:
    """Have everything in the lab run etc/lab/PROGRAM, sudo's search path included."""
    link = lab.inside(f"usr/local/sbin/{program}")
    link.parent.mkdir(parents=True, exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(f"/etc/lab/{program}")


def _check_ours(lab: Lab) -> None:
    if not (lab.folder / _MARK).exists():
        raise LabFailed(f"{lab.folder} has somebody else's things in it: name another --folder")


def _named(*names: str) -> list[Service]:
    return [service for service in SERVICES if service.name in names]


def _values(lab: Lab, memory_mb: int) -> dict[str, object]:
    """What the templates are filled with, on a host of this much memory."""
    return {
        "address": lab.address,
        "hostname": lab.hostname,
        "password": PASSWORD,
        "vcpus": lab.vcpus,
        "memory_mb": lab.memory_mb,
        "cpu_ratio": lab.vcpus / (os.cpu_count() or 1),
        "reserved_mb": max(memory_mb - lab.memory_mb, 0),
    }


def _libvirt_memory_mb(cell: Cell) -> int:
    """The host's memory as Nova takes it from libvirt, which is not what /proc/meminfo has."""
    lines = cell.run("virsh", "--connect=qemu:///system", "nodeinfo").splitlines()
    return next(int(line.split()[-2]) // 1024 for line in lines if line.startswith("Memory size:"))


def _once(lab: Lab, say: Say, name: str, make: Callable[[], object]) -> None:
    made = lab.inside(f"{_MADE}/{name}")
    if not made.exists():
        make()
        made.parent.mkdir(parents=True, exist_ok=True)
        made.touch()
        say(f"{name} made")


def _make_resources(admin: Connection, lab: Lab) -> None:
    make_flavors(admin)
    make_image(admin, lab)
    for cloud in ORDINARY:
        make_networks(connect(lab, cloud))


def _wait_capacity(admin: Connection, lab: Lab) -> None:
    """Until Placement knows what the compute host offers, without which no server finds a place."""
    give_up = time.monotonic() + 120.0
    while True:
        for provider in admin.placement.resource_providers(name=lab.hostname):
            if len(list(admin.placement.resource_provider_inventories(provider))) >= 3:
                return
        if time.monotonic() > give_up:
            raise LabFailed("Placement does not hear of the compute host: see nova-compute.log")
        time.sleep(1.0)


def _close(cell: Cell) -> None:
    pids = [str(pid) for pid in map(cell.pid, KEEPERS) if pid is not None]
    with suppress(LabFailed):  # one may just have ended
        cell.run("kill", *pids)
    give_up = time.monotonic() + _CLOSE_SECONDS
    while any(map(cell.pid, KEEPERS)) and time.monotonic() < give_up:
        time.sleep(0.1)


def _check_capacity(cell: Cell, lab: Lab) -> None:
    wanted, kept = f"{lab.vcpus} vCPUs and {lab.memory_mb} MB", cell.seen(_CAPACITY)
    if not kept.exists():
        kept.write_text(wanted)
    if (offered := kept.read_text()) != wanted:
        raise LabFailed(f"the lab is up and offers {offered}: run 'script/lab down' before you give it another size")

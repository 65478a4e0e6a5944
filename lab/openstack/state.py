"""What `script/lab status` tells: services, endpoints, versions, what is booked, guests, and what it all takes."""

import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from lab.openstack.clouds import ADMIN, API_FAILURES, connect, identity_of
from lab.openstack.debian import versions
from lab.openstack.namespaces import Cell
from lab.openstack.running import Running
from lab.openstack.services import SERVICES
from lab.openstack.settings import Lab
from openstack.connection import Connection

_SHOWN = ("keystone", "glance-api", "placement-api", "nova-compute", "neutron-server", "libvirt-daemon-system",
          "qemu-system-x86", "mariadb-server", "rabbitmq-server")  # fmt: skip


def is_up(lab: Lab) -> bool:
    return Cell(lab).first is not None


def report(lab: Lab) -> Iterator[str]:
    """Line by line, for people."""
    cell = Cell(lab)
    if cell.first is None:
        yield f"down; {'made' if lab.root.exists() else 'nothing'} in {lab.folder}"
        return
    admin = connect(lab, ADMIN)
    yield from _services(cell, admin)
    found = versions(lab)
    yield "versions: " + ", ".join(f"{package} {found[package]}" for package in _SHOWN if package in found)
    try:
        yield from _endpoints(admin)
        yield from _usage(admin, lab)
        yield from _servers(admin)
    except API_FAILURES as error:
        yield f"the APIs do not answer: {error}"
    yield f"takes {_memory_mb(cell)} MB of memory and {_disk_mb(lab)} MB of disk"
    yield f"use: export OS_CLIENT_CONFIG_FILE={lab.clouds} OS_CLOUD={ADMIN}"


def _services(cell: Cell, admin: Connection) -> Iterator[str]:
    running = Running(cell, lambda: admin)
    for service in SERVICES:
        pid = cell.pid(service.name)
        word = "has ended" if pid is None else "ready" if running.ready(service) else "not ready yet"
        yield f"{service.name:20} {word}" + (f", pid {pid} there" if pid else "")


def _endpoints(admin: Connection) -> Iterator[str]:
    identity = identity_of(admin)
    names = {service.id: service.name for service in identity.services()}
    for endpoint in identity.endpoints(interface="public"):
        yield f"{names[endpoint.service_id]:20} {endpoint.url}"


def _usage(admin: Connection, lab: Lab) -> Iterator[str]:
    for provider in admin.placement.resource_providers(name=lab.hostname):
        usages = admin.placement.get(f"/resource_providers/{provider.id}/usages").json()["usages"]
        yield "booked in Placement: " + ", ".join(f"{name} {used}" for name, used in sorted(usages.items()))


def _servers(admin: Connection) -> Iterator[str]:
    for server in admin.compute.servers(all_projects=True):
        addresses = ", ".join(entry["addr"] for entries in server.addresses.values() for entry in entries)
        yield f"server {server.name} {server.id} {server.status} {addresses}"


def _memory_mb(cell: Cell) -> int:
    """Of all the lab's processes; what several share is counted once."""
    total = 0
    for process in cell.processes():
        with suppress(OSError):
            lines = Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines()
            total += next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total // 1024


def _disk_mb(lab: Lab) -> int:
    command = ["du", "-sxm", str(lab.folder)]
    listing = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    return int(listing.split()[0])

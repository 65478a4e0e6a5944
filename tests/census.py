"""What an installation holds of the machine, counted from outside: /proc, iproute2, the files, SQLite itself."""

from __future__ import annotations

import json
import sqlite3
import subprocess
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import psutil
from tests.api import Api
from tests.installation import Installation


@dataclass(frozen=True)
class Holdings:
    """Equal before and after whatever gives back all that it takes."""

    qemu_processes: int
    name_servers: tuple[int, ...]
    """Process ids: the same server serves on."""
    dead_children: int
    """Processes that ended and that the daemon has not reaped."""
    other_children: tuple[str, ...]
    """Names of processes of the daemon's that are neither QEMU nor the name server."""
    links: tuple[str, ...]
    """Interfaces in the network namespace, taps among them."""
    claims: tuple[tuple[str, str, int, int], ...]
    """(consumer, kind, vCPUs, MiB of memory), as the database has them."""
    used: tuple[int, int]
    """vCPUs and MiB of memory that the API says are taken."""
    addresses: tuple[tuple[str, str], ...]
    """(name, address) of every instance."""
    hosts_files: tuple[str, ...]
    """Names that the name server reads."""
    folders: tuple[str, ...]
    """Instances that have a folder."""
    generations: tuple[int, ...]
    """Saved states of each instance."""
    disk_snapshots: int
    unfinished: tuple[str, ...]
    """Files and folders that are written aside, or being removed."""


@dataclass(frozen=True)
class Size:
    """What may vary a little; it must not grow."""

    descriptors: int
    threads: int
    memory_mb: float
    state_mb: float
    """Saved states on disk."""
    claimed_disk_mb: int


def holdings(torpor: Installation, api: Api) -> Holdings:
    daemon = psutil.Process(api.get("/health")["pid"])
    children = [(c.name(), c.status()) for c in daemon.children(recursive=True)]
    host = api.get("/hosts")["hosts"][0]["used"]
    instances = torpor.state_dir / "instances"
    return Holdings(
        qemu_processes=len(torpor.qemu_processes()),
        name_servers=tuple(sorted(p.pid for p in torpor.name_servers())),
        dead_children=sum(status == psutil.STATUS_ZOMBIE for _, status in children),
        other_children=tuple(sorted(name for name, _ in children if not name.startswith(("qemu-system", "dnsmasq")))),
        links=_links(torpor.namespace),
        claims=_claims(torpor.state_dir),
        used=(host["vcpus"], host["memory_mb"]),
        addresses=tuple(sorted((n["name"], n["address"]) for n in api.get("/names")["names"])),
        hosts_files=tuple(sorted(f.name for f in (torpor.state_dir / "names" / "hosts").iterdir())),
        folders=tuple(sorted(f.name for f in instances.iterdir())),
        generations=tuple(sorted(sum(1 for _ in s.iterdir()) for s in instances.glob("*/states"))),
        disk_snapshots=sum(map(_disk_snapshots, instances.glob("*/run/disk.qcow2"))),
        unfinished=tuple(sorted(_unfinished(torpor.state_dir))),
    )


def size(torpor: Installation, api: Api) -> Size:
    daemon = psutil.Process(api.get("/health")["pid"])
    states = (torpor.state_dir / "instances").glob("*/states/**/*")
    return Size(
        descriptors=daemon.num_fds(),
        threads=daemon.num_threads(),
        memory_mb=daemon.memory_info().rss / 2**20,
        state_mb=sum(f.stat().st_blocks * 512 for f in states if f.is_file()) / 2**20,
        claimed_disk_mb=api.get("/hosts")["hosts"][0]["used"]["disk_mb"],
    )


def descriptors(pid: int) -> dict[str, int]:
    """How many open files of each kind or path a process has, for the message of a test that failed."""
    found: dict[str, int] = {}
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = str(entry.readlink()).partition(":[")[0]
        except OSError:
            continue
        found[target] = found.get(target, 0) + 1
    return found


def _links(namespace: str) -> tuple[str, ...]:
    listing = subprocess.run(["ip", "-n", namespace, "-json", "link"], capture_output=True, text=True, check=True)
    return tuple(sorted(link["ifname"] for link in json.loads(listing.stdout)))


def _claims(state_dir: Path) -> tuple[tuple[str, str, int, int], ...]:
    with closing(sqlite3.connect(f"file:{state_dir / 'torpor.db'}?mode=ro", uri=True)) as connection:
        return tuple(connection.execute("SELECT consumer, kind, vcpus, memory_mb FROM claims ORDER BY consumer, kind"))


def _disk_snapshots(disk: Path) -> int:
    command = ["qemu-img", "info", "--force-share", "--output=json", str(disk)]
    found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return len(found.get("snapshots", ()))


def _unfinished(state_dir: Path) -> list[str]:
    return [
        str(path.relative_to(state_dir))
        for path in state_dir.rglob("*")
        if path.name.startswith(".") or path.name.endswith((".partial", ".tmp"))
    ]

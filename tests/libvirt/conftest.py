"""A libvirtd of the tests' own, for as long as they run."""

import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from private_libvirtd import LibvirtHost
from torpor.adapters.libvirt.connection import Connection


@dataclass(frozen=True)
class Libvirt:
    """The daemon, seen by `virsh` and by Torpor."""

    daemon: LibvirtHost
    folder: Path
    connection: Connection

    def virsh(self, *arguments: str) -> str:
        return self.daemon.virsh(*arguments)

    def restart(self) -> None:
        self.daemon.stop()
        self.daemon.use("raw")


@pytest.fixture(scope="session")
def libvirt_host() -> Iterator[Libvirt]:
    """Its folder's name is short, for QEMU's sockets."""
    folder = Path(tempfile.mkdtemp(prefix="tl-", dir="/var/tmp"))
    daemon = LibvirtHost(folder)
    daemon.use("raw")
    connection = Connection(f"qemu+unix:///system?socket={folder}/s/libvirt-sock")
    try:
        yield Libvirt(daemon, folder, connection)
    finally:
        connection.close()
        for line in daemon.virsh("list", "--all", "--name").split():
            daemon.virsh("undefine", "--managed-save", "--snapshots-metadata", line)
        daemon.stop()
        shutil.rmtree(folder)

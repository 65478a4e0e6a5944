"""A libvirtd of the tests' own, for as long as they run."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from private_libvirtd import LibvirtHost, private_libvirtd
from torpor.adapters.libvirt.connection import Connection

FORWARDING = Path("/proc/sys/net/ipv4/ip_forward")


@pytest.fixture(scope="session")
def daemon() -> Iterator[LibvirtHost]:
    """Its folder's name is short, for QEMU's sockets. That libvirt has the host forward is taken back at the end."""
    before = FORWARDING.read_text()
    folder = tempfile.TemporaryDirectory(prefix="tl-", dir="/var/tmp")
    with folder as path, private_libvirtd(Path(path) / "d") as host:
        yield host
    FORWARDING.write_text(before)


@pytest.fixture(scope="session")
def connection(daemon: LibvirtHost) -> Iterator[Connection]:
    opened = Connection(daemon.uri)
    yield opened
    opened.close()

"""A connection that breaks under several threads: each gets its error, and the program lives."""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.libvirt_host import cut

from private_libvirtd import LibvirtHost

pytestmark = pytest.mark.slow

SECONDS = 60
DOMAIN = (
    "<domain type='qemu'><name>{name}</name><memory unit='MiB'>64</memory>"
    "<os><type arch='x86_64'>hvm</type></os></domain>"
)
ASKERS = """
import sys, threading, time
from torpor.adapters.libvirt.connection import Connection
from torpor.domain.errors import TorporError

connection, over = Connection(sys.argv[1]), time.monotonic() + float(sys.argv[2])
answers, losses = [], []

def ask():
    while time.monotonic() < over:
        try:
            with connection.call("nothing is asked") as host:
                for domain in host.listAllDomains():
                    domain.info()
                    domain.setMetadata(0, str(time.time()), None, None, 0)
            answers.append(1)
        except TorporError:
            losses.append(1)

threads = [threading.Thread(target=ask) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(len(answers), len(losses))
"""
"""A process, for what is feared is its death."""


@pytest.fixture
def domains(daemon: LibvirtHost, tmp_path: Path) -> Iterator[None]:
    names = ["asked-0", "asked-1", "asked-2"]
    for name in names:
        described = tmp_path / name
        described.write_text(DOMAIN.format(name=name))
        daemon.virsh("define", str(described))
    yield
    for name in names:
        daemon.virsh("undefine", name)


def test_connections_that_are_cut_all_the_time_kill_nobody(daemon: LibvirtHost, domains: None) -> None:
    asking = subprocess.Popen(
        [sys.executable, "-c", ASKERS, daemon.uri, str(SECONDS)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    cuts = 0
    while asking.poll() is None:
        time.sleep(0.05)
        cut(daemon)
        cuts += 1
    told, complaints = asking.communicate()
    assert asking.returncode == 0, complaints
    assert "CRITICAL" not in complaints
    answers, losses = map(int, told.split())
    assert answers > 100
    assert losses > 20
    assert cuts > 20

"""`torpor names serve` for a network of the lab, with a dnsmasq of its own and a BIND of somebody else's."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import dns.exception
import dns.message
import dns.query
import psutil
import pytest
from lab.openstack.clouds import ORDINARY, connect
from lab.openstack.settings import Lab
from openstack.compute.v2.server import Server
from openstack.connection import Connection
from openstack.network.v2.port import Port
from tests.installation import wait_until
from tests.lab_machines import PATIENCE, running_lab
from tests.named import Named, named

ZONE, REVERSE = "cloud.internal", "10.10.in-addr.arpa"
ADDRESS = "127.0.111.95"
NETWORK = "n1"
SOON = 5.0
"""Seconds within which a name must follow what others do in the cloud."""


class NamesService:
    """As its own how-to sets it up; below `root`."""

    def __init__(self, root: Path, lab: Lab, bind: Named) -> None:
        self.bind = bind
        self._lab = lab
        self._log = root / "log"
        self.config = root / "names.toml"
        self._process: subprocess.Popen[bytes] | None = None
        root.chmod(0o711)
        self.config.write_text(
            f"""
state_dir = "{root / "state"}"
run_dir = "{root / "run"}"
[openstack]
cloud = "lab-demo"
dns_address = "{ADDRESS}"
[network]
zone = "{ZONE}"
[names]
publish = ["dnsmasq", "rfc2136"]
networks = ["{NETWORK}"]
[names.rfc2136]
server = "{bind.address}"
port = {bind.port}
owner = "names"
key_file = "{bind.key_file}"
reverse_zones = ["{REVERSE}"]
"""
        )

    def command(self, *more: str) -> list[str]:
        return [sys.executable, "-m", "torpor", "--config", str(self.config), "names", "serve", *more]

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "OS_CLIENT_CONFIG_FILE": str(self._lab.clouds)}

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self.command(), stdout=log, stderr=log, env=self.environment)

    def end(self, number: int = signal.SIGTERM) -> None:
        assert self._process is not None
        self._process.send_signal(number)
        self._process.wait(30)

    def take_down(self) -> None:
        subprocess.run(self.command("--take-down"), check=True, env=self.environment)

    def kill_dnsmasq(self) -> None:
        for process in psutil.process_iter(["cmdline"]):
            if f"--listen-address={ADDRESS}" in (process.info["cmdline"] or []):
                process.kill()

    def says(self) -> str:
        return self._log.read_text(errors="replace")

    def answers(self, name: str) -> list[str] | None:
        """What its own name server says; nothing where there is no such name, None where there is no answer."""
        query = dns.message.make_query(f"{name}.{ZONE}", "A")
        try:
            answer = dns.query.udp(query, ADDRESS, timeout=1.0)
        except (OSError, dns.exception.DNSException):
            return None
        return sorted(str(data) for found in answer.answer for data in found)

    def lead(self, name: str, addresses: list[str], seconds: float = SOON) -> None:
        """Wait until its own name server answers so."""
        wait_until(lambda: self.answers(name) == addresses, seconds, f"{name} leads to {addresses}")

    def follow(self, name: str, addresses: list[str], seconds: float = SOON) -> None:
        """Wait until both servers answer so."""
        self.lead(name, addresses, seconds)
        wait_until(lambda: self._bind_has(name) == addresses, seconds, f"BIND has {name} at {addresses}")

    def _bind_has(self, name: str) -> list[str] | None:
        try:
            return self.bind.ask(f"{name}.{ZONE}", "A")
        except (OSError, dns.exception.DNSException):
            return None


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    with running_lab() as found:
        yield found


@pytest.fixture(scope="session")
def member(lab: Lab) -> Connection:
    """Of the project whose network it is; knows nothing of Torpor."""
    return connect(lab, ORDINARY[0])


@pytest.fixture(scope="session")
def bind() -> Iterator[Named]:
    with named(10395, (ZONE, REVERSE)) as server:
        yield server


@pytest.fixture(scope="session")
def installed(lab: Lab, bind: Named) -> Iterator[NamesService]:
    with tempfile.TemporaryDirectory(prefix="torpor-names-") as folder:
        service = NamesService(Path(folder), lab, bind)
        service.start()
        try:
            yield service
        finally:
            service.end()
            service.take_down()


@pytest.fixture
def service(installed: NamesService, member: Connection) -> Iterator[NamesService]:
    """It runs; what a test has made in the cloud is gone afterwards."""
    yield installed
    for server in member.compute.servers():
        member.compute.delete_server(server)
        member.compute.wait_for_delete(server, wait=PATIENCE)
    for port in member.network.ports():
        if not port.device_owner:
            member.network.delete_port(port)


def boot(cloud: Connection, name: str, port: Port | None = None, config_drive: bool = True, **more: str) -> Server:
    """Accepted by Nova, no more."""
    network = cloud.network.find_network(NETWORK, ignore_missing=False)
    return cloud.compute.create_server(
        name=name,
        image_id=cloud.image.find_image("tiny", ignore_missing=False).id,
        flavor_id=cloud.compute.find_flavor("g256", ignore_missing=False).id,
        networks=[{"port": port.id}] if port else [{"uuid": network.id}],
        config_drive=config_drive,
        **more,
    )


def make_port(cloud: Connection, name: str, address: str = "") -> Port:
    network = cloud.network.find_network(NETWORK, ignore_missing=False)
    fixed = {"fixed_ips": [{"ip_address": address}]} if address else {}
    return cloud.network.create_port(network_id=network.id, name=name, **fixed)


def address_of(port: Port) -> str:
    return str(port.fixed_ips[0]["ip_address"])

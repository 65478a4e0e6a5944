"""`torpor names serve` for a network of the lab, with a dnsmasq of its own and a BIND of somebody else's."""

from __future__ import annotations

import base64
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import dns.exception
import dns.message
import dns.query
import psutil
import pytest
from lab.openstack.clouds import ADMIN, ORDINARY, connect
from lab.openstack.namespaces import Cell
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
        self.state_dir = root / "state"
        self._process: subprocess.Popen[bytes] | None = None
        root.chmod(0o711)
        self.config.write_text(
            f"""
state_dir = "{self.state_dir}"
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


class DhcpService:
    """`torpor network dhcp` on the lab's compute host, with its network and this machine's files."""

    def __init__(self, lab: Lab, network: str, config: Path, log: Path) -> None:
        self.network = network
        self._lab = lab
        self._config = config
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    def on_host(self, *words: str) -> list[str]:
        """`torpor` with these words, on the compute host, as an administrator of the cloud."""
        first = Cell(self._lab).first
        assert first is not None
        inside = ("nsenter", f"--target={first.pid}", "--net", "--")
        torpor = (sys.executable, "-m", "torpor", "--config", str(self._config))
        return [*inside, *torpor, *words, "--cloud", ADMIN, "--host", self._lab.hostname]

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "OS_CLIENT_CONFIG_FILE": str(self._lab.clouds)}

    def start(self) -> None:
        with self._log.open("ab") as log:
            command = self.on_host("network", "dhcp", self.network)
            self._process = subprocess.Popen(command, stdout=log, stderr=log, env=self.environment)
        wait_until(lambda: "leases pinned" in self.says(), PATIENCE, "DHCP is served")

    def end(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(30)
            self._process = None

    def take_down(self) -> None:
        self.end()
        command = self.on_host("network", "dhcp", self.network, "--take-down")
        subprocess.run(command, check=True, env=self.environment)
        self._log.unlink(missing_ok=True)

    def kill_dnsmasq(self) -> None:
        for process in psutil.process_iter(["cmdline"]):
            if any("/network-dhcp/" in word for word in process.info["cmdline"] or []):
                process.kill()

    def says(self) -> str:
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def address(self, cloud: Connection) -> str:
        """Its own, on the network."""
        (port,) = cloud.network.ports(network_id=self.network, device_owner="torpor:dhcp")
        return address_of(port)


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


@pytest.fixture
def dhcp(lab: Lab, service: NamesService, member: Connection, tmp_path: Path) -> Iterator[DhcpService]:
    """For the network whose names are served; not running yet."""
    network = member.network.find_network(NETWORK, ignore_missing=False).id
    config = tmp_path / "dhcp.toml"  # on the compute host nobody can ask the service's name server
    config.write_text(f'state_dir = "{service.state_dir}"\n[network]\nzone = "{ZONE}"\n')
    made = DhcpService(lab, network, config, tmp_path / "log")
    try:
        yield made
    finally:
        made.take_down()


def console(lab: Lab, server: Server) -> str:
    """All that it has said since it last began to run, as its host has it."""
    file = lab.inside(f"/var/lib/nova/instances/{server.id}/console.log")
    return file.read_text(errors="replace") if file.exists() else ""


def hears(lab: Lab, server: Server, words: str, seconds: float = PATIENCE) -> None:
    """Wait until the guest has said so."""
    wait_until(lambda: words in console(lab, server), seconds, f"{server.name} says {words!r}")


def with_script(member: Connection, name: str, port: Port, script: str) -> Server:
    """It runs the script; a config drive brings it."""
    return boot(member, name, port, user_data=base64.b64encode(script.encode()).decode())


@pytest.fixture
def blank(lab: Lab, member: Connection) -> Iterator[str]:
    """An image with nothing to boot: its servers cost hardly any processor time. Its name."""
    image = member.image.create_image(
        "blank", filename=str(lab.guest / "disk.qcow2"), disk_format="qcow2", container_format="bare", wait=True
    )
    yield "blank"
    member.image.delete_image(image.id)


def boot(
    cloud: Connection,
    name: str,
    port: Port | None = None,
    config_drive: bool = True,
    image: str = "tiny",
    **more: str,
) -> Server:
    """Accepted by Nova, no more."""
    network = cloud.network.find_network(NETWORK, ignore_missing=False)
    return cloud.compute.create_server(
        name=name,
        image_id=cloud.image.find_image(image, ignore_missing=False).id,
        flavor_id=cloud.compute.find_flavor("g256", ignore_missing=False).id,
        networks=[{"port": port.id}] if port else [{"uuid": network.id}],
        config_drive=config_drive,
        **more,
    )


def make_port(cloud: Connection, name: str, address: str = "") -> Port:
    network = cloud.network.find_network(NETWORK, ignore_missing=False)
    fixed = {"fixed_ips": [{"ip_address": address}]} if address else {}
    return cloud.network.create_port(network_id=network.id, name=name, **fixed)


def port_of(cloud: Connection, server: Server) -> Port:
    """Once Nova has made it. Asked for now and then: Neutron is on the same two cores."""

    def look() -> Port | None:
        time.sleep(0.4)
        return next(iter(cloud.network.ports(device_id=server.id)), None)

    found: Port = wait_until(look, PATIENCE, f"{server.name} has a port")
    return found


def address_of(port: Port) -> str:
    return str(port.fixed_ips[0]["ip_address"])

"""A whole Torpor of a test's own: configuration, daemon, network, CLI, and talk with its guests."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import dns.exception
import dns.resolver
import dns.reversename
import httpx
import psutil

from private_libvirtd import LibvirtHost
from torpor.adapters.images.store import ImageStore

ROOT = Path(__file__).parent.parent
CACHE = Path(os.environ.get("TORPOR_TEST_CACHE", ROOT / "build" / "test-images"))
GUEST_PORT = 7000
BOOT_PATIENCE = 90.0
SERVE = ("-m", "torpor", "--config", "{config}", "serve")


def wait_until(condition: Callable[[], Any], seconds: float, what: str) -> Any:
    """Poll until `condition` returns something true; return that. Fails with `what` after `seconds`."""
    give_up = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > give_up:
            raise AssertionError(f"not within {seconds:.0f} s: {what}")
        time.sleep(0.1)


@cache
def cached_image(name: str) -> Path:
    """The folder of an image by the recipe of the same name, as the recipe is now; what was built once is kept."""
    store = ImageStore(CACHE)
    if name in {image.name for image in store.list()}:
        store.remove(name)
    store.build(name, name, lambda line: None)
    return CACHE / name


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # on another file system
        shutil.copy2(source, target)


def _libvirt_section(daemon: LibvirtHost, network: str, tb_size_mb: int, unplanned_start: str) -> str:
    return f"""
[libvirt]
uri = "{daemon.uri}"
network = "{network}"
save_dir = "{daemon.managed_saves}"
unplanned_start = "{unplanned_start}"
tb_size_mb = {tb_size_mb}
overhead_mb = 64
"""


def _openstack_section(dns_address: str, unplanned_start: str) -> str:
    return f"""
[openstack]
cloud = "lab-torpor"
project = "demo"
networks = ["n1"]
unplanned_start = "{unplanned_start}"
dns_address = "{dns_address}"
look_seconds = 1.0
"""


class Installation:
    """Configuration and state below `root`; network of its own, numbered by `number` (0-99)."""

    def __init__(
        self,
        root: Path,
        number: int,
        memory_mb: int = 1024,
        vcpus: int = 4,
        disk_mb: int = 20000,
        subnet: str = "10.111.{number}.0/24",
        tb_size_mb: int = 32,
        libvirt: LibvirtHost | None = None,
        clouds: Path | None = None,
        unplanned_start: str = "suspend",
        dhcp: bool = False,
        **policy: float,
    ) -> None:
        """`clouds`: the OpenStack lab's clouds.yaml; its servers are made, and erased, by whoever asks for them."""
        self.root = root
        self.clouds = clouds
        self.libvirt = libvirt
        self.state_dir = root / "state"
        self.socket = root / "run" / "api.sock"
        self.config = root / "torpor.toml"
        self.zone = "test.internal"
        self.gateway = f"127.0.111.{number}" if clouds else f"10.111.{number}.1"
        self._environment = {"OS_CLIENT_CONFIG_FILE": str(clouds)} if clouds else {}
        self._daemon: subprocess.Popen[bytes] | None = None
        root.chmod(0o711)
        self.namespace = self.interface = f"torpor-t{number}"
        rules = {"min_run_seconds": 0.0, "stop_grace_seconds": 3.0, **policy}
        self.config.write_text(
            f"""
backend = "{"openstack" if clouds else "libvirt" if libvirt else "qemu"}"
state_dir = "{self.state_dir}"
run_dir = "{root / "run"}"
[host]
vcpus = {vcpus}
memory_mb = {memory_mb}
disk_mb = {disk_mb}
[qemu]
overhead_mb = 64
tb_size_mb = {tb_size_mb}
{_libvirt_section(libvirt, self.interface, tb_size_mb, unplanned_start) if libvirt else ""}
{_openstack_section(self.gateway, unplanned_start) if clouds else ""}
[network]
namespace = "{self.namespace}"
interface = "{self.interface}"
subnet = "{subnet.format(number=number)}"
zone = "{self.zone}"
dhcp = {str(dhcp).lower()}
[policy]
"""
            + "\n".join(f"{key} = {value}" for key, value in rules.items())
        )

    # --- images and daemon ---

    def use_image(self, name: str) -> None:
        """Put the cached image into this installation's store, without copying its bytes where that can be."""
        target = self.state_dir / "images" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(cached_image(name), target, copy_function=_link_or_copy)

    def start(self, command: Sequence[str] = SERVE, prefix: Sequence[str] = ()) -> None:
        """Start a daemon; `command` is what follows `python`, `prefix` a program that becomes it in the end."""
        log = (self.root / "daemon.log").open("ab")
        self._daemon = subprocess.Popen(
            [*prefix, sys.executable, *(part.format(config=self.config) for part in command)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", **self._environment},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )

    def wait_ready(self, seconds: float = 90.0) -> None:
        wait_until(self.answers, seconds, f"the daemon answers; its log: {self.log()[-2000:]}")

    def answers(self) -> bool:
        client = socket.socket(socket.AF_UNIX)
        try:
            client.connect(str(self.socket))
        except OSError:
            return False
        finally:
            client.close()
        return True

    def wait_dead(self, seconds: float = 60.0) -> int:
        """Until the daemon has ended; its exit status (negative: the signal that killed it)."""
        assert self._daemon is not None
        return self._daemon.wait(seconds)

    def kill(self) -> None:
        """SIGKILL the daemon, whatever it is doing."""
        assert self._daemon is not None
        self._daemon.send_signal(signal.SIGKILL)
        self._daemon.wait(10)

    def log(self) -> str:
        return (self.root / "daemon.log").read_text(errors="replace") if (self.root / "daemon.log").exists() else ""

    # --- CLI ---

    def cli(self, *words: str, timeout: float = 120.0) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "torpor", "--config", str(self.config), *words],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "COLUMNS": "120", **self._environment},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def ok(self, *words: str, timeout: float = 120.0) -> str:
        """The command's output; fails with its error unless it succeeds."""
        done = self.cli(*words, timeout=timeout)
        assert done.returncode == 0, f"torpor {' '.join(words)}: {done.returncode}: {done.stderr}{done.stdout}"
        return done.stdout

    def json(self, *words: str) -> Any:
        return json.loads(self.ok(*words, "--json"))

    def request(self, method: str, path: str, **body: Any) -> httpx.Response:
        """Ask the API without a process of its own, which polling can't afford."""
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(self.socket)), timeout=120.0) as client:
            return client.request(method, f"http://torpor/v1/{path}", json=body or None)

    def get(self, path: str) -> Any:
        """The API's answer to a GET."""
        return self.request("GET", path).raise_for_status().json()

    def ask_and_die(self, method: str, path: str, **body: Any) -> None:
        """Ask for what the daemon may die of before it has answered."""
        with contextlib.suppress(httpx.TransportError):
            self.request(method, path, **body).raise_for_status()

    def show(self, workload: str) -> Any:
        return self.get(f"workloads/{workload}")

    def state(self, workload: str) -> str:
        return str(self.show(workload)["state"])

    def has(self, workload: str) -> bool:
        """Whether there is such a workload."""
        return self.request("GET", f"workloads/{workload}").status_code == 200

    def wait_state(self, workload: str, state: str, seconds: float = 60.0) -> None:
        wait_until(lambda: self.state(workload) == state, seconds, f"{workload} is {state}")

    # --- guests and names ---

    def ask(self, address: str, command: str, timeout: float = 30.0) -> Any:
        """One command to a tiny guest's control service; its answer."""
        with socket.create_connection((address, GUEST_PORT), timeout=timeout) as connection:
            connection.sendall(f"{command}\n".encode())
            with connection.makefile() as lines:
                return json.loads(lines.readline())

    def status(self, address: str) -> Any:
        """The guest's status, or None while it does not answer."""
        try:
            return self.ask(address, "status", timeout=3.0)
        except (OSError, ValueError):
            return None

    def wait_guest(self, address: str, seconds: float = BOOT_PATIENCE) -> Any:
        return wait_until(lambda: self.status(address), seconds, f"the guest at {address} answers")

    def addresses(self, workload: str) -> list[str]:
        return [instance["address"] for instance in self.show(workload)["instances"]]

    def resolve(self, name: str) -> list[str]:
        """What the installation's own name server says; empty when there is no such name."""
        resolver = dns.resolver.Resolver(configure=False)
        resolver.nameservers = [self.gateway]
        resolver.lifetime = 2.0
        try:
            return [record.to_text() for record in resolver.resolve(f"{name}.{self.zone}", "A")]
        except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
            return []

    # --- what is left ---

    def qemu_processes(self) -> list[psutil.Process]:
        """QEMU processes of this installation, found by their command lines alone."""
        return [
            process
            for process in psutil.process_iter(["name", "cmdline"])
            if (process.info["name"] or "").startswith("qemu-system")
            and str(self.state_dir) in " ".join(process.info["cmdline"] or [])
        ]

    def name_servers(self) -> list[psutil.Process]:
        """Name servers of this installation, found by their command lines alone."""
        mark = f"--hostsdir={self.state_dir}/"
        return [
            process
            for process in psutil.process_iter(["name", "cmdline"])
            if process.info["name"] == "dnsmasq" and any(a.startswith(mark) for a in process.info["cmdline"] or [])
        ]

    def qemu_of(self, instance: str) -> psutil.Process:
        """The process of the instance with this id, adopted or not; fails unless there is exactly one."""
        found = psutil.process_iter(["name", "cmdline", "create_time"])
        (process,) = [
            p
            for p in found
            if (p.info["name"] or "").startswith("qemu-system") and instance in (p.info["cmdline"] or ())
        ]
        return process

    def kill_qemu(self, instance: str) -> None:
        """SIGKILL the process of the instance with this id."""
        process = self.qemu_of(instance)
        process.kill()
        process.wait(20)

    def dhcp_servers(self) -> list[psutil.Process]:
        """Likewise."""
        mark = f"--dhcp-hostsfile={self.state_dir}/"
        return [
            process
            for process in psutil.process_iter(["cmdline"])
            if any(a.startswith(mark) for a in process.info["cmdline"] or [])
        ]

    def lose_power(self) -> None:
        """All that a restart of the machine ends: daemon, guests, name server, namespace, interfaces."""
        self.kill()
        for process in (*self.qemu_processes(), *self.name_servers(), *self.dhcp_servers()):
            process.kill()
            process.wait(20)
        subprocess.run(["ip", "netns", "del", self.namespace], check=True)
        subprocess.run(
            ["ip", "link", "del", self.interface], capture_output=True, check=False
        )  # its peer took it along

    def close(self) -> None:
        """End all that is this installation's: daemon, guests, name server, network."""
        if self._daemon is not None and self._daemon.poll() is None:
            self.kill()
        for process in self.qemu_processes():
            process.kill()
            process.wait(10)
        if self.libvirt:
            self._undefine_domains(self.libvirt)
        self.cli("serve", "--take-down")  # refused while the records say that something runs
        for process in self.name_servers():
            process.kill()
            process.wait(10)
        if not self.clouds:
            subprocess.run(["ip", "netns", "del", self.namespace], capture_output=True, check=False)

    def _undefine_domains(self, daemon: LibvirtHost) -> None:
        """Those that Torpor made: their files lie in its state directory."""
        daemon.start()
        for id in daemon.virsh("list", "--all", "--uuid").split():
            if str(self.state_dir) in daemon.virsh("dumpxml", id):
                if id in daemon.virsh("list", "--uuid").split():
                    daemon.virsh("destroy", id)
                daemon.virsh("undefine", "--managed-save", "--snapshots-metadata", id)


@contextmanager
def installation(
    number: int, image: str = "tiny", state_mb: int | None = None, **settings: Any
) -> Iterator[Installation]:
    """An installation with this image, its daemon running; closed and removed afterwards.

    `state_mb` gives it a file system of that size for its state directory.
    Not below pytest's own folder, which the users of QEMU and dnsmasq may not pass.
    """
    root = Path(tempfile.mkdtemp(prefix="torpor-test-"))
    torpor = Installation(root, number, **settings)
    try:
        if state_mb is not None:
            torpor.state_dir.mkdir()
            options = f"size={state_mb}m,mode=0711"
            subprocess.run(["mount", "-t", "tmpfs", "-o", options, "torpor-test", torpor.state_dir], check=True)
        if image:
            torpor.use_image(image)
        torpor.start()
        torpor.wait_ready()
        yield torpor
    finally:
        torpor.close()
        if state_mb is not None:
            subprocess.run(["umount", "--lazy", torpor.state_dir], check=True)
        shutil.rmtree(root, ignore_errors=True)

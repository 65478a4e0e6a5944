"""A Torpor of the demo's own: configuration, daemon, and everything removed again afterwards."""

import fcntl
import json
import os
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Mapping, Sequence
from ipaddress import IPv4Network
from pathlib import Path
from typing import IO, Any

import httpx
import psutil

from demonstration import processes
from demonstration.backends import Backend, make_backend
from demonstration.failure import DemoFailed

NAMESPACE, INTERFACE, ZONE = "torpor-demo", "torpordemo0", "demo.internal"
ANSWER_SECONDS = 120.0
"""The daemon answers at once, unless it is just asking a cloud that is slow."""


class Installation:
    """Everything lies below `root`; the image is kept there for the next run."""

    def __init__(self, root: Path, subnet: IPv4Network, host: dict[str, int], backend: Backend) -> None:
        self.root = root
        self.backend = backend
        self.state_dir = root / "state"
        self.run_dir = root / "run"
        self.config = root / "torpor.toml"
        self.name_server = backend.name_server or str(subnet.network_address + 1)
        self.subnet = subnet
        self.host = host
        self._lock: IO[str] | None = None

    def prepare(self) -> None:
        """One demo at a time; what a demo that was killed has left is removed first."""
        self.root.mkdir(parents=True, exist_ok=True, mode=0o755)
        self._lock = (self.root / "lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise DemoFailed(f"another demo is running in {self.root}") from error
        if self.config.exists():
            left = self._earlier().clean()
            if left:
                raise DemoFailed(f"an earlier demo in {self.root} left {' and '.join(left)}")
        self.config.write_text(self._settings())

    def start(self) -> None:
        """What the daemon needs; the first command starts the daemon itself. Raises DemoFailed."""
        self.backend.start()

    def _earlier(self) -> "Installation":
        """What a demo that was killed has left, which may have been one of another backend."""
        backend = tomllib.loads(self.config.read_text()).get("backend", "qemu")
        return Installation(self.root, self.subnet, self.host, make_backend(backend, self.root))

    def _settings(self) -> str:
        return f"""
{self.backend.settings()}state_dir = "{self.state_dir}"
run_dir = "{self.run_dir}"
[host]
name = "demo"
vcpus = {self.host["vcpus"]}
memory_mb = {self.host["memory_mb"]}
[network]
namespace = "{NAMESPACE}"
interface = "{INTERFACE}"
subnet = "{self.subnet}"
zone = "{ZONE}"
{self.backend.section()}[policy]
min_run_seconds = 1
"""

    # --- asking the daemon ---

    def torpor(self, *arguments: str, timeout: float = 300.0) -> Any:
        """What a person would type; the answer of `--json`. Raises DemoFailed."""
        command = [sys.executable, "-m", "torpor", "--config", str(self.config), *arguments, "--json"]
        try:
            ended = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout, check=False,
                env={**os.environ, **self.backend.environment()},
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise DemoFailed(f"`torpor {arguments[0]}` took longer than {timeout:.0f} s") from error
        if ended.returncode != 0:
            said = (ended.stderr.strip() or ended.stdout.strip()).splitlines() or ["it said nothing"]
            raise DemoFailed(f"`torpor {' '.join(arguments)}` failed: {said[-1].rstrip('.')}")
        return json.loads(ended.stdout)

    def get(self, path: str) -> Any:
        """A look through the API, for waiting; the command line would take half a second each time.

        Raises DemoFailed.
        """
        transport = httpx.HTTPTransport(uds=str(self.run_dir / "api.sock"))
        try:
            with httpx.Client(transport=transport, timeout=ANSWER_SECONDS) as client:
                return client.get(f"http://torpor{path}").raise_for_status().json()
        except httpx.HTTPError as error:
            raise DemoFailed(f"the daemon did not answer {path}: {error}") from error

    def wait_until(self, workload: str, arrived: Callable[[Any], bool], patience: float = 120.0) -> Any:
        """The workload's document as soon as `arrived` says so. Raises DemoFailed."""
        give_up = time.monotonic() + patience
        while True:
            document = self.get(f"/v1/workloads/{workload}")
            if arrived(document):
                return document
            if document["state"] == "failed":
                problem = document["problem"] or {"what": document["reason"]}
                raise DemoFailed(f"{workload} failed: {problem['what']}: {problem.get('detail', '')}".rstrip(": "))
            if time.monotonic() > give_up:
                why = document["waiting_for"] or document["reason"]
                raise DemoFailed(f"{workload} is still {document['state']} after {patience:.0f} s ({why})")
            time.sleep(self.backend.poll_seconds)

    def stored_bytes(self, instances: Sequence[Mapping[str, Any]]) -> int:
        """What the saved states of these instances take on disk, holes not counted."""
        files = (file for instance in instances for file in self.backend.saved_files(instance))
        return sum(file.stat().st_blocks * 512 for file in files)

    # --- the end ---

    def clean(self) -> list[str]:
        """Delete every workload, take everything down; what could not be removed."""
        if not self.config.exists():
            return []
        left: list[str] = []
        try:
            self.backend.start()
            for workload in self.torpor("ps", "--all")["workloads"]:
                self.torpor("delete", workload["name"], "--yes")
            daemon = self.get("/v1/health")["pid"]
            self.torpor("down")
            left += self._wait_for_end(daemon)
        except DemoFailed as error:
            left.append(f"a part that could not be removed politely ({error})")
        left += [f"process {pid}" for pid in processes.kill(self.state_dir)]
        left += self.backend.end()
        if Path(f"/run/netns/{NAMESPACE}").exists():
            left.append(f"network namespace {NAMESPACE}")
        if Path(f"/sys/class/net/{INTERFACE}").exists():
            left.append(f"network interface {INTERFACE}")
        if not left:
            self._forget()
        return left

    @staticmethod
    def _wait_for_end(daemon: int) -> list[str]:
        """The socket goes first, and the process only once it has closed its books."""
        give_up = time.monotonic() + 30.0
        while psutil.pid_exists(daemon):
            if time.monotonic() > give_up:
                return [f"the daemon, process {daemon},"]
            time.sleep(0.05)
        return []

    def _forget(self) -> None:
        """Remove all files but the image."""
        for entry in self.state_dir.iterdir() if self.state_dir.exists() else ():
            if entry.name == "images":
                continue
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        shutil.rmtree(self.run_dir, ignore_errors=True)
        self.config.unlink()


def free_subnet() -> IPv4Network:
    """A /24 that no interface of this machine touches. Raises DemoFailed."""
    addresses = [a.address for found in psutil.net_if_addrs().values() for a in found if a.family.name == "AF_INET"]
    for third in range(256):
        subnet = IPv4Network(f"10.107.{third}.0/24")
        if not any(IPv4Network(address).subnet_of(subnet) for address in addresses):
            return subnet
    raise DemoFailed("no free network was found in 10.107.0.0/16; choose one with --subnet")


def require_root() -> None:
    if os.geteuid() != 0:
        raise DemoFailed("the demo starts VMs, so it must be run as root")

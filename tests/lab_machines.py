"""The OpenStack lab as a backend under test: its servers, made and asked as the contract suite wants it."""

from __future__ import annotations

import os
import re
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from lab.openstack.clouds import ORDINARY, SERVICE_ACCOUNT, connect
from lab.openstack.rise import down, up
from lab.openstack.settings import Lab
from lab.openstack.state import is_up
from openstack.connection import Connection
from openstack.exceptions import SDKException
from tests.installation import ROOT, wait_until

from torpor.adapters.openstack.backend import OpenStackBackend, make_backend
from torpor.adapters.openstack.settings import OpenStackSettings
from torpor.domain.errors import TorporError
from torpor.domain.ids import InstanceId, WorkloadId
from torpor.domain.instance import Instance, InstanceSpec, NetworkConfig
from torpor.domain.workload import Flavor, ServerOptions, Workload

PATIENCE = 300.0
_TICK = re.compile(r"tick (\d+) up \S+ nonce (\w{32})")


@contextmanager
def running_lab() -> Iterator[Lab]:
    """Up meanwhile; what was down before is down afterwards."""
    lab = Lab(ROOT / "build" / "lab")
    was_up = is_up(lab)
    up(lab, print)
    yield lab
    if not was_up:
        down(lab, print)


@dataclass
class LabBench:
    """Torpor's service account on the lab, and the demo project as one of its users sees it."""

    lab: Lab
    backend: OpenStackBackend
    demo: Connection
    known: dict[InstanceId, int] = field(default_factory=dict)

    def spec(self, memory_mb: int = 256, network_name: str = "n1") -> InstanceSpec:
        """Of a server to be, with its port."""
        id = InstanceId(str(uuid.uuid4()))
        name = f"test-{id[:8]}"
        workload = self.backend.provisions.settle(
            Workload(
                WorkloadId(id), name, "tiny", Flavor(1, memory_mb), 1, 0, time.time(),
                options=ServerOptions(project="demo", networks=(network_name,)),
            )
        )  # fmt: skip
        (instance,) = self.backend.provisions.reserve(workload, [Instance(id, workload.id, name, 0, "", "")])
        self.known[id] = workload.flavor.disk_mb
        network = NetworkConfig(instance.address, 24, "", (), "test.internal")
        host = self.backend.hypervisor.host().id
        return InstanceSpec(
            id, name, "tiny", workload.flavor, instance.mac, network, host=host, options=workload.options
        )

    def booted(self, spec: InstanceSpec) -> InstanceSpec:
        """Booted, and its guest can tell its counter."""
        self.backend.hypervisor.boot(spec)
        wait_until(lambda: self.ticks(spec.id), PATIENCE, f"{spec.name} counts")
        return spec

    def console(self, instance: InstanceId) -> str:
        """What the guest has said since it last began to run; empty where there is no console."""
        server = self.backend.servers.find(instance)
        if server is None:
            return ""
        with suppress(SDKException):
            return str(self.demo.compute.get_server_console_output(server.id)["output"])
        return ""

    def ticks(self, instance: InstanceId) -> list[tuple[int, str]]:
        """Counter and boot's nonce, as often as it has said so."""
        return [(int(count), nonce) for count, nonce in _TICK.findall(self.console(instance))]

    def newest_tick(self, instance: InstanceId) -> tuple[int, str]:
        """The next one that it says from now on."""
        before = len(self.ticks(instance))
        newer: list[tuple[int, str]] = wait_until(lambda: self.ticks(instance)[before:], PATIENCE, "it counts on")
        return newer[-1]

    def made(self) -> list[InstanceId]:
        """Every server of ours, whatever it does."""
        return [server.instance for server in self.backend.servers.all() if server.made]

    def erase_all(self) -> None:
        for instance in self.made():
            with suppress(TorporError):
                self.backend.hypervisor.erase(instance)
        self.backend.states.collect(set())  # their ports


@contextmanager
def lab_bench() -> Iterator[LabBench]:
    with running_lab() as found:
        os.environ["OS_CLIENT_CONFIG_FILE"] = str(found.clouds)
        known: dict[InstanceId, int] = {}
        backend = make_backend(OpenStackSettings(SERVICE_ACCOUNT, networks=("n1",)), lambda: known)
        bench = LabBench(found, backend, connect(found, ORDINARY[0]), known)
        bench.erase_all()
        try:
            yield bench
        finally:
            bench.erase_all()

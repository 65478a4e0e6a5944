"""A daemon of Torpor's on the lab, a gang of two in the project `demo`, and people who have servers beside it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from lab.openstack.clouds import ADMIN, ORDINARY, connect
from lab.openstack.namespaces import Cell
from lab.openstack.running import Running
from lab.openstack.services import SERVICES
from openstack.connection import Connection
from tests.installation import Installation, installation, wait_until
from tests.lab_machines import PATIENCE, LabBench, lab_bench

GANG = "gang"
MEMORY_MB = 256


@dataclass
class Scene:
    """`gang`, of two servers of one vCPU each, on a host that has three."""

    bench: LabBench
    torpor: Installation
    admin: Connection
    nonces: list[str]

    # --- servers ---

    def servers(self, workload: str = GANG) -> list[Any]:
        """As Nova has them, in the order of their names; looked at right now."""
        names = {instance["name"] for instance in self.torpor.show(workload)["instances"]}
        found = [s for s in self.admin.compute.servers(all_projects=True) if s.name in names]
        return sorted(found, key=lambda server: str(server.name))

    def statuses(self, workload: str = GANG) -> list[str]:
        return [str(server.status) for server in self.servers(workload)]

    def held(self, server_id: str) -> dict[str, int]:
        """What it holds in Placement; nothing where it holds nothing."""
        answer = self.admin.placement.get(f"/allocations/{server_id}", microversion="1.28").json()["allocations"]
        return dict(next(iter(answer.values()))["resources"]) if answer else {}

    def usage(self) -> dict[str, int]:
        """What is held of the host, in all."""
        (provider,) = self.admin.placement.resource_providers(name=self.bench.lab.hostname)
        return dict(self.admin.placement.get(f"/resource_providers/{provider.id}/usages").json()["usages"])

    def tick(self, instance: Any) -> tuple[int, str]:
        return self.bench.newest_tick(instance)

    # --- Torpor ---

    def instances(self, workload: str = GANG) -> list[Any]:
        return [instance["id"] for instance in self.torpor.show(workload)["instances"]]

    def suspend(self) -> None:
        self.torpor.request("POST", f"workloads/{GANG}/suspend").raise_for_status()
        self.torpor.wait_state(GANG, "suspended", PATIENCE)

    def resume(self) -> None:
        self.torpor.request("POST", f"workloads/{GANG}/resume").raise_for_status()
        self.torpor.wait_state(GANG, "active", PATIENCE)

    def last(self, kind: str, since: float) -> Any:
        """The newest operation of this kind that began after `since`, once it has ended."""

        def ended() -> Any:
            operations = self.torpor.get("operations?limit=100")["operations"]
            found = [o for o in operations if o["kind"] == kind and o["created_at"] >= since]
            newest = max(found, key=lambda o: float(o["created_at"]), default=None)
            return newest if newest and newest["ended_at"] else None

        return wait_until(ended, PATIENCE, f"a {kind} operation has ended")

    def events(self, kind: str) -> list[str]:
        return [e["message"] for e in self.torpor.get("events?limit=1000")["events"] if e["kind"] == kind]

    # --- what must hold ---

    def check_running(self) -> None:
        """Both are the guests that were booted first, they count, and each holds what it is to hold."""
        self.torpor.wait_state(GANG, "active", PATIENCE)
        wait_until(lambda: self.statuses() == ["ACTIVE"] * 2, PATIENCE, "both run")
        assert [self.tick(instance)[1] for instance in self.instances()] == self.nonces
        for server in self.servers():
            held = self.held(server.id)
            assert (held["VCPU"], held["MEMORY_MB"]) == (1, MEMORY_MB), held
            assert not server.is_locked, server.locked_reason
        self.check_names()

    def check_suspended(self) -> None:
        """Both sleep, are locked, and hold nothing but disk."""
        assert self.torpor.state(GANG) == "suspended"
        assert self.statuses() == ["SUSPENDED"] * 2
        for server in self.servers():
            assert set(self.held(server.id)) == {"DISK_GB"}
            assert server.is_locked
        self.check_names()

    def check_names(self) -> None:
        for instance in self.torpor.show(GANG)["instances"]:
            assert self.torpor.resolve(instance["name"]) == [instance["address"]]


@pytest.fixture(scope="session")
def bench() -> Iterator[LabBench]:
    with lab_bench() as made:
        yield made


@pytest.fixture(scope="session")
def scene(bench: LabBench) -> Iterator[Scene]:
    with installation(number=70, image="", clouds=bench.lab.clouds) as torpor:
        torpor.ok(
            "run", GANG, "--image", "tiny", "--flavor", "g256", "--count", "2", "--priority", "1", "--preemptible",
            "--wait", timeout=600.0,
        )  # fmt: skip
        scene = Scene(bench, torpor, connect(bench.lab, ADMIN), [])
        scene.nonces = [scene.tick(instance)[1] for instance in scene.instances()]
        yield scene


@pytest.fixture
def running(scene: Scene) -> Iterator[Scene]:
    """It runs, before and after."""
    scene.check_running()
    yield scene
    scene.check_running()


@pytest.fixture
def owner(bench: LabBench) -> Connection:
    """A member of the project whose servers the gang's are."""
    return bench.demo


@pytest.fixture
def stranger(bench: LabBench) -> Connection:
    """A member of a project that has not let Torpor in."""
    return connect(bench.lab, ORDINARY[1])


@contextmanager
def without(scene: Scene, name: str) -> Iterator[None]:
    """A service of the lab ends, and is there again afterwards."""
    cell = Cell(scene.bench.lab)
    service = next(service for service in SERVICES if service.name == name)
    pid = cell.pid(name)
    assert pid is not None
    cell.run("sh", "-c", f"kill -TERM -{pid}; sleep 3; kill -KILL -{pid} 2>/dev/null; true")
    wait_until(lambda: cell.pid(name) is None, 30, f"{name} has ended")
    try:
        yield
    finally:
        running = Running(cell, lambda: scene.admin)
        running.start([service])
        running.wait([service])
        time.sleep(1.0)

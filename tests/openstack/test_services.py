"""A service of the cloud is away while Torpor acts: what it was about happens later or is taken back, never half."""

from __future__ import annotations

import time

import pytest
from lab.openstack.namespaces import Cell
from tests.installation import wait_until
from tests.lab_machines import PATIENCE
from tests.openstack.conftest import GANG, Scene, without

pytestmark = [pytest.mark.timeout(1800), pytest.mark.slow]

SERVICES = pytest.mark.parametrize("service", ["placement", "nova-api", "nova-compute", "rabbitmq", "libvirtd"])


@SERVICES
def test_away_while_a_gang_is_suspended(running: Scene, service: str) -> None:
    asked = time.time()
    with without(running, service):
        running.torpor.request("POST", f"workloads/{GANG}/suspend")
        time.sleep(5.0)
    outcome(running, "suspend", asked, "suspended")
    running.check_suspended()
    running.resume()


@SERVICES
def test_away_while_a_gang_is_resumed(running: Scene, service: str) -> None:
    running.suspend()
    with without(running, service):
        running.torpor.request("POST", f"workloads/{GANG}/resume")
        time.sleep(5.0)
    rescue(running)
    running.torpor.wait_state(GANG, "active", PATIENCE)


def rescue(scene: Scene) -> None:
    """Nova resumes nothing that is in error: an operator does what Torpor tells them."""
    wait_until(lambda: "ERROR" in scene.statuses() or scene.torpor.state(GANG) == "active", PATIENCE, "Nova has tried")
    if "ERROR" not in scene.statuses():
        return
    told = wait_until(
        lambda: [said for said in scene.events("operation-retried") if "virsh start" in said], PATIENCE, "it is told"
    )
    assert "a hard reboot would lose it" in told[-1]
    assert scene.statuses().count("ACTIVE") + scene.statuses().count("ERROR") == 2
    cell = Cell(scene.bench.lab)
    for server in scene.servers():
        if server.status == "ERROR":
            cell.run("virsh", "start", server.instance_name)


def outcome(scene: Scene, kind: str, asked: float, wanted: str) -> None:
    """It succeeded in the end, or was taken back and said why; then it succeeds now."""
    wait_until(
        lambda: scene.torpor.state(GANG) in ("active", "suspended") and not scene.torpor.show(GANG)["operation"],
        PATIENCE,
        "it has come to rest",
    )
    if scene.torpor.state(GANG) != wanted:
        operations = scene.torpor.get("operations?limit=100")["operations"]
        assert all(o["problem"] for o in operations if o["kind"] == kind and o["created_at"] >= asked)
        scene.check_running()
        scene.suspend()

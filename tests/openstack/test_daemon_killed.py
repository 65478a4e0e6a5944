"""SIGKILL of Torpor's daemon at every step of suspend, resume and delete, with servers on the lab."""

from __future__ import annotations

import pytest
from tests.crash.test_daemon_killed import Point, points
from tests.installation import wait_until
from tests.lab_machines import PATIENCE
from tests.openstack.conftest import GANG, Scene

from torpor.domain.operation import OperationKind, StepKind

pytestmark = [pytest.mark.timeout(1800), pytest.mark.slow]


def at_every_point(kind: OperationKind) -> pytest.MarkDecorator:
    chosen = points(kind, shared_books=True)
    names = [f"{step}-{moment}" + ("-of-the-second" if second else "") for step, moment, second in chosen]
    return pytest.mark.parametrize("point", chosen, ids=names)


def die_at(scene: Scene, kind: OperationKind, point: Point) -> None:
    """From now on the daemon is one that dies there."""
    step, moment, instance = point
    scene.torpor.kill()
    where = (kind.value, step.value, moment, str(instance))
    scene.torpor.start(["-m", "tests.crash.daemon_that_dies", "{config}", *where])
    scene.torpor.wait_ready()


def recover(scene: Scene) -> None:
    """It has died of its trap; another takes over."""
    assert scene.torpor.wait_dead(PATIENCE) == -9
    scene.torpor.start()
    scene.torpor.wait_ready()


@at_every_point(OperationKind.SUSPEND)
def test_killed_while_suspending(running: Scene, point: Point) -> None:
    die_at(running, OperationKind.SUSPEND, point)
    running.torpor.ask_and_die("POST", f"workloads/{GANG}/suspend")
    recover(running)
    running.torpor.wait_state(GANG, "suspended", PATIENCE)
    running.check_suspended()
    running.resume()


@at_every_point(OperationKind.RESUME)
def test_killed_while_resuming(running: Scene, point: Point) -> None:
    running.suspend()
    die_at(running, OperationKind.RESUME, point)
    running.torpor.ask_and_die("POST", f"workloads/{GANG}/resume")
    recover(running)
    running.torpor.wait_state(GANG, "active", PATIENCE)


@pytest.mark.parametrize("moment", ["intended", "acted"])
@pytest.mark.parametrize("step", [StepKind.STOP, StepKind.PASS_ON, StepKind.ERASE, StepKind.RELEASE_ALL])
def test_killed_while_room_is_handed_back(running: Scene, step: StepKind, moment: str) -> None:
    running.torpor.ok(
        "run", "urgent", "--image", "tiny", "--flavor", "g256", "--count", "2", "--priority", "9", "--wait",
        timeout=600.0,
    )  # fmt: skip
    running.check_suspended()
    die_at(running, OperationKind.DELETE, (step, moment, 0))
    running.torpor.ask_and_die("DELETE", "workloads/urgent")
    recover(running)
    wait_until(lambda: not running.torpor.has("urgent"), PATIENCE, "urgent is gone")
    running.torpor.wait_state(GANG, "active", PATIENCE)


@pytest.mark.parametrize("moment", ["intended", "acted"])
@pytest.mark.parametrize("step", [StepKind.CLAIM_COMPUTE, StepKind.BOOT])
def test_killed_while_a_priority_server_is_booted(running: Scene, step: StepKind, moment: str) -> None:
    die_at(running, OperationKind.RUN, (step, moment, 0))
    running.torpor.ask_and_die(
        "POST", "workloads", name="urgent", image="tiny", memory_mb=256, count=2, priority=9,
    )  # fmt: skip
    recover(running)
    running.torpor.wait_state("urgent", "active", PATIENCE)
    running.check_suspended()
    assert running.statuses("urgent") == ["ACTIVE", "ACTIVE"]
    running.torpor.ok("delete", "urgent", "--yes", timeout=600.0)
    running.torpor.wait_state(GANG, "active", PATIENCE)

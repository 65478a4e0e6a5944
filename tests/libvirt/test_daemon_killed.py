"""SIGKILL of Torpor's daemon at every step of suspend and resume, with guests under libvirt."""

from collections.abc import Iterator

import pytest
from tests.crash.test_daemon_killed import HOLDS_MB, Point, Trapped, check, identity, points, used_mb
from tests.installation import Installation, installation

from private_libvirtd import LibvirtHost
from torpor.domain.operation import OperationKind, StepKind

QUICK = (StepKind.SAVE, StepKind.SPEND)
"""Where it matters most: an image is written of a guest that was there, and removed of one that is about to run."""
"""Of these one moment is in the fast run: the act has happened, and nobody has noted it."""


@pytest.fixture(scope="module")
def torpor(daemon: LibvirtHost) -> Iterator[Installation]:
    with installation(number=31, memory_mb=2 * HOLDS_MB, libvirt=daemon) as torpor:
        torpor.ok("run", "gang", "--image", "tiny", "--memory", "128M", "--count", "2", "--preemptible", "--wait")
        for address in torpor.addresses("gang"):
            torpor.wait_guest(address)
            assert torpor.ask(address, "fill 8")["ok"]
        first, second = torpor.addresses("gang")
        assert torpor.ask(first, f"connect {second}")["ok"]
        yield torpor


@pytest.fixture(scope="module")
def trapped(torpor: Installation) -> Trapped:
    return Trapped(torpor)


def at_every_point(kind: OperationKind) -> pytest.MarkDecorator:
    chosen = []
    for point in points(kind):
        step, moment, instance = point
        fast = step in QUICK and moment == "acted"
        name = f"{step}-{moment}" + ("-of-the-second" if instance else "")
        chosen.append(pytest.param(point, marks=() if fast else pytest.mark.slow, id=name))
    return pytest.mark.parametrize("point", chosen)


@at_every_point(OperationKind.SUSPEND)
def test_killed_while_suspending(torpor: Installation, trapped: Trapped, point: Point) -> None:
    before = identity(torpor, "gang")
    counters = [torpor.ask(a, "status")["counter"] for a in torpor.addresses("gang")]
    trapped.lay(OperationKind.SUSPEND, point)
    torpor.ask_and_die("POST", "workloads/gang/suspend")
    trapped.recover()
    torpor.wait_state("gang", "suspended")
    assert torpor.qemu_processes() == []
    assert used_mb(torpor) == 0
    torpor.request("POST", "workloads/gang/resume").raise_for_status()
    torpor.wait_state("gang", "active")
    check(torpor, before, counters)


@at_every_point(OperationKind.RESUME)
def test_killed_while_resuming(torpor: Installation, trapped: Trapped, point: Point) -> None:
    before = identity(torpor, "gang")
    counters = [torpor.ask(a, "status")["counter"] for a in torpor.addresses("gang")]
    trapped.lay(OperationKind.RESUME, point)
    torpor.request("POST", "workloads/gang/suspend").raise_for_status()
    torpor.wait_state("gang", "suspended")
    torpor.ask_and_die("POST", "workloads/gang/resume")
    trapped.recover()
    torpor.wait_state("gang", "active")
    check(torpor, before, counters)

"""SIGKILL of the daemon at every step of run, suspend and resume, with real guests."""

from collections.abc import Iterator
from typing import Any

import pytest
from tests.installation import Installation, installation, wait_until

from torpor.domain.operation import OperationKind, StepKind
from torpor.engine.operations import SHARED_BOOKS, STEPS

MOMENTS = ("intended", "acted")
"""Between the record of one step and the intent of the next nothing is to be seen from outside that the latter does
not show as well; `test_interleavings.py` dies there, too."""
SECOND = (StepKind.BOOT, StepKind.SAVE, StepKind.RELEASE_MEMORY, StepKind.RESTORE)
"""Steps of each instance. Of the second only what the first can't show: its act has happened, and is not recorded."""
HOLDS_MB = 128 + 64
"""A guest's memory and QEMU's own, in the books."""
Point = tuple[StepKind, str, int]


def points(kind: OperationKind, shared_books: bool = False) -> list[Point]:
    """Step, moment, and which of the gang's instances the step is of."""
    found: list[Point] = []
    for step in SHARED_BOOKS.get(kind, STEPS[kind]) if shared_books else STEPS[kind]:
        found += [(step, moment, 0) for moment in MOMENTS]
        if step in SECOND:
            found.append((step, "acted", 1))
    return found


def at_every_point(kind: OperationKind) -> pytest.MarkDecorator:
    names = [f"{step}-{moment}" + ("-of-the-second" if instance else "") for step, moment, instance in points(kind)]
    return pytest.mark.parametrize("point", points(kind), ids=names)


def used_mb(torpor: Installation) -> int:
    """Memory that is in the books."""
    return int(torpor.get("hosts")["hosts"][0]["used"]["memory_mb"])


@pytest.fixture(scope="module")
def torpor() -> Iterator[Installation]:
    with installation(number=20, memory_mb=4 * HOLDS_MB) as torpor:
        torpor.ok("run", "gang", "--image", "tiny", "--memory", "128M", "--count", "2", "--preemptible", "--wait")
        for address in torpor.addresses("gang"):
            torpor.wait_guest(address)
            assert torpor.ask(address, "fill 24")["ok"]
        first, second = torpor.addresses("gang")
        assert torpor.ask(first, f"connect {second}")["ok"]
        yield torpor


class Trapped:
    """An installation whose daemon has a trap in it. The one that recovers has the next trap already."""

    def __init__(self, torpor: Installation) -> None:
        self.torpor = torpor
        self._laid: tuple[OperationKind, Point] | None = None

    def lay(self, kind: OperationKind, point: Point) -> None:
        """Have a daemon that dies there."""
        if self._laid != (kind, point):
            self.torpor.kill()
            self._start(kind, point)

    def recover(self) -> None:
        """The daemon has died of its trap; another takes over."""
        assert self.torpor.wait_dead() == -9
        assert self._laid is not None
        kind, point = self._laid
        following = points(kind)[points(kind).index(point) + 1 :]
        if following:
            self._start(kind, following[0])
        else:
            self.torpor.start()
            self.torpor.wait_ready()
            self._laid = None

    def _start(self, kind: OperationKind, point: Point) -> None:
        step, moment, instance = point
        where = (kind.value, step.value, moment, str(instance))
        self.torpor.start(["-m", "tests.crash.daemon_that_dies", "{config}", *where])
        self.torpor.wait_ready()
        self._laid = (kind, point)


@pytest.fixture(scope="module")
def trapped(torpor: Installation) -> Trapped:
    return Trapped(torpor)


def identity(torpor: Installation, workload: str) -> list[Any]:
    """What must be the same before and after: nonce, address and name of every guest."""
    return [
        (status["nonce"], status["address"], status["hostname"])
        for address in torpor.addresses(workload)
        for status in [torpor.wait_guest(address, 60)]
    ]


def check(torpor: Installation, before: list[Any], counters: list[int]) -> None:
    """Nothing lost, nothing double booked."""
    assert identity(torpor, "gang") == before
    addresses = torpor.addresses("gang")
    for address, counter in zip(addresses, counters, strict=True):
        assert torpor.ask(address, "status")["counter"] > counter
        assert torpor.ask(address, "verify")["ok"] is True
    tcp = torpor.ask(addresses[0], "status")["tcp"]
    assert tcp["connected"], tcp
    assert len(torpor.qemu_processes()) == 2
    assert used_mb(torpor) == 2 * HOLDS_MB
    for name, address in zip(("gang-0", "gang-1"), addresses, strict=True):
        assert torpor.resolve(name) == [address]


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


@at_every_point(OperationKind.RUN)
def test_killed_while_running_a_workload(torpor: Installation, trapped: Trapped, point: Point) -> None:
    before = identity(torpor, "gang")
    trapped.lay(OperationKind.RUN, point)
    torpor.ask_and_die("POST", "workloads", name="pair", image="tiny", memory_mb=128, count=2)
    trapped.recover()
    torpor.wait_state("pair", "active")
    addresses = torpor.addresses("pair")
    assert len(set(addresses)) == 2
    for name, address in zip(("pair-0", "pair-1"), addresses, strict=True):
        assert torpor.resolve(name) == [address]
        assert torpor.wait_guest(address)["hostname"] == name
    assert len(torpor.qemu_processes()) == 4
    assert used_mb(torpor) == 4 * HOLDS_MB
    torpor.request("DELETE", "workloads/pair").raise_for_status()
    wait_until(lambda: used_mb(torpor) == 2 * HOLDS_MB, 20, "what `pair` held is out of the books")
    assert len(torpor.qemu_processes()) == 2
    assert torpor.resolve("pair-0") == torpor.resolve("pair-1") == []
    assert identity(torpor, "gang") == before

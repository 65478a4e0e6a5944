"""SIGKILL of the daemon at every step of run, suspend and resume, with real guests."""

from collections.abc import Iterator
from typing import Any

import pytest
from tests.installation import Installation, installation, wait_until

from torpor.domain.operation import OperationKind, StepKind
from torpor.engine.operations import STEPS

MOMENTS = ("intended", "acted", "recorded")


def points(kind: OperationKind) -> list[tuple[StepKind, str]]:
    return [(step, moment) for step in STEPS[kind] for moment in MOMENTS]


@pytest.fixture(scope="module")
def torpor() -> Iterator[Installation]:
    with installation(number=20, memory_mb=640) as torpor:
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
        self._laid: tuple[OperationKind, StepKind, str] | None = None

    def lay(self, kind: OperationKind, step: StepKind, moment: str) -> None:
        """Have a daemon that dies there."""
        if self._laid != (kind, step, moment):
            self.torpor.kill()
            self._start(kind, step, moment)

    def recover(self) -> None:
        """The daemon has died of its trap; another takes over."""
        assert self.torpor.wait_dead() == -9
        assert self._laid is not None
        kind, step, moment = self._laid
        following = points(kind)[points(kind).index((step, moment)) + 1 :]
        if following:
            self._start(kind, *following[0])
        else:
            self.torpor.start()
            self.torpor.wait_ready()
            self._laid = None

    def _start(self, kind: OperationKind, step: StepKind, moment: str) -> None:
        self.torpor.start(["-m", "tests.crash.daemon_that_dies", "{config}", kind.value, step.value, moment])
        self.torpor.wait_ready()
        self._laid = (kind, step, moment)


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
    host = torpor.get("hosts")["hosts"][0]
    assert host["used"]["memory_mb"] == 2 * (128 + 64)
    for name, address in zip(("gang-0", "gang-1"), addresses, strict=True):
        assert torpor.resolve(name) == [address]


@pytest.mark.parametrize(("step", "moment"), points(OperationKind.SUSPEND))
def test_killed_while_suspending(torpor: Installation, trapped: Trapped, step: StepKind, moment: str) -> None:
    before = identity(torpor, "gang")
    counters = [torpor.ask(a, "status")["counter"] for a in torpor.addresses("gang")]
    trapped.lay(OperationKind.SUSPEND, step, moment)
    torpor.ask_and_die("POST", "workloads/gang/suspend")
    trapped.recover()
    torpor.wait_state("gang", "suspended")
    assert torpor.qemu_processes() == []
    assert torpor.get("hosts")["hosts"][0]["used"]["memory_mb"] == 0
    torpor.request("POST", "workloads/gang/resume").raise_for_status()
    torpor.wait_state("gang", "active")
    check(torpor, before, counters)


@pytest.mark.parametrize(("step", "moment"), points(OperationKind.RESUME))
def test_killed_while_resuming(torpor: Installation, trapped: Trapped, step: StepKind, moment: str) -> None:
    before = identity(torpor, "gang")
    counters = [torpor.ask(a, "status")["counter"] for a in torpor.addresses("gang")]
    trapped.lay(OperationKind.RESUME, step, moment)
    torpor.request("POST", "workloads/gang/suspend").raise_for_status()
    torpor.wait_state("gang", "suspended")
    torpor.ask_and_die("POST", "workloads/gang/resume")
    trapped.recover()
    torpor.wait_state("gang", "active")
    check(torpor, before, counters)


@pytest.mark.parametrize(("step", "moment"), points(OperationKind.RUN))
def test_killed_while_running_a_workload(torpor: Installation, trapped: Trapped, step: StepKind, moment: str) -> None:
    before = identity(torpor, "gang")
    trapped.lay(OperationKind.RUN, step, moment)
    torpor.ask_and_die("POST", "workloads", name="single", image="tiny", memory_mb=128)
    trapped.recover()
    torpor.wait_state("single", "active")
    (address,) = torpor.addresses("single")
    assert torpor.resolve("single") == [address]
    assert torpor.wait_guest(address)["hostname"] == "single"
    assert len(torpor.qemu_processes()) == 3
    torpor.request("DELETE", "workloads/single").raise_for_status()
    wait_until(lambda: len(torpor.qemu_processes()) == 2, 20, "the process of `single` is gone")
    assert torpor.resolve("single") == []
    assert identity(torpor, "gang") == before

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


def restart_in_the_end(torpor: Installation) -> None:
    """The daemon has died of its trap; an ordinary one takes over."""
    assert torpor.wait_dead() == -9
    torpor.start()
    torpor.wait_ready()


def with_trap(torpor: Installation, kind: OperationKind, step: StepKind, moment: str) -> None:
    torpor.kill()
    torpor.start(["-m", "tests.crash.daemon_that_dies", "{config}", kind.value, step.value, moment])
    torpor.wait_ready()


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
def test_killed_while_suspending(torpor: Installation, step: StepKind, moment: str) -> None:
    before = identity(torpor, "gang")
    counters = [torpor.ask(a, "status")["counter"] for a in torpor.addresses("gang")]
    with_trap(torpor, OperationKind.SUSPEND, step, moment)
    torpor.cli("suspend", "gang", "--no-wait")
    restart_in_the_end(torpor)
    torpor.wait_state("gang", "suspended")
    assert torpor.qemu_processes() == []
    assert torpor.get("hosts")["hosts"][0]["used"]["memory_mb"] == 0
    torpor.ok("resume", "gang")
    torpor.wait_state("gang", "active")
    check(torpor, before, counters)


@pytest.mark.parametrize(("step", "moment"), points(OperationKind.RESUME))
def test_killed_while_resuming(torpor: Installation, step: StepKind, moment: str) -> None:
    before = identity(torpor, "gang")
    counters = [torpor.ask(a, "status")["counter"] for a in torpor.addresses("gang")]
    torpor.ok("suspend", "gang")
    with_trap(torpor, OperationKind.RESUME, step, moment)
    torpor.cli("resume", "gang", "--no-wait")
    restart_in_the_end(torpor)
    torpor.wait_state("gang", "active")
    check(torpor, before, counters)


@pytest.mark.parametrize(("step", "moment"), points(OperationKind.RUN))
def test_killed_while_running_a_workload(torpor: Installation, step: StepKind, moment: str) -> None:
    before = identity(torpor, "gang")
    with_trap(torpor, OperationKind.RUN, step, moment)
    torpor.cli("run", "single", "--image", "tiny", "--memory", "128M")
    restart_in_the_end(torpor)
    torpor.wait_state("single", "active")
    (address,) = torpor.addresses("single")
    assert torpor.resolve("single") == [address]
    assert torpor.wait_guest(address)["hostname"] == "single"
    assert len(torpor.qemu_processes()) == 3
    torpor.ok("delete", "single", "--yes")
    wait_until(lambda: len(torpor.qemu_processes()) == 2, 20, "the process of `single` is gone")
    assert torpor.resolve("single") == []
    assert identity(torpor, "gang") == before

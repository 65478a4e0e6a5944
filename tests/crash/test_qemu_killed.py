"""QEMU killed while its state is being saved, just after it ran on, and while nothing is going on."""

from collections.abc import Iterator
from typing import Any

import pytest
from tests.installation import Installation, installation, wait_until

ONE_MB = 128 + 64
"""What the books hold of an instance with a process: guest memory and QEMU's own."""
MINUTE = 60.0
Identity = list[tuple[Any, ...]]

pytestmark = pytest.mark.timeout(900)  # guests boot slowly on a busy machine


@pytest.fixture(scope="module")
def torpor() -> Iterator[Installation]:
    with installation(number=30, memory_mb=640) as torpor:
        yield torpor


@pytest.fixture(scope="module")
def running(torpor: Installation) -> Identity:
    """A gang of two that has slept once, so that it has a state that it could be taken back to; what it is."""
    run(torpor, "gang", 2)
    for address in torpor.addresses("gang"):
        assert torpor.ask(address, "fill 16", timeout=120)["ok"]
    torpor.ok("suspend", "gang")
    torpor.ok("resume", "gang")
    return identity(torpor, "gang")


@pytest.fixture
def gang(torpor: Installation, running: Identity) -> Identity:
    """The same gang, running, with an ordinary daemon."""
    torpor.kill()
    torpor.start()
    torpor.wait_ready()
    assert torpor.state("gang") == "active"
    return running


def run(torpor: Installation, name: str, count: int) -> None:
    torpor.ok("run", name, "--image", "tiny", "--memory", "128M", "--count", str(count), "--preemptible", "--wait")
    for address in torpor.addresses(name):
        torpor.wait_guest(address, 300)


def identity(torpor: Installation, workload: str) -> Identity:
    """What must be the same before and after: nonce, address, name and data of every guest."""
    return [
        (status["nonce"], status["address"], status["hostname"], status["fill_sum"])
        for address in torpor.addresses(workload)
        for status in [torpor.wait_guest(address, MINUTE)]
    ]


def with_trap(torpor: Installation, *trap: str) -> None:
    torpor.kill()
    torpor.start(["-m", "tests.crash.daemon_with_trap", "{config}", *trap])
    torpor.wait_ready()


def books_equal_what_runs(torpor: Installation) -> None:
    """Claims, processes and records tell the same, within a minute."""

    def equal() -> bool:
        processes = {p.pid for p in torpor.qemu_processes()}
        shown = {i["pid"] for w in torpor.get("workloads")["workloads"] for i in w["instances"]} - {None}
        used = torpor.get("hosts")["hosts"][0]["used"]
        return processes == shown and used["memory_mb"] == ONE_MB * len(processes) and used["vcpus"] == len(processes)

    wait_until(equal, MINUTE, "the books equal what runs")


def survivor_runs(torpor: Installation, address: str, before: tuple[Any, ...]) -> None:
    status = torpor.wait_guest(address, MINUTE)
    assert (status["nonce"], status["address"], status["hostname"], status["fill_sum"]) == before
    wait_until(
        lambda: torpor.ask(address, "status")["counter"] > status["counter"], MINUTE, "the survivor's counter goes on"
    )


def whole_gang_runs(torpor: Installation, before: Identity) -> None:
    torpor.wait_state("gang", "active", MINUTE)
    assert identity(torpor, "gang") == before
    for address in torpor.addresses("gang"):
        assert torpor.ask(address, "verify", timeout=120)["ok"] is True
    assert len(torpor.qemu_processes()) == 2
    books_equal_what_runs(torpor)


def failed_with(torpor: Installation, dead: str, remedy: str) -> None:
    workload = dead.rpartition("-")[0] or dead
    torpor.wait_state(workload, "failed", MINUTE)
    problem = torpor.show(workload)["problem"]
    assert problem["code"] == "instance-gone"
    assert dead in problem["what"]
    assert remedy in problem["remedy"]


@pytest.mark.parametrize("dies", [0, 1])
def test_killed_while_second_state_is_saved(torpor: Installation, gang: Identity, dies: int) -> None:
    """The gang is taken back to the state before, which nothing has touched."""
    with_trap(torpor, "kill-saving", f"gang-{dies}")
    refused = torpor.cli("suspend", "gang")
    assert refused.returncode == 8, refused.stderr
    # Whichever it sees first: that the suspension was undone, or that the workload has failed since.
    assert "QEMU ended while its memory was copied" in refused.stderr or "ended unexpectedly" in refused.stderr
    undone = [o for o in torpor.get("operations")["operations"] if o["status"] == "undone"]
    assert (undone[0]["kind"], undone[0]["problem"]["code"]) == ("suspend", "instance-gone")
    failed_with(torpor, f"gang-{dies}", "torpor resume gang")
    survivor_runs(torpor, torpor.addresses("gang")[1 - dies], gang[1 - dies])
    books_equal_what_runs(torpor)
    torpor.ok("resume", "gang")
    whole_gang_runs(torpor, gang)
    torpor.ok("suspend", "gang")
    torpor.ok("resume", "gang")
    whole_gang_runs(torpor, gang)


def test_killed_once_its_own_state_is_whole(torpor: Installation, gang: Identity) -> None:
    """Nothing is lost: that state is all that is needed of it."""
    with_trap(torpor, "kill-saved", "gang-0")
    torpor.ok("suspend", "gang")
    assert torpor.state("gang") == "suspended"
    assert torpor.qemu_processes() == []
    books_equal_what_runs(torpor)
    torpor.ok("resume", "gang")
    whole_gang_runs(torpor, gang)


def test_killed_just_after_it_ran_on(torpor: Installation, gang: Identity) -> None:
    """The gang is taken back to its states, and comes back once more, by itself."""
    torpor.ok("suspend", "gang")
    with_trap(torpor, "kill-ran-on", "gang-1")
    torpor.ok("resume", "gang")
    undone = [o for o in torpor.get("operations")["operations"] if o["status"] == "undone"]
    assert (undone[0]["kind"], undone[0]["problem"]["code"]) == ("resume", "instance-gone")
    whole_gang_runs(torpor, gang)


@pytest.mark.parametrize("dies", [0, 1])
def test_killed_with_the_daemon_just_after_it_ran_on(torpor: Installation, gang: Identity, dies: int) -> None:
    torpor.ok("suspend", "gang")
    victim = torpor.show("gang")["instances"][dies]["id"]
    torpor.kill()
    torpor.start(["-m", "tests.crash.daemon_that_dies", "{config}", "resume", "run-on", "acted", "0"])
    torpor.wait_ready()
    torpor.cli("resume", "gang", "--no-wait")
    assert torpor.wait_dead() == -9
    torpor.kill_qemu(victim)
    torpor.start()
    torpor.wait_ready()
    whole_gang_runs(torpor, gang)


def test_killed_at_rest_and_taken_back_to_its_state(torpor: Installation, gang: Identity) -> None:
    torpor.kill_qemu(torpor.show("gang")["instances"][1]["id"])
    failed_with(torpor, "gang-1", "torpor resume gang")
    survivor_runs(torpor, torpor.addresses("gang")[0], gang[0])
    books_equal_what_runs(torpor)
    assert torpor.resolve("gang-1") == [torpor.addresses("gang")[1]], "it keeps its name until it is deleted"
    torpor.ok("resume", "gang")
    whole_gang_runs(torpor, gang)


def test_killed_while_first_state_is_saved(torpor: Installation, gang: Identity) -> None:
    """There is nothing to go back to, and that is said; the survivor runs on, until all is deleted."""
    torpor.ok("suspend", "gang")
    run(torpor, "young", 2)
    before = identity(torpor, "young")
    with_trap(torpor, "kill-saving", "young-1")
    refused = torpor.cli("suspend", "young")
    assert refused.returncode == 8, refused.stderr
    failed_with(torpor, "young-1", "torpor delete young")
    survivor_runs(torpor, torpor.addresses("young")[0], before[0])
    books_equal_what_runs(torpor)
    hopeless = torpor.cli("resume", "young")
    assert hopeless.returncode == 5, hopeless.stderr
    assert "there is no saved state of young-" in hopeless.stderr
    survivor_runs(torpor, torpor.addresses("young")[0], before[0])
    torpor.ok("delete", "young", "--yes")
    assert torpor.qemu_processes() == []
    assert torpor.resolve("young-0") == []
    books_equal_what_runs(torpor)
    torpor.ok("resume", "gang")
    whole_gang_runs(torpor, gang)

"""The machine goes down and comes up: what ran has failed, what slept comes back as it was."""

from collections.abc import Iterator

import pytest
from tests.installation import Installation, installation, wait_until

pytestmark = pytest.mark.timeout(900)  # guests boot slowly on a busy machine


@pytest.fixture
def torpor() -> Iterator[Installation]:
    with installation(number=32, memory_mb=640) as torpor:
        yield torpor


def test_machine_restarts(torpor: Installation) -> None:
    for name in ("asleep", "awake"):
        torpor.ok("run", name, "--image", "tiny", "--memory", "128M", "--preemptible", "--wait")
    (sleeper,), (runner,) = torpor.addresses("asleep"), torpor.addresses("awake")
    before = torpor.wait_guest(sleeper, 300)
    assert torpor.ask(sleeper, "fill 8", timeout=120)["ok"]
    torpor.wait_guest(runner, 300)
    torpor.ok("suspend", "asleep")

    torpor.lose_power()
    assert torpor.qemu_processes() == []
    torpor.start()
    torpor.wait_ready(60)

    assert torpor.state("asleep") == "suspended"
    torpor.wait_state("awake", "failed")
    problem = torpor.show("awake")["problem"]
    assert (problem["code"], "the machine was restarted" in problem["detail"]) == ("instance-gone", True)
    assert "torpor delete awake" in problem["remedy"]
    assert torpor.json("hosts")["hosts"][0]["used"]["memory_mb"] == 0
    wait_until(lambda: torpor.resolve("asleep") == [sleeper], 60, "the sleeper's name answers")
    wait_until(lambda: torpor.resolve("awake") == [runner], 60, "the name of the one that failed answers")

    torpor.ok("resume", "asleep")
    after = torpor.wait_guest(sleeper, 60)
    assert [after[key] for key in ("nonce", "address", "hostname")] == [
        before[key] for key in ("nonce", "address", "hostname")
    ]
    assert after["counter"] > before["counter"]
    assert torpor.ask(sleeper, "verify", timeout=120)["ok"] is True
    torpor.ok("delete", "awake", "--yes")
    assert torpor.resolve("awake") == []

"""A gang of two stands still and runs on at one instant, and its clocks are right at once: over several resumptions."""

import time
from statistics import median

import pytest
from tests.installation import Installation, installation

from torpor.adapters.guest.agent import over_socket
from torpor.adapters.guest.guest import AgentGuest, Ethernet
from torpor.adapters.qemu.layout import Layout
from torpor.domain.ids import InstanceId

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

RESUMPTIONS = 5
ASLEEP_SECONDS = 2.0
SKEW_SECONDS = 0.05
"""Of the median. It is a millisecond or two where nothing else runs, and `script/bench` measures it."""
CLOCK_SECONDS = 0.1


def test_a_gang_sleeps_and_wakes_at_one_instant_with_its_clocks_set() -> None:
    skews: dict[str, list[float]] = {"suspend": [], "resume": []}
    off: list[float] = []
    with installation(number=55, memory_mb=640) as torpor:
        torpor.ok("run", "gang", "--image", "tiny", "--memory", "128M", "--count", "2", "--wait")
        for address in torpor.addresses("gang"):
            torpor.wait_guest(address)
        for _ in range(RESUMPTIONS):
            torpor.ok("suspend", "gang")
            time.sleep(ASLEEP_SECONDS)  # a clock that nobody set would show it
            torpor.ok("resume", "gang")
            off += [abs(clock_behind(torpor, instance["id"])) for instance in torpor.show("gang")["instances"]]
            for operation in torpor.get("operations")["operations"][:2]:
                skews[operation["kind"]].append(operation["skew_seconds"])
    assert [len(found) for found in skews.values()] == [RESUMPTIONS] * 2
    assert all(median(found) < SKEW_SECONDS for found in skews.values()), skews
    assert median(off) < CLOCK_SECONDS, off


def clock_behind(torpor: Installation, id: str) -> float:
    """Seconds, as the guest's agent tells right after its workload is active."""
    folder = Layout(torpor.state_dir).instance(InstanceId(id))
    ethernet = Ethernet(torpor.interface, torpor.gateway)
    agent = AgentGuest(over_socket(lambda _: folder.agent_socket, 20.0), lambda _: ethernet)
    return agent.set_clock(folder.id, time.time()).behind

"""Fifty times in a row a priority workload makes a gang sleep, runs, ends, and the gang comes back: nothing leaks.

`TORPOR_SOAK_CYCLES` sets another number. Every cycle's seconds are logged (`--log-cli-level=INFO`), and
with what they were made of written to the file that `TORPOR_SOAK_REPORT` names.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tests.api import Api, Document, seconds_of
from tests.census import Holdings, Size, descriptors, holdings, size
from tests.installation import Installation, installation, wait_until

log = logging.getLogger(__name__)

CYCLES = int(os.environ.get("TORPOR_SOAK_CYCLES", "50"))
GUEST_MB, OVERHEAD_MB, FILL_MB = 128, 64, 16
PATIENCE = 240.0
BUSY_CYCLES = 4
"""Cycles until pools of threads and connections have grown to what they need, and each way to end was seen."""


@dataclass
class Gang:
    """Two guests with a connection between them, and what must never change of them."""

    torpor: Installation
    api: Api
    identity: list[tuple[str, str, str]] = field(default_factory=list)
    counters: list[int] = field(default_factory=list)
    local_port: int = 0

    def start(self) -> None:
        self.torpor.ok(
            "run", "gang", "--image", "tiny", "--memory", f"{GUEST_MB}M", "--count", "2", "--preemptible", "--wait"
        )
        first, second = self.torpor.addresses("gang")
        for address in (first, second):
            self.torpor.wait_guest(address, PATIENCE)
            assert self.torpor.ask(address, f"fill {FILL_MB}", PATIENCE)["ok"]
        assert self.torpor.ask(first, f"connect {second}", PATIENCE)["ok"]
        statuses = self._statuses()
        self.identity = [(s["nonce"], s["hostname"], s["address"]) for s in statuses]
        self.counters = [s["counter"] for s in statuses]
        self.local_port = statuses[0]["tcp"]["local_port"]

    def _statuses(self) -> list[Document]:
        return [self.torpor.wait_guest(a, PATIENCE) for a in self.torpor.addresses("gang")]

    def check(self) -> None:
        """The same guests as ever, and their counters went on from where they were."""
        statuses = self._statuses()
        assert [(s["nonce"], s["hostname"], s["address"]) for s in statuses] == self.identity
        counters = [s["counter"] for s in statuses]
        assert all(now > before for now, before in zip(counters, self.counters, strict=True)), (counters, self.counters)
        self.counters = counters
        tcp = statuses[0]["tcp"]
        assert tcp["connected"] and tcp["local_port"] == self.local_port, tcp
        for _, name, address in self.identity:
            assert self.torpor.resolve(name) == [address]
            assert self.torpor.ask(address, "verify", PATIENCE)["ok"] is True

    def check_asleep(self) -> None:
        """Names and addresses are kept, and nothing else but its states."""
        assert self.api.get("/workloads/gang")["state"] == "suspended"
        for _, name, address in self.identity:
            assert self.torpor.resolve(name) == [address]


@dataclass(frozen=True)
class Cycle:
    """Seconds, and what was there at its end."""

    ended_by: str
    seconds: float
    suspend: float
    boot: float
    resume: float
    size: Size


class Urgent:
    """The priority workload of one cycle; `ended_by` says how it ends."""

    NAME = "urgent"

    def __init__(self, torpor: Installation, api: Api, ended_by: str) -> None:
        self.torpor = torpor
        self.api = api
        self.ended_by = ended_by

    def arrive(self) -> str:
        """Ask for it; its address."""
        body: dict[str, Any] = {"name": self.NAME, "image": "tiny", "memory_mb": GUEST_MB, "priority": 9}
        if self.ended_by == "duration":
            body["duration_seconds"] = 3.0  # it may end while it boots
        elif self.ended_by == "command":
            body["command"] = "[ $(hostname) = urgent ] && exit 7"
        accepted = self.api.post("/workloads", body)
        assert accepted["plan"]["victims"] == ["gang"]
        (instance,) = accepted["workload"]["instances"]
        assert self.torpor.resolve(self.NAME) == [instance["address"]]
        return str(instance["address"])

    def end(self) -> None:
        if self.ended_by != "delete":
            ended = self.api.wait_at_rest(self.NAME, "done", PATIENCE)
            assert ended["instances"][0]["exit_code"] == (7 if self.ended_by == "command" else None)
            self.api.wait_at_rest("gang", "active", PATIENCE)  # which does not wait for the deletion
        self.api.delete(f"/workloads/{self.NAME}")
        assert self.torpor.resolve(self.NAME) == []
        self.api.wait_gone(self.NAME, PATIENCE)


@pytest.fixture
def torpor() -> Iterator[Installation]:
    with installation(number=40, memory_mb=2 * (GUEST_MB + OVERHEAD_MB)) as torpor:
        yield torpor


@pytest.mark.timeout(120 + CYCLES * 240)
def test_many_preemptions_lose_nothing_and_leak_nothing(torpor: Installation) -> None:
    with Api(torpor.socket) as api:
        gang = Gang(torpor, api)
        gang.start()
        address = {gang.identity[0][2], gang.identity[1][2]}
        cycles: list[Cycle] = []
        reference: Holdings | None = None
        for number in range(CYCLES):
            cycles.append(one_cycle(torpor, api, gang, number))
            report(cycles)
            held = at_rest(torpor, api, reference)
            reference = reference or held  # from the first cycle on the gang has a saved state
            assert held == reference, f"after cycle {number + 1}: {differences(reference, held)}"
            assert {a for _, a in held.addresses} == address
        assert held.unfinished == () and held.dead_children == 0 and held.other_children == ()
        assert held.generations == (1, 1)
        check_growth(torpor, api, cycles)


def one_cycle(torpor: Installation, api: Api, gang: Gang, number: int) -> Cycle:
    began = time.monotonic()
    urgent = Urgent(torpor, api, ("delete", "duration", "command")[number % 3])
    address = urgent.arrive()
    wait_until(lambda: api.get("/workloads/urgent")["state"] in ("active", "done"), PATIENCE, "urgent runs")
    gang.check_asleep()
    running = time.monotonic()
    if urgent.ended_by == "delete":  # the others may be over before it answers
        assert torpor.wait_guest(address, PATIENCE)["hostname"] == urgent.NAME
    boot = time.monotonic() - running
    urgent.end()
    api.wait_at_rest("gang", "active", PATIENCE)
    resumed = api.last_operation("gang", "resume")
    gang.check()
    return Cycle(
        ended_by=urgent.ended_by,
        seconds=time.monotonic() - began,
        suspend=seconds_of(api.last_operation("gang", "suspend")),
        boot=boot if urgent.ended_by == "delete" else 0.0,
        resume=seconds_of(resumed),
        size=size(torpor, api),
    )


def at_rest(torpor: Installation, api: Api, reference: Holdings | None) -> Holdings:
    """What is held; a child that has just ended is given time to be reaped."""

    def settled(held: Holdings) -> bool:
        return held == reference if reference else held.dead_children == 0

    held = holdings(torpor, api)
    give_up = time.monotonic() + 10.0
    while not settled(held) and time.monotonic() < give_up:
        time.sleep(0.2)
        held = holdings(torpor, api)
    return held


def differences(reference: Holdings, held: Holdings) -> dict[str, tuple[Any, Any]]:
    before, after = asdict(reference), asdict(held)
    return {key: (before[key], after[key]) for key in before if before[key] != after[key]}


def check_growth(torpor: Installation, api: Api, cycles: list[Cycle]) -> None:
    """One of anything a cycle would show at the end as often as there were cycles; noise does not."""
    if len(cycles) <= 2 * BUSY_CYCLES:
        return
    first, last = cycles[BUSY_CYCLES].size, cycles[-1].size
    allowed = (len(cycles) - BUSY_CYCLES) // 4
    kinds = descriptors(api.get("/health")["pid"])
    assert last.descriptors <= first.descriptors + allowed, f"open files grew from {first.descriptors}: {kinds}"
    assert last.threads <= first.threads + allowed
    assert last.memory_mb <= first.memory_mb + 16.0
    assert last.state_mb <= first.state_mb * 1.25 + 8.0
    assert last.state_mb <= last.claimed_disk_mb <= first.claimed_disk_mb * 1.25 + 8.0


def report(cycles: list[Cycle]) -> None:
    log.info("cycle %d: %s", len(cycles), cycles[-1])
    if "TORPOR_SOAK_REPORT" in os.environ:
        Path(os.environ["TORPOR_SOAK_REPORT"]).write_text(json.dumps([asdict(c) for c in cycles], indent=1))

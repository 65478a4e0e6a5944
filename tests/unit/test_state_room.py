"""Room for saved states: claimed before anything is paused, within the limit for all of them."""

from dataclasses import replace

import pytest
from tests.engine_on_fakes import EngineOnFakes

from torpor.domain.capacity import ClaimKind
from torpor.domain.errors import Refused
from torpor.domain.operation import OperationKind, OperationStatus, StepKind, StepStatus
from torpor.domain.plan import Verdict, state_room_mb
from torpor.domain.workload import Flavor, WorkloadState
from torpor.engine.views import RunRequest

ROOM = state_room_mb(Flavor(1, 512, 0))
"""MiB that a state of a guest of 512 MiB may need."""


def claimed(engine: EngineOnFakes) -> int:
    return sum(c.resources.disk_mb for c in engine.ledger.claims() if c.kind is ClaimKind.STATE)


def running(engine: EngineOnFakes, *names: str) -> EngineOnFakes:
    for name in names:
        engine.run(name, memory=512, preemptible=True, priority=-1)
    engine.settle(3)
    return engine


def test_the_room_of_a_state_leaves_some_for_its_index() -> None:
    pages = 4096 * 256
    assert state_room_mb(Flavor(1, 4096, 0)) - 4096 > pages * 20 / 2**20


def test_a_second_suspension_claims_room_beside_the_older_state() -> None:
    engine = running(EngineOnFakes(), "one")
    stored = []
    for _ in range(2):
        engine.service.suspend("one")
        engine.settle(3)
        stored.append(claimed(engine))
        engine.service.resume("one")
        engine.settle(3)
        assert claimed(engine) == stored[-1], "what it was restored from stays in the books"
    details = [
        step.detail
        for operation in engine.journal.recent(10)
        for step in operation.steps
        if operation.kind is OperationKind.SUSPEND and step.kind is StepKind.CLAIM_STATE
    ]
    assert details == [f"{ROOM} MiB for each of 1"] * 2
    assert engine.world.violations == []


def test_room_beside_the_older_state_must_be_there_before_anything_is_paused() -> None:
    engine = running(EngineOnFakes(disk_mb=1024 + ROOM + 200), "one")
    engine.service.suspend("one")
    engine.settle(3)
    engine.service.resume("one")
    engine.settle(3)
    with pytest.raises(Refused, match="no room for saved state"):
        engine.service.suspend("one")
    assert engine.state("one") is WorkloadState.ACTIVE
    assert engine.batch.calls.count(("before_suspend", ("one",))) == 1


def test_a_suspension_that_would_pass_the_limit_is_refused_with_the_figures() -> None:
    engine = running(EngineOnFakes(states_mb=ROOM + 100), "one", "two")
    engine.service.suspend("one")
    engine.settle(3)
    assert engine.state("one") is WorkloadState.SUSPENDED
    left = ROOM + 100 - claimed(engine)
    assert left < ROOM
    with pytest.raises(Refused, match=rf"needs {ROOM} MiB .*\(states_mb\) leaves {left} MiB"):
        engine.service.suspend("two")
    assert engine.state("two") is WorkloadState.ACTIVE
    assert engine.service.hosts()[0].states_limit_mb == ROOM + 100


def test_nobody_is_planned_to_sleep_beyond_the_limit_and_the_plan_says_so() -> None:
    engine = running(EngineOnFakes(vcpus=2, states_mb=ROOM + 100), "one", "two")
    plan = engine.service.plan(RunRequest("large", "test", Flavor(2, 512), priority=5))
    assert plan.verdict is Verdict.WAIT
    assert f"one and two needs {2 * ROOM} MiB on host local" in plan.reason
    assert f"leaves {ROOM + 100} MiB" in plan.reason
    small = engine.service.plan(RunRequest("small", "test", Flavor(1, 512), priority=5))
    assert [v.name for v in small.victims] == ["one"]


def test_a_limit_that_shrank_after_the_plan_stops_the_suspension_before_the_pause() -> None:
    engine = running(EngineOnFakes(states_mb=4 * ROOM), "one")
    engine.service.suspend("one")
    engine.settings = replace(engine.settings, policy=replace(engine.settings.policy, states_mb=ROOM - 1))
    engine.start()
    engine.settle(1)
    suspension = engine.journal.recent(1)[0]
    assert suspension.status is OperationStatus.UNDONE
    assert suspension.problem is not None
    assert suspension.problem.code == "no-room-for-state"
    assert "states_mb allows" in suspension.problem.sentence
    assert {s.kind: s.status for s in suspension.steps}[StepKind.PAUSE] is StepStatus.PENDING
    assert engine.state("one") is WorkloadState.ACTIVE
    engine.check_laws()

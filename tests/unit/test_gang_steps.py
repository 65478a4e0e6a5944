"""A gang's standstill and its clocks, in the record and for the user: the engine on the fakes."""

import pytest
from tests.engine_on_fakes import EngineOnFakes

from torpor.adapters.fakes import FakeGuest
from torpor.domain.ids import InstanceId
from torpor.domain.instance import ClockGap, Instance
from torpor.domain.operation import OperationKind, StepKind
from torpor.domain.workload import WorkloadState


def slept(engine: EngineOnFakes, seconds: float) -> EngineOnFakes:
    """A gang of two that was asleep for that long and runs again."""
    engine.run("batch", memory=512, count=2, preemptible=True)
    engine.settle(3)
    engine.service.suspend("batch")
    while engine.queue.tick():
        pass
    assert engine.state("batch") is WorkloadState.SUSPENDED
    engine.clock.advance(seconds)
    engine.service.resume("batch")
    while engine.queue.tick():
        pass
    assert engine.state("batch") is WorkloadState.ACTIVE
    return engine


def first(engine: EngineOnFakes) -> Instance:
    return engine.service.workload("batch").instances[0].instance


def told(engine: EngineOnFakes, kind: str) -> list[str]:
    return [e.message for e in engine.service.events(100, "batch-0") if e.kind == kind]


def test_the_skew_of_a_gang_is_on_record_for_pausing_and_running_on() -> None:
    engine = slept(EngineOnFakes(), 60.0)
    steps = {(o.kind, s.kind): s for o in engine.journal.recent(10) for s in o.steps if s.skew is not None or s.detail}
    pause = steps[OperationKind.SUSPEND, StepKind.PAUSE]
    assert (pause.skew, pause.detail) == (0.0, "all stand still within 0.0 ms")
    run_on = steps[OperationKind.RESUME, StepKind.RUN_ON]
    assert (run_on.skew, run_on.detail) == (0.0, "all run on within 0.0 ms")


def test_a_clock_that_was_set_is_told_with_the_gap() -> None:
    engine = slept(EngineOnFakes(), 90.0)
    assert told(engine, "clock-set") == ["The clock of batch-0: it was 90 s behind, and is set to within 0 ms."]
    assert first(engine).clock_off == 0.0
    assert first(engine).clock_detail == "it was 90 s behind, and is set to within 0 ms"


def test_without_an_agent_it_is_told_by_how_much_the_clock_is_behind() -> None:
    engine = EngineOnFakes()
    engine.run("batch", memory=512, count=2, preemptible=True)
    engine.settle(2)
    engine.guest.remove_agent(engine.ids("batch")[0])
    engine.service.suspend("batch")
    engine.settle(1)
    engine.clock.advance(300.0)
    engine.service.resume("batch")
    engine.settle(1)
    assert engine.state("batch") is WorkloadState.ACTIVE
    (message,) = told(engine, "clock-not-set")
    assert "about 5 min behind, and was not set" in message
    assert "let it run a time service" in message
    off = first(engine).clock_off
    assert off is not None
    assert off == pytest.approx(300.0, abs=3.0)
    assert told(engine, "clock-set") == []


class SlowGuest(FakeGuest):
    """Whose clock can't be set any better than to a quarter of a second, on a busy machine."""

    def set_clock(self, instance: InstanceId, now: float) -> ClockGap:
        return ClockGap(super().set_clock(instance, now).behind, -0.25)


def test_a_clock_that_stays_off_is_reported_with_the_figure_and_fails_nothing() -> None:
    engine = EngineOnFakes()
    engine.guest = SlowGuest(engine.world, engine.clock)
    engine.start()
    slept(engine, 90.0)
    (message,) = told(engine, "clock-off")
    assert "it was 90 s behind, and is still 250 ms ahead" in message
    assert first(engine).clock_off == -0.25

"""Guests that run on a state that nobody has verified yet: the engine on the fakes, restoring lazily."""

from tests.engine_on_fakes import EngineOnFakes

from torpor.domain.errors import BackendFailed
from torpor.domain.instance import BackendState
from torpor.domain.workload import WorkloadState


def asleep(engine: EngineOnFakes) -> EngineOnFakes:
    engine.run("batch", memory=512, count=2, preemptible=True)
    engine.settle(3)
    engine.service.suspend("batch")
    engine.settle(3)
    assert engine.state("batch") is WorkloadState.SUSPENDED
    return engine


def resumed(engine: EngineOnFakes) -> EngineOnFakes:
    engine.service.resume("batch")
    while engine.queue.tick():
        pass
    assert engine.state("batch") is WorkloadState.ACTIVE
    return engine


def states(engine: EngineOnFakes) -> set[BackendState]:
    return {engine.world.observe()[i].state for i in engine.ids("batch")}


def events(engine: EngineOnFakes, kind: str) -> list[str]:
    return [e.message for e in engine.service.events(200) if e.kind == kind]


def test_each_state_that_a_guest_runs_on_is_verified_once() -> None:
    engine = resumed(asleep(EngineOnFakes(lazy=True)))
    engine.settle(10)
    assert engine.states.verified == [(i, 1) for i in engine.ids("batch")]
    assert len(events(engine, "state-verified")) == 2
    assert states(engine) == {BackendState.RUNNING}


def test_what_was_read_before_it_ran_is_not_read_again() -> None:
    engine = resumed(asleep(EngineOnFakes(lazy=False)))
    engine.settle(10)
    assert engine.states.verified == []


def test_after_a_restart_of_the_daemon_it_is_verified_again() -> None:
    engine = resumed(asleep(EngineOnFakes(lazy=True)))
    engine.settle(3)
    engine.start()
    engine.settle(3)
    assert len(engine.states.verified) == 4


def test_the_next_state_of_the_same_guest_is_verified_too() -> None:
    engine = resumed(asleep(EngineOnFakes(lazy=True)))
    engine.settle(3)
    engine.service.suspend("batch")
    engine.settle(3)
    resumed(engine).settle(3)
    assert [generation for _, generation in engine.states.verified] == [1, 1, 2, 2]


def test_a_bad_chunk_stops_the_gang_and_it_is_said_what_to_do() -> None:
    engine = asleep(EngineOnFakes(lazy=True))
    engine.world.faults.corrupt_state(engine.ids("batch")[1])
    resumed(engine).settle(5)
    assert states(engine) == {BackendState.PAUSED}
    view = engine.service.workload("batch")
    assert view.workload.state is WorkloadState.FAILED
    assert view.instances[0].instance.problem is None
    problem = view.instances[1].instance.problem
    assert problem is not None
    assert problem == view.workload.problem
    assert problem.sentence.startswith("saved state 1 of batch-1 is damaged: ")
    assert "`torpor resume batch`" in problem.remedy
    assert events(engine, "state-damaged") == [problem.sentence]
    assert engine.world.violations == []


def test_a_stopped_gang_stays_so_and_a_restart_changes_nothing() -> None:
    engine = asleep(EngineOnFakes(lazy=True))
    engine.world.faults.corrupt_state(engine.ids("batch")[0])
    resumed(engine).settle(5)
    engine.start()
    engine.settle(20)
    assert states(engine) == {BackendState.PAUSED}
    assert len(events(engine, "state-damaged")) == 1
    claimed = {c.consumer for c in engine.ledger.claims()}
    assert set(engine.ids("batch")) <= claimed, "what still has a process holds its memory"


def test_once_the_file_is_back_the_gang_goes_back_to_that_state() -> None:
    engine = asleep(EngineOnFakes(lazy=True))
    nonces = [engine.world.model.vms[i].memory.nonce for i in engine.ids("batch")]
    engine.world.faults.corrupt_state(engine.ids("batch")[0])
    resumed(engine).settle(5)
    newest = engine.world.model.vms[engine.ids("batch")[0]].newest
    assert newest is not None
    newest.damaged = False
    engine.service.resume("batch")
    engine.settle(5)
    assert engine.state("batch") is WorkloadState.ACTIVE
    assert engine.nonces("batch") == nonces
    assert states(engine) == {BackendState.RUNNING}
    assert engine.service.workload("batch").instances[0].instance.problem is None
    engine.check_laws()


def test_a_state_that_can_not_be_read_is_told_and_tried_again_later() -> None:
    engine = asleep(EngineOnFakes(lazy=True))
    engine.world.faults.fail("verify", error=BackendFailed("it can't be read", detail="the disk said EIO"))
    resumed(engine)
    engine.settle(3)
    assert states(engine) == {BackendState.RUNNING}
    (message,) = events(engine, "state-not-verified")
    assert "saved state 1 of batch-0 could not be read: the disk said EIO" in message
    assert len(engine.states.verified) == 1
    engine.settle(70)
    assert sorted(engine.states.verified) == sorted((i, 1) for i in engine.ids("batch"))


def test_a_gang_that_is_suspended_meanwhile_is_left_alone() -> None:
    engine = asleep(EngineOnFakes(lazy=True))
    engine.world.faults.corrupt_state(engine.ids("batch")[0])
    resumed(engine)
    engine.service.suspend("batch")
    assert not engine.scrub.round()
    engine.settle(1)
    assert engine.state("batch") is WorkloadState.SUSPENDED
    assert events(engine, "state-damaged") == []


def test_a_daemon_that_is_told_to_stop_does_not_read_to_the_end() -> None:
    engine = resumed(asleep(EngineOnFakes(lazy=True)))
    engine.scrub.stopping.set()
    assert not engine.scrub.round()
    assert events(engine, "state-verified") == []

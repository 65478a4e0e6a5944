"""Looking after saved states: the whole engine on the fakes."""

import pytest
from tests.engine_on_fakes import EngineOnFakes

from torpor.domain.capacity import ClaimKind, Resources
from torpor.domain.errors import Conflict, NotFound
from torpor.domain.instance import StateStatus
from torpor.domain.workload import WorkloadState
from torpor.engine.views import StateCheck


def sleeping(engine: EngineOnFakes, name: str = "batch") -> EngineOnFakes:
    engine.run(name, memory=512, count=2, preemptible=True)
    engine.settle(3)
    engine.service.suspend(name)
    engine.settle(3)
    assert engine.state(name) is WorkloadState.SUSPENDED
    return engine


def awake_again(engine: EngineOnFakes, name: str = "batch") -> EngineOnFakes:
    sleeping(engine, name)
    engine.service.resume(name)
    engine.settle(3)
    assert engine.state(name) is WorkloadState.ACTIVE
    return engine


def claimed(engine: EngineOnFakes, kind: ClaimKind = ClaimKind.STATE) -> Resources:
    return sum((c.resources for c in engine.ledger.claims() if c.kind is kind), Resources())


def ignore(check: StateCheck) -> None:
    """Progress that nobody watches."""


def test_states_are_listed_of_all_workloads_or_of_one() -> None:
    engine = sleeping(sleeping(EngineOnFakes()), "other")
    assert [(s.workload, s.instance, s.state.generation) for s in engine.service.states()] == [
        ("batch", "batch-0", 1),
        ("batch", "batch-1", 1),
        ("other", "other-0", 1),
        ("other", "other-1", 1),
    ]
    assert {s.workload for s in engine.service.states("other")} == {"other"}
    with pytest.raises(NotFound):
        engine.service.states("nobody")


def test_a_damaged_state_is_named_and_the_others_are_verified_too() -> None:
    engine = sleeping(sleeping(EngineOnFakes()), "other")
    engine.world.faults.corrupt_state(engine.ids("batch")[1])
    told: list[StateCheck] = []
    checks = engine.service.verify_states(None, told.append)
    assert [c.problem is None for c in checks] == [True, False, True, True]
    problem = checks[1].problem
    assert problem is not None
    assert problem.code == "state-damaged"
    assert problem.what == "saved state 1 of batch-1 is damaged"
    assert "backup" in problem.remedy
    assert any(0 < c.bytes_done < c.bytes_total for c in told)
    assert [c for c in told if c.done] == checks
    assert engine.state("batch") is WorkloadState.SUSPENDED


def test_a_spent_state_that_is_damaged_does_no_harm() -> None:
    engine = awake_again(EngineOnFakes())
    engine.world.faults.corrupt_state(engine.ids("batch")[0])
    problem = engine.service.verify_states("batch", ignore)[0].problem
    assert problem is not None
    assert "does not need it" in problem.remedy


def test_a_state_that_goes_while_it_is_read_is_not_damaged() -> None:
    engine = sleeping(EngineOnFakes())
    engine.world.faults.fail("verify", error=NotFound("it is gone"))
    checks = engine.service.verify_states("batch", ignore)
    assert [(c.gone, c.problem) for c in checks] == [(True, None), (False, None)]


def test_a_spent_state_goes_with_its_claim_and_it_is_said_what_is_lost() -> None:
    engine = awake_again(EngineOnFakes())
    assert claimed(engine).disk_mb > 0
    removed = engine.service.remove_states("batch", 1)
    assert removed.instances == ("batch-0", "batch-1")
    assert removed.freed_bytes > 0
    assert "can't be taken back" in removed.lost
    assert claimed(engine).disk_mb == 0
    assert engine.service.states("batch") == []
    engine.service.suspend("batch")
    engine.settle(3)
    assert engine.state("batch") is WorkloadState.SUSPENDED
    engine.check_laws()


def test_a_whole_state_is_not_removed_nor_that_of_another_instance() -> None:
    engine = sleeping(EngineOnFakes())
    engine.world.spend(engine.ids("batch")[0])
    before = claimed(engine)
    with pytest.raises(Conflict, match="batch-1"):
        engine.service.remove_states("batch", 1)
    assert [s.state.status for s in engine.service.states("batch")] == [StateStatus.SPENT, StateStatus.WHOLE]
    assert claimed(engine) == before
    with pytest.raises(NotFound):
        engine.service.remove_states("batch", 7)


def test_no_state_is_removed_under_an_operation() -> None:
    engine = awake_again(EngineOnFakes())
    engine.service.suspend("batch")
    with pytest.raises(Conflict, match="at rest"):
        engine.service.remove_states("batch", 1)


def test_what_a_lazily_restored_guest_runs_on_stays_with_its_claim() -> None:
    engine = awake_again(EngineOnFakes(lazy=True))
    assert all(s.mapped for s in engine.service.states("batch"))
    before = claimed(engine)
    with pytest.raises(Conflict, match="the guest runs on it"):
        engine.service.remove_states("batch", 1)
    engine.service.collect_states()
    assert claimed(engine) == before
    assert len(engine.service.states("batch")) == 2


def test_leftovers_go_and_the_claims_become_what_is_stored() -> None:
    engine = sleeping(EngineOnFakes())
    stranger = sleeping(engine, "stranger").ids("stranger")
    engine.inventory.remove(engine.workload("stranger").id)
    engine.world.model.vms[engine.ids("batch")[0]].partial_bytes = 5 << 20
    wrong = next(c for c in engine.ledger.claims() if c.kind is ClaimKind.STATE and c.consumer not in stranger)
    stored = claimed(engine).disk_mb // 2
    engine.ledger.claim([wrong.__class__(wrong.consumer, wrong.kind, wrong.host, Resources(disk_mb=9000))])
    assert engine.service.collect_states() > 5 << 20
    assert engine.service.collect_states() == 0
    assert claimed(engine).disk_mb == stored
    assert not {c.consumer for c in engine.ledger.claims()} & set(stranger)
    assert len(engine.service.states("batch")) == 2
    assert [e.kind for e in engine.service.events(50)].count("states-collected") == 1

"""Snapshots, restores and clones as the engine carries them out, on fakes."""

from typing import Any

import pytest
from tests.engine_on_fakes import EngineOnFakes

from torpor.adapters.fakes import ManualClock
from torpor.adapters.fakes.hypervisor import FakeHypervisor
from torpor.domain.capacity import ClaimKind
from torpor.domain.errors import BackendFailed, Conflict, Invalid, NotFound, Refused
from torpor.domain.instance import BackendState
from torpor.domain.operation import OperationKind, OperationStatus
from torpor.domain.plan import Verdict
from torpor.domain.workload import WorkloadState
from torpor.engine.guests import once
from torpor.engine.views import CloneRequest
from torpor.ports import Capabilities


def running(count: int = 1, **fields: Any) -> EngineOnFakes:
    engine = EngineOnFakes(memory_mb=8192)
    engine.run("batch", count=count, **fields)
    engine.settle(3)
    assert engine.state("batch") is WorkloadState.ACTIVE
    return engine


def snapshot(engine: EngineOnFakes, name: str = "s1", workload: str = "batch") -> None:
    engine.service.snapshots.create(workload, name)
    engine.settle(1, step=0.0)
    assert engine.service.snapshots.show(workload, name).name == name


def held(engine: EngineOnFakes, kind: ClaimKind) -> int:
    return sum(c.resources.disk_mb for c in engine.ledger.claims() if c.kind is kind)


def last(engine: EngineOnFakes, kind: OperationKind) -> OperationStatus:
    return next(v.operation.status for v in engine.service.operations(50) if v.operation.kind is kind)


def test_a_snapshot_leaves_its_workload_running_and_is_in_the_books() -> None:
    engine = running(count=2)
    before = engine.nonces("batch")
    snapshot(engine)
    (view,) = engine.service.snapshots.list()
    assert [p.instance for p in view.parts] == ["batch-0", "batch-1"]
    assert held(engine, ClaimKind.SNAPSHOT) == sum(-(-p.snapshot.stored_bytes // (1 << 20)) for p in view.parts)
    assert engine.state("batch") is WorkloadState.ACTIVE
    assert engine.nonces("batch") == before
    engine.check_laws()


def test_a_restored_workload_goes_on_from_the_snapshot_as_often_as_one_likes() -> None:
    engine = running(count=2)
    nonces, then = engine.nonces("batch"), engine.counters("batch")
    snapshot(engine)
    for _ in range(2):
        engine.settle(20)
        assert min(engine.counters("batch")) > max(then) + 15
        engine.service.snapshots.restore("batch", "s1")
        engine.settle(1, step=0.0)
        assert engine.state("batch") is WorkloadState.ACTIVE
        assert engine.nonces("batch") == nonces
        assert engine.counters("batch") == then
        engine.check_laws()


@pytest.mark.parametrize("first", ["suspend", "kill"])
def test_a_suspended_or_failed_workload_is_taken_back_too(first: str) -> None:
    engine = running(count=2)
    then = engine.counters("batch")
    snapshot(engine)
    engine.settle(5)
    if first == "suspend":
        engine.service.suspend("batch")
    else:
        engine.world.faults.kill(engine.ids("batch")[1])
    engine.settle(2)
    assert engine.state("batch") in (WorkloadState.SUSPENDED, WorkloadState.FAILED)
    engine.service.snapshots.restore("batch", "s1")
    engine.settle(1, step=0.0)
    assert engine.state("batch") is WorkloadState.ACTIVE
    assert engine.counters("batch") == then
    engine.check_laws()


def test_what_a_damaged_snapshot_would_replace_runs_on() -> None:
    engine = running(count=2)
    snapshot(engine)
    engine.snapshots.corrupt(engine.ids("batch")[1], "s1")
    before = engine.counters("batch")
    engine.service.snapshots.restore("batch", "s1")
    engine.settle(5)
    assert last(engine, OperationKind.RESTORE_SNAPSHOT) is OperationStatus.UNDONE
    assert engine.state("batch") is WorkloadState.ACTIVE
    assert engine.counters("batch") > before
    engine.check_laws()


def test_the_command_of_a_restored_workload_is_followed_to_its_end() -> None:
    engine = EngineOnFakes()
    engine.guest.script(once("make"), exit_code=0, seconds=30.0)
    engine.run("batch", command="make")
    engine.settle(1)
    snapshot(engine)
    engine.settle(20)
    engine.service.snapshots.restore("batch", "s1")
    engine.settle(20)
    assert engine.state("batch") is WorkloadState.ACTIVE
    engine.settle(20)
    assert engine.state("batch") is WorkloadState.DONE
    with pytest.raises(Conflict):
        engine.service.snapshots.restore("batch", "s1")


def test_a_removed_snapshot_gives_its_room_back() -> None:
    engine = running()
    snapshot(engine, "s1")
    snapshot(engine, "s2")
    two = held(engine, ClaimKind.SNAPSHOT)
    engine.service.snapshots.remove("batch", "s1")
    engine.settle(1)
    assert held(engine, ClaimKind.SNAPSHOT) == -(-two // 2)
    engine.service.snapshots.remove("batch", "s2")
    engine.settle(1)
    assert held(engine, ClaimKind.SNAPSHOT) == 0
    assert not engine.service.snapshots.list("batch")


def test_a_deleted_workload_takes_its_snapshots_along() -> None:
    engine = running()
    snapshot(engine)
    engine.service.delete("batch")
    engine.settle(2)
    assert not engine.ledger.claims()
    with pytest.raises(NotFound):
        engine.service.snapshots.list("batch")


def test_a_clone_runs_beside_its_original_under_its_own_name_and_address() -> None:
    engine = running(count=2)
    snapshot(engine)
    engine.settle(10)
    outcome = engine.service.snapshots.clone(CloneRequest("copy", "batch", "s1", preemptible=True))
    assert outcome.plan.verdict is Verdict.READY
    engine.settle(3)
    assert engine.state("copy") is engine.state("batch") is WorkloadState.ACTIVE
    assert engine.nonces("copy") == engine.nonces("batch"), "it is the same memory"
    assert max(engine.counters("copy")) < min(engine.counters("batch"))
    rows = {r.name: r for r in engine.service.names()}
    assert {"copy-0", "copy-1", "batch-0", "batch-1"} == set(rows)
    assert len({r.address for r in rows.values()}) == len({r.mac for r in rows.values()}) == 4
    for id in engine.ids("copy"):
        assert engine.world.memory(id).owner == id
    assert all(r.address_state == "verified" for r in rows.values())
    engine.check_laws()


def test_a_clone_is_a_workload_of_its_own() -> None:
    engine = running()
    snapshot(engine)
    engine.service.snapshots.clone(CloneRequest("copy", "batch", "s1"))
    engine.settle(3)
    engine.service.delete("batch")
    engine.settle(2)
    engine.service.suspend("copy")
    engine.settle(2)
    engine.service.resume("copy")
    engine.settle(2)
    assert engine.state("copy") is WorkloadState.ACTIVE
    engine.check_laws()


def test_a_clone_that_died_goes_back_to_its_beginning_and_is_told_again_who_it_is() -> None:
    engine = running()
    snapshot(engine)
    engine.service.snapshots.clone(CloneRequest("copy", "batch", "s1"))
    engine.settle(3)
    engine.world.faults.kill(engine.ids("copy")[0])
    engine.settle(2)
    engine.service.resume("copy")
    engine.settle(2)
    assert engine.state("copy") is WorkloadState.ACTIVE
    (id,) = engine.ids("copy")
    assert engine.world.memory(id).owner == id
    engine.check_laws()


def test_a_clone_without_an_agent_does_not_come_up_with_another_address() -> None:
    engine = running()
    snapshot(engine)
    engine.service.snapshots.clone(CloneRequest("copy", "batch", "s1"))
    engine.guest.remove_agent(engine.ids("copy")[0])
    engine.settle(40)
    assert engine.state("copy") is WorkloadState.FAILED
    assert engine.state("batch") is WorkloadState.ACTIVE
    engine.check_laws()
    assert {c.consumer for c in engine.ledger.claims()} == set(engine.ids("batch"))


def test_a_clone_waits_for_room_and_its_snapshot_for_the_clone() -> None:
    engine = EngineOnFakes(vcpus=1)
    engine.run("batch")
    engine.settle(3)
    snapshot(engine)
    outcome = engine.service.snapshots.clone(CloneRequest("copy", "batch", "s1"))
    assert outcome.plan.verdict is Verdict.WAIT
    engine.settle(3)
    assert engine.state("copy") is WorkloadState.PENDING
    for act in (
        lambda: engine.service.snapshots.remove("batch", "s1"),
        lambda: engine.service.delete("batch"),
    ):
        with pytest.raises(Conflict, match="copy will be made of it"):
            act()
    engine.service.suspend("batch")
    engine.settle(3)
    assert engine.state("copy") is WorkloadState.ACTIVE
    engine.check_laws()


def test_a_clone_of_higher_priority_displaces_the_one_that_it_is_made_of() -> None:
    engine = EngineOnFakes(vcpus=1)
    engine.run("batch", preemptible=True)
    engine.settle(3)
    snapshot(engine)
    engine.service.snapshots.clone(CloneRequest("copy", "batch", "s1", priority=5))
    engine.settle(5)
    assert engine.state("copy") is WorkloadState.ACTIVE
    assert engine.state("batch") is WorkloadState.SUSPENDED
    engine.check_laws()


def test_what_is_being_snapshot_is_no_victim() -> None:
    engine = EngineOnFakes(vcpus=1)
    engine.run("batch", preemptible=True)
    engine.settle(3)
    engine.service.snapshots.create("batch", "s1")
    gang = next(g for g in engine.queue.world().gangs if g.workload.name == "batch")
    assert gang.workload.protect
    with pytest.raises(Conflict, match="at rest"):
        engine.service.suspend("batch")
    with pytest.raises(Conflict, match="at rest"):
        engine.service.suspend_all()


def test_requests_that_make_no_sense_are_refused() -> None:
    engine = running()
    snapshot(engine)
    ask = engine.service.snapshots
    with pytest.raises(Conflict, match="already"):
        ask.create("batch", "s1")
    with pytest.raises(Invalid):
        ask.create("batch", "../s1")
    with pytest.raises(NotFound):
        ask.create("nobody", "s1")
    with pytest.raises(NotFound):
        ask.restore("batch", "s2")
    with pytest.raises(NotFound):
        ask.remove("batch", "s2")
    with pytest.raises(NotFound):
        ask.clone(CloneRequest("copy", "batch", "s2"))
    with pytest.raises(Conflict, match="is taken"):
        ask.clone(CloneRequest("batch", "batch", "s1"))
    engine.service.suspend("batch")
    engine.settle(2)
    with pytest.raises(Conflict, match="on disk already"):
        ask.create("batch", "s2")


def test_a_protected_workload_that_runs_is_not_taken_back() -> None:
    engine = running(protect=True)
    snapshot(engine)
    with pytest.raises(Refused):
        engine.service.snapshots.restore("batch", "s1")


def test_a_backend_without_snapshots_says_so() -> None:
    engine = EngineOnFakes()
    able = Capabilities(gang_pause=True, revert=True, guest_agent=True, snapshots=False)
    engine.world = FakeHypervisor(ManualClock(), capabilities=able)
    engine.start()
    engine.run("batch")
    with pytest.raises(Refused, match="this backend"):
        engine.service.snapshots.create("batch", "s1")


@pytest.mark.parametrize("call", ["take", "take_one"])
@pytest.mark.parametrize("after_act", [False, True])
def test_a_snapshot_that_fails_leaves_nothing_and_everybody_running(call: str, after_act: bool) -> None:
    engine = running(count=2)
    engine.world.faults.fail(call, after_act=after_act, instance=engine.ids("batch")[1] if call == "take_one" else None)
    engine.service.snapshots.create("batch", "s1")
    engine.settle(2)
    if engine.world.faults.pending == 0:
        assert last(engine, OperationKind.SNAPSHOT) is OperationStatus.UNDONE
        assert not engine.service.snapshots.list("batch")
        assert held(engine, ClaimKind.SNAPSHOT) == 0
    assert engine.state("batch") is WorkloadState.ACTIVE
    assert {o.state for o in engine.world.observe().values()} == {BackendState.RUNNING}


def test_a_full_disk_refuses_a_snapshot_before_anybody_stands_still() -> None:
    engine = EngineOnFakes(disk_mb=3000)
    engine.run("batch")
    engine.settle(3)
    engine.service.snapshots.create("batch", "s1")
    engine.settle(2)
    view = next(v for v in engine.service.operations(9) if v.operation.kind is OperationKind.SNAPSHOT)
    assert view.operation.problem is not None
    assert view.operation.problem.code == "no-capacity"
    assert engine.state("batch") is WorkloadState.ACTIVE
    engine.check_laws()


def test_a_restore_that_can_not_go_on_is_tried_again() -> None:
    engine = running(count=2)
    then = engine.counters("batch")
    snapshot(engine)
    engine.settle(5)
    engine.world.faults.fail("lay_down", error=BackendFailed("qemu-img failed"), times=2)
    engine.service.snapshots.restore("batch", "s1")
    engine.settle(1, step=0.0)
    assert engine.state("batch") is WorkloadState.RESUMING
    engine.settle(20)
    assert engine.state("batch") is WorkloadState.ACTIVE
    assert max(engine.counters("batch")) < max(then) + 25
    engine.check_laws()

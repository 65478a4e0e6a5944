"""The main story and its side roads, on the fakes."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.engine_on_fakes import EngineOnFakes

from torpor.adapters.fakes.records import FakeHistory, FakeInventory, FakeJournal, FakeLedger
from torpor.domain.errors import BackendFailed, Conflict, InstanceGone, MissingPart, NotFound, Refused
from torpor.domain.ids import OperationId
from torpor.domain.instance import AddressState, BackendState
from torpor.domain.operation import OperationKind, OperationStatus, StepKind, StepStatus
from torpor.domain.plan import Verdict
from torpor.domain.workload import Flavor, WorkloadState
from torpor.engine.views import RunRequest


@pytest.fixture
def engine() -> EngineOnFakes:
    return EngineOnFakes(vcpus=4, memory_mb=3 * 1024)


def with_batch(engine: EngineOnFakes) -> EngineOnFakes:
    engine.run("batch", memory=1024, cpus=2, count=2, priority=10, preemptible=True)
    engine.settle(5)
    return engine


def test_a_workload_that_fits_runs_with_address_and_name(engine: EngineOnFakes) -> None:
    with_batch(engine)
    view = engine.service.workload("batch")
    assert view.workload.state is WorkloadState.ACTIVE
    assert {i.instance.address_state for i in view.instances} == {AddressState.VERIFIED}
    for instance in view.instances:
        assert engine.names.lookup(instance.instance.name) == instance.instance.address
    engine.check_laws()


def test_a_name_answers_as_soon_as_the_workload_is_accepted(engine: EngineOnFakes) -> None:
    engine.run("early")
    assert engine.names.lookup("early") is not None
    assert engine.state("early") is WorkloadState.PENDING


def test_priority_work_suspends_the_gang_and_gives_back(engine: EngineOnFakes) -> None:
    with_batch(engine)
    nonces, counters = engine.nonces("batch"), engine.counters("batch")
    names = [(n.name, n.address) for n in engine.service.names()]

    plan = engine.service.plan(RunRequest("urgent", "test", Flavor(2, 1024), count=2, priority=50))
    assert [a.name for a in plan.victims] == ["batch"]
    assert engine.state("batch") is WorkloadState.ACTIVE, "a dry run changes nothing"

    engine.guest.script("task", exit_code=0, seconds=5)
    engine.run("urgent", memory=1024, cpus=2, count=2, priority=50, duration=20)
    engine.settle(5)
    assert engine.state("urgent") is WorkloadState.ACTIVE
    assert engine.state("batch") is WorkloadState.SUSPENDED
    assert engine.names.lookup("batch-0") is not None, "a suspended instance keeps its name"
    engine.check_laws()

    engine.settle(30)
    assert engine.state("urgent") is WorkloadState.DONE
    assert engine.state("batch") is WorkloadState.ACTIVE
    assert engine.nonces("batch") == nonces
    assert all(after > before for before, after in zip(counters, engine.counters("batch"), strict=True))
    assert [(n.name, n.address) for n in engine.service.names() if n.workload == "batch"] == names
    assert engine.batch.asleep == set()
    engine.check_laws()


def test_suspended_workloads_come_back_by_priority_then_age(engine: EngineOnFakes) -> None:
    for name, priority in (("older", 5), ("newer", 5), ("better", 7)):
        engine.run(name, memory=512, priority=priority, preemptible=True)
        engine.clock.advance(1)
    engine.settle(3)
    engine.run("urgent", memory=2900, cpus=4, priority=50)
    engine.settle(5)
    assert {engine.state(n) for n in ("older", "newer", "better")} == {WorkloadState.SUSPENDED}
    engine.service.delete("urgent")
    engine.settle(5)
    resumed = [
        v.operation.workload_name
        for v in reversed(engine.service.operations(100))
        if v.operation.kind is OperationKind.RESUME
    ]
    assert resumed == ["better", "older", "newer"]
    engine.check_laws()


def test_the_command_ends_the_workload_and_its_exit_code_is_kept(engine: EngineOnFakes) -> None:
    engine.run("task", command="make world", count=2, memory=512)
    engine.settle(10)
    view = engine.service.workload("task")
    assert view.workload.state is WorkloadState.DONE
    assert [i.instance.exit_code for i in view.instances] == [0, 0]
    assert "command finished" in view.workload.reason
    engine.check_laws()


def test_guests_that_shut_down_end_the_workload(engine: EngineOnFakes) -> None:
    with_batch(engine)
    for instance in engine.ids("batch"):
        engine.world.faults.guest_powers_off(instance)
    engine.settle(3)
    assert engine.state("batch") is WorkloadState.DONE
    engine.check_laws()


def test_duration_counts_only_running_time(engine: EngineOnFakes) -> None:
    engine.run("batch", memory=1024, priority=1, preemptible=True, duration=30)
    engine.settle(10)
    engine.service.suspend("batch")
    engine.settle(100)
    assert engine.state("batch") is WorkloadState.SUSPENDED
    engine.service.resume("batch")
    engine.settle(10)
    assert engine.state("batch") is WorkloadState.ACTIVE
    engine.settle(15)
    assert engine.state("batch") is WorkloadState.DONE


def test_suspended_by_hand_stays_so_until_resumed_by_hand(engine: EngineOnFakes) -> None:
    with_batch(engine)
    engine.service.suspend("batch")
    engine.settle(20)
    assert engine.state("batch") is WorkloadState.SUSPENDED
    engine.check_laws()
    engine.service.resume("batch")
    engine.settle(5)
    assert engine.state("batch") is WorkloadState.ACTIVE
    engine.check_laws()


def test_deleting_takes_everything_away(engine: EngineOnFakes) -> None:
    with_batch(engine)
    engine.service.delete("batch")
    assert engine.names.lookup("batch-0") is None, "the name is gone at once"
    engine.settle(3)
    with pytest.raises(NotFound):
        engine.workload("batch")
    assert engine.ledger.claims() == () or not engine.ledger.claims()
    assert not engine.world.observe()


def test_a_failed_save_leaves_the_gang_running_and_the_priority_work_waiting(engine: EngineOnFakes) -> None:
    with_batch(engine)
    second = engine.ids("batch")[1]
    engine.world.faults.fail("save", second)
    engine.run("urgent", memory=1024, cpus=2, priority=50)
    while engine.queue.tick():
        pass
    assert engine.state("batch") is WorkloadState.ACTIVE
    assert engine.state("urgent") is WorkloadState.PENDING
    assert engine.service.workload("urgent").waiting_for
    engine.check_laws()
    engine.settle(10)
    assert engine.state("urgent") is WorkloadState.ACTIVE, "the next try succeeds"
    engine.check_laws()


def test_disk_full_keeps_the_gang_running_and_says_so(engine: EngineOnFakes) -> None:
    with_batch(engine)
    engine.world.faults.disk_full = True
    engine.service.suspend("batch")
    engine.settle(1)
    workload = engine.workload("batch")
    assert workload.state is WorkloadState.ACTIVE
    assert workload.problem is not None
    assert workload.problem.code == "no-room-for-state"
    engine.check_laws()


class BrittleJournal(FakeJournal):
    """Writes nothing while it is `broken`, as on a disk that has become read-only."""

    broken = False
    at: tuple[StepKind, ...] = ()

    def record(
        self,
        operation: OperationId,
        step: int,
        status: StepStatus,
        at: float,
        detail: str = "",
        skew: float | None = None,
    ) -> None:
        if self.broken and self.get(operation).steps[step].kind in self.at:
            raise BackendFailed("the journal can't be written")
        super().record(operation, step, status, at, detail, skew)


@pytest.mark.parametrize("step", [StepKind.PAUSE, StepKind.SAVE])
@pytest.mark.parametrize("saved", [False, True])
def test_guests_do_not_stand_still_because_the_journal_can_not_be_written(step: StepKind, saved: bool) -> None:
    journal = BrittleJournal()
    journal.at = (step,)
    engine = with_batch(EngineOnFakes(records=(FakeLedger(), journal, FakeInventory(), FakeHistory())))
    nonces = engine.nonces("batch")
    if not saved:
        engine.world.faults.fail("save", error=BackendFailed("read-only file system"))
    engine.service.suspend("batch")
    journal.broken = True
    with pytest.raises(BackendFailed):
        engine.queue.tick()
    assert {o.state for o in engine.world.observe().values()} == {BackendState.RUNNING}
    journal.broken = False
    engine.settle(10)
    if engine.state("batch") is WorkloadState.SUSPENDED:
        engine.check_laws()
        engine.service.resume("batch")
        engine.settle(5)
    assert engine.state("batch") is WorkloadState.ACTIVE
    assert engine.nonces("batch") == nonces
    engine.check_laws()


def test_a_save_that_timed_out_but_happened_is_not_a_loss(engine: EngineOnFakes) -> None:
    with_batch(engine)
    nonces = engine.nonces("batch")
    engine.world.faults.fail("save", after_act=True)
    engine.service.suspend("batch")
    engine.settle(2)
    engine.check_laws()
    assert engine.state("batch") is WorkloadState.ACTIVE
    engine.service.suspend("batch")
    engine.settle(2)
    engine.service.resume("batch")
    engine.settle(5)
    assert engine.nonces("batch") == nonces
    engine.check_laws()


def test_a_failed_restore_leaves_the_gang_suspended_and_it_is_tried_again(engine: EngineOnFakes) -> None:
    with_batch(engine)
    nonces = engine.nonces("batch")
    engine.service.suspend("batch")
    engine.settle(2)
    engine.world.faults.fail("restore", engine.ids("batch")[1])
    engine.service.resume("batch")
    while engine.queue.tick():
        pass
    assert engine.state("batch") is WorkloadState.SUSPENDED
    engine.check_laws()
    engine.settle(10)
    assert engine.state("batch") is WorkloadState.ACTIVE
    assert engine.nonces("batch") == nonces
    engine.check_laws()


def test_a_damaged_state_keeps_the_workload_suspended_and_is_not_tried_for_ever(engine: EngineOnFakes) -> None:
    with_batch(engine)
    engine.service.suspend("batch")
    engine.settle(2)
    engine.world.faults.corrupt_state(engine.ids("batch")[0])
    engine.service.resume("batch")
    engine.settle(60)
    workload = engine.workload("batch")
    assert workload.state is WorkloadState.SUSPENDED
    assert workload.problem is not None
    assert workload.problem.code == "state-damaged"
    resumes = [v for v in engine.service.operations(100) if v.operation.kind is OperationKind.RESUME]
    assert len(resumes) == 1
    engine.check_laws()


def test_a_process_that_dies_right_after_running_on_leaves_the_gang_suspended(engine: EngineOnFakes) -> None:
    with_batch(engine)
    nonces = engine.nonces("batch")
    engine.service.suspend("batch")
    engine.settle(2)
    engine.world.faults.fail("run_on", engine.ids("batch")[1], InstanceGone("killed"), after_act=True)
    engine.service.resume("batch")
    while engine.queue.tick():
        pass
    assert engine.state("batch") is WorkloadState.SUSPENDED
    engine.check_laws()
    engine.settle(10)
    assert engine.state("batch") is WorkloadState.ACTIVE
    assert engine.nonces("batch") == nonces


def test_a_dead_process_fails_the_workload_and_frees_only_what_it_held(engine: EngineOnFakes) -> None:
    with_batch(engine)
    engine.world.faults.kill(engine.ids("batch")[0])
    engine.settle(2)
    workload = engine.workload("batch")
    assert workload.state is WorkloadState.FAILED
    assert workload.problem is not None
    assert "batch-0" in workload.problem.sentence
    engine.check_laws()
    with pytest.raises(Refused):
        engine.service.resume("batch")


def test_a_failed_workload_goes_back_to_its_last_saved_state(engine: EngineOnFakes) -> None:
    with_batch(engine)
    nonces = engine.nonces("batch")
    engine.service.suspend("batch")
    engine.settle(2)
    engine.service.resume("batch")
    engine.settle(10)
    counters = engine.counters("batch")
    engine.world.faults.kill(engine.ids("batch")[0])
    engine.settle(2)
    assert engine.state("batch") is WorkloadState.FAILED
    engine.service.resume("batch")
    engine.settle(3)
    assert engine.state("batch") is WorkloadState.ACTIVE
    assert engine.nonces("batch") == nonces
    assert all(now < then for now, then in zip(engine.counters("batch"), counters, strict=True))
    engine.check_laws()


def test_after_a_reboot_of_the_machine_suspended_stays_suspended_and_running_is_failed(engine: EngineOnFakes) -> None:
    with_batch(engine)
    nonces = engine.nonces("batch")
    engine.service.suspend("batch")
    engine.settle(2)
    engine.run("other", memory=512)
    engine.settle(2)
    engine.world.faults.reboot_host()
    engine.start()
    engine.settle(2)
    assert engine.state("batch") is WorkloadState.SUSPENDED
    assert engine.state("other") is WorkloadState.FAILED
    assert engine.names.lookup("batch-1") is not None
    engine.service.resume("batch")
    engine.settle(3)
    assert engine.nonces("batch") == nonces
    engine.check_laws()


def test_a_wrong_address_is_mended_through_the_agent(engine: EngineOnFakes) -> None:
    with_batch(engine)
    instance = engine.ids("batch")[0]
    engine.guest.put_address(instance, "192.0.2.7")
    engine.clock.advance(120)
    engine.watch.round()
    view = engine.service.workload("batch").instances[0]
    assert view.instance.address_state is AddressState.VERIFIED
    assert any(e.kind == "address-mended" and "192.0.2.7" in e.message for e in engine.service.events(50))


def test_a_wrong_address_without_agent_is_reported_with_what_to_do(engine: EngineOnFakes) -> None:
    engine.run("dumb")
    engine.settle(1)
    instance = engine.ids("dumb")[0]
    engine.guest.remove_agent(instance)
    engine.guest.put_address(instance, None)
    engine.settle(70, step=2)
    view = engine.service.workload("dumb").instances[0]
    assert view.instance.address_state is AddressState.MISMATCH
    assert "cloud-init" in view.instance.address_detail


def test_without_a_name_server_run_is_refused_and_leaves_nothing(engine: EngineOnFakes) -> None:
    engine.names.faults.fail("publish", error=MissingPart("dnsmasq is missing"))
    with pytest.raises(MissingPart):
        engine.run("nobody")
    assert engine.service.workloads() == []
    assert engine.names.lookup("nobody") is None


def test_what_can_never_fit_is_refused_at_once(engine: EngineOnFakes) -> None:
    with pytest.raises(Refused):
        engine.run("giant", memory=100_000)
    assert engine.service.workloads() == []


def test_taken_names_are_refused(engine: EngineOnFakes) -> None:
    with_batch(engine)
    with pytest.raises(Conflict):
        engine.run("batch")
    with pytest.raises(Conflict):
        engine.run("batch-1")


def test_a_run_that_is_still_being_undone_is_not_begun_again(engine: EngineOnFakes) -> None:
    engine.world.faults.fail("boot", after_act=True, times=1)
    engine.world.faults.fail("erase", times=2)
    engine.run("a")
    for _ in range(20):
        engine.queue.tick()
        assert not engine.journal.open() or len(engine.journal.recent(10)) == 1
        engine.clock.advance(0.5)
    engine.settle(5)
    assert engine.state("a") is WorkloadState.ACTIVE
    engine.check_laws()


def test_a_workload_whose_end_has_to_be_tried_again_is_no_victim(engine: EngineOnFakes) -> None:
    engine.run("a", cpus=4, duration=5, preemptible=True, priority=0)
    engine.settle(3)
    engine.world.faults.fail("stop", times=2)
    engine.clock.advance(5.0)
    engine.run("urgent", cpus=4, priority=9)
    engine.settle(20)
    assert [o.kind for o in engine.journal.recent(10) if o.workload_name == "a"] == ["end", "run"]
    assert engine.state("a") is WorkloadState.DONE
    assert engine.state("urgent") is WorkloadState.ACTIVE
    engine.check_laws()


def test_a_boot_that_keeps_failing_makes_the_workload_failed_with_nothing_held(engine: EngineOnFakes) -> None:
    engine.world.faults.fail("boot", times=10)
    engine.run("broken")
    engine.settle(60)
    workload = engine.workload("broken")
    assert workload.state is WorkloadState.FAILED
    assert not engine.ledger.claims()
    engine.check_laws()


def test_protected_workloads_are_not_suspended_by_hand(engine: EngineOnFakes) -> None:
    engine.run("precious", protect=True)
    engine.settle(2)
    with pytest.raises(Refused):
        engine.service.suspend("precious")
    assert engine.service.plan_suspend("precious").verdict is Verdict.REFUSED


def test_everything_can_be_suspended_and_comes_back_at_the_next_start(engine: EngineOnFakes) -> None:
    with_batch(engine)
    engine.service.suspend_all()
    engine.settle(5)
    assert engine.state("batch") is WorkloadState.SUSPENDED
    engine.start()
    engine.settle(5)
    assert engine.state("batch") is WorkloadState.ACTIVE
    engine.check_laws()


def test_the_record_keeps_predicted_beside_measured() -> None:
    engine = EngineOnFakes(memory_mb=3 * 1024)
    engine.world._bytes_per_second = 100e6
    with_batch(engine)
    for _ in range(4):
        engine.service.suspend("batch")
        engine.settle(3)
        engine.service.resume("batch")
        engine.settle(3)
    last = next(v.operation for v in engine.service.operations(20) if v.operation.kind is OperationKind.SUSPEND)
    assert last.status is OperationStatus.SUCCEEDED
    assert last.predicted_seconds is not None and last.ended_at is not None
    measured = last.ended_at - last.created_at
    assert measured > 1
    assert abs(last.predicted_seconds - measured) < 0.3 * measured


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=12))
def test_suspending_and_resuming_in_any_order_keeps_the_laws(order: list[str]) -> None:
    engine = EngineOnFakes(memory_mb=8192, vcpus=8)
    for name in ("a", "b", "c"):
        engine.run(name, preemptible=True, count=2, memory=512)
    engine.settle(2)
    nonces = {name: engine.nonces(name) for name in ("a", "b", "c")}
    for name in order:
        if engine.state(name) is WorkloadState.ACTIVE:
            engine.service.suspend(name)
        else:
            engine.service.resume(name)
        engine.settle(1)
        engine.check_laws()
    for name in ("a", "b", "c"):
        if engine.state(name) is WorkloadState.SUSPENDED:
            engine.service.resume(name)
    engine.settle(3)
    assert {name: engine.nonces(name) for name in ("a", "b", "c")} == nonces

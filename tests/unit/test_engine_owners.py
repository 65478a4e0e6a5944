"""A host that is shared: adopted VMs, and what their owners do with them and with ours, on the fakes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
from tests.engine_on_fakes import OVERHEAD_MB, EngineOnFakes

from torpor.adapters.fakes import SHARED, FakeAdoption, FakeHypervisor
from torpor.domain.adoption import Mark, Stranger
from torpor.domain.errors import BackendFailed, Conflict, Invalid, NotFound, Refused
from torpor.domain.ids import InstanceId
from torpor.domain.instance import StateStatus
from torpor.domain.workload import Flavor, WorkloadState

SMALL = Flavor(1, 1024)
BATCH = Mark("batch", preemptible=True)


def shared(**settings: object) -> EngineOnFakes:
    return EngineOnFakes(capabilities=SHARED, **settings)  # type: ignore[arg-type]


def running(engine: EngineOnFakes, *names: str, mark: Mark | None = BATCH) -> list[InstanceId]:
    """VMs of somebody else that run."""
    ids = [engine.owner.define(name, SMALL, f"192.0.2.{10 + i}", mark) for i, name in enumerate(names)]
    for id in ids:
        engine.owner.start(id)
    return ids


def used(engine: EngineOnFakes) -> tuple[int, int]:
    (host,) = engine.ledger.hosts()
    return host.used.vcpus, host.used.memory_mb


def offered(engine: EngineOnFakes) -> tuple[int, int]:
    (host,) = engine.ledger.hosts()
    return host.total.vcpus, host.total.memory_mb


def told(engine: EngineOnFakes, kind: str) -> list[str]:
    return [e.message for e in engine.history.events(1000) if e.kind == kind]


# --- taking in and letting go ---


def test_marked_vms_become_a_workload_and_are_in_the_books() -> None:
    engine = shared()
    ids = running(engine, "web_1", "web_2")
    engine.settle(5)
    workload = engine.workload("batch")
    assert (workload.state, workload.adopted, workload.count) == (WorkloadState.ACTIVE, True, 2)
    assert engine.ids("batch") == ids
    assert [v.instance.name for v in engine.service.workload("batch").instances] == ["web-1", "web-2"]
    assert used(engine) == (2, 2 * (1024 + OVERHEAD_MB))
    assert offered(engine) == (4, 4096)
    engine.check_laws()


class Slow(FakeAdoption):
    """Somebody asks for something while the VMs are looked at."""

    def __init__(self, hypervisor: FakeHypervisor, meanwhile: Callable[[], object]) -> None:
        super().__init__(hypervisor)
        self._meanwhile: list[Callable[[], object]] = [meanwhile]

    def strangers(self) -> Sequence[Stranger]:
        found = super().strangers()
        if self._meanwhile:
            self._meanwhile.pop()()
        return found


def test_what_is_adopted_while_the_vms_are_looked_at_is_not_let_go_again() -> None:
    engine = shared()
    running(engine, "a", mark=None)
    engine.adoption = Slow(engine.world, lambda: engine.service.adopt(["a"], BATCH))
    engine.start()
    engine.settle(3)
    assert engine.state("batch") is WorkloadState.ACTIVE
    assert told(engine, "workload-released") == []
    assert len(told(engine, "workload-adopted")) == 1


def test_what_is_not_marked_is_left_alone_and_counts_as_taken_room() -> None:
    engine = shared()
    (id,) = running(engine, "private", mark=None)
    engine.run("ours", cpus=1, memory=1024)
    engine.settle(5)
    assert offered(engine) == (3, 4096 - 1024 - OVERHEAD_MB)
    assert engine.state("ours") is WorkloadState.ACTIVE
    engine.run("huge", cpus=3, memory=512, priority=99)
    engine.settle(5)
    assert engine.state("huge") is WorkloadState.PENDING
    assert engine.world.memory(id).counter > 0
    engine.check_laws()


def test_an_adopted_gang_is_suspended_for_a_priority_workload_and_comes_back() -> None:
    engine = shared()
    running(engine, "a", "b", "c")
    engine.settle(3)
    nonces, before = engine.nonces("batch"), engine.counters("batch")
    engine.run("urgent", cpus=2, memory=1024, priority=10, duration=5.0)
    engine.settle(3)
    assert engine.state("urgent") is WorkloadState.ACTIVE
    assert engine.state("batch") is WorkloadState.SUSPENDED
    engine.check_laws()
    engine.settle(20)
    assert engine.state("urgent") is WorkloadState.DONE
    assert engine.state("batch") is WorkloadState.ACTIVE
    assert engine.nonces("batch") == nonces
    assert all(now > then for now, then in zip(engine.counters("batch"), before, strict=True))
    engine.check_laws()


def test_a_vm_that_loses_its_mark_is_let_go_as_it_is() -> None:
    engine = shared()
    (id,) = running(engine, "a")
    engine.settle(3)
    engine.adoption.unmark(id)
    engine.settle(3)
    assert not engine.service.workloads()
    assert used(engine) == (0, 0)
    assert offered(engine)[0] == 3
    assert engine.world.memory(id).counter > 0
    assert engine.world.violations == []


def test_a_vm_more_or_less_changes_the_gang() -> None:
    engine = shared()
    one, other = running(engine, "a", "b")
    engine.settle(3)
    created = engine.workload("batch").created_at
    engine.owner.undefine(other)
    engine.settle(3)
    assert engine.ids("batch") == [one]
    (third,) = running(engine, "c")
    engine.settle(3)
    assert engine.ids("batch") == [one, third]
    assert engine.workload("batch").created_at == created
    assert engine.state("batch") is WorkloadState.ACTIVE
    engine.check_laws()


def test_a_changed_mark_changes_the_workload() -> None:
    engine = shared()
    (id,) = running(engine, "a")
    engine.settle(3)
    engine.adoption.mark(id, Mark("batch", priority=7, protect=True))
    engine.settle(3)
    workload = engine.workload("batch")
    assert (workload.priority, workload.preemptible, workload.protect) == (7, False, True)


def test_marks_of_a_gang_that_differ_count_as_the_most_careful_of_them() -> None:
    engine = shared()
    _, other = running(engine, "a", "b")
    engine.adoption.mark(other, replace(BATCH, priority=5, protect=True, preemptible=False))
    engine.settle(3)
    workload = engine.workload("batch")
    assert (workload.priority, workload.preemptible, workload.protect) == (5, False, True)


def test_vms_of_different_size_are_not_one_workload_and_somebody_is_told_once() -> None:
    engine = shared()
    running(engine, "a")
    big = engine.owner.define("b", Flavor(2, 512), mark=BATCH)
    engine.settle(10)
    assert not engine.service.workloads()
    (message,) = told(engine, "adoption-refused")
    assert "one size" in message
    engine.adoption.unmark(big)
    engine.settle(3)
    assert engine.state("batch") is WorkloadState.ACTIVE


def test_names_follow_the_address_that_an_adopted_vm_has() -> None:
    engine = shared()
    (id,) = running(engine, "a")
    engine.settle(10)
    (view,) = engine.service.names()
    assert (view.name, view.address, view.published) == ("a", "192.0.2.10", True)
    engine.guest.put_address(id, "192.0.2.99")
    engine.settle(10)
    (view,) = engine.service.names()
    assert (view.address, view.published) == ("192.0.2.99", True)
    engine.adoption.unmark(id)
    engine.settle(3)
    assert not engine.names.records()


# --- asked for ---


def test_adopt_marks_takes_in_and_answers_with_the_workload() -> None:
    engine = shared()
    one, other = running(engine, "a", "b", mark=None)
    view = engine.service.adopt(["a", other], Mark("batch", preemptible=True))
    assert view.workload.adopted
    engine.settle(3)
    assert engine.ids("batch") == [one, other]
    engine.service.release("batch")
    assert not engine.service.workloads()
    assert [s.mark for s in engine.service.strangers()] == [None, None]


@pytest.mark.parametrize(
    ("vms", "mark", "error"),
    [
        (["nobody"], BATCH, NotFound),
        (["a"], Mark("Not a label"), Invalid),
        (["a"], Mark("batch", preemptible=True, protect=True), Invalid),
        (["a"], Mark("ours"), Conflict),
        (["a", "big"], BATCH, Invalid),
        (["???"], BATCH, Invalid),
    ],
)
def test_what_can_not_be_adopted_is_refused_and_nothing_is_marked(
    vms: list[str], mark: Mark, error: type[Exception]
) -> None:
    engine = shared()
    running(engine, "a", mark=None)
    engine.owner.define("big", Flavor(2, 512))
    engine.owner.define("???", SMALL)
    engine.run("ours", memory=512)
    with pytest.raises(error):
        engine.service.adopt(vms, mark)
    assert [s.mark for s in engine.service.strangers()] == [None] * 3


def test_an_adoption_that_fails_half_way_leaves_no_mark() -> None:
    engine = shared()
    _, other = running(engine, "a", "b", mark=None)
    engine.world.faults.fail("mark", other, error=BackendFailed("no"), times=1)
    with pytest.raises(BackendFailed):
        engine.service.adopt(["a", "b"], BATCH)
    assert [s.mark for s in engine.service.strangers()] == [None, None]


def test_adopted_vms_are_not_deleted_and_own_ones_not_released() -> None:
    engine = shared()
    running(engine, "a")
    engine.run("ours", memory=512)
    engine.settle(3)
    with pytest.raises(Refused, match="owner"):
        engine.service.delete("batch")
    with pytest.raises(Refused, match="delete"):
        engine.service.release("ours")


def test_what_sleeps_is_not_let_go_for_its_image_carries_the_mark() -> None:
    engine = shared()
    running(engine, "a")
    engine.settle(3)
    engine.service.suspend("batch")
    engine.settle(3)
    with pytest.raises(Refused, match="resume batch"):
        engine.service.release("batch")
    engine.service.resume("batch")
    engine.settle(3)
    engine.service.release("batch")
    assert not engine.service.workloads()


def test_an_adopted_workload_that_does_not_fit_the_books_says_so() -> None:
    engine = shared(vcpus=1)
    running(engine, "a", "b")
    engine.settle(3)
    workload = engine.workload("batch")
    assert workload.state is WorkloadState.DONE
    assert "no room" in workload.reason


def test_a_host_that_is_not_shared_has_nobody_to_adopt() -> None:
    with pytest.raises(Refused, match="libvirt"):
        EngineOnFakes().service.strangers()


# --- behind our back ---


def test_what_somebody_saved_is_suspended_and_stays_so() -> None:
    engine = shared()
    (id,) = running(engine, "a")
    engine.settle(3)
    engine.owner.save(id)
    engine.settle(10)
    workload = engine.workload("batch")
    assert (workload.state, workload.held) == (WorkloadState.SUSPENDED, True)
    assert used(engine) == (0, 0)
    engine.check_laws()
    engine.service.resume("batch")
    engine.settle(5)
    assert engine.state("batch") is WorkloadState.ACTIVE
    engine.check_laws()


def test_a_gang_of_which_somebody_saved_a_part_is_suspended_whole() -> None:
    engine = shared()
    _, other = running(engine, "a", "b")
    engine.settle(3)
    nonces = engine.nonces("batch")
    engine.owner.save(other)
    engine.settle(5)
    assert engine.state("batch") is WorkloadState.SUSPENDED
    assert engine.workload("batch").held
    engine.check_laws()
    engine.service.resume("batch")
    engine.settle(5)
    assert engine.nonces("batch") == nonces
    engine.check_laws()


def test_what_somebody_started_is_active_again_where_there_is_room() -> None:
    engine = shared()
    (id,) = running(engine, "a")
    engine.settle(3)
    engine.service.suspend("batch")
    engine.settle(3)
    assert engine.state("batch") is WorkloadState.SUSPENDED
    engine.owner.start(id)
    engine.settle(3)
    assert engine.state("batch") is WorkloadState.ACTIVE
    assert used(engine) == (1, 1024 + OVERHEAD_MB)
    engine.check_laws()


def test_a_gang_of_which_somebody_started_a_part_comes_back_whole() -> None:
    engine = shared()
    one, _ = running(engine, "a", "b")
    engine.settle(3)
    nonces = engine.nonces("batch")
    engine.service.suspend("batch")
    engine.settle(3)
    engine.owner.start(one)
    engine.settle(5)
    assert engine.state("batch") is WorkloadState.ACTIVE
    assert engine.nonces("batch") == nonces
    engine.check_laws()


def test_a_gang_that_can_not_come_back_whole_is_left_as_its_owner_has_it_and_tried_again() -> None:
    engine = shared()
    one, other = running(engine, "a", "b")
    engine.settle(3)
    nonces = engine.nonces("batch")
    engine.service.suspend("batch")
    engine.settle(3)
    engine.world.faults.fail("restore", one, times=2)
    engine.owner.start(other)
    assert rounds_at_once(engine) < 3
    assert not engine.journal.open()
    assert engine.state("batch") is WorkloadState.SUSPENDED
    assert used(engine) == (1, 1024 + OVERHEAD_MB), "what runs stays in the books"
    engine.settle(20)
    assert engine.state("batch") is WorkloadState.ACTIVE
    assert engine.nonces("batch") == nonces
    engine.check_laws()


def test_what_was_started_alone_and_saved_again_holds_nothing() -> None:
    engine = shared()
    one, other = running(engine, "a", "b")
    engine.settle(3)
    engine.service.suspend("batch")
    engine.settle(3)
    engine.world.faults.fail("restore", one)
    engine.owner.start(other)
    rounds_at_once(engine)
    assert used(engine) == (1, 1024 + OVERHEAD_MB)
    engine.owner.save(other)
    assert rounds_at_once(engine) < 3
    assert used(engine) == (0, 0)
    engine.check_laws()


def test_one_that_was_started_alone_and_died_is_a_failure_that_says_so() -> None:
    engine = shared()
    engine.run("ours", count=2)
    engine.settle(3)
    engine.service.suspend("ours")
    engine.settle(3)
    _, other = engine.ids("ours")
    engine.owner.start(other)
    engine.world.faults.kill(other)
    engine.service.resume("ours")
    engine.settle(20)
    assert not engine.journal.open()
    assert engine.state("ours") is WorkloadState.FAILED
    assert used(engine) == (0, 0)
    engine.check_laws()


def rounds_at_once(engine: EngineOnFakes, most: int = 10) -> int:
    """How many rounds follow each other without a pause, for each does something; `most` where they never end."""
    return next((n for n in range(most) if not engine.queue.tick()), most)


def test_a_rest_that_can_not_follow_is_tried_again_at_its_time_and_not_all_the_time() -> None:
    engine = shared()
    _, other = running(engine, "a", "b")
    engine.settle(3)
    engine.world.faults.disk_full = True
    engine.owner.save(other)
    assert rounds_at_once(engine) < 3
    for _ in range(30):
        engine.clock.advance(60.0)
        assert rounds_at_once(engine) < 3
        assert engine.state("batch") is WorkloadState.ACTIVE
    engine.world.faults.clear()
    engine.clock.advance(60.0)
    engine.settle(5)
    assert engine.state("batch") is WorkloadState.SUSPENDED
    engine.check_laws()


def test_a_suspension_without_room_that_fails_is_tried_again_at_its_time() -> None:
    engine, id = full("suspend")
    engine.world.faults.disk_full = True
    engine.owner.start(id)
    for _ in range(2):
        assert rounds_at_once(engine) < 3
        engine.clock.advance(60.0)
    engine.world.faults.clear()
    engine.settle(5)
    assert engine.state("batch") is WorkloadState.SUSPENDED
    engine.check_laws()


def full(unplanned_start: str) -> tuple[EngineOnFakes, InstanceId]:
    """`batch` sleeps, and `urgent` has its room."""
    engine = shared(unplanned_start=unplanned_start)
    (id,) = running(engine, "a")
    engine.settle(3)
    engine.run("urgent", cpus=4, memory=2048, priority=10)
    engine.settle(3)
    assert engine.state("batch") is WorkloadState.SUSPENDED
    return engine, id


def test_what_somebody_started_without_room_is_suspended_again() -> None:
    engine, id = full("suspend")
    nonce = engine.world.model.vms[id].memory.nonce
    engine.owner.start(id)
    engine.settle(5)
    assert engine.state("batch") is WorkloadState.SUSPENDED
    assert engine.state("urgent") is WorkloadState.ACTIVE
    assert told(engine, "started-without-room")
    assert engine.world.model.vms[id].memory.nonce == nonce
    engine.check_laws()


def test_or_it_is_left_as_configured_and_reported_once() -> None:
    engine, id = full("leave")
    engine.owner.start(id)
    engine.settle(10)
    assert engine.state("batch") is WorkloadState.SUSPENDED
    assert engine.world.memory(id).counter > 0
    assert len(told(engine, "started-without-room")) == 1
    assert told(engine, "host-overcommitted")
    assert used(engine)[0] == offered(engine)[0] == 4
    engine.service.delete("urgent")
    engine.settle(5)
    assert engine.state("batch") is WorkloadState.ACTIVE
    assert used(engine) == (1, 1024 + OVERHEAD_MB)


def test_what_its_owner_shut_down_has_ended_and_may_be_started_again() -> None:
    engine = shared()
    (id,) = running(engine, "a")
    engine.settle(3)
    engine.owner.shut_down(id)
    engine.settle(3)
    assert engine.state("batch") is WorkloadState.DONE
    assert used(engine) == (0, 0)
    engine.owner.start(id)
    engine.settle(3)
    assert engine.state("batch") is WorkloadState.ACTIVE
    engine.check_laws()


def test_who_paused_a_vm_may_let_it_run_on() -> None:
    engine = shared()
    (id,) = running(engine, "a")
    engine.settle(3)
    engine.owner.pause(id)
    before = engine.world.memory(id).counter
    engine.settle(5)
    assert engine.world.memory(id).counter == before
    assert engine.state("batch") is WorkloadState.ACTIVE


def test_a_saved_state_that_somebody_removed_is_a_failure_that_says_so() -> None:
    engine = shared()
    (id,) = running(engine, "a")
    engine.settle(3)
    engine.service.suspend("batch")
    engine.settle(3)
    engine.owner.forget_state(id)
    engine.settle(3)
    workload = engine.workload("batch")
    assert workload.state is WorkloadState.FAILED
    assert workload.problem is not None and "removed" in workload.problem.sentence
    engine.owner.start(id)
    engine.settle(3)
    assert engine.state("batch") is WorkloadState.ACTIVE


def test_a_domain_of_ours_that_somebody_undefined_is_a_failure() -> None:
    engine = shared()
    engine.run("ours", memory=512)
    engine.settle(3)
    engine.owner.undefine(engine.ids("ours")[0])
    engine.settle(3)
    assert engine.state("ours") is WorkloadState.FAILED
    assert used(engine) == (0, 0)


# --- saves that end the process ---


def test_a_gang_of_which_one_can_not_be_saved_runs_on_whole() -> None:
    engine = shared()
    _, other = running(engine, "a", "b")
    engine.settle(3)
    nonces = engine.nonces("batch")
    engine.world.faults.fail("save", other, error=BackendFailed("the disk is full"), times=1)
    engine.service.suspend("batch")
    engine.settle(3)
    assert engine.state("batch") is WorkloadState.ACTIVE
    assert engine.nonces("batch") == nonces
    assert [engine.world.states(i)[0].status for i in engine.ids("batch")[:1]] == [StateStatus.SPENT]
    engine.check_laws()


def test_a_gang_of_which_one_can_not_be_restored_sleeps_on_whole() -> None:
    engine = shared()
    _, other = running(engine, "a", "b")
    engine.settle(3)
    engine.service.suspend("batch")
    engine.settle(3)
    engine.world.faults.fail("restore", other, error=BackendFailed("not now"), times=1)
    engine.service.resume("batch")
    engine.queue.tick()
    assert engine.state("batch") is WorkloadState.SUSPENDED
    engine.check_laws()
    engine.settle(10)
    assert engine.state("batch") is WorkloadState.ACTIVE
    engine.check_laws()


def test_a_host_that_is_full_of_what_is_not_claimed_is_not_reported_again_and_again() -> None:
    engine = shared(vcpus=1)
    running(engine, "private", mark=None)
    running(engine, "a", "b")
    engine.settle(10)
    assert len(told(engine, "started-without-room")) == 1
    assert told(engine, "host-overcommitted") == []
    assert offered(engine)[0] == used(engine)[0] == 0

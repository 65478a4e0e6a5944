"""The fake host notices what reality would not forgive; else the laws that are tested on it would prove nothing."""

import pytest

from torpor.adapters.fakes import FakeBatchSystem, FakeGuest, FakeHypervisor, FakeNames, ManualClock
from torpor.domain.capacity import Resources
from torpor.domain.errors import BackendFailed, Conflict, InstanceGone, NoRoomForState, StateDamaged
from torpor.domain.ids import InstanceId, WorkloadId
from torpor.domain.instance import BackendState, ClockGap, Instance, InstanceSpec, NetworkConfig, StateStatus
from torpor.domain.naming import NameRecord
from torpor.domain.workload import Flavor

A, B = InstanceId("a"), InstanceId("b")


class Death(BaseException):
    """The caller is killed."""


def spec(instance: InstanceId = A) -> InstanceSpec:
    network = NetworkConfig("10.0.0.2", 24, "10.0.0.1", (), "test")
    return InstanceSpec(instance, f"vm-{instance}", "test", Flavor(1, 512), "52:54:00:00:00:01", network)


def quiet(done: int, total: int) -> None:
    return None


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def host(clock: ManualClock) -> FakeHypervisor:
    return FakeHypervisor(clock, total=Resources(2, 1280, 4096))


def sleep(host: FakeHypervisor, of: InstanceSpec) -> None:
    host.pause(of.id)
    host.save(of, quiet)
    host.release(of.id)


def wake(host: FakeHypervisor, of: InstanceSpec) -> None:
    host.restore(of, quiet)
    host.spend(of.id)
    host.run_on(of.id)


def test_a_guest_goes_on_from_where_it_was(host: FakeHypervisor, clock: ManualClock) -> None:
    host.boot(spec())
    nonce = host.nonce(A)
    clock.advance(5)
    sleep(host, spec())
    clock.advance(100)
    assert not host.observe()
    wake(host, spec())
    clock.advance(2)
    assert (host.counter(A), host.nonce(A)) == (7.0, nonce)
    assert not host.violations


def test_too_many_processes_are_noticed(host: FakeHypervisor) -> None:
    host.boot(spec(A))
    host.boot(spec(B))
    assert not host.violations
    host.boot(spec(InstanceId("c")))
    assert ["over-commits the host" in violation for violation in host.violations] == [True]


def test_running_on_from_a_state_that_is_not_spent_is_noticed(host: FakeHypervisor) -> None:
    host.boot(spec())
    sleep(host, spec())
    host.restore(spec(), quiet)
    host.run_on(A)
    assert ["not marked spent" in violation for violation in host.violations] == [True]


def test_restoring_onto_a_disk_that_moved_on_corrupts_the_guest(host: FakeHypervisor, clock: ManualClock) -> None:
    host.boot(spec())
    sleep(host, spec())
    host.restore(spec(), quiet)
    host.run_on(A)
    clock.advance(1)
    host.faults.kill(A)
    host.violations.clear()
    host.restore(spec(), quiet)
    assert ["disk that had moved on" in violation for violation in host.violations] == [True]
    host.spend(A)
    host.run_on(A)
    assert host.corrupt(A)


def test_a_spent_state_can_be_restored_only_after_it_was_reverted(host: FakeHypervisor, clock: ManualClock) -> None:
    host.boot(spec())
    clock.advance(5)
    sleep(host, spec())
    wake(host, spec())
    clock.advance(3)
    host.faults.kill(A)
    with pytest.raises(Conflict):
        host.restore(spec(), quiet)
    host.revert(A)
    wake(host, spec())
    assert (host.counter(A), host.corrupt(A), host.violations) == (5.0, False, [])
    assert host.discarded == {A: 3.0}


def test_a_vm_without_a_state_of_its_standstill_is_not_released(host: FakeHypervisor, clock: ManualClock) -> None:
    host.boot(spec())
    host.pause(A)
    with pytest.raises(Conflict):
        host.release(A)
    host.save(spec(), quiet)
    host.spend(A)
    with pytest.raises(Conflict):
        host.release(A)
    assert host.observe()[A].state is BackendState.PAUSED


def test_dropping_the_only_state_of_a_vm_without_a_process_is_noticed_and_refused(host: FakeHypervisor) -> None:
    host.boot(spec())
    sleep(host, spec())
    with pytest.raises(Conflict):
        host.drop(A)
    assert host.states(A)
    assert len(host.violations) == 1


def test_booting_beside_a_whole_state_is_noticed(host: FakeHypervisor) -> None:
    host.boot(spec())
    sleep(host, spec())
    host.boot(spec())
    assert len(host.violations) == 1


def test_a_running_vm_is_not_saved(host: FakeHypervisor) -> None:
    host.boot(spec())
    with pytest.raises(Conflict):
        host.save(spec(), quiet)


def test_a_call_can_fail_before_or_after_its_act(host: FakeHypervisor) -> None:
    host.boot(spec())
    host.faults.fail("pause", A)
    with pytest.raises(BackendFailed):
        host.pause(A)
    assert host.observe()[A].state is BackendState.RUNNING
    host.faults.fail("pause", after_act=True)
    with pytest.raises(BackendFailed):
        host.pause(A)
    assert host.observe()[A].state is BackendState.PAUSED
    host.faults.fail("pause", B)
    host.pause(A)
    assert host.faults.pending == 1, "a fault of another instance stays"


def test_a_full_disk_leaves_the_vm_paused_and_no_state(host: FakeHypervisor) -> None:
    host.boot(spec())
    host.pause(A)
    host.faults.disk_full = True
    with pytest.raises(NoRoomForState):
        host.save(spec(), quiet)
    assert (host.states(A), host.observe()[A].state) == ((), BackendState.PAUSED)
    host.faults.disk_full = False
    assert host.save(spec(), quiet).generation == 1


def test_a_damaged_state_is_refused_and_no_process_is_left(host: FakeHypervisor) -> None:
    host.boot(spec())
    sleep(host, spec())
    host.faults.corrupt_state(A)
    with pytest.raises(StateDamaged):
        host.restore(spec(), quiet)
    assert not host.observe()
    assert host.states(A)[0].status is StateStatus.WHOLE


def test_a_caller_that_dies_while_saving_leaves_remains_that_drop_removes(host: FakeHypervisor) -> None:
    def die(done: int, total: int) -> None:
        raise Death

    host.boot(spec())
    host.pause(A)
    with pytest.raises(Death):
        host.save(spec(), die)
    assert not host.states(A)
    assert host.model.disk_bytes() > 0
    host.drop(A)
    assert host.model.disk_bytes() == 0


def test_a_caller_that_dies_while_restoring_leaves_a_process_that_the_next_one_replaces(host: FakeHypervisor) -> None:
    def die(done: int, total: int) -> None:
        raise Death

    host.boot(spec())
    sleep(host, spec())
    with pytest.raises(Death):
        host.restore(spec(), die)
    assert host.observe()[A].state is BackendState.LOADING
    wake(host, spec())
    assert not host.violations


def test_a_reboot_of_the_host_ends_processes_and_keeps_states(host: FakeHypervisor) -> None:
    host.boot(spec(A))
    sleep(host, spec(A))
    host.boot(spec(B))
    host.faults.reboot_host()
    assert not host.observe()
    assert host.states(A)
    with pytest.raises(InstanceGone):
        host.pause(B)


def test_a_guests_clock_stands_still_while_it_sleeps(host: FakeHypervisor, clock: ManualClock) -> None:
    guest = FakeGuest(host, clock)
    host.boot(spec())
    sleep(host, spec())
    clock.advance(60)
    wake(host, spec())
    assert guest.set_clock(A, clock.now()) == ClockGap(60.0, 0.0)
    assert guest.set_clock(A, clock.now()) == ClockGap(0.0, 0.0)


def test_a_command_sleeps_with_its_guest_and_its_result_is_told_once(host: FakeHypervisor, clock: ManualClock) -> None:
    guest = FakeGuest(host, clock)
    guest.script("work", exit_code=3, seconds=10, output="done")
    host.boot(spec())
    pid = guest.execute(A, "work")
    clock.advance(9)
    sleep(host, spec())
    clock.advance(100)
    wake(host, spec())
    assert not guest.execution(A, pid).finished
    clock.advance(1)
    ended = guest.execution(A, pid)
    assert (ended.finished, ended.exit_code, ended.output) == (True, 3, "done")
    with pytest.raises(BackendFailed):
        guest.execution(A, pid)


def test_a_guest_answers_for_the_address_that_it_has(host: FakeHypervisor, clock: ManualClock) -> None:
    guest = FakeGuest(host, clock, boot_seconds=3)
    instance = Instance(A, WorkloadId("w"), "vm-a", 0, "10.0.0.2", "52:54:00:00:00:01")
    host.boot(spec())
    assert (guest.probe(instance), guest.agent_answers(A)) == (False, False)
    clock.advance(3)
    assert (guest.probe(instance), guest.addresses(A)) == (True, ("10.0.0.2",))
    guest.put_address(A, "10.0.0.9")
    assert not guest.probe(instance)
    guest.assign_address(instance, 24, "10.0.0.1")
    assert guest.probe(instance)
    guest.remove_agent(A)
    with pytest.raises(BackendFailed):
        guest.addresses(A)


def test_a_batch_system_that_is_not_told_before_its_node_sleeps_complains(host: FakeHypervisor) -> None:
    batch = FakeBatchSystem(host)
    host.boot(spec(A))
    batch.before_suspend(["vm-a"])
    host.pause(A)
    assert not batch.violations
    batch.after_resume(["vm-a"])
    assert batch.violations == ["vm-a was undrained before it ran"]
    host.boot(spec(B))
    host.pause(B)
    assert batch.violations[1:] == ["vm-b was paused before the batch system was told"]


def test_names_answer_both_ways_while_the_server_runs() -> None:
    names = FakeNames()
    names.ensure()
    names.publish([NameRecord("a", "10.0.0.2")])
    names.publish([NameRecord("a", "10.0.0.3")])
    assert (names.lookup("a"), names.reverse("10.0.0.3"), names.reverse("10.0.0.2")) == ("10.0.0.3", "a", None)
    names.running = False
    assert names.lookup("a") is None
    names.ensure()
    names.withdraw(["a", "b"])
    assert names.lookup("a") is None

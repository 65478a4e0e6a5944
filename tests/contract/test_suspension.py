"""The contract of `ports.Suspension`, on real QEMU (both mechanisms), on libvirt and on the fake."""

import pytest
from tests.contract.conftest import Machines, ignore

from torpor.domain.errors import Conflict, InstanceGone
from torpor.domain.instance import BackendState, StateStatus


def test_a_guest_goes_on_where_it_stood_when_it_was_paused(machines: Machines) -> None:
    spec = machines.veteran()
    nonce, before = machines.nonce(spec.id), machines.counter(spec.id)
    machines.hypervisor.pause(spec.id)
    machines.suspension.save(spec, ignore)
    machines.suspension.release(spec.id)
    assert machines.state(spec) is BackendState.ABSENT
    machines.resume(spec)
    assert machines.state(spec) is BackendState.RUNNING
    assert machines.nonce(spec.id) == nonce
    assert machines.counter(spec.id) >= before


def test_a_guest_can_be_suspended_again_and_again(machines: Machines) -> None:
    spec = machines.veteran()
    nonce, before = machines.nonce(spec.id), machines.counter(spec.id)
    generations: list[int] = []
    for _ in range(3):
        machines.hypervisor.pause(spec.id)
        generations.append(machines.suspension.save(spec, ignore).generation)
        machines.suspension.release(spec.id)
        machines.suspension.settle(spec.id)
        machines.resume(spec)
        machines.let_run(0.5)
    assert generations == [generations[0] + more for more in range(3)]
    assert machines.nonce(spec.id) == nonce
    assert machines.counter(spec.id) > before


def test_a_whole_state_of_this_pause_is_not_written_twice(machines: Machines) -> None:
    spec = machines.saved()
    (first,) = machines.suspension.states(spec.id)
    assert machines.suspension.save(spec, ignore) == first
    assert list(machines.suspension.states(spec.id)) == [first]
    assert machines.state(spec) is (BackendState.PAUSED if machines.can.keeps_process else BackendState.ABSENT)


def test_progress_ends_at_the_whole(machines: Machines) -> None:
    spec = machines.started()
    machines.hypervisor.pause(spec.id)
    told: list[tuple[int, int]] = []
    machines.suspension.save(spec, lambda done, total: told.append((done, total)))
    assert told == sorted(told)
    assert all(0 <= done <= total for done, total in told)


def test_only_a_paused_instance_can_be_saved(machines: Machines) -> None:
    spec = machines.started()
    with pytest.raises(Conflict):
        machines.suspension.save(spec, ignore)
    machines.hypervisor.stop(spec.id, 0.0)
    with pytest.raises(InstanceGone):
        machines.suspension.save(spec, ignore)


def test_memory_is_not_released_without_a_whole_state(machines: Machines) -> None:
    if not machines.can.gang_pause:
        return  # what stands still there has its state
    spec = machines.started()
    machines.hypervisor.pause(spec.id)
    with pytest.raises(Conflict):
        machines.suspension.release(spec.id)
    assert machines.state(spec) is BackendState.PAUSED


def test_memory_is_not_released_once_the_instance_has_run_on_from_its_state(machines: Machines) -> None:
    if not machines.can.gang_pause:
        return
    spec = machines.suspended()
    machines.resume(spec)
    machines.hypervisor.pause(spec.id)
    with pytest.raises(Conflict):
        machines.suspension.release(spec.id)
    assert machines.state(spec) is BackendState.PAUSED


def test_release_of_what_has_no_process_is_done_already(machines: Machines) -> None:
    spec = machines.suspended()
    machines.suspension.release(spec.id)
    assert machines.state(spec) is BackendState.ABSENT
    assert [s.status for s in machines.suspension.states(spec.id)] == [StateStatus.WHOLE]


def test_a_save_that_is_taken_back_leaves_the_instance_as_it_was(machines: Machines) -> None:
    spec = machines.saved()
    if machines.can.keeps_process:
        machines.suspension.drop(spec.id)
        machines.suspension.drop(spec.id)
        assert not machines.suspension.states(spec.id)
        machines.hypervisor.run_on(spec.id)
    else:
        with pytest.raises(Conflict, match="no process"):
            machines.suspension.drop(spec.id)
        assert [s.status for s in machines.suspension.states(spec.id)] == [StateStatus.WHOLE]
        machines.resume(spec)
    assert machines.state(spec) is BackendState.RUNNING


def test_nothing_is_dropped_of_what_was_not_saved(machines: Machines) -> None:
    if not machines.can.gang_pause:
        return
    spec = machines.started()
    machines.hypervisor.pause(spec.id)
    machines.suspension.drop(spec.id)
    machines.hypervisor.run_on(spec.id)
    assert machines.state(spec) is BackendState.RUNNING


def test_the_only_thing_left_of_an_instance_is_not_dropped(machines: Machines) -> None:
    spec = machines.suspended()
    with pytest.raises(Conflict):
        machines.suspension.drop(spec.id)
    assert [s.status for s in machines.suspension.states(spec.id)] == [StateStatus.WHOLE]


def test_a_restored_instance_waits_and_is_not_restored_twice(machines: Machines) -> None:
    spec = machines.suspended()
    machines.suspension.restore(spec, ignore)
    assert machines.state(spec) is machines.still
    pid = machines.pid(spec)
    machines.suspension.restore(spec, ignore)
    assert machines.pid(spec) == pid


def test_what_was_never_saved_can_not_be_restored(machines: Machines) -> None:
    spec = machines.started()
    machines.hypervisor.stop(spec.id, 0.0)
    with pytest.raises(Conflict):
        machines.suspension.restore(spec, ignore)


def test_a_spent_state_is_not_restored_before_the_disk_was_taken_back(machines: Machines) -> None:
    spec = machines.suspended()
    machines.resume(spec)
    machines.suspension.spend(spec.id)
    machines.hypervisor.stop(spec.id, 0.0)
    assert [s.status for s in machines.suspension.states(spec.id)] == [StateStatus.SPENT]
    with pytest.raises(Conflict):
        machines.suspension.restore(spec, ignore)
    if machines.can.revert:
        machines.suspension.revert(spec.id)
        machines.resume(spec)
    else:
        with pytest.raises(Conflict, match="disk"):
            machines.suspension.revert(spec.id)
        machines.hypervisor.boot(spec)
    assert machines.state(spec) is BackendState.RUNNING


def test_a_restore_that_is_taken_back_leaves_the_state_whole(machines: Machines) -> None:
    spec = machines.suspended()
    machines.suspension.restore(spec, ignore)
    machines.suspension.revert(spec.id)
    machines.suspension.revert(spec.id)
    assert machines.state(spec) is BackendState.ABSENT
    assert [s.status for s in machines.suspension.states(spec.id)] == [StateStatus.WHOLE]
    machines.resume(spec)
    assert machines.state(spec) is BackendState.RUNNING


def test_a_reverted_guest_is_back_at_the_instant_of_its_state(machines: Machines) -> None:
    if not machines.can.revert:
        return  # that this is refused is shown above
    spec = machines.veteran()
    nonce = machines.nonce(spec.id)
    machines.hypervisor.pause(spec.id)
    machines.suspension.save(spec, ignore)
    machines.suspension.release(spec.id)
    machines.resume(spec)
    at_resume = machines.counter(spec.id)
    machines.let_run(10.0)
    ran_on = machines.counter(spec.id)
    machines.suspension.revert(spec.id)
    machines.suspension.revert(spec.id)
    assert machines.state(spec) is BackendState.ABSENT
    assert machines.suspension.states(spec.id)[0].status is StateStatus.WHOLE
    machines.resume(spec)
    assert machines.nonce(spec.id) == nonce
    assert machines.counter(spec.id) < (at_resume + ran_on) / 2


def test_settling_keeps_the_newest_state_only(machines: Machines) -> None:
    spec = machines.suspended()
    machines.resume(spec)
    machines.hypervisor.pause(spec.id)
    newest = machines.suspension.save(spec, ignore)
    kept = [2, 1] if machines.keeps_older else [2]
    assert [s.generation for s in machines.suspension.states(spec.id)] == kept
    machines.suspension.settle(spec.id)
    machines.suspension.settle(spec.id)
    assert list(machines.suspension.states(spec.id)) == [newest]
    machines.suspension.release(spec.id)
    machines.resume(spec)
    assert machines.state(spec) is BackendState.RUNNING


def test_a_second_save_that_is_taken_back_leaves_the_first_state_spent(machines: Machines) -> None:
    spec = machines.suspended()
    machines.resume(spec)
    machines.hypervisor.pause(spec.id)
    machines.suspension.save(spec, ignore)
    spent = [(1, StateStatus.SPENT)]
    if machines.can.keeps_process:
        machines.suspension.drop(spec.id)
    else:
        machines.resume(spec)
        spent = [(2, StateStatus.SPENT), *(spent if machines.keeps_older else [])]
    assert [(s.generation, s.status) for s in machines.suspension.states(spec.id)] == spent


def test_a_gang_is_paused_before_any_is_saved_and_restored_before_any_runs_on(machines: Machines) -> None:
    if not machines.can.gang_pause:
        return
    gang = [machines.started(), machines.started()]
    for spec in gang:
        machines.hypervisor.pause(spec.id)
    for spec in gang:
        machines.suspension.save(spec, ignore)
    for spec in gang:
        machines.suspension.release(spec.id)
    for spec in gang:
        machines.suspension.restore(spec, ignore)
    assert [machines.state(spec) for spec in gang] == [BackendState.PAUSED] * 2
    for spec in gang:
        machines.suspension.spend(spec.id)
        machines.hypervisor.run_on(spec.id)
    assert [machines.state(spec) for spec in gang] == [BackendState.RUNNING] * 2

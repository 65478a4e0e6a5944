"""The contract of `ports.Snapshots`, on real QEMU, on libvirt and on the fakes."""

import pytest
from tests.contract.conftest import Machines, ignore
from tests.vms import new_spec

from torpor.domain.errors import Conflict, InstanceGone, NotFound, Refused
from torpor.domain.instance import BackendState, InstanceSpec, StateStatus

# With QEMU a snapshot is always a stream: how states are saved makes no difference.
pytestmark = pytest.mark.parametrize("backend", ["fake", "fake-plain", "qemu", "libvirt"], indirect=True)


def kept(machines: Machines, spec: InstanceSpec) -> list[str]:
    return [s.name for s in machines.snapshots.list(spec.id)]


def test_a_guest_runs_on_and_can_be_taken_back_again_and_again(machines: Machines) -> None:
    spec = machines.veteran()
    nonce, before = machines.nonce(spec.id), machines.counter(spec.id)
    (snapshot,) = machines.snapshots.take([spec], "s1", ignore)
    assert machines.state(spec) is BackendState.RUNNING
    assert (snapshot.instance, snapshot.name) == (spec.id, "s1")
    assert snapshot.pause_seconds > 0
    assert snapshot.stored_bytes > 0 < snapshot.memory_bytes
    assert list(machines.snapshots.list(spec.id)) == [snapshot]
    after = machines.counter(spec.id)
    for _ in range(2):
        machines.let_run(10.0)
        later = machines.counter(spec.id)
        machines.hypervisor.stop(spec.id, 0.0)
        machines.snapshots.verify(spec.id, "s1", ignore)
        machines.snapshots.lay_down(spec, spec.id, "s1")
        machines.snapshots.lay_down(spec, spec.id, "s1")
        newest = machines.suspension.states(spec.id)[0]
        assert newest.status is StateStatus.WHOLE
        assert newest.origin is None
        machines.resume(spec)
        assert machines.nonce(spec.id) == nonce
        assert before <= machines.counter(spec.id) < (after + later) / 2
        machines.suspension.settle(spec.id)
    machines.snapshots.remove(spec.id, "s1")
    machines.snapshots.remove(spec.id, "s1")
    assert kept(machines, spec) == []


def test_a_clone_goes_on_from_the_snapshot_beside_its_original(machines: Machines) -> None:
    spec = machines.veteran()
    machines.snapshots.take([spec], "s1", ignore)
    clone = new_spec()
    if not machines.can.clones:
        with pytest.raises(Refused):
            machines.snapshots.lay_down(clone, spec.id, "s1")
        assert machines.state(clone) is BackendState.ABSENT
        machines.snapshots.remove(spec.id, "s1")
        return
    machines.snapshots.lay_down(clone, spec.id, "s1")
    (state,) = machines.suspension.states(clone.id)
    assert (state.instance, state.origin) == (clone.id, spec.id)
    machines.snapshots.remove(spec.id, "s1")
    machines.resume(clone)
    assert machines.state(clone) is machines.state(spec) is BackendState.RUNNING
    assert machines.nonce(clone.id) == machines.nonce(spec.id)
    machines.hypervisor.pause(clone.id)
    own = machines.suspension.save(clone, ignore)
    assert own.origin is None, "by now it is its own memory"
    machines.suspension.release(clone.id)
    machines.resume(clone)
    assert machines.nonce(clone.id) == machines.nonce(spec.id)


def test_a_state_of_its_own_is_given_up_for_a_snapshot(machines: Machines) -> None:
    spec = machines.started()
    machines.snapshots.take([spec], "s1", ignore)
    machines.hypervisor.pause(spec.id)
    machines.suspension.save(spec, ignore)
    machines.suspension.release(spec.id)
    machines.snapshots.lay_down(spec, spec.id, "s1")
    assert [s.generation for s in machines.suspension.states(spec.id)] == [2, 1]
    machines.suspension.settle(spec.id)
    machines.resume(spec)
    if machines.can.revert:
        machines.suspension.revert(spec.id)
        machines.resume(spec)
    assert machines.state(spec) is BackendState.RUNNING
    assert kept(machines, spec) == ["s1"]


def test_a_gang_is_kept_as_a_whole_or_not_at_all(machines: Machines) -> None:
    first, second = machines.started(), machines.started()
    machines.hypervisor.stop(second.id, 0.0)
    with pytest.raises(InstanceGone):
        machines.snapshots.take([first, second], "s1", ignore)
    assert kept(machines, first) == kept(machines, second) == []
    assert machines.state(first) is BackendState.RUNNING
    third = machines.started()
    taken = machines.snapshots.take([first, third], "s1", ignore)
    assert [s.instance for s in taken] == [first.id, third.id]
    with pytest.raises(Conflict):
        machines.snapshots.take([first], "s1", ignore)
    assert kept(machines, first) == ["s1"]


def test_what_stood_still_stands_still_afterwards(machines: Machines) -> None:
    spec = machines.started()
    machines.hypervisor.pause(spec.id)
    machines.snapshots.take([spec], "s1", ignore)
    assert machines.state(spec) is BackendState.PAUSED
    machines.hypervisor.run_on(spec.id)
    assert machines.state(spec) is BackendState.RUNNING


def test_what_can_not_be_done_is_refused(machines: Machines) -> None:
    spec = machines.started()
    machines.snapshots.take([spec], "s1", ignore)
    with pytest.raises(Conflict):
        machines.snapshots.lay_down(spec, spec.id, "s1")
    with pytest.raises(NotFound):
        machines.snapshots.verify(spec.id, "s2", ignore)
    machines.hypervisor.stop(spec.id, 0.0)
    with pytest.raises(NotFound):
        machines.snapshots.lay_down(spec, spec.id, "s2")
    with pytest.raises(InstanceGone):
        machines.snapshots.take([spec], "s2", ignore)

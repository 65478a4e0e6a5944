"""The contract of `ports.Hypervisor`, on real QEMU, on libvirt and on the fake."""

import pytest
from tests.contract.conftest import Machines

from torpor.domain.errors import InstanceGone
from torpor.domain.instance import BackendState


def test_a_booted_instance_runs_and_is_seen(machines: Machines) -> None:
    spec = machines.started()
    seen = machines.hypervisor.observe()[spec.id]
    assert seen.state is BackendState.RUNNING
    assert seen.pid is not None
    assert 0 <= seen.resident_bytes <= spec.flavor.memory_mb << 20
    assert seen.process_bytes > 0


def test_to_boot_again_changes_nothing(machines: Machines) -> None:
    spec = machines.started()
    pid = machines.pid(spec)
    machines.hypervisor.boot(spec)
    assert machines.pid(spec) == pid


def test_a_guest_stands_still_while_it_is_paused(machines: Machines) -> None:
    spec = machines.veteran()
    machines.hypervisor.pause(spec.id)
    assert machines.state(spec) is machines.still
    machines.hypervisor.pause(spec.id)
    machines.hypervisor.run_on(spec.id)
    before, nonce = machines.counter(spec.id), machines.nonce(spec.id)
    machines.hypervisor.pause(spec.id)
    machines.let_run(10.0)  # 50 counts of a guest that runs
    machines.hypervisor.run_on(spec.id)
    machines.hypervisor.run_on(spec.id)
    assert machines.state(spec) is BackendState.RUNNING
    assert before <= machines.counter(spec.id) < before + 40
    assert machines.nonce(spec.id) == nonce


def test_what_has_no_process_can_neither_be_paused_nor_run_on(machines: Machines) -> None:
    spec = machines.started()
    machines.hypervisor.stop(spec.id, 0.0)
    with pytest.raises(InstanceGone):
        machines.hypervisor.pause(spec.id)
    with pytest.raises(InstanceGone):
        machines.hypervisor.run_on(spec.id)


@pytest.mark.parametrize("grace", [0.0, 1.0])
def test_a_stopped_instance_is_absent_and_stays_so(machines: Machines, grace: float) -> None:
    spec = machines.started()
    machines.hypervisor.stop(spec.id, grace)
    assert machines.state(spec) is BackendState.ABSENT
    machines.hypervisor.stop(spec.id, grace)
    assert machines.state(spec) is BackendState.ABSENT


def test_a_stopped_instance_boots_anew(machines: Machines) -> None:
    spec = machines.veteran()
    nonce = machines.nonce(spec.id)
    machines.hypervisor.stop(spec.id, 0.0)
    machines.booted(spec)
    assert machines.nonce(spec.id) != nonce


def test_erasing_leaves_nothing_even_of_a_saved_state(machines: Machines) -> None:
    spec = machines.saved()
    machines.hypervisor.erase(spec.id)
    machines.hypervisor.erase(spec.id)
    assert machines.state(spec) is BackendState.ABSENT
    assert not machines.suspension.states(spec.id)


def test_instances_do_not_touch_each_other(machines: Machines) -> None:
    one, other = machines.started(), machines.started()
    machines.hypervisor.pause(one.id)
    assert (machines.state(one), machines.state(other)) == (machines.still, BackendState.RUNNING)
    machines.hypervisor.erase(one.id)
    assert one.id not in machines.hypervisor.observe()
    assert machines.state(other) is BackendState.RUNNING


def test_a_host_offers_something_and_claims_nothing(machines: Machines) -> None:
    host = machines.hypervisor.host()
    assert host.total.vcpus > 0 and host.total.memory_mb > 0 and host.total.disk_mb > 0
    assert host.used == type(host.used)()

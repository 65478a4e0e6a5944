"""The contract of `ports.Gangs`, on real QEMU, on libvirt and on the fake."""

import pytest
from tests.contract.conftest import Machines
from tests.vms import new_spec

from torpor.domain.errors import InstanceGone
from torpor.domain.instance import BackendState


def test_a_gang_stands_still_and_runs_on_as_one(machines: Machines) -> None:
    specs = [machines.started(), machines.started()]
    ids = [spec.id for spec in specs]
    skew = machines.gangs.pause(ids)
    assert skew is not None
    assert 0.0 <= skew < 5.0
    assert {machines.state(spec) for spec in specs} == {machines.still}
    again = machines.gangs.run_on(ids)
    assert again is not None
    assert again >= 0.0
    assert {machines.state(spec) for spec in specs} == {BackendState.RUNNING}


def test_the_skew_is_not_known_where_one_stood_still_before(machines: Machines) -> None:
    specs = [machines.started(), machines.started()]
    ids = [spec.id for spec in specs]
    machines.hypervisor.pause(ids[0])
    assert machines.gangs.pause(ids) is None
    assert machines.gangs.pause(ids) is None
    assert {machines.state(spec) for spec in specs} == {machines.still}
    machines.hypervisor.run_on(ids[1])
    assert machines.gangs.run_on(ids) is None
    assert {machines.state(spec) for spec in specs} == {BackendState.RUNNING}


def test_none_is_paused_where_one_has_no_process(machines: Machines) -> None:
    spec = machines.started()
    with pytest.raises(InstanceGone):
        machines.gangs.pause([spec.id, new_spec().id])
    assert machines.state(spec) is BackendState.RUNNING

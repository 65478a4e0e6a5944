"""The contract of `ports.StateStore`, on real QEMU (both mechanisms), on libvirt and on the fake."""

import stat
from pathlib import Path

import pytest
from tests.contract.conftest import Machines, ignore
from tests.vms import bench, new_spec

from torpor.domain.errors import Conflict, NotFound, Refused, StateDamaged
from torpor.domain.instance import InstanceSpec


def test_a_state_that_is_whole_is_read_to_its_end(machines: Machines) -> None:
    spec = machines.suspended()
    if not machines.keeps_older:
        with pytest.raises(Refused):
            machines.states.verify(spec.id, 1, ignore)
        return
    told: list[tuple[int, int]] = []
    machines.states.verify(spec.id, 1, lambda done, total: told.append((done, total)))
    assert told == sorted(told)
    assert told[-1][0] == told[-1][1] > 0
    assert not machines.states.mapped(spec.id)
    machines.hypervisor.erase(spec.id)


def test_a_flipped_bit_is_found_and_the_state_is_left_as_it_is(machines: Machines) -> None:
    if not machines.keeps_older:
        return  # nobody can read it: that is shown above
    spec = machines.suspended()
    machines.damage(spec.id)
    for _ in range(2):
        with pytest.raises(StateDamaged):
            machines.states.verify(spec.id, 1, ignore)
    assert len(machines.suspension.states(spec.id)) == 1
    machines.hypervisor.erase(spec.id)


def test_a_state_that_is_not_there_is_not_found(machines: Machines) -> None:
    spec = machines.suspended()
    with pytest.raises(NotFound):
        machines.states.verify(spec.id, 2, ignore)
    with pytest.raises(NotFound):
        machines.states.remove(spec.id, 2)
    with pytest.raises(NotFound):
        machines.states.verify(new_spec().id, 1, ignore)
    assert not machines.states.mapped(new_spec().id)
    machines.hypervisor.erase(spec.id)


def test_only_a_spent_state_can_be_removed(machines: Machines) -> None:
    spec = machines.suspended()
    with pytest.raises(Conflict):
        machines.states.remove(spec.id, 1)
    machines.resume(spec)
    machines.states.remove(spec.id, 1)
    if not machines.keeps_older:
        return  # it is gone as it is, and all that is left is that it was there
    assert list(machines.suspension.states(spec.id)) == []
    with pytest.raises(Conflict):
        machines.suspension.revert(spec.id)
    machines.hypervisor.pause(spec.id)
    assert machines.suspension.save(spec, ignore).generation == 1


def test_what_nobody_knows_and_nobody_runs_is_collected(machines: Machines) -> None:
    if not machines.keeps_older:
        return  # there are no files
    forgotten, known, running = machines.suspended(), machines.suspended(), machines.started()
    freed = machines.states.collect({known.id, *(spec.id for spec in machines.veterans)})
    assert freed > 0
    assert list(machines.suspension.states(forgotten.id)) == []
    assert len(machines.suspension.states(known.id)) == 1
    assert running.id in machines.hypervisor.observe()
    assert machines.states.collect({known.id, *(spec.id for spec in machines.veterans)}) == 0
    machines.hypervisor.erase(known.id)


def test_a_state_that_a_guest_runs_on_stays_until_it_is_suspended_again(lazy_machines: Machines) -> None:
    spec = lazy_machines.veteran()
    assert not lazy_machines.states.mapped(spec.id)
    sleep(lazy_machines, spec)
    lazy_machines.resume(spec)
    assert lazy_machines.states.mapped(spec.id)
    with pytest.raises(Conflict):
        lazy_machines.states.remove(spec.id, 1)
    lazy_machines.states.verify(spec.id, 1, ignore)
    sleep(lazy_machines, spec)
    assert not lazy_machines.states.mapped(spec.id)
    lazy_machines.states.remove(spec.id, 1)
    lazy_machines.states.verify(spec.id, 2, ignore)
    lazy_machines.resume(spec)


def test_damage_below_a_guest_that_runs_on_its_state_is_found(lazy_machines: Machines) -> None:
    spec = lazy_machines.veteran()
    sleep(lazy_machines, spec)
    lazy_machines.damage(spec.id)
    lazy_machines.suspension.restore(spec, ignore)
    with pytest.raises(StateDamaged):
        lazy_machines.states.verify(spec.id, lazy_machines.suspension.states(spec.id)[0].generation, ignore)
    lazy_machines.hypervisor.erase(spec.id)


def sleep(machines: Machines, spec: InstanceSpec) -> None:
    machines.hypervisor.pause(spec.id)
    machines.suspension.save(spec, ignore)
    machines.suspension.release(spec.id)


def test_files_of_a_state_are_roots_alone_and_leftovers_of_a_save_are_collected() -> None:
    with bench() as qemu:
        spec = new_spec()
        qemu.hypervisor.boot(spec)
        qemu.suspend(spec)
        folder = qemu.folder(spec.id).states
        modes = {str(path.relative_to(folder)): stat.S_IMODE(path.lstat().st_mode) for path in _below(folder)}
        assert {mode for name, mode in modes.items() if "/" in name} == {0o600}
        assert modes["1"] == modes["."] == 0o700
        assert {path.stat().st_uid for path in _below(folder)} == {0}
        left = folder / ".partial-2"
        left.mkdir()
        (left / "memory").write_bytes(b"x" * 100_000)
        assert qemu.backend.states.collect({spec.id}) >= 100_000
        assert not left.exists()
        qemu.backend.states.verify(spec.id, 1, lambda done, total: None)


def _below(folder: Path) -> list[Path]:
    return [folder, *folder.rglob("*")]

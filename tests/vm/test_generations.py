"""Suspended and restored again and again: deltas on a shared base, eagerly and lazily, codec by codec."""

import os
from collections.abc import Iterator
from contextlib import closing
from hashlib import sha256
from pathlib import Path

import pytest
from tests.vms import Bench, Packing, Restore, bench, ignore, new_spec

from torpor.adapters.qemu.origin import is_mapped
from torpor.domain.errors import StateDamaged
from torpor.domain.instance import BackendState, Codec, InstanceSpec, SavedState, StateStatus

WAYS: dict[str, tuple[Restore, Packing]] = {
    "eager": ("eager", "none"),
    "eager-zstd": ("eager", "zstd"),
    "lazy": ("lazy", "auto"),
}


@pytest.fixture(params=WAYS)
def qemu(request: pytest.FixtureRequest) -> Iterator[Bench]:
    restore, codec = WAYS[request.param]
    with bench(restore=restore, codec=codec) as made:
        yield made


@pytest.fixture(scope="module")
def lazy() -> Iterator[Bench]:
    with bench(restore="lazy") as made:
        yield made


@pytest.fixture(scope="module")
def guest(lazy: Bench) -> InstanceSpec:
    """A guest that is handed on: every test leaves it running, restored lazily."""
    spec = lazy.booted(new_spec())
    lazy.ask(spec.id, "fill 24")
    cycle(lazy, spec)
    return spec


def newest_part(qemu: Bench, spec: InstanceSpec, name: str) -> Path:
    return qemu.folder(spec.id).states / str(qemu.suspension.states(spec.id)[0].generation) / name


def cycle(qemu: Bench, spec: InstanceSpec) -> None:
    qemu.suspend(spec)
    qemu.suspension.settle(spec.id)
    qemu.resume(spec)


def room(qemu: Bench, spec: InstanceSpec) -> int:
    """Bytes on disk of all of its states, files that several share counted once."""
    found = {p.stat().st_ino: p.stat().st_blocks * 512 for p in qemu.folder(spec.id).states.rglob("*") if p.is_file()}
    return sum(found.values())


def mapped(qemu: Bench, spec: InstanceSpec) -> bool:
    return is_mapped(qemu.backend.vms.require(spec.id))


def digest(path: Path) -> str:
    return sha256(path.read_bytes()).hexdigest()


@pytest.mark.slow
def test_twenty_generations_keep_memory_and_disk_room(qemu: Bench) -> None:
    spec = qemu.booted(new_spec())
    filled = qemu.ask(spec.id, "fill 16")
    nonce = qemu.ask(spec.id, "status")["nonce"]
    rooms = []
    for _ in range(20):
        cycle(qemu, spec)
        rooms.append(room(qemu, spec))
    assert qemu.ask(spec.id, "verify") == {"ok": True, "expected": filled["fill_sum"], "found": filled["fill_sum"]}
    assert qemu.ask(spec.id, "status")["nonce"] == nonce
    assert max(rooms) < 2 * rooms[0], rooms
    (newest,) = qemu.suspension.states(spec.id)
    assert newest.generation == 20
    assert newest.stored_bytes == pytest.approx(rooms[-1], rel=0.01)


@pytest.mark.slow
@pytest.mark.parametrize(("restore", "codec"), [("eager", "none"), ("lazy", "auto")])
def test_a_later_suspension_writes_what_changed_and_all_where_that_is_much(restore: Restore, codec: Packing) -> None:
    with bench(restore=restore, codec=codec) as qemu:
        spec = qemu.booted(new_spec(memory_mb=256))
        states: list[SavedState] = []
        for turn in range(4):
            if turn == 2:
                qemu.ask(spec.id, "fill 100")
            cycle(qemu, spec)
            states += qemu.suspension.states(spec.id)
        first, second, third, fourth = states
        assert [s.base for s in states] == [None, 1, None, 3]
        assert {s.codec for s in states} == {first.codec}
        assert second.written_bytes < first.written_bytes / 4
        assert third.memory_bytes > first.memory_bytes + (60 << 20)
        assert fourth.written_bytes < third.written_bytes / 4
        assert qemu.ask(spec.id, "verify")["ok"]


def test_the_older_state_is_whole_until_the_new_one_is(lazy: Bench, guest: InstanceSpec) -> None:
    (old,) = lazy.suspension.states(guest.id)
    folder = lazy.folder(guest.id).states / str(old.generation)
    before = {p.name: digest(p) for p in folder.iterdir()}
    lazy.hypervisor.pause(guest.id)
    lazy.suspension.save(guest, ignore)
    assert [s.status for s in lazy.suspension.states(guest.id)] == [StateStatus.WHOLE, StateStatus.SPENT]
    assert {p.name: digest(p) for p in folder.iterdir()} == before
    lazy.suspension.drop(guest.id)
    lazy.hypervisor.run_on(guest.id)
    assert [s.generation for s in lazy.suspension.states(guest.id)] == [old.generation]
    cycle(lazy, guest)
    assert lazy.ask(guest.id, "verify")["ok"]


def test_a_lazily_restored_guest_reads_its_memory_from_the_state_and_never_writes_it(
    lazy: Bench, guest: InstanceSpec
) -> None:
    assert mapped(lazy, guest)
    base = lazy.suspension.states(guest.id)[0].base
    before = digest(newest_part(lazy, guest, "memory"))
    lazy.ask(guest.id, "fill 30")
    for _ in range(3):
        cycle(lazy, guest)
        assert lazy.ask(guest.id, "verify")["ok"]
    assert lazy.suspension.states(guest.id)[0].base == base
    assert digest(newest_part(lazy, guest, "memory")) == before


def test_a_damaged_delta_is_found_before_the_guest_runs(lazy: Bench, guest: InstanceSpec) -> None:
    lazy.suspend(guest)
    delta = newest_part(lazy, guest, "delta")
    flip(delta)
    with pytest.raises(StateDamaged) as caught:
        lazy.suspension.restore(guest, ignore)
    assert str(delta) in caught.value.detail
    assert lazy.state(guest.id) is BackendState.ABSENT
    flip(delta)
    lazy.resume(guest)
    assert lazy.ask(guest.id, "verify")["ok"]


def test_a_lazily_restored_guest_whose_base_is_damaged_is_saved_whole(lazy: Bench, guest: InstanceSpec) -> None:
    flip(newest_part(lazy, guest, "memory.index"))
    lazy.suspend(guest)
    newest = lazy.suspension.states(guest.id)[0]
    assert newest.base is None
    assert newest.codec is Codec.NONE
    lazy.suspension.settle(guest.id)
    lazy.resume(guest)
    assert lazy.ask(guest.id, "verify")["ok"]


def test_a_lazily_restored_guest_can_reboot_and_be_suspended_then(lazy: Bench, guest: InstanceSpec) -> None:
    nonce, pid = lazy.ask(guest.id, "status")["nonce"], lazy.pid(guest.id)
    lazy.ask(guest.id, "reboot")
    lazy.wait_for(lambda: lazy.wait_guest(guest.id)["nonce"] != nonce)
    assert lazy.pid(guest.id) == pid
    again = lazy.ask(guest.id, "status")["nonce"]
    cycle(lazy, guest)
    assert lazy.ask(guest.id, "status")["nonce"] == again


def test_a_guest_that_reports_free_pages_gives_them_back_and_is_never_restored_lazily() -> None:
    with bench(codec="none") as qemu:
        spec = qemu.booted(new_spec(memory_mb=256))
        qemu.ask(spec.id, "fill 96")
        full = qemu.hypervisor.observe()[spec.id].resident_bytes
        qemu.run_in(spec.id, "rm /run/torpor/fill")
        qemu.wait_for(lambda: qemu.hypervisor.observe()[spec.id].resident_bytes < full - (48 << 20))
        qemu.backend.vms.monitors.forget(qemu.folder(spec.id).qmp_socket)  # a monitor talks to one at a time
        lazy = qemu.told("lazy", "auto")
        with closing(lazy.backend):
            lazy.suspend(spec)
            (state,) = lazy.suspension.states(spec.id)
            assert state.memory_bytes < full - (48 << 20)
            lazy.resume(spec)
            assert not mapped(lazy, spec), "else QEMU would punch free pages out of the state"
            assert lazy.ask(spec.id, "status")["ok"]


def flip(path: Path) -> None:
    with path.open("r+b") as file:
        byte = file.read(1)[0]
        os.pwrite(file.fileno(), bytes([byte ^ 64]), 0)

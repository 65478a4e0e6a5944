"""Suspended and restored again and again: deltas on a shared base, eagerly and lazily, codec by codec."""

import os
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest
from tests.vms import Bench, Packing, Restore, bench, ignore, new_spec

from torpor.adapters.qemu.origin import is_mapped
from torpor.domain.errors import StateDamaged
from torpor.domain.instance import BackendState, Codec, InstanceSpec, StateStatus

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


@pytest.fixture
def lazy() -> Iterator[Bench]:
    with bench(restore="lazy") as made:
        yield made


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


def test_a_later_suspension_writes_what_changed_and_all_where_that_is_much(qemu: Bench) -> None:
    spec = qemu.booted(new_spec(memory_mb=256))
    states = []
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


def test_the_older_state_is_whole_until_the_new_one_is(qemu: Bench) -> None:
    spec = qemu.booted(new_spec())
    cycle(qemu, spec)
    before = {p.name: digest(p) for p in (qemu.folder(spec.id).states / "1").iterdir()}
    qemu.hypervisor.pause(spec.id)
    qemu.suspension.save(spec, ignore)
    assert [s.status for s in qemu.suspension.states(spec.id)] == [StateStatus.WHOLE, StateStatus.SPENT]
    assert {p.name: digest(p) for p in (qemu.folder(spec.id).states / "1").iterdir()} == before
    qemu.suspension.drop(spec.id)
    qemu.hypervisor.run_on(spec.id)
    assert [s.generation for s in qemu.suspension.states(spec.id)] == [1]
    cycle(qemu, spec)
    assert qemu.ask(spec.id, "status")["ok"]


def test_a_lazily_restored_guest_reads_its_memory_from_the_state_and_never_writes_it(lazy: Bench) -> None:
    spec = lazy.booted(new_spec())
    lazy.ask(spec.id, "fill 24")
    cycle(lazy, spec)
    assert mapped(lazy, spec)
    memory = lazy.folder(spec.id).states / "1" / "memory"
    before = digest(memory)
    lazy.ask(spec.id, "fill 30")
    for _ in range(3):
        cycle(lazy, spec)
        assert lazy.ask(spec.id, "verify")["ok"]
    (newest,) = lazy.suspension.states(spec.id)
    assert newest.base == 1
    assert digest(lazy.folder(spec.id).states / str(newest.generation) / "memory") == before


def test_a_lazily_restored_guest_can_reboot_and_be_suspended_then(lazy: Bench) -> None:
    spec = lazy.booted(new_spec())
    cycle(lazy, spec)
    nonce = lazy.ask(spec.id, "status")["nonce"]
    pid = lazy.pid(spec.id)
    lazy.ask(spec.id, "reboot")
    lazy.wait_for(lambda: lazy.wait_guest(spec.id)["nonce"] != nonce)
    assert lazy.pid(spec.id) == pid
    again = lazy.ask(spec.id, "status")["nonce"]
    cycle(lazy, spec)
    assert lazy.ask(spec.id, "status")["nonce"] == again


def test_a_guest_that_reports_free_pages_is_restored_eagerly(lazy: Bench) -> None:
    eager = lazy.told("eager", "none")
    spec = eager.booted(new_spec())
    eager.ask(spec.id, "fill 16")
    eager.backend.close()  # a monitor talks to one at a time
    lazy.suspend(spec)
    lazy.resume(spec)
    assert not mapped(lazy, spec), "else QEMU would punch free pages out of the state"
    assert lazy.ask(spec.id, "verify")["ok"]


def test_memory_that_the_guest_freed_is_given_back_and_not_saved() -> None:
    with bench() as qemu:
        spec = qemu.booted(new_spec(memory_mb=256))
        qemu.ask(spec.id, "fill 96")
        full = qemu.hypervisor.observe()[spec.id].resident_bytes
        qemu.run_in(spec.id, "rm /run/torpor/fill")
        qemu.wait_for(lambda: qemu.hypervisor.observe()[spec.id].resident_bytes < full - (48 << 20))
        qemu.suspend(spec)
        (state,) = qemu.suspension.states(spec.id)
        assert state.memory_bytes < full - (48 << 20)
        qemu.resume(spec)
        assert qemu.ask(spec.id, "status")["ok"]


def test_a_damaged_delta_is_found_before_the_guest_runs(lazy: Bench) -> None:
    spec = lazy.booted(new_spec())
    cycle(lazy, spec)
    lazy.suspend(spec)
    delta = lazy.folder(spec.id).states / "2" / "delta"
    with delta.open("r+b") as file:
        byte = file.read(1)[0]
        os.pwrite(file.fileno(), bytes([byte ^ 64]), 0)
    with pytest.raises(StateDamaged) as caught:
        lazy.suspension.restore(spec, ignore)
    assert str(delta) in caught.value.detail
    assert lazy.state(spec.id) is BackendState.ABSENT


def test_a_lazily_restored_guest_whose_base_is_gone_is_saved_whole(lazy: Bench) -> None:
    spec = lazy.booted(new_spec())
    filled = lazy.ask(spec.id, "fill 16")
    cycle(lazy, spec)
    index = lazy.folder(spec.id).states / "1" / "memory.index"
    index.write_bytes(index.read_bytes()[:-1])
    lazy.suspend(spec)
    newest = lazy.suspension.states(spec.id)[0]
    assert newest.base is None
    assert newest.codec is Codec.NONE
    lazy.resume(spec)
    assert lazy.ask(spec.id, "verify")["found"] == filled["fill_sum"]

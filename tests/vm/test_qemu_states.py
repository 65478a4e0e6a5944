"""Saved states of real guests, where things go wrong: damage, a full disk, a QEMU that dies."""

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest
from tests.vms import Bench, bench, ignore, new_spec

from torpor.adapters.qemu.command_line import Incoming
from torpor.domain.errors import (
    BackendFailed,
    Conflict,
    InstanceGone,
    NoRoomForState,
    StateDamaged,
    TorporError,
)
from torpor.domain.instance import BackendState, InstanceSpec, Mechanism, StateStatus
from torpor.domain.workload import Flavor


@pytest.fixture(params=[None, Mechanism.STREAM], ids=["memory", "stream"])
def qemu(request: pytest.FixtureRequest) -> Iterator[Bench]:
    with bench(mechanism=request.param) as made:
        yield made


def paused(qemu: Bench) -> InstanceSpec:
    spec = new_spec()
    qemu.hypervisor.boot(spec)
    qemu.hypervisor.pause(spec.id)
    return spec


def suspended(qemu: Bench) -> InstanceSpec:
    spec = paused(qemu)
    qemu.suspension.save(spec, ignore)
    qemu.suspension.release(spec.id)
    return spec


def part(qemu: Bench, spec: InstanceSpec, name: str) -> Path:
    folder = qemu.folder(spec.id).states / "1"
    return folder / (name if (folder / name).exists() else "stream")


def flip(path: Path, at: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)
        file.seek(at)
        file.write(bytes([byte[0] ^ 1]))


def contents(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): sha256(p.read_bytes()).hexdigest() for p in folder.rglob("*") if p.is_file()}


def first_data(path: Path) -> int:
    """Where the file's first bytes lie that are no hole."""
    with path.open("rb") as file:
        return os.lseek(file.fileno(), 0, os.SEEK_DATA)


@pytest.mark.parametrize("name", ["memory", "device", "manifest.json"])
def test_a_flipped_byte_is_found_and_the_state_stays_as_it_is(qemu: Bench, name: str) -> None:
    spec = suspended(qemu)
    damaged = part(qemu, spec, name)
    at = first_data(damaged) + 100
    flip(damaged, at)
    before = contents(qemu.folder(spec.id).states)
    with pytest.raises(StateDamaged) as caught:
        qemu.suspension.restore(spec, ignore)
    assert str(damaged) in caught.value.detail
    assert qemu.state(spec.id) is BackendState.ABSENT
    assert contents(qemu.folder(spec.id).states) == before
    assert [s.status for s in qemu.suspension.states(spec.id)] == [StateStatus.WHOLE]
    flip(damaged, at)
    qemu.resume(spec)
    assert qemu.state(spec.id) is BackendState.RUNNING


def test_a_state_that_was_cut_short_is_found(qemu: Bench) -> None:
    spec = suspended(qemu)
    short = part(qemu, spec, "memory")
    os.truncate(short, short.stat().st_size - 4096)
    with pytest.raises(StateDamaged):
        qemu.suspension.restore(spec, ignore)
    assert qemu.state(spec.id) is BackendState.ABSENT


def test_a_state_is_not_loaded_into_another_machine(qemu: Bench) -> None:
    spec = suspended(qemu)
    with pytest.raises(StateDamaged) as caught:
        qemu.suspension.restore(replace(spec, flavor=Flavor(1, 256)), ignore)
    assert "256M" in caught.value.detail
    assert qemu.state(spec.id) is BackendState.ABSENT
    qemu.resume(spec)
    assert qemu.state(spec.id) is BackendState.RUNNING


@contextmanager
def small_disk(folder: Path, size_mb: int) -> Iterator[Path]:
    """A file system of its own; it is gone afterwards."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size_mb}m,mode=0711", "small", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.fixture(params=[None, Mechanism.STREAM], ids=["memory", "stream"])
def on_small_disk(request: pytest.FixtureRequest) -> Iterator[Bench]:
    name = f"/var/tmp/small-{os.getpid()}-{request.param or 'memory'}"
    with small_disk(Path(name), 200) as folder, bench(folder, request.param) as made:
        yield made
    Path(name).rmdir()


def fill_up(folder: Path) -> Path:
    """Leave no room on the file system."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
        while True:
            file.write(bytes(1 << 16))
    return filler


def once(act: Callable[[], object]) -> Callable[[int, int], None]:
    """Progress at whose first word something happens."""
    happened: list[bool] = []

    def progress(done: int, total: int) -> None:
        if not happened:
            happened.append(True)
            act()

    return progress


def assert_still_paused_and_able_to_run_on(qemu: Bench, spec: InstanceSpec) -> None:
    assert not list(qemu.folder(spec.id).states.iterdir())
    assert not qemu.suspension.states(spec.id)
    assert qemu.state(spec.id) is BackendState.PAUSED
    qemu.suspension.drop(spec.id)
    qemu.hypervisor.run_on(spec.id)
    assert qemu.state(spec.id) is BackendState.RUNNING


def booted_far_enough(qemu: Bench) -> InstanceSpec:
    """A paused guest with more in its memory than a few writes take."""
    spec = qemu.booted(new_spec(memory_mb=96))
    qemu.hypervisor.pause(spec.id)
    return spec


def test_a_disk_that_fills_up_while_saving_leaves_the_guest_paused_and_nothing_else(on_small_disk: Bench) -> None:
    qemu = on_small_disk
    spec = booted_far_enough(qemu)
    with pytest.raises(NoRoomForState) as caught:
        qemu.suspension.save(spec, once(lambda: fill_up(qemu.settings.state_dir)))
    assert "full" in str(caught.value)
    assert_still_paused_and_able_to_run_on(qemu, spec)


def test_a_disk_without_room_is_found_before_anything_is_written(on_small_disk: Bench) -> None:
    qemu = on_small_disk
    spec = booted_far_enough(qemu)
    fill_up(qemu.settings.state_dir)
    with pytest.raises(NoRoomForState):
        qemu.suspension.save(spec, ignore)
    assert_still_paused_and_able_to_run_on(qemu, spec)


def test_a_folder_that_can_not_be_written_is_named(qemu: Bench) -> None:
    spec = paused(qemu)
    states = qemu.folder(spec.id).states
    states.mkdir(mode=0o700)
    subprocess.run(["mount", "--bind", states, states], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", states], check=True)
        with pytest.raises(BackendFailed) as caught:
            qemu.suspension.save(spec, ignore)
        assert "Read-only" in caught.value.detail and str(states) in caught.value.detail
        assert qemu.state(spec.id) is BackendState.PAUSED
        qemu.hypervisor.run_on(spec.id)
        assert qemu.state(spec.id) is BackendState.RUNNING
    finally:
        subprocess.run(["umount", states], check=True)


def test_a_qemu_that_is_killed_while_saving_is_gone_and_leaves_no_state(qemu: Bench) -> None:
    spec = booted_far_enough(qemu)
    pid = qemu.pid(spec.id)
    assert pid is not None
    with pytest.raises(InstanceGone):
        qemu.suspension.save(spec, once(lambda: os.kill(pid, signal.SIGKILL)))
    assert not list(qemu.folder(spec.id).states.iterdir())
    assert qemu.state(spec.id) is BackendState.ABSENT


def test_a_qemu_that_is_killed_while_loading_leaves_the_state_whole(qemu: Bench) -> None:
    spec = suspended(qemu)

    def kill() -> None:
        pid = qemu.pid(spec.id)
        assert pid is not None
        os.kill(pid, signal.SIGKILL)

    with pytest.raises(TorporError):
        qemu.suspension.restore(spec, once(kill))
    assert [s.status for s in qemu.suspension.states(spec.id)] == [StateStatus.WHOLE]
    qemu.resume(spec)
    assert qemu.state(spec.id) is BackendState.RUNNING


def test_what_a_killed_daemon_left_half_written_goes_with_the_next_save(qemu: Bench) -> None:
    spec = paused(qemu)
    left = qemu.folder(spec.id).states / ".partial-1"
    left.mkdir(parents=True)
    (left / "memory").write_bytes(b"half")
    assert not qemu.suspension.states(spec.id)
    qemu.suspension.save(spec, ignore)
    assert [p.name for p in qemu.folder(spec.id).states.iterdir()] == ["1"]


def test_a_process_that_a_killed_daemon_left_half_loaded_is_replaced(qemu: Bench) -> None:
    spec = suspended(qemu)
    waiting = qemu.backend.vms.start(qemu.backend.vms.machine(spec), Incoming(bare=True))
    assert qemu.state(spec.id) is BackendState.LOADING
    with pytest.raises(Conflict):
        qemu.hypervisor.run_on(spec.id)
    qemu.suspension.restore(spec, ignore)
    assert not waiting.process.alive()
    assert qemu.state(spec.id) is BackendState.PAUSED


def test_an_instance_does_not_run_on_before_its_state_is_marked_spent(qemu: Bench) -> None:
    spec = suspended(qemu)
    with pytest.raises(Conflict):
        qemu.hypervisor.boot(spec)
    qemu.suspension.restore(spec, ignore)
    with pytest.raises(Conflict):
        qemu.hypervisor.run_on(spec.id)
    assert qemu.state(spec.id) is BackendState.PAUSED


def test_states_are_for_root_alone(qemu: Bench) -> None:
    spec = suspended(qemu)
    files = [p for p in qemu.folder(spec.id).states.rglob("*") if p.is_file()]
    assert files
    assert {p.stat().st_mode & 0o777 for p in files} == {0o600}
    assert {p.stat().st_uid for p in files} == {0}
    assert {p.parent.stat().st_mode & 0o777 for p in files} == {0o700}

"""Real QEMU processes: who they run as, what outlives the daemon, what a reboot finds, what the disk holds."""

import os
import pwd
import signal
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

import psutil
import pytest
from tests.installation import cached_image, wait_until
from tests.vms import USER, Bench, bench, ignore, new_spec

from torpor.adapters.images.store import ImageStore
from torpor.adapters.qemu import transfer
from torpor.adapters.qemu.qmp import DEFAULT_TIMEOUT
from torpor.adapters.qemu.state_store import QemuStateStore
from torpor.adapters.qemu.vms import Vm
from torpor.domain.errors import BackendFailed, Invalid, MissingPart
from torpor.domain.instance import BackendState, InstanceSpec, Mechanism, StateStatus
from torpor.ports import Disk, Kernel, Progress

DISK_BYTES = 64 << 20


class WithDisk:
    """The tiny guest, with an empty disk in the image."""

    def __init__(self, folder: Path) -> None:
        self.base = folder / "base.raw"
        with self.base.open("wb") as file:
            file.write(b"from the image".ljust(512, b"\0"))
            file.truncate(DISK_BYTES)
        self.base.chmod(0o444)
        kernel = ImageStore(cached_image("tiny").parent).boot("tiny")
        assert isinstance(kernel, Kernel)
        self._kernel = kernel

    def boot(self, name: str) -> Disk:
        return Disk(self.base, "raw", DISK_BYTES, self._kernel)


@pytest.fixture
def qemu() -> Iterator[Bench]:
    with bench() as made:
        yield made


@pytest.fixture(params=[None, Mechanism.STREAM], ids=["memory", "stream"])
def with_disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Bench, Path]]:
    images = WithDisk(tmp_path)
    with bench(mechanism=request.param, images=images) as made:
        yield made, images.base


def test_qemu_is_nobody_who_matters_and_belongs_to_nobody(qemu: Bench) -> None:
    spec = new_spec()
    qemu.hypervisor.boot(spec)
    process = psutil.Process(qemu.pid(spec.id))
    uids = process.uids()
    assert {uids.real, uids.effective, uids.saved} == {pwd.getpwnam(USER).pw_uid}
    assert process.gids().real != 0
    assert os.getsid(process.pid) == process.pid


def test_its_folder_is_open_to_nobody_else(qemu: Bench) -> None:
    spec = new_spec()
    qemu.hypervisor.boot(spec)
    folder = qemu.folder(spec.id)
    assert folder.run.stat().st_mode & 0o777 == 0o700
    assert folder.path.stat().st_mode & 0o777 == 0o711
    assert folder.spec.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("mechanism", [None, Mechanism.STREAM], ids=["memory", "stream"])
def test_a_restored_guest_can_reboot(mechanism: Mechanism | None) -> None:
    with bench(mechanism=mechanism) as qemu:
        spec = qemu.booted(new_spec())
        nonce = qemu.ask(spec.id, "status")["nonce"]
        qemu.suspend(spec)
        qemu.resume(spec)
        assert qemu.ask(spec.id, "status")["nonce"] == nonce
        qemu.run_in(spec.id, "torpor-guest reboot")
        wait_until(lambda: qemu.console(spec.id).count("guest ready") == 2, 120.0, "the guest boots anew")
        assert qemu.wait_guest(spec.id)["nonce"] != nonce


def test_a_guest_and_its_memory_are_found_by_the_next_daemon(qemu: Bench) -> None:
    spec = qemu.booted(new_spec())
    pid, nonce = qemu.pid(spec.id), qemu.ask(spec.id, "status")["nonce"]
    qemu.backend.close()
    successor = Bench(qemu.settings.state_dir)
    try:
        assert successor.pid(spec.id) == pid
        assert successor.hypervisor.observe()[spec.id].resident_bytes > 0
        successor.suspend(spec)
        successor.resume(spec)
        assert successor.ask(spec.id, "status")["nonce"] == nonce
    finally:
        successor.close()
        qemu.backend = Bench(qemu.settings.state_dir).backend


def test_a_guest_that_powers_itself_off_is_seen_so_and_boots_again(qemu: Bench) -> None:
    spec = qemu.booted(new_spec())
    qemu.run_in(spec.id, "torpor-guest poweroff")
    wait_until(lambda: qemu.state(spec.id) is BackendState.SHUT_OFF, 30.0, "the guest is off")
    qemu.hypervisor.boot(spec)
    assert qemu.state(spec.id) is BackendState.RUNNING


def test_a_guest_that_is_asked_politely_shuts_down_in_order(qemu: Bench) -> None:
    spec = qemu.booted(new_spec())
    process = psutil.Process(qemu.pid(spec.id))
    qemu.hypervisor.stop(spec.id, 60.0)
    assert not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    assert "power button pressed" in qemu.console(spec.id)
    assert "Power down" in qemu.console(spec.id)


def test_a_monitor_that_does_not_answer_keeps_nobody_waiting(qemu: Bench) -> None:
    spec, other = new_spec(), new_spec()
    qemu.hypervisor.boot(spec)
    qemu.hypervisor.boot(other)
    pid = qemu.pid(spec.id)
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    seen = qemu.hypervisor.observe()
    assert set(seen) == {spec.id, other.id}
    assert seen[other.id].state is BackendState.RUNNING
    qemu.hypervisor.stop(spec.id, 0.0)
    assert set(qemu.hypervisor.observe()) == {other.id}


def test_a_boot_that_fails_leaves_nothing(qemu: Bench, tmp_path: Path) -> None:
    class Broken:
        def boot(self, name: str) -> Kernel:
            return Kernel(tmp_path / "missing", tmp_path / "missing", "")

    broken = Bench(qemu.settings.state_dir, Broken())
    spec = new_spec()
    with pytest.raises(BackendFailed) as caught:
        broken.hypervisor.boot(spec)
    assert "could not open kernel file" in caught.value.detail
    assert not broken.hypervisor.observe()
    assert not broken.folder(spec.id).path.exists()
    broken.backend.close()


def test_a_user_who_is_not_there_is_named(tmp_path: Path) -> None:
    stranger = Bench(Path("/var/tmp/never-made"), user="nobody-has-this-name")
    with pytest.raises(MissingPart) as caught:
        stranger.hypervisor.boot(new_spec())
    assert "nobody-has-this-name" in str(caught.value)
    assert not Path("/var/tmp/never-made").exists()
    stranger.backend.close()


def read(qemu: Bench, spec: InstanceSpec) -> str:
    """What the guest's disk begins with, asked of the disk and not of the guest's cache."""
    return qemu.run_in(spec.id, "echo 3 >/proc/sys/vm/drop_caches; head -c 16 /dev/vda | tr -d '\\000'")


def write(qemu: Bench, spec: InstanceSpec, text: str) -> None:
    qemu.run_in(spec.id, f"printf '%-16s' '{text}' | dd of=/dev/vda conv=notrunc,fsync 2>/dev/null; sync")


def test_the_disk_is_of_the_same_instant_as_the_memory(with_disk: tuple[Bench, Path]) -> None:
    qemu, base = with_disk
    spec = qemu.booted(new_spec())
    image = sha256(base.read_bytes()).hexdigest()
    assert read(qemu, spec) == "from the image"
    write(qemu, spec, "before")
    qemu.suspend(spec)
    qemu.resume(spec)
    assert read(qemu, spec).strip() == "before"
    write(qemu, spec, "after")
    pid = qemu.pid(spec.id)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: qemu.state(spec.id) is BackendState.ABSENT, 10.0, "it is gone")
    qemu.suspension.revert(spec.id)
    qemu.resume(spec)
    assert read(qemu, spec).strip() == "before"
    write(qemu, spec, "later")
    qemu.suspend(spec)
    qemu.suspension.settle(spec.id)
    qemu.resume(spec)
    assert read(qemu, spec).strip() == "later"
    assert sha256(base.read_bytes()).hexdigest() == image


def test_a_dropped_save_keeps_no_disk_contents(with_disk: tuple[Bench, Path]) -> None:
    qemu, _ = with_disk
    spec = new_spec()
    qemu.hypervisor.boot(spec)
    for _ in range(2):
        qemu.hypervisor.pause(spec.id)
        qemu.suspension.save(spec, ignore)
        qemu.suspension.drop(spec.id)
        qemu.hypervisor.run_on(spec.id)
    qemu.suspend(spec)
    qemu.suspension.settle(spec.id)
    listing = subprocess.run(
        ["qemu-img", "snapshot", "-l", qemu.folder(spec.id).disk], capture_output=True, text=True, check=True
    )
    assert listing.stdout.count("torpor-") == 1
    assert [s.status for s in qemu.suspension.states(spec.id)] == [StateStatus.WHOLE]


def test_a_disk_smaller_than_the_image_is_refused(with_disk: tuple[Bench, Path]) -> None:
    qemu, _ = with_disk
    spec = new_spec(disk_mb=10)
    with pytest.raises(Invalid):
        qemu.hypervisor.boot(spec)
    assert not qemu.folder(spec.id).path.exists()


def test_the_self_test_passes_and_leaves_no_guest(qemu: Bench) -> None:
    told: list[str] = []
    found = qemu.backend.diagnostics.self_test(told.append)
    assert found.ok, found
    assert told
    assert not (qemu.settings.state_dir / "self-test").exists()
    assert all(check.ok for check in qemu.backend.diagnostics.checks())


def test_what_a_hanging_qemu_would_write_is_guessed(qemu: Bench) -> None:
    spec = new_spec()
    qemu.hypervisor.boot(spec)
    pid = qemu.pid(spec.id)
    assert pid is not None
    with stands_still(pid):
        assert QemuStateStore(qemu.backend.vms).to_write(spec.id) > 1 << 20


def test_who_does_not_wait_for_a_busy_qemu_leaves_the_monitor_to_who_does(qemu: Bench) -> None:
    """As the daemon looks at all guests while one of them takes up a snapshot and answers nobody."""
    spec = new_spec()
    qemu.hypervisor.boot(spec)
    vm = qemu.backend.vms.require(spec.id)
    with ThreadPoolExecutor(1) as pool, stands_still(vm.process.pid):
        patient = pool.submit(vm.status)
        assert qemu.state(spec.id) is not BackendState.ABSENT
        assert not patient.done()
        os.kill(vm.process.pid, signal.SIGCONT)
        assert patient.result() == "running"


@pytest.mark.slow
def test_a_qemu_that_loads_for_long_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Longer than what it answers at once may take: the 4 GB of a snapshot take that on slow memory."""
    told: list[tuple[int, int]] = []
    await_loaded = transfer._await_loaded

    def slowly(vm: Vm, fd: int, progress: Progress) -> None:
        with stands_still(vm.process.pid):
            threading.Timer(DEFAULT_TIMEOUT + 1, os.kill, (vm.process.pid, signal.SIGCONT)).start()
            await_loaded(vm, fd, progress)

    monkeypatch.setattr(transfer, "_await_loaded", slowly)
    with bench(mechanism=Mechanism.STREAM) as qemu:
        spec = qemu.booted(new_spec())
        nonce = qemu.ask(spec.id, "status")["nonce"]
        qemu.suspend(spec)
        qemu.suspension.restore(spec, lambda done, total: told.append((done, total)))
        assert told == sorted(told) and told[-1][0] > told[-1][1] // 2
        qemu.suspension.spend(spec.id)
        qemu.hypervisor.run_on(spec.id)
        assert qemu.ask(spec.id, "status")["nonce"] == nonce


@contextmanager
def stands_still(pid: int) -> Iterator[None]:
    """A process that gets no processor; it goes on in the end at the latest."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)

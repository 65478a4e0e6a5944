"""Live snapshots of real guests, where no fake has anything to say."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from tests.installation import ROOT
from tests.vms import Bench, bench, ignore, new_spec

from torpor.domain.errors import BackendFailed, StateDamaged
from torpor.domain.instance import BackendState, InstanceSpec


def files(qemu: Bench, spec: InstanceSpec) -> set[str]:
    folder = qemu.folder(spec.id).path
    return {str(f.relative_to(folder)) for f in folder.rglob("*")} - {"qemu.log", "console.log"}


def test_nothing_is_left_of_a_snapshot_whose_stream_breaks_off() -> None:
    """And the guest runs, and can be kept, suspended and resumed as before."""
    with bench() as qemu:
        spec = qemu.booted(new_spec())
        nonce, before = qemu.ask(spec.id, "status")["nonce"], files(qemu, spec)

        def break_off(done: int, total: int) -> None:
            raise BackendFailed("nobody wants to wait for it")

        with pytest.raises(BackendFailed, match="nobody"):
            qemu.backend.snapshots.take([spec], "s1", break_off)
        assert qemu.state(spec.id) is BackendState.RUNNING
        assert files(qemu, spec) - {"snapshots"} == before
        qemu.backend.snapshots.take([spec], "s1", ignore)
        stream = qemu.folder(spec.id).snapshots / "s1" / "stream"
        assert stat(stream) == 0o600
        assert stat(stream.parent) == stat(stream.parent.parent) == 0o700
        qemu.suspend(spec)
        qemu.resume(spec)
        assert qemu.ask(spec.id, "status")["nonce"] == nonce


def test_the_guests_processors_come_first_while_it_is_kept() -> None:
    with bench() as qemu:
        spec = qemu.booted(new_spec())
        seen = []
        qemu.backend.snapshots.take([spec], "s1", lambda done, total: seen.append(before_the_rest(qemu, spec)))
        assert seen and min(seen) > 0, "while the stream is written"
        assert before_the_rest(qemu, spec) == 0, "afterwards"


DAEMON = """
import os, sys
from pathlib import Path
from tests.installation import ROOT
from tests.vms import Bench, new_spec
from dataclasses import replace
from torpor.domain.ids import InstanceId
qemu = Bench(Path(sys.argv[1]))
spec = replace(new_spec(), id=InstanceId(sys.argv[2]))
qemu.backend.snapshots.take([spec], "s1", lambda done, total: os._exit(9))
"""


def test_a_guest_outlives_the_daemon_that_keeps_it() -> None:
    """Its stream is taken in to the end all the same; what is left of it goes at the next try."""
    with bench() as qemu:
        spec = qemu.booted(new_spec())
        nonce = qemu.ask(spec.id, "status")["nonce"]
        qemu.backend.vms.monitors.forget(qemu.folder(spec.id).qmp_socket)  # which serves one client at a time
        command = [sys.executable, "-c", DAEMON, str(qemu.settings.state_dir), spec.id]
        ended = subprocess.run(
            command, cwd=ROOT, env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT / 'script'}:{ROOT}"}, check=False
        )
        assert ended.returncode == 9
        assert qemu.ask(spec.id, "status")["nonce"] == nonce
        assert not qemu.backend.snapshots.list(spec.id)
        qemu.backend.snapshots.remove(spec.id, "s1")
        assert not list(qemu.folder(spec.id).snapshots.iterdir())
        assert before_the_rest(qemu, spec) == 0, "its processors are nobody's favourites any more"
        qemu.backend.snapshots.take([spec], "s1", ignore)
        assert qemu.ask(spec.id, "status")["nonce"] == nonce


def test_a_flipped_bit_of_a_snapshot_is_found_before_anything_is_given_up() -> None:
    with bench() as qemu:
        spec = new_spec()
        qemu.hypervisor.boot(spec)
        qemu.backend.snapshots.take([spec], "s1", ignore)
        stream = qemu.folder(spec.id).snapshots / "s1" / "stream"
        with stream.open("r+b") as file:
            file.seek(-4097, os.SEEK_END)
            byte = file.read(1)
            file.seek(-1, os.SEEK_CUR)
            file.write(bytes([byte[0] ^ 1]))
        with pytest.raises(StateDamaged):
            qemu.backend.snapshots.verify(spec.id, "s1", ignore)
        clone = replace(new_spec(), flavor=replace(spec.flavor, memory_mb=256))
        with pytest.raises(StateDamaged, match="does not fit"):
            qemu.backend.snapshots.lay_down(clone, spec.id, "s1")


def test_a_lazily_restored_guest_is_kept_too() -> None:
    with bench(restore="lazy", codec="none") as qemu:
        spec = qemu.booted(new_spec())
        nonce = qemu.ask(spec.id, "status")["nonce"]
        qemu.suspend(spec)
        qemu.resume(spec)
        assert qemu.backend.states.mapped(spec.id)
        qemu.backend.snapshots.take([spec], "s1", ignore)
        assert qemu.state(spec.id) is BackendState.RUNNING
        qemu.hypervisor.stop(spec.id, 0.0)
        qemu.backend.snapshots.lay_down(spec, spec.id, "s1")
        qemu.resume(spec)
        assert qemu.ask(spec.id, "status")["nonce"] == nonce


def before_the_rest(qemu: Bench, spec: InstanceSpec) -> int:
    """By how much the guest's processors are nicer to themselves than QEMU's other threads are."""
    vm = qemu.backend.vms.require(spec.id)
    (cpu,) = vm.execute("query-cpus-fast")
    niceness = (os.getpriority(os.PRIO_PROCESS, thread) for thread in (vm.process.pid, cpu["thread-id"]))
    rest, guest = niceness
    return rest - guest


def stat(path: Path) -> int:
    return path.stat().st_mode & 0o777

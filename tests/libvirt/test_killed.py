"""Death in the middle: of libvirtd, of whoever asked it, of QEMU. Nothing is lost, and what happened is said."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator

import pytest
from tests.installation import ROOT
from tests.libvirt_host import LibvirtBench, libvirt_bench
from tests.vms import ignore, new_spec

from torpor.domain.errors import BackendFailed, InstanceGone, MissingPart, TorporError
from torpor.domain.instance import BackendState, InstanceSpec, StateStatus

pytestmark = pytest.mark.slow

WHOLE, SPENT = StateStatus.WHOLE, StateStatus.SPENT
FILL_MB = 40

SAVER = """
import json, sys
from pathlib import Path
from torpor.adapters.libvirt import LibvirtSettings
from torpor.adapters.libvirt.backend import make_backend
from torpor.domain.ids import HostId, InstanceId
from torpor.domain.instance import InstanceSpec, NetworkConfig
from torpor.domain.workload import Flavor
given = json.loads(sys.argv[1])
id = InstanceId(given["id"])
settings = LibvirtSettings(Path(given["state_dir"]), HostId("local"), given["uri"], save_dir=Path(given["save_dir"]))
network = NetworkConfig("192.0.2.2", 24, "192.0.2.1", (), "test.internal")
spec = InstanceSpec(id, given["name"], "tiny", Flavor(1, 256), given["mac"], network)
make_backend(settings, None, None).suspension.save(spec, lambda done, total: None)
"""
"""A process that does nothing but save one instance."""


@pytest.fixture(scope="module")
def host() -> Iterator[LibvirtBench]:
    with libvirt_bench() as made:
        yield made


@pytest.fixture(scope="module")
def guest(host: LibvirtBench) -> InstanceSpec:
    """A guest with so much in memory that saving takes a moment."""
    spec = host.booted(new_spec(memory_mb=256))
    host.ask(spec.id, f"fill {FILL_MB}")
    return spec


@pytest.fixture
def paused(host: LibvirtBench, guest: InstanceSpec) -> InstanceSpec:
    assert host.wait_guest(guest.id)["fill_mb"] == FILL_MB
    host.hypervisor.pause(guest.id)
    return guest


def statuses(host: LibvirtBench, spec: InstanceSpec) -> list[StateStatus]:
    return [state.status for state in host.suspension.states(spec.id)]


def outcome(act: Callable[[], object]) -> tuple[threading.Thread, list[object]]:
    """Have it done in a thread; what became of it is put into the list."""
    results: list[object] = []

    def run() -> None:
        try:
            results.append(act())
        except TorporError as error:
            results.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, results


def being_written(host: LibvirtBench, spec: InstanceSpec) -> bool:
    image = host.image(spec.id)
    return image.is_there() and not image.is_whole() and image.path.stat().st_size > 1 << 20


def test_a_restart_of_libvirtd_is_not_noticed(host: LibvirtBench, guest: InstanceSpec) -> None:
    told = threading.Event()
    host.backend.connection.on_change(told.set)
    host.daemon.kill()
    host.daemon.start()
    assert host.hypervisor.observe()[guest.id].state is BackendState.RUNNING
    assert told.is_set()
    told.clear()
    host.hypervisor.pause(guest.id)
    assert told.wait(30), "events are listened to on the new connection, too"
    host.hypervisor.run_on(guest.id)


def test_without_libvirtd_the_remedy_is_said_and_nobody_counts_as_absent(
    host: LibvirtBench, guest: InstanceSpec
) -> None:
    host.hypervisor.observe()
    host.daemon.kill()
    for _ in range(2):
        with pytest.raises(MissingPart, match=r"start libvirtd .* or set libvirt\.uri"):
            host.hypervisor.observe()
    host.daemon.start()
    assert host.state(guest.id) is BackendState.RUNNING


def test_libvirtd_killed_while_it_saves_leaves_a_guest_that_can_run_on(
    host: LibvirtBench, paused: InstanceSpec
) -> None:
    saving, results = outcome(lambda: host.suspension.save(paused, ignore))
    host.wait_for(lambda: being_written(host, paused) or results)
    host.daemon.kill()
    host.daemon.start()
    saving.join()
    assert isinstance(results[0], BackendFailed)
    if host.state(paused.id) is BackendState.ABSENT:  # it was faster
        assert statuses(host, paused)[0] is WHOLE
        host.resume(paused)
    else:
        assert host.state(paused.id) is BackendState.PAUSED
        assert WHOLE not in statuses(host, paused)
        host.suspension.drop(paused.id)
        assert not host.image(paused.id).is_there()
        host.hypervisor.run_on(paused.id)
    assert host.wait_guest(paused.id)["fill_mb"] == FILL_MB
    host.suspend(paused)
    host.resume(paused)


def test_libvirtd_killed_while_it_restores_leaves_the_state_whole(host: LibvirtBench, paused: InstanceSpec) -> None:
    generation = host.suspension.save(paused, ignore).generation
    restoring, results = outcome(lambda: host.suspension.restore(paused, ignore))
    host.wait_for(lambda: host.state(paused.id) is not BackendState.ABSENT or results)
    host.daemon.kill()
    host.daemon.start()
    restoring.join()
    newest = host.suspension.states(paused.id)[0]
    assert (newest.generation, newest.status) == (generation, WHOLE)
    host.resume(paused)
    assert host.wait_guest(paused.id)["fill_mb"] == FILL_MB


def test_torpor_killed_while_it_saves_finds_the_state_when_it_is_back(host: LibvirtBench, paused: InstanceSpec) -> None:
    with saver(host, paused) as process:
        host.wait_for(lambda: being_written(host, paused) or process.poll() is not None)
        process.send_signal(signal.SIGKILL)
        process.wait()
    anew = host.told()
    saved = anew.suspension.save(paused, ignore)
    assert saved.status is WHOLE
    assert anew.state(paused.id) is BackendState.ABSENT
    assert [s.generation for s in anew.suspension.states(paused.id)][:1] == [saved.generation]
    anew.backend.states.verify(paused.id, saved.generation, ignore)
    anew.resume(paused)
    assert host.wait_guest(paused.id)["fill_mb"] == FILL_MB


def test_a_restored_guest_that_died_before_it_ran_keeps_its_state(host: LibvirtBench, paused: InstanceSpec) -> None:
    host.suspension.save(paused, ignore)
    host.suspension.restore(paused, ignore)
    pid = host.hypervisor.observe()[paused.id].pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    host.wait_for(lambda: host.state(paused.id) is BackendState.ABSENT)
    with pytest.raises(InstanceGone):
        host.suspension.spend(paused.id)
    assert statuses(host, paused)[0] is WHOLE
    host.resume(paused)
    assert host.wait_guest(paused.id)["fill_mb"] == FILL_MB


def test_a_guest_whose_qemu_was_killed_is_absent_not_shut_off(host: LibvirtBench) -> None:
    spec = new_spec()
    host.hypervisor.boot(spec)
    pid = host.hypervisor.observe()[spec.id].pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    host.wait_for(lambda: host.state(spec.id) is not BackendState.RUNNING)
    assert host.state(spec.id) is BackendState.ABSENT
    host.hypervisor.erase(spec.id)


def saver(host: LibvirtBench, spec: InstanceSpec) -> "subprocess.Popen[bytes]":
    given = {
        "id": spec.id,
        "name": spec.name,
        "mac": spec.mac,
        "uri": host.daemon.uri,
        "state_dir": str(host.settings.state_dir),
        "save_dir": str(host.settings.save_dir),
    }
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    return subprocess.Popen([sys.executable, "-c", SAVER, json.dumps(given)], env=environment)

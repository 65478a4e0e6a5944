"""Saved states of domains that others handle, too: with virsh, virt-manager, or whatever they have."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.libvirt_host import LibvirtBench, libvirt_bench
from tests.vms import ignore, new_spec

from torpor.adapters.libvirt.domain_xml import NAMESPACE, PREFIX, mark_element
from torpor.domain.adoption import Mark
from torpor.domain.errors import Conflict, InstanceGone, NoRoomForState, StateDamaged, TimedOut, TorporError
from torpor.domain.instance import BackendState, InstanceSpec, StateStatus

pytestmark = pytest.mark.slow

WHOLE, SPENT = StateStatus.WHOLE, StateStatus.SPENT


@pytest.fixture(scope="module")
def host() -> Iterator[LibvirtBench]:
    with libvirt_bench() as made:
        yield made


@pytest.fixture(scope="module")
def veteran(host: LibvirtBench) -> InstanceSpec:
    return host.booted(new_spec())


@pytest.fixture
def running(host: LibvirtBench, veteran: InstanceSpec) -> InstanceSpec:
    """An instance that runs, and whose guest answers."""
    if host.state(veteran.id) is not BackendState.RUNNING:
        host.hypervisor.erase(veteran.id)
        host.booted(veteran)
    return veteran


@pytest.fixture
def started(host: LibvirtBench) -> Iterator[InstanceSpec]:
    """An instance of its own for the test; its guest may still be booting."""
    spec = new_spec()
    host.hypervisor.boot(spec)
    yield spec
    tell(host, spec, "made")
    host.hypervisor.erase(spec.id)


def statuses(host: LibvirtBench, spec: InstanceSpec) -> list[StateStatus]:
    return [state.status for state in host.suspension.states(spec.id)]


def tell(host: LibvirtBench, spec: InstanceSpec, what: str) -> None:
    """Mark the domain with virsh as `made`, as `adopted`, or as nobody's (`unmarked`)."""
    said = {
        "made": ["--set", '<workload name="w" made="yes"/>'],
        "adopted": ["--set", mark_element(Mark("w"))],
        "unmarked": ["--remove"],
    }
    places = ("--live", "--config") if host.domain(spec.id).isActive() else ("--config",)
    for place in places:
        host.daemon.virsh("metadata", spec.name, NAMESPACE, "--key", PREFIX, place, *said[what])


def test_what_torpor_saved_runs_again_with_plain_virsh(host: LibvirtBench, running: InstanceSpec) -> None:
    nonce = host.ask(running.id, "status")["nonce"]
    host.suspend(running)
    host.daemon.virsh("start", running.name)
    assert host.state(running.id) is BackendState.RUNNING
    assert host.ask(running.id, "status")["nonce"] == nonce
    assert statuses(host, running)[0] is SPENT
    host.suspension.restore(running, ignore)
    host.suspend(running)
    assert statuses(host, running)[:2] == [WHOLE, SPENT]
    host.resume(running)
    assert host.ask(running.id, "status")["nonce"] == nonce


def test_what_virsh_saved_is_a_state_like_any_other(host: LibvirtBench, running: InstanceSpec) -> None:
    nonce = host.ask(running.id, "status")["nonce"]
    host.suspension.settle(running.id)
    host.daemon.virsh("managedsave", running.name)
    assert host.state(running.id) is BackendState.ABSENT
    newest = host.suspension.states(running.id)[0]
    assert newest.status is WHOLE
    assert newest.stored_bytes > 0
    host.backend.states.verify(running.id, newest.generation, ignore)
    assert host.suspension.save(running, ignore).generation == newest.generation
    host.resume(running)
    assert host.ask(running.id, "status")["nonce"] == nonce
    assert host.suspension.states(running.id)[0].generation == newest.generation
    assert statuses(host, running)[0] is SPENT


def test_an_image_that_others_let_run_and_left_there_is_not_taken_for_the_guests_state(
    host: LibvirtBench, running: InstanceSpec
) -> None:
    host.suspend(running)
    host.daemon.virsh("restore", str(host.image(running.id).path))
    assert host.image(running.id).is_there()
    before = host.ask(running.id, "status")["counter"]
    host.hypervisor.pause(running.id)
    for refused in (host.suspension.release, host.suspension.revert):
        with pytest.raises(Conflict):
            refused(running.id)
    host.suspension.save(running, ignore)
    host.resume(running)
    assert host.ask(running.id, "status")["counter"] >= before


def test_an_image_that_others_removed_is_a_spent_state(host: LibvirtBench, started: InstanceSpec) -> None:
    host.suspend(started)
    host.daemon.virsh("managedsave-remove", started.name)
    assert statuses(host, started) == [SPENT]
    with pytest.raises(Conflict):
        host.suspension.restore(started, ignore)
    host.hypervisor.boot(started)
    assert host.state(started.id) is BackendState.RUNNING


def test_a_cut_image_is_refused_and_left_as_it_is(host: LibvirtBench, started: InstanceSpec) -> None:
    host.daemon.virsh("managedsave", started.name)
    image = host.image(started.id)
    host.backend.states.verify(started.id, 1, ignore)
    host.suspension.save(started, ignore)
    whole = image.path.read_bytes()
    damaged = bytearray(whole)
    damaged[len(whole) // 2] ^= 1
    with image.path.open("r+b") as opened:
        opened.write(damaged)
    with pytest.raises(StateDamaged):
        host.suspension.restore(started, ignore)
    assert image.path.read_bytes() == damaged
    assert host.state(started.id) is BackendState.ABSENT
    image.path.unlink()
    image.path.write_bytes(whole)  # as from a backup
    host.resume(started)
    assert host.state(started.id) is BackendState.RUNNING


def test_a_domain_that_was_undefined_is_gone_and_its_folder_is_collected(host: LibvirtBench) -> None:
    spec = new_spec()
    host.hypervisor.boot(spec)
    host.suspend(spec)
    host.daemon.virsh("undefine", "--managed-save", spec.name)
    assert host.state(spec.id) is BackendState.ABSENT
    assert not host.suspension.states(spec.id)
    with pytest.raises(InstanceGone):
        host.hypervisor.pause(spec.id)
    with pytest.raises(InstanceGone):
        host.suspension.save(spec, ignore)
    with pytest.raises(Conflict):
        host.suspension.restore(spec, ignore)
    assert host.backend.states.collect(set()) > 0
    assert not host.folder(spec.id).path.exists()


@pytest.mark.parametrize("how", ["destroy", "shutdown in the guest"])
def test_a_domain_that_was_shut_off_is_seen_as_that_until_it_starts_again(
    host: LibvirtBench, running: InstanceSpec, how: str
) -> None:
    if how == "destroy":
        host.daemon.virsh("destroy", running.name)
    else:
        host.run_in(running.id, "(sleep 0.2; poweroff -f) >/dev/null 2>&1 &")
    host.wait_for(lambda: host.state(running.id) is BackendState.SHUT_OFF)
    seen = host.hypervisor.observe()[running.id]
    assert (seen.pid, seen.resident_bytes) == (None, 0)
    host.hypervisor.stop(running.id, 0.0)
    assert host.state(running.id) is BackendState.ABSENT, "it was stopped here, so nobody else's doing is told"
    host.booted(running)


def test_what_carries_no_mark_is_never_touched(host: LibvirtBench, started: InstanceSpec) -> None:
    before = host.hypervisor.host().total
    tell(host, started, "unmarked")
    assert started.id not in host.hypervisor.observe()
    after = host.hypervisor.host().total
    assert before.vcpus - after.vcpus == started.flavor.vcpus
    assert before.memory_mb - after.memory_mb == started.flavor.memory_mb
    assert list(host.suspension.states(started.id)) == []
    assert host.backend.states.to_write(started.id) == 0
    acts: tuple[Callable[[], object], ...] = (
        lambda: host.hypervisor.boot(started),
        lambda: host.hypervisor.pause(started.id),
        lambda: host.hypervisor.run_on(started.id),
        lambda: host.hypervisor.stop(started.id, 0.0),
        lambda: host.hypervisor.erase(started.id),
        lambda: host.backend.gangs.pause([started.id]),
        lambda: host.suspension.save(started, ignore),
        lambda: host.suspension.release(started.id),
        lambda: host.suspension.restore(started, ignore),
        lambda: host.suspension.spend(started.id),
        lambda: host.suspension.revert(started.id),
        lambda: host.suspension.drop(started.id),
    )
    for act in acts:
        with pytest.raises(Conflict, match="mark"):
            act()
    assert host.daemon.virsh("domstate", started.name).strip() == "running"


def test_what_others_have_made_is_suspended_and_brought_back_but_not_erased(
    host: LibvirtBench, started: InstanceSpec
) -> None:
    tell(host, started, "adopted")
    host.suspend(started)
    host.resume(started)
    assert host.state(started.id) is BackendState.RUNNING
    with pytest.raises(Conflict, match="not made by Torpor"):
        host.hypervisor.erase(started.id)
    assert host.state(started.id) is BackendState.RUNNING
    host.hypervisor.stop(started.id, 0.0)
    with pytest.raises(Conflict):
        host.hypervisor.erase(started.id)
    assert host.daemon.virsh("domstate", started.name).strip() == "shut off"
    host.hypervisor.boot(started)
    assert host.state(started.id) is BackendState.RUNNING


def test_a_mark_that_changed_while_it_was_suspended_stays_changed(host: LibvirtBench, started: InstanceSpec) -> None:
    tell(host, started, "adopted")
    host.suspend(started)
    changed = mark_element(Mark("other", 7))
    host.daemon.virsh("metadata", started.name, NAMESPACE, "--key", PREFIX, "--config", "--set", changed)
    host.resume(started)
    vm = host.backend.domains.find(started.id)
    assert vm and vm.tag.mark == Mark("other", 7)


def test_a_name_that_is_taken_is_refused_and_nothing_is_left(host: LibvirtBench, started: InstanceSpec) -> None:
    other = replace(new_spec(), name=started.name)
    with pytest.raises(Conflict, match="another domain of that name"):
        host.hypervisor.boot(other)
    assert not host.folder(other.id).path.exists()
    assert host.state(started.id) is BackendState.RUNNING


def test_without_room_nothing_is_begun(host: LibvirtBench, started: InstanceSpec, tmp_path: Path) -> None:
    host.hypervisor.pause(started.id)
    small = host.told(save_dir=Path("/sys/fs"))  # where nothing is free
    with pytest.raises(NoRoomForState):
        small.suspension.save(started, ignore)
    nowhere = host.told(save_dir=tmp_path / "nowhere")
    with pytest.raises(TorporError, match=r"set libvirt\.save_dir"):
        nowhere.suspension.save(started, ignore)
    assert host.state(started.id) is BackendState.PAUSED


def test_a_save_that_takes_too_long_is_called_off_and_the_guest_is_still_paused(host: LibvirtBench) -> None:
    spec = host.booted(new_spec(memory_mb=256))
    host.ask(spec.id, "fill 100")
    host.hypervisor.pause(spec.id)
    hasty = host.told(save_timeout=0.0)
    with pytest.raises(TimedOut, match="called off"):
        hasty.suspension.save(spec, ignore)
    assert host.state(spec.id) is BackendState.PAUSED
    assert not host.suspension.states(spec.id)
    assert not host.image(spec.id).is_there()
    host.hypervisor.run_on(spec.id)
    host.suspend(spec)
    host.resume(spec)
    assert host.ask(spec.id, "status")["fill_mb"] == 100
    host.hypervisor.erase(spec.id)

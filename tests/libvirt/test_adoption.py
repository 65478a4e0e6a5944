"""Marks on a real libvirtd: whoever wrote them, and what becomes of VMs that have none."""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import pytest
from tests.libvirt_host import LibvirtBench, libvirt_bench
from tests.owner import VirshOwner
from tests.vms import ignore, new_spec

from torpor.adapters.guest.guest import AgentGuest, Ethernet
from torpor.adapters.libvirt.adoption import LibvirtAdoption
from torpor.adapters.libvirt.agent import through_libvirt
from torpor.adapters.libvirt.guest import LibvirtGuest
from torpor.domain.adoption import Mark, Stranger
from torpor.domain.errors import Conflict, TorporError
from torpor.domain.ids import InstanceId, WorkloadId
from torpor.domain.instance import BackendState, Instance, InstanceSpec
from torpor.domain.workload import Flavor

pytestmark = pytest.mark.slow

SMALL = Flavor(1, 32)
PCI_CARD = (
    "<hostdev mode='subsystem' type='pci'>"
    "<source><address domain='0' bus='9' slot='9' function='0'/></source></hostdev>"
)
BATCH = Mark("batch", priority=5, preemptible=True)


class Host:
    """A shared host: an owner, and Torpor beside them."""

    def __init__(self, bench: LibvirtBench) -> None:
        self.bench = bench
        self.owner = VirshOwner(bench.daemon)
        self.adoption = LibvirtAdoption(bench.backend.connection)
        converse = through_libvirt(bench.backend.connection, 1.0)
        inner = AgentGuest(converse, lambda _: Ethernet("lo", "127.0.0.1"), probe_seconds=0.1)
        self.guest = LibvirtGuest(bench.backend.connection, inner, converse)

    def stranger(self, id: InstanceId) -> Stranger:
        (found,) = (each for each in self.adoption.strangers() if each.id == id)
        return found

    def running(self, name: str, devices: str = "") -> InstanceId:
        id = self.owner.define(name, SMALL, devices=devices)
        self.owner.start(id)
        return id


@pytest.fixture(scope="module")
def shared() -> Iterator[Host]:
    with libvirt_bench() as bench:
        yield Host(bench)


@pytest.fixture
def host(shared: Host) -> Iterator[Host]:
    yield shared
    shared.owner.undefine_all()


def without_mark(description: Sequence[str]) -> Sequence[str]:
    return [line for line in description if "metadata>" not in line and "torpor:workload" not in line]


def test_marking_changes_nothing_else_of_a_domain(host: Host) -> None:
    id = host.running("theirs")
    before = host.owner.description(id)

    host.adoption.mark(id, BATCH)
    marked = host.owner.description(id)
    host.adoption.unmark(id)

    assert sum("<torpor:workload" in line for line in marked) == 2  # now, and after the next start
    assert without_mark(marked) == without_mark(before)
    assert [line for line in host.owner.description(id) if "metadata" not in line] == list(before)


def test_metadata_of_others_are_kept(host: Host) -> None:
    id = host.running("theirs")
    host.owner.write(id, "<tag>blue</tag>", "--live", "--config", namespace="urn:theirs")
    host.adoption.mark(id, BATCH)
    host.adoption.unmark(id)
    assert "blue" in host.bench.daemon.virsh("metadata", id, "urn:theirs")
    assert "blue" in host.bench.daemon.virsh("metadata", id, "urn:theirs", "--config")


@pytest.mark.parametrize("runs", [False, True])
def test_a_mark_that_a_person_wrote_is_read(host: Host, runs: bool) -> None:
    id = host.running("theirs") if runs else host.owner.define("theirs", SMALL)
    host.owner.write(id, "<workload name='batch' priority='5' preemptible='yes'/>")
    assert host.stranger(id).mark == BATCH
    assert set(host.bench.hypervisor.observe()) == {id}

    host.bench.daemon.virsh("metadata", id, "urn:torpor:domain:1", "--remove")

    assert host.stranger(id).mark is None
    assert host.bench.hypervisor.observe() == {}


@pytest.mark.parametrize(
    "element",
    [
        "<workload/>",
        "<workload name=''/>",
        "<workload name='Not A Label'/>",
        "<workload name='a&#10;b'/>",
        "<workload name='../../etc'/>",
        f"<workload name='{'x' * 5000}'/>",
        "<workload name='batch' priority='high'/>",
        "<workload name='batch' priority='99999999999999999999999999'/>",
        "<workload name='batch' priority='1e3'/>",
        "<workload name='batch' priority='5&#10;'/>",
        "<workload name='batch' preemptible='maybe'/>",
        "<workload name='batch' preemptible='yes' protect='yes'/>",
        "<other name='batch'/>",
    ],
)
def test_a_mark_that_makes_no_sense_is_a_defect_in_words_and_can_be_mended(host: Host, element: str) -> None:
    id = host.owner.define("theirs", SMALL)
    host.owner.write(id, element)

    seen = host.stranger(id)
    assert seen.mark is None
    assert 0 < len(seen.defect) < 200
    assert "\n" not in seen.defect
    assert host.bench.hypervisor.observe() == {}

    host.adoption.mark(id, BATCH)
    assert (host.stranger(id).mark, host.stranger(id).defect) == (BATCH, "")


@pytest.mark.parametrize(
    "element",
    [
        "<workload name='batch' priority='5' preemptible='yes' colour='blue'/>",
        "<workload name='batch' priority='+5' preemptible='yes'><workload name='evil'/>text</workload>",
    ],
)
def test_what_a_mark_has_besides_is_ignored(host: Host, element: str) -> None:
    id = host.owner.define("theirs", SMALL)
    host.owner.write(id, element)
    assert host.stranger(id).mark == BATCH


def test_a_mark_in_another_namespace_is_none(host: Host) -> None:
    id = host.running("theirs")
    host.owner.write(id, "<workload name='batch'/>", namespace="urn:torpor:domain:2")
    assert (host.stranger(id).mark, host.stranger(id).defect) == (None, "")


def test_a_transient_domain_is_unfit_and_may_be_marked(host: Host) -> None:
    id = host.owner.define("theirs", SMALL, command="create")
    assert "transient" in host.stranger(id).unfit
    host.adoption.mark(id, BATCH)
    assert host.stranger(id).mark == BATCH
    host.adoption.unmark(id)
    assert host.stranger(id).mark is None


@pytest.mark.parametrize(
    "devices",
    [
        PCI_CARD,
        "<shmem name='x'><model type='ivshmem-plain'/><size unit='M'>4</size></shmem>",
        "<filesystem type='mount'><source dir='/tmp'/><target dir='t'/></filesystem>",
    ],
)
def test_a_domain_with_devices_of_the_host_is_unfit(host: Host, devices: str) -> None:
    id = host.owner.define("theirs", SMALL, devices=devices)
    assert "it can't be saved" in host.stranger(id).unfit


def test_the_size_of_disks_is_told(host: Host, tmp_path: Path) -> None:
    qcow2, raw = tmp_path / "a.qcow2", tmp_path / "b.raw"
    os.system(f"qemu-img create -q -f qcow2 {qcow2} 100M")
    with raw.open("wb") as opened:
        opened.truncate((7 << 20) + 1)
    disk = "<disk type='file' device='{}'><driver name='qemu' type='{}'/>{}<target dev='{}' bus='{}'/></disk>"
    listed = [
        ("disk", "qcow2", f"<source file='{qcow2}'/>", "vda", "virtio"),
        ("disk", "raw", f"<source file='{raw}'/>", "vdb", "virtio"),
        ("disk", "raw", f"<source file='{tmp_path}/gone'/>", "vdc", "virtio"),
        ("cdrom", "raw", "", "hda", "ide"),
    ]
    id = host.owner.define("theirs", SMALL, devices="".join(disk.format(*each) for each in listed))
    assert host.stranger(id).flavor == Flavor(1, 32, 108)


# --- what has no mark is never touched ---


def spec_of(id: InstanceId, name: str) -> InstanceSpec:
    spec = new_spec()
    return InstanceSpec(id, name, spec.image, SMALL, spec.mac, spec.network)


def every_command(host: Host, id: InstanceId, name: str) -> Sequence[Callable[[], object]]:
    """Whatever the ports can be asked to do with an instance."""
    backend, guest = host.bench.backend, host.guest
    spec = spec_of(id, name)
    instance = Instance(id, WorkloadId("w"), name, 0, "192.0.2.9", "52:54:00:00:00:09")
    return (
        lambda: backend.hypervisor.boot(spec),
        lambda: backend.gangs.pause([id]),
        lambda: backend.gangs.run_on([id]),
        lambda: backend.hypervisor.run_on(id),
        lambda: backend.hypervisor.pause(id),
        lambda: backend.suspension.states(id),
        lambda: backend.states.to_write(id),
        lambda: backend.states.mapped(id),
        lambda: backend.suspension.save(spec, ignore),
        lambda: backend.states.verify(id, 1, ignore),
        lambda: backend.states.remove(id, 1),
        lambda: backend.states.collect({id}),
        lambda: backend.states.collect(set()),
        lambda: backend.suspension.release(id),
        lambda: backend.suspension.restore(spec, ignore),
        lambda: backend.suspension.revert(id),
        lambda: backend.suspension.spend(id),
        lambda: backend.suspension.settle(id),
        lambda: backend.suspension.drop(id),
        lambda: guest.agent_answers(id),
        lambda: guest.addresses(id),
        lambda: guest.probe(instance),
        lambda: guest.assign_address(instance, 24, "192.0.2.1"),
        lambda: guest.take_identity(instance, 24, "192.0.2.1"),
        lambda: guest.set_clock(id, time.time()),
        lambda: guest.execute(id, "reboot"),
        lambda: guest.execution(id, 1),
        lambda: backend.hypervisor.stop(id, 0.2),
        lambda: backend.hypervisor.erase(id),
        lambda: host.adoption.unmark(id),
        backend.hypervisor.host,
        backend.hypervisor.observe,
        host.adoption.strangers,
    )


@pytest.fixture
def neighbours(host: Host) -> Sequence[InstanceId]:
    """One that runs, one that is paused, one that is saved, one that is shut off, with an agent's channel each."""
    channel = "<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>"
    running, paused, saved = (host.running(f"n-{what}", channel) for what in ("running", "paused", "saved"))
    host.owner.pause(paused)
    host.owner.save(saved)
    return (running, paused, saved, host.owner.define("n-off", SMALL, devices=channel))


def everything(host: Host, ids: Sequence[InstanceId]) -> object:
    saves = host.bench.daemon.managed_saves
    images = {path.name: (path.stat().st_mtime_ns, path.stat().st_size) for path in saves.glob("n-*")}
    return [host.owner.description(id) for id in ids], images


def test_no_command_reaches_a_vm_without_a_mark(host: Host, neighbours: Sequence[InstanceId]) -> None:
    before = everything(host, neighbours)
    for id, name in zip(neighbours, ("n-running", "n-paused", "n-saved", "n-off"), strict=True):
        for command in every_command(host, id, name):
            with suppress(TorporError):
                command()
    assert everything(host, neighbours) == before
    assert host.bench.hypervisor.observe() == {}


def test_no_command_on_a_marked_vm_reaches_its_neighbours(host: Host, neighbours: Sequence[InstanceId]) -> None:
    marked = host.running("marked")
    host.adoption.mark(marked, BATCH)
    before = everything(host, neighbours)
    done = []
    for number, command in enumerate(every_command(host, marked, "marked")):
        with suppress(TorporError):
            command()
            done.append(number)
    assert len(done) > 15  # it was really acted upon
    assert everything(host, neighbours) == before


def test_an_adopted_vm_is_never_erased(host: Host) -> None:
    id = host.running("theirs")
    host.adoption.mark(id, BATCH)
    with pytest.raises(Conflict, match="not made by Torpor"):
        host.bench.hypervisor.erase(id)
    assert host.stranger(id).state is BackendState.RUNNING


def test_a_boot_under_the_name_of_a_vm_of_others_is_refused(host: Host) -> None:
    id = host.running("theirs")
    before = host.owner.description(id)
    spec = spec_of(new_spec().id, "theirs")
    with pytest.raises(Conflict, match="another domain of that name"):
        host.bench.hypervisor.boot(spec)
    assert host.owner.description(id) == before

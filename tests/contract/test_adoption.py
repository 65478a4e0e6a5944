"""The contract of `ports.Adoption`, on a real libvirtd and on the fake. Owners do with their VMs as they like."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import pytest
from tests.libvirt_host import libvirt_bench
from tests.owner import VirshOwner
from tests.vms import new_spec

from torpor.adapters.fakes import SHARED, FakeAdoption, FakeHypervisor, FakeOwner, ManualClock
from torpor.adapters.libvirt.adoption import LibvirtAdoption
from torpor.domain.adoption import Mark, Stranger
from torpor.domain.errors import Conflict, NotFound
from torpor.domain.ids import InstanceId
from torpor.domain.instance import BackendState
from torpor.domain.workload import Flavor
from torpor.ports import Adoption, Hypervisor

SMALL = Flavor(1, 32)
BATCH = Mark("batch", priority=-3, preemptible=True)
KEPT = Mark("kept", priority=100, protect=True)


class Owner(Protocol):
    def start(self, instance: InstanceId) -> None: ...
    def pause(self, instance: InstanceId) -> None: ...
    def save(self, instance: InstanceId) -> None: ...
    def shut_down(self, instance: InstanceId) -> None: ...
    def undefine(self, instance: InstanceId) -> None: ...


@dataclass(frozen=True)
class Shared:
    """A host with VMs of others on it."""

    adoption: Adoption
    hypervisor: Hypervisor
    owner: Owner
    define: Callable[[str, Flavor], InstanceId]

    def stranger(self, id: InstanceId) -> Stranger:
        (found,) = (each for each in self.adoption.strangers() if each.id == id)
        return found

    def running(self, name: str = "theirs") -> InstanceId:
        id = self.define(name, SMALL)
        self.owner.start(id)
        return id


@pytest.fixture(scope="session", params=["fake", "libvirt"])
def host(request: pytest.FixtureRequest) -> Iterator[Shared]:
    if request.param == "fake":
        fake = FakeHypervisor(ManualClock(), capabilities=SHARED)
        owner = FakeOwner(fake)
        yield Shared(FakeAdoption(fake), fake, owner, owner.define)
        return
    with libvirt_bench() as bench:
        virsh = VirshOwner(bench.daemon)
        yield Shared(LibvirtAdoption(bench.backend.connection), bench.hypervisor, virsh, virsh.define)


@pytest.fixture
def shared(host: Shared) -> Iterator[Shared]:
    """Without VMs, afterwards too."""
    yield host
    for stranger in host.adoption.strangers():
        host.owner.undefine(stranger.id)
    for own in host.hypervisor.observe():
        host.hypervisor.erase(own)


def test_vms_of_others_are_listed_by_name_and_not_looked_after(shared: Shared) -> None:
    second, first = shared.define("b", Flavor(2, 48)), shared.running("a")

    assert [(s.id, s.name, s.mark, s.defect, s.unfit) for s in shared.adoption.strangers()] == [
        (first, "a", None, "", ""),
        (second, "b", None, "", ""),
    ]
    seen = shared.stranger(second).flavor
    assert (seen.vcpus, seen.memory_mb) == (2, 48)
    assert shared.hypervisor.observe() == {}


def test_what_an_owner_does_with_a_vm_is_seen(shared: Shared) -> None:
    id = shared.define("theirs", SMALL)
    assert shared.stranger(id).state is BackendState.SHUT_OFF
    shared.owner.start(id)
    assert shared.stranger(id).state is BackendState.RUNNING
    shared.owner.pause(id)
    assert shared.stranger(id).state is BackendState.PAUSED
    shared.owner.save(id)
    assert shared.stranger(id).state is BackendState.ABSENT
    shared.owner.start(id)
    shared.owner.shut_down(id)
    assert shared.stranger(id).state is BackendState.SHUT_OFF
    shared.owner.undefine(id)
    assert shared.adoption.strangers() == ()


@pytest.mark.parametrize("runs", [False, True])
def test_a_marked_vm_is_looked_after_until_its_mark_is_taken_away(shared: Shared, runs: bool) -> None:
    id = shared.running() if runs else shared.define("theirs", SMALL)
    before = shared.stranger(id).state

    shared.adoption.mark(id, BATCH)
    shared.adoption.mark(id, BATCH)

    assert (shared.stranger(id).mark, shared.stranger(id).state) == (BATCH, before)
    assert shared.hypervisor.observe()[id].state is before

    shared.adoption.unmark(id)
    shared.adoption.unmark(id)

    assert (shared.stranger(id).mark, shared.stranger(id).state) == (None, before)
    assert shared.hypervisor.observe() == {}


def test_a_mark_takes_the_place_of_an_earlier_one(shared: Shared) -> None:
    id = shared.running()
    shared.adoption.mark(id, BATCH)
    shared.adoption.mark(id, KEPT)
    assert shared.stranger(id).mark == KEPT


def test_a_mark_outlives_the_process(shared: Shared) -> None:
    id = shared.running()
    shared.adoption.mark(id, BATCH)

    shared.owner.shut_down(id)
    assert shared.stranger(id).mark == BATCH
    shared.owner.start(id)
    assert shared.stranger(id).mark == BATCH
    shared.owner.save(id)
    shared.owner.start(id)
    assert shared.stranger(id).mark == BATCH


def test_only_the_vm_that_is_meant_is_marked(shared: Shared) -> None:
    one, other = shared.running("a"), shared.running("b")
    shared.adoption.mark(one, BATCH)
    assert shared.stranger(other).mark is None
    assert set(shared.hypervisor.observe()) == {one}


def test_a_vm_of_our_making_is_no_stranger_and_keeps_its_own_mark(shared: Shared) -> None:
    spec = new_spec()
    shared.hypervisor.boot(spec)

    assert shared.adoption.strangers() == ()
    with pytest.raises(Conflict, match="Torpor's own"):
        shared.adoption.mark(spec.id, BATCH)
    with pytest.raises(Conflict, match="Torpor's own"):
        shared.adoption.unmark(spec.id)
    assert set(shared.hypervisor.observe()) == {spec.id}


def test_a_vm_that_is_not_there_can_not_be_marked_and_need_not_be_unmarked(shared: Shared) -> None:
    gone = shared.define("theirs", SMALL)
    shared.owner.undefine(gone)
    with pytest.raises(NotFound):
        shared.adoption.mark(gone, BATCH)
    shared.adoption.unmark(gone)

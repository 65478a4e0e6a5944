"""Backends that run VMs: the shipped fake, real QEMU and a real libvirtd, under one contract.

What a backend can't do, its `Capabilities` say; tests ask those, and assert then how it is refused.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tests.libvirt_host import LibvirtBench, libvirt_bench
from tests.vms import Bench, bench, new_spec

from torpor.adapters.fakes import CLOUD, SHARED, FakeGangs, FakeHypervisor, FakeSnapshots, FakeStateStore, ManualClock
from torpor.adapters.fakes.hypervisor import ABLE
from torpor.adapters.qemu.layout import InstanceFolder
from torpor.domain.ids import InstanceId
from torpor.domain.instance import BackendState, InstanceSpec, Mechanism
from torpor.ports import Capabilities, Gangs, Hypervisor, Snapshots, StateStore, Suspension


@dataclass(frozen=True)
class Machines:
    """A backend under contract, and what a test can learn of its guests."""

    hypervisor: Hypervisor
    gangs: Gangs
    suspension: Suspension
    states: StateStore
    optional_snapshots: Snapshots | None
    """Where its capabilities say so."""
    damage: Callable[[InstanceId], None]
    """Flip a bit of its newest state."""
    booted: Callable[[InstanceSpec], InstanceSpec]
    """Boot it, and wait until the guest can tell its counter."""
    counter: Callable[[InstanceId], float]
    """A number in the running guest's memory that grows all the time, from 0 at each boot."""
    nonce: Callable[[InstanceId], str]
    """What the running guest drew at its boot."""
    let_run: Callable[[float], None]
    """Let seconds pass."""
    spec: Callable[[], InstanceSpec] = new_spec
    """A new instance to be, that has got what `Provisions` give."""
    off: Callable[[], Collection[InstanceId]] = tuple
    """Instances that are not observed and take room all the same, where a scheduler has the books."""
    keeps_older: bool = True
    """Older states are known until they are settled; and they are files, which can be read and removed."""
    veterans: list[InstanceSpec] = field(default_factory=list)

    @property
    def can(self) -> Capabilities:
        return self.hypervisor.capabilities()

    @property
    def still(self) -> BackendState:
        """What a paused instance is seen as: where it can't stand still in memory, it has been saved."""
        return BackendState.PAUSED if self.can.gang_pause else BackendState.ABSENT

    @property
    def snapshots(self) -> Snapshots:
        assert self.optional_snapshots, "this backend takes no snapshots"
        return self.optional_snapshots

    def state(self, spec: InstanceSpec) -> BackendState:
        seen = self.hypervisor.observe().get(spec.id)
        return seen.state if seen else BackendState.ABSENT

    def pid(self, spec: InstanceSpec) -> int | None:
        seen = self.hypervisor.observe().get(spec.id)
        return seen.pid if seen else None

    def veteran(self) -> InstanceSpec:
        """A running instance whose guest can tell its counter; tests hand it on, for a boot takes long."""
        if not (self.veterans and self.state(self.veterans[-1]) is BackendState.RUNNING):
            self.veterans.append(self.booted(self.spec()))
        return self.veterans[-1]

    def started(self) -> InstanceSpec:
        """A new instance with a process; its guest may still be booting."""
        spec = self.spec()
        self.hypervisor.boot(spec)
        return spec

    def saved(self) -> InstanceSpec:
        """A new instance with a whole state; paused, where its process is kept."""
        spec = self.started()
        self.hypervisor.pause(spec.id)
        self.suspension.save(spec, ignore)
        return spec

    def suspended(self) -> InstanceSpec:
        """A new instance that has nothing but its whole state."""
        spec = self.saved()
        self.suspension.release(spec.id)
        return spec

    def resume(self, spec: InstanceSpec) -> None:
        self.suspension.restore(spec, ignore)
        self.suspension.spend(spec.id)
        self.hypervisor.run_on(spec.id)


FAKES = {"fake": ABLE, "fake-plain": SHARED, "fake-cloud": CLOUD}
"""The fake, with what a host can do that is ours alone, one that is shared, as under libvirt, and a cloud."""


def ignore(done: int, total: int) -> None:
    """Progress that nobody watches."""


BACKENDS = ["openstack"] if os.environ.get("TORPOR_CONTRACT_ON_LAB") else [*FAKES, "qemu", "qemu-stream", "libvirt"]


@pytest.fixture(scope="session", params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Iterator[Machines]:
    """`script/test openstack` has the lab's, which takes a while, and no other."""
    if request.param == "openstack":
        with openstack_machines() as machines:
            yield machines
    elif request.param == "libvirt":
        with libvirt_bench() as libvirt:
            yield _libvirt(libvirt)
    elif request.param in FAKES:
        yield _fake(FAKES[request.param])
    else:
        with bench(mechanism=Mechanism.STREAM if request.param == "qemu-stream" else None) as qemu:
            yield _real(qemu)


@pytest.fixture(scope="session", params=["fake", "qemu"])
def lazy_backend(request: pytest.FixtureRequest) -> Iterator[Machines]:
    """Guests run on with their memory still on disk."""
    if request.param == "fake":
        yield _fake(lazy=True)
        return
    with bench(restore="lazy") as qemu:
        yield _real(qemu)


@pytest.fixture
def lazy_machines(lazy_backend: Machines) -> Iterator[Machines]:
    yield from _cleared(lazy_backend)


@pytest.fixture
def machines(backend: Machines) -> Iterator[Machines]:
    """A backend on which nothing runs but the veteran."""
    yield from _cleared(backend)


def _cleared(backend: Machines) -> Iterator[Machines]:
    yield backend
    veterans = {spec.id for spec in backend.veterans}
    for id in {*backend.hypervisor.observe(), *backend.off()} - veterans:
        backend.hypervisor.erase(id)


def _real(qemu: Bench) -> Machines:
    return Machines(
        qemu.hypervisor,
        qemu.backend.gangs,
        qemu.suspension,
        qemu.backend.states,
        qemu.backend.snapshots,
        lambda id: flip_a_bit(qemu.folder(id)),
        qemu.booted,
        lambda id: float(qemu.ask(id, "status")["counter"]),
        lambda id: str(qemu.ask(id, "status")["nonce"]),
        time.sleep,
    )


def _libvirt(libvirt: LibvirtBench) -> Machines:
    return Machines(
        libvirt.hypervisor,
        libvirt.backend.gangs,
        libvirt.suspension,
        libvirt.backend.states,
        libvirt.backend.snapshots,
        lambda id: flip_a_bit_of(libvirt.image(id).path),
        libvirt.booted,
        lambda id: float(libvirt.ask(id, "status")["counter"]),
        lambda id: str(libvirt.ask(id, "status")["nonce"]),
        time.sleep,
    )


@contextmanager
def openstack_machines() -> Iterator[Machines]:
    from tests.lab_machines import lab_bench  # needs openstacksdk, which other tiers go without

    with lab_bench() as lab:
        backend = lab.backend
        yield Machines(
            backend.hypervisor,
            backend.gangs,
            backend.suspension,
            backend.states,
            None,
            _not_to_be_damaged,
            lab.booted,
            lambda id: float(lab.newest_tick(id)[0]),
            lambda id: lab.newest_tick(id)[1],
            time.sleep,
            lab.spec,
            lab.made,
            keeps_older=False,
        )


def _not_to_be_damaged(instance: InstanceId) -> None:
    raise AssertionError("Nova lets nobody reach its states")


def flip_a_bit(folder: InstanceFolder) -> None:
    """In the memory of the newest state, where there is data."""
    newest = max((int(path.name), path) for path in folder.states.iterdir() if path.name.isdigit())[1]
    flip_a_bit_of(newest / "memory" if (newest / "memory").exists() else newest / "stream")


def flip_a_bit_of(file: Path) -> None:
    with file.open("r+b", buffering=0) as opened:
        at = os.lseek(opened.fileno(), file.stat().st_size // 4, os.SEEK_DATA) + 100
        byte = os.pread(opened.fileno(), 1, at)[0]
        os.pwrite(opened.fileno(), bytes([byte ^ 1]), at)


def _fake(capabilities: Capabilities = ABLE, lazy: bool = False) -> Machines:
    clock = ManualClock()
    fake = FakeHypervisor(clock, capabilities=capabilities, lazy=lazy)

    def booted(spec: InstanceSpec) -> InstanceSpec:
        fake.boot(spec)
        clock.sleep(5.0)
        return spec

    return Machines(
        fake,
        FakeGangs(fake, clock),
        fake,
        FakeStateStore(fake),
        FakeSnapshots(fake),
        fake.faults.corrupt_state,
        booted,
        fake.counter,
        lambda id: str(fake.nonce(id)),
        clock.sleep,
    )

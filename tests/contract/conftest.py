"""Backends that run VMs: the shipped fake, real QEMU and a real libvirtd, under one contract.

What a backend can't do, its `Capabilities` say; tests ask those, and assert then how it is refused.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tests.libvirt_host import LibvirtBench, libvirt_bench
from tests.vms import Bench, bench, new_spec

from torpor.adapters.fakes import SHARED, FakeGangs, FakeHypervisor, FakeSnapshots, FakeStateStore, ManualClock
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
    veterans: list[InstanceSpec] = field(default_factory=list)

    @property
    def can(self) -> Capabilities:
        return self.hypervisor.capabilities()

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
            self.veterans.append(self.booted(new_spec()))
        return self.veterans[-1]

    def started(self) -> InstanceSpec:
        """A new instance with a process; its guest may still be booting."""
        spec = new_spec()
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


def ignore(done: int, total: int) -> None:
    """Progress that nobody watches."""


@pytest.fixture(scope="session", params=["fake", "fake-plain", "qemu", "qemu-stream", "libvirt"])
def backend(request: pytest.FixtureRequest) -> Iterator[Machines]:
    """`fake-plain` is the fake with what a shared host can do, as libvirt."""
    if request.param == "libvirt":
        with libvirt_bench() as libvirt:
            yield _libvirt(libvirt)
    elif request.param.startswith("fake"):
        yield _fake(plain=request.param == "fake-plain")
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
    for id in set(backend.hypervisor.observe()) - veterans:
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


def flip_a_bit(folder: InstanceFolder) -> None:
    """In the memory of the newest state, where there is data."""
    newest = max((int(path.name), path) for path in folder.states.iterdir() if path.name.isdigit())[1]
    flip_a_bit_of(newest / "memory" if (newest / "memory").exists() else newest / "stream")


def flip_a_bit_of(file: Path) -> None:
    with file.open("r+b", buffering=0) as opened:
        at = os.lseek(opened.fileno(), file.stat().st_size // 4, os.SEEK_DATA) + 100
        byte = os.pread(opened.fileno(), 1, at)[0]
        os.pwrite(opened.fileno(), bytes([byte ^ 1]), at)


def _fake(lazy: bool = False, plain: bool = False) -> Machines:
    clock = ManualClock()
    fake = FakeHypervisor(clock, capabilities=SHARED) if plain else FakeHypervisor(clock, lazy=lazy)

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

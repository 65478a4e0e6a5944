"""The whole engine on the shipped fakes, driven by hand: no threads, a clock that waits for us."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any, Literal

from torpor.adapters.address_pool import AddressPool
from torpor.adapters.fakes import (
    FakeAdoption,
    FakeBatchSystem,
    FakeGangs,
    FakeGuest,
    FakeHypervisor,
    FakeImages,
    FakeNames,
    FakeOwner,
    FakeSnapshots,
    FakeStateStore,
    ManualClock,
)
from torpor.adapters.fakes.hypervisor import ABLE
from torpor.adapters.fakes.records import FakeHistory, FakeInventory, FakeJournal, FakeLedger
from torpor.domain.capacity import ClaimKind, Resources
from torpor.domain.instance import BackendState
from torpor.domain.plan import Policy
from torpor.domain.workload import Flavor, Workload, WorkloadState
from torpor.engine.execute import Executor
from torpor.engine.guests import GuestWatch
from torpor.engine.loop import Loop
from torpor.engine.parts import Parts, Settings
from torpor.engine.queue import Queue
from torpor.engine.reading import Reader
from torpor.engine.records import Records
from torpor.engine.scrub import Scrub
from torpor.engine.service import Service
from torpor.engine.states import StateKeeper
from torpor.engine.views import RunRequest
from torpor.ports import Capabilities, Provisions

OVERHEAD_MB = 64


class Death(BaseException):
    """SIGKILL of the daemon: nothing of it runs any more, the world goes on."""


class Dying:
    """A port in front of the real one: dies right before or right after the n-th act of all Dying ports."""

    def __init__(self, port: Any, counter: Counter, acts: frozenset[str]) -> None:
        self._port = port
        self._counter = counter
        self._acts = acts

    def __getattr__(self, name: str) -> Any:
        target = getattr(self._port, name)
        if name not in self._acts:
            return target
        return self._counter.counted(name, target)


class Counter:
    """Counts acts across ports, and says when to die."""

    def __init__(self) -> None:
        self.count = 0
        self.die_before: int | None = None
        self.die_after: int | None = None
        self.calls: list[str] = []

    def counted(self, name: str, act: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            self.count += 1
            self.calls.append(name)
            if self.count == self.die_before:
                raise Death(f"before {name}")
            result = act(*args, **kwargs)
            if self.count == self.die_after:
                raise Death(f"after {name}")
            return result

        return call


JOURNAL_ACTS = frozenset({"begin", "intend", "record", "turn_back", "finish"})
LEDGER_ACTS = frozenset({"claim", "release"})
INVENTORY_ACTS = frozenset({"update", "update_instance", "remove"})
SNAPSHOT_ACTS = frozenset({"take", "remove", "verify", "lay_down"})
GUEST_ACTS = frozenset({"take_identity"})
HOST_ACTS = frozenset(
    {"boot", "pause", "run_on", "stop", "erase", "save", "release", "restore", "spend", "revert", "drop", "settle"}
)


class EngineOnFakes:
    """A daemon that can be killed and started again in a world that stays."""

    def __init__(
        self,
        vcpus: int = 4,
        memory_mb: int = 4096,
        disk_mb: int = 60_000,
        min_run: float = 0.0,
        records: tuple[Any, Any, Any, Any] | None = None,
        lazy: bool = False,
        states_mb: int | None = None,
        capabilities: Capabilities = ABLE,
        unplanned_start: Literal["suspend", "leave"] = "suspend",
        provisions: Provisions | None = None,
    ) -> None:
        """`records`: ledger, journal, inventory and history, instead of those in memory."""
        self.clock = ManualClock()
        total = Resources(vcpus, memory_mb, disk_mb)
        self.world = FakeHypervisor(
            self.clock, total=total, overhead_mb=OVERHEAD_MB, lazy=lazy, capabilities=capabilities
        )
        self.states = FakeStateStore(self.world)
        self.guest = FakeGuest(self.world, self.clock)
        self.snapshots = FakeSnapshots(self.world)
        self.adoption = FakeAdoption(self.world)
        self.owner = FakeOwner(self.world)
        self.names = FakeNames()
        self.batch = FakeBatchSystem(self.world)
        self.images = FakeImages(self.clock)
        in_memory: tuple[Any, Any, Any, Any] = (FakeLedger(), FakeJournal(), FakeInventory(), FakeHistory())
        self.ledger, self.journal, self.inventory, self.history = records or in_memory
        self.counter = Counter()
        self.settings = Settings(
            policy=Policy(min_run, max_victims=8, overhead_mb=OVERHEAD_MB, states_mb=states_mb),
            subnet="10.9.0.0/24",
            zone="test.internal",
            stop_grace=1.0,
            boot_grace=30.0,
            max_attempts=3,
            console_log="/nowhere/{instance}/console.log",
            unplanned_start=unplanned_start,
        )
        self.provisions = provisions or AddressPool(self.settings.subnet)
        self.start()

    def start(self) -> None:
        """A new daemon on the world and the records as they are."""
        dying = self.counter
        world = Dying(self.world, dying, HOST_ACTS)
        self.parts = Parts(
            hypervisor=world,
            gangs=FakeGangs(world, self.clock),
            suspension=world,
            states=self.states,
            guest=Dying(self.guest, dying, GUEST_ACTS),
            names=self.names,
            batch_system=self.batch,
            images=self.images,
            diagnostics=self.world,
            ledger=Dying(self.ledger, dying, LEDGER_ACTS),
            journal=Dying(self.journal, dying, JOURNAL_ACTS),
            inventory=Dying(self.inventory, dying, INVENTORY_ACTS),
            history=self.history,
            clock=self.clock,
            snapshots=Dying(self.snapshots, dying, SNAPSHOT_ACTS),
            adoption=self.adoption,
            provisions=self.provisions,
        )
        records = Records(self.parts)
        executor = Executor(self.parts, records, self.settings)
        self.queue = Queue(self.parts, records, self.settings, executor)
        self.watch = GuestWatch(self.parts, records, self.settings)
        self.scrub = Scrub(self.parts, records, executor)
        loop = Loop(self.parts, self.queue, self.watch, self.scrub)
        reader = Reader(self.parts, records, self.settings, executor, self.queue)
        self.service = Service(
            self.parts, records, self.settings, loop, reader, StateKeeper(self.parts, records, self.settings, executor)
        )
        self.parts.names.ensure()
        if self.world.capabilities().shared_books and not self.ledger.hosts():
            self.enter_host()
        self.queue.start()

    def enter_host(self) -> None:
        """As a scheduler does that knows its hosts: with what others have not got of it."""
        host = self.world.host()
        self.ledger.set_host(host.id, host.total)

    def settle(self, rounds: int = 40, step: float = 1.0) -> None:
        """Rounds, with time going by between them."""
        for _ in range(rounds):
            while self.queue.tick():
                pass
            self.watch.round()
            self.scrub.round()
            self.clock.advance(step)

    def run(self, name: str, memory: int = 1024, cpus: int = 1, **fields: Any) -> Workload:
        request = RunRequest(name=name, image="test", flavor=Flavor(cpus, memory, 0))
        self.service.run(replace(request, **fields))
        return self.workload(name)

    def workload(self, name: str) -> Workload:
        return self.service.workload(name).workload

    def state(self, name: str) -> WorkloadState:
        return self.workload(name).state

    def ids(self, name: str) -> list[Any]:
        return [v.instance.id for v in self.service.workload(name).instances]

    def nonces(self, name: str) -> list[int]:
        return [self.world.memory(i).nonce for i in self.ids(name)]

    def counters(self, name: str) -> list[float]:
        return [self.world.memory(i).counter for i in self.ids(name)]

    def check_laws(self, strays: Collection[Any] = ()) -> None:
        """What must hold whenever no operation is open.

        `strays`: VMs that somebody else has started. One that the books have no room for, or whose gang is not whole,
        may run without a claim: the books then offer so much less.
        """
        assert self.world.violations == []
        assert self.batch.violations == []
        observed = self.world.observe()
        compute = {c.consumer for c in self.ledger.claims() if c.kind is ClaimKind.COMPUTE}
        for host in self.ledger.hosts():
            assert host.used.fits_in(host.total)
        open_for = {o.workload for o in self.journal.open()}
        for view in self.service.workloads():
            if view.workload.id in open_for:
                continue
            self._check_workload(view.workload, [i.instance.id for i in view.instances], observed, compute, strays)

    def _check_workload(
        self, workload: Workload, ids: list[Any], observed: Any, compute: set[Any], strays: Collection[Any]
    ) -> None:
        processes = {i for i in ids if i in observed and observed[i].state is not BackendState.ABSENT}
        if workload.state is WorkloadState.ACTIVE:
            assert processes == set(ids), f"{workload.name} is active with {len(processes)} of {len(ids)} processes"
        if workload.state in (WorkloadState.SUSPENDED, WorkloadState.PENDING, WorkloadState.DONE):
            assert not processes, f"{workload.name} is {workload.state} and has processes"
        if workload.state is WorkloadState.SUSPENDED:
            for i in ids:
                assert self.world.states(i)[0].status == "whole"
        assert processes - set(strays) <= compute, "a process without a claim"
        if not self.world.capabilities().shared_books:  # there, what owners save or stop keeps its room
            assert compute & set(ids) <= processes, "a claim without a process"

"""What the API may ask for. Thread-safe; every method raises TorporErrors only."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from torpor.domain.adoption import Mark, Stranger
from torpor.domain.errors import Conflict, Refused, TimedOut
from torpor.domain.image import Image
from torpor.domain.operation import OperationKind
from torpor.domain.plan import Gang, Plan, Verdict
from torpor.domain.planner import plan_start, plan_suspend
from torpor.domain.workload import Workload, WorkloadState
from torpor.engine.acceptance import accept, draft, require_possible
from torpor.engine.adoption import AdoptionRequests
from torpor.engine.loop import Loop
from torpor.engine.operations import begin, busy, expect
from torpor.engine.parts import Parts, Settings
from torpor.engine.reading import Reader
from torpor.engine.reconcile import can_go_back
from torpor.engine.records import Records
from torpor.engine.snapshots import SnapshotRequests
from torpor.engine.states import StateKeeper
from torpor.engine.views import (
    Accepted,
    HostView,
    NameView,
    OperationView,
    RemovedStates,
    RunRequest,
    StateCheck,
    StateView,
    WorkloadView,
)
from torpor.ports import Check, Event

_IN_TRANSITION = (WorkloadState.SUSPENDING, WorkloadState.RESUMING, WorkloadState.DELETING)


class Service:
    """The one door to the engine. Workloads are addressed by name."""

    def __init__(
        self, parts: Parts, records: Records, settings: Settings, loop: Loop, reader: Reader, states: StateKeeper
    ) -> None:
        self._parts = parts
        self._records = records
        self._settings = settings
        self._loop = loop
        self._read = reader
        self._states = states
        self.snapshots = SnapshotRequests(parts, records, settings, loop, reader)
        self._adoption = AdoptionRequests(parts, records, loop.queue.adopter)
        self._images_in_the_making: list[str] = []

    # --- workloads ---

    def run(self, request: RunRequest) -> Accepted:
        """Accept a workload: names, addresses and record at once, instances as soon as there is room."""
        with self._records.lock:
            plan = self.plan(request)
            require_possible(plan)
            workload, instances = draft(self._parts, self._settings, request)
            accept(self._parts, workload, instances)
            self._records.event("workload-accepted", workload.name, f"{workload.count} x {workload.image}.")
            view = self._read.workload(workload)
        self._loop.wake()
        return Accepted(view, replace(plan, workload=workload.id))

    def plan(self, request: RunRequest) -> Plan:
        """What `run` would lead to; nothing is changed."""
        with self._records.lock:
            workload, instances = draft(self._parts, self._settings, request)
            world = self._loop.queue.world()
            return plan_start(replace(world, gangs=(*world.gangs, Gang(workload, instances))), workload.id)

    def plan_suspend(self, name: str) -> Plan:
        return plan_suspend(self._loop.queue.world(), self._records.named(name).id)

    def plan_resume(self, name: str) -> Plan:
        workload = self._records.named(name)
        expect(self._parts, workload, WorkloadState.SUSPENDED)
        world = self._loop.queue.world()
        gangs = tuple(
            replace(g, workload=replace(g.workload, held=False)) if g.workload.id == workload.id else g
            for g in world.gangs
        )
        return plan_start(replace(world, gangs=gangs), workload.id)

    def suspend(self, name: str) -> WorkloadView:
        """Begin to suspend it by hand; it stays suspended until `resume`. Returns at once."""
        with self._records.lock:
            workload = self._records.named(name)
            if workload.state is WorkloadState.SUSPENDED:
                workload = self._records.change(workload.id, held=True, reason="suspended by hand")
                return self._read.workload(workload)
            expect(self._parts, workload, WorkloadState.ACTIVE)
            self._loop.queue.forgive(workload.id)
            plan = self.plan_suspend(name)
            if plan.verdict is not Verdict.READY:
                raise Refused(
                    f"workload {name} was not suspended",
                    detail=plan.reason,
                    remedy=f"`torpor show {name}` and `torpor hosts` tell more",
                )
            self._begin(OperationKind.SUSPEND, workload, "suspended by hand", plan.predicted_seconds)
            self._records.change(workload.id, held=True)
        return self.workload(name)  # to look takes time, for which nobody should have to wait

    def resume(self, name: str) -> WorkloadView:
        """Let it come back as soon as it fits. A failed workload with saved states goes back to those."""
        with self._records.lock:
            workload = self._records.named(name)
            expect(self._parts, workload, WorkloadState.SUSPENDED, WorkloadState.FAILED)
            self._loop.queue.forgive(workload.id)
            if workload.state is WorkloadState.FAILED:
                self._require_states(workload)
                self._begin(OperationKind.GO_BACK, workload, "taken back to its last saved state")
            self._records.change(workload.id, held=False, attempts=0, problem=None)
        self._loop.wake()
        return self.workload(name)

    def delete(self, name: str) -> None:
        """Begin to delete it: names at once, instances, disks and states by an operation. Returns at once."""
        workload = self._at_rest(name)
        if workload.adopted:
            raise Refused(
                f"workload {name} was not deleted",
                detail="its VMs and their disks are their owner's",
                remedy=f"`torpor release {name}` lets go of it",
            )
        with self._records.lock:
            self.snapshots.require_unneeded(workload)
            self._parts.names.withdraw([i.name for i in self._records.instances(workload.id)])
            self._begin(OperationKind.DELETE, workload, "asked for")

    # --- VMs of others ---

    def strangers(self) -> Sequence[Stranger]:
        """VMs of the host that Torpor did not make, marked or not. Raises Refused where the host is not shared."""
        return self._adoption.strangers()

    def adopt(self, vms: Sequence[str], mark: Mark) -> WorkloadView:
        """Look after these VMs, named or by id, as a workload: all or none.

        Raises Refused, Invalid, NotFound, Conflict.
        """
        workload = self._adoption.adopt(vms, mark, self._loop.queue.busy())
        self._loop.wake()
        return self._read.workload(workload)

    def release(self, name: str) -> None:
        """Let go of a workload of others' VMs, which stay as they are. Raises Refused for one that Torpor made."""
        self._adoption.release(self._at_rest(name))
        self._loop.wake()

    def suspend_all(self) -> None:
        """Suspend every active workload whose VMs are our own, and start nothing until the next start.

        Returns at once. Raises Conflict while an image is made, which the daemon's end would end.
        """
        if making := self.images_in_the_making():
            raise Conflict(
                "nothing was suspended", detail=f"image {making[0]} is being made", remedy="wait for it, then try again"
            )
        with self._records.lock:
            active = [w for w in self._parts.inventory.workloads() if w.state is WorkloadState.ACTIVE and not w.adopted]
            for workload in active:
                expect(self._parts, workload, WorkloadState.ACTIVE)
            plans = [(w, self.plan_suspend(w.name)) for w in active]
            for workload, plan in plans:
                if plan.verdict is not Verdict.READY:
                    raise Refused(
                        f"workload {workload.name} can't be suspended",
                        detail=plan.reason,
                        remedy=f"nothing was suspended; delete {workload.name} or let it end first",
                    )
            self._loop.queue.draining.set()
            for workload, plan in plans:
                self._begin(OperationKind.SUSPEND, workload, "everything is suspended", plan.predicted_seconds)

    def _begin(self, kind: OperationKind, workload: Workload, reason: str, seconds: float | None = None) -> None:
        begin(self._parts, self._records, kind, workload, reason, seconds)
        self._loop.wake()

    def _at_rest(self, name: str, patience: float = 120.0) -> Workload:
        """Wait until no operation is changing the workload."""
        give_up = time.monotonic() + patience
        while True:
            with self._records.lock:
                workload = self._records.named(name)
                if not busy(self._parts, workload) and workload.state not in _IN_TRANSITION:
                    return workload
            if time.monotonic() > give_up:
                raise TimedOut(
                    f"workload {name} is still {workload.state}",
                    remedy=f"see `torpor show {name}`, and try again later",
                )
            time.sleep(0.05)

    def _require_states(self, workload: Workload) -> None:
        for instance in self._records.instances(workload.id):
            if not can_go_back(self._parts, instance.id):
                raise Refused(
                    f"workload {workload.name} can't be taken back",
                    detail=f"there is no saved state of {instance.name}",
                    remedy=f"`torpor delete {workload.name}` and run it anew",
                )

    # --- reading ---

    def workloads(self) -> Sequence[WorkloadView]:
        return self._read.workloads()

    def workload(self, name: str) -> WorkloadView:
        return self._read.workload(self._records.named(name))

    def queue(self) -> Sequence[Plan]:
        """A plan for every workload that waits, in the order of the queue."""
        return self._loop.queue.look()

    def operations(self, limit: int) -> Sequence[OperationView]:
        return self._read.operations(limit)

    def operation(self, id: str) -> OperationView:
        """Raises NotFound."""
        return self._read.operation(id)

    def hosts(self) -> Sequence[HostView]:
        return self._read.hosts()

    def names(self) -> Sequence[NameView]:
        return self._read.names()

    def events(self, limit: int, subject: str | None = None) -> Sequence[Event]:
        return self._parts.history.events(limit, subject)

    def checks(self) -> Sequence[Check]:
        """The running daemon's part of `torpor doctor`."""
        return (*self._parts.diagnostics.checks(), *self._parts.names.checks())

    def self_test(self, progress: Callable[[str], None]) -> Check:
        """Suspend, restore and checksum a guest made for it; takes some ten seconds."""
        return self._parts.diagnostics.self_test(progress)

    # --- saved states ---

    def states(self, workload: str | None = None) -> Sequence[StateView]:
        """Of one workload or of all, by instance, newest first. Raises NotFound."""
        return self._states.list(workload)

    def verify_states(self, workload: str | None, report: Callable[[StateCheck], None]) -> Sequence[StateCheck]:
        """Read every byte of saved states; those that are damaged have a `problem`. Takes as long as the disk does."""
        return self._states.verify(workload, report)

    def remove_states(self, workload: str, generation: int) -> RemovedStates:
        """Remove a spent state of every instance of the workload. Raises NotFound, Conflict."""
        return self._states.remove(workload, generation)

    def collect_states(self) -> int:
        """Remove leftovers that nobody needs; the bytes that this freed. Waits for the operation under way."""
        return self._states.collect()

    # --- images ---

    def images(self) -> Sequence[Image]:
        return self._parts.images.list()

    def images_in_the_making(self) -> Sequence[str]:
        """Names of those that are being copied or built now."""
        return tuple(self._images_in_the_making)

    def add_image(self, name: str, path: str) -> Image:
        with self._making(name):
            return self._parts.images.add(name, path)

    def build_image(self, name: str, recipe: str, progress: Callable[[str], None]) -> Image:
        with self._making(name):
            return self._parts.images.build(name, recipe, progress)

    def remove_image(self, name: str) -> None:
        """Raises Conflict while an instance is made from it."""
        users = [w.name for w in self._parts.inventory.workloads() if w.image == name]
        if users:
            raise Conflict(f"image {name} is in use", detail=f"by {', '.join(users)}", remedy="delete these first")
        self._parts.images.remove(name)

    @contextmanager
    def _making(self, image: str) -> Iterator[None]:
        self._images_in_the_making.append(image)
        try:
            yield
        finally:
            self._images_in_the_making.remove(image)

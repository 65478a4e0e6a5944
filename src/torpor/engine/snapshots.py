"""Requests about snapshots: take, list, restore, remove, clone."""

from collections.abc import Sequence
from dataclasses import replace

from torpor.domain.errors import Conflict, NotFound, Refused
from torpor.domain.instance import Instance
from torpor.domain.naming import check_label
from torpor.domain.operation import OperationKind
from torpor.domain.plan import Gang, Plan
from torpor.domain.planner import plan_start, snapshot_seconds
from torpor.domain.wording import listed
from torpor.domain.workload import Workload, WorkloadState
from torpor.engine.acceptance import accept, draft_clone, require_possible
from torpor.engine.loop import Loop
from torpor.engine.operations import begin, expect
from torpor.engine.parts import Parts, Settings
from torpor.engine.reading import Reader
from torpor.engine.records import Records
from torpor.engine.views import Accepted, CloneRequest, InstanceSnapshot, OperationView, SnapshotView

_AT_REST = (WorkloadState.ACTIVE, WorkloadState.SUSPENDED, WorkloadState.FAILED, WorkloadState.DONE)


class SnapshotRequests:
    """What may be asked for about snapshots. Acts are done by operations, which come back at once."""

    def __init__(self, parts: Parts, records: Records, settings: Settings, loop: Loop, reader: Reader) -> None:
        self._parts = parts
        self._records = records
        self._settings = settings
        self._loop = loop
        self._read = reader

    def list(self, workload: str | None = None) -> Sequence[SnapshotView]:
        """Of one workload or of all, oldest first. Raises NotFound for an unknown workload."""
        chosen = self._parts.inventory.workloads() if workload is None else [self._records.named(workload)]
        return [view for each in chosen for view in self._views(each)]

    def show(self, workload: str, name: str) -> SnapshotView:
        """Raises NotFound."""
        return self._find(self._records.named(workload), name)

    def create(self, workload: str, name: str) -> OperationView:
        """Begin to take a snapshot of an active workload. Raises Refused, Conflict, Invalid, NotFound."""
        check_label(name, "snapshot name", "it becomes the name of a folder")
        with self._records.lock:
            found = self._records.named(workload)
            self._require_able()
            if found.state is WorkloadState.SUSPENDED:
                raise Conflict(
                    f"no snapshot is taken of {workload}",
                    detail="it is suspended, and so on disk already",
                    remedy=f"`torpor resume {workload}` first",
                )
            expect(self._parts, found, WorkloadState.ACTIVE)
            if any(s.name == name for i in self._records.instances(found.id) for s in self._parts.snapshots.list(i.id)):
                raise Conflict(
                    f"there is a snapshot {name} of {workload} already",
                    remedy=f"choose another name, or `torpor snapshot rm {workload} {name}` first",
                )
            world = self._loop.queue.world()
            gang = next(g for g in world.gangs if g.workload.id == found.id)
            seconds = round(snapshot_seconds(world, gang), 3)
            return self._begin(OperationKind.SNAPSHOT, found, name, f"snapshot {name}", seconds)

    def restore(self, workload: str, name: str) -> OperationView:
        """Begin to take a workload back to a snapshot; then it runs on from there as soon as it fits.

        What it has in memory and on its disks now is lost. Raises Refused, Conflict, NotFound.
        """
        with self._records.lock:
            found = self._records.named(workload)
            self._require_able()
            self._find(found, name)
            expect(self._parts, found, WorkloadState.ACTIVE, WorkloadState.SUSPENDED, WorkloadState.FAILED)
            if found.protect and found.state is WorkloadState.ACTIVE:
                raise Refused(f"workload {workload} is not taken back", detail="it is protected, and runs")
            self._loop.queue.forgive(found.id)
            return self._begin(OperationKind.RESTORE_SNAPSHOT, found, name, f"taken back to snapshot {name}")

    def remove(self, workload: str, name: str) -> OperationView:
        """Begin to remove a snapshot. Raises Conflict while a clone is still to be made of it, NotFound."""
        with self._records.lock:
            found = self._records.named(workload)
            if not any(
                s.name == name for i in self._records.instances(found.id) for s in self._parts.snapshots.list(i.id)
            ):
                raise _unknown(workload, name)
            self.require_unneeded(found, name)
            expect(self._parts, found, *_AT_REST)
            return self._begin(OperationKind.REMOVE_SNAPSHOT, found, name, f"snapshot {name} is removed")

    def clone(self, request: CloneRequest) -> Accepted:
        """Accept a workload that goes on from a snapshot of another, as soon as there is room.

        Raises Refused, Conflict, Invalid, NotFound, AddressPoolEmpty.
        """
        with self._records.lock:
            plan = self.plan_clone(request)
            require_possible(plan)
            workload, instances = self._draft(request)
            accept(self._parts, workload, instances)
            self._records.event(
                "workload-accepted", workload.name,
                f"{workload.count} x clone of {request.workload} at its snapshot {request.snapshot}.",
            )  # fmt: skip
            view = self._read.workload(workload)
        self._loop.wake()
        return Accepted(view, replace(plan, workload=workload.id))

    def plan_clone(self, request: CloneRequest) -> Plan:
        """What `clone` would lead to; nothing is changed."""
        with self._records.lock:
            workload, instances = self._draft(request)
            world = self._loop.queue.world()
            return plan_start(replace(world, gangs=(*world.gangs, Gang(workload, instances))), workload.id)

    def require_unneeded(self, workload: Workload, name: str | None = None) -> None:
        """Raises Conflict while a clone is still to be made of this snapshot, or of any of the workload's."""
        waiting = [
            w.name
            for w in self._parts.inventory.workloads()
            if w.state is WorkloadState.PENDING
            and w.origin is not None
            and w.origin.workload == workload.id
            and name in (None, w.origin.snapshot)
        ]
        if waiting:
            raise Conflict(
                f"{f'snapshot {name}' if name else 'a snapshot'} of {workload.name} is still needed",
                detail=f"{listed(waiting)} will be made of it",
                remedy=f"wait until {listed(waiting)} runs, or delete it first",
            )

    # --- parts of the above ---

    def _draft(self, request: CloneRequest) -> tuple[Workload, tuple[Instance, ...]]:
        source = self._records.named(request.workload)
        self._require_able()
        if not self._parts.hypervisor.capabilities().clones:
            raise Refused(
                f"{request.name} was not made",
                detail="this backend can't give the memory of one VM to another",
                remedy="restore the snapshot, or run a new workload",
            )
        self._find(source, request.snapshot)
        return draft_clone(self._parts, self._settings, request, source)

    def _begin(
        self, kind: OperationKind, workload: Workload, name: str, reason: str, seconds: float | None = None
    ) -> OperationView:
        operation = begin(self._parts, self._records, kind, workload, reason, seconds, snapshot=name)
        self._loop.wake()
        return OperationView(operation, 0, 0)

    def _require_able(self) -> None:
        if not self._parts.hypervisor.capabilities().snapshots:
            raise Refused(
                "there are no snapshots here",
                detail="this backend can't take them together with memory",
                remedy="suspend the workload instead, or keep its disks by the backend's own means",
            )

    def _find(self, workload: Workload, name: str) -> SnapshotView:
        for view in self._views(workload):
            if view.name == name:
                return view
        raise _unknown(workload.name, name)

    def _views(self, workload: Workload) -> Sequence[SnapshotView]:
        """Those that every instance has; others are being taken, or removed."""
        instances = self._records.instances(workload.id)
        found: dict[str, list[InstanceSnapshot]] = {}
        for instance in instances:
            for snapshot in self._parts.snapshots.list(instance.id):
                found.setdefault(snapshot.name, []).append(InstanceSnapshot(instance.name, snapshot))
        return [
            SnapshotView(workload.name, name, tuple(parts))
            for name, parts in found.items()
            if len(parts) == len(instances)
        ]


def _unknown(workload: str, name: str) -> NotFound:
    return NotFound(f"there is no snapshot {name[:80]!r} of {workload}", remedy=f"see `torpor snapshot ls {workload}`")

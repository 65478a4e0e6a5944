"""The records in memory: same rules and same errors as in SQL, gone with the process.

They are for trying things out and for tests; the contract suite runs on them and on SQL alike.
"""

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from threading import Lock

from torpor.domain.addressing import LastAddress
from torpor.domain.books import check_room, check_total, newest
from torpor.domain.capacity import Claim, ClaimKind, Host, Resources
from torpor.domain.errors import Conflict, Invalid, NotFound, Problem
from torpor.domain.ids import HostId, InstanceId, OperationId, WorkloadId
from torpor.domain.instance import Instance
from torpor.domain.operation import Operation, OperationStatus, Step, StepStatus
from torpor.domain.timing import TimingModel
from torpor.domain.uniqueness import check_instances_untaken, check_workload_untaken
from torpor.domain.workload import Workload
from torpor.ports import Event

_OPEN = (OperationStatus.FORWARD, OperationStatus.UNDOING)


class FakeLedger:
    """`ports.Ledger` in memory."""

    def __init__(self) -> None:
        self._totals: dict[HostId, Resources] = {}
        self._claims: dict[tuple[InstanceId, ClaimKind], Claim] = {}
        self._lock = Lock()

    def hosts(self) -> Sequence[Host]:
        with self._lock:
            return tuple(self._hosts(self._claims.values()).values())

    def set_host(self, host: HostId, total: Resources) -> None:
        with self._lock:
            known = self._hosts(self._claims.values()).get(host)
            check_total(host, total, known.used if known else Resources())
            self._totals[host] = total

    def claims(self) -> Sequence[Claim]:
        with self._lock:
            return tuple(self._claims[key] for key in sorted(self._claims))

    def claim(self, claims: Sequence[Claim], instead_of: Sequence[InstanceId] = ()) -> None:
        wanted = {(c.consumer, c.kind): c for c in newest(claims)}
        gone = wanted.keys() | {(consumer, ClaimKind.COMPUTE) for consumer in instead_of}
        with self._lock:
            kept = {key: claim for key, claim in self._claims.items() if key not in gone}
            check_room(self._hosts(kept.values()), tuple(wanted.values()))
            self._claims = kept | wanted

    def release(self, consumers: Sequence[InstanceId], kinds: Sequence[ClaimKind]) -> None:
        with self._lock:
            for key in [(consumer, kind) for consumer in consumers for kind in kinds]:
                self._claims.pop(key, None)

    def _hosts(self, claims: Iterable[Claim]) -> dict[HostId, Host]:
        used = dict.fromkeys(self._totals, Resources())
        for claim in claims:
            used[claim.host] += claim.resources
        return {id: Host(id, self._totals[id], used[id]) for id in sorted(self._totals)}


class FakeJournal:
    """`ports.Journal` in memory."""

    def __init__(self, *, keep: int = 2_000) -> None:
        self._keep = keep
        self._operations: dict[OperationId, Operation] = {}
        self._lock = Lock()

    def begin(self, operation: Operation) -> None:
        with self._lock:
            if operation.id in self._operations:
                raise Conflict(f"operation {operation.id} has been begun before")
            self._operations[operation.id] = operation

    def intend(self, operation: OperationId, step: int, at: float) -> None:
        self._change_step(
            operation,
            step,
            lambda s: replace(s, status=StepStatus.INTENDED, started_at=at, ended_at=None, detail="", skew=None),
        )

    def record(
        self,
        operation: OperationId,
        step: int,
        status: StepStatus,
        at: float,
        detail: str = "",
        skew: float | None = None,
    ) -> None:
        self._change_step(operation, step, lambda s: replace(s, status=status, ended_at=at, detail=detail, skew=skew))

    def turn_back(self, operation: OperationId, problem: Problem) -> None:
        self._change(operation, lambda o: replace(o, status=OperationStatus.UNDOING, problem=problem))

    def finish(self, operation: OperationId, status: OperationStatus, at: float) -> None:
        if status in _OPEN:
            raise Invalid(f"operation {operation} can't end as {status}")
        self._change(operation, lambda o: replace(o, status=status, ended_at=at))
        with self._lock:
            for old in list(self._operations.values())[: -self._keep]:
                if not old.open:
                    del self._operations[old.id]

    def get(self, operation: OperationId) -> Operation:
        with self._lock:
            return self._find(operation)

    def open(self) -> Sequence[Operation]:
        with self._lock:
            return tuple(o for o in self._operations.values() if o.open)

    def recent(self, limit: int) -> Sequence[Operation]:
        with self._lock:
            return tuple(reversed(self._operations.values()))[: max(0, limit)]

    def _change(self, operation: OperationId, change: Callable[[Operation], Operation]) -> None:
        with self._lock:
            found = self._find(operation)
            if not found.open:
                raise Conflict(f"operation {operation} can't be changed", detail=f"it has ended as {found.status}")
            self._operations[operation] = change(found)

    def _change_step(self, operation: OperationId, step: int, change: Callable[[Step], Step]) -> None:
        def changed(found: Operation) -> Operation:
            if all(s.index != step for s in found.steps):
                raise NotFound(f"operation {operation} has no step {step}")
            return replace(found, steps=tuple(change(s) if s.index == step else s for s in found.steps))

        self._change(operation, changed)

    def _find(self, operation: OperationId) -> Operation:
        if operation not in self._operations:
            raise NotFound(f"there is no operation {operation}")
        return self._operations[operation]


class FakeInventory:
    """`ports.Inventory` in memory; of the last addresses it keeps those of the last `keep` names."""

    def __init__(self, *, keep: int = 10_000) -> None:
        self._keep = keep
        self._workloads: dict[WorkloadId, Workload] = {}
        self._instances: dict[InstanceId, Instance] = {}
        self._last: dict[str, LastAddress] = {}
        self._lock = Lock()

    def add(self, workload: Workload, instances: Sequence[Instance]) -> None:
        with self._lock:
            check_workload_untaken(workload, self._workloads.values())
            check_instances_untaken(workload, instances, self._owned())
            self._workloads[workload.id] = workload
            self._instances |= {instance.id: instance for instance in instances}

    def workloads(self) -> Sequence[Workload]:
        with self._lock:
            return tuple(self._workloads.values())

    def workload(self, id: WorkloadId) -> Workload:
        with self._lock:
            return self._find(id)

    def instances(self, workload: WorkloadId | None = None) -> Sequence[Instance]:
        with self._lock:
            age = {id: place for place, id in enumerate(self._workloads)}
            found = [i for i in self._instances.values() if workload is None or i.workload == workload]
            return tuple(sorted(found, key=lambda i: (age[i.workload], i.index)))

    def update(self, workload: Workload) -> None:
        with self._lock:
            self._find(workload.id)
            check_workload_untaken(workload, [w for w in self._workloads.values() if w.id != workload.id])
            self._workloads[workload.id] = workload

    def update_instance(self, instance: Instance) -> None:
        with self._lock:
            if instance.id not in self._instances:
                raise NotFound(f"there is no instance {instance.name}", detail=f"nothing is known of {instance.id}")
            owner = self._find(instance.workload)
            others = [(name, i) for name, i in self._owned() if i.id != instance.id]
            check_instances_untaken(owner, [instance], others)
            self._instances[instance.id] = instance

    def remove(self, workload: WorkloadId, remember: bool = False) -> None:
        with self._lock:
            if remember:
                self._remember(workload)
            self._workloads.pop(workload, None)
            self._instances = {id: i for id, i in self._instances.items() if i.workload != workload}

    def last_addresses(self) -> Mapping[str, LastAddress]:
        with self._lock:
            return dict(self._last)

    def _remember(self, workload: WorkloadId) -> None:
        leaving = [i for i in self._instances.values() if i.workload == workload and i.address and i.mac]
        for instance in sorted(leaving, key=lambda i: i.index):
            self._last.pop(instance.name, None)
            self._last[instance.name] = LastAddress(instance.address, instance.mac, instance.network)
        self._last = dict(list(self._last.items())[-self._keep :])

    def _find(self, id: WorkloadId) -> Workload:
        if id not in self._workloads:
            raise NotFound(f"there is no workload {id}")
        return self._workloads[id]

    def _owned(self) -> list[tuple[str, Instance]]:
        return [(self._workloads[i.workload].name, i) for i in self._instances.values()]


class FakeHistory:
    """`ports.History` in memory; of the events it keeps the last `keep`."""

    def __init__(self, *, keep: int = 10_000) -> None:
        self._events: deque[Event] = deque(maxlen=keep)
        self._timings: dict[tuple[HostId, str], TimingModel] = {}
        self._lock = Lock()

    def record(self, event: Event) -> None:
        with self._lock:
            self._events.append(event)

    def events(self, limit: int, subject: str | None = None) -> Sequence[Event]:
        with self._lock:
            found = [e for e in self._events if subject is None or e.subject == subject]
        return tuple(found[-limit:]) if limit > 0 else ()

    def timing(self, host: HostId, kind: str) -> TimingModel | None:
        with self._lock:
            return self._timings.get((host, kind))

    def learn(self, host: HostId, kind: str, model: TimingModel) -> None:
        with self._lock:
            self._timings[host, kind] = model

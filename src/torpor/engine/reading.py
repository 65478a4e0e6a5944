"""Records and observations, joined for reading."""

from collections.abc import Mapping, Sequence

from torpor.domain.ids import InstanceId, OperationId
from torpor.domain.instance import BackendState, Instance, Observation
from torpor.domain.operation import Operation
from torpor.domain.workload import Workload, WorkloadState
from torpor.engine.execute import Executor
from torpor.engine.parts import Parts, Settings
from torpor.engine.queue import Queue
from torpor.engine.records import Records
from torpor.engine.views import HostView, InstanceView, NameView, OperationView, WorkloadView

_ABSENT = Observation(BackendState.ABSENT)


class Reader:
    """Makes the views; changes nothing."""

    def __init__(self, parts: Parts, records: Records, settings: Settings, executor: Executor, queue: Queue) -> None:
        self._parts = parts
        self._records = records
        self._settings = settings
        self._executor = executor
        self._queue = queue

    def workloads(self) -> Sequence[WorkloadView]:
        seen = self._parts.hypervisor.observe()
        busy = self._open_operations()
        instances: dict[str, list[Instance]] = {}
        for instance in self._parts.inventory.instances():
            instances.setdefault(instance.workload, []).append(instance)
        return [self._view(w, instances.get(w.id, []), seen, busy.get(w.id)) for w in self._parts.inventory.workloads()]

    def workload(self, workload: Workload) -> WorkloadView:
        seen = self._parts.hypervisor.observe()
        fresh = self._records.workload(workload.id)
        return self._view(fresh, self._records.instances(fresh.id), seen, self._open_operations().get(fresh.id))

    def operations(self, limit: int) -> Sequence[OperationView]:
        return [self._operation(o) for o in self._parts.journal.recent(limit)]

    def operation(self, id: str) -> OperationView:
        return self._operation(self._parts.journal.get(OperationId(id)))

    def hosts(self) -> Sequence[HostView]:
        seen = self._parts.hypervisor.observe()
        local = self._parts.hypervisor.host().id
        states = sum(
            s.stored_bytes for i in self._parts.inventory.instances() for s in self._parts.suspension.states(i.id)
        )
        return [
            HostView(
                host,
                process_bytes=sum(o.process_bytes for o in seen.values()) if host.id == local else 0,
                instances=len(seen) if host.id == local else 0,
                state_bytes=states if host.id == local else 0,
                states_limit_mb=self._settings.policy.states_mb,
            )
            for host in self._parts.ledger.hosts()
        ]

    def names(self) -> Sequence[NameView]:
        published = {(r.name, r.address) for r in self._parts.names.records()}
        workloads = {w.id: w for w in self._parts.inventory.workloads()}
        return [
            NameView(
                name=i.name,
                fqdn=f"{i.name}.{self._settings.zone}",
                address=i.address,
                mac=i.mac,
                workload=workloads[i.workload].name,
                workload_state=workloads[i.workload].state,
                address_state=i.address_state,
                address_detail=i.address_detail,
                published=(i.name, i.address) in published,
            )
            for i in self._parts.inventory.instances()
            if i.workload in workloads
        ]

    def _view(
        self,
        workload: Workload,
        instances: Sequence[Instance],
        seen: Mapping[InstanceId, Observation],
        operation: Operation | None,
    ) -> WorkloadView:
        return WorkloadView(
            workload=workload,
            instances=tuple(self._instance(i, seen.get(i.id, _ABSENT)) for i in instances),
            ran_seconds=workload.ran(self._parts.clock.now()),
            waiting_for=self._waiting_for(workload),
            operation=self._operation(operation) if operation else None,
        )

    def _instance(self, instance: Instance, seen: Observation) -> InstanceView:
        return InstanceView(
            instance=instance,
            fqdn=f"{instance.name}.{self._settings.zone}",
            backend_state=seen.state,
            pid=seen.pid,
            resident_bytes=seen.resident_bytes,
            process_bytes=seen.process_bytes,
            states=tuple(self._parts.suspension.states(instance.id)),
            console_log=self._settings.console_log.format(instance=instance.id),
        )

    def _waiting_for(self, workload: Workload) -> str:
        if workload.state not in (WorkloadState.PENDING, WorkloadState.SUSPENDED):
            return ""
        if workload.held:
            return workload.reason or "suspended by hand"
        return next((p.reason for p in self._queue.waiting if p.workload == workload.id), "")

    def _operation(self, operation: Operation) -> OperationView:
        done, total = self._executor.progress(operation.id)
        return OperationView(operation, done, total)

    def _open_operations(self) -> dict[str, Operation]:
        return {o.workload: o for o in self._parts.journal.open()}

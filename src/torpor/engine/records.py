"""Changing records: read, replace fields, write, under one lock, so that no thread undoes another's change."""

import threading
from dataclasses import replace
from typing import Any

from torpor.domain.errors import NotFound
from torpor.domain.ids import InstanceId, WorkloadId
from torpor.domain.instance import Instance
from torpor.domain.workload import Workload
from torpor.engine.parts import Parts
from torpor.ports import Event


class Records:
    """The workloads' and instances' records, as the engine changes them."""

    def __init__(self, parts: Parts) -> None:
        self._inventory = parts.inventory
        self._history = parts.history
        self._clock = parts.clock
        self.lock = threading.RLock()
        """Held while records are changed, and by whoever decides on the strength of them."""

    def workload(self, id: WorkloadId) -> Workload:
        return self._inventory.workload(id)

    def named(self, name: str) -> Workload:
        """The workload of that name. Raises NotFound."""
        for workload in self._inventory.workloads():
            if workload.name == name:
                return workload
        raise NotFound(f"there is no workload {name!r}", remedy="see `torpor ps`")

    def instances(self, workload: WorkloadId) -> tuple[Instance, ...]:
        return tuple(self._inventory.instances(workload))

    def change(self, id: WorkloadId, **fields: Any) -> Workload:
        """Replace these fields of the workload's record."""
        with self.lock:
            workload = replace(self._inventory.workload(id), **fields)
            self._inventory.update(workload)
            return workload

    def change_instance(self, workload: WorkloadId, id: InstanceId, **fields: Any) -> None:
        """Replace these fields of the instance's record; nothing if it is gone."""
        with self.lock:
            for instance in self._inventory.instances(workload):
                if instance.id == id:
                    self._inventory.update_instance(replace(instance, **fields))

    def event(self, kind: str, subject: str, message: str) -> None:
        self._history.record(Event(self._clock.now(), kind, subject, message))

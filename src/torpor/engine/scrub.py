"""Guests that run on their saved state, unverified: each of those states is read once, behind the guest.

That is the verification which a lazy restore puts off, and the prefetch. A guest below which a bad chunk shows is
stopped with its whole gang before it reads on; nothing is done about it but what somebody asks for.
"""

import threading
import time
from collections.abc import Sequence
from contextlib import suppress

from torpor.domain.errors import NotFound, StateDamaged, TorporError
from torpor.domain.ids import InstanceId
from torpor.domain.instance import Instance, SavedState
from torpor.domain.workload import Workload, WorkloadState
from torpor.engine.execute import Executor
from torpor.engine.parts import Parts
from torpor.engine.records import Records
from torpor.engine.states import damage

_MIB = 1 << 20
_AGAIN_SECONDS = 60.0
"""Pause before a state is tried again that could not be read."""


class Stopped(Exception):
    """The daemon is to end; the state is read anew at its next start."""


class Scrub:
    """One round looks at every guest that it has not looked at since that guest got its process."""

    def __init__(self, parts: Parts, records: Records, executor: Executor) -> None:
        self._parts = parts
        self._records = records
        self._executor = executor
        self._done: dict[InstanceId, int] = {}
        """By instance, the process that needs no further look."""
        self._not_before: dict[InstanceId, float] = {}
        self.stopping = threading.Event()
        """Set: what is being read is left."""

    def round(self) -> bool:
        """Returns whether a gang was stopped."""
        active = [w for w in self._parts.inventory.workloads() if w.state is WorkloadState.ACTIVE]
        if not active:
            return False
        seen = self._parts.hypervisor.observe()
        self._done = {id: pid for id, pid in self._done.items() if id in seen}
        stopped = False
        for workload in active:
            for instance in self._records.instances(workload.id):
                process = seen[instance.id].pid if instance.id in seen else None
                if process is not None and self._due(instance.id, process):
                    stopped |= self._look_at(workload, instance, process)
        return stopped

    def _due(self, instance: InstanceId, process: int) -> bool:
        waits = self._parts.clock.now() < self._not_before.get(instance, 0.0)
        return self._done.get(instance) != process and not waits

    def _look_at(self, workload: Workload, instance: Instance, process: int) -> bool:
        state = next(iter(self._parts.suspension.states(instance.id)), None)
        if state is None or not self._parts.states.mapped(instance.id):
            self._done[instance.id] = process
            return False
        try:
            self._verify(instance, state)
        except StateDamaged as error:
            self._done[instance.id] = process
            return self._stop(workload, instance, state, error)
        except NotFound:
            return False  # suspended meanwhile: what it came from has gone
        except Stopped:
            return False
        except TorporError as error:
            self._put_off(workload, instance, state, error)
            return False
        self._done[instance.id] = process
        return False

    def _verify(self, instance: Instance, state: SavedState) -> None:
        began = time.monotonic()
        self._parts.states.verify(instance.id, state.generation, self._progress)
        self._records.event(
            "state-verified",
            instance.name,
            f"Saved state {state.generation}, on which {instance.name} runs, is whole: "
            f"{state.memory_bytes // _MIB} MiB read in {time.monotonic() - began:.1f} s.",
        )

    def _progress(self, done: int, total: int) -> None:
        if self.stopping.is_set():
            raise Stopped

    def _put_off(self, workload: Workload, instance: Instance, state: SavedState, error: TorporError) -> None:
        self._not_before[instance.id] = self._parts.clock.now() + _AGAIN_SECONDS
        problem = damage(workload, instance, state, True, error)
        self._records.event("state-not-verified", instance.name, problem.sentence)

    def _stop(self, workload: Workload, instance: Instance, state: SavedState, error: StateDamaged) -> bool:
        """Pause the gang and record why. Between the two a crash does no harm: it is let run on, and read anew."""
        with self._executor.at_rest(), self._records.lock:
            fresh = self._find(workload)
            if fresh is None or not self._parts.states.mapped(instance.id):
                return False  # suspended, or deleted, before it was its turn
            self._pause(self._records.instances(workload.id))
            problem = damage(workload, instance, state, True, error)
            self._records.change_instance(workload.id, instance.id, problem=problem)
            self._records.change(
                workload.id,
                state=WorkloadState.FAILED,
                problem=problem,
                reason=problem.what,
                running_since=None,
                ran_for=fresh.ran(self._parts.clock.now()),
            )
            self._records.event("state-damaged", instance.name, problem.sentence)
        return True

    def _pause(self, gang: Sequence[Instance]) -> None:
        with suppress(TorporError):  # jobs on them are better suspended, but bad memory must not be read on
            self._parts.batch_system.before_suspend([i.name for i in gang])
        self._parts.gangs.pause([i.id for i in gang])

    def _find(self, workload: Workload) -> Workload | None:
        """The workload, if it still runs and nothing is being done to it."""
        busy = any(o.workload == workload.id for o in self._parts.journal.open())
        try:
            fresh = self._records.workload(workload.id)
        except NotFound:
            return None
        return fresh if fresh.state is WorkloadState.ACTIVE and not busy else None

"""One round of the engine: recover, look, decide, act. Synchronous; `loop.py` calls it again and again."""

import logging
import threading
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from torpor.domain.errors import Conflict, NotFound
from torpor.domain.ids import InstanceId, OperationId, WorkloadId
from torpor.domain.instance import SavedState
from torpor.domain.operation import Operation, OperationKind, OperationStatus
from torpor.domain.plan import Action, Gang, Plan, World
from torpor.domain.planner import PRIORS, due_to_end, next_plan
from torpor.domain.workload import WorkloadState
from torpor.engine.adoption import Adopter
from torpor.engine.execute import Executor
from torpor.engine.observe import gangs, observe, snapshot_bytes, without_compute
from torpor.engine.operations import begin
from torpor.engine.owners import Owners
from torpor.engine.parts import Parts, Settings
from torpor.engine.reconcile import Reconciler
from torpor.engine.records import Records

log = logging.getLogger(__name__)

RETRY_SECONDS = 2.0
"""Pause before an operation or a workload that failed is tried again; doubled with every failure."""
RETRY_MOST = 60.0
_DOUBLINGS = 10
"""After as many failures the pause is the longest anyway."""
_BY_HAND = (OperationKind.SNAPSHOT, OperationKind.RESTORE_SNAPSHOT, OperationKind.REMOVE_SNAPSHOT)
"""Leave the workload's state as it is, at least at first; whoever asked sees what came of it."""
DECIDE_SECONDS = 5.0
"""How often it is decided anew when nobody asked and nothing happened: time alone may make a plan possible."""


@dataclass(frozen=True, slots=True)
class _Later:
    at: float
    why: str


class Queue:
    """Decides what is done next, and has it done."""

    def __init__(self, parts: Parts, records: Records, settings: Settings, executor: Executor) -> None:
        self._parts = parts
        self._records = records
        self._settings = settings
        self._executor = executor
        self._owners = Owners(parts, records, settings)
        self._reconciler = Reconciler(parts, records, self._owners)
        self._shared = parts.hypervisor.capabilities().adoption
        self.adopter = Adopter(parts, records)
        self._later: dict[str, _Later] = {}
        self._waiting: tuple[Plan, ...] = ()
        self._tried: dict[OperationId, int] = {}
        self._decide_at = 0.0
        executor.let_decide(self._begin_next_in_place_of)
        self.stopping = threading.Event()
        """Set: no new operation is begun; the one under way goes on, for its guests may stand still."""
        self.draining = threading.Event()
        """Set: nothing is started or resumed; what is asked for by hand is still done."""

    @property
    def waiting(self) -> tuple[Plan, ...]:
        """Plans of the workloads that wait, in the order of the queue, as of the last round."""
        return self._waiting

    def look(self) -> tuple[Plan, ...]:
        """The queue as it would be decided upon now; nothing is changed."""
        with self._records.lock:
            return self._decide()[1]

    def start(self) -> None:
        """Before the first round: put the books right with what is there."""
        host = self._parts.hypervisor.host()
        if self._shared:
            self._owners.keep_books(self._parts.hypervisor.observe())
            self._reconciler.audit(self._parts.hypervisor.observe())
            return
        try:
            self._parts.ledger.set_host(host.id, host.total)
        except Conflict as error:
            # The books keep the larger host until enough is given back; what runs is looked after all the same.
            self._records.event("host-too-small", host.id, str(error))
        self._reconciler.audit(self._parts.hypervisor.observe())

    def tick(self, asked: bool = True) -> bool:
        """One round. Returns whether something was done, so that another round is due at once.

        `asked`: somebody may have changed what there is to decide. Otherwise decisions are made anew
        only when something was done, or now and then.
        """
        requests = self.adopter.requests
        strangers = self._parts.adoption.strangers() if self._shared else ()
        seen = self._parts.hypervisor.observe()
        with self._records.lock:
            busy = self.busy()
            if self._shared:
                if requests == self.adopter.requests:
                    self.adopter.follow(strangers, busy)
                self._owners.keep_books(seen)
            found = gangs(self._parts, seen)
            self._reconciler.reconcile(found, busy, self._put_off_now(), seen)
            self._begin_ends(found, busy)
        done = self._go_on()
        now = self._parts.clock.now()
        if done or asked:
            self._decide_at = now
        if done or now < self._decide_at or self.draining.is_set() or self.stopping.is_set():
            return done
        self._decide_at = now + DECIDE_SECONDS
        return self._start_next()

    def busy(self) -> set[WorkloadId]:
        """Workloads that an operation is changing."""
        return {o.workload for o in self._parts.journal.open()}

    def world(self) -> World:
        """The world as the planner is to see it."""
        world = observe(self._parts, self._settings)
        busy = self.busy()
        return replace(
            world,
            gangs=tuple(_left_alone(g) if g.workload.id in busy else self._spared(g, world.now) for g in world.gangs),
        )

    def _spared(self, gang: Gang, now: float) -> Gang:
        """Who could not be suspended a moment ago is no victim for a while."""
        later = self._later.get(gang.workload.id)
        if later is None or later.at <= now or gang.workload.state is not WorkloadState.ACTIVE:
            return gang
        return replace(gang, workload=replace(gang.workload, protect=True))

    def _decide(self, leaving: Collection[InstanceId] = ()) -> tuple[Plan | None, tuple[Plan, ...]]:
        """The plan to carry out, and those of all that wait; a failure that is waited out is named.

        Those who are `leaving` hold no vCPUs and no memory any more.
        """
        world = without_compute(self.world(), leaving)
        failures = {
            w: later
            for g in world.gangs
            if (later := self._later.get(w := g.workload.id)) is not None and later.at > world.now
        }
        chosen, plans = next_plan(world, {w: later.at for w, later in failures.items()})
        return chosen, tuple(
            replace(p, reason=failures[p.workload].why) if p.workload in failures and p.retry_at else p for p in plans
        )

    # --- operations that are open ---

    def _go_on(self) -> bool:
        done = False
        for operation in self._parts.journal.open():
            if self.stopping.is_set():
                return done
            later = self._later.get(operation.id)
            if later is None or later.at <= self._parts.clock.now():
                self._carry_out(operation)
                done = True
        return done

    def _carry_out(self, operation: Operation) -> Operation:
        fresh = operation.id not in self._tried and all(s.started_at is None for s in operation.steps)
        began = self._parts.clock.now()  # what is done before the first step takes its time too
        resident = self._bytes_to_move(operation) if fresh else {}
        ended = self._executor.carry_out(operation.id)
        if ended.open:
            self._tried[operation.id] = self._tried.get(operation.id, 0) + 1
            self._put_off(operation.id, self._tried[operation.id], "the operation could not go on")
            return ended
        self._tried.pop(operation.id, None)
        self._later.pop(operation.id, None)
        if ended.status is OperationStatus.SUCCEEDED:
            if operation.kind not in _BY_HAND:
                self._later.pop(operation.workload, None)
            self._learn(ended, resident, self._parts.clock.now() - began)
        elif operation.kind not in _BY_HAND:
            self._put_off_workload(ended)
        return ended

    def _put_off_workload(self, ended: Operation) -> None:
        try:
            attempts = self._records.workload(ended.workload).attempts
        except NotFound:
            return
        self._put_off(ended.workload, attempts, ended.problem.sentence if ended.problem else "")

    def _put_off(self, what: str, failures: int, why: str) -> None:
        pause = min(RETRY_MOST, RETRY_SECONDS * 2.0 ** min(max(0, failures - 1), _DOUBLINGS))
        self._later[what] = _Later(self._parts.clock.now() + pause, why)

    def _put_off_now(self) -> set[str]:
        """Operations and workloads whose last failure is being waited out."""
        now = self._parts.clock.now()
        return {what for what, later in self._later.items() if later.at > now}

    # --- what was measured ---

    def _bytes_to_move(self, operation: Operation) -> dict[InstanceId, int]:
        """What the prediction was made from: resident memory, or the saved states' memory."""
        instances = self._records.instances(operation.workload)
        if operation.kind is OperationKind.SUSPEND:
            return {i.id: self._parts.states.to_write(i.id) for i in instances}
        if operation.kind is OperationKind.SNAPSHOT:
            seen = self._parts.hypervisor.observe()
            return {i.id: seen[i.id].resident_bytes for i in instances if i.id in seen}
        if operation.kind is OperationKind.RESUME:
            newest: Mapping[InstanceId, SavedState | None] = {
                i.id: next(iter(self._parts.suspension.states(i.id)), None) for i in instances
            }
            return {i: s.memory_bytes for i, s in newest.items() if s is not None}
        if operation.kind is OperationKind.CLONE:
            return snapshot_bytes(self._parts, self._records.workload(operation.workload), instances)
        return {i.id: 0 for i in instances}

    def _learn(self, operation: Operation, moved: Mapping[InstanceId, int], seconds: float) -> None:
        """A gang counts as its mean instance: n x (fixed + bytes / rate) is linear in both."""
        hosts = {i.host for i in self._records.instances(operation.workload)}
        if not moved or operation.kind not in PRIORS:
            return
        for host in hosts:
            if host is not None:
                old = self._parts.history.timing(host, operation.kind) or PRIORS[operation.kind]
                model = old.learn(sum(moved.values()) // len(moved), seconds / len(moved))
                self._parts.history.learn(host, operation.kind, model)

    # --- decisions ---

    def _begin_ends(self, found: tuple[Gang, ...], busy: Collection[WorkloadId]) -> None:
        """Workloads whose duration is over, or whose commands have all finished."""
        world = World(self._parts.clock.now(), (), (), found, self._settings.policy)
        over = dict.fromkeys(due_to_end(world), "its duration is over")
        for gang in found:
            if gang.workload.command is not None and all(i.exit_code is not None for i in gang.instances):
                codes = sorted({i.exit_code for i in gang.instances if i.exit_code is not None})
                over[gang.workload.id] = f"its command finished (exit code {', '.join(map(str, codes))})"
        for id, reason in over.items():
            workload = self._records.workload(id)  # the reconciler may just have found it dead
            if workload.state is WorkloadState.ACTIVE and id not in busy:
                begin(self._parts, self._records, OperationKind.END, workload, reason)

    def _start_next(self) -> bool:
        with self._records.lock:
            chosen, self._waiting = self._decide()
            if chosen is None:
                return False
            first = self._begin_action(chosen.actions[0])
        self._tell(chosen)
        ended = self._carry_out(first)
        for action in chosen.actions[1:]:
            if ended.status is not OperationStatus.SUCCEEDED or self.stopping.is_set():
                break
            with self._records.lock:
                if not self._still_wanted(action):
                    break
                following = self._begin_action(action)
            ended = self._carry_out(following)
        return True

    def _begin_next_in_place_of(self, leaving: Sequence[InstanceId]) -> Operation | None:
        """Whoever comes back next to the room that these leave, if that disturbs nobody. A new workload is not begun
        so: it would hold the room while it has no server to hold it for."""
        if self.draining.is_set() or self.stopping.is_set():
            return None
        with self._records.lock:
            chosen, _ = self._decide(leaving)
            if chosen is None or [a.kind for a in chosen.actions] != [OperationKind.RESUME]:
                return None
            operation = self._begin_action(chosen.actions[0])
        self._tell(chosen)
        return operation

    def _begin_action(self, action: Action) -> Operation:
        workload = self._records.workload(action.workload)
        source = workload.origin.snapshot if workload.origin and action.kind is OperationKind.CLONE else ""
        return begin(
            self._parts,
            self._records,
            action.kind,
            workload,
            action.reason,
            action.predicted_seconds,
            action.placement,
            source,
        )

    def _still_wanted(self, action: Action) -> bool:
        """Somebody may have deleted or suspended it while the plan's earlier actions were carried out."""
        expected = {
            OperationKind.RUN: WorkloadState.PENDING,
            OperationKind.CLONE: WorkloadState.PENDING,
            OperationKind.RESUME: WorkloadState.SUSPENDED,
            OperationKind.SUSPEND: WorkloadState.ACTIVE,
        }[action.kind]
        try:
            workload = self._records.workload(action.workload)
        except NotFound:
            return False
        return workload.state is expected and not workload.held and workload.id not in self.busy()

    def _tell(self, plan: Plan) -> None:
        steps = ", then ".join(f"{a.kind} {a.name}" for a in plan.actions)
        self._records.event("plan", plan.name, f"{plan.reason}: {steps} ({plan.predicted_seconds:.1f} s predicted).")

    def forgive(self, workload: WorkloadId) -> None:
        """Somebody asked by hand: do not wait out earlier failures."""
        self._later.pop(workload, None)


def _left_alone(gang: Gang) -> Gang:
    """What an operation is changing is neither a victim nor waiting, whatever its state says."""
    return replace(gang, workload=replace(gang.workload, protect=True, held=True))

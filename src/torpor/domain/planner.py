"""What is to be done next, for one workload and for the queue. Plans are data; only the executor acts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from torpor.domain.forecast import (
    PRIORS,
    after,
    clone_seconds,
    predict,
    resume_seconds,
    run_seconds,
    snapshot_seconds,
    suspend_seconds,
)
from torpor.domain.ids import HostId, InstanceId, WorkloadId
from torpor.domain.operation import OperationKind
from torpor.domain.placement import Need, Room, free_room, needs, place, total_room, whole_needs
from torpor.domain.plan import Action, Gang, Plan, Verdict, World
from torpor.domain.reasons import no_room, no_state_room, too_large, too_many, too_young, victim_reason
from torpor.domain.safety import lacking_room, left_for_states
from torpor.domain.victims import Candidate, StateRoom, candidates, choose, room_after, sleepers
from torpor.domain.wording import listed
from torpor.domain.workload import Workload, WorkloadState

__all__ = [
    "PRIORS", "due_to_end", "next_plan", "plan_resume", "plan_start", "plan_suspend", "predict", "snapshot_seconds"
]  # fmt: skip

_NO_LIMIT = 1_000_000


@dataclass(frozen=True, slots=True)
class _Case:
    """One workload that asks for room, and all that its plan depends on."""

    world: World
    gang: Gang
    wanted: tuple[Need, ...]
    room: Room
    rivals: tuple[Candidate, ...]
    """Whoever may be its victim, young ones included."""

    @property
    def ripe(self) -> tuple[Candidate, ...]:
        return self.ripe_by(self.world.now)

    def ripe_by(self, at: float) -> tuple[Candidate, ...]:
        return tuple(rival for rival in self.rivals if rival.ripe_at <= at)

    @property
    def states(self) -> StateRoom:
        return StateRoom(left_for_states(self.world))

    @property
    def limit(self) -> int:
        return self.world.policy.max_victims


def plan_start(world: World, workload: WorkloadId) -> Plan:
    """What it takes to run a pending workload, or to resume a suspended one (or a failed one with saved states)."""
    return _plan(world, _gang(world, workload), sleepers(world))


def plan_resume(world: World, workload: WorkloadId) -> Plan:
    """What it takes to bring a suspended workload back. Refused for one that is not suspended."""
    gang = _gang(world, workload)
    if gang.workload.state is WorkloadState.PENDING:
        return _refused(gang, "it has not run yet; it starts by itself as soon as it fits")
    return plan_start(world, workload)


def plan_suspend(world: World, workload: WorkloadId) -> Plan:
    """Put a workload to sleep by hand; it need not be preemptible for that, nor have run for long."""
    gang = _gang(world, workload)
    if gang.workload.state is not WorkloadState.ACTIVE:
        return _refused(gang, f"it is {gang.workload.state.value}, and only an active workload can be suspended")
    if gang.workload.protect:
        return _refused(gang, "it is protected")
    lack = lacking_room(world, gang)
    if lack:
        return _refused(gang, lack)
    reason = "suspended by hand"
    action = Action(OperationKind.SUSPEND, workload, gang.workload.name, reason, round(suspend_seconds(world, gang), 3))
    return Plan(workload, gang.workload.name, Verdict.READY, reason, (action,))


def next_plan(
    world: World, not_before: Mapping[WorkloadId, float] | None = None
) -> tuple[Plan | None, tuple[Plan, ...]]:
    """The plan to carry out now, if any, and the plans of all that wait, in the order of the queue.

    The queue is by priority, then age; what is held stays out. The first plan that is ready is
    carried out, unless it would pass a waiting workload that it must not pass:

    - one of higher priority is passed only by who can be put to sleep again for it (preemptible, not
      protected, room on disk for its state) and suspends nobody;
    - one whose start is a matter of time only is passed only by who does not put that start off. So a victim does
      not come back while the one that it made room for waits for another victim to be old enough.

    A plan that may not pass is shown as waiting. Among equals the first that fits goes, so a
    large workload may be passed by small ones of its own priority. `not_before` says which
    workloads are not to be started before a moment, after a failure; they keep their place.
    """
    queue = waiting(world)
    rivals = sleepers(world)
    plans = [_delayed(_plan(world, gang, rivals), world, (not_before or {}).get(gang.workload.id)) for gang in queue]
    for index, (gang, plan) in enumerate(zip(queue, plans, strict=True)):
        if plan.verdict is not Verdict.READY:
            continue
        earlier = [(g, p) for g, p in zip(queue[:index], plans[:index], strict=True) if p.verdict is Verdict.WAIT]
        obstacle = _obstacle(world, gang, plan, earlier)
        if not obstacle:
            return plan, tuple(plans)
        plans[index] = replace(plan, verdict=Verdict.WAIT, reason=obstacle, actions=())
    return None, tuple(plans)


def waiting(world: World) -> tuple[Gang, ...]:
    """Workloads that want to run and don't, in the order of the queue."""
    gangs = [
        gang
        for gang in world.gangs
        if gang.workload.state in (WorkloadState.PENDING, WorkloadState.SUSPENDED) and not gang.workload.held
    ]
    return tuple(sorted(gangs, key=lambda gang: _turn(gang.workload)))


def due_to_end(world: World) -> tuple[WorkloadId, ...]:
    """Active workloads that have run for as long as they were to run, oldest first."""
    over = [
        gang.workload
        for gang in world.gangs
        if gang.workload.state is WorkloadState.ACTIVE
        and gang.workload.duration is not None
        and gang.workload.ran(world.now) >= gang.workload.duration
    ]
    return tuple(workload.id for workload in sorted(over, key=lambda w: (w.created_at, w.id)))


# --- one workload ---


def _plan(world: World, gang: Gang, among: Sequence[Candidate]) -> Plan:
    objection = _objection(world, gang)
    if objection:
        return _refused(gang, objection)
    wanted = needs(world, gang)
    case = _Case(world, gang, wanted, free_room(world), candidates(gang, wanted, among))
    placed = place(case.wanted, case.room)
    if placed is not None:
        return _ready(case, (), placed)
    victims = choose(case.wanted, case.room, case.ripe, case.limit, case.states)
    if victims is not None:
        placed = place(case.wanted, room_after(case.room, victims))
    return _ready(case, victims, placed) if victims and placed is not None else _not_now(case)


def _objection(world: World, gang: Gang) -> str:
    """Why the workload can't be started whatever else happens; empty when it can."""
    workload = gang.workload
    if workload.state is WorkloadState.FAILED:
        if not gang.instances or any(instance.id not in gang.state_bytes for instance in gang.instances):
            return "it failed, and has no saved state to go back to"
    elif workload.state not in (WorkloadState.PENDING, WorkloadState.SUSPENDED):
        return f"it is {workload.state.value}"
    if workload.state is not WorkloadState.PENDING and any(instance.host is None for instance in gang.instances):
        return "it is not known on which host its saved states are"
    if place(whole_needs(world, gang), total_room(world)) is None:
        return too_large(world, gang)
    return ""


def _ready(case: _Case, victims: Sequence[Candidate], placed: Mapping[InstanceId, HostId]) -> Plan:
    workload = case.gang.workload
    hosts = listed([f"host {host}" for host in sorted(set(placed.values()))])
    names = listed([f"{victim.name} (priority {victim.priority})" for victim in victims])
    reason = (
        f"it fits on {hosts} once {names} sleep{'s' if len(victims) == 1 else ''}"
        if victims
        else (f"it fits on {hosts}")
    )
    suspends = tuple(
        Action(
            OperationKind.SUSPEND,
            victim.gang.workload.id,
            victim.name,
            victim_reason(workload, victim),
            round(victim.suspend_seconds, 3),
        )
        for victim in sorted(victims, key=lambda v: (v.priority, v.name))
    )
    if workload.state is WorkloadState.PENDING:
        kind = OperationKind.RUN if workload.origin is None else OperationKind.CLONE
        seconds = (
            run_seconds(case.world, placed) if workload.origin is None else clone_seconds(case.world, case.gang, placed)
        )
        start = Action(kind, workload.id, workload.name, reason, round(seconds, 3), placed)
    else:
        seconds = resume_seconds(case.world, case.gang)
        start = Action(OperationKind.RESUME, workload.id, workload.name, reason, round(seconds, 3), placed)
    return Plan(workload.id, workload.name, Verdict.READY, reason, (*suspends, start))


def _not_now(case: _Case) -> Plan:
    """Nobody's sleep would do right now: find out why, the most telling reason first."""
    grown = _once_ripe(case)
    if grown is not None:
        return grown
    gang = case.gang
    many = choose(case.wanted, case.room, case.rivals, _NO_LIMIT, case.states)
    if many is not None:
        return _refused(gang, too_many(len(many), case.limit))
    roomless = choose(case.wanted, case.room, case.rivals, case.limit, StateRoom(ignored=True))
    if roomless is not None:
        return _wait(gang, no_state_room(case.wanted, case.room, roomless, case.states))
    return _wait(gang, no_room(case.world, gang, case.wanted, case.room, case.rivals))


def _once_ripe(case: _Case) -> Plan | None:
    """A plan to wait until enough victims have run for their minimum time, if that is all that is missing."""
    now = case.world.now
    for at in sorted({rival.ripe_at for rival in case.rivals if rival.ripe_at > now}):
        victims = choose(case.wanted, case.room, case.ripe_by(at), case.limit, case.states)
        if victims is not None:
            young = [victim for victim in victims if victim.ripe_at > now]
            return _wait(case.gang, too_young(young, now, case.world.policy), retry_at=at)
    return None


# --- the queue ---


def _delayed(plan: Plan, world: World, not_before: float | None) -> Plan:
    """The plan of a workload that is not to be started before a moment."""
    if not_before is None or not_before <= world.now or plan.verdict is Verdict.REFUSED:
        return plan
    if plan.verdict is Verdict.WAIT and plan.retry_at is None:
        return plan
    return replace(
        plan,
        verdict=Verdict.WAIT,
        reason="it is tried again after a failure",
        actions=(),
        retry_at=max(not_before, plan.retry_at or not_before),
    )


def _obstacle(world: World, gang: Gang, plan: Plan, earlier: Sequence[tuple[Gang, Plan]]) -> str:
    """Why the plan, ready by itself, must not be carried out before the waiting ones; empty when it may."""
    if not earlier:
        return ""
    later = world
    for action in plan.actions:
        later = after(later, action)
    started = next(other for other in later.gangs if other.workload.id == gang.workload.id)
    rivals = sleepers(later)
    for other, other_plan in earlier:
        behind = f"it would fit, but {other.workload.name} (priority {other.workload.priority}) is before it"
        if other.workload.priority > gang.workload.priority:
            if not gang.workload.preemptible or gang.workload.protect:
                return f"{behind}, and it could not be put to sleep again"
            if plan.victims:
                return f"{behind}, and others would have to sleep for it"
            if lacking_room(later, started):
                return f"{behind}, and it could not be put to sleep again: {lacking_room(later, started)}"
        if other_plan.retry_at is not None:
            then = _plan(later, other, rivals)
            if then.verdict is not Verdict.READY and (then.retry_at is None or then.retry_at > other_plan.retry_at):
                return f"{behind}, and would have to wait longer"
    return ""


def _turn(workload: Workload) -> tuple[int, float, str]:
    return (-workload.priority, workload.created_at, workload.id)


# --- small parts ---


def _gang(world: World, workload: WorkloadId) -> Gang:
    return next(gang for gang in world.gangs if gang.workload.id == workload)


def _refused(gang: Gang, reason: str) -> Plan:
    return Plan(gang.workload.id, gang.workload.name, Verdict.REFUSED, reason)


def _wait(gang: Gang, reason: str, retry_at: float | None = None) -> Plan:
    return Plan(gang.workload.id, gang.workload.name, Verdict.WAIT, reason, retry_at=retry_at)

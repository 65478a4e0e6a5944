"""Which workloads are put to sleep to make room for another."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

from torpor.domain.capacity import Claim, ClaimKind, Resources
from torpor.domain.forecast import resume_seconds, suspend_seconds
from torpor.domain.ids import HostId, InstanceId
from torpor.domain.placement import Need, Room, place
from torpor.domain.plan import Gang, World
from torpor.domain.safety import held_for_states, may_sleep, outranks, ripe_at, state_room

EXACT_UP_TO = 12
"""Candidates of which every subset is looked at; with more the search is greedy."""

Cost = tuple[int, float, int, float, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A workload that may be a victim, with what that would bring and cost."""

    gang: Gang
    frees: dict[HostId, Resources]
    """vCPUs and memory that it would release, by host."""
    state_mb: dict[HostId, int]
    """Disk that its saved state would take, by host."""
    suspend_seconds: float
    resume_seconds: float
    running_seconds: float
    """Since it last began to run."""
    ripe_at: float

    @property
    def name(self) -> str:
        return self.gang.workload.name

    @property
    def priority(self) -> int:
        return self.gang.workload.priority

    @property
    def freed(self) -> Resources:
        return sum(self.frees.values(), Resources())


def sleepers(world: World) -> tuple[Candidate, ...]:
    """Every workload that could be somebody's victim, young ones included; one look at the world for many plans."""
    compute: dict[InstanceId, Claim] = {c.consumer: c for c in world.claims if c.kind is ClaimKind.COMPUTE}
    held = held_for_states(world)
    found = [_candidate(world, gang, compute, held) for gang in world.gangs if may_sleep(gang.workload)]
    return tuple(sorted(found, key=lambda c: (c.priority, c.name)))


def candidates(gang: Gang, wanted: Sequence[Need], among: Sequence[Candidate]) -> tuple[Candidate, ...]:
    """Those that may be victims of `gang` and free something where it can go."""
    hosts = {need.host for need in wanted}
    anywhere = None in hosts
    return tuple(
        candidate
        for candidate in among
        if outranks(gang.workload, candidate.gang.workload)
        and candidate.frees
        and (anywhere or not hosts.isdisjoint(candidate.frees))
    )


@dataclass(frozen=True, slots=True)
class StateRoom:
    """What is looked at of the room for the victims' states."""

    left_mb: Mapping[HostId, int] = field(default_factory=dict)
    """MiB that states may still take, by host, where there is a limit besides the disk's own."""
    ignored: bool = False
    """As if states took no room at all: to find out whether that is what lacks."""


def choose(
    wanted: Sequence[Need], room: Room, among: Sequence[Candidate], limit: int, states: StateRoom
) -> tuple[Candidate, ...] | None:
    """The best victims that make `wanted` fit into `room`, at most `limit`, or None.

    Best is: the highest priority among them is lowest; then fewest predicted seconds to suspend
    and to resume later; then fewest instances; then shortest since they last began to run.
    Exact for up to `EXACT_UP_TO` candidates of no higher priority than needed. Above that it adds
    candidates one by one, in two orders, takes out those that are not needed, and keeps the
    better result: never a needless victim, but not always the best, and where disk room for
    states is scarce it may miss a set that would do.
    """
    for level in sorted({candidate.priority for candidate in among}):
        usable = [candidate for candidate in among if candidate.priority <= level]
        if place(wanted, room_after(room, usable, with_state=False)) is None:
            continue
        sets = combined(usable, limit) if len(usable) <= EXACT_UP_TO else _greedy(wanted, room, usable, states)
        best: tuple[Candidate, ...] | None = None
        best_cost: Cost | None = None
        for chosen in sets:
            if len(chosen) > limit or (best_cost is not None and cost(chosen) >= best_cost):
                continue
            if _enough(wanted, room, chosen, states):
                best, best_cost = chosen, cost(chosen)
        if best is not None:
            return best
    return None


def cost(chosen: Sequence[Candidate]) -> Cost:
    """What is compared between sets of victims; lower is better. Names come last so that no two are equal."""
    return (
        max(c.priority for c in chosen),
        round(sum(c.suspend_seconds + c.resume_seconds for c in chosen), 3),
        sum(len(c.gang.instances) for c in chosen),
        round(sum(c.running_seconds for c in chosen), 3),
        tuple(sorted(c.name for c in chosen)),
    )


def combined(among: Sequence[Candidate], limit: int) -> Iterator[tuple[Candidate, ...]]:
    """Every set of one to `limit` candidates."""
    for size in range(1, min(len(among), limit) + 1):
        yield from combinations(among, size)


def room_after(room: Room, chosen: Sequence[Candidate], with_state: bool = True) -> dict[HostId, Resources]:
    """What is free once the chosen ones sleep; disk may come out negative."""
    result = dict(room)
    for candidate in chosen:
        for host, freed in candidate.frees.items():
            if host in result:
                result[host] += freed
        for host, disk_mb in candidate.state_mb.items():
            if with_state and host in result:
                result[host] -= Resources(disk_mb=disk_mb)
    return result


def _enough(wanted: Sequence[Need], room: Room, chosen: Sequence[Candidate], states: StateRoom) -> bool:
    left = room_after(room, chosen, not states.ignored)
    return _states_fit(left, chosen, states) and place(wanted, left) is not None


def _states_fit(left: Room, chosen: Sequence[Candidate], states: StateRoom) -> bool:
    """Whether every disk that takes a state has room for it, and may have it."""
    if states.ignored:
        return True
    takes = taken(chosen)
    return all(host in left and left[host].disk_mb >= 0 for host in takes) and all(
        disk_mb <= states.left_mb.get(host, disk_mb) for host, disk_mb in takes.items()
    )


def taken(chosen: Sequence[Candidate]) -> dict[HostId, int]:
    """MiB of disk that the states of the chosen ones take, by host; hosts that take none are left out."""
    total: dict[HostId, int] = {}
    for candidate in chosen:
        for host, disk_mb in candidate.state_mb.items():
            if disk_mb > 0:
                total[host] = total.get(host, 0) + disk_mb
    return total


def _greedy(
    wanted: Sequence[Need], room: Room, usable: Sequence[Candidate], states: StateRoom
) -> Iterator[tuple[Candidate, ...]]:
    cheapest_first = sorted(usable, key=lambda c: cost((c,))[1:])
    largest_first = sorted(usable, key=lambda c: (-c.freed.memory_mb, -c.freed.vcpus, cost((c,))))
    for order in (cheapest_first, largest_first):
        chosen: tuple[Candidate, ...] = ()
        for candidate in order:
            longer = (*chosen, candidate)
            if not _states_fit(room_after(room, longer, not states.ignored), longer, states):
                continue
            chosen = longer
            if _enough(wanted, room, chosen, states):
                yield _needed_only(wanted, room, chosen, states)
                break


def _needed_only(
    wanted: Sequence[Need], room: Room, chosen: tuple[Candidate, ...], states: StateRoom
) -> tuple[Candidate, ...]:
    """Without those that can be spared, the dearest first."""
    for candidate in sorted(chosen, key=lambda c: cost((c,)), reverse=True):
        rest = tuple(c for c in chosen if c is not candidate)
        if _enough(wanted, room, rest, states):
            chosen = rest
    return chosen


def _candidate(
    world: World, gang: Gang, compute: Mapping[InstanceId, Claim], held: Mapping[InstanceId, int]
) -> Candidate:
    frees: dict[HostId, Resources] = {}
    for claim in (compute[instance.id] for instance in gang.instances if instance.id in compute):
        frees[claim.host] = frees.get(claim.host, Resources()) + claim.resources
    since = gang.workload.running_since
    return Candidate(
        gang=gang,
        frees=frees,
        state_mb=state_room(gang, held),
        suspend_seconds=suspend_seconds(world, gang),
        resume_seconds=resume_seconds(world, gang),
        running_seconds=max(0.0, world.now - since) if since is not None else 0.0,
        ripe_at=ripe_at(world, gang.workload),
    )

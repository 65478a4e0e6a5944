"""What holds for every plan of every small world. The best plans are found here by trying everything."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import combinations

from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tests.worlds import MIB, NOW, gang, small_world, world

from torpor.domain.capacity import ClaimKind, Resources
from torpor.domain.forecast import PRIORS, after
from torpor.domain.ids import HostId, InstanceId
from torpor.domain.operation import OperationKind
from torpor.domain.plan import Gang, Plan, Verdict, World, state_room_mb
from torpor.domain.planner import next_plan, plan_start
from torpor.domain.victims import EXACT_UP_TO
from torpor.domain.workload import WorkloadState

PENDING, ACTIVE, SUSPENDED = WorkloadState.PENDING, WorkloadState.ACTIVE, WorkloadState.SUSPENDED
Held = dict[tuple[InstanceId, ClaimKind], tuple[HostId, Resources]]


def worlds(most: int = 6, waiting: int = 3, most_hosts: int = 2) -> st.SearchStrategy[World]:
    """Small worlds, fairly full, from a seed each: hundreds of choices a world are too many to draw one by one."""
    return st.integers(0, 2**32).map(lambda seed: small_world(random.Random(seed), most, waiting, most_hosts))


def plans(of: World) -> Iterator[tuple[Gang, Plan]]:
    for each in of.gangs:
        if each.workload.state is not ACTIVE:
            yield each, plan_start(of, each.workload.id)


def by_id(of: World, plan: Plan) -> list[Gang]:
    return [next(g for g in of.gangs if g.workload.id == action.workload) for action in plan.actions]


# --- the books ---


def _over(of: World, held: Held) -> bool:
    for host in of.hosts:
        used = sum((r for at, r in held.values() if at == host.id), Resources())
        if not used.fits_in(host.total):
            return True
    return False


def _walk(of: World, steps: Sequence[tuple[OperationKind, Gang, dict[InstanceId, HostId]]]) -> bool:
    """Whether the claims fit all the while that these are carried out, as the engine enters and releases them."""
    held: Held = {(c.consumer, c.kind): (c.host, c.resources) for c in of.claims}
    for kind, who, placement in steps:
        flavor = who.workload.flavor
        for instance in who.instances:
            host = placement.get(instance.id, instance.host)
            assert host is not None
            if kind is OperationKind.SUSPEND:
                _, old = held.get((instance.id, ClaimKind.STATE), (host, Resources()))
                new = Resources(disk_mb=state_room_mb(flavor))
                held[instance.id, ClaimKind.STATE] = (host, old + new)
            else:
                size = Resources(flavor.vcpus, flavor.memory_mb + of.policy.overhead_mb)
                held[instance.id, ClaimKind.COMPUTE] = (host, size)
                held.setdefault((instance.id, ClaimKind.DISK), (host, Resources(disk_mb=flavor.disk_mb)))
        if _over(of, held):
            return False
        if kind is OperationKind.SUSPEND:
            for instance in who.instances:
                held.pop((instance.id, ClaimKind.COMPUTE), None)
    return True


@given(worlds())
@settings(max_examples=300, deadline=None)
def test_no_plan_over_commits_at_any_of_its_steps(of: World) -> None:
    for _, plan in plans(of):
        steps = [
            (action.kind, who, dict(action.placement))
            for action, who in zip(plan.actions, by_id(of, plan), strict=True)
        ]
        assert _walk(of, steps)


@given(worlds())
@settings(max_examples=300, deadline=None)
def test_the_world_after_a_plan_agrees_with_its_books(of: World) -> None:
    for _, plan in plans(of):
        later = of
        for action in plan.actions:
            later = after(later, action)
        for host in later.hosts:
            assert host.used == sum((c.resources for c in later.claims if c.host == host.id), Resources())
            assert host.used.fits_in(host.total)


# --- who sleeps ---


@given(worlds())
@settings(max_examples=300, deadline=None)
def test_victims_are_active_preemptible_unprotected_outranked_and_have_run_long_enough(of: World) -> None:
    for asker, plan in plans(of):
        for action, who in zip(plan.actions, by_id(of, plan), strict=True):
            if action.kind is OperationKind.SUSPEND:
                assert who.workload.state is ACTIVE
                assert who.workload.preemptible
                assert not who.workload.protect
                assert who.workload.priority < asker.workload.priority
                assert who.workload.running_since is not None
                assert NOW - who.workload.running_since >= of.policy.min_run_seconds
        assert len(plan.victims) <= of.policy.max_victims


@given(worlds())
@settings(max_examples=300, deadline=None)
def test_gangs_start_whole_suspended_ones_where_their_states_are_and_nobody_twice(of: World) -> None:
    for asker, plan in plans(of):
        assert len({action.workload for action in plan.actions}) == len(plan.actions)
        if plan.verdict is not Verdict.READY:
            assert not plan.actions
            assert plan.reason
            continue
        assert plan.actions[-1].workload == asker.workload.id
        assert set(plan.actions[-1].placement) == {i.id for i in asker.instances}
        for instance in asker.instances:
            assert instance.host in (None, plan.actions[-1].placement[instance.id])


@given(worlds(), st.integers())
@settings(max_examples=300, deadline=None)
def test_the_order_in_which_the_world_is_told_does_not_matter(of: World, seed: int) -> None:
    shuffled = replace(of)
    order = random.Random(seed)
    shuffled = replace(
        of,
        gangs=tuple(order.sample(of.gangs, len(of.gangs))),
        hosts=tuple(order.sample(of.hosts, len(of.hosts))),
        claims=tuple(order.sample(of.claims, len(of.claims))),
    )
    assert next_plan(of) == next_plan(shuffled)


# --- the best choice, by trying everything ---


def _placements(who: Gang, hosts: Sequence[HostId]) -> Iterator[dict[InstanceId, HostId]]:
    found: list[dict[InstanceId, HostId]] = [{}]
    for instance in who.instances:
        options = [instance.host] if instance.host is not None else hosts
        found = [{**each, instance.id: host} for each in found for host in options]
    yield from found


def _would_do(of: World, asker: Gang, chosen: Sequence[Gang]) -> bool:
    sleeps: list[tuple[OperationKind, Gang, dict[InstanceId, HostId]]] = [
        (OperationKind.SUSPEND, victim, {}) for victim in chosen
    ]
    hosts = [host.id for host in of.hosts]
    return any(_walk(of, [*sleeps, (OperationKind.RUN, asker, where)]) for where in _placements(asker, hosts))


def _price(chosen: Sequence[Gang]) -> tuple[int, float, int, float]:
    seconds = sum(
        PRIORS[kind].predict(victim.resident_bytes[instance.id])
        for victim in chosen
        for instance in victim.instances
        for kind in (OperationKind.SUSPEND, OperationKind.RESUME)
    )
    since = sum(NOW - (victim.workload.running_since or 0.0) for victim in chosen)
    instances = sum(len(victim.instances) for victim in chosen)
    return (max(victim.workload.priority for victim in chosen), round(seconds, 3), instances, since)


def _allowed(of: World, asker: Gang) -> list[Gang]:
    return [
        g
        for g in of.gangs
        if g.workload.state is ACTIVE
        and g.workload.preemptible
        and not g.workload.protect
        and g.workload.priority < asker.workload.priority
        and NOW - (g.workload.running_since or 0.0) >= of.policy.min_run_seconds
    ]


@given(worlds(most=7, waiting=1))
@settings(max_examples=300, deadline=None)
def test_the_choice_is_the_best_of_all(of: World) -> None:
    for asker, plan in plans(of):
        if _would_do(of, asker, []):
            assert plan.verdict is Verdict.READY
            assert not plan.victims
            continue
        allowed = _allowed(of, asker)
        enough = [
            chosen
            for size in range(1, min(len(allowed), of.policy.max_victims) + 1)
            for chosen in combinations(allowed, size)
            if _would_do(of, asker, chosen)
        ]
        assert (plan.verdict is Verdict.READY) == bool(enough)
        if enough:
            taken = by_id(of, plan)[:-1]
            assert _price(taken) == min(_price(chosen) for chosen in enough)


@given(worlds(most=7, waiting=1))
@settings(max_examples=300, deadline=None)
def test_nobody_sleeps_needlessly(of: World) -> None:
    for asker, plan in plans(of):
        taken = by_id(of, plan)[:-1]
        for size in range(len(taken)):
            for fewer in combinations(taken, size):
                assert not _would_do(of, asker, fewer)


@given(
    st.lists(
        st.tuples(st.integers(1, 3), st.integers(1, 6), st.sampled_from([1, 5, 9])),
        min_size=EXACT_UP_TO + 1,
        max_size=40,
    ),
    st.integers(1, 30),
)
@settings(max_examples=60, deadline=None)
def test_with_many_candidates_the_choice_is_still_sound(sizes: list[tuple[int, int, int]], cpus: int) -> None:
    """Above the exact search: what is there to be found is found, and nobody sleeps needlessly."""
    gangs = [gang(f"g{i}", cpus=c, memory=m * 256, priority=p) for i, (c, m, p) in enumerate(sizes)]
    asker = gang("new", state=PENDING, cpus=cpus, memory=4096, priority=50)
    full = Resources(sum(c for c, _, _ in sizes), max(4096, sum(m for _, m, _ in sizes) * 256), 10**7)
    of = world({"local": full}, [*gangs, asker], max_victims=len(gangs))
    assume(cpus <= full.vcpus)
    plan = plan_start(of, asker.workload.id)
    assert plan.verdict is Verdict.READY
    taken = by_id(of, plan)[:-1]
    assert _frees_enough(of, asker, taken)
    for victim in taken:
        assert not _frees_enough(of, asker, [other for other in taken if other is not victim])
    highest = max(victim.workload.priority for victim in taken)
    assert not _frees_enough(of, asker, [g for g in gangs if g.workload.priority < highest])


def _frees_enough(of: World, asker: Gang, victims: Sequence[Gang]) -> bool:
    """For one host whose disk is as good as endless, and instances without overhead."""
    free = sum((v.workload.compute_claim(0) for v in victims), of.hosts[0].free)
    return asker.workload.compute_claim(0).fits_in(free)


# --- the queue ---


@given(worlds(waiting=4))
@settings(max_examples=300, deadline=None)
def test_the_queue_is_in_order_and_is_passed_only_by_who_can_sleep_again(of: World) -> None:
    chosen, queue = next_plan(of)
    gangs = {g.workload.id: g.workload for g in of.gangs}
    turns = [(-gangs[p.workload].priority, gangs[p.workload].created_at) for p in queue]
    assert turns == sorted(turns)
    assert len(queue) == sum(g.workload.state in (PENDING, SUSPENDED) for g in of.gangs)
    ready = [plan for plan in queue if plan.verdict is Verdict.READY]
    assert chosen == (ready[0] if ready else None)
    if chosen is None:
        return
    passed = [p for p in queue[: queue.index(chosen)] if p.verdict is Verdict.WAIT]
    if any(gangs[p.workload].priority > gangs[chosen.workload].priority for p in passed):
        assert gangs[chosen.workload].preemptible
        assert not gangs[chosen.workload].protect
        assert not chosen.victims


@given(worlds(waiting=4))
@settings(max_examples=300, deadline=None)
def test_who_passes_does_not_put_off_a_start_that_is_a_matter_of_time(of: World) -> None:
    chosen, queue = next_plan(of)
    assume(chosen is not None)
    assert chosen is not None
    later = of
    for action in chosen.actions:
        later = after(later, action)
    for plan in queue[: queue.index(chosen)]:
        if plan.retry_at is not None:
            assert plan_start(replace(later, now=plan.retry_at), plan.workload).verdict is Verdict.READY


@given(worlds(waiting=4))
@settings(max_examples=300, deadline=None)
def test_who_made_others_sleep_starts_before_any_of_them_comes_back(of: World) -> None:
    """Decided upon again after every action of its plan, it starts next, unless one before it can now."""
    chosen, _ = next_plan(of)
    assume(chosen is not None)
    assert chosen is not None
    asleep = set()
    for action in chosen.actions[:-1]:
        of = after(of, action)
        asleep.add(action.workload)
        again, queue = next_plan(of)
        upto = next(index for index, plan in enumerate(queue) if plan.workload == chosen.workload)
        if again is None:
            assert any(plan.retry_at is not None for plan in queue[:upto])
        else:
            assert again.workload not in asleep
            assert again in queue[: upto + 1]


@given(worlds(waiting=4))
@settings(max_examples=300, deadline=None)
def test_the_queue_comes_to_rest(of: World) -> None:
    """With no minimum time at all and nobody new, every workload is started, and made to sleep, a few times at most."""
    of = replace(of, policy=replace(of.policy, min_run_seconds=0.0))
    for _ in range(len(of.gangs) ** 2 + 1):
        chosen, _ = next_plan(of)
        if chosen is None:
            return
        for action in chosen.actions:
            of = after(of, action)
    raise AssertionError("the queue goes round in circles")


def test_memory_that_was_not_measured_counts_in_full() -> None:
    known = gang("a", cpus=2, memory=512, resident_mb=400)
    unknown = replace(gang("b", cpus=2, memory=512), resident_bytes={})
    of = world({"local": Resources(4, 1024, 9000)}, [known, unknown, gang("new", state=PENDING, priority=50)])
    plan = plan_start(of, of.gangs[-1].workload.id)
    assert [action.name for action in plan.victims] == ["a"]
    assert unknown.workload.flavor.memory_mb * MIB > known.resident_bytes[known.instances[0].id]

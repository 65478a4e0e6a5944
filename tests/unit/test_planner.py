"""Plans of small worlds, one rule each."""

from dataclasses import replace

import pytest
from tests.worlds import LOCAL, MIB, NOW, gang, world

from torpor.domain.capacity import Resources
from torpor.domain.forecast import after
from torpor.domain.ids import HostId, WorkloadId
from torpor.domain.operation import OperationKind
from torpor.domain.plan import Plan, Verdict, World
from torpor.domain.planner import due_to_end, next_plan, plan_resume, plan_start, plan_suspend, predict
from torpor.domain.timing import prior
from torpor.domain.workload import WorkloadState

PENDING, SUSPENDED = WorkloadState.PENDING, WorkloadState.SUSPENDED
HOST = {"local": Resources(4, 4096, 65536)}


def start(of: World, name: str) -> Plan:
    return plan_start(of, WorkloadId(f"w-{name}"))


def victims(plan: Plan) -> list[str]:
    return [action.name for action in plan.victims]


def test_what_fits_runs_at_once_and_nobody_sleeps() -> None:
    plan = start(world(HOST, [gang("a"), gang("new", state=PENDING, on="12")]), "new")
    assert (plan.verdict, [a.kind for a in plan.actions]) == (Verdict.READY, [OperationKind.RUN])
    assert set(plan.actions[0].placement.values()) == {LOCAL}
    assert plan.predicted_seconds == pytest.approx(2.0, abs=0.01), "two instances boot in a second each"


def test_a_suspended_workload_comes_back_on_its_own_host() -> None:
    hosts = {"a": Resources(4, 4096, 9000), "b": Resources(4, 4096, 9000)}
    plan = start(world(hosts, [gang("old", state=SUSPENDED, on=("b", "b"))]), "old")
    assert [a.kind for a in plan.actions] == [OperationKind.RESUME]
    assert set(plan.actions[0].placement.values()) == {"b"}
    assert plan.predicted_seconds == pytest.approx(2 * (0.8 + 512 * MIB / 0.9e9), rel=0.01)


def test_a_suspended_workload_does_not_move_to_a_host_with_room() -> None:
    hosts = {"a": Resources(4, 4096, 9000), "b": Resources(1, 4096, 9000)}
    plan = start(world(hosts, [gang("old", state=SUSPENDED, on="b"), gang("x", on="b", preemptible=False)]), "old")
    assert plan.verdict is Verdict.WAIT


def test_instances_of_a_pending_gang_may_go_to_different_hosts() -> None:
    hosts = {"a": Resources(1, 4096, 9000), "b": Resources(2, 4096, 9000)}
    plan = start(world(hosts, [gang("new", state=PENDING, on="123")]), "new")
    assert sorted(plan.actions[0].placement.values()) == ["a", "b", "b"]


def test_the_gang_that_is_chosen_sleeps_as_a_whole_and_the_reason_says_why() -> None:
    batch = gang("batch", cpus=1, memory=512, on=("local", "local"), resident_mb=300)
    of = world(HOST, [batch, gang("rest", cpus=2, preemptible=False), gang("urgent", state=PENDING, priority=50)])
    plan = start(of, "urgent")
    assert [(a.kind, a.name) for a in plan.actions] == [
        (OperationKind.SUSPEND, "batch"),
        (OperationKind.RUN, "urgent"),
    ]
    assert plan.actions[0].reason == "priority 10 < 50, preemptible, frees 2 vCPUs and 1024 MiB, 1.2 s to suspend"
    assert plan.actions[0].predicted_seconds == pytest.approx(2 * (0.3 + 300 * MIB / 1e9), rel=0.01)


@pytest.mark.parametrize(
    ("shield", "priority"),
    [({"preemptible": False}, 50), ({"protect": True}, 50), ({}, 10), ({}, 5)],
)
def test_who_is_shielded_or_not_outranked_is_no_victim(shield: dict[str, bool], priority: int) -> None:
    batch = gang("batch", cpus=4, preemptible=shield.get("preemptible", True), protect=shield.get("protect", False))
    plan = start(world(HOST, [batch, gang("new", state=PENDING, priority=priority)]), "new")
    assert plan.verdict is Verdict.WAIT
    assert "no preemptible workload of lower priority" in plan.reason
    assert not plan.actions


def test_lower_priority_sleeps_first_even_if_it_takes_longer() -> None:
    low = gang("low", cpus=2, memory=2000, priority=1)
    high = gang("high", cpus=2, memory=100, priority=20)
    assert victims(start(world(HOST, [high, low, gang("new", state=PENDING, priority=50)]), "new")) == ["low"]


def test_of_one_priority_the_quickest_to_suspend_and_resume_sleeps() -> None:
    slow = gang("a-slow", cpus=2, resident_mb=500)
    quick = gang("b-quick", cpus=2, resident_mb=100)
    assert victims(start(world(HOST, [slow, quick, gang("new", state=PENDING, priority=50)]), "new")) == ["b-quick"]


def test_of_equals_the_one_that_began_last_sleeps() -> None:
    old, young = gang("a", cpus=2, ran=900), gang("b", cpus=2, ran=100)
    assert victims(start(world(HOST, [old, young, gang("new", state=PENDING, priority=50)]), "new")) == ["b"]


@pytest.mark.parametrize("kind", [OperationKind.SUSPEND, OperationKind.RESUME])
def test_measured_times_of_sleeping_and_waking_decide_not_bytes(kind: OperationKind) -> None:
    hosts = {"fast": Resources(1, 4096, 9000), "slow": Resources(1, 4096, 9000)}
    here, there = gang("a-slow", on=("slow",), resident_mb=100), gang("b-fast", on=("fast",), resident_mb=400)
    of = world(hosts, [here, there, gang("new", state=PENDING, priority=50)])
    of = replace(of, timings={(HostId("slow"), kind): prior(30.0, 1e9)})
    assert victims(start(of, "new")) == ["b-fast"]


def test_a_workload_that_has_just_begun_is_waited_for() -> None:
    of = world(HOST, [gang("batch", cpus=4, ran=12.0), gang("new", state=PENDING, priority=50)])
    plan = start(of, "new")
    assert (plan.verdict, plan.retry_at) == (Verdict.WAIT, NOW + 18.0)
    assert "30 s after they last began to run: batch (another 18 s)" in plan.reason
    assert start(replace(of, now=NOW + 18.0), "new").verdict is Verdict.READY


def test_a_young_workload_that_is_not_needed_is_not_waited_for() -> None:
    of = world(HOST, [gang("young", cpus=2, ran=1.0), gang("ripe", cpus=2), gang("new", state=PENDING, priority=50)])
    assert victims(start(of, "new")) == ["ripe"]


def test_no_room_for_the_state_makes_a_victim_unusable() -> None:
    hosts = {"local": Resources(4, 4096, 600)}
    of = world(hosts, [gang("batch", cpus=4, memory=1024), gang("new", state=PENDING, priority=50)])
    plan = start(of, "new")
    assert plan.verdict is Verdict.WAIT
    assert plan.reason.startswith("no room for saved state of batch: host local has 600 MiB of disk free")
    assert "1056 MiB" in plan.reason


def test_the_old_state_lies_beside_the_new_one() -> None:
    batch = gang("batch", cpus=4, memory=512)
    old = replace(batch, state_bytes={i.id: 400 * MIB for i in batch.instances})
    new = gang("new", state=PENDING, priority=50)
    assert start(world({"local": Resources(4, 4096, 935)}, [old, new]), "new").verdict is Verdict.WAIT
    assert start(world({"local": Resources(4, 4096, 936)}, [old, new]), "new").verdict is Verdict.READY


def test_disk_of_the_new_one_and_states_of_victims_share_the_disk() -> None:
    new = gang("new", state=PENDING, priority=50, disk=100)
    for disk, verdict in ((635, Verdict.WAIT), (636, Verdict.READY)):
        of = world({"local": Resources(4, 4096, disk)}, [gang("batch", cpus=4, memory=512), new])
        assert start(of, "new").verdict is verdict


def test_what_no_host_can_hold_is_refused() -> None:
    plan = start(world(HOST, [gang("huge", state=PENDING, cpus=8, memory=512)]), "huge")
    assert plan.verdict is Verdict.REFUSED
    assert plan.reason == (
        "it is too large: it needs 8 vCPUs and 512 MiB on one host; host local has 4 vCPUs and 4096 MiB in all"
    )


def test_more_victims_than_the_policy_allows_are_refused() -> None:
    gangs = [gang(f"b{i}") for i in range(4)] + [gang("new", state=PENDING, cpus=3, priority=50)]
    plan = start(world(HOST, gangs, max_victims=2), "new")
    assert (plan.verdict, plan.reason) == (
        Verdict.REFUSED,
        "3 workloads would have to sleep for it, and the policy allows 2",
    )
    assert len(start(world(HOST, gangs, max_victims=3), "new").victims) == 3


def test_the_reason_to_wait_gives_the_figures() -> None:
    gangs = [
        gang("fixed", cpus=2, memory=2048, preemptible=False),
        gang("batch", cpus=1, memory=1024),
        gang("new", state=PENDING, cpus=4, memory=2176, priority=50),
    ]
    plan = start(world(HOST, gangs, overhead=128), "new")
    assert plan.reason == (
        "it needs 4 vCPUs and 2304 MiB on one host; host local has 1 vCPU and 768 MiB free; "
        "preemptible workloads of lower priority would free only 1 vCPU and 1152 MiB"
    )


def test_what_is_active_is_not_started_again() -> None:
    plan = start(world(HOST, [gang("a")]), "a")
    assert (plan.verdict, plan.reason) == (Verdict.REFUSED, "it is active")


def test_a_failed_workload_goes_back_to_its_states_and_only_to_those() -> None:
    asleep = gang("a", state=SUSPENDED)
    failed = replace(asleep, workload=replace(asleep.workload, state=WorkloadState.FAILED))
    assert [a.kind for a in plan_resume(world(HOST, [failed]), failed.workload.id).actions] == [OperationKind.RESUME]
    without = replace(failed, state_bytes={})
    assert plan_resume(world(HOST, [without]), failed.workload.id).verdict is Verdict.REFUSED


def test_suspending_by_hand_needs_neither_preemptible_nor_a_minimum_time() -> None:
    fresh = gang("a", preemptible=False, ran=1.0)
    plan = plan_suspend(world(HOST, [fresh]), fresh.workload.id)
    assert [(a.kind, a.name) for a in plan.actions] == [(OperationKind.SUSPEND, "a")]


def test_suspending_by_hand_is_refused_with_the_reason() -> None:
    protected, asleep, tight = gang("a", protect=True), gang("b", state=SUSPENDED), gang("c", memory=1024)
    for g, disk, reason in (
        (protected, 9000, "protected"),
        (asleep, 9000, "suspended, and only an active"),
        (tight, 1055, "no room for saved state: c needs 1056 MiB of disk on host local, which has 1055 MiB free"),
    ):
        plan = plan_suspend(world({"local": Resources(4, 4096, disk)}, [g]), g.workload.id)
        assert plan.verdict is Verdict.REFUSED
        assert reason in plan.reason


def test_the_queue_is_by_priority_then_age_and_what_is_held_stays_out() -> None:
    gangs = [
        gang("young", state=PENDING, priority=10, age=1),
        gang("old", state=SUSPENDED, priority=10, age=9),
        gang("high", state=PENDING, priority=20, age=1),
        gang("by-hand", state=SUSPENDED, priority=90, held=True),
        gang("running"),
    ]
    chosen, plans = next_plan(world(HOST, gangs))
    assert [plan.name for plan in plans] == ["high", "old", "young"]
    assert chosen is plans[0]


@pytest.mark.parametrize(
    ("preemptible", "protect", "may"), [(True, False, True), (False, False, False), (True, True, False)]
)
def test_only_who_can_sleep_again_passes_a_waiting_one_of_higher_priority(
    preemptible: bool, protect: bool, may: bool
) -> None:
    gangs = [
        gang("fixed", cpus=3, preemptible=False, priority=90),
        gang("big", state=PENDING, cpus=2, priority=50),
        gang("small", state=PENDING, cpus=1, priority=10, preemptible=preemptible, protect=protect),
    ]
    chosen, plans = next_plan(world(HOST, gangs))
    assert (chosen.name if chosen else None) == ("small" if may else None)
    assert plans[1].verdict is (Verdict.READY if may else Verdict.WAIT)
    assert may or "big (priority 50) is before it" in plans[1].reason


def test_nobody_sleeps_for_one_that_passes_a_waiting_one() -> None:
    gangs = [
        gang("fixed", cpus=3, preemptible=False, priority=90),
        gang("low", cpus=1, priority=1),
        gang("big", state=PENDING, cpus=2, priority=50),
        gang("small", state=PENDING, cpus=1, priority=10),
    ]
    chosen, plans = next_plan(world(HOST, gangs))
    assert chosen is None
    assert "others would have to sleep for it" in plans[1].reason


def test_who_has_no_room_for_its_state_does_not_pass() -> None:
    gangs = [
        gang("fixed", cpus=3, preemptible=False, priority=90),
        gang("big", state=PENDING, cpus=2, priority=50),
        gang("small", state=PENDING, cpus=1, priority=10, memory=512),
    ]
    assert next_plan(world({"local": Resources(4, 4096, 536)}, gangs))[0] is not None
    assert next_plan(world({"local": Resources(4, 4096, 535)}, gangs))[0] is None


def test_a_refused_workload_holds_nobody_up() -> None:
    gangs = [
        gang("huge", state=PENDING, cpus=64, priority=50),
        gang("small", state=PENDING, priority=10, preemptible=False),
    ]
    chosen, _ = next_plan(world(HOST, gangs))
    assert chosen is not None
    assert chosen.name == "small"


def test_a_victim_does_not_come_back_while_its_beneficiary_waits_for_another_victim_to_ripen() -> None:
    gangs = [
        gang("first", state=SUSPENDED, cpus=2),
        gang("second", cpus=2, ran=25.0),
        gang("urgent", state=PENDING, cpus=4, priority=50),
    ]
    chosen, plans = next_plan(world(HOST, gangs))
    assert chosen is None
    assert plans[0].retry_at == NOW + 5.0
    assert "would have to wait longer" in plans[1].reason


def test_who_waits_out_a_failure_keeps_its_place() -> None:
    asleep, urgent = gang("batch", state=SUSPENDED, cpus=4), gang("urgent", state=PENDING, cpus=4, priority=50)
    of = world(HOST, [asleep, urgent])
    chosen, plans = next_plan(of, not_before={urgent.workload.id: NOW + 2.0})
    assert chosen is None
    assert plans[0].retry_at == NOW + 2.0
    chosen, _ = next_plan(replace(of, now=NOW + 2.0), not_before={urgent.workload.id: NOW + 2.0})
    assert chosen is not None
    assert chosen.name == "urgent"


def test_after_the_priority_work_has_ended_the_victim_comes_back() -> None:
    of = world(HOST, [gang("batch", cpus=4), gang("urgent", state=PENDING, cpus=4, priority=50)])
    chosen, _ = next_plan(of)
    assert chosen is not None
    for action in chosen.actions:
        of = after(of, action)
    assert next_plan(of)[0] is None, "no room while the priority work runs"
    done = tuple(
        replace(g, workload=replace(g.workload, state=WorkloadState.DONE)) if g.workload.name == "urgent" else g
        for g in of.gangs
    )
    free = tuple(replace(h, used=Resources(disk_mb=h.used.disk_mb)) for h in of.hosts)
    back, _ = next_plan(replace(of, gangs=done, hosts=free, claims=()))
    assert back is not None
    assert [(a.kind, a.name) for a in back.actions] == [(OperationKind.RESUME, "batch")]


def test_workloads_end_when_they_have_run_for_their_duration() -> None:
    early = gang("early", ran=99.0, duration=100.0)
    over = gang("over", ran=60.0, duration=100.0)
    over = replace(over, workload=replace(over.workload, ran_for=40.0))
    asleep = gang("asleep", state=SUSPENDED, duration=1.0)
    assert due_to_end(world(HOST, [early, over, asleep, gang("endless")])) == (over.workload.id,)


def test_what_was_measured_takes_the_place_of_what_was_assumed() -> None:
    of = world(HOST, [])
    assert predict(of, OperationKind.SUSPEND, LOCAL, 2_000_000_000) == pytest.approx(2.3)
    assert predict(of, OperationKind.RESUME, LOCAL, 900_000_000) == pytest.approx(1.8)
    learnt = replace(of, timings={(LOCAL, OperationKind.SUSPEND): prior(5.0, 1e8)})
    assert predict(learnt, OperationKind.SUSPEND, LOCAL, 1_000_000_000) == pytest.approx(15.0)

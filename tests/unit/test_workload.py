"""How long a workload has run, and what it takes."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.worlds import NOW, gang

from torpor.domain.capacity import Resources
from torpor.domain.workload import Workload, WorkloadState


def workload() -> Workload:
    return replace(gang("a", cpus=2, memory=512).workload, running_since=None)


def test_time_spent_suspended_does_not_count() -> None:
    slept = replace(workload(), ran_for=40.0)
    assert slept.ran(NOW + 1000.0) == 40.0
    woken = replace(slept, running_since=NOW + 1000.0)
    assert woken.ran(NOW + 1005.0) == 45.0


def test_a_clock_that_was_set_back_takes_no_time_away() -> None:
    assert replace(workload(), running_since=NOW, ran_for=7.0).ran(NOW - 100.0) == 7.0


@given(st.lists(st.tuples(st.floats(0, 1e4), st.floats(0, 1e4)), max_size=8))
def test_any_number_of_runs_and_sleeps_add_up(turns: list[tuple[float, float]]) -> None:
    now, of = NOW, workload()
    for runs, sleeps in turns:
        of = replace(of, running_since=now)
        now += runs
        of = replace(of, ran_for=of.ran(now), running_since=None)
        now += sleeps
    assert of.ran(now) == pytest.approx(sum(runs for runs, _ in turns), abs=1e-5)


def test_an_instance_takes_its_flavor_and_the_overhead_but_no_disk() -> None:
    assert workload().compute_claim(128) == Resources(vcpus=2, memory_mb=640)


@pytest.mark.parametrize("state", list(WorkloadState))
def test_only_active_workloads_occupy_and_only_passing_states_are_not_at_rest(state: WorkloadState) -> None:
    of = replace(workload(), state=state)
    assert of.occupies == (state.value == "active")
    assert of.at_rest == (state.value not in ("suspending", "resuming", "deleting"))

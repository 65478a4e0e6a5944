"""The contract of `ports.Journal`, on the database and on the fake."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from pathlib import Path

import pytest

from torpor.adapters.fakes.records import FakeJournal
from torpor.adapters.sql import Database, SqlJournal
from torpor.domain.errors import Conflict, Invalid, NotFound, Problem
from torpor.domain.ids import InstanceId, OperationId, WorkloadId
from torpor.domain.operation import Operation, OperationKind, OperationStatus, Step, StepKind, StepStatus
from torpor.ports import Journal

PROBLEM = Problem("backend-failed", "it did not work", "the disk said no", "try again", retryable=True)


Make = Callable[[int], Journal]


@pytest.fixture(params=["fake", "sql"])
def journal_of(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Make]:
    """Makes a journal that keeps so many operations."""
    if request.param == "fake":
        yield lambda keep: FakeJournal(keep=keep)
        return
    database = Database(f"sqlite:///{tmp_path}/torpor.db")
    database.migrate()
    yield lambda keep: SqlJournal(database, keep=keep)
    database.close()


@pytest.fixture
def journal(journal_of: Make) -> Journal:
    return journal_of(1000)


def operation(id: str = "op", steps: int = 2) -> Operation:
    return Operation(
        id=OperationId(id),
        kind=OperationKind.SUSPEND,
        workload=WorkloadId("w"),
        workload_name="batch",
        reason="room is needed",
        steps=tuple(Step(n, StepKind.SAVE, InstanceId(f"i{n}")) for n in range(steps)),
        created_at=1.5,
        predicted_seconds=3.25,
    )


OP = OperationId("op")


def test_what_was_begun_is_read_back_whole(journal: Journal) -> None:
    journal.begin(operation())
    assert journal.get(OP) == operation()


def test_an_operation_may_have_no_steps_and_many(journal: Journal) -> None:
    journal.begin(operation("none", steps=0))
    journal.begin(operation("many", steps=300))
    assert journal.get(OperationId("none")).steps == ()
    assert [step.index for step in journal.get(OperationId("many")).steps] == list(range(300))


def test_an_operation_is_begun_once(journal: Journal) -> None:
    journal.begin(operation())
    with pytest.raises(Conflict):
        journal.begin(operation(steps=5))
    assert journal.get(OP) == operation()


def test_intent_and_outcome_stand_in_the_step_and_nowhere_else(journal: Journal) -> None:
    journal.begin(operation())
    journal.begin(operation("other"))
    journal.intend(OP, 1, 10.0)
    assert journal.get(OP).steps[1] == replace(operation().steps[1], status=StepStatus.INTENDED, started_at=10.0)
    journal.record(OP, 1, StepStatus.FAILED, 12.5, "no room")
    assert journal.get(OP).steps == (
        operation().steps[0],
        Step(1, StepKind.SAVE, InstanceId("i1"), StepStatus.FAILED, 10.0, 12.5, "no room"),
    )
    assert journal.get(OperationId("other")) == operation("other")


def test_a_new_intent_wipes_the_old_outcome(journal: Journal) -> None:
    journal.begin(operation())
    journal.intend(OP, 0, 10.0)
    journal.record(OP, 0, StepStatus.DONE, 11.0, "5 MiB", 0.002)
    journal.intend(OP, 0, 20.0)
    assert journal.get(OP).steps[0] == Step(0, StepKind.SAVE, InstanceId("i0"), StepStatus.INTENDED, 20.0)


def test_turning_back_keeps_the_operation_open_with_its_problem(journal: Journal) -> None:
    journal.begin(operation())
    journal.turn_back(OP, PROBLEM)
    assert journal.get(OP) == replace(operation(), status=OperationStatus.UNDOING, problem=PROBLEM)
    assert [o.id for o in journal.open()] == [OP]


def test_a_finished_operation_is_open_no_more(journal: Journal) -> None:
    journal.begin(operation())
    journal.turn_back(OP, PROBLEM)
    journal.finish(OP, OperationStatus.UNDONE, 20.0)
    assert list(journal.open()) == []
    ended = replace(operation(), status=OperationStatus.UNDONE, ended_at=20.0, problem=PROBLEM)
    assert journal.get(OP) == ended
    assert list(journal.recent(1)) == [ended]


@pytest.mark.parametrize("status", [OperationStatus.FORWARD, OperationStatus.UNDOING])
def test_an_operation_does_not_end_in_a_state_that_is_open(journal: Journal, status: OperationStatus) -> None:
    journal.begin(operation())
    with pytest.raises(Invalid):
        journal.finish(OP, status, 20.0)
    assert journal.get(OP) == operation()


CHANGES: dict[str, Callable[[Journal], None]] = {
    "intend": lambda journal: journal.intend(OP, 0, 30.0),
    "record": lambda journal: journal.record(OP, 0, StepStatus.DONE, 30.0),
    "turn back": lambda journal: journal.turn_back(OP, PROBLEM),
    "finish": lambda journal: journal.finish(OP, OperationStatus.UNDONE, 30.0),
}


@pytest.mark.parametrize("change", CHANGES)
def test_an_ended_operation_is_history(journal: Journal, change: str) -> None:
    journal.begin(operation())
    journal.finish(OP, OperationStatus.SUCCEEDED, 20.0)
    before = journal.get(OP)
    with pytest.raises(Conflict, match="it has ended as succeeded"):
        CHANGES[change](journal)
    assert journal.get(OP) == before


@pytest.mark.parametrize("change", CHANGES)
def test_an_unknown_operation_is_not_found(journal: Journal, change: str) -> None:
    with pytest.raises(NotFound, match="no operation op"):
        CHANGES[change](journal)
    with pytest.raises(NotFound, match="no operation op"):
        journal.get(OP)


def test_an_unknown_step_is_not_found(journal: Journal) -> None:
    journal.begin(operation())
    with pytest.raises(NotFound, match="no step 2"):
        journal.intend(OP, 2, 1.0)
    with pytest.raises(NotFound, match="no step 2"):
        journal.record(OP, 2, StepStatus.DONE, 1.0)


def test_open_is_oldest_first_and_recent_is_newest_first(journal: Journal) -> None:
    """By the order in which they were begun: a clock may be set back."""
    for number, id in enumerate(["c", "a", "b"]):
        journal.begin(replace(operation(id), created_at=10.0 - number))
    journal.finish(OperationId("a"), OperationStatus.SUCCEEDED, 11.0)
    assert [o.id for o in journal.open()] == ["c", "b"]
    assert [o.id for o in journal.recent(10)] == ["b", "a", "c"]
    assert [o.id for o in journal.recent(2)] == ["b", "a"]
    assert list(journal.recent(0)) == []


def test_threads_that_write_at_once_lose_nothing(journal: Journal) -> None:
    for number in range(8):
        journal.begin(operation(f"op{number}", steps=5))

    def carry_out(number: int) -> None:
        id = OperationId(f"op{number}")
        for step in range(5):
            journal.intend(id, step, 1.0)
            journal.record(id, step, StepStatus.DONE, 2.0)
            journal.open()
        journal.finish(id, OperationStatus.SUCCEEDED, 3.0)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(carry_out, range(8)))
    assert list(journal.open()) == []
    assert all(s.status is StepStatus.DONE for o in journal.recent(8) for s in o.steps)


def test_every_field_is_kept(journal: Journal) -> None:
    step = Step(0, StepKind.SPEND, InstanceId("i"), StepStatus.UNDONE, 0.1, 2.5e9 + 1 / 3, 'it\'s "so": ü\n%s', 1 / 3)
    full = Operation(
        id=OP,
        kind=OperationKind.RESUME,
        workload=WorkloadId("w"),
        workload_name="batch",
        reason="because",
        steps=(step,),
        created_at=1 / 3,
        predicted_seconds=0.0,
        status=OperationStatus.UNDONE,
        ended_at=0.0,
        problem=PROBLEM,
        snapshot='it\'s "so"',
    )
    assert_nothing_is_default(full)
    assert_nothing_is_default(step)
    journal.begin(full)
    assert journal.get(OP) == full


def assert_nothing_is_default(example: Operation | Step) -> None:
    """So that a field that is added later has to be thought of here."""
    assert [f.name for f in fields(example) if getattr(example, f.name) == f.default] == []


def test_of_ended_operations_the_last_are_kept_and_of_open_ones_all(journal_of: Make) -> None:
    journal = journal_of(3)
    for number in range(6):
        journal.begin(operation(f"op{number}"))
        if number != 1:
            journal.finish(OperationId(f"op{number}"), OperationStatus.SUCCEEDED, 9.0)
    assert [o.id for o in journal.recent(10)] == ["op5", "op4", "op3", "op1"]
    assert journal.get(OperationId("op1")).steps == operation().steps

"""The contract of `ports.History`, on the database and on the fake."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from torpor.adapters.fakes.records import FakeHistory
from torpor.adapters.sql import Database, SqlHistory
from torpor.domain.ids import HostId
from torpor.domain.timing import TimingModel, prior
from torpor.ports import Event, History

LOCAL = HostId("local")
Make = Callable[[int], History]


@pytest.fixture(params=["fake", "sql"])
def history_of(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Make]:
    """Makes a history that keeps so many events."""
    if request.param == "fake":
        yield lambda keep: FakeHistory(keep=keep)
        return
    database = Database(f"sqlite:///{tmp_path}/torpor.db")
    database.migrate()
    yield lambda keep: SqlHistory(database, keep=keep)
    database.close()


@pytest.fixture
def history(history_of: Make) -> History:
    return history_of(100)


def event(number: int, subject: str = "batch") -> Event:
    return Event(100.5 - number, "workload-active", subject, f"event {number}")


def test_events_come_in_the_order_in_which_they_were_recorded(history: History) -> None:
    """Not by their time: a clock may be set back."""
    for number in range(3):
        history.record(event(number))
    assert list(history.events(10)) == [event(0), event(1), event(2)]


def test_a_limit_gives_the_last_ones(history: History) -> None:
    for number in range(5):
        history.record(event(number))
    assert list(history.events(2)) == [event(3), event(4)]
    assert list(history.events(0)) == []


def test_events_of_one_subject_are_limited_among_themselves(history: History) -> None:
    for number in range(6):
        history.record(event(number, "even" if number % 2 == 0 else "odd"))
    assert list(history.events(2, "odd")) == [event(3, "odd"), event(5, "odd")]
    assert list(history.events(2, "nobody")) == []


def test_only_the_last_events_are_kept(history_of: Make) -> None:
    history = history_of(4)
    for number in range(10):
        history.record(event(number))
    assert list(history.events(100)) == [event(n) for n in range(6, 10)]


def test_threads_that_record_at_once_lose_nothing(history: History) -> None:
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda n: history.record(event(n)), range(80)))
    assert sorted(e.message for e in history.events(100)) == sorted(event(n).message for n in range(80))


def test_what_was_not_learnt_is_not_known(history: History) -> None:
    assert history.timing(LOCAL, "suspend") is None


def test_the_newest_timing_of_a_host_and_kind_is_kept_to_the_bit(history: History) -> None:
    model = prior(0.1, 3e8).learn(123_456_789, 0.7)
    history.learn(LOCAL, "suspend", prior(1.0, 1e8))
    history.learn(LOCAL, "resume", TimingModel(1.0, 2.0, 3.0, 4.0, 5.0, 6))
    history.learn(HostId("far"), "suspend", prior(2.0, 1e8))
    history.learn(LOCAL, "suspend", model)
    assert history.timing(LOCAL, "suspend") == model
    assert history.timing(LOCAL, "resume") == TimingModel(1.0, 2.0, 3.0, 4.0, 5.0, 6)

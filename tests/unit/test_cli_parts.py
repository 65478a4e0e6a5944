"""Parts of the CLI that need no daemon."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from torpor.api.problems import STATUS_OF_CODE
from torpor.cli.events import fresh
from torpor.cli.instances import harmless
from torpor.cli.problems import error_of, exit_codes
from torpor.domain.errors import Conflict, TorporError

REFERENCE = Path(__file__).parents[2] / "docs" / "reference" / "exit-codes.md"


def test_the_reference_lists_every_error_code_with_its_http_status() -> None:
    rows = re.findall(r"^\| `([a-z-]+)` \| (\d+) \| (yes|no) \|", REFERENCE.read_text(), re.MULTILINE)
    kinds = {code: type(error_of({"code": code})) for code in exit_codes()}
    assert {code: (int(status), retryable == "yes") for code, status, retryable in rows} == {
        code: (STATUS_OF_CODE.get(code, 500), kind.retryable) for code, kind in kinds.items()
    }


def test_no_exit_code_is_that_of_a_signal_or_of_the_shell() -> None:
    assert all(0 < code < 64 for code in exit_codes().values())


def test_a_problem_becomes_the_error_that_the_daemon_had() -> None:
    error = error_of({"code": "conflict", "what": "x is busy", "detail": "it sleeps", "remedy": "wait"})
    assert isinstance(error, Conflict)
    assert str(error) == "x is busy: it sleeps; wait."


def test_a_code_of_a_later_version_counts_as_internal() -> None:
    error = error_of({"code": "from-the-future", "what": "something new"})
    assert type(error) is TorporError
    assert error.exit_code == 1


@given(st.integers(0, 30), st.integers(0, 30), st.integers(1, 20))
def test_each_event_is_followed_once_while_the_window_moves(old: int, more: int, window: int) -> None:
    events = [{"at": n // 3, "message": n} for n in range(old + more)]
    before, after = events[:old][-window:], events[-window:]
    expected = events[max(old, len(events) - window) :]
    assert fresh(before, after) == expected


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("plain\n", "plain\n"),
        ("\x1b[1;31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07text", "text"),
        ("\x1b[2J\x1b[Hbye", "bye"),
        ("a\rb\x00\x07\x9bc", "abc"),
        ("tab\tand é", "tab\tand é"),
    ],
)
def test_guests_can_not_steer_the_readers_terminal(written: str, shown: str) -> None:
    assert harmless(written) == shown


@given(st.text())
def test_nothing_but_printable_text_is_left(written: str) -> None:
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", harmless(written))

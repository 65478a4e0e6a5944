"""The log: one line an event."""

import io
import logging
from collections.abc import Iterator

import pytest

from torpor.domain.errors import Invalid
from torpor.log import configure, level_from


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    root, ours = logging.getLogger(), logging.getLogger("torpor")
    handlers, levels = list(root.handlers), (root.level, ours.level)
    yield
    root.handlers[:] = handlers
    root.setLevel(levels[0])
    ours.setLevel(levels[1])


def test_an_event_with_its_traceback_is_one_line() -> None:
    stream = io.StringIO()
    configure(logging.INFO, stream)
    try:
        raise ValueError("two\nlines")
    except ValueError:
        logging.getLogger("torpor.engine").exception("round failed\nbadly")
    assert len(stream.getvalue().splitlines()) == 1
    assert " ERROR torpor.engine: round failed | badly | Traceback" in stream.getvalue()
    assert "ValueError: two | lines" in stream.getvalue()


def test_other_libraries_are_heard_from_warnings_on() -> None:
    stream = io.StringIO()
    configure(logging.DEBUG, stream)
    logging.getLogger("somebody").info("chatter")
    logging.getLogger("somebody").warning("trouble")
    logging.getLogger("torpor.x").debug("detail")
    assert [line.split(": ")[-1] for line in stream.getvalue().splitlines()] == ["trouble", "detail"]


def test_the_level_comes_from_the_environment() -> None:
    assert level_from({}) == logging.INFO
    assert level_from({"TORPOR_LOG": "DEBUG"}) == logging.DEBUG
    with pytest.raises(Invalid, match="use one of debug"):
        level_from({"TORPOR_LOG": "loud"})

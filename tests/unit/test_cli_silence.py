"""Nothing that is waited for for longer than a second is waited for in silence."""

import io
import time

from rich.console import Console

from torpor.cli.session import Session


class Observed(Session):
    """Whose notices go to a string, on a terminal or not. It is silent for less long than a session of somebody's."""

    silence = 0.05

    def __init__(self, terminal: bool) -> None:
        super().__init__(None)
        self.written = io.StringIO()
        self.__dict__["err"] = Console(file=self.written, force_terminal=terminal, width=80)

    @property
    def said(self) -> str:
        return self.written.getvalue()


def wait_for(session: Observed, text: str) -> None:
    give_up = time.monotonic() + 10
    while text not in session.said:
        assert time.monotonic() < give_up, f"{text!r} was not said: {session.said!r}"
        time.sleep(0.01)


def test_what_takes_long_is_said_in_one_line() -> None:
    session = Observed(terminal=False)
    with session.busy("copying disk.raw"):
        wait_for(session, "copying disk.raw")
    assert session.said == "copying disk.raw\n"


def test_what_is_over_at_once_says_nothing() -> None:
    session = Observed(terminal=False)
    with session.busy("copying disk.raw"):
        pass
    time.sleep(0.1)
    assert session.said == ""


def test_nothing_is_said_beside_a_document_for_a_program() -> None:
    session = Observed(terminal=False)
    with session.busy("copying disk.raw", quiet=True):
        time.sleep(0.1)
    assert session.said == ""


def test_a_terminal_shows_it_at_once_and_one_thing_at_a_time() -> None:
    session = Observed(terminal=True)
    with session.busy("copying disk.raw"):
        wait_for(session, "copying disk.raw")
        with session.busy("starting the daemon"):
            pass
    with session.busy("copying another"):
        wait_for(session, "copying another")

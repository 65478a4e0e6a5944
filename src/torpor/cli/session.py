"""What every command is given: configuration, the API, and where to write."""

import json
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from torpor.cli import tables
from torpor.cli.client import Client
from torpor.cli.starter import start_daemon
from torpor.config import Config, load

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show the plan; change nothing.")]


class Session:
    """Made once a command; reads the configuration and connects when first asked to."""

    silence = 1.0
    """Seconds that nothing may be said for while something is waited for."""

    def __init__(self, config_file: Path | None) -> None:
        self.config_file = config_file
        self._busy = False

    @cached_property
    def config(self) -> Config:
        return load(self.config_file)

    @cached_property
    def client(self) -> Client:
        return Client(self.config.socket, lambda: self.start_daemon())

    @cached_property
    def daemon(self) -> Client:
        """As `client`, but never starts a daemon."""
        return Client(self.config.socket)

    @cached_property
    def out(self) -> Console:
        return tables.output()

    @cached_property
    def err(self) -> Console:
        return tables.notices()

    def start_daemon(self) -> None:
        with self.busy("starting the daemon"):
            start_daemon(self.config, self.config_file, self.daemon.answers)

    @contextmanager
    def busy(self, text: str, quiet: bool = False) -> Iterator[None]:
        """While something tells nothing of itself: a spinner on a terminal, else one line once it takes long.

        Not the line with `quiet`: the answer is for a program.
        """
        if self._busy:  # with what waits for this
            yield
            return
        self._busy = True
        try:
            with self.err.status(text) if self.err.is_terminal else self._said_late(text, quiet):
                yield
        finally:
            self._busy = False

    @contextmanager
    def _said_late(self, text: str, quiet: bool) -> Iterator[None]:
        line = threading.Timer(self.silence, self.notice, [text])
        line.daemon = True
        if not quiet:
            line.start()
        try:
            yield
        finally:
            line.cancel()

    def print_json(self, document: Mapping[str, Any]) -> None:
        sys.stdout.write(json.dumps(document, indent=2) + "\n")

    def say(self, text: str) -> None:
        """One line of an answer."""
        self.out.print(tables.plain(text), markup=False, soft_wrap=True)

    def notice(self, text: str) -> None:
        """One line about what goes on."""
        self.err.print(tables.plain(text), markup=False)


def session(context: typer.Context) -> Session:
    found = context.obj
    assert isinstance(found, Session)
    return found

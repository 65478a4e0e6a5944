"""Events."""

import json
import sys
import time
from typing import Annotated

import typer
from rich.text import Text

from torpor.cli.client import Document
from torpor.cli.session import Session, session
from torpor.cli.tables import plain
from torpor.cli.workload_tables import show_time

INTERVAL = 0.5
WINDOW = 500
"""Events that are asked for each time; of more than this between two looks the oldest are missed."""


def events(
    context: typer.Context,
    subject: Annotated[str | None, typer.Argument(help="Only those about this workload, instance or host.")] = None,
    count: Annotated[int, typer.Option("-n", "--number", min=1, max=10_000, help="How many.")] = 30,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what happens.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document; with --follow one a line.")] = False,
) -> None:
    """Show what happened, oldest first."""
    here = session(context)
    if follow:
        _follow(here, subject, count, as_json)
        return
    document = here.client.get("/v1/events", limit=count, subject=subject)
    if as_json:
        here.print_json(document)
        return
    for event in document["events"]:
        _print(here, event)
    if not document["events"]:
        here.say("nothing has happened yet" if subject is None else f"nothing is known of {subject}")


def _follow(here: Session, subject: str | None, count: int, as_json: bool) -> None:
    before: list[Document] = []
    first = True
    try:
        while True:
            window: list[Document] = here.client.get("/v1/events", limit=max(WINDOW, count), subject=subject)["events"]
            for event in window[-count:] if first else fresh(before, window):
                _print_line(event) if as_json else _print(here, event)
            before, first = window, False
            time.sleep(INTERVAL)
    except KeyboardInterrupt:
        return


def _print_line(event: Document) -> None:
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()


def fresh(before: list[Document], window: list[Document]) -> list[Document]:
    """The part of `window` that follows what `before` ended with: both are the last events of one list."""
    for overlap in range(min(len(before), len(window)), 0, -1):
        if before[-overlap:] == window[:overlap]:
            return window[overlap:]
    return window


def _print(here: Session, event: Document) -> None:
    line = Text(show_time(event["at"]), style="bright_black")
    line.append(f"  {plain(event['subject']):<12}", style="bold").append(f"  {plain(event['kind']):<18}", style="cyan")
    line.append("  " + plain(event["message"]), style="default")
    here.out.print(line, soft_wrap=True)


def register(app: typer.Typer) -> None:
    app.command()(events)

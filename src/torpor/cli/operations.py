"""Operations: what was done, and how long it took beside how long it was thought to take."""

from typing import Annotated

import typer

from torpor.cli.client import Document
from torpor.cli.session import Json, session
from torpor.cli.tables import left, name, print_table, right, text
from torpor.cli.workload_tables import show_time


def operations(
    context: typer.Context,
    count: Annotated[int, typer.Option("-n", "--number", min=1, max=10_000, help="How many.")] = 20,
    as_json: Json = False,
) -> None:
    """List what was done to workloads, oldest first, with predicted and measured seconds."""
    here = session(context)
    document = here.client.get("/v1/operations", limit=count)
    if as_json:
        here.print_json(document)
        return
    if not document["operations"]:
        here.say("nothing has been done yet")
        return
    columns = [left("BEGUN"), name("WORKLOAD"), left("OPERATION"), left("STATUS"), right("PREDICTED"), right("TOOK")]
    print_table(here.out, [*columns, text("PROBLEM")], [_row(o) for o in reversed(document["operations"])])


def _row(operation: Document) -> tuple[str, ...]:
    took = operation["ended_at"] and operation["ended_at"] - operation["created_at"]
    return (
        show_time(operation["created_at"]),
        operation["workload"],
        operation["kind"],
        operation["status"],
        _seconds(operation["predicted_seconds"]),
        _seconds(took),
        operation["problem"]["what"] if operation["problem"] else "",
    )


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f} s"


def register(app: typer.Typer) -> None:
    app.command()(operations)

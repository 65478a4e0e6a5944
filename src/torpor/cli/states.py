"""Saved states: ls, show, verify, rm, gc."""

import sys
import time
from typing import Annotated

import typer

from torpor.cli.client import Document, segment
from torpor.cli.problems import Reported, error_of
from torpor.cli.progress import display
from torpor.cli.quantities import show_bytes, show_seconds
from torpor.cli.session import Json, Session, session
from torpor.cli.tables import left, name, print_table, right, text
from torpor.cli.workload_tables import show_time
from torpor.domain.errors import BackendFailed, Invalid, StateDamaged

app = typer.Typer(help="Saved states: what there is, whether it is whole, what can go.", no_args_is_help=True)
Workload = Annotated[str, typer.Argument(help="Name of the workload.")]
AnyWorkload = Annotated[str | None, typer.Argument(metavar="[WORKLOAD]", help="Only of this workload.")]


@app.command()
def ls(context: typer.Context, workload: AnyWorkload = None, as_json: Json = False) -> None:
    """List saved states."""
    here = session(context)
    document = here.client.get("/v1/states", workload=_checked(workload))
    if as_json:
        here.print_json(document)
    elif not document["states"]:
        here.say("there are no saved states")
    else:
        columns = [name("INSTANCE"), right("GENERATION"), left("STATUS"), left("CODEC"), right("BASE")]
        columns += [right("STORED"), right("MEMORY"), right("AGE")]
        print_table(here.out, columns, [_row(s) for s in document["states"]])


def _row(state: Document) -> tuple[object, ...]:
    return (
        state["instance"],
        state["generation"],
        state["status"],
        state["codec"],
        state["base"] or "-",
        show_bytes(state["stored_bytes"]),
        show_bytes(state["memory_bytes"]),
        show_seconds(time.time() - state["created_at"]),
    )


@app.command()
def show(context: typer.Context, workload: Workload, as_json: Json = False) -> None:
    """Show all about each saved state of a workload."""
    here = session(context)
    document = here.client.get("/v1/states", workload=_checked(workload))
    if as_json:
        here.print_json(document)
        return
    if not document["states"]:
        here.say(f"{workload} has no saved state")
    for index, state in enumerate(document["states"]):
        if index:
            here.say("")
        _print(here, state)


def _print(here: Session, state: Document) -> None:
    base = f", the rest is in the memory that generation {state['base']} wrote" if state["base"] else ""
    facts = [
        ("instance", state["instance"]),
        ("generation", state["generation"]),
        ("status", state["status"] + (", the guest runs on it" if state["mapped"] else "")),
        ("written", f"{show_time(state['created_at'])}, by the mechanism {state['mechanism']}"),
        ("on disk", f"{show_bytes(state['stored_bytes'])}, codec {state['codec']}"),
        ("memory", f"{show_bytes(state['memory_bytes'])}; its save wrote {show_bytes(state['written_bytes'])}{base}"),
    ]
    for label, value in facts:
        here.say(f"{label + ':':<11} {value}")


@app.command()
def verify(context: typer.Context, workload: AnyWorkload = None, as_json: Json = False) -> None:
    """Read every byte of saved states and compare it with its checksums; exit code 9 where one is damaged."""
    here = session(context)
    body = {} if workload is None else {"workload": _checked(workload)}
    with display(here.err, quiet=as_json) as shown:
        for line in here.client.lines("/v1/states/verify", body):
            if (checked := line.get("checked")) is not None:
                break
            what = f"verifying saved state {line.get('generation')} of {line.get('instance')}"
            shown.show(what, "", line.get("bytes_done", 0), line.get("bytes_total", 0))
        else:
            raise BackendFailed("the verification ended without a result", remedy="look at the daemon's log")
    damaged = [check for check in checked if check.get("damage")]
    if as_json:
        here.print_json({"whole": not damaged, "checked": checked})
    else:
        _print_checked(here, checked, damaged)
    if damaged:
        codes = [error_of(check["damage"]).exit_code for check in damaged]
        raise Reported(_complaint(damaged), StateDamaged.exit_code if StateDamaged.exit_code in codes else codes[0])


def _print_checked(here: Session, checked: list[Document], damaged: list[Document]) -> None:
    if not checked:
        here.say("there are no saved states")
        return
    rows = [
        (c["instance"], c["generation"], _verdict(c), error_of(c["damage"]) if c.get("damage") else "") for c in checked
    ]
    print_table(here.out, [name("INSTANCE"), right("GENERATION"), left("FOUND"), text("PROBLEM")], rows)


def _verdict(check: Document) -> str:
    if check.get("damage"):
        return "FAIL"
    return "ok" if check.get("whole") else "removed meanwhile"


def _complaint(damaged: list[Document]) -> str:
    sentence = str(error_of(damaged[0]["damage"]))
    if len(damaged) == 1:
        return sentence
    others = [f"{d['generation']} of {d['instance']}" for d in damaged[1:5]]
    return sentence.rstrip(".") + f"; so are {len(damaged) - 1} more: {', '.join(others)}."


@app.command()
def rm(
    context: typer.Context,
    workload: Workload,
    generation: Annotated[int, typer.Argument(help="Of the state, as `torpor state ls` shows it.", min=1)],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: Json = False,
) -> None:
    """Remove a spent saved state of every instance of a workload; the workload can't be taken back to it then."""
    here = session(context)
    path = f"/v1/workloads/{segment(workload, 'workload')}/states/{generation}"
    if not yes:
        if not sys.stdin.isatty():
            what = f"saved state {generation} of {workload} was not removed"
            raise Invalid(what, detail="there is nobody to ask", remedy="say --yes")
        question = f"Remove saved state {generation} of {workload}? Should it fail, it can't be taken back to it then."
        typer.confirm(question, abort=True, err=True)
    removed = here.client.delete(path)
    if as_json:
        here.print_json(removed)
    else:
        freed = show_bytes(removed["freed_bytes"])
        here.say(f"saved state {generation} of {workload} is removed, {freed} freed; {removed['lost']}")


@app.command()
def gc(context: typer.Context, as_json: Json = False) -> None:
    """Remove what unfinished saves and deletions have left; waits for the operation under way."""
    here = session(context)
    with here.busy("looking for what is left over; an operation under way is waited for", quiet=as_json):
        document = here.client.post("/v1/states/collect")
    if as_json:
        here.print_json(document)
    else:
        freed = document["freed_bytes"]
        here.say(f"{show_bytes(freed)} freed" if freed else "there was nothing to remove")


def _checked(workload: str | None) -> str | None:
    """A name that nothing can have is not found; it need not be asked for."""
    if workload is not None:
        segment(workload, "workload")
    return workload


def register(parent: typer.Typer) -> None:
    parent.add_typer(app, name="state")

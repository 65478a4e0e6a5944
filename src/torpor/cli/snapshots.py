"""Snapshots: create, ls, show, rm, restore, clone."""

import time
from typing import Annotated, Any

import typer

from torpor.cli import workload_tables as tables
from torpor.cli.client import Document, segment
from torpor.cli.problems import error_of
from torpor.cli.progress import describe_operation, display
from torpor.cli.quantities import duration, show_bytes, show_seconds
from torpor.cli.session import DryRun, Json, Session, session
from torpor.cli.tables import left, name, print_table, right
from torpor.cli.waiting import INTERVAL, Wait, active, interrupted, operation_ids

app = typer.Typer(
    help="Snapshots of running workloads: memory and disk of one instant, kept to go back to or to clone.",
    no_args_is_help=True,
)
Workload = Annotated[str, typer.Argument(help="Name of the workload.")]
AnyWorkload = Annotated[str | None, typer.Argument(metavar="[WORKLOAD]", help="Only of this workload.")]
Name = Annotated[str, typer.Argument(help="Name of the snapshot.")]
Waiting = Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until it is done.")]


def _all(workload: str) -> str:
    return f"/v1/workloads/{segment(workload, 'workload')}/snapshots"


def _one(workload: str, name: str) -> str:
    return f"{_all(workload)}/{segment(name, 'snapshot')}"


@app.command()
def create(context: typer.Context, workload: Workload, name: Name, wait: Waiting = True, as_json: Json = False) -> None:
    """Take a snapshot of a workload, which runs on meanwhile."""
    here = session(context)
    operation = here.client.post(_all(workload), {"name": name})
    if not wait:
        here.print_json(operation) if as_json else here.say(f"snapshot {name} of {workload} is being taken")
        return
    _await(here, operation, f"snapshot {name} of {workload} goes on being taken", as_json)
    snapshot = here.client.get(_one(workload, name))
    here.print_json(snapshot) if as_json else here.say(_summary(snapshot))


def _summary(snapshot: Document) -> str:
    count = len(snapshot["instances"])
    still = f"{snapshot['pause_seconds'] * 1000:.0f} ms"
    line = f"snapshot {snapshot['name']} of {snapshot['workload']}: {show_bytes(snapshot['stored_bytes'])}"
    if count > 1:
        return line + f" for {count} VMs, which stood still for {still}, within {snapshot['skew_seconds'] * 1e3:.0f} ms"
    return line + f"; the VM stood still for {still}"


@app.command()
def ls(context: typer.Context, workload: AnyWorkload = None, as_json: Json = False) -> None:
    """List snapshots."""
    here = session(context)
    if workload is not None:
        segment(workload, "workload")
    document = here.client.get("/v1/snapshots", workload=workload)
    if as_json:
        here.print_json(document)
    elif not document["snapshots"]:
        here.say("there are no snapshots")
    else:
        columns = [name("WORKLOAD"), name("SNAPSHOT"), right("VMS"), right("STORED"), right("PAUSE"), right("AGE")]
        print_table(here.out, columns, [_row(s) for s in document["snapshots"]])


def _row(snapshot: Document) -> tuple[object, ...]:
    return (
        snapshot["workload"],
        snapshot["name"],
        len(snapshot["instances"]),
        show_bytes(snapshot["stored_bytes"]),
        f"{snapshot['pause_seconds'] * 1000:.0f} ms",
        show_seconds(time.time() - snapshot["created_at"]),
    )


@app.command()
def show(context: typer.Context, workload: Workload, name: Name, as_json: Json = False) -> None:
    """Show a snapshot: when it was taken, and how long each VM stood still for it."""
    here = session(context)
    snapshot = here.client.get(_one(workload, name))
    if as_json:
        here.print_json(snapshot)
        return
    for label, value in (
        ("name", snapshot["name"]),
        ("workload", snapshot["workload"]),
        ("taken", tables.show_time(snapshot["created_at"])),
        ("stored", show_bytes(snapshot["stored_bytes"])),
        ("memory", show_bytes(snapshot["memory_bytes"])),
        ("skew", f"{snapshot['skew_seconds'] * 1000:.1f} ms"),
    ):
        here.say(f"{label + ':':<10} {value}")
    here.say("")
    print_instances(here, snapshot)


def print_instances(here: Session, snapshot: Document) -> None:
    columns = [name("INSTANCE"), left("MECHANISM"), right("STORED"), right("MEMORY"), right("PAUSE")]
    rows = [
        (
            part["instance"],
            part["mechanism"],
            show_bytes(part["stored_bytes"]),
            show_bytes(part["memory_bytes"]),
            f"{part['pause_seconds'] * 1000:.1f} ms",
        )
        for part in snapshot["instances"]
    ]
    print_table(here.out, columns, rows)


@app.command()
def rm(context: typer.Context, workload: Workload, name: Name, wait: Waiting = True, as_json: Json = False) -> None:
    """Remove a snapshot."""
    here = session(context)
    operation = here.client.delete(_one(workload, name))
    if wait:
        operation = _await(here, operation, f"snapshot {name} goes on being removed", as_json)
    if as_json:
        here.print_json(operation)
    else:
        here.say(f"snapshot {name} of {workload} is {'removed' if wait else 'being removed'}")


@app.command()
def restore(
    context: typer.Context, workload: Workload, name: Name, wait: Waiting = True, as_json: Json = False
) -> None:
    """Take a workload back to a snapshot; what it has in memory and on disk now is lost."""
    here = session(context)
    known = operation_ids(here.client, workload)
    operation = here.client.post(f"{_one(workload, name)}/restore")
    if not wait:
        here.print_json(operation) if as_json else here.say(f"{workload} is being taken back to snapshot {name}")
        return
    _await(here, operation, f"{workload} goes on being taken back", as_json)
    final = Wait(here, workload, known).until(active, as_json)
    here.print_json({"workload": final}) if as_json else tables.print_arrived(here, final)


@app.command()
def clone(
    context: typer.Context,
    workload: Workload,
    name: Name,
    new_name: Annotated[str, typer.Argument(help="Name of the new workload; its hostnames begin with it.")],
    priority: Annotated[
        int | None, typer.Option(min=-1_000_000, max=1_000_000, help="Higher goes first; default: the original's.")
    ] = None,
    preemptible: Annotated[bool, typer.Option("--preemptible", help="May be suspended to make room.")] = False,
    protect: Annotated[bool, typer.Option("--protect", help="Must never be suspended.")] = False,
    duration: Annotated[float | None, typer.Option(parser=duration, metavar="TIME", help="Ends then: 90s, 2h.")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until it runs.")] = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> int | None:
    """Run a new workload from a snapshot, under its own names, addresses and MACs."""
    here = session(context)
    body: dict[str, Any] = {
        "name": new_name, "priority": priority, "preemptible": preemptible, "protect": protect,
        "duration_seconds": duration,
    }  # fmt: skip
    outcome = here.client.post(f"{_one(workload, name)}/clone", body, dry_run=dry_run)
    if dry_run:
        return tables.answer_dry_run(here, outcome, as_json)
    if not wait:
        here.print_json(outcome) if as_json else tables.print_accepted(here, outcome)
        return None
    if not as_json:
        tables.notice_accepted(here, outcome)
    final = Wait(here, new_name).until(active, quiet=as_json)
    here.print_json({**outcome, "workload": final}) if as_json else tables.print_arrived(here, final)
    return None


def _await(here: Session, operation: Document, goes_on: str, quiet: bool) -> Document:
    """Return the operation once it has ended. Raises its problem where it was undone."""
    try:
        with display(here.err, quiet) as shown:
            while operation["ended_at"] is None:
                shown.show(*describe_operation(operation, operation["workload"]))
                time.sleep(INTERVAL)
                operation = here.daemon.get(f"/v1/operations/{operation['id']}")
    except KeyboardInterrupt as error:
        raise interrupted(f"no longer waiting; {goes_on} (see `torpor operations`)") from error
    if operation["status"] == "undone":
        raise error_of(operation["problem"] or {"what": f"{operation['kind']} was undone"})
    return operation


def register(parent: typer.Typer) -> None:
    parent.add_typer(app, name="snapshot")

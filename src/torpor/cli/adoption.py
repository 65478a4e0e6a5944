"""VMs that others made on this host: adopt, release."""

import time
from typing import Annotated

import typer

from torpor.cli import workload_tables
from torpor.cli.client import Document, segment
from torpor.cli.quantities import show_mb
from torpor.cli.session import Json, Session, session
from torpor.cli.tables import left, name, print_table, right
from torpor.domain.errors import Invalid

_LOOKED_AT_SECONDS = 3.0


def adopt(
    context: typer.Context,
    vms: Annotated[list[str] | None, typer.Argument(metavar="VM...", help="By name or UUID; none: list them.")] = None,
    workload: Annotated[str | None, typer.Option(metavar="NAME", help="Workload that they become.")] = None,
    priority: Annotated[int, typer.Option(min=-1_000_000, max=1_000_000, help="Higher goes first.")] = 0,
    preemptible: Annotated[bool, typer.Option("--preemptible", help="May be suspended to make room.")] = False,
    protect: Annotated[bool, typer.Option("--protect", help="Must never be suspended.")] = False,
    as_json: Json = False,
) -> None:
    """Look after VMs that others made; without any, list those that there are."""
    here = session(context)
    if not vms:
        if workload is not None:
            raise Invalid(
                "no VM was named", remedy="`torpor adopt` lists them; then `torpor adopt VM... --workload NAME`"
            )
        document = here.client.get("/v1/strangers")
        here.print_json(document) if as_json else _print_strangers(here, document["vms"])
        return
    if workload is None and len(vms) > 1:
        raise Invalid("several VMs become one workload", detail="it has no name yet", remedy="say --workload NAME")
    body = {
        "workload": workload or vms[0], "vms": vms, "priority": priority, "preemptible": preemptible,
        "protect": protect,
    }  # fmt: skip
    adopted = here.client.post("/v1/adopted", body)
    adopted = _seen(here, adopted)
    here.print_json(adopted) if as_json else workload_tables.print_arrived(here, adopted)


def _seen(here: Session, adopted: Document) -> Document:
    """As it is once the daemon has looked what its VMs do, which takes a moment."""
    give_up = time.monotonic() + _LOOKED_AT_SECONDS
    while adopted["state"] == "done" and adopted["reason"] == "taken in" and time.monotonic() < give_up:
        time.sleep(0.1)
        adopted = here.client.get(f"/v1/workloads/{segment(adopted['name'], 'workload')}")
    return adopted


def release(
    context: typer.Context,
    workload: Annotated[str, typer.Argument(metavar="WORKLOAD", help="Name of an adopted workload.")],
    as_json: Json = False,
) -> None:
    """Let go of adopted VMs; they stay as they are."""
    here = session(context)
    outcome = here.client.delete(f"/v1/adopted/{segment(workload, 'workload')}")
    here.print_json(outcome) if as_json else here.say(f"{workload} is looked after no more; its VMs are as they were")


def _print_strangers(here: Session, vms: list[Document]) -> None:
    if not vms:
        here.say("there are no VMs of others on this host")
        return
    columns = [name("VM"), left("STATE"), right("CPUS"), right("MEMORY"), left("WORKLOAD")]
    rows = [
        (vm["name"], vm["state"], vm["flavor"]["vcpus"], show_mb(vm["flavor"]["memory_mb"]), vm["workload"] or "-")
        for vm in vms
    ]
    print_table(here.out, columns, rows, [vm["defect"] or vm["unfit"] for vm in vms])


def register(app: typer.Typer) -> None:
    for command in (adopt, release):
        app.command()(command)

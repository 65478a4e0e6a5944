"""Names."""

import typer

from torpor.cli.client import Document
from torpor.cli.session import Json, session
from torpor.cli.tables import left, name, print_table

app = typer.Typer()


@app.callback(invoke_without_command=True)
def names(context: typer.Context, as_json: Json = False) -> None:
    """List hostnames with their addresses, and whether both are true."""
    if context.invoked_subcommand is not None:
        return
    here = session(context)
    document = here.client.get("/v1/names")
    if as_json:
        here.print_json(document)
        return
    if not document["names"]:
        here.say("there are no names")
        return
    rows = [
        (n["fqdn"], n["address"], "yes" if n["published"] else "no", _on_interface(n), n["workload_state"])
        for n in document["names"]
    ]
    print_table(here.out, [name("NAME"), left("ADDRESS"), left("ANSWERS"), left("ADDRESS IS"), left("WORKLOAD")], rows)
    for n in document["names"]:
        if n["address_detail"]:
            here.say(f"{n['name']}: {n['address_detail']}")


def _on_interface(entry: Document) -> str:
    """Only a guest that runs has an interface that could have the address."""
    return str(entry["address_state"]) if entry["workload_state"] == "active" else "-"


def register(parent: typer.Typer) -> None:
    parent.add_typer(app, name="names")

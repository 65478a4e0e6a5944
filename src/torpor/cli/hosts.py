"""Hosts."""

import typer

from torpor.cli.quantities import show_bytes, show_mb
from torpor.cli.session import Json, session
from torpor.cli.tables import left, print_table, right


def hosts(context: typer.Context, as_json: Json = False) -> None:
    """List hosts: what they have, and what is held of it."""
    here = session(context)
    document = here.client.get("/v1/hosts")
    if as_json:
        here.print_json(document)
        return
    rows = [
        (
            h["id"],
            f"{h['used']['vcpus']} of {h['total']['vcpus']}",
            f"{show_mb(h['used']['memory_mb'])} of {show_mb(h['total']['memory_mb'])}",
            f"{show_mb(h['used']['disk_mb'])} of {show_mb(h['total']['disk_mb'])}",
            h["instances"],
            show_bytes(h["process_bytes"]),
            show_bytes(h["state_bytes"]) + (f" of {show_mb(h['states_limit_mb'])}" if h["states_limit_mb"] else ""),
        )
        for h in document["hosts"]
    ]
    print_table(
        here.out,
        [left("HOST"), right("CPUS"), right("MEMORY"), right("DISK"), right("VMS"), right("VM MEMORY"), right("SAVED")],
        rows,
    )


def register(app: typer.Typer) -> None:
    app.command()(hosts)

"""Images: add, ls, build, rm."""

from pathlib import Path
from typing import Annotated

import typer

from torpor.cli.client import segment
from torpor.cli.progress import display
from torpor.cli.quantities import show_bytes
from torpor.cli.session import Json, session
from torpor.cli.tables import left, name, print_table, right
from torpor.cli.workload_tables import show_time
from torpor.domain.errors import BackendFailed

app = typer.Typer(help="Images that instances are made from.", no_args_is_help=True)
Name = Annotated[str, typer.Argument(help="Name of the image.")]


@app.command()
def ls(context: typer.Context, as_json: Json = False) -> None:
    """List images."""
    here = session(context)
    document = here.client.get("/v1/images")
    if as_json:
        here.print_json(document)
    elif not document["images"]:
        here.say(
            "there are no images; make one: `torpor image add NAME FILE` or `torpor image build debian --recipe debian`"
        )
    else:
        rows = [
            (
                i["name"],
                i["kind"],
                i["format"],
                show_bytes(i["size_bytes"]),
                show_bytes(i["virtual_bytes"]) if i["virtual_bytes"] else "-",
                show_time(i["created_at"])[:16],
            )
            for i in document["images"]
        ]
        print_table(
            here.out, [name("NAME"), left("KIND"), left("FORMAT"), right("SIZE"), right("DISK"), left("ADDED")], rows
        )


@app.command()
def add(
    context: typer.Context,
    name: Name,
    file: Annotated[Path, typer.Argument(help="A qcow2 or raw disk image; it is copied.")],
    as_json: Json = False,
) -> None:
    """Take a copy of a disk image."""
    here = session(context)
    with here.busy(f"copying {file.name}", quiet=as_json):
        image = here.client.post("/v1/images", {"name": name, "path": str(file.absolute())})
    if as_json:
        here.print_json(image)
    else:
        here.say(f"image {name} is added: {image['format']}, {show_bytes(image['size_bytes'])}")


@app.command()
def build(
    context: typer.Context,
    name: Name,
    recipe: Annotated[str, typer.Option(help="What to build: `debian`, with cloud-init, or `tiny`, for tests.")],
    as_json: Json = False,
) -> None:
    """Build a test image from distribution packages."""
    here = session(context)
    with display(here.err, quiet=as_json) as shown:
        for line in here.client.lines("/v1/images/build", {"name": name, "recipe": recipe}):
            if image := line.get("image"):
                break
            shown.show(f"building {name}: {line.get('progress', '')}")
        else:
            raise BackendFailed(f"the build of {name} ended without an image", remedy="look at the daemon's log")
    here.print_json(image) if as_json else here.say(f"image {name} is built: {show_bytes(image['size_bytes'])}")


@app.command()
def rm(context: typer.Context, name: Name, as_json: Json = False) -> None:
    """Remove an image that no instance is made from."""
    here = session(context)
    here.client.delete(f"/v1/images/{segment(name, 'image')}")
    here.print_json({"removed": name}) if as_json else here.say(f"image {name} is removed")


def register(parent: typer.Typer) -> None:
    parent.add_typer(app, name="image")

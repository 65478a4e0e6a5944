"""Instances: the serial console."""

import codecs
import re
import sys
import time
from typing import Annotated

import typer

from torpor.cli.client import segment
from torpor.cli.session import Json, session
from torpor.domain.errors import Invalid

INTERVAL = 0.3
_SEQUENCE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def harmless(text: str) -> str:
    """What a guest wrote, without anything that would steer the reader's terminal."""
    return _CONTROL.sub("", _SEQUENCE.sub("", text))


def console(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="INSTANCE", help="Hostname of the instance.")],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what it writes.")] = False,
    as_json: Json = False,
) -> None:
    """Show what an instance wrote on its serial console (the last 256K of it)."""
    if follow and as_json:
        raise Invalid("--follow and --json can't be used together", remedy="leave one of them out")
    here = session(context)
    path = f"/v1/instances/{segment(name, 'instance')}/console"
    data, offset = here.client.chunk(path)
    decode = codecs.getincrementaldecoder("utf-8")(errors="replace").decode
    if as_json:
        here.print_json({"instance": name, "text": harmless(decode(data, True))})
        return
    sys.stdout.write(harmless(decode(data)))
    sys.stdout.flush()
    try:
        while follow:
            time.sleep(INTERVAL)
            data, offset = here.client.chunk(path, offset)
            sys.stdout.write(harmless(decode(data)))
            sys.stdout.flush()
    except KeyboardInterrupt:
        return


def register(app: typer.Typer) -> None:
    app.command()(console)

"""The program `torpor`: options that all commands share, and the one place where errors become exit codes."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from torpor import __version__
from torpor.cli import (
    adoption,
    daemon,
    doctor,
    events,
    hosts,
    images,
    instances,
    names,
    operations,
    snapshots,
    states,
    workloads,
)
from torpor.cli.problems import INTERRUPTED, Reported
from torpor.cli.session import Session
from torpor.domain.errors import TorporError

CONTEXT = {"help_option_names": ["-h", "--help"]}


def _version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"torpor {__version__}\n")
        raise typer.Exit


def _shared(
    context: typer.Context,
    config: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Configuration; default: $TORPOR_CONFIG, else /etc/torpor/torpor.toml."),
    ] = None,
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Say which.")] = False,
) -> None:
    """Make room on a full cloud without killing anything."""
    context.obj = Session(config)


def create() -> typer.Typer:
    """Every command that talks to the daemon."""
    app = typer.Typer(
        name="torpor", no_args_is_help=True, add_completion=False, context_settings=CONTEXT, rich_markup_mode=None
    )
    app.callback()(_shared)
    for noun in (
        workloads,
        adoption,
        states,
        snapshots,
        images,
        hosts,
        names,
        operations,
        events,
        instances,
        doctor,
        daemon,
    ):
        noun.register(app)
    return app


def run(app: typer.Typer, arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; whatever went wrong is one sentence on standard error."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    try:
        result = app(words or ["--help"], prog_name="torpor", standalone_mode=False)
        sys.stdout.flush()
    except typer.TyperException as error:
        return _complain(f"{error.format_message().rstrip('.')} (see `torpor --help`).", error.exit_code)
    except TorporError as error:
        return _complain(str(error), error.exit_code)
    except Reported as error:
        return _complain(str(error), error.exit_code)
    except typer.Abort:
        return _complain("nothing was done.", 1)
    except KeyboardInterrupt:
        return _complain("interrupted.", INTERRUPTED)
    except BrokenPipeError:
        # Whoever read our output has had enough of it; Python would complain once more at exit.
        sys.stdout = None
        return 0
    return result if isinstance(result, int) else 0


def _complain(sentence: str, code: int) -> int:
    one_line = " ".join(sentence.split())
    if one_line:
        sys.stderr.write(f"torpor: {one_line}\n")
    return code

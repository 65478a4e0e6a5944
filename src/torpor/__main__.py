"""Entry of `torpor` and `python -m torpor`: the CLI, and `serve`, which is the daemon itself."""

import os
import sys
from typing import Annotated

import typer

from torpor.cli.main import create, run
from torpor.cli.session import session


def serve(
    context: typer.Context,
    take_down: Annotated[
        bool, typer.Option("--take-down", help="Only remove the network that a daemon which is no more has left.")
    ] = False,
) -> None:
    """Run the daemon in the foreground; its log goes to standard error."""
    # Imported here: the other commands must be quick, and must not need what the daemon needs.
    from torpor import daemon, log, wiring
    from torpor.domain.errors import MissingPart

    if os.geteuid() != 0:
        raise MissingPart("the daemon can't run", detail="it needs root", remedy="run `torpor serve` as root")
    log.configure()
    config = session(context).config
    if take_down:
        daemon.take_down(config, wiring.build)
    else:
        daemon.serve(config, wiring.build)


def main() -> None:
    """What the console script calls."""
    app = create()
    app.command()(serve)
    sys.exit(run(app))


if __name__ == "__main__":
    main()

"""Entry of `torpor` and `python -m torpor`: the CLI, and `serve`, which is the daemon itself."""

import os
import sys
from typing import Annotated

import typer

from torpor.cli import names
from torpor.cli.main import create, run
from torpor.cli.session import session
from torpor.domain.errors import Invalid, MissingPart


def serve(
    context: typer.Context,
    take_down: Annotated[
        bool, typer.Option("--take-down", help="Only remove the network that a daemon which is no more has left.")
    ] = False,
) -> None:
    """Run the daemon in the foreground; its log goes to standard error."""
    # Imported here: the other commands must be quick, and must not need what the daemon needs.
    from torpor import daemon, log, wiring

    if os.geteuid() != 0:
        raise MissingPart("the daemon can't run", detail="it needs root", remedy="run `torpor serve` as root")
    log.configure()
    config = session(context).config
    if take_down:
        daemon.take_down(config, wiring.build)
    else:
        daemon.serve(config, wiring.build)


@names.app.command("serve")
def serve_names(
    context: typer.Context,
    network: Annotated[
        list[str] | None, typer.Option("--network", metavar="NETWORK", help="Default: names.networks.")
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Look once, and end.")] = False,
    take_down: Annotated[bool, typer.Option("--take-down", help="Only end the name server that it has left.")] = False,
) -> None:
    """Give the ports of Neutron networks names, whoever made them; in the foreground. Needs no other part of Torpor."""
    try:
        from torpor import log, names_service
        from torpor.wiring.names_service import build
    except ModuleNotFoundError as error:
        raise MissingPart(
            "names of a cloud's networks can't be served",
            detail=f"Python's module {error.name} is not there",
            remedy="run `script/setup openstack`, or install torpor[openstack]",
        ) from error
    log.configure()
    config = session(context).config
    if network:
        config = config.model_copy(update={"names": config.names.model_copy(update={"networks": tuple(network)})})
    if not config.names.networks:
        raise Invalid("it is not said which networks' names are to be served", remedy="say --network")
    act = names_service.take_down if take_down else names_service.once if once else names_service.serve
    act(config, build)


def main() -> None:
    """What the console script calls."""
    app = create()
    app.command()(serve)
    sys.exit(run(app))


if __name__ == "__main__":
    main()

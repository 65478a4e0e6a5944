"""Entry of `torpor` and `python -m torpor`: the CLI, and `serve`, which is the daemon itself."""

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from torpor.cli import doctor, names
from torpor.cli.main import create, run
from torpor.cli.session import Json, session
from torpor.domain.errors import Invalid, MissingPart

Cloud = Annotated[str, typer.Option("--cloud", metavar="NAME", help="Entry of clouds.yaml; default: openstack.cloud.")]
Host = Annotated[
    str,
    typer.Option("--host", metavar="NAME", help="What the Neutron agent calls this machine; default: its hostname."),
]


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
    with _openstacksdk("names of a cloud's networks can't be served"):
        from torpor import following, log
        from torpor.wiring.names_service import build
    log.configure()
    config = session(context).config
    if network:
        config = config.model_copy(update={"names": config.names.model_copy(update={"networks": tuple(network)})})
    if not config.names.networks:
        raise Invalid("it is not said which networks' names are to be served", remedy="say --network")
    task = f"serving names of {', '.join(config.names.networks)} in {config.network.zone}"
    act = following.take_down if take_down else following.once if once else following.serve
    act(following.Service(config.state_dir, config.names.look_seconds, task, lambda: build(config)))


networks = typer.Typer()


@networks.callback()
def network() -> None:
    """Look after networks of a cloud."""


@networks.command("dhcp")
def serve_dhcp(
    context: typer.Context,
    network: Annotated[str, typer.Argument(metavar="NETWORK", help="Name or id.")],
    cloud: Cloud = "",
    host: Host = "",
    once: Annotated[bool, typer.Option("--once", help="Look once, and end; the DHCP server goes on.")] = False,
    take_down: Annotated[bool, typer.Option("--take-down", help="End it, and take its port away.")] = False,
) -> None:
    """Lease the ports of a Neutron network their own addresses, in the foreground. Needs no other part of Torpor."""
    with _openstacksdk("a network can't be served"):
        from torpor import following, log
        from torpor.wiring.network_dhcp import build, find, folder
    if os.geteuid() != 0:
        raise MissingPart("DHCP can't be served", detail="it needs root", remedy="run `torpor network dhcp` as root")
    log.configure()
    config = session(context).config
    account = cloud or config.openstack.cloud
    id = find(account, network)
    task = f"serving DHCP on network {network}"
    act = following.take_down if take_down else following.once if once else following.serve
    act(
        following.Service(
            folder(config, id),
            config.names.look_seconds,
            task,
            lambda: build(config, account, id, host or socket.gethostname()),
        )
    )


@doctor.app.command("network")
def examine_network(
    context: typer.Context,
    subject: Annotated[str, typer.Argument(metavar="NETWORK|SERVER", help="Name or id.")],
    cloud: Cloud = "",
    dhcp_server: Annotated[
        str, typer.Option("--dhcp-server", metavar="SERVER", help="A server on the network that is to answer DHCP.")
    ] = "",
    probe: Annotated[
        bool, typer.Option("--probe", help="Make a port of our own on the network, and ask from there what answers.")
    ] = False,
    host: Host = "",
    fix: Annotated[bool, typer.Option("--fix", help="Mend what needs no restart of a server.")] = False,
    as_json: Json = False,
) -> int | None:
    """Walk the way of addresses and names on a Neutron network and say where it breaks; exit code 7 where it does."""
    with _openstacksdk("networks can't be looked at"):
        from torpor.engine.network_doctor import examine
        from torpor.wiring import network_doctor
    if probe and os.geteuid() != 0:
        raise MissingPart("no port can be made for the look", detail="that needs root", remedy="leave --probe out")
    here = session(context)
    account = cloud or here.config.openstack.cloud
    examined = examine(
        network_doctor.build(account),
        subject,
        dhcp_server,
        fix,
        network_doctor.served(here.config),
        network_doctor.here(here.config, account, host or socket.gethostname(), probe) if os.geteuid() == 0 else None,
    )
    for sentence in examined.mended:
        here.notice(sentence)
    checks = [{"name": f.name, "ok": f.ok, "detail": f.detail, "remedy": f.remedy} for f in examined.findings]
    return doctor.show(here, checks, as_json)


@contextmanager
def _openstacksdk(what: str) -> Iterator[None]:
    """Raise MissingPart where it is not there."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise MissingPart(
            what,
            detail=f"Python's module {error.name} is not there",
            remedy="run `script/setup openstack`, or install torpor[openstack]",
        ) from error


def main() -> None:
    """What the console script calls."""
    app = create()
    app.command()(serve)
    app.add_typer(networks, name="network")
    sys.exit(run(app))


if __name__ == "__main__":
    main()

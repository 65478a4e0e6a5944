"""`torpor doctor network`: where an address or a name is lost on its way; mended is what needs no restart of a VM."""

from collections.abc import Callable, Sequence, Set
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

from torpor.domain.address_path import Finding, NetworkPicture, Publication, names_of, walk
from torpor.domain.errors import Conflict, MissingPart, NotFound, TorporError
from torpor.engine.follow_names import NameFollower
from torpor.ports import Clock, NamedPorts, Names, NameServers, NetworkPictures, Outlook

PATIENCE_SECONDS = 60.0
"""Until what was mended shows: a guest asks for its lease every few seconds."""
_LOOK_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class ServedNames:
    """Names of networks that a configuration serves, with what a round of their service needs."""

    zone: str
    ports: NamedPorts
    names: Callable[[], Names]
    """What is published, looked at anew each time: another process may have changed it."""
    servers: NameServers
    clock: Clock
    look_seconds: float
    """How often the service looks."""
    holder: Callable[[], str]
    """The process that serves them; empty where none does."""
    alone: Callable[[], AbstractContextManager[None]]
    """Keeps every other process from serving them. Raises Conflict where one does, MissingPart."""


@dataclass(frozen=True, slots=True)
class Here:
    """What can be done from this machine, if it has a Neutron agent."""

    outlook: Outlook
    serve_dhcp: Callable[[str], None]
    """On the network with that id, once. Raises Conflict where a service does so already, other TorporErrors."""
    clock: Clock


@dataclass(frozen=True, slots=True)
class Examined:
    findings: Sequence[Finding]
    mended: Sequence[str]
    """What was done before that; without a full stop."""


def examine(
    pictures: NetworkPictures,
    subject: str,
    dhcp_server: str,
    fix: bool,
    served: ServedNames | None = None,
    here: Here | None = None,
) -> Examined:
    """What is found; with `fix`, after what can be mended was. Raises NotFound, Invalid, MissingPart, BackendFailed.

    `served`: the names that this configuration serves, of whichever networks. `here`: None where this machine has no
    part in the network.
    """

    def look() -> Sequence[Finding]:
        picture, server = _look(pictures, subject, dhcp_server, here)
        return _walk(picture, server, dhcp_server, served)

    findings = look()
    if not fix:
        return Examined(findings, ())
    mended: list[str] = []
    troubles: list[Finding] = []
    ports = [finding.opens_port for finding in findings if finding.opens_port]
    for port in ports:
        pictures.open_port(port)
    if ports:
        mended.append(f"{len(ports)} ports have no port security and no security groups any more")
    if here is not None and any(finding.serves_dhcp for finding in findings):
        troubles += _serve_dhcp(here, pictures.look(subject)[0], mended)
    if served is not None and any(finding.republishes for finding in findings):
        troubles += _publish(served, mended)
    if mended:
        wrong = {each.name for each in findings if each.opens_port or each.serves_dhcp or each.republishes}
        findings = _once_it_shows(look, wrong, here.clock) if here is not None else look()
    return Examined([*findings, *troubles], mended)


def _once_it_shows(look: Callable[[], Sequence[Finding]], wrong: Set[str], clock: Clock) -> Sequence[Finding]:
    """What is found once what was wrong is so no more, or will not be."""
    give_up = clock.now() + PATIENCE_SECONDS
    while True:
        findings = look()
        if all(finding.ok for finding in findings if finding.name in wrong) or clock.now() >= give_up:
            return findings
        clock.sleep(_LOOK_SECONDS)


def _serve_dhcp(here: Here, picture: NetworkPicture, mended: list[str]) -> Sequence[Finding]:
    """What kept it from being done."""
    try:
        here.serve_dhcp(picture.id)
        mended.append(f"DHCP is served on network {picture.name}; have `torpor network dhcp` run for what comes later")
    except Conflict:
        pass  # whoever serves it does it
    except TorporError as error:
        return [_failed("DHCP", error)]
    return ()


def _publish(served: ServedNames, mended: list[str]) -> Sequence[Finding]:
    """What kept it from being done."""
    try:
        with served.alone():
            follower = NameFollower(served.ports, served.names(), served.clock)
            if follower.round():
                mended.append("names are published and withdrawn as their ports are")
            return [Finding("names", False, failure.rstrip(".")) for failure in follower.failures]
    except Conflict:
        return ()  # whoever serves them does it; each finding says who that is
    except MissingPart as error:
        return [_failed("names", error)]


def _look(pictures: NetworkPictures, subject: str, dhcp_server: str, here: Here | None) -> tuple[NetworkPicture, str]:
    picture, server = pictures.look(subject)
    if dhcp_server and not any(dhcp_server in (at.server, at.name) for at in picture.attached):
        raise NotFound(
            f"server {dhcp_server!r} is not on network {picture.name}",
            detail="so nobody there hears it",
            remedy="name one that is, or connect it: openstack server add network",
        )
    if here is None:
        return picture, server
    asked = [
        at.address
        for at in picture.attached
        if server in ("", at.server) and at.address and at.port_up and at.status == "ACTIVE"
    ]
    echoes = here.outlook.ask(picture.id, asked) or {}
    attached = tuple(replace(at, echo=echoes.get(at.address)) for at in picture.attached)
    return replace(picture, attached=attached), server


def _walk(picture: NetworkPicture, server: str, dhcp_server: str, served: ServedNames | None) -> Sequence[Finding]:
    if served is None:
        return walk(picture, server, dhcp_server)
    try:
        publication = _publication(served, picture)
    except TorporError as error:
        return [*walk(picture, server, dhcp_server), _failed("names", error)]
    return walk(picture, server, dhcp_server, publication)


def _publication(served: ServedNames, picture: NetworkPicture) -> Publication | None:
    """None where it is not one of the networks whose names are served."""
    if picture.id not in served.ports.networks():
        return None
    ports = tuple(served.ports.ports())
    return Publication(
        served.zone,
        ports,
        tuple(served.names().records()),
        served.servers.answers(names_of(picture.id, ports)),
        served.holder(),
        served.look_seconds,
    )


def _failed(what: str, error: TorporError) -> Finding:
    return Finding(what, False, f"{error.what}: {error.detail}" if error.detail else error.what, error.remedy)

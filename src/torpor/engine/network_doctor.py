"""`torpor doctor network`: where an address or a name is lost on its way; mended is what needs no restart of a VM."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from torpor.domain.address_path import Finding, NetworkPicture, Publication, names_of, walk
from torpor.domain.errors import Conflict, MissingPart, NotFound, TorporError
from torpor.engine.follow_names import NameFollower
from torpor.ports import Clock, NamedPorts, Names, NameServers, NetworkPictures


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
class Examined:
    findings: Sequence[Finding]
    mended: Sequence[str]
    """What was done before that; without a full stop."""


def examine(
    pictures: NetworkPictures, subject: str, dhcp_server: str, fix: bool, served: ServedNames | None = None
) -> Examined:
    """What is found; with `fix`, after what can be mended was. Raises NotFound, Invalid, BackendFailed.

    `served`: the names that this configuration serves, of whichever networks.
    """
    findings = _walk(pictures, subject, dhcp_server, served)
    ports = [finding.opens_port for finding in findings if finding.opens_port]
    names = served is not None and any(finding.republishes for finding in findings)
    if not fix or not (ports or names):
        return Examined(findings, ())
    mended: list[str] = []
    for port in ports:
        pictures.open_port(port)
    if ports:
        mended.append(f"{len(ports)} ports have no port security and no security groups any more")
    troubles: Sequence[Finding] = ()
    if served is not None and names:
        try:
            troubles = _publish(served)
            mended += [] if troubles else ["names are published and withdrawn as their ports are"]
        except Conflict:
            pass  # whoever serves them does it; each finding says who that is
    return Examined([*_walk(pictures, subject, dhcp_server, served), *troubles], mended)


def _publish(served: ServedNames) -> Sequence[Finding]:
    """What kept it from being done. Raises Conflict where another process serves these names."""
    try:
        with served.alone():
            follower = NameFollower(served.ports, served.names(), served.clock)
            follower.round()
            return [Finding("names", False, failure.rstrip(".")) for failure in follower.failures]
    except MissingPart as error:
        return [_failed(error)]


def _walk(pictures: NetworkPictures, subject: str, dhcp_server: str, served: ServedNames | None) -> Sequence[Finding]:
    picture, server = pictures.look(subject)
    if dhcp_server and not any(dhcp_server in (at.server, at.name) for at in picture.attached):
        raise NotFound(
            f"server {dhcp_server!r} is not on network {picture.name}",
            detail="so nobody there hears it",
            remedy="name one that is, or connect it: openstack server add network",
        )
    if served is None:
        return walk(picture, server, dhcp_server)
    try:
        publication = _publication(served, picture)
    except TorporError as error:
        return [*walk(picture, server, dhcp_server), _failed(error)]
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


def _failed(error: TorporError) -> Finding:
    return Finding("names", False, f"{error.what}: {error.detail}" if error.detail else error.what, error.remedy)

"""`torpor doctor network`: where an address is lost on its way; mended is what needs no restart of anybody's VM."""

from collections.abc import Sequence

from torpor.domain.address_path import Finding, walk
from torpor.domain.errors import NotFound
from torpor.ports import NetworkPictures


def examine(pictures: NetworkPictures, subject: str, dhcp_server: str, fix: bool) -> tuple[Sequence[Finding], int]:
    """What is found, and how much was mended before that. Raises NotFound, Invalid, BackendFailed."""
    findings = _walk(pictures, subject, dhcp_server)
    ports = [finding.opens_port for finding in findings if finding.opens_port and fix]
    for port in ports:
        pictures.open_port(port)
    return (_walk(pictures, subject, dhcp_server) if ports else findings), len(ports)


def _walk(pictures: NetworkPictures, subject: str, dhcp_server: str) -> Sequence[Finding]:
    picture, server = pictures.look(subject)
    if dhcp_server and not any(dhcp_server in (at.server, at.name) for at in picture.attached):
        raise NotFound(
            f"server {dhcp_server!r} is not on network {picture.name}",
            detail="so nobody there hears it",
            remedy="name one that is, or connect it: openstack server add network",
        )
    return walk(picture, server, dhcp_server)

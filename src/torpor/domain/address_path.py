"""The way of an address from Neutron's records to a guest's interface, and where it breaks: a pure look at a picture.

What Neutron does with DHCP that comes from VMs: its anti-spoofing rules drop what leaves a port from UDP port 67, and a
security group that does not let UDP port 67 in keeps the clients' DISCOVER from it.
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass

from torpor.domain.errors import Invalid
from torpor.domain.named_ports import NamedPort, name_all
from torpor.domain.naming import NameRecord, hostname_of

_LEASED = re.compile(r"(?:lease of|bound to|DHCPACK of) (\d+\.\d+\.\d+\.\d+)")
"""As busybox's udhcpc and ISC's dhclient say it on the console."""
_CLOUD_INIT = re.compile(r"ci-info: \|\s*(\S+)\s*\|\s*True\s*\|\s*(\d+\.\d+\.\d+\.\d+)\s*\|")
"""cloud-init's table of interfaces: name and address of one that is up."""
_DATASOURCE = re.compile(r"Datasource (DataSource\w+)")
_READS_CONFIG_DRIVE = ("DataSourceConfigDrive", "DataSourceOpenStackLocal", "DataSourceOpenStack")


@dataclass(frozen=True, slots=True)
class Finding:
    """One step of the way."""

    name: str
    ok: bool
    detail: str
    remedy: str = ""
    opens_port: str = ""
    """Id of a port; mended by taking port security and security groups off it."""
    serves_dhcp: bool = False
    """Mended by serving DHCP on the network."""
    republishes: bool = False
    """Mended by publishing and withdrawing names once more, as their ports are."""


@dataclass(frozen=True, slots=True)
class Subnet:
    cidr: str
    dhcp: bool
    dhcp_ports: tuple[str, ...]
    """Addresses of Neutron's own DHCP servers on it that are up."""
    torpor: tuple[str, ...] = ()
    """Likewise of Torpor's."""


@dataclass(frozen=True, slots=True)
class Echo:
    """Who answered for an address, asked from a port of our own on its network."""

    mac: str
    """By ARP; empty for nobody."""
    ping: bool


@dataclass(frozen=True, slots=True)
class Attached:
    """A server's port on the network."""

    server: str
    name: str
    status: str
    """Of the server, as Nova calls it."""
    config_drive: bool
    port: str
    port_up: bool
    mac: str
    address: str
    """IPv4; empty where the port has none."""
    security: bool
    """Whether port security is on."""
    hears_dhcp: bool
    """Whether its security groups let UDP port 67 in; said only where port security is on."""
    console: str | None
    """What it said on its serial console; None where that can't be had."""
    echo: Echo | None = None
    """None where nobody asked."""


@dataclass(frozen=True, slots=True)
class NetworkPicture:
    name: str
    subnets: tuple[Subnet, ...]
    """IPv4's."""
    attached: tuple[Attached, ...]
    id: str = ""


@dataclass(frozen=True, slots=True)
class Publication:
    """Names of the networks that a configuration serves: whose they are, and how they are published."""

    zone: str
    ports: tuple[NamedPort, ...]
    """Of all these networks: a name may be held by a port of another one."""
    published: tuple[NameRecord, ...]
    """One name several times, where places differ."""
    answers: Mapping[str, Mapping[str, tuple[str, ...]]]
    """Addresses by name server and name; a name that it was silent on is left out."""
    served_by: str
    """The process that looks after them; empty where there is none."""
    look_seconds: float
    """How often that one looks."""


def walk(
    picture: NetworkPicture, server: str = "", dhcp_server: str = "", publication: Publication | None = None
) -> Sequence[Finding]:
    """Along the way, network first; of one server (name or id) only, where it is said which.

    `dhcp_server`: name or id of a server on the network that is to answer DHCP. `publication`: where the network's
    names are served.
    """
    answering = [each for each in picture.attached if dhcp_server in (each.server, each.name)] if dhcp_server else []
    heard = [finding for each in answering for finding in _dhcp_server(each)]
    dhcp = any(finding.ok for finding in heard) or any(
        subnet.torpor or (subnet.dhcp and subnet.dhcp_ports) for subnet in picture.subnets
    )
    findings = [*_subnets(picture), *heard]
    for each in picture.attached:
        if server in ("", each.server, each.name) and each not in answering:
            findings += _guest(each, dhcp, picture.name)
    return [*findings, *(_names(picture) if publication is None else _publication(picture, server, publication))]


def names_of(network: str, ports: Sequence[NamedPort]) -> Sequence[str]:
    """The names that are to lead to ports of that network (its id), of all ports of the networks that are served."""
    return sorted(name for name, port in name_all(ports).holders.items() if port.network == network)


def _subnets(picture: NetworkPicture) -> Iterator[Finding]:
    if not picture.subnets:
        yield Finding(
            f"network {picture.name}", False, "it has no IPv4 subnet, so no port has an IPv4 address",
            f"openstack subnet create --network {picture.name} --subnet-range CIDR NAME",
        )  # fmt: skip
    for subnet in picture.subnets:
        name = f"subnet {subnet.cidr}"
        if subnet.torpor:
            yield Finding(name, True, f"Neutron's DHCP is off, and Torpor's answers from {', '.join(subnet.torpor)}")
        elif not subnet.dhcp:
            yield Finding(name, True, "DHCP is off: nobody answers a DISCOVER, unless a server on the network does")
        elif subnet.dhcp_ports:
            yield Finding(name, True, f"DHCP is on, and answered by {', '.join(subnet.dhcp_ports)}")
        else:
            yield Finding(
                name, False, "DHCP is on, and no DHCP agent serves it",
                f"openstack network agent add network --dhcp AGENT {picture.name}",
            )  # fmt: skip


def _dhcp_server(at: Attached) -> Iterator[Finding]:
    name = f"DHCP server {at.name}"
    remedy = f"openstack port set --no-security-group --disable-port-security {at.port}"
    if at.status != "ACTIVE":
        yield Finding(name, False, f"it is {at.status}", f"openstack server start {at.server}")
        return
    if not at.security:
        yield Finding(name, True, "its port has no port security: its answers get out, and questions in")
        return
    detail = "its answers are dropped: Neutron lets nothing from UDP port 67 out of a port with port security"
    if not at.hears_dhcp:
        detail += "; and it hears no DISCOVER: no security group of its port lets UDP port 67 in"
    yield Finding(name, False, detail, remedy, opens_port=at.port)


def _guest(at: Attached, dhcp: bool, network: str) -> list[Finding]:
    name = f"server {at.name}"
    if not at.address:
        remedy = f"openstack port set --fixed-ip subnet=SUBNET {at.port}"
        return [Finding(name, False, "its port has no IPv4 address", remedy)]
    if at.status != "ACTIVE":
        return [Finding(name, True, f"it is {at.status}: whether it has {at.address} shows when it runs")]
    if not at.port_up:
        agent = "openstack network agent list: is the agent on its host alive?"
        return [Finding(name, False, f"its port is down: nobody has connected {at.address} on its host", agent)]
    said = _interface(at, at.console) if at.console is not None else None
    if said and not said.ok:
        return [said]
    if at.echo:
        return [_echoed(at, at.echo, dhcp, network)]
    if said:
        return [said]
    if not at.config_drive and not dhcp:
        told = f"nobody tells it {at.address}: no DHCP, and no config drive"
        return [Finding(name, False, told, _serving(at, network), serves_dhcp=True)]
    by = "DHCP" if dhcp else "its config drive"
    return [Finding(name, True, f"{by} tells it {at.address}; it does not say on its console whether it took it")]


def _serving(at: Attached, network: str) -> str:
    return (
        f"on a host with a Neutron agent: torpor network dhcp {network}; or make it anew with --config-drive true "
        f"--port {at.port}, which keeps its address"
    )


def _echoed(at: Attached, echo: Echo, dhcp: bool, network: str) -> Finding:
    """What is known from the network itself."""
    name = f"server {at.name}"
    if echo.mac == at.mac:
        how = "ARP and ping" if echo.ping else "ARP, and not ping, which a security group or its own firewall may drop"
        return Finding(name, True, f"its interface has {at.address}: it answers {how}")
    if echo.mac:
        return Finding(
            name, False, f"{echo.mac} answers for {at.address}, and its port is {at.mac}",
            f"find who that is (openstack port list --mac-address {echo.mac}), and take the address off it",
        )  # fmt: skip
    detail = f"nobody answers for {at.address} on the network: its interface has not got it, or it is still booting"
    if dhcp:
        return Finding(name, False, f"{detail}; DHCP is served", "look at its console: does its image ask by DHCP?")
    return Finding(name, False, f"{detail}; no DHCP is served", _serving(at, network), serves_dhcp=True)


def _interface(at: Attached, console: str) -> Finding | None:
    """What its console says of its interface; nothing where it says nothing."""
    name = f"server {at.name}"
    has = [address for interface, address in _CLOUD_INIT.findall(console) if interface != "lo"]
    leased = _LEASED.findall(console)
    source = _DATASOURCE.findall(console)
    if at.address in (*has, *leased[-1:]):
        return Finding(name, True, f"its interface has {at.address}, it says on its console")
    if leased:
        return Finding(
            name, False,
            f"it was leased {leased[-1]}, its port is {at.address}, and Neutron drops what comes from another address",
            f"have the DHCP server lease it its own: dhcp-host={at.mac},{at.address}",
        )  # fmt: skip
    if has:
        return Finding(
            name, False, f"its interface has {', '.join(has)}, and Neutron says {at.address}",
            f"in the guest: ip address replace {at.address}/PREFIX dev INTERFACE; have its image read the config drive",
        )  # fmt: skip
    if source and source[-1] not in _READS_CONFIG_DRIVE:
        return Finding(
            name, False, f"its cloud-init has found {source[-1]} and no config drive, so it was not told {at.address}",
            "let the image's datasource_list have ConfigDrive first, and make the server with --config-drive true",
        )  # fmt: skip
    return None


def _names(picture: NetworkPicture) -> Iterator[Finding]:
    holders: dict[str, str] = {}
    for at in picture.attached:
        try:
            label = hostname_of(at.name)
        except Invalid as error:
            yield Finding(f"name {at.name!r}", False, error.what, f"openstack server set --name NAME {at.server}")
            continue
        if holders.setdefault(label, at.server) != at.server:
            yield Finding(
                f"name {label}", False, f"two servers are called so: {holders[label]} and {at.server}",
                f"openstack server set --name NAME {at.server}",
            )  # fmt: skip


def _publication(picture: NetworkPicture, server: str, told: Publication) -> Iterator[Finding]:
    """Whether each name of the network leads where it should and nothing else does, and who has got no name."""
    naming = name_all(told.ports)
    owners = {at.server for at in picture.attached if server in ("", at.server, at.name)}
    here = {p.id: p for p in told.ports if p.network == picture.id and (not server or p.owner in owners)}
    published: defaultdict[str, list[NameRecord]] = defaultdict(list)
    for record in told.published:
        published[record.name].append(record)
    wanted = [record for record in naming.records if naming.holders[record.name].id in here]
    if wanted:
        yield from _silent(told)
    for record in wanted:
        yield _as_published(record, published.get(record.name, ()), told)
    for port in here.values():
        if port.id in naming.refused:
            yield _refused(port, naming.refused[port.id])
    addresses = {address for port in here.values() for address in (port.address, port.address6) if address}
    for name, records in sorted(published.items()):
        leads_to = {address for record in records for address in record.addresses}
        if name not in naming.holders and (not server or leads_to & addresses):
            yield _stale(name, leads_to, told)


def _silent(told: Publication) -> Iterator[Finding]:
    for where, answers in told.answers.items():
        if not answers:
            remedy = f"see whether it runs; {_mend(told)}"
            yield Finding(f"name server {where}", False, "it does not answer", remedy, republishes=True)


def _as_published(record: NameRecord, published: Sequence[NameRecord], told: Publication) -> Finding:
    name, right = f"name {record.name}.{told.zone}", "/".join(record.addresses)
    wrong = []
    if not published:
        wrong.append(f"it is not published, and should lead to {right}")
    elif stale := ["/".join(other.addresses) for other in published if other != record]:
        wrong.append(f"it is published at {', '.join(stale)}, and its port has {right}")
    heard = {where: answers.get(record.name) for where, answers in told.answers.items() if answers}
    for where, said in heard.items():
        if said is None or sorted(said) != sorted(record.addresses):
            what = "nothing" if said is None else "/".join(said) or "that there is no such name"
            wrong.append(f"{where} says {what}")
    if wrong:
        return Finding(name, False, "; ".join(wrong), _mend(told), republishes=True)
    if not heard:
        return Finding(name, True, f"it is published at {right}; no name server could be asked")
    return Finding(name, True, f"it leads to {right}, asked at {', '.join(heard)}")


def _refused(port: NamedPort, sentence: str) -> Finding:
    kind = "port" if port.owner == port.id else "server"
    remedy = f"openstack {kind} set --name NAME {port.owner}"
    return Finding(f"name {port.name!r}", False, sentence.rstrip("."), remedy)


def _stale(name: str, leads_to: Set[str], told: Publication) -> Finding:
    detail = f"it is stale: it is published at {', '.join(sorted(leads_to))}, and no port is called so any more"
    return Finding(f"name {name}.{told.zone}", False, detail, _mend(told), republishes=True)


def _mend(told: Publication) -> str:
    if told.served_by:
        every = f"every {told.look_seconds:g} s"
        return f"process {told.served_by} looks {every} and mends it; where it does not, its log says why"
    return "`torpor names serve` does not run here: start it, or mend it once with --fix or `torpor names serve --once`"

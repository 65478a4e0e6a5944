"""Pinned DHCP leases, served by a dnsmasq of their own: who is not known is not answered, so no address is ever leased
that is another port's.

Leases are kept in memory only. What is pinned needs no memory: a server that was started anew acknowledges what it
would lease anyway (`dhcp-authoritative`), and an address that has changed hands is not kept for whoever had it before.
"""

import signal
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path

from torpor.adapters.names.process import find_binary, identity, launch, refuse_hidden
from torpor.domain.dhcp import DhcpService, DhcpSubnet, PinnedLease
from torpor.domain.errors import BackendFailed
from torpor.processes import Process, find

LEASE_TIME = "1h"
_HOSTNAME = 12
"""Number of the option (RFC 2132, 3.14); dnsmasq keeps its name for itself."""


@dataclass(frozen=True, slots=True)
class DhcpSettings:
    directory: Path
    """Folder of its own, for what dnsmasq reads and for its log."""
    interface: str
    """On which it answers; it must be there when the server starts."""
    namespace: str = ""
    """Network namespace (`ip netns`) of the interface; empty for that of this process."""
    hosts: Path | None = None
    """Hosts directory with the names that it answers for as well; None where others do that."""
    binary: str = "dnsmasq"

    @property
    def log(self) -> Path:
        return self.directory / "dnsmasq.log"


class DnsmasqLeases:
    """The DhcpServer port. Thread-safe."""

    def __init__(self, settings: DhcpSettings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._known: Process | None = None
        self._given: DhcpService | None = None
        """What that process was last told."""
        self._pinned: set[PinnedLease] = set()
        """Whatever it was told since it began: it may have leased any of it, and remembers that."""

    def serve(self, service: DhcpService) -> None:
        with self._lock:
            options = self._options(service)
            running = self._running(options)
            if running and service == self._given:
                return
            self._write(service)
            if running and self._given is not None and not _changes_hands(self._pinned, service.leases):
                running.send(signal.SIGHUP)  # nobody's question is lost by it
            else:
                self._restart(options)
            self._given = service
            self._pinned.update(service.leases)

    def stop(self) -> None:
        with self._lock:
            self._end()

    # Parts of the above

    def _running(self, options: Sequence[str]) -> Process | None:
        """With exactly these options."""
        if self._known is None or self._known.argv[1:] != options or not self._known.runs():
            self._known = next((found for found in self._ours() if found.argv[1:] == options), None)
        return self._known

    def _end(self) -> None:
        self._known = self._given = None
        self._pinned.clear()
        for process in self._ours():
            process.end("the DHCP server")

    def _restart(self, options: Sequence[str]) -> None:
        self._end()
        refuse_hidden(self._settings.directory, "the DHCP server can't read its leases in")
        if self._settings.hosts:
            refuse_hidden(self._settings.hosts, "the DHCP server can't read the names in")
        inside = ["ip", "netns", "exec", self._settings.namespace] if self._settings.namespace else []
        what = f"the DHCP server could not be started on {self._settings.interface}"
        launch([*inside, find_binary(self._settings.binary), *options], what, f"see {self._settings.log}")

    def _write(self, service: DhcpService) -> None:
        directory = self._settings.directory
        try:
            for folder in (directory, *([self._settings.hosts] if self._settings.hosts else [])):
                folder.mkdir(parents=True, exist_ok=True)
            directory.chmod(0o755)
            for name, text in (("leases", pins(service.leases)), ("options", hostnames(service.leases))):
                partial = directory / f".{name}"
                partial.write_text(text)
                partial.chmod(0o644)
                partial.replace(directory / name)
        except OSError as error:
            raise BackendFailed(
                f"the leases could not be written to {directory}",
                detail=error.strerror or str(error),
                remedy="check the disk and who may write there",
            ) from error

    def _options(self, service: DhcpService) -> tuple[str, ...]:
        settings = self._settings
        return (
            *identity(),
            self._log,
            f"--interface={settings.interface}",
            "--bind-interfaces",
            "--no-hosts",
            "--no-resolv",
            "--no-ping",
            "--dhcp-authoritative",
            "--leasefile-ro",
            f"--dhcp-hostsfile={settings.directory / 'leases'}",
            f"--dhcp-optsfile={settings.directory / 'options'}",
            f"--domain={service.zone}",
            *([f"--dhcp-option=option:mtu,{service.mtu}"] if service.mtu else []),
            *(option for number, subnet in enumerate(service.subnets) for option in _of_subnet(number, subnet)),
            *self._names(service),
        )

    def _names(self, service: DhcpService) -> Sequence[str]:
        if self._settings.hosts is None:
            return ("--port=0",)
        return (
            f"--hostsdir={self._settings.hosts}",
            f"--local=/{service.zone}/",
            *(f"--rev-server={subnet.cidr}" for subnet in service.subnets),
            "--domain-needed",
            "--local-ttl=0",
            *(f"--server={forwarder}" for forwarder in service.forwarders),
        )

    @property
    def _log(self) -> str:
        """This option no other server has."""
        return f"--log-facility={self._settings.log}"

    def _ours(self) -> Sequence[Process]:
        name = Path(self._settings.binary).name
        return find(lambda argv: self._log in argv and Path(argv[0]).name == name)


def _changes_hands(before: Iterable[PinnedLease], leases: Sequence[PinnedLease]) -> bool:
    """Whether an address is to be another MAC's than before, or a MAC to have another address: what it has leased once
    dnsmasq keeps for whoever has it, whatever it reads."""
    macs = {lease.address: lease.mac for lease in before}
    addresses = {lease.mac: lease.address for lease in before}
    return any(
        macs.get(lease.address, lease.mac) != lease.mac or addresses.get(lease.mac, lease.address) != lease.address
        for lease in leases
    )


def pins(leases: Sequence[PinnedLease]) -> str:
    """As `dhcp-hostsfile` takes them, one a line. The tag is for the hostname."""
    return "".join(f"{lease.mac},set:{_tag(lease)},{lease.address},{LEASE_TIME}\n" for lease in leases)


def hostnames(leases: Sequence[PinnedLease]) -> str:
    """As `dhcp-optsfile` takes them. Written beside a lease, a name would answer as long as the lease lives."""
    return "".join(f"tag:{_tag(lease)},{_HOSTNAME},{lease.name}\n" for lease in leases if lease.name)


def _tag(lease: PinnedLease) -> str:
    return "m" + lease.mac.replace(":", "")


def _of_subnet(number: int, subnet: DhcpSubnet) -> Iterator[str]:
    network, tag = IPv4Network(subnet.cidr), f"s{number}"
    yield f"--dhcp-range=set:{tag},{network.network_address},static,{network.netmask},{LEASE_TIME}"
    # Without a value the option is not sent; dnsmasq would name itself as router otherwise.
    yield f"--dhcp-option=tag:{tag},option:router" + (f",{subnet.router}" if subnet.router else "")
    if subnet.dns:
        yield f"--dhcp-option=tag:{tag},option:dns-server,{','.join(subnet.dns)}"
    if subnet.routes:
        told = [word for route in subnet.routes for word in route]
        if subnet.router:  # who is told routes this way does not look for a router elsewhere (RFC 3442)
            told += ["0.0.0.0/0", subnet.router]
        yield f"--dhcp-option=tag:{tag},option:classless-static-route,{','.join(told)}"

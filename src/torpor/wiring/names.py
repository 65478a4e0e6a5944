"""Where hostnames are published: one place or several, as the configuration says."""

from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address

from torpor.adapters.names.asked import AskedServers
from torpor.adapters.names.dnsmasq import DnsmasqNames
from torpor.adapters.names.hosts_file import HostsFileNames, HostsFileSettings
from torpor.adapters.names.leases import DhcpSettings, DnsmasqLeases
from torpor.adapters.names.local_file import LocalFile
from torpor.adapters.names.place import Place
from torpor.adapters.names.process import DnsmasqSettings
from torpor.adapters.names.reload import ByCommand, ByPidFile, NoReload, Reload
from torpor.adapters.names.rfc2136 import Rfc2136Names, Rfc2136Settings
from torpor.adapters.names.several import NamesInSeveralPlaces
from torpor.adapters.names.ssh_file import SshFile, SshSettings
from torpor.adapters.names.with_leases import NamesWithLeases
from torpor.config import Config, HostsFileConfig, Rfc2136Config
from torpor.domain.dhcp import DhcpService, DhcpSubnet, PinnedLease
from torpor.ports import Inventory, Names, NameServers


@dataclass(frozen=True, slots=True)
class BoundNames:
    names: Names
    stop: Callable[[], None]
    """End the name server that is our own, and the DHCP server; what was published elsewhere stays there."""


def bind_with_leases(config: Config, inventory: Inventory) -> BoundNames:
    """As `bind`; and whoever has a name is leased its address, where the configuration says `network.dhcp`."""
    bound, section = bind(config), config.network
    server = DnsmasqLeases(DhcpSettings(config.state_dir / "dhcp", section.interface))

    def service() -> DhcpService:
        subnet = DhcpSubnet(str(section.subnet), section.gateway, section.gateway, (section.gateway,))
        leases = tuple(
            PinnedLease(each.mac, each.address, each.name)
            for each in inventory.instances()
            if each.mac and each.address and IPv4Address(each.address) in section.subnet  # adopted VMs may be elsewhere
        )
        return DhcpService(section.zone, (subnet,), leases)

    def stop() -> None:
        server.stop()
        bound.stop()

    if not section.dhcp:
        server.stop()  # that of an earlier configuration may still run
        return bound
    return BoundNames(NamesWithLeases(bound.names, server, service), stop)


def bind(config: Config) -> BoundNames:
    section = config.names
    own = DnsmasqNames(_own_server(config))
    places: list[Names] = []
    for place in section.publish:
        if place == "dnsmasq":
            places.append(own)
        elif place == "hosts-file" and section.hosts_file:
            places.append(_hosts_file(config, section.hosts_file))
        elif place == "rfc2136" and section.rfc2136:
            places.append(_rfc2136(config, section.rfc2136))
    # The server of an earlier configuration may still run, also where none is published to now.
    return BoundNames(places[0] if len(places) == 1 else NamesInSeveralPlaces(places), own.stop)


def asked(config: Config) -> NameServers:
    """The servers of these places, as far as it is known which they are."""
    section = config.names
    servers: list[tuple[str, int]] = []
    for place in section.publish:
        if place == "dnsmasq":
            own = _own_server(config)
            servers.append((own.listen_address, own.port))
        elif place == "hosts-file" and section.hosts_file and section.hosts_file.ask:
            servers.append((str(section.hosts_file.ask), section.hosts_file.ask_port))
        elif place == "rfc2136" and section.rfc2136:
            servers.append((str(section.rfc2136.server), section.rfc2136.port))
    return AskedServers(config.network.zone, servers)


def _own_server(config: Config) -> DnsmasqSettings:
    section = config.network
    listen = str(config.openstack.dns_address) if config.backend == "openstack" else section.gateway
    return DnsmasqSettings(
        directory=config.state_dir / "names",
        listen_address=listen,
        zone=section.zone,
        subnet=section.subnet,
        forwarders=tuple(str(address) for address in section.forwarders),
    )


def _hosts_file(config: Config, section: HostsFileConfig) -> HostsFileNames:
    ask = str(section.ask) if section.ask else None
    settings = HostsFileSettings(config.network.zone, section.block, ask, section.ask_port)
    return HostsFileNames(settings, _place(config, section))


def _place(config: Config, section: HostsFileConfig) -> Place:
    if section.ssh is None:
        return LocalFile(section.path, _reload(section))
    return SshFile(
        SshSettings(
            destination=section.ssh,
            path=section.path,
            sockets=config.run_dir,
            config=section.ssh_config,
            pid_file=section.pid_file,
            process=section.process,
            command=section.command,
        )
    )


def _reload(section: HostsFileConfig) -> Reload:
    if section.pid_file:
        return ByPidFile(section.pid_file, section.process)
    return ByCommand(section.command) if section.command else NoReload()


def _rfc2136(config: Config, section: Rfc2136Config) -> Rfc2136Names:
    return Rfc2136Names(
        Rfc2136Settings(
            directory=config.state_dir / "published" / "rfc2136",
            server=str(section.server),
            zone=config.network.zone,
            owner=section.owner,
            key_file=section.key_file,
            reverse_zones=section.reverse_zones,
            port=section.port,
            ttl=section.ttl,
        )
    )

"""The libvirt backend, put together."""

from collections.abc import Callable
from dataclasses import dataclass

from torpor.adapters.libvirt.connection import Connection
from torpor.adapters.libvirt.diagnostics import LibvirtDiagnostics
from torpor.adapters.libvirt.domains import Domains
from torpor.adapters.libvirt.gangs import LibvirtGangs
from torpor.adapters.libvirt.hypervisor import LibvirtHypervisor
from torpor.adapters.libvirt.live_snapshots import LibvirtSnapshots
from torpor.adapters.libvirt.settings import LibvirtSettings
from torpor.adapters.libvirt.state_store import LibvirtStateStore
from torpor.adapters.libvirt.suspension import LibvirtSuspension
from torpor.domain.instance import InstanceSpec
from torpor.ports import BootImages


@dataclass(frozen=True, slots=True)
class LibvirtBackend:
    """The ports of one host, over the same domains and the same connection."""

    hypervisor: LibvirtHypervisor
    gangs: LibvirtGangs
    suspension: LibvirtSuspension
    states: LibvirtStateStore
    snapshots: LibvirtSnapshots
    diagnostics: LibvirtDiagnostics
    domains: Domains
    connection: Connection

    def close(self) -> None:
        """Close the connection; the domains go on."""
        self.connection.close()


def make_backend(
    settings: LibvirtSettings,
    images: BootImages,
    config_drive: Callable[[InstanceSpec], bytes],
    connection: Connection | None = None,
) -> LibvirtBackend:
    """Opens nothing yet. `connection` is one that others use, too."""
    connection = connection or Connection(settings.uri)
    domains = Domains(settings, connection)
    hypervisor = LibvirtHypervisor(domains, images, config_drive)
    return LibvirtBackend(
        hypervisor,
        LibvirtGangs(domains),
        LibvirtSuspension(domains),
        LibvirtStateStore(domains, hypervisor),
        LibvirtSnapshots(domains),
        LibvirtDiagnostics(domains, hypervisor),
        domains,
        connection,
    )

"""The OpenStack backend, put together."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torpor.adapters.openstack.adoption import NovaAdoption
from torpor.adapters.openstack.cloud import Cloud
from torpor.adapters.openstack.diagnostics import OpenStackDiagnostics
from torpor.adapters.openstack.gangs import NovaGangs
from torpor.adapters.openstack.guest import NovaGuest
from torpor.adapters.openstack.hypervisor import NovaHypervisor
from torpor.adapters.openstack.images import GlanceImages
from torpor.adapters.openstack.ledger import PlacementLedger
from torpor.adapters.openstack.networks import Networks
from torpor.adapters.openstack.placement import Placement
from torpor.adapters.openstack.provisions import OpenStackProvisions
from torpor.adapters.openstack.servers import Servers
from torpor.adapters.openstack.settings import OpenStackSettings
from torpor.adapters.openstack.state_store import NovaStateStore
from torpor.adapters.openstack.suspension import NovaSuspension
from torpor.domain.ids import InstanceId


@dataclass(frozen=True, slots=True)
class OpenStackBackend:
    """The ports of one cloud, over the same session and the same look at its servers."""

    cloud: Cloud
    servers: Servers
    hypervisor: NovaHypervisor
    gangs: NovaGangs
    suspension: NovaSuspension
    states: NovaStateStore
    guest: NovaGuest
    images: GlanceImages
    provisions: OpenStackProvisions
    adoption: NovaAdoption
    ledger: PlacementLedger
    diagnostics: OpenStackDiagnostics


def make_backend(settings: OpenStackSettings, known: Callable[[], Mapping[InstanceId, int]]) -> OpenStackBackend:
    """Opens nothing yet. `known`: the instances of the records, each with the MiB of its flavor's disk."""
    cloud = Cloud(settings)
    servers, placement, networks = Servers(cloud), Placement(cloud), Networks(cloud)
    hypervisor = NovaHypervisor(servers, placement, networks)
    suspension = NovaSuspension(servers)
    return OpenStackBackend(
        cloud,
        servers,
        hypervisor,
        NovaGangs(servers, hypervisor),
        suspension,
        NovaStateStore(servers, suspension, networks),
        NovaGuest(servers),
        GlanceImages(cloud),
        OpenStackProvisions(cloud, networks),
        NovaAdoption(servers),
        PlacementLedger(placement, servers, known),
        OpenStackDiagnostics(cloud, servers, placement),
    )

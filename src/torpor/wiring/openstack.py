"""The ports on an OpenStack cloud. Imported only where it is asked for: it needs openstacksdk."""

from collections.abc import Mapping

from torpor.adapters.no_batch_system import NoBatchSystem
from torpor.adapters.no_network import NoNetwork
from torpor.adapters.no_snapshots import NoSnapshots
from torpor.adapters.openstack.backend import make_backend
from torpor.adapters.openstack.settings import OpenStackSettings
from torpor.adapters.sql import open_records
from torpor.config import Config
from torpor.domain.ids import InstanceId
from torpor.engine.parts import Parts
from torpor.wiring import around, names
from torpor.wiring.bound import Bound


def bind(config: Config) -> Bound:
    """Raises MissingPart, Conflict, StateDamaged. The cloud need not be there yet."""
    around.prepare(config)
    _, journal, inventory, history = open_records(config.state_dir)

    def known() -> Mapping[InstanceId, int]:
        sizes = {workload.id: workload.flavor.disk_mb for workload in inventory.workloads()}
        return {i.id: sizes[i.workload] for i in inventory.instances() if i.workload in sizes}

    backend = make_backend(_settings(config), known)
    published = names.bind(config)
    parts = Parts(
        hypervisor=backend.hypervisor,
        gangs=backend.gangs,
        suspension=backend.suspension,
        states=backend.states,
        guest=backend.guest,
        names=published.names,
        batch_system=NoBatchSystem(),
        images=backend.images,
        diagnostics=backend.diagnostics,
        ledger=backend.ledger,
        journal=journal,
        inventory=inventory,
        history=history,
        clock=around.WallClock(),
        snapshots=NoSnapshots("Nova takes none that hold memory"),
        adoption=backend.adoption,
        provisions=backend.provisions,
    )
    return Bound(parts, NoNetwork(), published.stop, _by_looking)


def _by_looking(changed: object) -> None:
    """Nova tells ordinary accounts of nothing: what others do is seen by looking."""


def _settings(config: Config) -> OpenStackSettings:
    section = config.openstack
    return OpenStackSettings(
        cloud=section.cloud,
        project=section.project,
        networks=section.networks,
        hosts=section.hosts,
        state_room=section.state_room,
        act_seconds=section.act_timeout_seconds,
        look_seconds=section.look_seconds,
    )

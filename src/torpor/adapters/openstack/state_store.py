"""The housekeeping of saved states: Nova does it. Implements the `StateStore` port."""

from collections.abc import Set

from torpor.adapters.openstack.networks import Networks
from torpor.adapters.openstack.servers import Servers
from torpor.adapters.openstack.suspension import NovaSuspension
from torpor.domain.errors import Conflict, NotFound, Refused
from torpor.domain.ids import InstanceId
from torpor.domain.instance import StateStatus
from torpor.ports import Progress

_MIB = 1 << 20


class NovaStateStore:
    def __init__(self, servers: Servers, suspension: NovaSuspension, networks: Networks) -> None:
        self._servers = servers
        self._suspension = suspension
        self._networks = networks

    def verify(self, instance: InstanceId, generation: int, progress: Progress) -> None:
        """Raises NotFound, and Refused for a whole one: Nova lets nobody read it."""
        if self._require(instance, generation) is StateStatus.WHOLE:
            raise Refused(
                f"the saved state of instance {instance} was not verified",
                detail="Nova keeps it on the compute host and lets nobody read it",
                remedy="trust libvirt, which checks its form at the resume",
            )
        progress(1, 1)

    def remove(self, instance: InstanceId, generation: int) -> None:
        """Nova has removed a spent one already."""
        if self._require(instance, generation) is StateStatus.WHOLE:
            raise Conflict(
                f"saved state {generation} of instance {instance} can't be removed",
                detail="it is whole: nothing else is left of the server's memory",
                remedy="resume the workload, or delete it",
            )

    def collect(self, known: Set[InstanceId]) -> int:
        """Nothing takes room here; ports of instances that never came to be are deleted."""
        self._networks.collect(known)
        return 0

    def to_write(self, instance: InstanceId) -> int:
        """All of its memory, for Nova tells no less."""
        server = self._servers.find(instance)
        return server.memory_mb * _MIB if server and server.has_process else 0

    def mapped(self, instance: InstanceId) -> bool:
        """libvirt reads all of a state before the guest runs."""
        return False

    def _require(self, instance: InstanceId, generation: int) -> StateStatus:
        for state in self._suspension.states(instance):
            if state.generation == generation:
                return state.status
        raise NotFound(f"instance {instance} has no saved state {generation}", remedy="see `torpor state ls`")

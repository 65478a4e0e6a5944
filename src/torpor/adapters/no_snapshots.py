"""A backend that can't keep a VM's memory while the VM runs on."""

from collections.abc import Sequence

from torpor.domain.errors import NotFound, Refused
from torpor.domain.ids import InstanceId
from torpor.domain.instance import InstanceSpec, Snapshot
from torpor.ports import Progress


class NoSnapshots:
    """Implements `Snapshots`: there are none, and none can be taken."""

    def take(self, specs: Sequence[InstanceSpec], name: str, progress: Progress) -> Sequence[Snapshot]:
        raise Refused(f"snapshot {name} was not taken", detail="this backend takes none", remedy="suspend it instead")

    def list(self, instance: InstanceId) -> Sequence[Snapshot]:
        return ()

    def remove(self, instance: InstanceId, name: str) -> None:
        """There is none to remove."""

    def verify(self, instance: InstanceId, name: str, progress: Progress) -> None:
        raise NotFound(f"there is no snapshot {name}")

    def lay_down(self, spec: InstanceSpec, source: InstanceId, name: str) -> None:
        raise NotFound(f"there is no snapshot {name}")

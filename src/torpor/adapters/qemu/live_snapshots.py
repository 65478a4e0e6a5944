"""Live snapshots: implements the `Snapshots` port."""

from collections.abc import Sequence

from torpor.adapters.qemu.vms import Vms
from torpor.domain.errors import Refused
from torpor.domain.ids import InstanceId
from torpor.domain.instance import InstanceSpec, Snapshot
from torpor.ports import Progress


class QemuSnapshots:
    """Memory, device state and disk of one instant, while the VM runs on."""

    def __init__(self, vms: Vms) -> None:
        self._vms = vms

    def take(self, specs: Sequence[InstanceSpec], name: str, progress: Progress) -> Sequence[Snapshot]:
        raise Refused("no snapshots yet")

    def list(self, instance: InstanceId) -> Sequence[Snapshot]:
        return ()

    def remove(self, instance: InstanceId, name: str) -> None:
        raise Refused("no snapshots yet")

    def verify(self, instance: InstanceId, name: str, progress: Progress) -> None:
        raise Refused("no snapshots yet")

    def lay_down(self, spec: InstanceSpec, source: InstanceId, name: str) -> None:
        raise Refused("no snapshots yet")

"""A backend that takes no snapshots: implements `Snapshots` with none."""

from collections.abc import Sequence

from torpor.domain.errors import NotFound, Refused
from torpor.domain.ids import InstanceId
from torpor.domain.instance import InstanceSpec, Snapshot
from torpor.ports import Progress


class NoSnapshots:
    def __init__(self, why: str) -> None:
        """`why`: a clause for people."""
        self._why = why

    def take(self, specs: Sequence[InstanceSpec], name: str, progress: Progress) -> Sequence[Snapshot]:
        """Raises Refused."""
        raise Refused(f"snapshot {name} is not taken", detail=self._why)

    def list(self, instance: InstanceId) -> Sequence[Snapshot]:
        return ()

    def remove(self, instance: InstanceId, name: str) -> None:
        """There are none."""

    def verify(self, instance: InstanceId, name: str, progress: Progress) -> None:
        raise _none(name)

    def lay_down(self, spec: InstanceSpec, source: InstanceId, name: str) -> None:
        raise _none(name)


def _none(name: str) -> NotFound:
    return NotFound(f"there is no snapshot {name}", detail="this backend takes none")

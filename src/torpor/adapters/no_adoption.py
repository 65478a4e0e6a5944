"""A host whose VMs are all Torpor's own."""

from collections.abc import Sequence

from torpor.domain.adoption import Mark, Stranger
from torpor.domain.errors import NotFound
from torpor.domain.ids import InstanceId


class NoAdoption:
    """Implements `Adoption` where there is nobody to adopt."""

    def strangers(self) -> Sequence[Stranger]:
        return ()

    def mark(self, instance: InstanceId, mark: Mark) -> None:
        raise NotFound(f"there is no VM {instance}", detail="this backend has its VMs to itself")

    def unmark(self, instance: InstanceId) -> None:
        """There is none to unmark."""

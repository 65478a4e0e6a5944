"""No batch system: there is nobody to tell when VMs sleep."""

from collections.abc import Sequence


class NoBatchSystem:
    """For installations whose VMs are not nodes of a batch system."""

    def before_suspend(self, nodes: Sequence[str]) -> None:
        return None

    def after_resume(self, nodes: Sequence[str]) -> None:
        return None

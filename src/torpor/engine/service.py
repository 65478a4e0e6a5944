"""What the API may ask for. Thread-safe; every method raises TorporErrors only."""

from collections.abc import Callable, Sequence

from torpor.domain.image import Image
from torpor.domain.plan import Plan
from torpor.engine.views import (
    Accepted,
    HostView,
    NameView,
    OperationView,
    RunRequest,
    WorkloadView,
)
from torpor.ports import Check, Event


class Service:
    """The one door to the engine. Workloads are addressed by name."""

    def run(self, request: RunRequest) -> Accepted:
        """Accept a workload: names, addresses and record at once, instances as soon as there is room."""
        raise NotImplementedError

    def plan(self, request: RunRequest) -> Plan:
        """What `run` would lead to; nothing is changed."""
        raise NotImplementedError

    def plan_suspend(self, name: str) -> Plan:
        raise NotImplementedError

    def plan_resume(self, name: str) -> Plan:
        raise NotImplementedError

    def suspend(self, name: str) -> WorkloadView:
        """Begin to suspend it by hand; it stays suspended until `resume`. Returns at once."""
        raise NotImplementedError

    def resume(self, name: str) -> WorkloadView:
        """Let it come back as soon as it fits. A failed workload with saved states goes back to those."""
        raise NotImplementedError

    def delete(self, name: str) -> None:
        """Begin to delete it: names at once, instances, disks and states by an operation. Returns at once."""
        raise NotImplementedError

    def workloads(self) -> Sequence[WorkloadView]:
        raise NotImplementedError

    def workload(self, name: str) -> WorkloadView:
        raise NotImplementedError

    def queue(self) -> Sequence[Plan]:
        """A plan for every workload that waits, in the order of the queue."""
        raise NotImplementedError

    def operations(self, limit: int) -> Sequence[OperationView]:
        raise NotImplementedError

    def hosts(self) -> Sequence[HostView]:
        raise NotImplementedError

    def names(self) -> Sequence[NameView]:
        raise NotImplementedError

    def events(self, limit: int, subject: str | None = None) -> Sequence[Event]:
        raise NotImplementedError

    def checks(self) -> Sequence[Check]:
        """The running daemon's part of `torpor doctor`."""
        raise NotImplementedError

    def images(self) -> Sequence[Image]:
        raise NotImplementedError

    def add_image(self, name: str, path: str) -> Image:
        raise NotImplementedError

    def build_image(self, name: str, recipe: str, progress: Callable[[str], None]) -> Image:
        raise NotImplementedError

    def remove_image(self, name: str) -> None:
        """Raises Conflict while an instance is made from it."""
        raise NotImplementedError

    def suspend_all(self) -> None:
        """Suspend every active workload, and start nothing until the next start. Returns at once."""
        raise NotImplementedError

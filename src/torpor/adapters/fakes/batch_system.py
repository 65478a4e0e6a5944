"""A batch system that remembers what it was told: the `BatchSystem` port."""

from collections.abc import Iterable, Sequence

from torpor.adapters.fakes.hypervisor import FakeHypervisor
from torpor.domain.instance import BackendState, InstanceSpec


class FakeBatchSystem:
    """Records what it is told, and notes nodes that slept, or were woken, untold.

    `nodes` are the hostnames that belong to it; without them every VM does.
    """

    def __init__(self, hypervisor: FakeHypervisor, nodes: Iterable[str] | None = None) -> None:
        self.calls: list[tuple[str, tuple[str, ...]]] = []
        self.violations: list[str] = []
        self.asleep: set[str] = set()
        """Nodes that are drained, their jobs suspended."""
        self._hypervisor = hypervisor
        self._nodes = None if nodes is None else frozenset(nodes)
        hypervisor.model.listeners.append(self._hears)

    def before_suspend(self, nodes: Sequence[str]) -> None:
        with self._hypervisor.faults.around("before_suspend"):
            self.calls.append(("before_suspend", tuple(nodes)))
            self.asleep.update(nodes)

    def after_resume(self, nodes: Sequence[str]) -> None:
        with self._hypervisor.faults.around("after_resume"):
            self.calls.append(("after_resume", tuple(nodes)))
            self.violations.extend(f"{node} was undrained before it ran" for node in nodes if not self._runs(node))
            self.asleep.difference_update(nodes)

    def _hears(self, act: str, spec: InstanceSpec) -> None:
        ours = self._nodes is None or spec.name in self._nodes
        if act == "pause" and ours and spec.name not in self.asleep:
            self.violations.append(f"{spec.name} was paused before the batch system was told")

    def _runs(self, node: str) -> bool:
        vms = self._hypervisor.model.vms.values()
        return any(vm.spec.name == node and vm.state is BackendState.RUNNING for vm in vms)

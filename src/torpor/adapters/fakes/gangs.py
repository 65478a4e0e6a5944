"""Gangs on a hypervisor that can only pause one instance after another."""

from collections.abc import Callable, Sequence
from typing import Protocol

from torpor.domain.errors import InstanceGone
from torpor.domain.ids import InstanceId
from torpor.domain.instance import BackendState
from torpor.ports import Clock, Hypervisor, Suspension


class Host(Hypervisor, Suspension, Protocol):
    """Both ports in one, as `FakeHypervisor` is."""


class FakeGangs:
    """The `Gangs` port. `hypervisor` is asked for each instance in turn."""

    def __init__(self, hypervisor: Host, clock: Clock) -> None:
        self._hypervisor = hypervisor
        self._clock = clock

    def pause(self, instances: Sequence[InstanceId]) -> float | None:
        return self._each(self._hypervisor.pause, instances, BackendState.RUNNING)

    def run_on(self, instances: Sequence[InstanceId]) -> float | None:
        still = BackendState.PAUSED if self._hypervisor.capabilities().gang_pause else BackendState.ABSENT
        return self._each(self._hypervisor.run_on, instances, still)

    def _each(
        self, act: Callable[[InstanceId], None], instances: Sequence[InstanceId], before: BackendState
    ) -> float | None:
        there = self._hypervisor.observe()
        seen = {i: there[i].state if i in there else BackendState.ABSENT for i in instances}
        apart = self._hypervisor.capabilities().gang_pause
        gone = [i for i in instances if i not in there and (apart or not self._hypervisor.states(i))]
        if gone:
            raise InstanceGone(f"VM {', '.join(gone)} has no process", remedy="see `torpor show` for what can be done")
        moments = []
        for instance in instances:
            act(instance)
            moments.append(self._clock.now())
        known = moments and all(seen[instance] is before for instance in instances)
        return moments[-1] - moments[0] if known else None

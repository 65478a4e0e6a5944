"""Gangs on a hypervisor that can only pause one instance after another."""

from collections.abc import Callable, Sequence

from torpor.domain.errors import InstanceGone
from torpor.domain.ids import InstanceId
from torpor.domain.instance import BackendState
from torpor.ports import Clock, Hypervisor


class FakeGangs:
    """The `Gangs` port. `hypervisor` is asked for each instance in turn."""

    def __init__(self, hypervisor: Hypervisor, clock: Clock) -> None:
        self._hypervisor = hypervisor
        self._clock = clock

    def pause(self, instances: Sequence[InstanceId]) -> float | None:
        return self._each(self._hypervisor.pause, instances, BackendState.RUNNING)

    def run_on(self, instances: Sequence[InstanceId]) -> float | None:
        return self._each(self._hypervisor.run_on, instances, BackendState.PAUSED)

    def _each(
        self, act: Callable[[InstanceId], None], instances: Sequence[InstanceId], before: BackendState
    ) -> float | None:
        seen = self._hypervisor.observe()
        gone = [instance for instance in instances if instance not in seen]
        if gone:
            raise InstanceGone(f"VM {', '.join(gone)} has no process", remedy="see `torpor show` for what can be done")
        moments = []
        for instance in instances:
            act(instance)
            moments.append(self._clock.now())
        known = moments and all(seen[instance].state is before for instance in instances)
        return moments[-1] - moments[0] if known else None

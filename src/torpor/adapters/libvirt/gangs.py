"""Several domains at one instant: implements the `Gangs` port."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress

from torpor.adapters.libvirt.domains import Domains, Vm
from torpor.adapters.libvirt.hypervisor import to_pause, to_run_on
from torpor.domain.errors import InstanceGone, TorporError
from torpor.domain.ids import InstanceId

_THREADS = 5
"""As many requests of one client as libvirtd serves at a time, if nobody has told it otherwise."""


class LibvirtGangs:
    """libvirt has no command for several domains, so all are told at once, and it is noted when each was done."""

    def __init__(self, domains: Domains) -> None:
        self._domains = domains

    def pause(self, instances: Sequence[InstanceId]) -> float | None:
        with self._exclusive(instances):
            vms = self._found(instances)
            running = [vm for vm in vms if to_pause(vm, vm.state())]
            skew = _at_once(running, Vm.suspend)
            return skew if len(running) == len(vms) else None

    def run_on(self, instances: Sequence[InstanceId]) -> float | None:
        with self._exclusive(instances):
            vms = self._found(instances)
            still = [vm for vm in vms if to_run_on(self._domains, vm, vm.state())]
            skew = _at_once(still, Vm.resume)
            return skew if len(still) == len(vms) else None

    @contextmanager
    def _exclusive(self, instances: Sequence[InstanceId]) -> Iterator[None]:
        with ExitStack() as held:
            for instance in sorted(instances):
                held.enter_context(self._domains.exclusive(instance))
            yield

    def _found(self, instances: Sequence[InstanceId]) -> list[Vm]:
        """Raises InstanceGone unless all have a process."""
        found = [(instance, self._domains.find(instance)) for instance in instances]
        gone = [instance for instance, vm in found if vm is None or not vm.active()]
        if gone:
            raise InstanceGone(
                f"instance {', '.join(gone)} has no process", remedy="resume it from its state, or run it anew"
            )
        return [vm for _, vm in found if vm]


def _at_once(vms: Sequence[Vm], act: Callable[[Vm], None]) -> float | None:
    """Seconds between the first answer and the last. Every one is told, whichever fails; raises the first failure.

    Each thread opens its connection before the first of them acts.
    """
    if not vms:
        return None
    lanes = [vms[first::_THREADS] for first in range(min(_THREADS, len(vms)))]
    ready = threading.Barrier(len(lanes))

    def drive(lane: Sequence[Vm]) -> list[float]:
        with suppress(TorporError):  # who acts without a connection tells why
            lane[0].state()
        ready.wait()
        return list(_each(lane, act))

    with ThreadPoolExecutor(len(lanes), thread_name_prefix="gang") as pool:
        moments = [moment for lane in pool.map(drive, lanes) for moment in lane]
    return max(moments) - min(moments)


def _each(lane: Sequence[Vm], act: Callable[[Vm], None]) -> Iterator[float]:
    """When each was done. Raises the first failure, after the last."""
    failures: list[TorporError] = []
    for vm in lane:
        try:
            act(vm)
        except TorporError as error:
            failures.append(error)
        yield time.monotonic()
    if failures:
        raise failures[0]

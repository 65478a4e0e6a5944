"""Several domains at one instant: implements the `Gangs` port."""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

from torpor.adapters.libvirt.domains import Domains, Vm
from torpor.adapters.libvirt.hypervisor import to_pause, to_run_on
from torpor.domain.errors import InstanceGone
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
    """Seconds between the first answer and the last. Raises what the first that failed did."""

    def timed(vm: Vm) -> float:
        act(vm)
        return time.monotonic()

    if not vms:
        return None
    with ThreadPoolExecutor(max_workers=_THREADS, thread_name_prefix="gang") as pool:
        moments = list(pool.map(timed, vms))  # every one is told, whichever fails
    return max(moments) - min(moments)

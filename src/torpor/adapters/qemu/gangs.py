"""Several VMs at one instant: implements the `Gangs` port."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress

from torpor.adapters.qemu.disks import sync_file
from torpor.adapters.qemu.machine import announce, to_pause, to_run_on
from torpor.adapters.qemu.vms import Vm, Vms
from torpor.domain.errors import BackendFailed, InstanceGone
from torpor.domain.ids import InstanceId
from torpor.domain.instance import BackendState

_THREADS = 8


class QemuGangs:
    """One command goes to all monitors at the same time; QEMU's own events say when it was carried out."""

    def __init__(self, vms: Vms) -> None:
        self._vms = vms

    def pause(self, instances: Sequence[InstanceId]) -> float | None:
        with self._exclusive(instances):
            vms = self._found(instances)
            states = [(vm, vm.state()) for vm in vms]
            going = [(vm, state) for vm, state in states if to_pause(vm, state)]
            running = [vm for vm, state in going if state is BackendState.RUNNING]
            _sync_disks(running)
            skew = self._at_once(running, "stop", "STOP")
            for vm, state in going:
                if state is not BackendState.RUNNING:
                    vm.execute("stop")  # it stands still already, at a disk error
            return skew if len(running) == len(vms) else None

    def run_on(self, instances: Sequence[InstanceId]) -> float | None:
        with self._exclusive(instances):
            vms = self._found(instances)
            still = [vm for vm in vms if to_run_on(vm, vm.state())]
            skew = self._at_once(still, "cont", "RESUME")
            for vm in still:
                announce(vm)
            return skew if len(still) == len(vms) else None

    @contextmanager
    def _exclusive(self, instances: Sequence[InstanceId]) -> Iterator[None]:
        with ExitStack() as held:
            for instance in sorted(instances):
                held.enter_context(self._vms.exclusive(instance))
            yield

    def _found(self, instances: Sequence[InstanceId]) -> list[Vm]:
        """Raises InstanceGone unless all have a process."""
        found = {vm.folder.id: vm for vm in self._vms.all()}
        gone = [instance for instance in instances if instance not in found]
        if gone:
            raise InstanceGone(
                f"instance {', '.join(gone)} has no process", remedy="resume it from its state, or run it anew"
            )
        return [found[instance] for instance in instances]

    def _at_once(self, vms: Sequence[Vm], command: str, event: str) -> float | None:
        """Seconds between the first and the last. Raises InstanceGone, BackendFailed."""
        told = self._vms.monitors.execute_at_once([vm.folder.qmp_socket for vm in vms], command, event)
        for vm in vms:
            answer = told[vm.folder.qmp_socket]
            if isinstance(answer, BackendFailed):
                raise vm.gone() if vm.process.wait_gone(1.0) else answer
        moments = [moment for moment in told.values() if isinstance(moment, float)]
        return max(moments) - min(moments) if moments else None


def _sync_disks(vms: Sequence[Vm]) -> None:
    """While they run: QEMU writes out at the pause what is not yet on the disk, and they would stand still for it."""
    disks = [vm.folder.disk for vm in vms if vm.folder.disk.exists()]
    if not disks:
        return
    with ThreadPoolExecutor(max_workers=_THREADS, thread_name_prefix="sync") as pool, suppress(OSError):
        list(pool.map(sync_file, disks))

"""The guest's processors before whatever else works on the host, for as long as a live snapshot is taken.

They wait for short moments again and again, for pages that are saved before they may be written. Whoever has to queue
for a core after each of these stands still for much longer than the moments themselves.
"""

import os
from contextlib import suppress

from torpor.adapters.qemu.vms import Vm
from torpor.domain.errors import TorporError

_NICER = 5
"""Three times the share. With much more, a guest that is busy starves the thread that it waits for (seen with 15)."""


def favour(vm: Vm, *, on: bool) -> None:
    """Best effort: without it snapshots are as whole, only less smooth. Converges, also after a daemon's death.

    The threads that do the rest of QEMU's work say what is ordinary.
    """
    with suppress(OSError, TorporError):
        ordinary = os.getpriority(os.PRIO_PROCESS, vm.process.pid)
        wanted = max(-20, ordinary - _NICER) if on else ordinary
        for cpu in vm.execute("query-cpus-fast"):
            os.setpriority(os.PRIO_PROCESS, int(cpu["thread-id"]), wanted)

"""Fakes of the ports that touch the world, for tests and for trying Torpor out without VMs.

The same contract suites run against these and against the real adapters. The world of a
`FakeHypervisor` outlives its callers, as VMs outlive the daemon. Records have fakes of their
own in `records`. Never used by a real installation.
"""

from torpor.adapters.fakes.adoption import FakeAdoption, FakeOwner
from torpor.adapters.fakes.batch_system import FakeBatchSystem
from torpor.adapters.fakes.clock import ManualClock
from torpor.adapters.fakes.faults import Faults
from torpor.adapters.fakes.gangs import FakeGangs
from torpor.adapters.fakes.guest import FakeGuest
from torpor.adapters.fakes.host import FakeHost, GuestMemory, HostFaults
from torpor.adapters.fakes.hypervisor import CLOUD, SHARED, FakeHypervisor
from torpor.adapters.fakes.images import FakeImages
from torpor.adapters.fakes.names import FakeNames
from torpor.adapters.fakes.snapshots import FakeSnapshots
from torpor.adapters.fakes.states import FakeStateStore

__all__ = [
    "CLOUD",
    "SHARED",
    "FakeAdoption",
    "FakeBatchSystem",
    "FakeGangs",
    "FakeGuest",
    "FakeHost",
    "FakeHypervisor",
    "FakeImages",
    "FakeNames",
    "FakeOwner",
    "FakeSnapshots",
    "FakeStateStore",
    "Faults",
    "GuestMemory",
    "HostFaults",
    "ManualClock",
]

"""What the service hands out: the records, joined for reading."""

from dataclasses import dataclass

from torpor.domain.capacity import Host
from torpor.domain.instance import BackendState, Instance, SavedState
from torpor.domain.operation import Operation
from torpor.domain.plan import Plan
from torpor.domain.workload import Flavor, Workload


@dataclass(frozen=True, slots=True)
class RunRequest:
    """What `torpor run` asks for. Raises Invalid when it is checked, not when it is made."""

    name: str
    image: str
    flavor: Flavor
    count: int = 1
    priority: int = 0
    preemptible: bool = False
    protect: bool = False
    duration: float | None = None
    command: str | None = None
    user_data: str | None = None


@dataclass(frozen=True, slots=True)
class InstanceView:
    instance: Instance
    fqdn: str
    backend_state: BackendState
    pid: int | None
    resident_bytes: int
    process_bytes: int
    states: tuple[SavedState, ...]
    """Newest first."""
    console_log: str
    """Path of the serial console's log on this host; it may not be there yet."""


@dataclass(frozen=True, slots=True)
class OperationView:
    operation: Operation
    bytes_done: int
    bytes_total: int
    """Of the step that is under way; 0 where it moves no bytes."""


@dataclass(frozen=True, slots=True)
class WorkloadView:
    workload: Workload
    instances: tuple[InstanceView, ...]
    ran_seconds: float
    waiting_for: str
    """Why it does not run yet (again); empty when it is not waiting."""
    operation: OperationView | None
    """What is being done to it right now."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """Answer to `run`: the workload is in the records, its names answer; the plan is what comes next."""

    workload: WorkloadView
    plan: Plan


@dataclass(frozen=True, slots=True)
class NameView:
    """One row of `torpor names`."""

    name: str
    fqdn: str
    address: str
    mac: str
    workload: str
    workload_state: str
    address_state: str
    address_detail: str
    published: bool
    """The name server has it."""


@dataclass(frozen=True, slots=True)
class HostView:
    host: Host
    process_bytes: int
    """Memory of all our hypervisor processes on it, page cache not counted."""
    instances: int
    """Instances with a process."""
    state_bytes: int
    """Saved states on its disk."""

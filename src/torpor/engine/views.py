"""What the service hands out: the records, joined for reading."""

from dataclasses import dataclass

from torpor.domain.capacity import Host
from torpor.domain.errors import Problem
from torpor.domain.instance import BackendState, Instance, SavedState, Snapshot
from torpor.domain.operation import Operation
from torpor.domain.plan import Plan
from torpor.domain.workload import NO_OPTIONS, Flavor, ServerOptions, Workload


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
    keep_address: bool = False
    """Each instance gets the address and the MAC that its hostname had last, if there was one of that name before."""
    options: ServerOptions = NO_OPTIONS


@dataclass(frozen=True, slots=True)
class CloneRequest:
    """What `torpor snapshot clone` asks for: a new workload out of a snapshot of another one."""

    name: str
    workload: str
    """Name of the workload that the snapshot is of."""
    snapshot: str
    priority: int | None = None
    """None: as the other one's."""
    preemptible: bool = False
    protect: bool = False
    duration: float | None = None


@dataclass(frozen=True, slots=True)
class InstanceSnapshot:
    """One instance's part of a workload's snapshot."""

    instance: str
    """Its name."""
    snapshot: Snapshot


@dataclass(frozen=True, slots=True)
class SnapshotView:
    """A snapshot of a workload: all of its instances at one instant."""

    workload: str
    name: str
    parts: tuple[InstanceSnapshot, ...]

    @property
    def created_at(self) -> float:
        """When the first of the instances stood still for it."""
        return min(p.snapshot.created_at for p in self.parts)

    @property
    def skew_seconds(self) -> float:
        """Between the first and the last."""
        return max(p.snapshot.created_at for p in self.parts) - self.created_at

    @property
    def pause_seconds(self) -> float:
        """The longest that one of them stood still."""
        return max(p.snapshot.pause_seconds for p in self.parts)

    @property
    def stored_bytes(self) -> int:
        return sum(p.snapshot.stored_bytes for p in self.parts)

    @property
    def memory_bytes(self) -> int:
        return sum(p.snapshot.memory_bytes for p in self.parts)


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
    states_limit_mb: int | None = None
    """The most that saved states may claim of its disk."""


@dataclass(frozen=True, slots=True)
class StateView:
    """One row of `torpor state ls`."""

    workload: str
    instance: str
    state: SavedState
    mapped: bool
    """The guest runs on it: pages that it has not touched yet are read from there."""


@dataclass(frozen=True, slots=True)
class StateCheck:
    """How the verification of one state goes, or went."""

    workload: str
    instance: str
    generation: int
    bytes_done: int = 0
    bytes_total: int = 0
    done: bool = False
    gone: bool = False
    """It was removed before it was read to its end: a newer one has taken its place."""
    problem: Problem | None = None


@dataclass(frozen=True, slots=True)
class RemovedStates:
    workload: str
    generation: int
    instances: tuple[str, ...]
    """Names of those that had it."""
    freed_bytes: int
    lost: str
    """What can't be done any more, in words."""

"""Workloads: named sets of instances that are asked for, suspended and resumed together."""

from dataclasses import dataclass
from enum import StrEnum

from torpor.domain.capacity import Resources
from torpor.domain.errors import Problem
from torpor.domain.ids import WorkloadId


class WorkloadState(StrEnum):
    """Where a workload stands. A backend has states of its own (`instance.BackendState`)."""

    PENDING = "pending"
    """Accepted; it has names and addresses, and waits for room."""
    ACTIVE = "active"
    SUSPENDING = "suspending"
    SUSPENDED = "suspended"
    RESUMING = "resuming"
    DONE = "done"
    """Ended as planned: its command finished, its duration is over, or its guests shut down."""
    FAILED = "failed"
    """An instance died or never started; `problem` says why and what can be done."""
    DELETING = "deleting"
    """Being deleted; afterwards it is gone from the books."""


@dataclass(frozen=True, slots=True)
class Flavor:
    """The size of one instance: vCPUs, guest memory in MiB, disk in MiB (0: as large as the image)."""

    vcpus: int
    memory_mb: int
    disk_mb: int = 0


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """What a cloud's users say beside image and size, as `openstack server create` calls it. Empty: the cloud's, or
    the configuration's, choice; and on backends that know nothing of it."""

    project: str = ""
    """Name or id of the project that the VMs belong to."""
    flavor: str = ""
    """Name or id of the flavor; where it is empty, one of just the size that is asked for."""
    networks: tuple[str, ...] = ()
    """Names or ids; the first one's is the instance's address."""
    key_name: str = ""
    security_groups: tuple[str, ...] = ()


NO_OPTIONS = ServerOptions()


@dataclass(frozen=True, slots=True)
class Origin:
    """What a clone is made of: a snapshot of another workload. Its n-th instance goes on from that one's n-th."""

    workload: WorkloadId
    snapshot: str


@dataclass(frozen=True, slots=True)
class Workload:
    """What somebody asked for, and where it stands.

    Times are seconds since the epoch (UTC). `duration` and `min_run` count seconds of
    running; time spent suspended does not count.
    """

    id: WorkloadId
    name: str
    image: str
    flavor: Flavor
    count: int
    priority: int
    created_at: float
    preemptible: bool = False
    protect: bool = False
    """Never a victim, whatever the priority; `torpor suspend` refuses it too."""
    duration: float | None = None
    command: str | None = None
    """Run in every instance through the guest agent; when all have finished, the workload is done."""
    user_data: str | None = None
    state: WorkloadState = WorkloadState.PENDING
    running_since: float | None = None
    """When it last began to run (boot or resume); None while it does not run."""
    ran_for: float = 0.0
    """Seconds that it ran before `running_since`."""
    held: bool = False
    """Suspended by hand: it comes back only by hand."""
    reason: str = ""
    """Why it waits, was suspended, or ended: one clause for people."""
    problem: Problem | None = None
    attempts: int = 0
    """Failed tries of the operation that is due, since the last one that succeeded."""
    origin: Origin | None = None
    """Of a clone: its instances are not booted but go on from this."""
    adopted: bool = False
    """Its VMs were made by others: they are suspended and brought back, never deleted, and their addresses are
    their owners'. `image` is empty."""
    options: ServerOptions = NO_OPTIONS

    def ran(self, now: float) -> float:
        """Seconds that it has run in all, at `now`."""
        return self.ran_for + (max(0.0, now - self.running_since) if self.running_since else 0.0)

    @property
    def occupies(self) -> bool:
        """Whether it holds vCPUs and memory (for states that are at rest)."""
        return self.state is WorkloadState.ACTIVE

    @property
    def at_rest(self) -> bool:
        """Whether no operation is changing it."""
        return self.state not in (
            WorkloadState.SUSPENDING,
            WorkloadState.RESUMING,
            WorkloadState.DELETING,
        )

    def compute_claim(self, overhead_mb: int) -> Resources:
        """What one instance takes of a host while it has a process."""
        return Resources(vcpus=self.flavor.vcpus, memory_mb=self.flavor.memory_mb + overhead_mb)

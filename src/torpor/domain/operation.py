"""Operations: what is being done to one workload, step by step, durably recorded.

An operation is begun with all its steps pending. For every step the intent is
recorded before the act and the outcome after it, so that after a crash it is known
which step may have been under way. A step's handler asks the backend what is
true before it acts, so going on after a crash is never a blind replay.
"""

from dataclasses import dataclass
from enum import StrEnum

from torpor.domain.errors import Problem
from torpor.domain.ids import InstanceId, OperationId, WorkloadId


class OperationKind(StrEnum):
    RUN = "run"
    SUSPEND = "suspend"
    RESUME = "resume"
    END = "end"
    """Stop the instances of a workload that is done, release what they held, keep their disks."""
    DELETE = "delete"
    GO_BACK = "go-back"
    """Take a workload that failed back to its last saved state, survivors included; it is suspended then."""
    SNAPSHOT = "snapshot"
    """Keep memory and disk of this instant, while the workload runs on."""
    RESTORE_SNAPSHOT = "restore-snapshot"
    """Give up what a workload has in memory and on disk for what a snapshot has; it is suspended then."""
    REMOVE_SNAPSHOT = "remove-snapshot"
    CLONE = "clone"
    """Let a new workload go on from a snapshot of another, under its own names and addresses."""


class StepKind(StrEnum):
    """The acts. The comment says what holds once the step is done."""

    CLAIM_COMPUTE = "claim-compute"  # vCPUs, memory (and disk, once) are in the books
    PUBLISH_NAMES = "publish-names"  # every instance's name answers
    BOOT = "boot"  # the instance has a process
    CLAIM_STATE = "claim-state"  # disk room for the state is in the books
    TELL_BATCH_SYSTEM = "tell-batch-system"  # the batch system knows that its nodes sleep / wake
    PAUSE = "pause"  # every instance of the gang stands still
    SAVE = "save"  # the instance's state is whole and durable
    RELEASE_MEMORY = "release-memory"  # the instance's process is gone
    RELEASE_COMPUTE = "release-compute"  # vCPUs and memory are out of the books
    SETTLE_STATE = "settle-state"  # older states are gone, the claim is what the state takes
    RESTORE = "restore"  # the instance has a process with its memory, paused
    SPEND = "spend"  # every state of the gang is marked spent
    RUN_ON = "run-on"  # every instance of the gang runs
    CONFIRM = "confirm"  # every instance was seen running, its clock set where it can be
    REVERT = "revert"  # the instance has no process, its disk and its state are of the same instant, the state is whole
    STOP = "stop"  # the instance has no process
    WITHDRAW_NAMES = "withdraw-names"  # no instance's name answers
    ERASE = "erase"  # the instance's disk and states are gone
    PASS_ON = "pass-on"  # vCPUs and memory are in the books for whoever waits for them; nobody else got them
    RELEASE_ALL = "release-all"  # nothing of the workload is in the books
    FORGET = "forget"  # the workload is out of the records
    CLAIM_SNAPSHOT = "claim-snapshot"  # disk room for the snapshot is in the books
    TAKE_SNAPSHOT = "take-snapshot"  # every instance's snapshot is whole and durable, and every instance runs
    VERIFY_SNAPSHOT = "verify-snapshot"  # the instance's snapshot was read, and is what was written
    GIVE_UP = "give-up"  # what the workload has in memory may go: from here on it becomes what the snapshot says
    LAY_DOWN = "lay-down"  # the snapshot is the instance's newest state, whole, and its disk is of the same instant
    IDENTIFY = "identify"  # the guest has the instance's own name, MAC and address, and its link is up
    REMOVE_SNAPSHOT = "remove-snapshot"  # the instance's snapshot is gone
    SETTLE_SNAPSHOTS = "settle-snapshots"  # the claim is what the snapshots take
    RECORD = "record"  # the workload's own state says what the operation came to


class StepStatus(StrEnum):
    PENDING = "pending"
    INTENDED = "intended"
    DONE = "done"
    FAILED = "failed"
    UNDONE = "undone"


@dataclass(frozen=True, slots=True)
class Step:
    """One act, on one instance or (`instance` None) on the whole gang."""

    index: int
    kind: StepKind
    instance: InstanceId | None = None
    status: StepStatus = StepStatus.PENDING
    started_at: float | None = None
    ended_at: float | None = None
    detail: str = ""
    skew: float | None = None
    """Seconds between the first and the last instance, of an act on the whole gang that should be one instant."""


class OperationStatus(StrEnum):
    FORWARD = "forward"
    UNDOING = "undoing"
    """A step failed; what was done before it is being undone in reverse."""
    SUCCEEDED = "succeeded"
    UNDONE = "undone"
    """Ended as if it had not been begun; `problem` says why."""


@dataclass(frozen=True, slots=True)
class Operation:
    id: OperationId
    kind: OperationKind
    workload: WorkloadId
    workload_name: str
    reason: str
    steps: tuple[Step, ...]
    created_at: float
    predicted_seconds: float | None = None
    status: OperationStatus = OperationStatus.FORWARD
    ended_at: float | None = None
    problem: Problem | None = None
    snapshot: str = ""
    """Name of the snapshot that it is about, for the kinds that are about one."""

    @property
    def open(self) -> bool:
        return self.status in (OperationStatus.FORWARD, OperationStatus.UNDOING)

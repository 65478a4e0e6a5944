"""Plans: what would be done, for which reason, and how long it is thought to take. Data, not behaviour."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from torpor.domain.capacity import Claim, Host
from torpor.domain.ids import HostId, InstanceId, WorkloadId
from torpor.domain.instance import Instance
from torpor.domain.operation import OperationKind
from torpor.domain.timing import TimingModel
from torpor.domain.workload import Flavor, Workload


@dataclass(frozen=True, slots=True)
class Policy:
    """The rules that an operator sets. Seconds and MiB."""

    min_run_seconds: float
    max_victims: int
    overhead_mb: int
    """Claimed for every instance on top of its guest memory."""
    states_mb: int | None = None
    """The most that all saved states on one host may claim of its disk; None: as much as there is."""


@dataclass(frozen=True, slots=True)
class Gang:
    """A workload with its instances, as the world is now."""

    workload: Workload
    instances: tuple[Instance, ...]
    resident_bytes: Mapping[InstanceId, int] = field(default_factory=dict)
    """Guest memory that is there, for instances with a process."""
    to_write: Mapping[InstanceId, int] = field(default_factory=dict)
    """Bytes that a suspension would write, where that was asked; less than what is there after a restore."""
    state_bytes: Mapping[InstanceId, int] = field(default_factory=dict)
    """Guest memory in the newest saved state, for instances that have one; of a clone to be, in its snapshot."""
    whole_state: bool = False
    """Every instance has a saved state that is whole."""


@dataclass(frozen=True, slots=True)
class World:
    """Everything that a decision may depend on."""

    now: float
    hosts: tuple[Host, ...]
    claims: tuple[Claim, ...]
    gangs: tuple[Gang, ...]
    policy: Policy
    timings: Mapping[tuple[HostId, OperationKind], TimingModel] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Action:
    """One operation that a plan asks for, on one workload."""

    kind: OperationKind
    workload: WorkloadId
    name: str
    reason: str
    predicted_seconds: float
    placement: Mapping[InstanceId, HostId] = field(default_factory=dict)
    """For `run`: where each instance goes."""


class Verdict(StrEnum):
    READY = "ready"
    """The actions can be carried out now, in their order."""
    WAIT = "wait"
    """Not now; `reason` says what is waited for."""
    REFUSED = "refused"
    """Never as things stand: a safety rule forbids it, or no host is large enough."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a workload needs to run. `actions` are empty unless `verdict` is READY."""

    workload: WorkloadId
    name: str
    verdict: Verdict
    reason: str
    actions: tuple[Action, ...] = ()
    retry_at: float | None = None
    """When waiting is known to be worth another look (seconds since the epoch)."""

    @property
    def victims(self) -> tuple[Action, ...]:
        return tuple(a for a in self.actions if a.kind is OperationKind.SUSPEND)

    @property
    def predicted_seconds(self) -> float:
        """The actions go one after another: saves and loads are serial on one disk."""
        return sum(a.predicted_seconds for a in self.actions)


STATE_MARGIN_MB = 16
"""Room for device state, firmware and manifest of one saved state, MiB."""
_INDEX_SHARE = 64
"""Every page of 4096 bytes has 20 in the index, and what can't be packed takes up to a page more a MiB."""


_STREAM_SHARE = 256
"""A stream has 9 bytes besides every page of 4096, and a little more for whole pages of one byte."""


def snapshot_room_mb(flavor: Flavor) -> int:
    """The most that one new snapshot of an instance can take on disk, its disk contents of that instant included, MiB.

    The disk's are kept inside the disk itself, which by and by grows by as much as it had.
    """
    return state_room_mb(flavor) + flavor.memory_mb // _STREAM_SHARE + flavor.disk_mb


def state_room_mb(flavor: Flavor) -> int:
    """The most that one new saved state of an instance can take on disk, MiB."""
    return stored_mb(flavor.memory_mb)


def stored_mb(memory_mb: int) -> int:
    """The most that a saved state with this much guest memory in it can take on disk, MiB."""
    return memory_mb + memory_mb // _INDEX_SHARE + STATE_MARGIN_MB

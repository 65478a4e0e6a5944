"""Instances: one VM each, and what a backend says of it."""

from dataclasses import dataclass
from enum import StrEnum

from torpor.domain.errors import Problem
from torpor.domain.ids import HostId, InstanceId, WorkloadId
from torpor.domain.workload import NO_OPTIONS, Flavor, ServerOptions


class AddressState(StrEnum):
    """What is known of the address on the instance's interface."""

    UNVERIFIED = "unverified"
    """Not yet asked, or not yet answered: the guest is still booting."""
    VERIFIED = "verified"
    """The instance's own interface answered for the address."""
    MISMATCH = "mismatch"
    """The guest runs, but its interface has not got the address; `address_detail` says what it has."""


@dataclass(frozen=True, slots=True)
class Instance:
    """One VM of a workload. Its name, address and MAC are its own from acceptance until deletion."""

    id: InstanceId
    workload: WorkloadId
    name: str
    """Hostname without zone, an RFC 1123 label."""
    index: int
    address: str
    """IPv4 address, dotted quad. Empty while that of an adopted VM is not known."""
    mac: str
    """Six lower-case hex pairs joined by colons. Empty where an adopted VM has no network interface."""
    host: HostId | None = None
    """Where its disk (and its process or saved state) is; None until it is placed."""
    address_state: AddressState = AddressState.UNVERIFIED
    address_detail: str = ""
    command_pid: int | None = None
    """The command's process in the guest, as the guest agent numbers it."""
    exit_code: int | None = None
    """The command's exit code once it has finished."""
    problem: Problem | None = None
    clock_off: float | None = None
    """Seconds by which its clock was behind the host's right after it last ran on from a saved state."""
    clock_detail: str = ""
    """How that came about, in words."""
    network: str = ""
    """On which its address is its own: tenants' networks may have the same addresses. Empty where there is one."""


class BackendState(StrEnum):
    """What a backend says that a VM is doing right now."""

    ABSENT = "absent"
    """No process; nothing of it is in memory."""
    LOADING = "loading"
    """A process waits for, or is being filled with, a saved state."""
    RUNNING = "running"
    PAUSED = "paused"
    SHUT_OFF = "shut-off"
    """The guest powered itself off; the process may still be there."""
    IO_ERROR = "io-error"
    """The VM stopped itself at a disk error (a full host disk, for one)."""


@dataclass(frozen=True, slots=True)
class Observation:
    """A VM as its backend sees it now."""

    state: BackendState
    resident_bytes: int = 0
    """Host memory that holds guest memory now: what a suspension would have to write."""
    process_bytes: int = 0
    """Host memory of the whole hypervisor process, page cache not counted."""
    pid: int | None = None
    """Its process; 0 for one that is there, and whose number the backend does not tell."""
    host: HostId | None = None
    """Where it is, from a backend with several hosts."""


@dataclass(frozen=True, slots=True)
class NetworkConfig:
    """What a guest is told about the network by its config drive."""

    address: str
    prefix: int
    gateway: str
    dns: tuple[str, ...]
    zone: str


@dataclass(frozen=True, slots=True)
class InstanceSpec:
    """All that a hypervisor needs to give an instance a process."""

    id: InstanceId
    name: str
    image: str
    flavor: Flavor
    mac: str
    network: NetworkConfig
    user_data: str | None = None
    meta: tuple[tuple[str, str], ...] = ()
    """Key and value pairs for the `meta` object of meta_data.json."""
    ssh_keys: tuple[str, ...] = ()
    host: HostId | None = None
    """Where the books have its room."""
    options: ServerOptions = NO_OPTIONS


class Mechanism(StrEnum):
    """How the memory of a saved state was written."""

    MEMORY = "memory"
    """Guest RAM read from outside the hypervisor process, device state beside it."""
    STREAM = "stream"
    """The hypervisor's own migration stream."""


class Codec(StrEnum):
    """How the memory of a saved state is packed."""

    NONE = "none"
    LZ4 = "lz4"
    ZSTD = "zstd"


class StateStatus(StrEnum):
    WHOLE = "whole"
    """Durable, checksummed, and not run from: it can be restored."""
    SPENT = "spent"
    """The instance has run on from it. Only after its disk was taken back to the same instant (`revert`)
    can it be restored again."""


@dataclass(frozen=True, slots=True)
class SavedState:
    """A saved state on disk, whole or spent; partial ones are not reported."""

    instance: InstanceId
    generation: int
    """1 for an instance's first saved state, then counted up."""
    mechanism: Mechanism
    status: StateStatus
    created_at: float
    stored_bytes: int
    """Room that it takes on disk, memory, device state and manifest; shared parts counted at the oldest state only."""
    memory_bytes: int
    """Guest memory that it holds (pages that are there and not zero)."""
    codec: Codec = Codec.NONE
    written_bytes: int = 0
    """What this very save had to write of the memory; less than `stored_bytes` where it shares an older state's."""
    base: int | None = None
    """The generation whose memory this state's differs from; None where it holds all of its memory itself."""
    origin: InstanceId | None = None
    """Whose memory it is, where it was laid down from another instance's snapshot: that guest must be told
    who it is (`Guest.take_identity`) whenever it was restored from it."""
    ours: bool = True
    """Torpor keeps others from bringing it back. Otherwise they saved it themselves, and may."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Memory, device state and disk of one instant, kept until it is removed; restorable many times."""

    instance: InstanceId
    name: str
    """An RFC 1123 label, unique for the instance."""
    mechanism: Mechanism
    created_at: float
    pause_seconds: float
    """How long the VM stood still for it."""
    stored_bytes: int
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class ClockGap:
    """A guest's clock beside the host's. Seconds; below 0 where it is ahead."""

    behind: float
    """Before it was set."""
    left: float
    """Afterwards; correct to half the time that the question took."""


@dataclass(frozen=True, slots=True)
class Execution:
    """A command in a guest, as its agent reports it."""

    finished: bool
    exit_code: int | None = None
    output: str = ""
    """The last 64 KiB of standard output and error."""

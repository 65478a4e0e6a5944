"""What the engine needs of the world: small Protocols, implemented by adapters.

All calls are synchronous and may block; they raise `TorporError`s and nothing else that
is foreseeable. "Converges" means: the call first asks what is true, does only what is
missing, and succeeds when nothing is; so it may be repeated after a crash or a timeout.
"""

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from torpor.domain.address_path import Echo, NetworkPicture
from torpor.domain.addressing import LastAddress
from torpor.domain.adoption import Mark, Stranger
from torpor.domain.capacity import Claim, ClaimKind, Host, Resources
from torpor.domain.dhcp import DhcpService
from torpor.domain.errors import Problem
from torpor.domain.ids import HostId, InstanceId, OperationId, WorkloadId
from torpor.domain.image import Image
from torpor.domain.instance import (
    ClockGap,
    Execution,
    Instance,
    InstanceSpec,
    Observation,
    SavedState,
    Snapshot,
)
from torpor.domain.named_ports import NamedPort
from torpor.domain.naming import NameRecord
from torpor.domain.operation import Operation, OperationStatus, StepStatus
from torpor.domain.timing import TimingModel
from torpor.domain.workload import Workload

Progress = Callable[[int, int], None]
"""Told (bytes done, bytes in all) now and then; must return at once."""


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a backend can do; the contract suite is keyed on it."""

    gang_pause: bool
    """All instances of a workload can be paused before any is saved. Otherwise a VM can't stand still in memory:
    `pause` saves it as well and ends its process; `restore` only looks at its state, and `run_on` brings it back."""
    revert: bool
    """A restored instance, and its disk, can be taken back to the state that it was restored from."""
    guest_agent: bool
    snapshots: bool = False
    """Live snapshots with memory can be taken; the backend has the `Snapshots` port."""
    clones: bool = False
    """A snapshot can be laid down for another instance than the one that it is of."""
    keeps_process: bool = True
    """A saved VM keeps its process, paused, until `Suspension.release`. Otherwise `save` ends the process, and a save
    is taken back by restoring the VM."""
    adoption: bool = False
    """The host is shared with VMs of others, which can be taken in; the backend has the `Adoption` port."""
    shared_books: bool = False
    """The books are a scheduler's, which knows its hosts by itself, and others claim in them what is released."""


@dataclass(frozen=True, slots=True)
class Check:
    """One finding of `torpor doctor`."""

    name: str
    ok: bool
    detail: str
    remedy: str = ""


class Hypervisor(Protocol):
    """Life of VMs on one host."""

    def capabilities(self) -> Capabilities: ...

    def host(self) -> Host:
        """The host's id and what it has to offer in all (`used` is left empty)."""
        ...

    def observe(self) -> Mapping[InstanceId, Observation]:
        """Every VM of ours that has a process; one that is missing is ABSENT."""
        ...

    def boot(self, spec: InstanceSpec) -> None:
        """Give the instance its disk, config drive, NIC and a running process. Converges."""
        ...

    def pause(self, instance: InstanceId) -> None:
        """Stop its vCPUs. Converges. Raises InstanceGone when it has no process."""
        ...

    def run_on(self, instance: InstanceId) -> None:
        """Let a paused VM run. Converges. Raises InstanceGone when it has no process."""
        ...

    def stop(self, instance: InstanceId, grace: float) -> None:
        """End its process: asked politely for `grace` seconds, then by force. Disk and states stay. Converges."""
        ...

    def erase(self, instance: InstanceId) -> None:
        """Stop it by force, then remove its disk, states, NIC and folder. Converges."""
        ...


class Provisions(Protocol):
    """What a workload gets before there is room for it: its exact size, and addresses and MACs of its own."""

    def settle(self, workload: Workload) -> Workload:
        """The workload as it will be run: named things looked up, what is not said filled in. Changes nothing.

        Raises Invalid, NotFound, Refused (a quota, say).
        """
        ...

    def propose(self, instances: Sequence[Instance], taken: Set[str], spare: Sequence[str] = ()) -> Sequence[Instance]:
        """The instances with address and MAC as far as those are ours to choose; who has an address already keeps it.

        `taken` are others' addresses; those of `spare` are given only when there are no others, the first one first.
        Changes nothing. Raises AddressPoolEmpty, and Conflict for an address to be kept that is none of ours.
        """
        ...

    def reserve(self, workload: Workload, instances: Sequence[Instance]) -> Sequence[Instance]:
        """The instances with an address and a MAC that nobody else gets until they are given back; all or none.

        Who has them already gets just those. Converges. Raises AddressPoolEmpty, Refused, NotFound, BackendFailed, and
        Conflict or MissingPart where these are somebody else's, or not to be chosen.
        """
        ...

    def give_back(self, workload: Workload, instances: Sequence[Instance]) -> None:
        """Of instances that were not accepted after all, or are to leave the records. Converges."""
        ...


class Adoption(Protocol):
    """VMs on this host that others have made, and that Torpor may look after because they are marked so.

    The mark lies with the VM itself and may be written by people and by other tools. What is not marked is never
    touched, and `Hypervisor.observe` does not tell of it. Marking changes nothing else of a VM.
    """

    def strangers(self) -> Sequence[Stranger]:
        """Every VM of the host, marked or not, that was not made by `Hypervisor.boot`; by name."""
        ...

    def mark(self, instance: InstanceId, mark: Mark) -> None:
        """Durably; in place of an earlier mark. Converges. Raises NotFound, and Conflict for a VM of our own making."""
        ...

    def unmark(self, instance: InstanceId) -> None:
        """Converges; nothing where the VM is gone. Raises Conflict for a VM of our own making."""
        ...


class Gangs(Protocol):
    """The instances of a workload as one: they stand still, and run on, as near to one instant as it goes."""

    def pause(self, instances: Sequence[InstanceId]) -> float | None:
        """As `Hypervisor.pause` for each of them. Returns the seconds between the first standstill and the last.

        None where that is not known: some stood still before. What is slow about it is done beforehand, while they
        run. Converges. Raises InstanceGone when one has no process, then none is paused; BackendFailed when one
        could not be paused, others may be then.
        """
        ...

    def run_on(self, instances: Sequence[InstanceId]) -> float | None:
        """As `Hypervisor.run_on` for each of them; otherwise as `pause`."""
        ...


class Suspension(Protocol):
    """Saved states of VMs, each with the disk contents of the same instant.

    The order of calls is that of an operation: pause, save, release; restore, spend, run_on.
    `drop` takes a save back, `revert` takes a restore back.
    """

    def save(self, spec: InstanceSpec, progress: Progress) -> SavedState:
        """Write a paused VM's state, whole, checksummed and fsynced; the VM stays paused in memory.

        Where the backend does not keep the process (`Capabilities`), it is gone on return.
        Converges: a whole state of this very pause is not written twice. On failure nothing of
        a partial state is left and the VM is still paused. Raises NoRoomForState, InstanceGone,
        BackendFailed.
        """
        ...

    def release(self, instance: InstanceId) -> None:
        """End the process of a VM whose newest state is whole; its memory is free afterwards. Converges.

        Raises Conflict when the newest state is not whole.
        """
        ...

    def restore(self, spec: InstanceSpec, progress: Progress) -> None:
        """Give the instance a process with the memory of its newest state, verified, paused. Converges.

        Raises StateDamaged, MissingPart, BackendFailed; the state is untouched then and no process is left.
        """
        ...

    def spend(self, instance: InstanceId) -> None:
        """Durably mark the newest state spent; called right before the VM runs on. Converges."""
        ...

    def revert(self, instance: InstanceId) -> None:
        """End the process, take the disk back to the newest state's instant, mark that state whole. Converges."""
        ...

    def drop(self, instance: InstanceId) -> None:
        """Remove the whole or partial state that was written of a VM that still has its process. Converges."""
        ...

    def settle(self, instance: InstanceId) -> None:
        """Remove every state older than the newest. Converges."""
        ...

    def states(self, instance: InstanceId) -> Sequence[SavedState]:
        """Whole and spent states, newest first."""
        ...


class StateStore(Protocol):
    """What lies on disk of saved states, looked after: the housekeeping beside `Suspension`."""

    def verify(self, instance: InstanceId, generation: int, progress: Progress) -> None:
        """Read every byte of a state and compare it with its checksums. Raises NotFound, StateDamaged."""
        ...

    def remove(self, instance: InstanceId, generation: int) -> None:
        """Remove a spent state. Raises NotFound, and Conflict for one that is whole or that a process still maps."""
        ...

    def collect(self, known: Set[InstanceId]) -> int:
        """Remove what no state and none of the known instances needs: leftovers of saves that did not end, folders
        of instances that are not known and have no process. Returns the bytes that this freed. Converges."""
        ...

    def to_write(self, instance: InstanceId) -> int:
        """Bytes that a suspension of this VM would write, as near as can be told while it runs; 0 without a process.

        What takes its time otherwise (reading memory to find what changed) counts as the bytes that could be
        written meanwhile.
        """
        ...

    def mapped(self, instance: InstanceId) -> bool:
        """Whether its process still reads memory from its newest state's file as it is touched (lazy restore)."""
        ...


class Snapshots(Protocol):
    """Live snapshots: memory, device state and disk of one instant, while the VM runs on."""

    def take(self, specs: Sequence[InstanceSpec], name: str, progress: Progress) -> Sequence[Snapshot]:
        """Snapshot these VMs at one instant, as near as their pauses allow; durable and checksummed on return.

        All or none: on failure nothing is left of it, and every VM that ran runs. A VM that was paused is paused
        afterwards. Raises Conflict on a taken name, NoRoomForState, InstanceGone, MissingPart, BackendFailed.
        """
        ...

    def list(self, instance: InstanceId) -> Sequence[Snapshot]:
        """Oldest first. Partial ones are not reported."""
        ...

    def remove(self, instance: InstanceId, name: str) -> None:
        """Remove it, whole or partial, and its disk contents. Converges."""
        ...

    def verify(self, instance: InstanceId, name: str, progress: Progress) -> None:
        """Read every byte of it, and compare what it needs with what is here: before anything is given up for it.

        Raises NotFound, StateDamaged, MissingPart.
        """
        ...

    def lay_down(self, spec: InstanceSpec, source: InstanceId, name: str) -> None:
        """Make the snapshot of `source` the newest, whole state of `spec`'s instance, with its disk of that instant.

        The instance has no process. `Suspension.restore` then brings it up. Where it is another instance than
        `source` (a clone), it gets a copy of the disk, and its link stays down until `Guest.take_identity`.
        The snapshot stays as it is. Converges. Raises NotFound, Conflict, StateDamaged, NoRoomForState.
        """
        ...


class Guest(Protocol):
    """What can be asked of a guest from inside, through its agent, and from outside."""

    def agent_answers(self, instance: InstanceId) -> bool: ...

    def vantage(self) -> str:
        """Where `probe` sees an address, in words: "on its interface"."""
        ...

    def probe(self, instance: Instance) -> bool:
        """Whether the instance's own MAC has its address, as near to the guest as can be looked: it answers on the
        network (ARP), or where nobody can ask there, the network's own books say so."""
        ...

    def addresses(self, instance: InstanceId) -> Sequence[str]:
        """IPv4 addresses on its interfaces, loopback left out. Raises BackendFailed without an agent."""
        ...

    def assign_address(self, instance: Instance, network_prefix: int, gateway: str) -> None:
        """Put the instance's address on the interface that has its MAC. Raises BackendFailed."""
        ...

    def take_identity(self, instance: Instance, network_prefix: int, gateway: str) -> None:
        """Give a clone, whose memory is another's, its own MAC, address and hostname; then let its link come up.

        Converges. Raises BackendFailed, also without an agent; the link stays down then.
        """
        ...

    def set_clock(self, instance: InstanceId, now: float) -> ClockGap | None:
        """Set the guest's clock to `now`, and look how well that went. Raises BackendFailed.

        None where the backend has set it by itself as the guest ran on, and does not tell how that went.
        """
        ...

    def execute(self, instance: InstanceId, command: str) -> int:
        """Start `command` with /bin/sh in the guest; return its pid there. Raises BackendFailed."""
        ...

    def execution(self, instance: InstanceId, pid: int) -> Execution:
        """How that command fares. Its result is handed out once, then forgotten by the guest."""
        ...


class Names(Protocol):
    """The name server: hostname to address and back."""

    def ensure(self) -> None:
        """Have a server running with exactly the published records. Converges."""
        ...

    def publish(self, records: Sequence[NameRecord]) -> None:
        """Let these names answer. Converges; a name's new address takes the place of the old."""
        ...

    def withdraw(self, names: Sequence[str]) -> None:
        """Let these names answer no more. Converges."""
        ...

    def records(self) -> Sequence[NameRecord]:
        """What is published now."""
        ...

    def checks(self) -> Sequence[Check]: ...


class NamedPorts(Protocol):
    """Networks whose ports get names, whoever made them."""

    def ports(self) -> Sequence[NamedPort]:
        """Those that are to have one. Raises TorporErrors where that can't be found out."""
        ...

    def networks(self) -> Sequence[str]:
        """Ids of these networks. Raises as `ports` does."""
        ...


class NameServers(Protocol):
    """Wherever names are published, asked as its clients ask."""

    def answers(self, names: Sequence[str]) -> Mapping[str, Mapping[str, tuple[str, ...]]]:
        """Addresses by server and name; a name that a server is silent on is left out. Never raises."""
        ...


class Outlook(Protocol):
    """A look around on networks, from a port of our own."""

    def ask(self, network: str, addresses: Sequence[str]) -> Mapping[str, Echo] | None:
        """Who answers for each of these IPv4 addresses of the network (its id); None where nobody can ask from here.

        Raises NotFound, MissingPart, BackendFailed.
        """
        ...


class DhcpNetwork(Protocol):
    """A network on which DHCP is to be served, whoever made its ports."""

    def attach(self) -> bool:
        """Have a port of ours there, plugged in on this machine, that may send and hear everything. Converges.

        Returns whether its interface is a new one: a server on the old one hears nothing any more. Raises NotFound,
        Refused, MissingPart, BackendFailed.
        """
        ...

    def look(self) -> DhcpService:
        """What its ports are to be leased now. Raises TorporErrors where that can't be found out."""
        ...

    def detach(self) -> None:
        """Take that port away. Converges."""
        ...


class DhcpServer(Protocol):
    """Answers DHCP where it is plugged in."""

    def serve(self, service: DhcpService) -> None:
        """Have it running, giving exactly these leases. Converges. Raises MissingPart, BackendFailed."""
        ...

    def stop(self) -> None:
        """End it; what was leased stays on the interfaces until the leases run out. Converges."""
        ...


class NetworkPictures(Protocol):
    """Networks as their cloud has them, for whoever looks where an address is lost."""

    def look(self, subject: str) -> tuple[NetworkPicture, str]:
        """The network of that name or id; or the one of the server of that name or id, and that server's id.

        Raises NotFound, Invalid where several are called so, BackendFailed.
        """
        ...

    def open_port(self, port: str) -> None:
        """Take port security and security groups off it. Converges. Raises NotFound, MissingPart, BackendFailed."""
        ...


class BatchSystem(Protocol):
    """Told before its nodes sleep and after they wake."""

    def before_suspend(self, nodes: Sequence[str]) -> None:
        """Drain the nodes and suspend their jobs. Converges."""
        ...

    def after_resume(self, nodes: Sequence[str]) -> None:
        """Resume the jobs and undrain the nodes. Converges."""
        ...


@dataclass(frozen=True, slots=True)
class Kernel:
    """A kernel and its initramfs, booted directly."""

    kernel: Path
    initrd: Path
    cmdline: str


@dataclass(frozen=True, slots=True)
class Disk:
    """A base for overlays. `kernel` boots it where it has no boot loader of its own."""

    path: Path
    format: str
    virtual_bytes: int
    kernel: Kernel | None = None


class BootImages(Protocol):
    """What a backend that boots from files asks of the images."""

    def boot(self, name: str) -> Kernel | Disk:
        """What a machine of this image is started with. Raises NotFound."""
        ...


class Images(Protocol):
    """Bases that instances are made from; a base is never written once it is added."""

    def list(self) -> Sequence[Image]: ...

    def get(self, name: str) -> Image:
        """Raises NotFound."""
        ...

    def add(self, name: str, path: str) -> Image:
        """Take a copy of a qcow2 or raw disk image. Raises Invalid when it is not one, Conflict on a taken name."""
        ...

    def build(self, name: str, recipe: str, progress: Callable[[str], None]) -> Image:
        """Build a test image from distribution packages. Raises Invalid for an unknown recipe."""
        ...

    def remove(self, name: str) -> None: ...


class Ledger(Protocol):
    """The books: who holds what of which host. Never over-committed."""

    def hosts(self) -> Sequence[Host]: ...

    def set_host(self, host: HostId, total: Resources) -> None:
        """Enter a host, or change what it has. Raises Conflict below what is claimed."""
        ...

    def claims(self) -> Sequence[Claim]: ...

    def claim(self, claims: Sequence[Claim], instead_of: Sequence[InstanceId] = ()) -> None:
        """Enter all or none, each in the place of the consumer's claim of that kind. Raises NoCapacity.

        In the same transaction the COMPUTE claims of `instead_of` are released: nobody else gets what they held.
        """
        ...

    def release(self, consumers: Sequence[InstanceId], kinds: Sequence[ClaimKind]) -> None:
        """Take these claims out of the books, in one transaction. Converges."""
        ...


class Journal(Protocol):
    """Operations, durable before every return."""

    def begin(self, operation: Operation) -> None: ...

    def intend(self, operation: OperationId, step: int, at: float) -> None: ...

    def record(
        self,
        operation: OperationId,
        step: int,
        status: StepStatus,
        at: float,
        detail: str = "",
        skew: float | None = None,
    ) -> None: ...

    def turn_back(self, operation: OperationId, problem: Problem) -> None:
        """From here on the operation is being undone."""
        ...

    def finish(self, operation: OperationId, status: OperationStatus, at: float) -> None: ...

    def get(self, operation: OperationId) -> Operation:
        """Raises NotFound."""
        ...

    def open(self) -> Sequence[Operation]:
        """Operations that are not ended, oldest first."""
        ...

    def recent(self, limit: int) -> Sequence[Operation]:
        """Newest first."""
        ...


class Inventory(Protocol):
    """Workloads and their instances, durable before every return."""

    def add(self, workload: Workload, instances: Sequence[Instance]) -> None:
        """Raises Conflict when the name, a hostname or an address is taken."""
        ...

    def workloads(self) -> Sequence[Workload]:
        """Oldest first."""
        ...

    def workload(self, id: WorkloadId) -> Workload:
        """Raises NotFound."""
        ...

    def instances(self, workload: WorkloadId | None = None) -> Sequence[Instance]:
        """Of one workload or of all, by workload and index."""
        ...

    def update(self, workload: Workload) -> None: ...

    def update_instance(self, instance: Instance) -> None: ...

    def remove(self, workload: WorkloadId, remember: bool = False) -> None:
        """The workload and its instances; with `remember`, what they had goes into `last_addresses`. Converges."""
        ...

    def last_addresses(self) -> Mapping[str, LastAddress]:
        """What instances had that are remembered, by hostname, in the order in which they were removed.

        Those of thousands are kept; then the oldest ones are forgotten.
        """
        ...


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened, for people and for the record."""

    at: float
    kind: str
    """Short and stable, for filters: `workload-active`, `address-mismatch`, ..."""
    subject: str
    """Name of the workload, instance or host that it is about."""
    message: str


class History(Protocol):
    """Events, and what was learnt of this installation's speed."""

    def record(self, event: Event) -> None: ...

    def events(self, limit: int, subject: str | None = None) -> Sequence[Event]:
        """Oldest first, the last `limit` of them."""
        ...

    def timing(self, host: HostId, kind: str) -> TimingModel | None: ...

    def learn(self, host: HostId, kind: str, model: TimingModel) -> None: ...


class Clock(Protocol):
    def now(self) -> float:
        """Seconds since the epoch, UTC."""
        ...

    def sleep(self, seconds: float) -> None: ...


class Diagnostics(Protocol):
    """A backend's own part of `torpor doctor`."""

    def checks(self) -> Sequence[Check]:
        """Programs, users, permissions and kernel features that the backend needs."""
        ...

    def self_test(self, progress: Callable[[str], None]) -> Check:
        """Suspend, restore and checksum a guest of its own; the result decides which mechanism is used."""
        ...

"""A service that answers with a fixed world: every state, long names, hostile text. Nothing can be changed in it."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from torpor.domain.capacity import Host, Resources
from torpor.domain.errors import NotFound, Problem
from torpor.domain.ids import HostId, InstanceId, OperationId, WorkloadId
from torpor.domain.image import Image, ImageKind
from torpor.domain.instance import (
    AddressState,
    BackendState,
    Instance,
    Mechanism,
    SavedState,
    StateStatus,
)
from torpor.domain.operation import Operation, OperationKind, OperationStatus, Step, StepKind, StepStatus
from torpor.domain.plan import Action, Plan, Verdict
from torpor.domain.workload import Flavor, Workload, WorkloadState
from torpor.engine.service import Service
from torpor.engine.views import (
    HostView,
    InstanceView,
    NameView,
    OperationView,
    RunRequest,
    StateCheck,
    StateView,
    WorkloadView,
)
from torpor.ports import Check, Event

NOW = 1_760_000_000.0
GIB = 1024**3
LONGEST = "a" * 61
LOCAL = HostId("local")
HOSTILE = "line one\nline two \x1b[31mred\x07 [bold]markup[/bold]"
FLIPPED = Problem(
    "state-damaged", "saved state 1 of batch-0 is damaged", "a bit flipped", "bring it back from a backup"
)
NO_DISK = Problem(
    "no-room-for-state",
    "the state of crowded-0 was not written",
    "the disk is full",
    "free 2G below the state directory",
)


def instance(workload: str, index: int, count: int, **fields: object) -> Instance:
    name = workload if count == 1 else f"{workload}-{index}"
    return Instance(
        id=InstanceId(f"i-{name}"),
        workload=WorkloadId(f"w-{workload}"),
        name=name,
        index=index,
        address=f"10.91.0.{len(workload) + index}",
        mac="52:54:00:00:00:01",
        host=LOCAL,
        address_state=AddressState(str(fields.get("address_state", "verified"))),
        address_detail=str(fields.get("address_detail", "")),
    )


def saved(of: Instance) -> SavedState:
    return SavedState(of.id, 1, Mechanism.MEMORY, StateStatus.WHOLE, NOW, 312 * 1024**2, 300 * 1024**2)


def instance_view(of: Instance, running: bool) -> InstanceView:
    return InstanceView(
        instance=of,
        fqdn=f"{of.name}.torpor.internal",
        backend_state=BackendState.RUNNING if running else BackendState.ABSENT,
        pid=4711 if running else None,
        resident_bytes=GIB if running else 0,
        process_bytes=GIB + 200 * 1024**2 if running else 0,
        states=() if running else (saved(of),),
        console_log="/nowhere/console.log",
    )


def view(
    name: str,
    state: WorkloadState,
    count: int = 1,
    reason: str = "",
    waiting: str = "",
    problem: Problem | None = None,
    operation: OperationView | None = None,
    address_detail: str = "",
) -> WorkloadView:
    workload = Workload(
        id=WorkloadId(f"w-{name}"),
        name=name,
        image="debian-12",
        flavor=Flavor(2, 1536, 10240),
        count=count,
        priority=-5 if state is WorkloadState.SUSPENDED else 100,
        created_at=NOW,
        preemptible=True,
        duration=7200.0,
        state=state,
        ran_for=4000.0,
        reason=reason,
        problem=problem,
    )
    of = [
        instance(
            name, i, count, address_detail=address_detail, address_state="mismatch" if address_detail else "verified"
        )
        for i in range(count)
    ]
    running = state in (WorkloadState.ACTIVE, WorkloadState.SUSPENDING, WorkloadState.RESUMING)
    return WorkloadView(workload, tuple(instance_view(i, running) for i in of), 4000.0, waiting, operation)


def resuming(name: str) -> OperationView:
    steps = (
        Step(0, StepKind.CLAIM_COMPUTE, None, StepStatus.DONE, NOW, NOW + 0.01),
        Step(1, StepKind.RESTORE, InstanceId(f"i-{name}-0"), StepStatus.DONE, NOW, NOW + 2.2),
        Step(2, StepKind.RESTORE, InstanceId(f"i-{name}-1"), StepStatus.INTENDED, NOW + 2.2),
        Step(3, StepKind.SPEND),
        Step(4, StepKind.RUN_ON),
    )
    operation = Operation(
        OperationId("o-1"), OperationKind.RESUME, WorkloadId(f"w-{name}"), name, "there is room again", steps, NOW, 4.6
    )
    return OperationView(operation, GIB // 2, GIB)


def undone(name: str) -> OperationView:
    steps = (Step(0, StepKind.SAVE, InstanceId(f"i-{name}-0"), StepStatus.FAILED, NOW, NOW + 1, "the disk is full"),)
    operation = Operation(
        OperationId("o-0"), OperationKind.SUSPEND, WorkloadId(f"w-{name}"), name, "room for urgent", steps, NOW, 9.1,
        OperationStatus.UNDONE, NOW + 3, NO_DISK,
    )  # fmt: skip
    return OperationView(operation, 0, 0)


def world() -> list[WorkloadView]:
    return [
        view("batch", WorkloadState.SUSPENDED, 2, "made room for urgent", "urgent has the 2 vCPUs that it needs"),
        view("urgent", WorkloadState.ACTIVE, address_detail="eth0 has 192.168.1.7; set a static address in the guest"),
        view(LONGEST, WorkloadState.RESUMING, 2, operation=resuming(LONGEST)),
        view("crowded", WorkloadState.FAILED, 2, problem=NO_DISK),
        view("queued", WorkloadState.PENDING, waiting="no host has 2 vCPUs and 1664M free; urgent is to end in 1h 20m"),
        view("hostile", WorkloadState.ACTIVE, reason=HOSTILE),
        view("ended", WorkloadState.DONE, reason="its command finished (exit code 0)"),
    ]


class CannedService(Service):
    """Reads only."""

    def __init__(self) -> None:
        self._world = world()

    def workloads(self) -> Sequence[WorkloadView]:
        return self._world

    def workload(self, name: str) -> WorkloadView:
        for each in self._world:
            if each.workload.name == name:
                return each
        raise NotFound(f"there is no workload {name[:80]!r}", remedy="see `torpor ps -a`")

    def plan(self, request: RunRequest) -> Plan:
        actions = (
            Action(
                OperationKind.SUSPEND,
                WorkloadId("w-batch"),
                "batch",
                "priority -5, preemptible, frees 4 vCPUs, 3G",
                4.25,
            ),
            Action(OperationKind.RUN, WorkloadId("w-new"), request.name, "fits then", 8.0, {InstanceId("i-1"): LOCAL}),
        )
        return Plan(WorkloadId("w-new"), request.name, Verdict.READY, "one workload has to make room", actions)

    def queue(self) -> Sequence[Plan]:
        return [
            self.plan(RunRequest("arriving", "debian-12", Flavor(1, 512))),
            Plan(WorkloadId("w-q"), "queued", Verdict.WAIT, "no host has 2 vCPUs free", retry_at=NOW + 60),
            Plan(WorkloadId("w-g"), "giant", Verdict.REFUSED, "no host is large enough for 640 vCPUs"),
        ]

    def operations(self, limit: int) -> Sequence[OperationView]:
        return [resuming(LONGEST), undone("crowded")][:limit]

    def hosts(self) -> Sequence[HostView]:
        total = Resources(64, 262_144, 2_000_000)
        return [HostView(Host(LOCAL, total, Resources(12, 18_432, 200_000)), 9 * GIB, 5, 624 * 1024**2)]

    def states(self, workload: str | None = None) -> Sequence[StateView]:
        return [
            StateView(w.workload.name, i.instance.name, state, mapped=False)
            for w in (self._world if workload is None else [self.workload(workload)])
            for i in w.instances
            for state in i.states
        ]

    def verify_states(self, workload: str | None, report: Callable[[StateCheck], None]) -> Sequence[StateCheck]:
        checks = [StateCheck(s.workload, s.instance, s.state.generation, done=True) for s in self.states(workload)]
        report(checks[0])
        return [replace(checks[0], problem=FLIPPED), replace(checks[1], problem=FLIPPED), *checks[2:]]

    def names(self) -> Sequence[NameView]:
        return [
            NameView(
                name=i.instance.name,
                fqdn=i.fqdn,
                address=i.instance.address,
                mac=i.instance.mac,
                workload=w.workload.name,
                workload_state=w.workload.state,
                address_state=i.instance.address_state,
                address_detail=i.instance.address_detail,
                published=w.workload.name != "crowded",
            )
            for w in self._world
            for i in w.instances
        ]

    def events(self, limit: int, subject: str | None = None) -> Sequence[Event]:
        all_of_them = [
            Event(NOW, "workload-accepted", "batch", "2 x debian-12."),
            Event(NOW + 1, "plan", "urgent", "one workload has to make room: suspend batch, then run urgent (12.2 s)."),
            Event(NOW + 2, "workload-failed", "hostile", HOSTILE),
        ]
        return [event for event in all_of_them if subject in (None, event.subject)][-limit:]

    def images(self) -> Sequence[Image]:
        return [
            Image("debian-12", ImageKind.DISK, "qcow2", 600 * 1024**2, 10 * GIB, "0" * 64, NOW),
            Image("tiny", ImageKind.KERNEL, "bzImage", 12 * 1024**2, 0, "1" * 64, NOW),
        ]

    def checks(self) -> Sequence[Check]:
        return [
            Check("qemu", True, "qemu-system-x86_64 7.2.0, TCG"),
            Check("dnsmasq", False, "there is no program dnsmasq", "apt install dnsmasq-base"),
        ]

    def self_test(self, progress: Callable[[str], None]) -> Check:
        progress("booting a guest of 64M")
        return Check("self-test", True, "suspended in 0.4 s, restored in 0.3 s, checksums equal")

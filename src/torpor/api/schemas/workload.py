"""Workloads: what is asked for, and where they stand."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from torpor.api.schemas.instance import InstanceSchema
from torpor.api.schemas.operation import OperationSchema
from torpor.api.schemas.plan import PlanSchema
from torpor.api.schemas.problem import ProblemSchema
from torpor.domain.workload import Flavor, ServerOptions, WorkloadState
from torpor.engine.views import Accepted, RunRequest, WorkloadView

Count = Annotated[int, Field(ge=1, le=1_000_000)]
Priority = Annotated[int, Field(ge=-1_000_000, le=1_000_000)]
Named = Annotated[str, Field(max_length=255)]
Mebibytes = Annotated[int, Field(ge=1, le=2**40)]


class ServerOptionsSchema(BaseModel):
    """As `openstack server create` has them, for the openstack backend; what is empty is left to the configuration."""

    model_config = ConfigDict(extra="forbid", strict=True)

    project: Named = ""
    flavor: Named = ""
    networks: Annotated[list[Named], Field(max_length=32)] = []
    """The first one's address is the instance's."""
    key_name: Named = ""
    security_groups: Annotated[list[Named], Field(max_length=32)] = []

    def options(self) -> ServerOptions:
        return ServerOptions(
            self.project, self.flavor, tuple(self.networks), self.key_name, tuple(self.security_groups)
        )

    @classmethod
    def of(cls, options: ServerOptions) -> "ServerOptionsSchema":
        return cls(
            project=options.project,
            flavor=options.flavor,
            networks=list(options.networks),
            key_name=options.key_name,
            security_groups=list(options.security_groups),
        )


class RunBody(BaseModel):
    """What `POST /v1/workloads` takes."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: Annotated[str, Field(max_length=1000)]
    image: Annotated[str, Field(min_length=1, max_length=255)]
    vcpus: Count = 1
    memory_mb: Mebibytes
    disk_mb: Annotated[int, Field(ge=0, le=2**40)] = 0
    """0: as large as the image."""
    count: Count = 1
    priority: Priority = 0
    preemptible: bool = False
    protect: bool = False
    duration_seconds: Annotated[float, Field(gt=0, le=1e10, allow_inf_nan=False)] | None = None
    command: Annotated[str, Field(min_length=1, max_length=65536)] | None = None
    user_data: Annotated[str, Field(max_length=1024 * 1024)] | None = None
    keep_address: bool = False
    """Each instance gets the address and the MAC that the last one of its hostname had, if there was one."""
    options: ServerOptionsSchema = ServerOptionsSchema()

    def request(self) -> RunRequest:
        return RunRequest(
            name=self.name,
            image=self.image,
            flavor=Flavor(self.vcpus, self.memory_mb, self.disk_mb),
            count=self.count,
            priority=self.priority,
            preemptible=self.preemptible,
            protect=self.protect,
            duration=self.duration_seconds,
            command=self.command,
            user_data=self.user_data,
            keep_address=self.keep_address,
            options=self.options.options(),
        )


class FlavorSchema(BaseModel):
    vcpus: int
    memory_mb: int
    disk_mb: int


class WorkloadSchema(BaseModel):
    id: str
    name: str
    state: WorkloadState
    image: str
    flavor: FlavorSchema
    count: int
    priority: int
    preemptible: bool
    protect: bool
    adopted: bool
    """Its VMs were made by others."""
    duration_seconds: float | None
    command: str | None
    options: ServerOptionsSchema
    created_at: float
    running_since: float | None
    ran_seconds: float
    held: bool
    """Suspended by hand: it comes back only by hand."""
    reason: str
    waiting_for: str
    """Why it does not run yet (again); empty when it is not waiting."""
    attempts: int
    problem: ProblemSchema | None
    operation: OperationSchema | None
    """What is being done to it right now."""
    instances: list[InstanceSchema]

    @classmethod
    def of(cls, view: WorkloadView) -> "WorkloadSchema":
        workload, flavor = view.workload, view.workload.flavor
        return cls(
            id=workload.id,
            name=workload.name,
            state=workload.state,
            image=workload.image,
            flavor=FlavorSchema(vcpus=flavor.vcpus, memory_mb=flavor.memory_mb, disk_mb=flavor.disk_mb),
            count=workload.count,
            priority=workload.priority,
            preemptible=workload.preemptible,
            protect=workload.protect,
            adopted=workload.adopted,
            duration_seconds=workload.duration,
            command=workload.command,
            options=ServerOptionsSchema.of(workload.options),
            created_at=workload.created_at,
            running_since=workload.running_since,
            ran_seconds=view.ran_seconds,
            held=workload.held,
            reason=workload.reason,
            waiting_for=view.waiting_for,
            attempts=workload.attempts,
            problem=ProblemSchema.maybe(workload.problem),
            operation=OperationSchema.of(view.operation) if view.operation else None,
            instances=[InstanceSchema.of(instance) for instance in view.instances],
        )


class WorkloadsSchema(BaseModel):
    workloads: list[WorkloadSchema]
    """Oldest first."""


class OutcomeSchema(BaseModel):
    """Answer to run, suspend and resume. A dry run has no workload, what is already under way no plan."""

    workload: WorkloadSchema | None = None
    plan: PlanSchema | None = None

    @classmethod
    def accepted(cls, accepted: Accepted) -> "OutcomeSchema":
        return cls(workload=WorkloadSchema.of(accepted.workload), plan=PlanSchema.of(accepted.plan))


class DeletedSchema(BaseModel):
    """Answer to delete: the deletion has begun; the workload answers 404 once it is gone."""

    deleting: str

"""Snapshots of workloads, and what a clone of one is asked for with."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from torpor.api.schemas.workload import Priority
from torpor.domain.instance import Mechanism
from torpor.engine.views import CloneRequest, InstanceSnapshot, SnapshotView

Name = Annotated[str, Field(max_length=1000)]


class SnapshotBody(BaseModel):
    """What `POST /v1/workloads/{workload}/snapshots` takes."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: Name


class CloneBody(BaseModel):
    """What `POST /v1/workloads/{workload}/snapshots/{name}/clone` takes."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: Name
    """Of the new workload."""
    priority: Priority | None = None
    """Null: as that of the workload that it is a clone of."""
    preemptible: bool = False
    protect: bool = False
    duration_seconds: Annotated[float, Field(gt=0, le=1e10, allow_inf_nan=False)] | None = None

    def request(self, workload: str, snapshot: str) -> CloneRequest:
        return CloneRequest(
            name=self.name,
            workload=workload,
            snapshot=snapshot,
            priority=self.priority,
            preemptible=self.preemptible,
            protect=self.protect,
            duration=self.duration_seconds,
        )


class InstanceSnapshotSchema(BaseModel):
    instance: str
    """Its name."""
    mechanism: Mechanism
    created_at: float
    pause_seconds: float
    """How long the VM stood still for it."""
    stored_bytes: int
    memory_bytes: int

    @classmethod
    def of(cls, part: InstanceSnapshot) -> "InstanceSnapshotSchema":
        snapshot = part.snapshot
        return cls(
            instance=part.instance,
            mechanism=snapshot.mechanism,
            created_at=snapshot.created_at,
            pause_seconds=snapshot.pause_seconds,
            stored_bytes=snapshot.stored_bytes,
            memory_bytes=snapshot.memory_bytes,
        )


class SnapshotSchema(BaseModel):
    workload: str
    name: str
    created_at: float
    """When the first of its VMs stood still for it."""
    skew_seconds: float
    """Between the first and the last."""
    pause_seconds: float
    """The longest that one of them stood still."""
    stored_bytes: int
    """Room that is held for it: memory, and the disk's contents of its instant."""
    memory_bytes: int
    instances: list[InstanceSnapshotSchema]

    @classmethod
    def of(cls, view: SnapshotView) -> "SnapshotSchema":
        return cls(
            workload=view.workload,
            name=view.name,
            created_at=view.created_at,
            skew_seconds=view.skew_seconds,
            pause_seconds=view.pause_seconds,
            stored_bytes=view.stored_bytes,
            memory_bytes=view.memory_bytes,
            instances=[InstanceSnapshotSchema.of(part) for part in view.parts],
        )


class SnapshotsSchema(BaseModel):
    snapshots: list[SnapshotSchema]
    """By workload, oldest first."""

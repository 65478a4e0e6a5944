"""VMs of others: which there are, and taking them in."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from torpor.api.schemas.workload import FlavorSchema, Priority
from torpor.domain.adoption import Mark, Stranger
from torpor.domain.instance import BackendState


class AdoptBody(BaseModel):
    """What `POST /v1/adopted` takes."""

    model_config = ConfigDict(extra="forbid", strict=True)

    workload: Annotated[str, Field(max_length=1000)]
    vms: Annotated[list[Annotated[str, Field(min_length=1, max_length=1000)]], Field(min_length=1, max_length=1000)]
    """By name or by UUID."""
    priority: Priority = 0
    preemptible: bool = False
    protect: bool = False

    def mark(self) -> Mark:
        return Mark(self.workload, self.priority, self.preemptible, self.protect)


class StrangerSchema(BaseModel):
    id: str
    name: str
    state: BackendState
    flavor: FlavorSchema
    mac: str
    workload: str
    """Of its mark; empty where it has none that is understood."""
    unfit: str
    """Why it could not be suspended, whatever its mark says; empty where it could."""
    defect: str
    """Why its mark is not understood."""

    @classmethod
    def of(cls, stranger: Stranger) -> "StrangerSchema":
        flavor = stranger.flavor
        return cls(
            id=stranger.id,
            name=stranger.name,
            state=stranger.state,
            flavor=FlavorSchema(vcpus=flavor.vcpus, memory_mb=flavor.memory_mb, disk_mb=flavor.disk_mb),
            mac=stranger.mac,
            workload=stranger.mark.workload if stranger.mark else "",
            unfit=stranger.unfit,
            defect=stranger.defect,
        )


class StrangersSchema(BaseModel):
    vms: list[StrangerSchema]
    """By name."""


class ReleasedSchema(BaseModel):
    """Answer to release: the workload is out of the records, its VMs are as they were."""

    released: str

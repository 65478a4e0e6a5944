"""Hosts and what is held of them."""

from pydantic import BaseModel

from torpor.domain.capacity import Resources
from torpor.engine.views import HostView


class ResourcesSchema(BaseModel):
    vcpus: int
    memory_mb: int
    disk_mb: int

    @classmethod
    def of(cls, resources: Resources) -> "ResourcesSchema":
        return cls(vcpus=resources.vcpus, memory_mb=resources.memory_mb, disk_mb=resources.disk_mb)


class HostSchema(BaseModel):
    id: str
    total: ResourcesSchema
    used: ResourcesSchema
    free: ResourcesSchema
    instances: int
    """Instances with a process."""
    process_bytes: int
    """Memory of all hypervisor processes of ours on it, page cache not counted."""
    state_bytes: int
    """Saved states on its disk."""
    states_limit_mb: int | None
    """The most that saved states may claim of its disk; null: no limit of their own."""

    @classmethod
    def of(cls, view: HostView) -> "HostSchema":
        return cls(
            id=view.host.id,
            total=ResourcesSchema.of(view.host.total),
            used=ResourcesSchema.of(view.host.used),
            free=ResourcesSchema.of(view.host.free),
            instances=view.instances,
            process_bytes=view.process_bytes,
            state_bytes=view.state_bytes,
            states_limit_mb=view.states_limit_mb,
        )


class HostsSchema(BaseModel):
    hosts: list[HostSchema]

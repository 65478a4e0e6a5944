"""What an act is about: an operation's workload and instances, and what a hypervisor has to know of them."""

from dataclasses import dataclass

from torpor.domain.errors import BackendFailed
from torpor.domain.ids import HostId, InstanceId
from torpor.domain.instance import Instance, InstanceSpec
from torpor.domain.operation import Operation
from torpor.domain.workload import Workload
from torpor.engine.parts import Settings
from torpor.ports import Progress


@dataclass(frozen=True, slots=True)
class Done:
    """What an act has to tell for the record."""

    detail: str = ""
    skew: float | None = None
    """Seconds between the first and the last instance, where it should have been one instant."""


@dataclass(frozen=True, slots=True)
class Scene:
    """The operation's workload and instances as the records have them now."""

    operation: Operation
    workload: Workload
    instances: tuple[Instance, ...]
    progress: Progress

    @property
    def ids(self) -> tuple[InstanceId, ...]:
        return tuple(i.id for i in self.instances)

    def host(self, instance: Instance) -> HostId:
        if instance.host is None:
            raise BackendFailed(
                f"instance {instance.name} was never placed on a host", remedy="delete it and run it anew"
            )
        return instance.host


def spec_of(settings: Settings, workload: Workload, instance: Instance) -> InstanceSpec:
    """All that the hypervisor needs to know of the instance."""
    return InstanceSpec(
        id=instance.id,
        name=instance.name,
        image=workload.image,
        flavor=workload.flavor,
        mac=instance.mac,
        network=settings.network(instance.address),
        user_data=workload.user_data,
        meta=(("workload", workload.name), ("index", str(instance.index))),
        ssh_keys=settings.ssh_keys,
        host=instance.host,
        options=workload.options,
    )

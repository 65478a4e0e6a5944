"""What must hold before somebody's VMs are put to sleep."""

from collections.abc import Mapping

from torpor.domain.capacity import ClaimKind
from torpor.domain.ids import HostId, InstanceId
from torpor.domain.plan import Gang, World, state_room_mb
from torpor.domain.workload import Workload, WorkloadState

MIB = 1024 * 1024


def may_sleep(workload: Workload) -> bool:
    """Whether it could be somebody's victim."""
    return workload.state is WorkloadState.ACTIVE and workload.preemptible and not workload.protect


def outranks(workload: Workload, victim: Workload) -> bool:
    """Whether `victim` may be put to sleep for `workload`: only strictly lower priority may."""
    return victim.priority < workload.priority


def ripe_at(world: World, victim: Workload) -> float:
    """When it has run long enough, since it last began to run, to be a victim."""
    since = victim.created_at if victim.running_since is None else victim.running_since
    return since + world.policy.min_run_seconds


def state_room(gang: Gang, held_mb: Mapping[InstanceId, int]) -> dict[HostId, int]:
    """MiB of disk, by host, that a suspension of the gang claims on top of `held_mb`, its claims for states.

    A state of all of the guest's memory has to find room beside the newest one, which stays
    until the new one is whole. Instances without a host have no state.
    """
    fresh = state_room_mb(gang.workload.flavor)
    room: dict[HostId, int] = {}
    for instance in gang.instances:
        if instance.host is not None:
            stored = -(-gang.state_bytes.get(instance.id, 0) // MIB)
            more = fresh + max(0, stored - held_mb.get(instance.id, 0))
            room[instance.host] = room.get(instance.host, 0) + more
    return room


def over_limit(names: str, host: HostId, wanted_mb: int, left_mb: int) -> str:
    """That the limit for states is what lacks, in words."""
    return (
        f"no room for saved state: {names} needs {wanted_mb} MiB on host {host}, where the limit for saved states "
        f"(states_mb) leaves {max(0, left_mb)} MiB"
    )


def held_for_states(world: World) -> dict[InstanceId, int]:
    """MiB of disk that each instance has claimed for its states."""
    return {c.consumer: c.resources.disk_mb for c in world.claims if c.kind is ClaimKind.STATE}


def left_for_states(world: World) -> dict[HostId, int]:
    """MiB that states may still claim, by host, where there is a limit to that; below 0 where it was lowered since."""
    limit = world.policy.states_mb
    if limit is None:
        return {}
    left = dict.fromkeys((host.id for host in world.hosts), limit)
    for claim in world.claims:
        if claim.kind is ClaimKind.STATE and claim.host in left:
            left[claim.host] -= claim.resources.disk_mb
    return left


def lacking_room(world: World, gang: Gang) -> str:
    """Why the gang's state has no room on some host's disk; empty when it has."""
    free = {host.id: host.free.disk_mb for host in world.hosts}
    left = left_for_states(world)
    for host, wanted in sorted(state_room(gang, held_for_states(world)).items()):
        if wanted > left.get(host, wanted):
            return over_limit(gang.workload.name, host, wanted, left[host])
        if wanted > 0 and wanted > free.get(host, 0):
            return (
                f"no room for saved state: {gang.workload.name} needs {wanted} MiB of disk on host {host}, "
                f"which has {max(0, free.get(host, 0))} MiB free"
            )
    return ""

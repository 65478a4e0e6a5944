"""Which host each instance of a workload goes to."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torpor.domain.capacity import Claim, ClaimKind, Resources
from torpor.domain.ids import HostId, InstanceId
from torpor.domain.plan import Gang, World, state_room_mb
from torpor.domain.workload import WorkloadState

Room = Mapping[HostId, Resources]
"""What is free, by host."""


@dataclass(frozen=True, slots=True)
class Need:
    """What an instance takes of a host on top of the claims that it has there."""

    instance: InstanceId
    host: HostId | None
    """Where it must go: where its disk is. None: anywhere."""
    resources: Resources


def free_room(world: World) -> dict[HostId, Resources]:
    """What the books have free, hosts in the order of their ids."""
    return {host.id: host.free for host in sorted(world.hosts, key=lambda host: host.id)}


def total_room(world: World) -> dict[HostId, Resources]:
    """What the hosts have in all, in the order of their ids."""
    return {host.id: host.total for host in sorted(world.hosts, key=lambda host: host.id)}


def claims_of(world: World, gang: Gang, kind: ClaimKind) -> dict[InstanceId, Claim]:
    """The gang's claims of one kind."""
    members = {instance.id for instance in gang.instances}
    return {claim.consumer: claim for claim in world.claims if claim.kind is kind and claim.consumer in members}


def whole_needs(world: World, gang: Gang) -> tuple[Need, ...]:
    """What the gang takes in all when it starts, whatever claims it has already."""
    compute = gang.workload.compute_claim(world.policy.overhead_mb)
    first_boot = gang.workload.state is WorkloadState.PENDING
    size = compute + Resources(disk_mb=gang.workload.flavor.disk_mb if first_boot else 0)
    if first_boot and gang.workload.origin is not None:
        size += Resources(disk_mb=state_room_mb(gang.workload.flavor))
    return tuple(Need(instance.id, instance.host, size) for instance in gang.instances)


def needs(world: World, gang: Gang) -> tuple[Need, ...]:
    """What the gang takes of the hosts when it starts, claims that it has already left out."""
    held = [claims_of(world, gang, kind) for kind in (ClaimKind.COMPUTE, ClaimKind.DISK)]
    result = []
    for need in whole_needs(world, gang):
        rest = need.resources
        for claim in (claims[need.instance] for claims in held if need.instance in claims):
            if claim.host == need.host:
                rest = _less(rest, claim.resources)
        result.append(Need(need.instance, need.host, rest))
    return tuple(result)


def place(wanted: Sequence[Need], room: Room) -> dict[InstanceId, HostId] | None:
    """A host for every instance, or None where they don't fit all together.

    First fit decreasing over the hosts in the order of `room`. The instances of one
    workload are of one size, so nothing that fits in some other way is missed.
    """
    left = dict(room)
    placed: dict[InstanceId, HostId] = {}
    loose = sorted((need for need in wanted if need.host is None), key=_size, reverse=True)
    for need in (need for need in wanted if need.host is not None):
        if need.host not in left or not fits(need.resources, left[need.host]):
            return None
        left[need.host] -= need.resources
        placed[need.instance] = need.host
    for need in loose:
        host = next((host for host, free in left.items() if fits(need.resources, free)), None)
        if host is None:
            return None
        left[host] -= need.resources
        placed[need.instance] = host
    return placed


def fits(wanted: Resources, free: Resources) -> bool:
    """As `Resources.fits_in`, but what is not wanted may be overdrawn already."""
    return (
        (wanted.vcpus <= 0 or wanted.vcpus <= free.vcpus)
        and (wanted.memory_mb <= 0 or wanted.memory_mb <= free.memory_mb)
        and (wanted.disk_mb <= 0 or wanted.disk_mb <= free.disk_mb)
    )


def _size(need: Need) -> tuple[int, int, int]:
    return (need.resources.memory_mb, need.resources.vcpus, need.resources.disk_mb)


def _less(wanted: Resources, held: Resources) -> Resources:
    rest = wanted - held
    return Resources(max(0, rest.vcpus), max(0, rest.memory_mb), max(0, rest.disk_mb))

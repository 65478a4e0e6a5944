"""How long an action will take, and what the world is like after it."""

import math
from collections.abc import Mapping
from dataclasses import replace

from torpor.domain.capacity import Claim, ClaimKind, Host, Resources
from torpor.domain.ids import HostId, InstanceId
from torpor.domain.operation import OperationKind
from torpor.domain.placement import claims_of
from torpor.domain.plan import Action, Gang, World, stored_mb
from torpor.domain.safety import MIB
from torpor.domain.timing import TimingModel, prior
from torpor.domain.workload import WorkloadState

PRIORS: Mapping[OperationKind, TimingModel] = {
    OperationKind.SUSPEND: prior(fixed=0.3, bytes_per_second=1.0e9),
    OperationKind.RESUME: prior(fixed=0.8, bytes_per_second=0.9e9),
    OperationKind.RUN: prior(fixed=1.0, bytes_per_second=math.inf),
    OperationKind.SNAPSHOT: prior(fixed=0.5, bytes_per_second=0.5e9),
    OperationKind.CLONE: prior(fixed=2.0, bytes_per_second=0.4e9),
}
"""What is taken for true of one instance until it was measured on the host."""


def predict(world: World, kind: OperationKind, host: HostId | None, num_bytes: int) -> float:
    """Seconds that one instance takes on that host to run, suspend or resume; `num_bytes` has to be written or read."""
    model = world.timings.get((host, kind)) if host is not None else None
    return (model or PRIORS[kind]).predict(num_bytes)


def suspend_seconds(world: World, gang: Gang) -> float:
    """Seconds to save the gang, one instance after another."""
    return sum(
        predict(world, OperationKind.SUSPEND, i.host, gang.to_write.get(i.id, _memory(gang, i.id)))
        for i in gang.instances
    )


def resume_seconds(world: World, gang: Gang) -> float:
    """Seconds to restore the gang from its saved states, or from those that it would be given now."""
    return sum(
        predict(
            world,
            OperationKind.RESUME,
            instance.host,
            _memory(gang, instance.id)
            if gang.workload.occupies
            else gang.state_bytes.get(instance.id, _memory(gang, instance.id)),
        )
        for instance in gang.instances
    )


def run_seconds(world: World, placement: Mapping[InstanceId, HostId]) -> float:
    """Seconds to boot instances, one after another."""
    return sum(predict(world, OperationKind.RUN, host, 0) for host in placement.values())


def snapshot_seconds(world: World, gang: Gang) -> float:
    """Seconds until a snapshot of the gang is durable; it runs on all the while."""
    return sum(
        predict(world, OperationKind.SNAPSHOT, instance.host, _memory(gang, instance.id)) for instance in gang.instances
    )


def clone_seconds(world: World, gang: Gang, placement: Mapping[InstanceId, HostId]) -> float:
    """Seconds to let a clone go on from its snapshot, one instance after another."""
    return sum(
        predict(world, OperationKind.CLONE, host, gang.state_bytes.get(id, _memory(gang, id)))
        for id, host in placement.items()
    )


def after(world: World, action: Action) -> World:
    """The world in which `action` has succeeded in no time."""
    gang = next(gang for gang in world.gangs if gang.workload.id == action.workload)
    if action.kind is OperationKind.SUSPEND:
        claims = _asleep(world, gang)
        changed = replace(
            gang,
            workload=replace(gang.workload, state=WorkloadState.SUSPENDED, running_since=None),
            state_bytes={instance.id: _memory(gang, instance.id) for instance in gang.instances},
            resident_bytes={},
            to_write={},
            whole_state=True,
        )
    else:
        claims, changed = _awake(world, gang, action.placement)
    gangs = tuple(changed if other is gang else other for other in world.gangs)
    return replace(world, claims=claims, gangs=gangs, hosts=_rebooked(world, claims))


def _memory(gang: Gang, instance: InstanceId) -> int:
    """Guest memory in bytes: what was seen, else all that the guest has."""
    return gang.resident_bytes.get(instance, gang.workload.flavor.memory_mb * MIB)


def _asleep(world: World, gang: Gang) -> tuple[Claim, ...]:
    members = {instance.id for instance in gang.instances}
    kept = (c for c in world.claims if c.consumer not in members or c.kind not in (ClaimKind.COMPUTE, ClaimKind.STATE))
    states = (
        Claim(i.id, ClaimKind.STATE, i.host, Resources(disk_mb=stored_mb(_memory(gang, i.id) // MIB)))
        for i in gang.instances
        if i.host is not None
    )
    return (*kept, *states)


def _awake(world: World, gang: Gang, placement: Mapping[InstanceId, HostId]) -> tuple[tuple[Claim, ...], Gang]:
    disks = claims_of(world, gang, ClaimKind.DISK)
    instances = tuple(replace(i, host=placement.get(i.id, i.host)) for i in gang.instances)
    members = {instance.id for instance in instances}
    claims = [c for c in world.claims if c.consumer not in members or c.kind is not ClaimKind.COMPUTE]
    for instance in instances:
        if instance.host is None:
            continue
        compute = gang.workload.compute_claim(world.policy.overhead_mb)
        claims.append(Claim(instance.id, ClaimKind.COMPUTE, instance.host, compute))
        if instance.id not in disks:
            disk = Resources(disk_mb=gang.workload.flavor.disk_mb)
            claims.append(Claim(instance.id, ClaimKind.DISK, instance.host, disk))
    workload = replace(gang.workload, state=WorkloadState.ACTIVE, running_since=world.now)
    resident = {i.id: gang.state_bytes[i.id] for i in instances if i.id in gang.state_bytes}
    return tuple(claims), replace(gang, workload=workload, instances=instances, resident_bytes=resident)


def _rebooked(world: World, claims: tuple[Claim, ...]) -> tuple[Host, ...]:
    """The hosts with `used` changed by as much as the claims on them changed."""
    return tuple(
        replace(host, used=host.used - _claimed(world.claims, host.id) + _claimed(claims, host.id))
        for host in world.hosts
    )


def _claimed(claims: tuple[Claim, ...], host: HostId) -> Resources:
    return sum((claim.resources for claim in claims if claim.host == host), Resources())

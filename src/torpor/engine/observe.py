"""The world as it is now, for those who decide."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from torpor.domain.capacity import ClaimKind, Resources
from torpor.domain.ids import HostId, InstanceId, WorkloadId
from torpor.domain.instance import Instance, Observation, StateStatus
from torpor.domain.operation import OperationKind
from torpor.domain.plan import Gang, World
from torpor.domain.timing import TimingModel
from torpor.domain.workload import Workload, WorkloadState
from torpor.engine.parts import Parts, Settings

_TIMED = (
    OperationKind.RUN, OperationKind.SUSPEND, OperationKind.RESUME, OperationKind.SNAPSHOT, OperationKind.CLONE
)  # fmt: skip


def observe(parts: Parts, settings: Settings) -> World:
    """A snapshot of everything that a decision may depend on."""
    hosts = tuple(parts.ledger.hosts())
    return World(
        now=parts.clock.now(),
        hosts=hosts,
        claims=tuple(parts.ledger.claims()),
        gangs=tuple(_with_states(parts, g) for g in gangs(parts, parts.hypervisor.observe())),
        policy=settings.policy,
        timings=_timings(parts, [h.id for h in hosts]),
    )


def without_compute(world: World, leaving: Collection[InstanceId]) -> World:
    """The world once these hold no vCPUs and no memory."""
    left = [c for c in world.claims if c.kind is ClaimKind.COMPUTE and c.consumer in leaving]
    freed = {h.id: sum((c.resources for c in left if c.host == h.id), Resources()) for h in world.hosts}
    return replace(
        world,
        hosts=tuple(replace(h, used=h.used - freed[h.id]) for h in world.hosts),
        claims=tuple(c for c in world.claims if c not in left),
    )


def gangs(parts: Parts, seen: Mapping[InstanceId, Observation]) -> tuple[Gang, ...]:
    """Every workload with its instances and what was seen of them; saved states are not looked at."""
    instances: dict[WorkloadId, list[Instance]] = {}
    for instance in parts.inventory.instances():
        instances.setdefault(instance.workload, []).append(instance)
    return tuple(_gang(w, tuple(instances.get(w.id, ())), seen) for w in parts.inventory.workloads())


def _gang(workload: Workload, instances: tuple[Instance, ...], seen: Mapping[InstanceId, Observation]) -> Gang:
    return Gang(workload, instances, {i.id: seen[i.id].resident_bytes for i in instances if i.id in seen})


def _with_states(parts: Parts, gang: Gang) -> Gang:
    if gang.workload.state is WorkloadState.PENDING and gang.workload.origin is not None:
        return replace(gang, state_bytes=snapshot_bytes(parts, gang.workload, gang.instances))
    if gang.workload.state is WorkloadState.ACTIVE:
        return replace(gang, to_write={i.id: parts.states.to_write(i.id) for i in gang.instances})
    if gang.workload.state is not WorkloadState.SUSPENDED:
        return gang
    found = {i.id: next(iter(parts.suspension.states(i.id)), None) for i in gang.instances}
    states = {i: s for i, s in found.items() if s is not None}
    return replace(
        gang,
        state_bytes={i: s.memory_bytes for i, s in states.items()},
        whole_state=len(states) == len(found) and all(s.status is StateStatus.WHOLE for s in states.values()),
    )


def snapshot_bytes(parts: Parts, workload: Workload, instances: Sequence[Instance]) -> dict[InstanceId, int]:
    """Guest memory in the snapshot that each instance of a clone is made of; an instance without one is left out."""
    origin = workload.origin
    sources = {i.index: i.id for i in parts.inventory.instances(origin.workload)} if origin else {}
    return {
        i.id: s.memory_bytes
        for i in instances
        if origin and i.index in sources
        for s in parts.snapshots.list(sources[i.index])
        if s.name == origin.snapshot
    }


def _timings(parts: Parts, hosts: list[HostId]) -> dict[tuple[HostId, OperationKind], TimingModel]:
    found = {}
    for host in hosts:
        for kind in _TIMED:
            model = parts.history.timing(host, kind)
            if model is not None:
                found[host, kind] = model
    return found

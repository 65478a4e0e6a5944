"""The world as it is now, for those who decide."""

from collections.abc import Mapping

from torpor.domain.ids import HostId, InstanceId
from torpor.domain.instance import Instance, Observation, SavedState, StateStatus
from torpor.domain.operation import OperationKind
from torpor.domain.plan import Gang, World
from torpor.domain.timing import TimingModel
from torpor.domain.workload import Workload, WorkloadState
from torpor.engine.parts import Parts, Settings

_TIMED = (OperationKind.RUN, OperationKind.SUSPEND, OperationKind.RESUME)


def observe(parts: Parts, settings: Settings, seen: Mapping[InstanceId, Observation] | None = None) -> World:
    """A snapshot. `seen` saves asking the hypervisor again."""
    if seen is None:
        seen = parts.hypervisor.observe()
    instances: dict[str, list[Instance]] = {}
    for instance in parts.inventory.instances():
        instances.setdefault(instance.workload, []).append(instance)
    hosts = tuple(parts.ledger.hosts())
    return World(
        now=parts.clock.now(),
        hosts=hosts,
        claims=tuple(parts.ledger.claims()),
        gangs=tuple(gang(parts, w, tuple(instances.get(w.id, ())), seen) for w in parts.inventory.workloads()),
        policy=settings.policy,
        timings=_timings(parts, [h.id for h in hosts]),
    )


def gang(
    parts: Parts, workload: Workload, instances: tuple[Instance, ...], seen: Mapping[InstanceId, Observation]
) -> Gang:
    states: dict[InstanceId, SavedState] = {}
    if workload.state is WorkloadState.SUSPENDED:
        for instance in instances:
            newest = next(iter(parts.suspension.states(instance.id)), None)
            if newest is not None:
                states[instance.id] = newest
    return Gang(
        workload=workload,
        instances=instances,
        resident_bytes={i.id: seen[i.id].resident_bytes for i in instances if i.id in seen},
        state_bytes={i: s.memory_bytes for i, s in states.items()},
        whole_state=len(states) == len(instances) and all(s.status is StateStatus.WHOLE for s in states.values()),
    )


def _timings(parts: Parts, hosts: list[HostId]) -> dict[tuple[HostId, OperationKind], TimingModel]:
    found = {}
    for host in hosts:
        for kind in _TIMED:
            model = parts.history.timing(host, kind)
            if model is not None:
                found[host, kind] = model
    return found

"""Small worlds for tests of decisions: workloads at rest on hosts, with books that agree with them."""

import random
from collections.abc import Sequence

from torpor.domain.capacity import Claim, ClaimKind, Host, Resources
from torpor.domain.ids import HostId, InstanceId, WorkloadId
from torpor.domain.instance import Instance
from torpor.domain.plan import Gang, Policy, World
from torpor.domain.workload import Flavor, Workload, WorkloadState

NOW = 1_000_000.0
MIB = 1024 * 1024
LOCAL = HostId("local")


def gang(
    name: str,
    *,
    state: WorkloadState = WorkloadState.ACTIVE,
    cpus: int = 1,
    memory: int = 512,
    disk: int = 0,
    priority: int = 10,
    preemptible: bool = True,
    protect: bool = False,
    held: bool = False,
    ran: float = 1000.0,
    age: float = 5000.0,
    duration: float | None = None,
    on: Sequence[str] = ("local",),
    resident_mb: int | None = None,
) -> Gang:
    """A workload with one instance for every host in `on`; a pending one has no hosts yet."""
    active, placed = state is WorkloadState.ACTIVE, state is not WorkloadState.PENDING
    workload = Workload(
        id=WorkloadId(f"w-{name}"),
        name=name,
        image="test",
        flavor=Flavor(cpus, memory, disk),
        count=len(on),
        priority=priority,
        created_at=NOW - age,
        preemptible=preemptible,
        protect=protect,
        held=held,
        state=state,
        duration=duration,
        running_since=NOW - ran if active else None,
    )
    instances = tuple(
        Instance(InstanceId(f"{name}-{i}"), workload.id, f"{name}-{i}", i, "", "", HostId(host) if placed else None)
        for i, host in enumerate(on)
    )
    size = {i.id: (memory if resident_mb is None else resident_mb) * MIB for i in instances}
    asleep = state is WorkloadState.SUSPENDED
    return Gang(workload, instances, size if active else {}, state_bytes=size if asleep else {}, whole_state=asleep)


def world(
    hosts: dict[str, Resources],
    gangs: Sequence[Gang],
    *,
    min_run: float = 30.0,
    max_victims: int = 16,
    overhead: int = 0,
) -> World:
    """The books hold what every gang has in its state. Fails where that is more than a host has."""
    policy = Policy(min_run, max_victims, overhead)
    claims = tuple(claim for g in gangs for claim in claims_of(g, overhead))
    booked = tuple(
        Host(
            HostId(id),
            total,
            sum((c.resources for c in claims if c.host == id), Resources()),
        )
        for id, total in hosts.items()
    )
    for host in booked:
        assert host.used.fits_in(host.total), f"{host} is over-committed to begin with"
    return World(NOW, booked, claims, tuple(gangs), policy)


def claims_of(g: Gang, overhead: int) -> list[Claim]:
    """What the instances of a gang hold, given its state."""
    found = []
    for instance in g.instances:
        if instance.host is None:
            continue
        found.append(Claim(instance.id, ClaimKind.DISK, instance.host, Resources(disk_mb=g.workload.flavor.disk_mb)))
        if g.workload.state is WorkloadState.ACTIVE:
            found.append(Claim(instance.id, ClaimKind.COMPUTE, instance.host, g.workload.compute_claim(overhead)))
        if instance.id in g.state_bytes:
            stored = -(-g.state_bytes[instance.id] // MIB)
            found.append(Claim(instance.id, ClaimKind.STATE, instance.host, Resources(disk_mb=stored)))
    return found


def small_world(dice: random.Random, most: int, waiting: int, most_hosts: int) -> World:
    """Up to `most` gangs at rest on hosts, as far as they fit, and one to `waiting` pending ones."""
    names = [f"h{i}" for i in range(dice.randint(1, most_hosts))]
    hosts = {
        name: Resources(dice.randint(2, 8), dice.randint(8, 20) * 256, dice.choice([512, 2048, 4096, 9000]))
        for name in names
    }
    overhead = dice.choice([0, 64])
    left = dict(hosts)
    gangs: list[Gang] = []
    for index in range(most):
        state = dice.choice([WorkloadState.ACTIVE] * 4 + [WorkloadState.SUSPENDED])
        found = _any_gang(dice, f"g{index}", state, names)
        if dice.random() < 0.9 and _put(found, left, overhead):
            gangs.append(found)
    gangs += [_any_gang(dice, f"p{i}", WorkloadState.PENDING, names) for i in range(dice.randint(1, waiting))]
    dice.shuffle(gangs)
    min_run, max_victims = dice.choice([0.0, 30.0, 30.0]), dice.choice([1, 2, 2, 4])
    return world(hosts, gangs, min_run=min_run, max_victims=max_victims, overhead=overhead)


def _any_gang(dice: random.Random, name: str, state: WorkloadState, hosts: list[str]) -> Gang:
    memory = dice.randint(1, 6) * 256
    active = state is WorkloadState.ACTIVE
    return gang(
        name,
        state=state,
        cpus=dice.choice([1, 1, 2, 3]),
        memory=memory,
        disk=dice.choice([0, 0, 100]),
        priority=dice.choice([0, 10, 10, 20] if active else [5, 10, 20, 50]),
        preemptible=dice.random() < 0.8,
        protect=dice.random() < 0.1,
        ran=dice.choice([1.0, 20.0, 40.0, 900.0, 900.0]),
        age=1000.0 + dice.randint(0, 10),
        on=[dice.choice(hosts) for _ in range(dice.randint(1, 2))],
        resident_mb=dice.choice([1, memory // 2, memory]),
    )


def _put(found: Gang, left: dict[str, Resources], overhead: int) -> bool:
    """Take what the gang holds out of what is left; False, and nothing taken, where it does not fit."""
    after = dict(left)
    for claim in claims_of(found, overhead):
        after[claim.host] -= claim.resources
    if any(min(r.vcpus, r.memory_mb, r.disk_mb) < 0 for r in after.values()):
        return False
    left.update(after)
    return True

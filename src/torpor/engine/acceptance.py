"""From a request to records: checks, names, addresses, MACs."""

import uuid
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

from torpor.domain.addressing import keep_addresses
from torpor.domain.errors import Conflict, Invalid, Refused, TorporError
from torpor.domain.ids import InstanceId, WorkloadId
from torpor.domain.instance import Instance
from torpor.domain.naming import NameRecord, instance_names
from torpor.domain.plan import Plan, Verdict
from torpor.domain.workload import Origin, Workload
from torpor.engine.parts import Parts, Settings
from torpor.engine.views import CloneRequest, RunRequest

LEAST_MEMORY_MB = 32
MOST_INSTANCES = 1000
_MIB = 1 << 20


def check(request: RunRequest) -> None:
    """Raises Invalid for what no host and no moment could make right."""
    flavor = request.flavor
    for value, least, what in (
        (request.count, 1, "count"),
        (flavor.vcpus, 1, "cpus"),
        (flavor.memory_mb, LEAST_MEMORY_MB, "memory (MiB)"),
        (flavor.disk_mb, 0, "disk (MiB)"),
    ):
        if value < least:
            raise Invalid(f"{what} is {value}, and must be {least} or more")
    if request.count > MOST_INSTANCES:
        raise Invalid(f"count is {request.count}, and may be {MOST_INSTANCES} at most")
    if request.duration is not None and request.duration <= 0:
        raise Invalid("duration must be more than 0 seconds")
    if request.command is not None and not request.command.strip():
        raise Invalid("command is empty", remedy="leave it out, or say what to run")
    if request.preemptible and request.protect:
        raise Invalid("a workload can't be both preemptible and protected", remedy="choose one")


def draft(parts: Parts, settings: Settings, request: RunRequest) -> tuple[Workload, tuple[Instance, ...]]:
    """The records that the request leads to; none is stored. Raises Invalid, NotFound, Conflict, AddressPoolEmpty."""
    check(request)
    names = instance_names(request.name, request.count)
    image = parts.images.get(request.image)
    disk_mb = max(request.flavor.disk_mb, -(-image.virtual_bytes // _MIB))
    workload = Workload(
        id=WorkloadId(str(uuid.uuid4())),
        name=request.name,
        image=request.image,
        flavor=replace(request.flavor, disk_mb=disk_mb),
        count=request.count,
        priority=request.priority,
        created_at=parts.clock.now(),
        preemptible=request.preemptible,
        protect=request.protect,
        duration=request.duration,
        command=request.command,
        user_data=request.user_data,
        options=request.options,
    )
    workload = parts.provisions.settle(workload)
    return workload, _instances(parts, workload, names, request.keep_address)


def draft_clone(
    parts: Parts, settings: Settings, request: CloneRequest, source: Workload
) -> tuple[Workload, tuple[Instance, ...]]:
    """The records of a workload that goes on from a snapshot of `source`, on the hosts where that is; none is stored.

    Raises Invalid, Conflict, AddressPoolEmpty.
    """
    if request.duration is not None and request.duration <= 0:
        raise Invalid("duration must be more than 0 seconds")
    if request.preemptible and request.protect:
        raise Invalid("a workload can't be both preemptible and protected", remedy="choose one")
    workload = Workload(
        id=WorkloadId(str(uuid.uuid4())),
        name=request.name,
        image=source.image,
        flavor=source.flavor,
        count=source.count,
        priority=source.priority if request.priority is None else request.priority,
        created_at=parts.clock.now(),
        preemptible=request.preemptible,
        protect=request.protect,
        duration=request.duration,
        command=source.command,
        user_data=source.user_data,
        origin=Origin(source.id, request.snapshot),
    )
    instances = _instances(parts, workload, instance_names(request.name, source.count))
    hosts = {i.index: i.host for i in parts.inventory.instances(source.id)}
    return workload, tuple(replace(i, host=hosts.get(i.index)) for i in instances)


def require_possible(plan: Plan) -> None:
    """Raises Refused for a workload that can't be started whatever else happens."""
    if plan.verdict is Verdict.REFUSED:
        raise Refused(
            f"workload {plan.name} was refused",
            detail=plan.reason,
            remedy="ask for less; `torpor hosts` shows what there is",
        )


def accept(parts: Parts, workload: Workload, instances: Sequence[Instance]) -> None:
    """Reserve addresses, store the records and let the names answer: all or nothing.

    Raises Conflict, BackendFailed, AddressPoolEmpty, Refused, MissingPart.
    """
    instances = parts.provisions.reserve(workload, instances)
    try:
        parts.inventory.add(workload, instances)
    except TorporError:
        with suppress(TorporError):  # what is left of them is collected one day
            parts.provisions.give_back(workload, instances)
        raise
    try:
        parts.names.publish([NameRecord(i.name, i.address) for i in instances])
    except TorporError:
        parts.inventory.remove(workload.id)
        with suppress(TorporError):
            parts.provisions.give_back(workload, instances)
        with suppress(TorporError):  # it may be as unable to withdraw; an audit at the next start does it
            parts.names.withdraw([i.name for i in instances])
        raise


def _instances(
    parts: Parts, workload: Workload, names: Sequence[str], keep_address: bool = False
) -> tuple[Instance, ...]:
    others, own = parts.inventory.instances(), set(names)
    taken = {i.name for i in others} & own
    if taken or any(w.name == workload.name for w in parts.inventory.workloads()):
        raise Conflict(
            f"the name {sorted(taken)[0] if taken else workload.name!r} is taken",
            remedy="choose another, or delete the workload that has it (see `torpor ps -a`)",
        )
    bare: Sequence[Instance] = [
        Instance(id=InstanceId(str(uuid.uuid4())), workload=workload.id, name=name, index=n, address="", mac="")
        for n, name in enumerate(names)
    ]
    last = parts.inventory.last_addresses()
    if keep_address:
        bare = keep_addresses(bare, last, others, next(iter(workload.options.networks), ""))
    spare = [before.address for name, before in last.items() if name not in own]
    return tuple(parts.provisions.propose(bare, {i.address for i in others}, spare))

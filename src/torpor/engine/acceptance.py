"""From a request to records: checks, names, addresses, MACs."""

import uuid
from dataclasses import replace

from torpor.domain.addressing import free_addresses, mac_of
from torpor.domain.errors import Conflict, Invalid
from torpor.domain.ids import InstanceId, WorkloadId
from torpor.domain.instance import Instance
from torpor.domain.naming import instance_names
from torpor.domain.workload import Workload
from torpor.engine.parts import Parts, Settings
from torpor.engine.views import RunRequest

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
    )
    others = parts.inventory.instances()
    taken = {i.name for i in others} & set(names)
    if taken or any(w.name == request.name for w in parts.inventory.workloads()):
        raise Conflict(
            f"the name {sorted(taken)[0] if taken else request.name!r} is taken",
            remedy="choose another, or delete the workload that has it (see `torpor ps -a`)",
        )
    addresses = free_addresses(settings.subnet, {i.address for i in others}, request.count)
    ids = [InstanceId(str(uuid.uuid4())) for _ in names]
    return workload, tuple(
        Instance(id=id, workload=workload.id, name=name, index=n, address=address, mac=mac_of(id))
        for n, (id, name, address) in enumerate(zip(ids, names, addresses, strict=True))
    )

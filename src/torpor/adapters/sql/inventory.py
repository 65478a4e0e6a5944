"""Workloads and their instances in SQL."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, or_, select, update

from torpor.adapters.sql import problem as problems
from torpor.adapters.sql.database import Database
from torpor.adapters.sql.schema import instances as instance_table
from torpor.adapters.sql.schema import last_addresses as last_table
from torpor.adapters.sql.schema import workloads as workload_table
from torpor.domain.addressing import LastAddress
from torpor.domain.errors import NotFound
from torpor.domain.ids import HostId, InstanceId, WorkloadId
from torpor.domain.instance import AddressState, Instance
from torpor.domain.uniqueness import check_instances_untaken, check_workload_untaken
from torpor.domain.workload import Flavor, Origin, ServerOptions, Workload, WorkloadState


class SqlInventory:
    """`ports.Inventory` on a database; of the last addresses it keeps those of the last `keep` names."""

    def __init__(self, database: Database, *, keep: int = 10_000) -> None:
        self._database = database
        self._keep = keep

    def add(self, workload: Workload, instances: Sequence[Instance]) -> None:
        with self._database.writing() as connection:
            check_workload_untaken(workload, _holders_of_name(connection, workload))
            check_instances_untaken(workload, instances, _holders(connection, instances))
            connection.execute(insert(workload_table).values(_workload_values(workload)))
            if instances:
                connection.execute(insert(instance_table), [_instance_values(i) for i in instances])

    def workloads(self) -> Sequence[Workload]:
        with self._database.reading() as connection:
            rows = connection.execute(select(workload_table).order_by(workload_table.c.number))
            return tuple(_workload(row) for row in rows)

    def workload(self, id: WorkloadId) -> Workload:
        with self._database.reading() as connection:
            return _find(connection, id)

    def instances(self, workload: WorkloadId | None = None) -> Sequence[Instance]:
        query = select(instance_table).join(workload_table, workload_table.c.id == instance_table.c.workload)
        if workload is not None:
            query = query.where(instance_table.c.workload == workload)
        with self._database.reading() as connection:
            rows = connection.execute(query.order_by(workload_table.c.number, instance_table.c.position))
            return tuple(_instance(row) for row in rows)

    def update(self, workload: Workload) -> None:
        with self._database.writing() as connection:
            _find(connection, workload.id)
            others = [w for w in _holders_of_name(connection, workload) if w.id != workload.id]
            check_workload_untaken(workload, others)
            change = update(workload_table).where(workload_table.c.id == workload.id)
            connection.execute(change.values(_workload_values(workload)))

    def update_instance(self, instance: Instance) -> None:
        with self._database.writing() as connection:
            known = connection.scalar(select(instance_table.c.id).where(instance_table.c.id == instance.id))
            if known is None:
                raise NotFound(f"there is no instance {instance.name}", detail=f"nothing is known of {instance.id}")
            owner = _find(connection, instance.workload)
            others = [(name, i) for name, i in _holders(connection, [instance]) if i.id != instance.id]
            check_instances_untaken(owner, [instance], others)
            change = update(instance_table).where(instance_table.c.id == instance.id)
            connection.execute(change.values(_instance_values(instance)))

    def remove(self, workload: WorkloadId, remember: bool = False) -> None:
        with self._database.writing() as connection:
            if remember:
                self._remember(connection, workload)
            connection.execute(delete(instance_table).where(instance_table.c.workload == workload))
            connection.execute(delete(workload_table).where(workload_table.c.id == workload))

    def last_addresses(self) -> Mapping[str, LastAddress]:
        with self._database.reading() as connection:
            rows = connection.execute(select(last_table).order_by(last_table.c.number))
            return {row.name: LastAddress(row.address, row.mac, row.network) for row in rows}

    def _remember(self, connection: Connection, workload: WorkloadId) -> None:
        columns = instance_table.c
        query = select(columns.name, columns.address, columns.mac, columns.network).where(
            columns.workload == workload, columns.address.is_not(None), columns.mac.is_not(None)
        )
        leaving = [row._asdict() for row in connection.execute(query.order_by(columns.position))]
        if not leaving:
            return
        number = last_table.c.number
        connection.execute(delete(last_table).where(last_table.c.name.in_([row["name"] for row in leaving])))
        connection.execute(insert(last_table), leaving)
        # NULL, to which no number compares, while there are no more than `keep`.
        too_old = select(number).order_by(number.desc()).offset(self._keep).limit(1).scalar_subquery()
        connection.execute(delete(last_table).where(number <= too_old))


def _find(connection: Connection, id: WorkloadId) -> Workload:
    row = connection.execute(select(workload_table).where(workload_table.c.id == id)).one_or_none()
    if row is None:
        raise NotFound(f"there is no workload {id}")
    return _workload(row)


def _holders_of_name(connection: Connection, workload: Workload) -> list[Workload]:
    query = select(workload_table).where(
        or_(workload_table.c.name == workload.name, workload_table.c.id == workload.id)
    )
    return [_workload(row) for row in connection.execute(query)]


def _holders(connection: Connection, newcomers: Sequence[Instance]) -> list[tuple[str, Instance]]:
    """Instances that share something with a newcomer, each with the name of its workload."""
    columns = instance_table.c
    query = (
        select(workload_table.c.name.label("owner"), instance_table)
        .join(workload_table, workload_table.c.id == columns.workload)
        .where(
            or_(
                columns.id.in_([i.id for i in newcomers]),
                columns.name.in_([i.name for i in newcomers]),
                columns.address.in_([i.address for i in newcomers if i.address]),
                columns.mac.in_([i.mac for i in newcomers if i.mac]),
                columns.workload.in_({i.workload for i in newcomers}),
            )
        )
    )
    return [(row.owner, _instance(row)) for row in connection.execute(query)]


def _workload(row: Row[*tuple[Any, ...]]) -> Workload:
    return Workload(
        id=WorkloadId(row.id),
        name=row.name,
        image=row.image,
        flavor=Flavor(row.vcpus, row.memory_mb, row.disk_mb),
        # `row.count` is the tuple's own method.
        count=row._mapping[workload_table.c.count],
        priority=row.priority,
        created_at=row.created_at,
        preemptible=row.preemptible,
        protect=row.protect,
        duration=row.duration,
        command=row.command,
        user_data=row.user_data,
        state=WorkloadState(row.state),
        running_since=row.running_since,
        ran_for=row.ran_for,
        held=row.held,
        reason=row.reason,
        problem=problems.from_json(row.problem),
        attempts=row.attempts,
        origin=None if row.origin_workload is None else Origin(WorkloadId(row.origin_workload), row.origin_snapshot),
        adopted=row.adopted,
        options=_options(row.options),
    )


def _workload_values(workload: Workload) -> dict[str, object]:
    return {
        "id": workload.id,
        "name": workload.name,
        "image": workload.image,
        "vcpus": workload.flavor.vcpus,
        "memory_mb": workload.flavor.memory_mb,
        "disk_mb": workload.flavor.disk_mb,
        "count": workload.count,
        "priority": workload.priority,
        "created_at": workload.created_at,
        "preemptible": workload.preemptible,
        "protect": workload.protect,
        "duration": workload.duration,
        "command": workload.command,
        "user_data": workload.user_data,
        "state": workload.state.value,
        "running_since": workload.running_since,
        "ran_for": workload.ran_for,
        "held": workload.held,
        "reason": workload.reason,
        "problem": problems.to_json(workload.problem),
        "attempts": workload.attempts,
        "origin_workload": workload.origin.workload if workload.origin else None,
        "origin_snapshot": workload.origin.snapshot if workload.origin else None,
        "adopted": workload.adopted,
        "options": {key: value for key, value in asdict(workload.options).items() if value} or None,
    }


def _options(said: Mapping[str, Any] | None) -> ServerOptions:
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in (said or {}).items()}
    return ServerOptions(**values)


def _instance(row: Row[*tuple[Any, ...]]) -> Instance:
    return Instance(
        id=InstanceId(row.id),
        workload=WorkloadId(row.workload),
        name=row.name,
        index=row.position,
        address=row.address or "",
        mac=row.mac or "",
        host=None if row.host is None else HostId(row.host),
        address_state=AddressState(row.address_state),
        address_detail=row.address_detail,
        command_pid=row.command_pid,
        exit_code=row.exit_code,
        problem=problems.from_json(row.problem),
        clock_off=row.clock_off,
        clock_detail=row.clock_detail,
        network=row.network,
    )


def _instance_values(instance: Instance) -> dict[str, object]:
    return {
        "id": instance.id,
        "workload": instance.workload,
        "name": instance.name,
        "position": instance.index,
        "address": instance.address or None,
        "mac": instance.mac or None,
        "host": instance.host,
        "address_state": instance.address_state.value,
        "address_detail": instance.address_detail,
        "command_pid": instance.command_pid,
        "exit_code": instance.exit_code,
        "problem": problems.to_json(instance.problem),
        "clock_off": instance.clock_off,
        "clock_detail": instance.clock_detail,
        "network": instance.network,
    }

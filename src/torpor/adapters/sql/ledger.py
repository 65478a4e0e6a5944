"""The books in SQL. That they are never over-committed is the database's own law; here it gets its wording."""

from collections.abc import Sequence

from sqlalchemy import Connection, Row, bindparam, delete, insert, select, update

from torpor.adapters.sql.database import Database
from torpor.adapters.sql.schema import claims as claim_table
from torpor.adapters.sql.schema import hosts as host_table
from torpor.domain.books import check_room, check_total, newest
from torpor.domain.capacity import Claim, ClaimKind, Host, Resources
from torpor.domain.ids import HostId, InstanceId

_DELETE_CLAIM = delete(claim_table).where(
    claim_table.c.consumer == bindparam("of_consumer"), claim_table.c.kind == bindparam("of_kind")
)


class SqlLedger:
    """`ports.Ledger` on a database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def hosts(self) -> Sequence[Host]:
        with self._database.reading() as connection:
            return tuple(_hosts(connection).values())

    def set_host(self, host: HostId, total: Resources) -> None:
        totals = {"total_vcpus": total.vcpus, "total_memory_mb": total.memory_mb, "total_disk_mb": total.disk_mb}
        with self._database.writing() as connection:
            known = _hosts(connection).get(host)
            check_total(host, total, known.used if known else Resources())
            if known:
                connection.execute(update(host_table).where(host_table.c.id == host).values(totals))
            else:
                connection.execute(insert(host_table).values(id=host, **totals))

    def claims(self) -> Sequence[Claim]:
        query = select(claim_table).order_by(claim_table.c.consumer, claim_table.c.kind)
        with self._database.reading() as connection:
            return tuple(_claim(row) for row in connection.execute(query))

    def claim(self, claims: Sequence[Claim], instead_of: Sequence[InstanceId] = ()) -> None:
        wanted = newest(claims)
        if not wanted and not instead_of:
            return
        with self._database.writing() as connection:
            _delete(connection, [(consumer, ClaimKind.COMPUTE) for consumer in instead_of])
            _delete(connection, [(c.consumer, c.kind) for c in wanted])
            check_room(_hosts(connection), wanted)
            if wanted:
                connection.execute(insert(claim_table), [_claim_values(c) for c in wanted])

    def release(self, consumers: Sequence[InstanceId], kinds: Sequence[ClaimKind]) -> None:
        with self._database.writing() as connection:
            _delete(connection, [(consumer, kind) for consumer in consumers for kind in kinds])


def _delete(connection: Connection, keys: Sequence[tuple[InstanceId, ClaimKind]]) -> None:
    if keys:
        connection.execute(_DELETE_CLAIM, [{"of_consumer": consumer, "of_kind": kind.value} for consumer, kind in keys])


def _hosts(connection: Connection) -> dict[HostId, Host]:
    rows = connection.execute(select(host_table).order_by(host_table.c.id))
    return {HostId(row.id): _host(row) for row in rows}


def _host(row: Row[*tuple[object, ...]]) -> Host:
    return Host(
        id=HostId(row.id),
        total=Resources(row.total_vcpus, row.total_memory_mb, row.total_disk_mb),
        used=Resources(row.used_vcpus, row.used_memory_mb, row.used_disk_mb),
    )


def _claim(row: Row[*tuple[object, ...]]) -> Claim:
    return Claim(
        consumer=InstanceId(row.consumer),
        kind=ClaimKind(row.kind),
        host=HostId(row.host),
        resources=Resources(row.vcpus, row.memory_mb, row.disk_mb),
    )


def _claim_values(claim: Claim) -> dict[str, object]:
    return {
        "consumer": claim.consumer,
        "kind": claim.kind.value,
        "host": claim.host,
        "vcpus": claim.resources.vcpus,
        "memory_mb": claim.resources.memory_mb,
        "disk_mb": claim.resources.disk_mb,
    }

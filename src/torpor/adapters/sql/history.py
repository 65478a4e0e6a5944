"""Events and timings in SQL."""

from collections.abc import Sequence

from sqlalchemy import delete, insert, select

from torpor.adapters.sql.database import Database
from torpor.adapters.sql.schema import events as event_table
from torpor.adapters.sql.schema import timings
from torpor.domain.ids import HostId
from torpor.domain.timing import TimingModel
from torpor.ports import Event


class SqlHistory:
    """`ports.History` on a database; of the events it keeps the last `keep`."""

    def __init__(self, database: Database, *, keep: int = 10_000) -> None:
        self._database = database
        self._keep = keep

    def record(self, event: Event) -> None:
        values = {"at": event.at, "kind": event.kind, "subject": event.subject, "message": event.message}
        with self._database.writing() as connection:
            number = connection.execute(insert(event_table).values(values).returning(event_table.c.number)).scalar_one()
            # Numbers have no gaps, for only the oldest are ever deleted.
            connection.execute(delete(event_table).where(event_table.c.number <= number - self._keep))

    def events(self, limit: int, subject: str | None = None) -> Sequence[Event]:
        query = select(event_table).order_by(event_table.c.number.desc()).limit(max(0, limit))
        if subject is not None:
            query = query.where(event_table.c.subject == subject)
        with self._database.reading() as connection:
            rows = connection.execute(query).all()
        return tuple(Event(row.at, row.kind, row.subject, row.message) for row in reversed(rows))

    def timing(self, host: HostId, kind: str) -> TimingModel | None:
        columns = timings.c
        query = select(
            columns.weight, columns.sum_x, columns.sum_t, columns.sum_xx, columns.sum_xt, columns["count"]
        ).where(columns.host == host, columns.kind == kind)
        with self._database.reading() as connection:
            row = connection.execute(query).one_or_none()
        return None if row is None else TimingModel(*row)

    def learn(self, host: HostId, kind: str, model: TimingModel) -> None:
        values = {
            "weight": model.weight,
            "sum_x": model.sum_x,
            "sum_t": model.sum_t,
            "sum_xx": model.sum_xx,
            "sum_xt": model.sum_xt,
            "count": model.count,
        }
        with self._database.writing() as connection:
            connection.execute(delete(timings).where(timings.c.host == host, timings.c.kind == kind))
            connection.execute(insert(timings).values(host=host, kind=kind, **values))

"""One SQLite file: connections, transactions, migrations."""

import logging
import os
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Lock

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import URL, Connection, create_engine, event, make_url
from sqlalchemy.pool import ConnectionPoolEntry

from torpor.adapters.sql.failures import damaged, translated, unusable
from torpor.domain.errors import Conflict

log = logging.getLogger(__name__)

_MIGRATIONS = "torpor.adapters.sql:migrations"
_APPLICATION_ID = int.from_bytes(b"Torp", "big")
_WRITES = "torpor_writes"
_KEPT_OPEN = 8
"""Connections; a file that is open already can be written even where the folder has become read-only."""
_RESERVE = 6 << 20
"""Bytes; more than SQLite lets its log grow to before it moves it into the file (1000 pages of 4 KiB)."""


class Database:
    """An SQLite database, durable at every commit, used by many threads at once.

    `url` is SQLAlchemy's and names a file; `busy_seconds` is how long another process's lock is waited for.
    Nothing is opened before the first call. Every method raises TorporErrors.
    """

    def __init__(self, url: str | URL, *, busy_seconds: float = 30.0) -> None:
        parsed = make_url(url)
        self.file = parsed.database or ""
        # A thread that has to wait for a connection is worse than one more connection to a file.
        self.engine = create_engine(
            parsed, pool_size=_KEPT_OPEN, max_overflow=-1, connect_args={"timeout": busy_seconds}
        )
        self._writer = self.engine.execution_options(**{_WRITES: True})
        # SQLite has one writer at a time and lets the others poll; a lock hands over at once.
        self._write_lock = Lock()
        event.listen(self.engine, "connect", _configure)
        event.listen(self.engine, "begin", _begin)

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A transaction that sees one state of the database throughout."""
        with translated(self.file), self.engine.begin() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction that may write; on disk when the block ends, undone when it raises. Never nested."""
        with translated(self.file), self._write_lock, self._writer.begin() as connection:
            yield connection

    def migrate(self) -> None:
        """Create the database, or bring it to this version's schema, in one transaction.

        Raises Conflict when a newer Torpor has written it, StateDamaged when it is no sound SQLite
        file, MissingPart when it can't be read and written.
        """
        self._create_file()
        config = Config()
        config.set_main_option("script_location", _MIGRATIONS)
        with self.writing() as connection:
            for (finding,) in connection.exec_driver_sql("PRAGMA quick_check(1)"):
                if finding != "ok":
                    raise damaged(self.file, finding)
            _refuse_newer(connection, ScriptDirectory.from_config(config), self.file)
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
            # Says whose file it is. Always written, for a file that is up to date but can't be written must show now.
            connection.exec_driver_sql(f"PRAGMA application_id = {_APPLICATION_ID}")

    def reserve(self) -> None:
        """Open what will be needed, and take room on the disk for the records to come, in the log and in the file.

        So that an operation can still be taken back, and that recorded, on a disk that has become full.
        Where there is no room even now, the records go without.
        """
        with ExitStack() as kept:
            for _ in range(_KEPT_OPEN):
                kept.enter_context(self.engine.connect())
        connection = self.engine.raw_connection()
        try:
            (free,) = connection.cursor().execute("PRAGMA freelist_count").fetchone()
            (page,) = connection.cursor().execute("PRAGMA page_size").fetchone()
            if free * page >= _RESERVE // 2 and _size(Path(f"{self.file}-wal")) >= _RESERVE:
                return
            for statement in (
                "DROP TABLE IF EXISTS reserve",
                f"CREATE TABLE reserve AS SELECT zeroblob({_RESERVE}) AS room",
                "DROP TABLE reserve",
                "PRAGMA wal_checkpoint(RESTART)",
            ):
                connection.cursor().execute(statement)
        except sqlite3.OperationalError as error:
            log.warning("no room was reserved for the records: %s", error)
        finally:
            connection.close()

    def close(self) -> None:
        """Close all connections; SQLite then moves its log into the file."""
        self.engine.dispose()

    def _create_file(self) -> None:
        """Workloads carry secrets in their user data: only the owner may read. SQLite's other files follow suit."""
        if self.file.startswith("file:"):
            return
        try:
            os.close(os.open(self.file, os.O_RDWR | os.O_CREAT, 0o600))
        except OSError as error:
            raise unusable(self.file, error.strerror or str(error)) from error


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _configure(connection: sqlite3.Connection, _: ConnectionPoolEntry) -> None:
    # Otherwise the driver begins transactions of its own, and later than it should.
    connection.isolation_level = None
    for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
        connection.execute(f"PRAGMA {pragma}")


def _begin(connection: Connection) -> None:
    # A write transaction takes its lock at once: one that began as a reader can't wait for it later.
    writes = connection.get_execution_options().get(_WRITES, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _refuse_newer(connection: Connection, script: ScriptDirectory, file: str) -> None:
    known = {revision.revision for revision in script.walk_revisions()}
    for current in MigrationContext.configure(connection).get_current_heads():
        if current not in known:
            raise Conflict(
                f"the records in {file} were written by a newer Torpor",
                detail=f"they are at revision {current}, this version knows them up to {max(known)}",
                remedy="install that version again, or put back a copy of the file from before",
            )

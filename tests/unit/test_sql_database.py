"""The file: what it is made of, how it is upgraded, and what is said when it can't be used."""

import re
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, event

from torpor.adapters.sql import Database, SqlHistory, SqlLedger, open_records
from torpor.adapters.sql.schema import metadata
from torpor.domain.capacity import Resources
from torpor.domain.errors import BackendFailed, Conflict, MissingPart, StateDamaged
from torpor.domain.ids import HostId
from torpor.ports import Event

LOCAL = HostId("local")
EVENT = Event(1.0, "kind", "subject", "message")
Open = Callable[[str], Database]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "torpor.db"


@pytest.fixture
def opened() -> Iterator[Open]:
    """Opens databases that don't wait for locks, and closes them in the end."""
    databases: list[Database] = []

    def open_one(url: str) -> Database:
        databases.append(Database(url, busy_seconds=0.05))
        return databases[-1]

    yield open_one
    for database in databases:
        database.close()


@pytest.fixture
def database(file: Path, opened: Open) -> Database:
    database = opened(f"sqlite:///{file}")
    database.migrate()
    return database


def tables(file: Path) -> dict[str, list[str]]:
    """The words of each statement, sorted: a table that was made anew has its constraints in another order."""
    connection = sqlite3.connect(file)
    query = "SELECT name, sql FROM sqlite_master WHERE type IN ('table', 'index') AND sql IS NOT NULL"
    statements = {name: sql.replace(f'"{name}"', name) for name, sql in connection.execute(query)}
    connection.close()
    statements.pop("alembic_version", None)
    return {name: sorted(re.findall(r"\w+", sql)) for name, sql in statements.items()}


def test_the_migrations_lead_to_the_schema_that_the_code_describes(
    database: Database, file: Path, tmp_path: Path
) -> None:
    with database.reading() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    described = create_engine(f"sqlite:///{tmp_path}/described.db")
    metadata.create_all(described)
    described.dispose()
    # Alembic compares neither CHECKs nor STRICT; the text of the statements does.
    assert tables(file) == tables(tmp_path / "described.db")


def test_records_go_where_room_was_taken_beforehand(database: Database, file: Path) -> None:
    database.reserve()
    log = file.with_name("torpor.db-wal")
    before = (file.stat().st_size, log.stat().st_size)
    history = SqlHistory(database)
    for number in range(200):
        history.record(Event(float(number), "kind", "subject", "message " * 50))
    assert (file.stat().st_size, log.stat().st_size) == before
    database.reserve()
    assert (file.stat().st_size, log.stat().st_size) == before, "what is reserved is not reserved again"


def test_an_upgrade_of_what_is_up_to_date_changes_nothing(database: Database, file: Path, opened: Open) -> None:
    SqlLedger(database).set_host(LOCAL, Resources(1, 2, 3))
    before = tables(file)
    opened(f"sqlite:///{file}").migrate()
    database.migrate()
    assert tables(file) == before
    assert SqlLedger(database).hosts()[0].total == Resources(1, 2, 3)


def test_an_upgrade_that_fails_half_way_leaves_the_file_as_it_was(file: Path, opened: Open) -> None:
    other = sqlite3.connect(file)
    other.execute("CREATE TABLE timings (somebody_elses TEXT)")
    other.close()
    before = tables(file)
    with pytest.raises(BackendFailed, match="table timings already exists"):
        opened(f"sqlite:///{file}").migrate()
    assert tables(file) == before


def test_connections_are_durable_check_keys_and_let_readers_read(database: Database) -> None:
    for transaction in (database.reading, database.writing):
        with transaction() as connection:
            for pragma, value in (("journal_mode", "wal"), ("synchronous", 2), ("foreign_keys", 1)):
                assert connection.exec_driver_sql(f"PRAGMA {pragma}").scalar_one() == value


def test_the_file_is_for_its_owner_only(database: Database, file: Path) -> None:
    with database.writing():
        assert {path.stat().st_mode & 0o777 for path in file.parent.glob("torpor.db*")} == {0o600}


def test_a_write_transaction_that_raises_leaves_nothing(database: Database) -> None:
    def half() -> None:
        with database.writing() as connection:
            connection.exec_driver_sql("INSERT INTO timings VALUES ('local', 'suspend', 1, 2, 3, 4, 5, 6)")
            raise LookupError

    with pytest.raises(LookupError):
        half()
    assert SqlHistory(database).timing(LOCAL, "suspend") is None


def test_a_reader_sees_one_state_while_others_write(database: Database) -> None:
    history = SqlHistory(database)
    count = "SELECT count(*) FROM events"
    with database.reading() as connection:
        before = connection.exec_driver_sql(count).scalar_one()
        history.record(EVENT)
        assert connection.exec_driver_sql(count).scalar_one() == before
    assert len(history.events(10)) == 1


def test_eight_threads_of_two_databases_on_one_file_never_find_it_locked(file: Path) -> None:
    """Two, as after a restart where the old process has not quite ended."""
    databases = [Database(f"sqlite:///{file}") for _ in range(2)]
    databases[0].migrate()

    def work(number: int) -> None:
        history = SqlHistory(databases[number % 2])
        for _ in range(10):
            history.record(EVENT)
            history.events(5)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(work, range(8)))
    assert len(SqlHistory(databases[0]).events(1000)) == 80
    for database in databases:
        database.close()


def test_a_lock_that_another_process_keeps_is_reported(database: Database, file: Path) -> None:
    other = sqlite3.connect(file, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(BackendFailed, match=r"torpor\.db are locked: database is locked; end the other program"):
        SqlHistory(database).record(EVENT)
    other.close()
    SqlHistory(database).record(EVENT)
    assert list(SqlHistory(database).events(10)) == [EVENT]


def test_a_database_of_a_newer_version_is_refused_and_left_alone(database: Database, file: Path, opened: Open) -> None:
    with database.writing() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(Conflict, match="written by a newer Torpor: they are at revision 9999, this version knows"):
        opened(f"sqlite:///{file}").migrate()
    with database.reading() as connection:
        assert connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar_one() == "9999"


def test_a_file_that_is_no_database_is_refused_and_left_alone(file: Path, opened: Open) -> None:
    file.write_bytes(b"not a database" * 100)
    with pytest.raises(StateDamaged, match=r"torpor\.db are damaged: file is not a database; put a copy"):
        opened(f"sqlite:///{file}").migrate()
    assert file.read_bytes() == b"not a database" * 100


def test_a_database_with_damage_in_the_middle_is_refused(database: Database, file: Path, opened: Open) -> None:
    for number in range(100):
        SqlHistory(database).record(Event(1.0, "kind", f"subject {number}", "m" * 500))
    database.close()
    size = file.stat().st_size
    with file.open("r+b") as content:
        content.seek(size // 2)
        content.write(b"\xff" * (size // 4))
    with pytest.raises(StateDamaged, match="are damaged"):
        opened(f"sqlite:///{file}").migrate()


def test_a_file_that_can_only_be_read_is_refused(database: Database, file: Path, opened: Open) -> None:
    database.close()
    with pytest.raises(MissingPart, match="can't be read and written"):
        opened(f"sqlite:///file:{file}?mode=ro&uri=true").migrate()


@pytest.mark.parametrize("place", ["missing/torpor.db", ".", "a-file/torpor.db"])
def test_a_place_where_no_file_can_be_is_refused(tmp_path: Path, opened: Open, place: str) -> None:
    (tmp_path / "a-file").write_text("")
    with pytest.raises(MissingPart, match=r"can't be read and written: .*; check that the folder exists"):
        opened(f"sqlite:///{tmp_path / place}").migrate()


def test_a_full_disk_is_reported_and_what_was_written_stays(database: Database) -> None:
    history = SqlHistory(database)
    history.record(EVENT)
    database.close()

    @event.listens_for(database.engine, "connect")
    def fill_the_disk(connection: sqlite3.Connection, _: object) -> None:
        connection.execute("PRAGMA max_page_count = 1")  # clipped to what the file has already

    with pytest.raises(BackendFailed, match="can't be written: the disk is full; free some room"):
        history.record(Event(1.0, "kind", "subject", "m" * 100_000))
    assert list(history.events(10)) == [EVENT]


def test_the_records_outlive_the_process_that_wrote_them(tmp_path: Path) -> None:
    ledger, _, _, history = open_records(tmp_path)
    ledger.set_host(LOCAL, Resources(1, 2, 3))
    history.record(EVENT)
    again = open_records(tmp_path)
    assert again[0].hosts()[0].total == Resources(1, 2, 3)
    assert list(again[3].events(1)) == [EVENT]

"""The database refuses to be over-committed by anybody: here, by plain sqlite3 with none of our code between."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from torpor.adapters.sql import Database, SqlLedger
from torpor.domain.capacity import Claim, ClaimKind, Resources
from torpor.domain.ids import HostId, InstanceId


@pytest.fixture
def raw(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """Two hosts of 4 vCPUs and 1000 MiB; on `local` instance a holds 1 vCPU and 600 MiB."""
    database = Database(f"sqlite:///{tmp_path}/torpor.db")
    database.migrate()
    ledger = SqlLedger(database)
    for host in ("local", "far"):
        ledger.set_host(HostId(host), Resources(4, 1000, 50))
    ledger.claim([Claim(InstanceId("a"), ClaimKind.COMPUTE, HostId("local"), Resources(1, 600))])
    database.close()
    connection = sqlite3.connect(tmp_path / "torpor.db", isolation_level=None)
    yield connection
    connection.close()


def used(raw: sqlite3.Connection, host: str = "local") -> tuple[int, int, int]:
    query = "SELECT used_vcpus, used_memory_mb, used_disk_mb FROM hosts WHERE id = ?"
    vcpus, memory_mb, disk_mb = raw.execute(query, [host]).fetchone()
    return vcpus, memory_mb, disk_mb


def test_a_raw_insert_that_fits_is_counted(raw: sqlite3.Connection) -> None:
    raw.execute("INSERT INTO claims VALUES ('b', 'compute', 'local', 3, 400, 50)")
    assert used(raw) == (4, 1000, 50)


def test_a_raw_delete_gives_back(raw: sqlite3.Connection) -> None:
    raw.execute("INSERT INTO claims VALUES ('b', 'compute', 'local', 3, 400, 50)")
    raw.execute("DELETE FROM claims WHERE consumer = 'a'")
    assert used(raw) == (3, 400, 50)
    raw.execute("DELETE FROM claims")
    assert used(raw) == (0, 0, 0)


def test_a_raw_update_is_counted_on_both_hosts(raw: sqlite3.Connection) -> None:
    raw.execute("UPDATE claims SET memory_mb = 1000, disk_mb = 7")
    assert used(raw) == (1, 1000, 7)
    raw.execute("UPDATE claims SET host = 'far', vcpus = 4")
    assert (used(raw), used(raw, "far")) == ((0, 0, 0), (4, 1000, 7))


@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        ("INSERT INTO claims VALUES ('b', 'compute', 'local', 4, 1, 0)", "has no room"),
        ("INSERT INTO claims VALUES ('b', 'compute', 'local', 0, 401, 0)", "has no room"),
        ("INSERT INTO claims VALUES ('b', 'state', 'local', 0, 0, 51)", "has no room"),
        (
            "INSERT INTO claims VALUES ('b', 'compute', 'local', 0, 300, 0), ('c', 'compute', 'local', 0, 300, 0)",
            "has no room",
        ),
        ("INSERT INTO claims VALUES ('b', 'compute', 'local', 0, -500, 0)", "claims_not_negative"),
        ("INSERT INTO claims VALUES ('b', 'compute', 'local', 0, 'plenty', 0)", "cannot store TEXT"),
        ("INSERT INTO claims VALUES ('b', 'compute', 'local', 0, 0.5, 0)", "cannot store REAL"),
        ("INSERT INTO claims VALUES ('b', 'compute', 'local', 0, NULL, 0)", "NOT NULL"),
        ("INSERT INTO claims VALUES ('b', 'compute', 'nowhere', 0, 1, 0)", "not in the books"),
        ("INSERT INTO claims VALUES ('a', 'compute', 'local', 0, 1, 0)", "has a claim of that kind"),
        ("INSERT OR REPLACE INTO claims VALUES ('a', 'compute', 'far', 0, 1, 0)", "has a claim of that kind"),
        ("INSERT OR IGNORE INTO claims VALUES ('b', 'compute', 'local', 0, 401, 0)", "has no room"),
        ("INSERT OR FAIL INTO claims VALUES ('b', 'compute', 'local', 0, 401, 0)", "has no room"),
        ("INSERT OR REPLACE INTO claims VALUES ('b', 'compute', 'local', 0, 401, 0)", "has no room"),
        ("UPDATE OR IGNORE claims SET memory_mb = 1001", "has no room"),
        ("UPDATE OR FAIL claims SET disk_mb = 51", "has no room"),
        ("UPDATE claims SET memory_mb = -1", "claims_not_negative"),
        ("UPDATE claims SET memory_mb = 1001", "has no room"),
        ("UPDATE OR REPLACE claims SET memory_mb = 1001", "has no room"),
        ("UPDATE claims SET host = 'far', vcpus = 5", "has no room"),
        ("UPDATE claims SET host = 'nowhere'", "in the books"),
        ("UPDATE claims SET consumer = 'b'", "keeps its consumer"),
        ("UPDATE claims SET kind = 'disk'", "keeps its consumer"),
        ("UPDATE hosts SET total_memory_mb = 599", "hosts_memory_fits"),
        ("UPDATE hosts SET used_memory_mb = 0", "sum of its claims"),
        ("UPDATE hosts SET used_vcpus = 2", "sum of its claims"),
        ("UPDATE hosts SET id = 'elsewhere' WHERE id = 'local'", "sum of its claims"),
        ("INSERT OR REPLACE INTO hosts VALUES ('local', 4, 1000, 50, 0, 0, 0)", "sum of its claims"),
        ("INSERT INTO hosts VALUES ('new', 4, 1000, 50, 1, 0, 0)", "sum of its claims"),
    ],
)
def test_the_database_refuses_what_would_falsify_the_books(
    raw: sqlite3.Connection, statement: str, reason: str
) -> None:
    books = "SELECT * FROM hosts, claims ORDER BY 1"
    before = raw.execute(books).fetchall()
    with pytest.raises(sqlite3.IntegrityError, match=reason):
        raw.execute(statement)
    assert raw.execute(books).fetchall() == before


def test_a_host_that_is_removed_and_entered_again_does_not_lose_its_claims(raw: sqlite3.Connection) -> None:
    """sqlite3 alone checks no foreign keys, so the host does go."""
    raw.execute("DELETE FROM hosts WHERE id = 'local'")
    with pytest.raises(sqlite3.IntegrityError, match="sum of its claims"):
        raw.execute("INSERT INTO hosts (id, total_vcpus, total_memory_mb, total_disk_mb) VALUES ('local', 1, 1, 1)")

"""The records in SQL: ledger, journal, inventory and history in one SQLite file.

Law: whatever a method has returned from is on disk. The database itself refuses to be
over-committed; no code path of ours is trusted with that. A file that a newer version
wrote is never touched.
"""

from pathlib import Path

from sqlalchemy import URL

from torpor.adapters.sql.database import Database
from torpor.adapters.sql.history import SqlHistory
from torpor.adapters.sql.inventory import SqlInventory
from torpor.adapters.sql.journal import SqlJournal
from torpor.adapters.sql.ledger import SqlLedger

__all__ = ["Database", "SqlHistory", "SqlInventory", "SqlJournal", "SqlLedger", "open_records"]


def open_records(state_dir: Path) -> tuple[SqlLedger, SqlJournal, SqlInventory, SqlHistory]:
    """The records in `state_dir`/torpor.db, created or migrated if need be.

    The folder must exist. Raises what `Database.migrate` does. The file may stay open until the process ends.
    """
    database = Database(URL.create("sqlite", database=str(state_dir / "torpor.db")))
    database.migrate()
    database.reserve()
    return SqlLedger(database), SqlJournal(database), SqlInventory(database), SqlHistory(database)

"""What SQLAlchemy and SQLite complain of, in Torpor's words."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError, TimeoutError

from torpor.domain.errors import BackendFailed, Conflict, MissingPart, StateDamaged, TorporError

_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_LOCKED = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
_UNUSABLE = {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_AUTH}


@contextmanager
def translated(file: str) -> Iterator[None]:
    """Let foreseeable failures of the database in `file` leave as TorporErrors, the cause chained."""
    try:
        yield
    except (SQLAlchemyError, sqlite3.Error) as error:
        raise _translation(error, file) from error


def damaged(file: str, detail: str) -> StateDamaged:
    return StateDamaged(
        f"the records in {file} are damaged",
        detail=detail,
        remedy="put a copy of the file back, or move it away to begin with empty records",
    )


def unusable(file: str, detail: str) -> MissingPart:
    return MissingPart(
        f"the records in {file} can't be read and written",
        detail=detail,
        remedy="check that the folder exists and that the file and the folder are writable",
    )


def _translation(error: SQLAlchemyError | sqlite3.Error, file: str) -> TorporError:
    cause = error.orig if isinstance(error, DBAPIError) else error
    detail = str(cause).rstrip(".")
    # The low byte is the primary code, the others tell its variants apart.
    code = getattr(cause, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_FULL:
        return BackendFailed(
            f"the records in {file} can't be written", detail="the disk is full", remedy="free some room"
        )
    if code in _LOCKED or isinstance(error, TimeoutError):
        return BackendFailed(
            f"the records in {file} are locked",
            detail=detail,
            remedy="end the other program that uses them, or try again",
        )
    if code in _DAMAGED:
        return damaged(file, detail)
    if code in _UNUSABLE:
        return unusable(file, detail)
    if isinstance(error, IntegrityError):
        return Conflict(f"the records in {file} refuse the change", detail=detail)
    return BackendFailed(f"the records in {file} can't be used", detail=detail, remedy="check the disk")

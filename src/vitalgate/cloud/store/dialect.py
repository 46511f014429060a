"""All that differs between database systems: opening, pragmas, triggers, error numbers. SQL elsewhere is neutral.

SQLite runs with a write-ahead log and ``synchronous=FULL``: COMMIT returns after the log is on the disk, so that an
entry acknowledged is an entry kept, power cut or not (https://sqlite.org/pragma.html#pragma_synchronous; in WAL mode
NORMAL would lose the last commits). Write transactions start with BEGIN IMMEDIATE, so that they wait for the lock at
their start and never fail half-way.
"""

import contextlib
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.pool import ConnectionPoolEntry

from vitalgate.cloud.store.errors import Reason, StoreError, StoreUnavailable

BUSY_TIMEOUT_MS: Final = 5_000
_WRITE: Final = "vitalgate_write"
_HELD: Final = "vitalgate_held"

PRAGMAS: Final = {
    "journal_mode": "wal",
    "synchronous": 2,  # FULL
    "foreign_keys": 1,
    "secure_delete": 1,  # what retention deletes is overwritten
    "temp_store": 2,  # in memory: no temporary file holds rows
    "cache_size": -8_000,  # KiB
    "wal_autocheckpoint": 2_000,  # pages
}
"""What every connection is set to; a test reads them back."""

_REASONS: Final = {
    sqlite3.SQLITE_FULL: Reason.FULL,
    sqlite3.SQLITE_BUSY: Reason.LOCKED,
    sqlite3.SQLITE_LOCKED: Reason.LOCKED,
    sqlite3.SQLITE_READONLY: Reason.READ_ONLY,
    sqlite3.SQLITE_IOERR: Reason.IO,
    sqlite3.SQLITE_CANTOPEN: Reason.IO,
    sqlite3.SQLITE_CORRUPT: Reason.DAMAGED,
    sqlite3.SQLITE_NOTADB: Reason.DAMAGED,
}

_AUDIT_TRIGGERS: Final = tuple(
    f"CREATE TRIGGER audit_no_{verb} BEFORE {verb.upper()} ON audit "
    "BEGIN SELECT RAISE(ABORT, 'the audit trail is append-only'); END"
    for verb in ("update", "delete")
)


def open_engine(location: str | Path, *, busy_timeout_ms: int = BUSY_TIMEOUT_MS) -> sa.Engine:
    """An engine for a database file (made with mode 0600 where it is new).

    ``location`` is a path; a URL of another database system is refused with `StoreError`.
    """
    text = str(location)
    if "://" in text:
        raise StoreError(f"the store cannot use {text.partition('://')[0]!r}: give the path of a file")
    path = Path(text)
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.touch(mode=0o600)
    except OSError as error:
        raise StoreError(f"the store's file {path} cannot be made: {error.strerror}") from error
    engine = sa.create_engine(
        sa.URL.create("sqlite", database=str(path)),
        connect_args={"timeout": busy_timeout_ms / 1000, "check_same_thread": False, "isolation_level": None},
        pool_size=8,
        max_overflow=8,
    )
    sa.event.listen(engine, "connect", _set_pragmas)
    sa.event.listen(engine, "begin", _begin)
    return engine


def _set_pragmas(connection: sqlite3.Connection, entry: ConnectionPoolEntry) -> None:
    cursor = connection.cursor()
    if cursor.execute("PRAGMA page_count").fetchone()[0] == 0:
        cursor.execute("PRAGMA auto_vacuum = INCREMENTAL")  # must come before the first table
    for name, value in PRAGMAS.items():
        cursor.execute(f"PRAGMA {name} = {value}")
    cursor.close()


def _begin(connection: sa.Connection) -> None:
    options = connection.get_execution_options()
    if not options.get(_HELD, False):
        run_text(connection, "BEGIN IMMEDIATE" if options.get(_WRITE, False) else "BEGIN")


def for_writing(engine: sa.Engine) -> sa.Engine:
    """The same engine, whose transactions take the write lock at their start."""
    return engine.execution_options(**{_WRITE: True})


def for_holding(engine: sa.Engine) -> sa.Engine:
    """The same engine, whose connections begin nothing by themselves: their transactions are `transaction`."""
    return engine.execution_options(**{_HELD: True})


@contextlib.contextmanager
def transaction(connection: sa.Connection) -> Iterator[None]:
    """One write transaction on a connection of `for_holding`: durable at the end, undone when the block raises.

    SQLAlchemy's own costs as much again as the database takes for a small commit. Raises what SQLAlchemy would.
    """
    driver: Any = connection.connection.driver_connection
    run_text(connection, "BEGIN IMMEDIATE")
    try:
        yield
        run_text(connection, "COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):  # what made it fail is told, and what is not committed goes anyway
            driver.rollback()
        raise


def unavailable(error: sa.exc.DBAPIError) -> StoreUnavailable | None:
    """What a database error means: `StoreUnavailable` where trying later may help, None where it is a fault of ours."""
    original = error.orig
    if isinstance(original, sqlite3.Error):
        code = getattr(original, "sqlite_errorcode", 0) & 0xFF  # the primary result code
        reason = _REASONS.get(code)
        if reason is not None:
            return StoreUnavailable(reason)
    return None


# Statements of the hot path, as text for `run_text`: building and compiling expressions anew would cost more than the
# database does, and so would a result object for each.


def run_text(connection: sa.Connection, statement: str, rows: Sequence[Sequence[object]] | None = None) -> Any:
    """Run text on the driver's own connection, within the transaction of ``connection``: once for each of ``rows``, or
    where that is None once, giving the first row of its result or None. Raises what SQLAlchemy would."""
    driver: Any = connection.connection.driver_connection
    try:
        if rows is None:
            return driver.execute(statement).fetchone()
        driver.executemany(statement, rows)
    except sqlite3.Error as error:
        # No parameters in the text of the error: they hold what is sealed elsewhere.
        raise sa.exc.DBAPIError.instance(
            statement, None, error, sqlite3.Error, hide_parameters=True, dialect=connection.dialect
        ) from error
    return None


def _mark(engine: sa.Engine) -> str:
    return {"qmark": "?", "format": "%s"}[engine.dialect.paramstyle]


def compile_insert(engine: sa.Engine, table: sa.Table, columns: tuple[str, ...]) -> str:
    """INSERT of plain tuples in the order of ``columns``."""
    names = ", ".join(columns)
    marks = ", ".join([_mark(engine)] * len(columns))
    return f"INSERT INTO {table.name} ({names}) VALUES ({marks})"  # noqa: S608 - constants


def compile_update(engine: sa.Engine, table: sa.Table, columns: tuple[str, ...]) -> str:
    """UPDATE of one row from a tuple of ``columns`` and then its ``id``."""
    mark = _mark(engine)
    values = ", ".join(f"{name} = {mark}" for name in columns)
    return f"UPDATE {table.name} SET {values} WHERE id = {mark}"  # noqa: S608 - constants


def compile_counting(engine: sa.Engine, table: sa.Table, key: str) -> str:
    """INSERT of (``key``, count, maximum), or where the key is there: add to its count and raise its maximum."""
    mark, name = _mark(engine), table.name
    return (
        f"INSERT INTO {name} ({key}, count, maximum) VALUES ({mark}, {mark}, {mark})"  # noqa: S608 - constants
        f" ON CONFLICT ({key}) DO UPDATE SET count = {name}.count + excluded.count, maximum = CASE"
        f" WHEN excluded.maximum > {name}.maximum THEN excluded.maximum ELSE {name}.maximum END"
    )


def protect_audit(connection: sa.Connection) -> None:
    """Make the audit table append-only in the database itself."""
    for statement in _AUDIT_TRIGGERS:
        connection.exec_driver_sql(statement)


def give_back_space(engine: sa.Engine, pages: int) -> None:
    """Return up to ``pages`` free pages to the file system."""
    with engine.connect() as connection:
        connection.exec_driver_sql(f"PRAGMA incremental_vacuum({int(pages)})")


def fold_log(engine: sa.Engine) -> None:
    """Move the write-ahead log into the database file, for a backup or at the end."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")


def settings(engine: sa.Engine) -> dict[str, Any]:
    """The settings of `PRAGMAS` as a connection of this engine has them, with ``busy_timeout``."""
    with engine.connect() as connection:
        names = (*PRAGMAS, "busy_timeout")
        return {name: connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in names}

"""The spool's database file: schema, settings, opening, moving a damaged file aside, and the mark beside it.

The *mark* is a small file that says which epoch was opened last and when the gateway was last alive. It is what tells a
spool that was deleted, or replaced by an older copy, from a first start: the database alone cannot know.
"""

import contextlib
import fcntl
import json
import os
import sqlite3
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from vitalgate.gateway.files import sync_directory, write_atomic

SCHEMA: Final = 1
_MARK_SCHEMA: Final = 1
_MAX_MARK: Final = 4096

PRAGMAS: Final = {
    "journal_mode": "wal",
    "synchronous": 2,  # FULL: in WAL mode NORMAL may lose the last commits at a power cut
    "temp_store": 2,  # in memory
    "wal_autocheckpoint": 1000,  # pages
    "journal_size_limit": 16 * 1024 * 1024,
    "busy_timeout": 2000,  # ms; only a reader with a long transaction could make us wait
}
"""What the connection is set to; a test reads them back."""

_TABLES: Final = (
    "CREATE TABLE meta (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID",
    # epochs are unsigned 64-bit numbers stored as the signed ones with the same bits
    "CREATE TABLE epochs (epoch INTEGER NOT NULL UNIQUE, key_id TEXT NOT NULL, opened_at REAL NOT NULL,"
    " last_sequence INTEGER NOT NULL, clean INTEGER NOT NULL, number INTEGER PRIMARY KEY AUTOINCREMENT)",
    "CREATE TABLE devices (ref INTEGER PRIMARY KEY, tag BLOB NOT NULL UNIQUE, sealed_urn BLOB NOT NULL,"
    " last_heard REAL NOT NULL, gap_since REAL, gap_cause TEXT NOT NULL)",
    "CREATE TABLE entries (id INTEGER PRIMARY KEY, epoch INTEGER NOT NULL, sequence INTEGER NOT NULL,"
    " class INTEGER NOT NULL, device INTEGER NOT NULL, at REAL NOT NULL, keep INTEGER NOT NULL,"
    " size INTEGER NOT NULL, sealed BLOB NOT NULL)",
    "CREATE INDEX entries_class ON entries (class)",
    "CREATE TABLE refused (id INTEGER PRIMARY KEY, epoch INTEGER NOT NULL, sequence INTEGER NOT NULL,"
    " class INTEGER NOT NULL, device INTEGER NOT NULL, at REAL NOT NULL, cause TEXT NOT NULL, sealed BLOB NOT NULL)",
    # numbered runs of dropped entries that no notice has told yet
    "CREATE TABLE gaps (device INTEGER NOT NULL, epoch INTEGER NOT NULL, cause TEXT NOT NULL, first INTEGER NOT NULL,"
    " last INTEGER NOT NULL, count INTEGER NOT NULL, start REAL NOT NULL, end REAL NOT NULL,"
    " PRIMARY KEY (device, epoch, cause, first)) WITHOUT ROWID",
    "CREATE TABLE repeats (number INTEGER PRIMARY KEY AUTOINCREMENT, device INTEGER NOT NULL, tag BLOB NOT NULL,"
    " hash BLOB NOT NULL, UNIQUE (device, tag))",
    "CREATE TABLE ledger (device INTEGER NOT NULL, hash BLOB NOT NULL, count INTEGER NOT NULL, frames INTEGER NOT NULL,"
    " PRIMARY KEY (device, hash)) WITHOUT ROWID",
)

_REASONS: Final = {
    sqlite3.SQLITE_FULL: "disk-full",
    sqlite3.SQLITE_IOERR: "io",
    sqlite3.SQLITE_CANTOPEN: "io",
    sqlite3.SQLITE_READONLY: "read-only",
    sqlite3.SQLITE_PERM: "read-only",
    sqlite3.SQLITE_BUSY: "locked",
    sqlite3.SQLITE_LOCKED: "locked",
    sqlite3.SQLITE_PROTOCOL: "locked",
}


class SpoolError(Exception):
    """The spool cannot be opened at all; says which file, why, and what to do."""


class SpoolDamaged(Exception):
    """The database is no spool of this version: it is moved aside. Never leaves the spool."""


def failure(error: sqlite3.Error) -> str:
    """Why SQLite refused, as the reasons of `SpoolFailing`; everything unknown counts as damage."""
    return _REASONS.get(getattr(error, "sqlite_errorcode", 0) & 0xFF, "damaged")


def to_signed(epoch: int) -> int:
    """An unsigned 64-bit number as SQLite holds it."""
    return epoch - (1 << 64) if epoch >= 1 << 63 else epoch


def to_unsigned(epoch: int) -> int:
    """The reverse of `to_signed`."""
    return epoch + (1 << 64) if epoch < 0 else epoch


@dataclass(frozen=True, slots=True)
class Mark:
    """The epoch opened last, a sequence of it known to be committed, and when the gateway was known to be alive."""

    epoch: int
    sequence: int
    alive: float


def read_mark(path: Path) -> Mark | None:
    """The mark, or None when there is none that can be read."""
    try:
        with path.open("rb") as file:
            row = json.loads(file.read(_MAX_MARK))
        if row["schema"] != _MARK_SCHEMA:
            return None
        return Mark(int(row["epoch"], 16), int(row["sequence"]), float(row["alive"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_mark(path: Path, mark: Mark) -> bool:
    """Write the mark; False when the disk refuses (the next one may do better)."""
    row = {"schema": _MARK_SCHEMA, "epoch": f"{mark.epoch:016x}", "sequence": mark.sequence, "alive": mark.alive}
    try:
        write_atomic(path, json.dumps(row).encode() + b"\n")
    except OSError:
        return False
    return True


class Held:
    """The lock that keeps two gateways off one spool; it goes with the process, however that ends."""

    __slots__ = ("_handle",)

    def __init__(self, path: Path) -> None:
        name = path.with_name(f".{path.name}.lock")
        try:
            self._handle = os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise SpoolError(f"spool {path}: its lock {name} cannot be made: {error.strerror}") from error
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._handle)
            raise SpoolError(f"spool {path} is in use by another process: two gateways cannot share one") from error

    def close(self) -> None:
        """Let go."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1


def connect(path: Path | None) -> sqlite3.Connection:
    """A connection with `PRAGMAS` set and the schema there; None is a database in memory.

    Raises `SpoolDamaged` when the file is no whole spool of this schema, `sqlite3.Error` when the disk refuses.
    """
    if path is not None:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
    connection = sqlite3.connect(":memory:" if path is None else path, isolation_level=None, check_same_thread=False)
    try:
        for name, value in PRAGMAS.items():
            connection.execute(f"PRAGMA {name} = {value}")
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version == 0 and connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0:
            _create(connection)
            if path is not None:
                sync_directory(path.parent)
        elif version != SCHEMA:
            raise SpoolDamaged(f"schema {version}, this version knows {SCHEMA}")
        else:
            found = connection.execute("PRAGMA quick_check(1)").fetchone()
            if found is None or found[0] != "ok":
                raise SpoolDamaged("quick_check finds it damaged")
    except sqlite3.Error as error:
        connection.close()
        if failure(error) == "damaged":
            raise SpoolDamaged(str(error)) from error
        raise
    except SpoolDamaged:
        connection.close()
        raise
    return connection


def _create(connection: sqlite3.Connection) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        for statement in _TABLES:
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {SCHEMA}")
        connection.execute("COMMIT")
    except sqlite3.Error:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def move_aside(path: Path, wall: float) -> Path:
    """Rename the database and what SQLite keeps beside it under a dated name, and return that name."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(wall))
    target = path.with_name(f"{path.name}.damaged-{stamp}")
    number = 1
    while target.exists():
        number += 1
        target = path.with_name(f"{path.name}.damaged-{stamp}-{number}")
    os.replace(path, target)
    for suffix in ("-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            os.replace(path.with_name(path.name + suffix), target.with_name(target.name + suffix))
    sync_directory(path.parent)
    return target

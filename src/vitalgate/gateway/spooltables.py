"""The spool's SQL, and nothing else: what is read at an opening, and what one group commit writes."""

import contextlib
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from vitalgate.gateway.gaps import GapRuns, Key, Run
from vitalgate.gateway.spooldb import to_signed, to_unsigned
from vitalgate.quick import quick
from vitalgate.vitals.observation import TrafficClass


@dataclass(slots=True)
class DeviceRow:
    """A device as the spool knows it. ``gap_since`` is set while nobody heard it; ``urn`` is sealed in the file."""

    ref: int
    tag: bytes
    sealed_urn: bytes
    last_heard: float
    gap_since: float | None = None
    gap_cause: str = ""


@dataclass(slots=True)
class EpochRow:
    """An epoch: the data key it is sealed under, when it was opened, its last committed sequence, how it ended."""

    epoch: int
    key_id: str
    opened_at: float
    last: int = 0
    clean: bool = False


@quick
@dataclass(frozen=True, slots=True)
class EntryRow:
    """One entry as it lies in the file; ``keep`` says whether it may be dropped for space (`MAY_GO` and beside it)."""

    id: int
    epoch: int
    sequence: int
    lane: TrafficClass
    device: int
    at: float
    keep: int
    size: int
    sealed: bytes


@dataclass(frozen=True, slots=True)
class Share:
    """How much of one epoch and class lies in the file."""

    epoch: int
    lane: TrafficClass
    entries: int
    bytes: int
    last_id: int


MAY_GO: Final = 0
STAYS: Final = 1
"""Never dropped for space."""
GOES_LAST: Final = 2
"""Dropped for space only when nothing else may go and the reserve is full too."""

_ENTRY: Final = "id, epoch, sequence, class, device, at, keep, size, sealed"


def _entry(row: Sequence[int | float | bytes]) -> EntryRow:
    number, epoch, sequence, lane, device, at, keep, size, sealed = row
    return EntryRow(
        int(number),
        to_unsigned(int(epoch)),
        int(sequence),
        TrafficClass(int(lane)),
        int(device),
        float(at),
        int(keep),
        int(size),
        bytes(sealed) if isinstance(sealed, bytes) else b"",
    )


class Tables:
    """The open database. Every call may raise `sqlite3.Error`; writes belong inside `transaction`."""

    __slots__ = ("_db",)

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._db = connection

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing; durable when the block has ended without an error."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            # SQLite ends some failed transactions itself; what cannot be rolled back now is so at the next opening.
            if self._db.in_transaction:
                with contextlib.suppress(sqlite3.Error):
                    self._db.execute("ROLLBACK")
            raise

    def close(self) -> None:
        """Close the database; its log is folded in where the disk allows."""
        with contextlib.suppress(sqlite3.Error):
            self._db.close()

    def pragma(self, name: str) -> object:
        """What the connection says of a setting."""
        return self._db.execute(f"PRAGMA {name}").fetchone()[0]

    # read at an opening

    def meta(self, name: str) -> bytes | None:
        """A value of the table ``meta``."""
        row = self._db.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        return None if row is None else bytes(row[0])

    def epochs(self) -> list[EpochRow]:
        """All epochs, oldest first."""
        rows = self._db.execute("SELECT epoch, key_id, opened_at, last_sequence, clean FROM epochs ORDER BY number")
        return [EpochRow(to_unsigned(row[0]), row[1], row[2], row[3], bool(row[4])) for row in rows]

    def devices(self) -> list[tuple[DeviceRow, int]]:
        """All devices, each with the number of its remembered messages."""
        rows = self._db.execute(
            "SELECT ref, tag, sealed_urn, last_heard, gap_since, gap_cause,"
            " (SELECT count(*) FROM repeats WHERE repeats.device = ref) FROM devices"
        )
        return [(DeviceRow(*row[:6]), row[6]) for row in rows]

    def gaps(self) -> list[Run]:
        """The runs that no notice has told."""
        rows = self._db.execute(
            "SELECT device, epoch, cause, first, last, count, start, end FROM gaps ORDER BY device, epoch, cause, first"
        )
        return [Run(row[0], to_unsigned(row[1]), *row[2:]) for row in rows]

    def shares(self) -> list[Share]:
        """What lies in the file, by epoch and class."""
        rows = self._db.execute("SELECT epoch, class, count(*), sum(size), max(id) FROM entries GROUP BY epoch, class")
        return [Share(to_unsigned(row[0]), TrafficClass(row[1]), row[2], row[3], row[4]) for row in rows]

    def refused(self) -> tuple[int, int]:
        """(number of refused entries, largest id among them)."""
        row = self._db.execute("SELECT count(*), coalesce(max(id), 0) FROM refused").fetchone()
        return row[0], row[1]

    # read while running

    def after(self, lane: TrafficClass, number: int, limit: int) -> list[EntryRow]:
        """The oldest entries of a class with an id above ``number``."""
        rows = self._db.execute(
            f"SELECT {_ENTRY} FROM entries WHERE class = ? AND id > ? ORDER BY id LIMIT ?",  # noqa: S608 - constants
            (lane, number, limit),
        )
        return [_entry(row) for row in rows]

    def one(self, number: int) -> EntryRow | None:
        """One entry."""
        row = self._db.execute(f"SELECT {_ENTRY} FROM entries WHERE id = ?", (number,)).fetchone()  # noqa: S608 - constants
        return None if row is None else _entry(row)

    def repeat(self, device: int, tag: bytes) -> bytes | None:
        """The tagged frame hash that was committed under a tagged message number."""
        row = self._db.execute("SELECT hash FROM repeats WHERE device = ? AND tag = ?", (device, tag)).fetchone()
        return None if row is None else bytes(row[0])

    def ledger(self) -> list[tuple[int, bytes, int, int]]:
        """(device, frame hash, entries, frames) of everything ever committed, where a ledger is kept."""
        return self._db.execute("SELECT device, hash, count, frames FROM ledger").fetchall()

    # written by a group commit

    def put_meta(self, values: Iterable[tuple[str, bytes]]) -> None:
        """Set values of ``meta``."""
        self._db.executemany("INSERT OR REPLACE INTO meta (name, value) VALUES (?, ?)", values)

    def put_epoch(self, row: EpochRow) -> None:
        """Insert or update an epoch."""
        self._db.execute(
            "INSERT INTO epochs (epoch, key_id, opened_at, last_sequence, clean) VALUES (?, ?, ?, ?, ?)"
            " ON CONFLICT (epoch) DO UPDATE SET last_sequence = excluded.last_sequence, clean = excluded.clean",
            (to_signed(row.epoch), row.key_id, row.opened_at, row.last, row.clean),
        )

    def drop_epochs(self, epochs: Iterable[int]) -> None:
        """Forget epochs of which nothing is left."""
        self._db.executemany("DELETE FROM epochs WHERE epoch = ?", [(to_signed(epoch),) for epoch in epochs])

    def put_devices(self, rows: Iterable[DeviceRow]) -> None:
        """Insert or update devices."""
        self._db.executemany(
            "INSERT INTO devices (ref, tag, sealed_urn, last_heard, gap_since, gap_cause) VALUES (?, ?, ?, ?, ?, ?)"
            " ON CONFLICT (ref) DO UPDATE SET last_heard = excluded.last_heard, gap_since = excluded.gap_since,"
            " gap_cause = excluded.gap_cause",
            [(d.ref, d.tag, d.sealed_urn, d.last_heard, d.gap_since, d.gap_cause) for d in rows],
        )

    def insert(self, rows: Iterable[EntryRow]) -> None:
        """Add entries."""
        self._db.executemany(
            f"INSERT INTO entries ({_ENTRY}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608 - constants
            [
                (r.id, to_signed(r.epoch), r.sequence, int(r.lane), r.device, r.at, r.keep, r.size, r.sealed)
                for r in rows
            ],
        )

    def delete(self, ids: Iterable[int]) -> None:
        """Delete entries."""
        self._db.executemany("DELETE FROM entries WHERE id = ?", [(number,) for number in ids])

    def evictable(
        self, lane: TrafficClass, keep: int, number: int, limit: int
    ) -> list[tuple[int, int, int, int, float, int]]:
        """(id, epoch, sequence, device, at, size) of the oldest entries of a class and ``keep`` above ``number``."""
        rows = self._db.execute(
            "SELECT id, epoch, sequence, device, at, size FROM entries WHERE class = ? AND id > ? AND keep = ?"
            " ORDER BY id LIMIT ?",
            (lane, number, keep, limit),
        )
        return [(row[0], to_unsigned(row[1]), *row[2:]) for row in rows]

    def refuse(self, row: EntryRow, cause: str, most: int) -> None:
        """Move an entry among the refused ones, of which ``most`` are kept, the newest."""
        self._db.execute(
            "INSERT INTO refused (id, epoch, sequence, class, device, at, cause, sealed)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (row.id, to_signed(row.epoch), row.sequence, int(row.lane), row.device, row.at, cause, row.sealed),
        )
        self._db.execute("DELETE FROM entries WHERE id = ?", (row.id,))
        self._db.execute(
            "DELETE FROM refused WHERE id <= (SELECT id FROM refused ORDER BY id DESC LIMIT 1 OFFSET ?)", (most,)
        )

    def put_gaps(self, runs: GapRuns, keys: Iterable[Key]) -> None:
        """Store the runs under ``keys`` as they are now."""
        for key in keys:
            device, epoch, cause = key
            self._db.execute(
                "DELETE FROM gaps WHERE device = ? AND epoch = ? AND cause = ?", (device, to_signed(epoch), cause)
            )
            self._db.executemany(
                "INSERT INTO gaps (device, epoch, cause, first, last, count, start, end) VALUES (?,?,?,?,?,?,?,?)",
                [
                    (device, to_signed(epoch), cause, run.first, run.last, run.count, run.start, run.end)
                    for run in runs.of(key)
                ],
            )

    def put_repeats(self, rows: Iterable[tuple[int, bytes, bytes]]) -> None:
        """Remember (device, tagged message number, tagged frame hash)."""
        self._db.executemany("INSERT OR REPLACE INTO repeats (device, tag, hash) VALUES (?, ?, ?)", rows)

    def trim_repeats(self, device: int, most: int) -> None:
        """Forget the oldest messages of a device beyond ``most``."""
        self._db.execute(
            "DELETE FROM repeats WHERE device = ? AND number <= (SELECT number FROM repeats WHERE device = ?"
            " ORDER BY number DESC LIMIT 1 OFFSET ?)",
            (device, device, most),
        )

    def put_ledger(self, rows: Iterable[tuple[int, bytes, int]]) -> None:
        """Count entries by (device, frame hash), and frames by their first entry (the last element: 1)."""
        self._db.executemany(
            "INSERT INTO ledger (device, hash, count, frames) VALUES (?, ?, 1, ?)"
            " ON CONFLICT (device, hash) DO UPDATE SET count = count + 1, frames = frames + excluded.frames",
            rows,
        )

"""The spool's way out: what waits, what is in flight, what the cloud took or refused, and how much lies in the file."""

import struct
from collections.abc import Iterable, Sequence
from typing import Final

from vitalgate.counters import Counters
from vitalgate.gateway.outgoing import Item, Outgoing
from vitalgate.gateway.sealing import SecretsError
from vitalgate.gateway.spoolbuffer import Pending
from vitalgate.gateway.spoolcommit import Outcome
from vitalgate.gateway.spoolopen import OpenSpool
from vitalgate.gateway.spooltables import GOES_LAST, MAY_GO, EntryRow, EpochRow
from vitalgate.gateway.storage import Stored
from vitalgate.vitals.observation import TrafficClass

UNREADABLE: Final = "unreadable"
"""The cause of gaps for entries that do not open."""
_AAD: Final = struct.Struct(">BI")


def entry_aad(lane: TrafficClass, device: int) -> bytes:
    """What an entry is bound to besides its epoch and sequence: its class and its device's number in the file."""
    return _AAD.pack(lane, device)


class Outlet:
    """Everything of one open file that goes out. Reads may raise `sqlite3.Error`."""

    def __init__(self, found: OpenSpool, epochs: dict[int, EpochRow], counters: Counters) -> None:
        self._tables = found.tables
        self._cabinet = found.cabinet
        self._epochs = epochs
        self._counters = counters
        self._outgoing = Outgoing(self._fetch_after, self._fetch_one)
        for share in found.shares:
            self._outgoing.found(share.lane, share.entries)
        self.bytes = sum(share.bytes for share in found.shares)
        """What the file holds and nobody has let go of, as the bounds count it; likewise ``entries``."""
        self.entries = sum(share.entries for share in found.shares)
        self.released: list[int] = []
        """To be deleted with the next commit."""
        self.refusing: dict[int, str] = {}
        """To be set aside with the next commit: id -> cause."""
        self.evict_from: dict[tuple[TrafficClass, int], int] = {}
        """By class and ``keep``: up to this id nothing may be dropped."""
        self.progress = False
        """The cloud took something since this was last set to False."""

    @property
    def in_flight(self) -> dict[int, tuple[TrafficClass, int]]:
        """id -> (class, size) of what was given out."""
        return self._outgoing.in_flight

    def waiting(self, highest: TrafficClass) -> bool:
        """Whether anything of a class up to ``highest`` waits."""
        return self._outgoing.waiting(highest)

    def take(self, limit: int, highest: TrafficClass, room: int) -> list[Stored]:
        """See `Outgoing.take`."""
        return self._outgoing.take(limit, highest, room)

    def release(self, ids: Iterable[int]) -> None:
        """The cloud holds them."""
        for number in ids:
            size = self._outgoing.finish(number)
            if size is not None:
                self._forget(size)
                self.released.append(number)
                self.progress = True
                self._counters.add("gateway_spool_released")

    def give_back(self, ids: Iterable[int]) -> None:
        """They wait again."""
        for lane, number in self._outgoing.give_back(ids):
            for keep in (MAY_GO, GOES_LAST):
                self.evict_from[lane, keep] = min(self.evict_from.get((lane, keep), 0), number - 1)

    def refuse(self, ids: Iterable[int], cause: str) -> None:
        """The cloud will never take them."""
        for number in ids:
            size = self._outgoing.finish(number)
            if size is not None:
                self._forget(size)
                self.refusing[number] = cause
                self._counters.add("gateway_spool_refused", "cloud")

    def committed(self, entries: Sequence[Pending], size: int, outcome: Outcome) -> None:
        """A commit is durable: ``entries`` of ``size`` lie in the file, and what ``outcome`` dropped does not."""
        self.bytes += size - outcome.dropped_bytes
        self.entries += len(entries) - sum(outcome.dropped.values())
        self._outgoing.committed((Stored(p.row.id, p.row.lane, p.packed), p.row.size) for p in entries)
        for lane, count in outcome.dropped.items():
            self._outgoing.dropped(lane, count)
        self.evict_from = outcome.passed
        self.released, self.refusing = [], {}

    def _fetch_after(self, lane: TrafficClass, number: int, limit: int) -> list[Item]:
        while True:
            rows = self._tables.after(lane, number, limit)
            items = [item for row in rows if (item := self._readable(row)) is not None]
            if items or not rows:
                return items
            number = rows[-1].id

    def _fetch_one(self, number: int) -> Item | None:
        row = self._tables.one(number)
        return None if row is None else self._readable(row)

    def _readable(self, row: EntryRow) -> Item | None:
        """The opened entry; one that does not open is set aside with a gap."""
        if row.id in self.refusing:
            return None
        try:
            sealer = self._cabinet.sealer(self._epochs[row.epoch])
            packed = sealer.open(row.sequence, row.sealed, entry_aad(row.lane, row.device))
        except (SecretsError, KeyError):
            self._counters.add("gateway_spool_unreadable")
            self._outgoing.lost(row.lane)
            self._forget(row.size)
            self.refusing[row.id] = UNREADABLE
            return None
        return Stored(row.id, row.lane, packed), row.size

    def _forget(self, size: int) -> None:
        self.bytes -= size
        self.entries -= 1

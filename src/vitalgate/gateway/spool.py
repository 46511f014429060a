"""The spool: what devices said, durable from its commit until the cloud holds it.

SQLite with a write-ahead log and ``synchronous=FULL``; one transaction and one sync a group of frames. Each opening
makes a new random *epoch*; within it entries are numbered from 1, and (epoch, sequence) is also what they are sealed
under, so that an older copy of the file put back can neither collide with newer entries nor repeat a nonce. In the file
stand sealed entries, sealed device names, keyed tags, numbers and times: no value, no name.

When it is full the oldest entries of the least urgent class go first (bulk, vital, waveform, at last alarms), never
those of two-way devices, which are told FULL instead: what was acknowledged stays. Every drop is a numbered gap.
"""

import os
import sqlite3
import time
from collections import Counter as Multiset
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from vitalgate.counters import Counters
from vitalgate.engine import Randomness, Wall
from vitalgate.gateway.entry import NOTICE_HASH, Entry
from vitalgate.gateway.gaps import GapRuns
from vitalgate.gateway.notice import EpochOpened, Gap, Notice
from vitalgate.gateway.sealing import TAG_BYTES, KeySource, SecretsError
from vitalgate.gateway.spoolbuffer import DISK, Buffer, Pending
from vitalgate.gateway.spoolcommit import FULL, NOTICE_CLASS, Group, Outcome, write_group
from vitalgate.gateway.spooldb import Held, Mark, SpoolError, failure, write_mark
from vitalgate.gateway.spooldevices import Devices
from vitalgate.gateway.spoolopen import Device, OpenSpool, open_spool
from vitalgate.gateway.spooloutlet import Outlet, entry_aad
from vitalgate.gateway.spooltables import GOES_LAST, MAY_GO, STAYS, EntryRow, EpochRow, Tables
from vitalgate.gateway.storage import (
    ROW_BYTES,
    Appended,
    Appending,
    Committed,
    EntriesDropped,
    OpeningCause,
    Part,
    SpoolBounds,
    SpoolEvent,
    SpoolFailing,
    SpoolOpened,
    SpoolRecovered,
    SpoolStatus,
    Stored,
)
from vitalgate.vitals.observation import TrafficClass

__all__ = ["Spool", "SpoolError"]

ALIVE_EVERY: Final = 30.0
"""Seconds between two writes of the mark."""
TELL_EVERY: Final = 10.0
"""Seconds between two tellings of gaps while the spool stays nearly full; below `TELL_BELOW` they are told at once."""
TELL_BELOW: Final = 0.95
MAX_EVENTS: Final = 1024
KEPT_EPOCHS: Final = 16
"""Epochs remembered beyond those with entries: by them a restored spool is told from a crash."""

SEAL_BYTES: Final = TAG_BYTES + ROW_BYTES
"""What an entry costs beyond its packed bytes."""


class Spool:
    """A `SpoolStorage` on SQLite.

    ``path`` None keeps it in memory (virtual time); ``pack`` makes an entry's delivery form and raises ``ValueError``
    for one that cannot be carried; ``mark`` is the small file beside it (by default ``path`` with ``.mark`` added).
    ``ledger`` keeps a journal of (device, frame hash) of every entry committed, for checking that nothing was lost: off
    by default, since the hash of a short frame can be guessed. Raises `SpoolError` when the disk refuses at the
    opening, and `SecretsError` when the key store has no key to give.
    """

    def __init__(
        self,
        path: Path | None,
        keys: KeySource,
        pack: Callable[[Entry], bytes],
        *,
        mark: Path | None = None,
        bounds: SpoolBounds | None = None,
        counters: Counters | None = None,
        wall: Wall = time.time,
        randomness: Randomness = os.urandom,
        ledger: bool = False,
    ) -> None:
        self._path = path
        self._mark = path.with_name(path.name + ".mark") if mark is None and path is not None else mark
        self._keys = keys
        self._pack = pack
        self._bounds = bounds or SpoolBounds()
        self._counters = Counters() if counters is None else counters
        self._wall = wall
        self._randomness = randomness
        self._keep_ledger = ledger
        self._most = self._bounds.for_frames()
        self._repeats_trimmed_at = self._bounds.repeats * 9 // 8  # some way beyond, so that it is seldom
        self._events: deque[SpoolEvent] = deque()
        self._devices = Devices(self._bounds.devices)
        self._next_id = 1
        self._failing = ""
        self._dropped = 0
        self._marked_at: float | None = None
        self._told_at: float | None = None
        self._buffer = Buffer()
        self._runs = GapRuns(self._bounds.gap_runs)
        self._epochs: dict[int, EpochRow] = {}
        self._held = None if path is None else Held(path)
        try:
            self._attach()
        except (SpoolError, SecretsError):
            self._let_go()
            raise
        self.commit(0.0)

    # opening

    def _attach(self) -> None:
        """Open the file and begin an epoch. Whatever is buffered or known of devices moves into a new file."""
        found = open_spool(self._path, self._mark, self._keys, self._wall, self._randomness)
        self._tables: Tables | None = found.tables
        self._cabinet = found.cabinet
        self._opening = found
        if found.gaps or not len(self._runs):
            self._runs = GapRuns(self._bounds.gap_runs, found.gaps)
        self._refused = found.refused
        self._next_id = max(self._next_id, found.last_id + 1)
        self._buffer.repeats.clear()  # tagged with the keys of the file that was
        self._devices.adopt(found.devices, found.cabinet)
        held = {pending.row.epoch: self._epochs[pending.row.epoch] for pending in self._buffer.entries}
        self._epochs = found.epochs | held
        self._stale_epochs = self._epochs_to_forget(found)
        for epoch in self._stale_epochs:
            del self._epochs[epoch]
        self._outlet = Outlet(found, self._epochs, self._counters)
        self._begin_epoch(found)

    def _epochs_to_forget(self, found: OpenSpool) -> list[int]:
        needed = {share.epoch for share in found.shares} | {run.epoch for run in found.gaps} | {found.marked_epoch}
        needed.update(pending.row.epoch for pending in self._buffer.entries)
        return [epoch for epoch in list(found.epochs)[:-KEPT_EPOCHS] if epoch not in needed]

    def _begin_epoch(self, found: OpenSpool) -> None:
        epoch = 0
        while epoch == 0 or epoch in self._epochs:
            epoch = int.from_bytes(self._randomness(8), "big")
        self._epoch = EpochRow(epoch, self._cabinet.active_key_id, self._wall())
        self._unwritten_epochs = [self._epochs[number] for number in {p.row.epoch for p in self._buffer.entries}]
        self._epochs[epoch] = self._epoch
        self._sequence = 0
        self._sealer = self._cabinet.sealer(self._epoch)
        self._meta = self._cabinet.sealed_secret()
        cause = found.cause.value
        self.notify("", EpochOpened(found.previous_epoch, found.previous_sequence, cause), self._wall())
        self._emit(SpoolOpened(epoch, found.previous_epoch, found.cause, found.aside))
        self._counters.add("gateway_spool_openings", cause.replace(" ", "-"))

    @property
    def opening(self) -> OpeningCause:
        """How the spool was found."""
        return self._opening.cause

    def expect(self, device: str, wall_now: float) -> None:
        """Say at the start that the one-way ``device`` is attached: what it said while nobody listened is a gap."""
        self._devices.expect(device, self._opening, wall_now)

    # taking in

    def append(
        self,
        device: str,
        parts: Sequence[Part],
        frame_hash: bytes,
        heard_at: float,
        *,
        two_way: bool = False,
        control_id: str = "",
    ) -> Appended:
        """Buffer one frame of ``device``, whole or not at all; it ends the device's open gap."""
        found = self._devices.made(device, heard_at)
        if found is None:
            self._counters.add("gateway_spool_refused", "devices")
            return Appended(Appending.REFUSED)
        key, hash_tag = (device, b""), b""
        if two_way and control_id:
            key = (device, self._cabinet.tag(b"control", control_id.encode()))
            hash_tag = self._cabinet.tag(b"frame", frame_hash)
            repeated = self._repeated(found, key, hash_tag)
            if repeated is not None:
                return repeated
        if not two_way:
            gap = self._devices.end_gap(found, heard_at)
            if gap is not None:
                self.notify(device, gap, heard_at)
        self._devices.heard(found, heard_at)
        epoch = self._epoch.epoch
        try:
            packed = [
                (part[0], self._pack(Entry(epoch, sequence, part[0], device, frame_hash, heard_at, part[1])))
                for sequence, part in enumerate(parts, self._sequence + 1)
            ]
        except ValueError:
            self._counters.add("gateway_spool_refused", "unpackable")
            return Appended(Appending.REFUSED)
        size = sum(len(body) + SEAL_BYTES for _, body in packed)
        if two_way and not self._fits(size, len(packed)):
            self._counters.add("gateway_spool_full")
            return Appended(Appending.FULL)
        for number, (lane, body) in enumerate(packed):
            keep = STAYS if two_way else MAY_GO
            self._buffer_entry(lane, found.row.ref, heard_at, keep, body, frame_hash, opens_frame=number == 0)
        if hash_tag:
            self._buffer.repeats[key] = hash_tag
        return Appended(Appending.BUFFERED, self._buffer.ticket())

    def notify(self, device: str, notice: Notice, at: float) -> None:
        """Buffer a notice about ``device`` (or '' for the gateway itself)."""
        entry = Entry(self._epoch.epoch, self._sequence + 1, NOTICE_CLASS, device, NOTICE_HASH, at, (), notice)
        try:
            body = self._pack(entry)
        except ValueError:
            self._counters.add("gateway_spool_refused", "unpackable")
            return
        found = self._devices.get(device)
        # A gap's own notice is never dropped: with it would go the count of what it tells. Gaps are told only where
        # there is room or the cloud takes something, so their notices stay few.
        keep = STAYS if isinstance(notice, Gap) else GOES_LAST
        self._buffer_entry(NOTICE_CLASS, found.row.ref if found else 0, at, keep, body, b"")

    def silent(self, device: str, cause: str) -> None:
        """Say that ``device`` has fallen silent: the gap runs from when it was last heard until it is heard again."""
        self._devices.silent(device, cause)

    def _repeated(self, device: Device, key: tuple[str, bytes], hash_tag: bytes) -> Appended | None:
        """What to say of a message that came before, or None for a new one."""
        waiting = self._buffer.repeats.get(key)
        if waiting is not None:
            return Appended(Appending.BUFFERED, self._buffer.ticket()) if waiting == hash_tag else None
        if not device.repeats or self._tables is None:
            return None
        try:
            known = self._tables.repeat(device.row.ref, key[1])
        except sqlite3.Error as error:
            self._fail(failure(error))
            return Appended(Appending.FULL)  # whether it came before cannot be known now: it may come again
        if known != hash_tag:
            return None
        self._counters.add("gateway_spool_repeated")
        return Appended(Appending.REPEATED)

    def _fits(self, size: int, entries: int) -> bool:
        """Whether a frame that may not be dropped later can be taken."""
        bounds, buffer = self._bounds, self._buffer
        most_bytes, most_entries = self._most
        return (
            not self._failing
            and self._outlet.bytes + buffer.bytes + size <= most_bytes
            and self._outlet.entries + len(buffer.entries) + entries <= most_entries
            and buffer.bytes + size <= bounds.buffer_bytes
            and len(buffer.entries) + entries <= bounds.buffer_entries
        )

    def _buffer_entry(
        self,
        lane: TrafficClass,
        ref: int,
        at: float,
        keep: int,
        packed: bytes,
        frame_hash: bytes,
        *,
        opens_frame: bool = False,
    ) -> None:
        """Give the next sequence to ``packed`` (which holds it already), seal it, and let it wait for the commit."""
        self._sequence += 1
        sealed = self._sealer.seal(self._sequence, packed, entry_aad(lane, ref))
        row = EntryRow(
            self._next_id, self._epoch.epoch, self._sequence, lane, ref, at, keep, len(sealed) + ROW_BYTES, sealed
        )
        self._next_id += 1
        self._buffer.add(Pending(row, packed, frame_hash, opens_frame))
        shed = self._buffer.shed(self._bounds.buffer_bytes, self._bounds.buffer_entries, self._runs)
        self._count_dropped(shed, DISK)

    def _count_dropped(self, count: int, cause: str) -> None:
        if count:
            self._dropped += count
            self._counters.add("gateway_spool_dropped", cause.replace(" ", "-"), count)
            self._emit(EntriesDropped(count, cause))

    # committing

    def must_commit(self) -> bool:
        """Whether there is anything for `commit` to do."""
        return bool(self._outlet.released) or self.commit_is_urgent()

    def commit_is_urgent(self) -> bool:
        """See `SpoolStorage.commit_is_urgent`."""
        if self._buffer.entries or self._buffer.tickets or self._devices.touched or self._outlet.refusing:
            return True
        return bool(
            self._meta
            or self._runs.changed
            or self._epoch.clean
            or self._failing  # a read failed: only a commit shows that it is over
            or (len(self._runs) and self._is_roomy())
        )

    def commit(self, now: float) -> Committed:
        """Make everything buffered durable: one transaction, one sync. When the disk refuses, all is kept."""
        self._tell_gaps(now)
        if not self.must_commit():
            return Committed(True)
        before = self._runs.snapshot()
        try:
            if self._tables is None:
                self._attach()
                before = self._runs.snapshot()
            group = self._group()
            assert self._tables is not None, "attached above"
            outcome = write_group(
                self._tables,
                group,
                self._runs,
                self._outlet.in_flight,
                self._outlet.evict_from,
                self._bounds.repeats,
                self._bounds.refused_entries,
            )
        except sqlite3.Error as error:
            self._runs.restore(before)
            self._fail(failure(error))
            return Committed(False)
        except (SpoolError, SecretsError):
            self._fail("io")
            return Committed(False)
        return self._committed(group, outcome, now)

    def _group(self) -> Group:
        refs = {device.urn: device.row.ref for device in self._speakers()}
        buffer, rows = self._buffer, [pending.row for pending in self._buffer.entries]
        # The reserve is for notices: it counts as room only while nothing but notices comes in.
        most_bytes, most_entries = self._most
        if buffer.notices_only():
            most_bytes, most_entries = self._bounds.max_bytes, self._bounds.max_entries
        return Group(
            meta=self._meta,
            epochs=[*self._unwritten_epochs, replace(self._epoch, last=self._sequence)],
            forget_epochs=self._stale_epochs,
            devices=self._devices.changed(),
            entries=rows,
            released=self._outlet.released,
            refusing=self._outlet.refusing,
            repeats=[(refs[urn], tag, hash_tag) for (urn, tag), hash_tag in buffer.repeats.items()],
            trim_repeats=[d.row.ref for d in self._speakers() if d.repeats > self._repeats_trimmed_at],
            ledger=[(p.row.device, p.frame_hash, int(p.opens_frame)) for p in buffer.entries if p.frame_hash]
            if self._keep_ledger
            else (),
            over_bytes=self._outlet.bytes + buffer.bytes - most_bytes,
            over_entries=self._outlet.entries + len(rows) - most_entries,
            reserve_bytes=self._bounds.max_bytes - most_bytes,
            reserve_entries=self._bounds.max_entries - most_entries,
        )

    def _speakers(self) -> list[Device]:
        """The two-way devices of which numbered messages wait."""
        urns = {urn for urn, _ in self._buffer.repeats}
        return [device for urn in urns if (device := self._devices.get(urn)) is not None]

    def _committed(self, group: Group, outcome: Outcome, now: float) -> Committed:
        """The transaction is durable: memory follows."""
        buffer = self._buffer
        tickets, entries = tuple(buffer.tickets), len(buffer.entries)
        self._epoch.last = self._sequence
        self._outlet.committed(buffer.entries, buffer.bytes, outcome)
        self._refused = min(self._refused + outcome.refused, self._bounds.refused_entries)
        for device in self._speakers():
            if device.repeats > self._repeats_trimmed_at:
                device.repeats = self._bounds.repeats
            device.repeats += sum(urn == device.urn for urn, _ in buffer.repeats)
        buffer.clear()
        self._meta, self._unwritten_epochs, self._stale_epochs = [], [], []
        self._devices.touched.clear()
        self._runs.changed.clear()
        self._counters.add("gateway_spool_commits")
        self._counters.add("gateway_spool_entries", by=entries)
        self._count_dropped(sum(outcome.dropped.values()), FULL)
        if self._failing:
            self._failing = ""
            self._emit(SpoolRecovered())
        if self._marked_at is None or now - self._marked_at >= ALIVE_EVERY:
            self._write_mark()
            self._marked_at = now
        return Committed(True, tickets, entries)

    def _tell_gaps(self, now: float) -> None:
        """Turn runs into notices: at once while there is room, seldom while it stays full, not while the disk fails."""
        if not len(self._runs) or self._failing:
            return
        due = self._outlet.progress and (self._told_at is None or now - self._told_at >= TELL_EVERY)
        if not due and not self._is_roomy():
            return
        self._told_at, self._outlet.progress = now, False
        for run in self._runs.take():
            urn = self._devices.names().get(run.device, "")
            notice = Gap(urn, run.epoch, run.first, run.last, run.count, run.start, run.end, run.cause)
            self.notify(urn, notice, self._wall())

    def _is_roomy(self) -> bool:
        most_bytes, most_entries = self._most
        return self._outlet.bytes < TELL_BELOW * most_bytes and self._outlet.entries < TELL_BELOW * most_entries

    def _fail(self, reason: str) -> None:
        """The disk refuses: say so once, and leave a damaged file for the next commit to replace."""
        self._counters.add("gateway_spool_commit_failed", reason)
        if reason == "damaged" and self._tables is not None:
            self._tables.close()
            self._tables = None
        if self._failing != reason:
            self._failing = reason
            self._emit(SpoolFailing(reason))

    def _write_mark(self) -> None:
        if self._mark is not None and not write_mark(
            self._mark, Mark(self._epoch.epoch, self._epoch.last, self._wall())
        ):
            self._counters.add("gateway_spool_mark_failed")

    # giving out

    def waiting(self, highest: TrafficClass = TrafficClass.BULK) -> bool:
        """Whether an entry of a class up to ``highest`` waits to be sent."""
        return self._outlet.waiting(highest)

    def next_batch(self, limit: int, now: float, highest: TrafficClass = TrafficClass.BULK) -> list[Stored]:
        """The next entries to send; see `SpoolStorage.next_batch`."""
        if self._tables is None:
            return []
        room = self._bounds.in_flight - len(self._outlet.in_flight)
        try:
            return self._outlet.take(limit, highest, room)
        except sqlite3.Error as error:
            self._fail(failure(error))
            return []

    def release(self, ids: Sequence[int]) -> None:
        """The cloud holds them: let go. The rows go with the next commit; a crash before it sends them again."""
        self._outlet.release(ids)

    def give_back(self, ids: Sequence[int]) -> None:
        """They were not delivered: they wait again, in their old place."""
        self._outlet.give_back(ids)

    def refuse(self, ids: Sequence[int], cause: str) -> None:
        """The cloud will never take them: set them aside, and record the gap."""
        self._outlet.refuse(ids, cause)

    # saying how it is

    def status(self) -> SpoolStatus:
        """The spool's state now."""
        return SpoolStatus(
            epoch=self._epoch.epoch,
            last_sequence=self._epoch.last,
            entries=self._outlet.entries,
            bytes=self._outlet.bytes,
            max_bytes=self._bounds.max_bytes,
            buffered=len(self._buffer.entries),
            in_flight=len(self._outlet.in_flight),
            refused=self._refused,
            dropped=self._dropped,
            failing=self._failing,
            opening=self._opening.cause,
        )

    def ledger(self) -> dict[str, Multiset[bytes]]:
        """By device, how many entries of each frame hash were ever committed; empty where no ledger is kept.

        Notices are not in it. Entries dropped since for want of space are. Raises `sqlite3.Error`.
        """
        return self._counted((ref, name, entries) for ref, name, entries, _ in self._ledger_rows())

    def frames(self) -> dict[str, Multiset[bytes]]:
        """By device, how many frames of each hash were ever committed; else like `ledger`."""
        return self._counted((ref, name, frames) for ref, name, _, frames in self._ledger_rows())

    def _ledger_rows(self) -> list[tuple[int, bytes, int, int]]:
        return [] if self._tables is None else self._tables.ledger()

    def _counted(self, rows: Iterable[tuple[int, bytes, int]]) -> dict[str, Multiset[bytes]]:
        counts: dict[str, Multiset[bytes]] = {}
        urns = self._devices.names()
        for ref, name, count in rows:
            counts.setdefault(urns.get(ref, ""), Multiset())[name] += count
        return counts

    def pragma(self, name: str) -> object:
        """A setting as the open connection has it (for `doctor` and the tests)."""
        return None if self._tables is None else self._tables.pragma(name)

    def next_event(self) -> SpoolEvent | None:
        """Take the oldest event, or None."""
        return self._events.popleft() if self._events else None

    def _emit(self, event: SpoolEvent) -> None:
        if len(self._events) < MAX_EVENTS:  # nobody listens: the counters still say what happened
            self._events.append(event)

    def close(self) -> None:
        """Commit what is buffered, mark the shutdown as clean, and let go of the file."""
        self._epoch.clean = True
        if self.commit(self._marked_at or 0.0).ok:
            self._write_mark()
        self.kill()

    def kill(self) -> None:
        """Let go of the file as a crash does: what is buffered is gone, and the next opening says so."""
        if self._tables is not None:
            self._tables.close()
            self._tables = None
        self._let_go()

    def _let_go(self) -> None:
        if self._held is not None:
            self._held.close()

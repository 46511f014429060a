"""Commit of deliveries: many requests, one transaction, each entry once.

(epoch, sequence) decides: an entry that is stored is a duplicate, whatever became of the acknowledgement of its first
copy. The decision is made in memory, from what was loaded when the epoch first spoke; the database's own unique
constraint stands behind it, and a second process that writes the same database makes us forget and read again.

An epoch belongs to the gateway that opened it and a device to the gateway that brought it first, so that one gateway
cannot speak for another's; a device moves when its former gateway has been revoked (or by `Store.move_device`).
"""

import enum
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import sqlalchemy as sa

from vitalgate.cloud.audit import Action, Audit
from vitalgate.cloud.store import epochs as epoch_rows
from vitalgate.cloud.store import record
from vitalgate.cloud.store.database import Database
from vitalgate.cloud.store.dialect import compile_counting, compile_insert, compile_update, run_text
from vitalgate.cloud.store.epochs import EpochState
from vitalgate.cloud.store.gateways import GatewayRow, ensure_gateway, entry_context, find_device, make_device
from vitalgate.cloud.store.latency import Latencies, bucket_of
from vitalgate.cloud.store.notices import release_quarantine, write_gap, write_quarantine
from vitalgate.cloud.store.schema import devices, entries, epochs, gateways, latency
from vitalgate.gateway.entry import Entry
from vitalgate.gateway.notice import DeviceGap, EpochOpened, Gap, Quarantined
from vitalgate.quick import quick
from vitalgate.vitals.observation import FRAME_HASH_BYTES, Samples

_COLUMNS: Final = (
    "epoch_id",
    "sequence",
    "device_id",
    "traffic_class",
    "received_at",
    "gateway_time",
    "observations",
    "samples",
    "sealed_content",
)
_Row = tuple[int, int, int | None, int, float, float, int, int, bytes]
_LATENCY_EVERY: Final = 5.0
MAX_SEQUENCE: Final = (1 << 63) - 1
_MAX_EPOCH: Final = (1 << 64) - 1


class Refusal(enum.Enum):
    """Why a delivery was refused whole; nothing of it is stored."""

    REVOKED = "revoked"
    FOREIGN_EPOCH = "foreign_epoch"
    FOREIGN_DEVICE = "foreign_device"
    OUT_OF_RANGE = "out_of_range"
    LIMIT = "limit"


@quick
@dataclass(frozen=True, slots=True)
class Delivery:
    """What one request brought: entries of the (authenticated) ``gateway``, under ``security`` (a slug)."""

    gateway: str
    entries: tuple[Entry, ...]
    security: str = ""


@quick
@dataclass(frozen=True, slots=True)
class Committed:
    """The outcome of one delivery: which of its entries are new in the store (the others were there), or why none is.

    ``received_at`` is the wall time that the new rows carry.
    """

    new: tuple[Entry, ...] = ()
    duplicates: int = 0
    refusal: Refusal | None = None
    received_at: float = 0.0


@dataclass(slots=True)
class _Device:
    id: int
    gateway_id: int


class _Refused(Exception):
    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.value)
        self.refusal = refusal


class Committer:
    """The hot path. One at a time: `Database.writing` holds the lock."""

    def __init__(self, database: Database, audit: Audit) -> None:
        self._database = database
        self._audit = audit
        self._insert = compile_insert(database.engine, entries, _COLUMNS)
        self._save_epochs = compile_update(database.engine, epochs, epoch_rows.SAVED)
        self._count_latencies = compile_counting(database.engine, latency, "bucket")
        self._gateways: dict[str, GatewayRow] = {}
        self._devices: dict[str, _Device] = {}
        self._epochs: dict[int, EpochState] = {}
        self._generation = -1
        self.latencies = Latencies()
        """Commit minus the device's last byte, of observations stored by this process."""
        self._pending = Latencies()
        self._pending_since: float | None = None

    def commit(self, batch: Sequence[Delivery]) -> list[Committed]:
        """Make every delivery durable, or none: the outcome of each, in order.

        Raises `StoreUnavailable` (then nothing of the batch is stored and all of it may be sent again).
        """
        try:
            return self._commit(batch)
        except sa.exc.IntegrityError:
            # Another process wrote the same entries since we read. Read again; a second clash is a fault of ours.
            return self._commit(batch)

    def _commit(self, batch: Sequence[Delivery]) -> list[Committed]:
        done = False
        try:
            with self._database.writing() as connection:
                received_at = self._database.wall()
                self._renew(connection)
                touched: dict[int, EpochState] = {}
                rows: list[_Row] = []
                outcomes = [self._take(connection, delivery, received_at, rows, touched) for delivery in batch]
                if rows:
                    run_text(connection, self._insert, rows)
                changed = [epoch_rows.saved(state) for state in touched.values() if state.settle()]
                if changed:
                    run_text(connection, self._save_epochs, changed)
                written = self._write_latencies(connection, received_at)
            done = True
        finally:
            if not done:
                self.forget()
        if written:
            self._pending, self._pending_since = Latencies(), None
        self._measure(outcomes)
        return outcomes

    def forget(self) -> None:
        """Drop what is held in memory; it is read again when needed."""
        self._gateways.clear()
        self._devices.clear()
        self._epochs.clear()

    def _renew(self, connection: sa.Connection) -> None:
        generation = self._database.generation(connection)
        if generation != self._generation:
            self.forget()
            self._generation = generation

    # one delivery

    def _take(
        self,
        connection: sa.Connection,
        delivery: Delivery,
        received_at: float,
        rows: list[_Row],
        touched: dict[int, EpochState],
    ) -> Committed:
        try:
            gateway = self._gateway(connection, delivery)
            # Everything that can refuse the delivery is asked before anything of it is taken.
            states = [self._epoch(connection, entry, gateway, received_at) for entry in delivery.entries]
            homes = [self._device(connection, entry.device, gateway) for entry in delivery.entries]
            for entry in delivery.entries:
                if isinstance(entry.notice, Gap | DeviceGap):
                    self._device(connection, entry.notice.device, gateway)
        except _Refused as refused:
            return Committed(refusal=refused.refusal, received_at=received_at)
        new: list[Entry] = []
        keys = self._database.keys
        for entry, state, home in zip(delivery.entries, states, homes, strict=True):
            sequence = entry.sequence
            if sequence in state.stored:
                continue
            state.stored.add(sequence, sequence)
            state.changed = True
            touched[state.id] = state
            new.append(entry)
            notice = entry.notice
            if notice is None:
                content = record.encode(entry.frame_hash, entry.observations)
                samples = sum(len(o.value) for o in entry.observations if isinstance(o.value, Samples))
            else:
                content, samples = record.encode_notice(notice), 0
                self._notice(connection, entry, state, gateway, received_at, touched)
            sealed = keys.seal(content, entry_context(entry.epoch, sequence, entry.device))
            rows.append(
                (
                    state.id,
                    sequence,
                    None if home is None else home.id,
                    int(entry.traffic_class),
                    received_at,
                    entry.gateway_time,
                    len(entry.observations),
                    samples,
                    sealed,
                )
            )
        return Committed(tuple(new), len(delivery.entries) - len(new), None, received_at)

    def _gateway(self, connection: sa.Connection, delivery: Delivery) -> GatewayRow:
        name = delivery.gateway
        row = self._gateways.get(name)
        if row is None:
            row = ensure_gateway(self._database, connection, name, delivery.security)
            if row is None:
                raise _Refused(Refusal.LIMIT)
        if row.is_revoked:
            raise _Refused(Refusal.REVOKED)
        if row.security != delivery.security:
            connection.execute(sa.update(gateways).where(gateways.c.id == row.id).values(security=delivery.security))
            row = GatewayRow(row.id, name, delivery.security, row.created_at, row.revoked_at)
        self._gateways[name] = row
        return row

    def _epoch(self, connection: sa.Connection, entry: Entry, gateway: GatewayRow, now: float) -> EpochState:
        if not _in_range(entry):
            raise _Refused(Refusal.OUT_OF_RANGE)
        state = self._held(connection, entry.epoch)
        if state is None:
            state = epoch_rows.make(connection, entry.epoch, gateway.id, now)
            if state is None:
                raise _Refused(Refusal.LIMIT)
            self._epochs[entry.epoch] = state
        if state.gateway_id != gateway.id:
            raise _Refused(Refusal.FOREIGN_EPOCH)
        return state

    def _held(self, connection: sa.Connection, epoch: int) -> EpochState | None:
        state = self._epochs.get(epoch)
        if state is None:
            state = epoch_rows.find(connection, epoch)
            if state is not None:
                self._epochs[epoch] = state
        return state

    def _own(self, connection: sa.Connection, epoch: int, gateway: GatewayRow, now: float) -> EpochState | None:
        """An epoch that a notice speaks of, made where it is new; None where it is another gateway's."""
        state = self._held(connection, epoch)
        if state is None:
            state = epoch_rows.make(connection, epoch, gateway.id, now)
            if state is None:
                return None
            self._epochs[epoch] = state
        return state if state.gateway_id == gateway.id else None

    def _device(self, connection: sa.Connection, urn: str, gateway: GatewayRow) -> _Device | None:
        if not urn:
            return None
        known = self._devices.get(urn)
        if known is None:
            row = find_device(self._database, connection, urn) or make_device(
                self._database, connection, urn, gateway.id
            )
            if row is None:
                raise _Refused(Refusal.LIMIT)
            known = self._devices[urn] = _Device(row.id, row.gateway_id)
        if known.gateway_id != gateway.id:
            former = connection.execute(
                sa.select(gateways.c.revoked_at).where(gateways.c.id == known.gateway_id)
            ).scalar()
            if former is None:
                raise _Refused(Refusal.FOREIGN_DEVICE)
            connection.execute(sa.update(devices).where(devices.c.id == known.id).values(gateway_id=gateway.id))
            self._audit.append(connection, Action.DEVICE_MOVED, actor=gateway.name, subject=urn)
            known.gateway_id = gateway.id
        return known

    def _notice(
        self,
        connection: sa.Connection,
        entry: Entry,
        state: EpochState,
        gateway: GatewayRow,
        now: float,
        touched: dict[int, EpochState],
    ) -> None:
        notice = entry.notice
        if isinstance(notice, EpochOpened):
            release_quarantine(connection, gateway.id, entry.gateway_time)
            if not notice.previous_epoch or notice.previous_epoch == entry.epoch:
                return
            state.previous_epoch, state.previous_last = notice.previous_epoch, notice.previous_sequence
            before = self._own(connection, notice.previous_epoch, gateway, now)
            if before is not None:
                before.closed_at_last = max(before.closed_at_last or 0, notice.previous_sequence)
                before.changed = True
                touched[before.id] = before
        elif isinstance(notice, Gap):
            home = self._device(connection, notice.device, gateway)
            write_gap(connection, state.id, entry, notice, None if home is None else home.id)
            of = self._own(connection, notice.epoch, gateway, now)
            if of is not None:
                of.declared.add(notice.first_sequence, notice.last_sequence)
                of.changed = True
                touched[of.id] = of
        elif isinstance(notice, DeviceGap):
            home = self._device(connection, notice.device, gateway)
            write_gap(connection, state.id, entry, notice, None if home is None else home.id)
        elif isinstance(notice, Quarantined) and state.closed_at_last is None:  # else it has started again since
            write_quarantine(self._database, connection, gateway.id, notice, entry.gateway_time)

    # latency

    def _measure(self, outcomes: list[Committed]) -> None:
        """Count latencies once the commit has returned."""
        now = self._database.wall()
        for outcome in outcomes:
            for entry in outcome.new:
                if entry.notice is None:
                    seconds = now - entry.gateway_time
                    bucket = bucket_of(seconds)
                    self.latencies.add_to(bucket, seconds)
                    self._pending.add_to(bucket, seconds)
        if self._pending_since is None:
            self._pending_since = now
        while len(self._epochs) > epoch_rows.MAX_HELD:
            del self._epochs[next(iter(self._epochs))]

    def _write_latencies(self, connection: sa.Connection, now: float, *, at_once: bool = False) -> bool:
        since = self._pending_since
        if since is None or (not at_once and 0 <= now - since < _LATENCY_EVERY):
            return False
        rows = self._pending.rows()
        if rows:
            run_text(connection, self._count_latencies, rows)
        return True

    def flush(self) -> None:
        """Write down latencies that wait for the next commit."""
        if self._pending.buckets:
            with self._database.writing() as connection:
                self._write_latencies(connection, self._database.wall(), at_once=True)
            self._pending, self._pending_since = Latencies(), None


def _in_range(entry: Entry) -> bool:
    """Whether every number fits the columns it goes to (a decoder promises types, not sizes)."""
    own = (
        0 < entry.sequence <= MAX_SEQUENCE
        and 0 <= entry.epoch <= _MAX_EPOCH
        and math.isfinite(entry.gateway_time)  # SQL takes what is not a number for nothing at all
        and len(entry.frame_hash) == FRAME_HASH_BYTES
    )
    notice = entry.notice
    if notice is None or not own:
        return own
    epochs: list[int] = []
    counts: list[int] = []
    times: list[float] = []
    if isinstance(notice, EpochOpened):
        epochs.append(notice.previous_epoch)
        counts.append(notice.previous_sequence)
    elif isinstance(notice, Gap):
        epochs.append(notice.epoch)
        counts += [notice.first_sequence, notice.last_sequence, notice.count]
        times += [notice.start, notice.end]
    elif isinstance(notice, DeviceGap):
        counts.append(notice.size)
        times += [notice.start, notice.end]
    elif isinstance(notice, Quarantined):
        counts.append(notice.frames)
        times.append(notice.since)
    return (
        all(0 <= epoch <= _MAX_EPOCH for epoch in epochs)
        and all(0 <= count <= MAX_SEQUENCE for count in counts)
        and all(map(math.isfinite, times))
    )

"""Questions to the store: for the dashboard, the command line, and the accounting of what was lost or doubled."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from vitalgate.cloud.store import epochs as epoch_rows
from vitalgate.cloud.store import record
from vitalgate.cloud.store.database import Database
from vitalgate.cloud.store.gateways import (
    DeviceRow,
    GatewayRow,
    all_devices,
    all_gateways,
    entry_context,
    find_device,
)
from vitalgate.cloud.store.latency import Latencies, LatencySummary
from vitalgate.cloud.store.notices import QuarantineRow, read_quarantine
from vitalgate.cloud.store.schema import devices, entries, epochs, gaps, gateways, latency, unsigned
from vitalgate.vitals.observation import Observation, TrafficClass


@dataclass(frozen=True, slots=True)
class StoredEntry:
    """One entry with its observations opened; ``observations`` is empty for a notice."""

    device: str
    epoch: int
    sequence: int
    traffic_class: TrafficClass
    received_at: float
    gateway_time: float
    frame_hash: bytes
    observations: tuple[Observation, ...]


@dataclass(frozen=True, slots=True)
class GapRow:
    """A gap. ``kind`` is 'dropped' (entries numbered, then dropped: ``count`` of ``first``..``last`` of ``epoch``) or
    'device' (what a device said unheard; ``size`` damaged bytes where that is the cause)."""

    gateway: str
    device: str
    kind: str
    cause: str
    start: float
    end: float
    epoch: int
    first: int
    last: int
    count: int
    size: int


@dataclass(frozen=True, slots=True)
class EpochAccount:
    """The account of one epoch of a gateway's spool.

    ``highest`` is the last sequence known to exist, ``contiguous`` the mark up to which all is accounted for,
    ``stored`` how many entries the store took, ``declared`` how many gap notices counted as dropped and did not come
    after all (a gateway may drop what is here, unknown to it). ``holes`` are sequences that exist, are not stored and
    lie in no declared range: on their way, or lost.
    """

    gateway: str
    epoch: int
    previous_epoch: int | None
    highest: int
    contiguous: int
    stored: int
    declared: int
    holes: tuple[tuple[int, int], ...]

    @property
    def missing(self) -> int:
        """How many existing sequences are neither stored nor counted as dropped; 0 when all is delivered."""
        return max(0, self.highest - self.stored - self.declared)


@dataclass(frozen=True, slots=True)
class Totals:
    """How much the store holds."""

    gateways: int
    devices: int
    entries: int
    observations: int
    samples: int
    dropped: int
    device_gaps: int
    quarantined: int


class Reader:
    """Reads. Each call sees one consistent state; nothing here writes."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def gateways(self) -> list[GatewayRow]:
        """Every gateway, oldest first."""
        with self._database.reading() as connection:
            return all_gateways(self._database, connection)

    def devices(self) -> list[DeviceRow]:
        """Every device, oldest first."""
        with self._database.reading() as connection:
            return all_devices(self._database, connection)

    def latest(self, urn: str, limit: int = 100) -> list[StoredEntry]:
        """The newest ``limit`` entries of a device by gateway time, newest first; [] for an unknown device."""
        return self._entries(urn, limit, newest_first=True)

    def between(self, urn: str, start: float, end: float, limit: int = 10_000) -> list[StoredEntry]:
        """Entries of a device with gateway time in [``start``, ``end``), oldest first, at most ``limit``."""
        return self._entries(urn, limit, start=start, end=end)

    def _entries(
        self,
        urn: str,
        limit: int,
        *,
        start: float | None = None,
        end: float | None = None,
        newest_first: bool = False,
    ) -> list[StoredEntry]:
        with self._database.reading() as connection:
            device = find_device(self._database, connection, urn)
            if device is None:
                return []
            query = sa.select(entries, epochs.c.epoch).join(epochs).where(entries.c.device_id == device.id)
            if start is not None:
                query = query.where(entries.c.gateway_time >= start)
            if end is not None:
                query = query.where(entries.c.gateway_time < end)
            if newest_first:
                query = query.order_by(entries.c.gateway_time.desc(), entries.c.id.desc())
            else:
                query = query.order_by(entries.c.gateway_time, entries.c.id)
            return [
                self._open(connection, urn, unsigned(row.epoch), row)
                for row in connection.execute(query.limit(limit)).all()
            ]

    def _open(self, connection: sa.Connection, urn: str, epoch: int, row: sa.Row[tuple[object, ...]]) -> StoredEntry:
        content = self._database.keys.unseal(connection, row.sealed_content, entry_context(epoch, row.sequence, urn))
        return StoredEntry(
            urn,
            epoch,
            row.sequence,
            TrafficClass(row.traffic_class),
            row.received_at,
            row.gateway_time,
            record.frame_hash_of(content),
            record.decode(content, urn, epoch, row.sequence),
        )

    def frame_hashes(self) -> dict[str, Counter[bytes]]:
        """For each device's URN the multiset of raw-frame hashes, one for each entry with observations.

        This is what lost and duplicated entries are counted by: a frame whose observations travel in two classes
        counts twice, here and in the spool.
        """
        found: dict[str, Counter[bytes]] = {}
        keys = self._database.keys
        with self._database.reading() as connection:
            names = {row.id: row.urn for row in all_devices(self._database, connection)}
            query = (
                sa.select(entries.c.device_id, entries.c.sequence, entries.c.sealed_content, epochs.c.epoch)
                .join(epochs)
                .where(entries.c.observations > 0)
            )
            for device_id, sequence, sealed, epoch in connection.execute(query):
                urn = names[device_id] if device_id is not None else ""
                content = keys.unseal(connection, sealed, entry_context(unsigned(epoch), sequence, urn))
                found.setdefault(urn, Counter())[record.frame_hash_of(content)] += 1
        return found

    def gaps(self, *, limit: int = 1000) -> list[GapRow]:
        """The newest gaps first."""
        query = (
            sa.select(gaps, epochs.c.gateway_id)
            .join(epochs, gaps.c.epoch_id == epochs.c.id)
            .order_by(gaps.c.id.desc())
            .limit(limit)
        )
        with self._database.reading() as connection:
            homes = {row.id: row.name for row in all_gateways(self._database, connection)}
            names = {row.id: row.urn for row in all_devices(self._database, connection)}
            return [
                GapRow(
                    gateway=homes[row.gateway_id],
                    device="" if row.device_id is None else names[row.device_id],
                    kind=row.kind,
                    cause=row.cause,
                    start=row.start_time,
                    end=row.end_time,
                    epoch=0 if row.gap_epoch is None else unsigned(row.gap_epoch),
                    first=row.first_sequence or 0,
                    last=row.last_sequence or 0,
                    count=row._mapping[gaps.c.count],
                    size=row.size,
                )
                for row in connection.execute(query).all()
            ]

    def quarantine(self) -> list[QuarantineRow]:
        """Every source in quarantine, the latest heard first."""
        with self._database.reading() as connection:
            homes = {row.id: row.name for row in all_gateways(self._database, connection)}
            return read_quarantine(self._database, connection, homes)

    def accounts(self) -> list[EpochAccount]:
        """The account of every epoch, oldest first."""
        with self._database.reading() as connection:
            return list(self._accounts(connection))

    def _accounts(self, connection: sa.Connection) -> Iterator[EpochAccount]:
        homes = {row.id: row.name for row in all_gateways(self._database, connection)}
        runs: dict[int, list[tuple[int, int, int]]] = {}
        told = sa.select(gaps.c.gap_epoch, gaps.c.first_sequence, gaps.c.last_sequence, gaps.c.count)
        for of, first, last, dropped in connection.execute(told.where(gaps.c.gap_epoch.is_not(None))).all():
            runs.setdefault(of, []).append((first, last, dropped))
        for row in connection.execute(sa.select(epochs).order_by(epochs.c.id)).all():
            state = epoch_rows.load(connection, row)
            yield EpochAccount(
                gateway=homes[row.gateway_id],
                epoch=state.epoch,
                previous_epoch=state.previous_epoch,
                highest=max(state.stored.highest, state.declared.highest, state.closed_at_last or 0),
                contiguous=state.contiguous,
                stored=sum(last - first + 1 for first, last in state.stored),
                declared=sum(
                    min(dropped, last - first + 1 - state.stored.count(first, last))
                    for first, last, dropped in runs.get(row.epoch, ())
                ),
                holes=tuple(state.holes()),
            )

    def totals(self) -> Totals:
        """How much there is."""
        with self._database.reading() as connection:

            def one(query: sa.Select[Any]) -> int:
                return int(connection.execute(query).scalar() or 0)

            count = sa.func.count()
            return Totals(
                gateways=one(sa.select(count).select_from(gateways)),
                devices=one(sa.select(count).select_from(devices)),
                entries=one(sa.select(count).select_from(entries)),
                observations=one(sa.select(sa.func.sum(entries.c.observations))),
                samples=one(sa.select(sa.func.sum(entries.c.samples))),
                dropped=one(sa.select(sa.func.sum(gaps.c.count))),
                device_gaps=one(sa.select(count).select_from(gaps).where(gaps.c.kind == "device")),
                quarantined=len(read_quarantine(self._database, connection, {})),
            )

    def latency(self) -> LatencySummary:
        """Latencies over the life of the store, from the device's last byte to the commit, as far as written down."""
        with self._database.reading() as connection:
            rows = connection.execute(sa.select(latency.c.bucket, latency.c.count, latency.c.maximum)).all()
        return Latencies(rows).summary()

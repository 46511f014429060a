"""What a notice changes in the tables besides its own entry."""

from dataclasses import dataclass
from typing import Final

import cbor2
import sqlalchemy as sa

from vitalgate.cloud.store.database import Database
from vitalgate.cloud.store.schema import gaps, quarantine, signed
from vitalgate.gateway.entry import Entry
from vitalgate.gateway.notice import DeviceGap, Gap, Quarantined

MAX_QUARANTINE: Final = 256
"""Quarantined sources kept for each gateway; a further one takes the place of the one silent longest."""
MAX_CAUSE: Final = 64
"""Characters of a cause that are kept."""


@dataclass(frozen=True, slots=True)
class QuarantineRow:
    """A device that spoke at a gateway without being enrolled there."""

    gateway: str
    kind: str
    port: str
    serial: str
    frames: int
    first_seen: float
    last_seen: float


def write_gap(
    connection: sa.Connection, epoch_id: int, entry: Entry, gap: Gap | DeviceGap, device_id: int | None
) -> None:
    """Write down a gap that ``entry`` declares; told twice, it is written once (the entry's own number sees to it)."""
    numbered = isinstance(gap, Gap)
    connection.execute(
        sa.insert(gaps).values(
            epoch_id=epoch_id,
            sequence=entry.sequence,
            kind="dropped" if numbered else "device",
            cause=gap.cause[:MAX_CAUSE],
            device_id=device_id,
            start_time=gap.start,
            end_time=gap.end,
            gap_epoch=signed(gap.epoch) if isinstance(gap, Gap) else None,
            first_sequence=gap.first_sequence if isinstance(gap, Gap) else None,
            last_sequence=gap.last_sequence if isinstance(gap, Gap) else None,
            count=gap.count if isinstance(gap, Gap) else 0,
            size=0 if isinstance(gap, Gap) else gap.size,
        )
    )


def _context(gateway_id: int) -> bytes:
    return b"quarantine " + gateway_id.to_bytes(8, "big")


def write_quarantine(
    database: Database, connection: sa.Connection, gateway_id: int, notice: Quarantined, last_seen: float
) -> None:
    """Write down what is known of a source in quarantine; an older report never overwrites a newer one.

    A release (no frames) is kept as a row too, which nobody is shown: a report from before it may still be under way.
    """
    keys = database.keys
    key = keys.lookup("quarantine", f"{notice.kind}\0{notice.port}\0{notice.serial}")
    mine = quarantine.c.gateway_id == gateway_id
    known = connection.execute(
        sa.select(quarantine.c.id, quarantine.c.last_seen).where(mine, quarantine.c.source_key == key)
    ).one_or_none()
    if known is not None:
        if last_seen >= known.last_seen:
            connection.execute(
                sa.update(quarantine)
                .where(quarantine.c.id == known.id)
                .values(frames=notice.frames, first_seen=notice.since, last_seen=last_seen)
            )
        return
    first_to_go = (quarantine.c.frames > 0, quarantine.c.last_seen)
    silent = connection.execute(sa.select(quarantine.c.id).where(mine).order_by(*first_to_go)).scalars().all()
    for row_id in silent[: max(0, len(silent) - MAX_QUARANTINE + 1)]:
        connection.execute(sa.delete(quarantine).where(quarantine.c.id == row_id))
    sealed = keys.seal(cbor2.dumps([notice.kind, notice.port, notice.serial]), _context(gateway_id))
    connection.execute(
        sa.insert(quarantine).values(
            gateway_id=gateway_id,
            source_key=key,
            sealed_content=sealed,
            frames=notice.frames,
            first_seen=notice.since,
            last_seen=last_seen,
        )
    )


def release_quarantine(connection: sa.Connection, gateway_id: int, until: float) -> None:
    """A gateway started at ``until``, perhaps with other enrolments: what it reported before is past."""
    connection.execute(
        sa.update(quarantine)
        .where(quarantine.c.gateway_id == gateway_id, quarantine.c.frames > 0, quarantine.c.last_seen <= until)
        .values(frames=0)
    )


def read_quarantine(database: Database, connection: sa.Connection, gateways: dict[int, str]) -> list[QuarantineRow]:
    """Every source in quarantine, the latest heard first."""
    found = []
    held = sa.select(quarantine).where(quarantine.c.frames > 0).order_by(quarantine.c.last_seen.desc())
    for row in connection.execute(held).all():
        kind, port, serial = cbor2.loads(database.keys.unseal(connection, row.sealed_content, _context(row.gateway_id)))
        name = gateways.get(row.gateway_id, "")
        found.append(QuarantineRow(name, kind, port, serial, row.frames, row.first_seen, row.last_seen))
    return found

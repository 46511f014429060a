"""What of each epoch is accounted for: held in memory for the hot path, read again from the rows when in doubt."""

from dataclasses import dataclass, field
from typing import Final

import sqlalchemy as sa

from vitalgate.cloud.store.ranges import Ranges
from vitalgate.cloud.store.schema import entries, epochs, gaps, signed, unsigned

MAX_HELD: Final = 512
"""Epochs held in memory; the one held longest goes first and is read again when it speaks."""
MAX_EPOCHS: Final = 100_000
"""Epochs one gateway may open in the life of the store."""


@dataclass(slots=True)
class EpochState:
    """One epoch. ``stored`` are sequences whose entries came, ``declared`` those a gap notice said were dropped."""

    id: int
    epoch: int
    gateway_id: int
    stored: Ranges
    declared: Ranges
    contiguous: int = 0
    previous_epoch: int | None = None
    previous_last: int | None = None
    closed_at_last: int | None = None
    changed: bool = field(default=False)

    def settle(self) -> bool:
        """Move the contiguous mark as far as it goes; whether it or the highest sequence has to be written."""
        mark = self.contiguous
        while True:
            following = max(self.stored.end_of(mark + 1), self.declared.end_of(mark + 1))
            if following <= mark:
                break
            mark = following
        self.contiguous = mark
        changed, self.changed = self.changed, False
        return changed

    def holes(self) -> list[tuple[int, int]]:
        """Sequences that must exist, are not stored, and were not declared lost: ranges, oldest first."""
        upto = max(self.stored.highest, self.declared.highest, self.closed_at_last or 0)
        known = Ranges([*self.stored, *self.declared])
        return list(known.missing(upto))


def load(connection: sa.Connection, row: sa.Row[tuple[object, ...]]) -> EpochState:
    """The state of an epoch as the tables have it.

    All of 1..contiguous is stored but for what was declared; beyond that (and within what was declared, where an entry
    may have come late after all) the rows themselves are asked.
    """
    declared = Ranges(
        connection.execute(
            sa.select(gaps.c.first_sequence, gaps.c.last_sequence).where(
                gaps.c.gap_epoch == row.epoch,
                gaps.c.epoch_id.in_(sa.select(epochs.c.id).where(epochs.c.gateway_id == row.gateway_id)),
            )
        ).all()
    )
    stored = Ranges()
    for first, last in declared.missing(row.contiguous):
        stored.add(first, last)
    ours = entries.c.epoch_id == row.id
    for first, last in declared:
        for sequence in connection.execute(
            sa.select(entries.c.sequence).where(ours, entries.c.sequence.between(first, last))
        ).scalars():
            stored.add(sequence, sequence)
    for sequence in connection.execute(
        sa.select(entries.c.sequence).where(ours, entries.c.sequence > row.contiguous).order_by(entries.c.sequence)
    ).scalars():
        stored.add(sequence, sequence)
    return EpochState(
        id=row.id,
        epoch=unsigned(row.epoch),
        gateway_id=row.gateway_id,
        stored=stored,
        declared=declared,
        contiguous=row.contiguous,
        previous_epoch=None if row.previous_epoch is None else unsigned(row.previous_epoch),
        previous_last=row.previous_last,
        closed_at_last=row.closed_at_last,
    )


def find(connection: sa.Connection, epoch: int) -> EpochState | None:
    """The state of ``epoch`` (unsigned), or None where it was never heard of."""
    row = connection.execute(sa.select(epochs).where(epochs.c.epoch == signed(epoch))).one_or_none()
    return None if row is None else load(connection, row)


def make(connection: sa.Connection, epoch: int, gateway_id: int, now: float) -> EpochState | None:
    """A new epoch of a gateway; None where the gateway has opened too many."""
    query = sa.select(sa.func.count()).select_from(epochs).where(epochs.c.gateway_id == gateway_id)
    if (connection.execute(query).scalar() or 0) >= MAX_EPOCHS:
        return None
    made = connection.execute(
        sa.insert(epochs).values(epoch=signed(epoch), gateway_id=gateway_id, created_at=now, contiguous=0, highest=0)
    ).inserted_primary_key
    assert made is not None
    # A gap may have been declared before the epoch itself was heard of.
    row = connection.execute(sa.select(epochs).where(epochs.c.id == int(made[0]))).one()
    return load(connection, row)


SAVED: Final = ("contiguous", "highest", "previous_epoch", "previous_last", "closed_at_last")


def saved(state: EpochState) -> tuple[int | None, ...]:
    """What is written of a state that changed: the columns `SAVED`, then its ``id``."""
    return (
        state.contiguous,
        max(state.stored.highest, state.declared.highest),
        None if state.previous_epoch is None else signed(state.previous_epoch),
        state.previous_last,
        state.closed_at_last,
        state.id,
    )

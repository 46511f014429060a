"""Retention: entries older than the policy are deleted in small steps, overwritten in the file, and audited."""

from dataclasses import dataclass
from typing import Final

import sqlalchemy as sa

from vitalgate.cloud.audit import Action
from vitalgate.cloud.store.dialect import give_back_space
from vitalgate.cloud.store.schema import entries, epochs
from vitalgate.cloud.store.store import Store

DAY: Final = 86_400.0
STEP: Final = 2_000
"""Entries deleted in one transaction: ingest waits no longer than that takes."""
_PAGES: Final = 4_096


@dataclass(frozen=True, slots=True)
class RetentionPolicy:
    """How long observations are kept, in seconds since they were received; None keeps them for ever."""

    observations: float | None = 90 * DAY


class Retention:
    """Applies a policy to a store, one step a call."""

    def __init__(self, store: Store, policy: RetentionPolicy) -> None:
        if policy.observations is not None and policy.observations < DAY:
            raise ValueError("observations are kept for a day at least")
        self._store = store
        self._policy = policy
        self._deleted = 0
        self._kept = 0

    def step(self) -> int:
        """Look at the next `STEP` entries and delete what is too old. Call again while it returns more than 0.

        Only what is accounted for goes: an entry beyond its epoch's contiguous mark is kept, because its row is what
        makes a second copy of it known as a duplicate. Raises `StoreUnavailable`.
        """
        if self._policy.observations is None:
            return 0
        database = self._store.database
        before = database.wall() - self._policy.observations
        with database.writing() as connection:
            # Rows are numbered as they come, so the oldest are the lowest and no index on time is needed.
            oldest = connection.execute(
                sa.select(entries.c.id, entries.c.received_at, entries.c.sequence, epochs.c.contiguous)
                .join(epochs)
                .where(entries.c.id > self._kept)
                .order_by(entries.c.id)
                .limit(STEP)
            ).all()
            old = [row for row in oldest if row.received_at < before]
            gone = [row.id for row in old if row.sequence <= row.contiguous]
            if gone:
                connection.execute(sa.delete(entries).where(entries.c.id.in_(gone)))
            self._deleted += len(gone)
            more = len(old) == STEP
            if not more and self._deleted:
                self._store.audit.append(connection, Action.RETENTION, detail=f"{self._deleted} entries deleted")
        self._kept = max((row.id for row in old), default=0) if more else 0
        if not more:
            self._deleted = 0
        if gone:
            give_back_space(database.engine, _PAGES)
        return len(old) if more else 0

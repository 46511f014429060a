"""One database: opened, brought to this version's schema, checked against its keys, one write transaction at a time."""

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import sqlalchemy as sa

from vitalgate.cloud.store import dialect
from vitalgate.cloud.store.errors import StoreError
from vitalgate.cloud.store.keys import Keys
from vitalgate.cloud.store.migrate import migrate
from vitalgate.cloud.store.schema import meta
from vitalgate.engine import Randomness, Wall
from vitalgate.gateway.secrets import KeySource

_GENERATION: Final = "generation"
_READ_GENERATION: Final = f"SELECT value FROM {meta.name} WHERE name = '{_GENERATION}'"  # noqa: S608 - constants


@contextlib.contextmanager
def answering() -> Iterator[None]:
    """Turn a database error that waiting may cure into `StoreUnavailable`; other errors are faults and pass."""
    try:
        yield
    except sa.exc.DBAPIError as error:
        known = dialect.unavailable(error)
        if known is not None:
            raise known from error
        raise


class Database:
    """What every part of the store stands on. Safe for threads: readers have connections of their own."""

    def __init__(
        self,
        location: str | Path,
        keys: KeySource,
        *,
        wall: Wall = time.time,
        randomness: Randomness = os.urandom,
        busy_timeout_ms: int = dialect.BUSY_TIMEOUT_MS,
    ) -> None:
        """Open or make it. Raises `StoreError` (its kinds say what is wrong) and `SecretsError` of the key source."""
        self.wall = wall
        self.randomness = randomness
        self.keys = Keys(keys, randomness)
        self.engine = dialect.open_engine(location, busy_timeout_ms=busy_timeout_ms)
        self._writer = dialect.for_holding(self.engine)
        self._lock = threading.Lock()
        self._held: tuple[sa.Pool, sa.Connection] | None = None
        try:
            self._attach()
        except BaseException:
            self.engine.dispose()
            raise

    def _attach(self) -> None:
        migrate(self.engine)
        with answering(), dialect.for_writing(self.engine).begin() as connection:
            new = connection.execute(sa.select(sa.func.count()).select_from(meta)).scalar() == 0
            self.keys.attach(connection, new=new)
            if new:
                connection.execute(sa.insert(meta).values(name=_GENERATION, value=b"\0" * 8))

    def close(self) -> None:
        """Fold the write-ahead log in and close every connection."""
        with self._lock:
            self.keys.end_run()
            self._let_go()
            with contextlib.suppress(sa.exc.DBAPIError):  # closing must not fail for want of space; the log stays whole
                dialect.fold_log(self.engine)
            self.engine.dispose()

    def kill(self) -> None:
        """Let go of the database as a crash does: what waits in memory is lost, nothing is folded in."""
        self._let_go()
        self.engine.dispose()

    @contextlib.contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """One write transaction: committed and durable when the block ends, undone when it raises. Not to be nested.

        Raises `StoreUnavailable` when it cannot be written now.
        """
        with self._lock, answering():
            connection = self._hold()
            if not self.keys.in_run:
                with dialect.transaction(connection):
                    run = self.keys.begin_run(connection)
                self.keys.use_run(run)
            with dialect.transaction(connection):
                yield connection

    def _hold(self) -> sa.Connection:
        """The one connection that writes, kept between transactions; a new one when the engine's pool is new."""
        if self._held is None or self._held[0] is not self.engine.pool or self._held[1].invalidated:
            self._let_go()
            self._held = (self.engine.pool, self._writer.connect())
        return self._held[1]

    def _let_go(self) -> None:
        if self._held is not None:
            held, self._held = self._held[1], None
            held.close()

    @contextlib.contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """One consistent view of the database."""
        with answering(), self.engine.begin() as connection:
            yield connection

    def changed(self, connection: sa.Connection) -> None:
        """Say, within a write transaction, that something other processes hold in memory has changed."""
        number = self.generation(connection) + 1
        connection.execute(sa.update(meta).where(meta.c.name == _GENERATION).values(value=number.to_bytes(8, "big")))

    def generation(self, connection: sa.Connection) -> int:
        """The number of such changes so far."""
        row = dialect.run_text(connection, _READ_GENERATION)  # asked at every commit
        if row is None:
            raise StoreError("the store's generation mark is missing: restore the store from a backup")
        return int.from_bytes(bytes(row[0]), "big")

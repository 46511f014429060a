"""`Store`: the cloud's store behind one object."""

import os
import time
from collections.abc import Sequence
from pathlib import Path

import sqlalchemy as sa

from vitalgate.cloud.audit import Action, Audit
from vitalgate.cloud.store import dialect
from vitalgate.cloud.store.commit import Committed, Committer, Delivery
from vitalgate.cloud.store.database import Database
from vitalgate.cloud.store.enrolment import SqlEnrolmentStore
from vitalgate.cloud.store.errors import StoreError, StoreUnavailable
from vitalgate.cloud.store.gateways import find_device, find_gateway, set_revoked
from vitalgate.cloud.store.latency import LatencySummary
from vitalgate.cloud.store.read import Reader
from vitalgate.cloud.store.schema import devices
from vitalgate.engine import Randomness, Wall
from vitalgate.gateway.secrets import KeySource

MAX_LABEL = 64


class Store:
    """Opened once a process, used from any thread. ``read`` asks, ``audit`` records, `commit` takes deliveries."""

    def __init__(
        self,
        location: str | Path,
        keys: KeySource,
        *,
        wall: Wall = time.time,
        randomness: Randomness = os.urandom,
        busy_timeout_ms: int = dialect.BUSY_TIMEOUT_MS,
    ) -> None:
        """Open the database at ``location`` (a path), making or upgrading it.

        ``keys`` is the key store. Raises `StoreError` and its kinds, and `SecretsError` of the key store.
        """
        self.database = Database(location, keys, wall=wall, randomness=randomness, busy_timeout_ms=busy_timeout_ms)
        self.read = Reader(self.database)
        self.audit = Audit(self.database)
        self._committer = Committer(self.database, self.audit)

    def commit(self, batch: Sequence[Delivery]) -> list[Committed]:
        """Make deliveries durable in one transaction; each entry is stored once however often it comes.

        Raises `StoreUnavailable`: then nothing of the batch is stored, and all of it may be sent again.
        """
        return self._committer.commit(batch)

    def close(self) -> None:
        """Write down what waits (statistics) and close."""
        try:
            self._committer.flush()
        except StoreUnavailable:
            pass  # statistics alone are lost, and only where nothing can be written
        finally:
            self.database.close()

    def enrolment(self, actor: str = "") -> SqlEnrolmentStore:
        """The enrolment tables; what is changed through it is audited under ``actor``."""
        return SqlEnrolmentStore(self.database, self.audit, actor=actor)

    def latency(self) -> LatencySummary:
        """Latencies of what this process stored."""
        return self._committer.latencies.summary()

    def is_revoked(self, gateway: str) -> bool:
        """Whether a gateway's identity is revoked."""
        with self.database.reading() as connection:
            row = find_gateway(self.database, connection, gateway)
            return row is not None and row.is_revoked

    def set_revoked(self, gateway: str, revoked: bool = True, *, actor: str = "") -> None:
        """Refuse a gateway's deliveries from now on (or take them again); for gateways without enrolment."""
        with self.database.writing() as connection:
            if set_revoked(self.database, connection, gateway, revoked):
                action = Action.GATEWAY_REVOKED if revoked else Action.GATEWAY_RESTORED
                self.audit.append(connection, action, actor=actor, subject=gateway)

    def name_device(self, urn: str, label: str, *, actor: str = "") -> None:
        """Give a device the label people read. Raises `StoreError` for an unknown device or a label too long."""
        if len(label) > MAX_LABEL or not (label.isprintable() or not label):
            raise StoreError(f"a label has up to {MAX_LABEL} printable characters")
        with self.database.writing() as connection:
            row = find_device(self.database, connection, urn)
            if row is None:
                raise StoreError("there is no such device")
            sealed = self.database.keys.seal_text(label, f"label {urn}")
            connection.execute(sa.update(devices).where(devices.c.id == row.id).values(sealed_label=sealed))
            self.audit.append(connection, Action.DEVICE_NAMED, actor=actor, subject=urn, detail=label)

    def move_device(self, urn: str, gateway: str, *, actor: str = "") -> None:
        """Let another gateway speak for a device from now on. Raises `StoreError` where either is unknown."""
        with self.database.writing() as connection:
            row = find_device(self.database, connection, urn)
            home = find_gateway(self.database, connection, gateway)
            if row is None or home is None:
                raise StoreError("there is no such device, or no such gateway")
            connection.execute(sa.update(devices).where(devices.c.id == row.id).values(gateway_id=home.id))
            self.database.changed(connection)
            self.audit.append(connection, Action.DEVICE_MOVED, actor=actor, subject=urn, detail=gateway)

"""The audit trail: who did what, append-only, each row chained to the one before it.

``chain[n] = HMAC(key, chain[n-1] | number | time | action | sealed content)``, with a key that is not in the database:
who can write the file cannot change, insert, reorder or remove a row within the trail without :meth:`Audit.verify`
saying where. The head (number and chain) also stands in table ``meta``, so a cut tail shows as well. A file put back
whole is beyond any check inside it: note :meth:`Audit.head` outside from time to time (the cloud logs it at start).
The database refuses UPDATE and DELETE on the table besides.
"""

import enum
import hmac
import struct
from dataclasses import dataclass
from typing import Final

import cbor2
import sqlalchemy as sa

from vitalgate.cloud.store.database import Database
from vitalgate.cloud.store.errors import StoreKeyError
from vitalgate.cloud.store.schema import audit, meta

_HEAD: Final = "audit_head"
_ORIGIN: Final = bytes(32)
_FIXED: Final = struct.Struct(">Qd")
_MAX_TEXT: Final = 500


class Action(enum.Enum):
    """What is audited."""

    SIGNED_IN = "signed_in"
    SIGN_IN_FAILED = "sign_in_failed"
    LOCKED_OUT = "locked_out"
    SIGNED_OUT = "signed_out"
    LINK_CREATED = "link_created"
    LINK_USED = "link_used"
    USER_CREATED = "user_created"
    USER_CHANGED = "user_changed"
    PASSWORD_SET = "password_set"  # noqa: S105 - the name of an action
    CODE_CREATED = "code_created"
    GATEWAY_ENROLLED = "gateway_enrolled"
    ENROLMENT_REFUSED = "enrolment_refused"
    GATEWAY_REVOKED = "gateway_revoked"
    GATEWAY_RESTORED = "gateway_restored"
    DEVICE_NAMED = "device_named"
    DEVICE_MOVED = "device_moved"
    KEY_ROTATED = "key_rotated"
    RETENTION = "retention"


@dataclass(frozen=True, slots=True)
class AuditRow:
    """One row: ``actor`` did ``action`` to ``subject`` at wall time ``at``."""

    number: int
    at: float
    action: str
    actor: str
    subject: str
    detail: str


@dataclass(frozen=True, slots=True)
class AuditReport:
    """What `Audit.verify` found: ``rows`` good ones from the start, and the first fault ('' when there is none)."""

    rows: int
    head: bytes
    fault: str = ""

    @property
    def is_whole(self) -> bool:
        """True when nothing was changed."""
        return not self.fault


class Audit:
    """The trail of one store."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def append(
        self, connection: sa.Connection, action: Action, *, actor: str = "", subject: str = "", detail: str = ""
    ) -> int:
        """Append a row within a write transaction, so that deed and record stand or fall together; its number."""
        keys = self._database.keys
        number, previous = self._head(connection)
        number += 1
        at = self._database.wall()
        texts = [text[:_MAX_TEXT] for text in (actor, subject, detail)]
        sealed = keys.seal(cbor2.dumps(texts), _context(number))
        chain = keys.chain(previous, _linked(number, at, action.value, sealed))
        connection.execute(
            sa.insert(audit).values(number=number, at=at, action=action.value, sealed_content=sealed, chain=chain)
        )
        head = number.to_bytes(8, "big") + chain
        if number == 1:
            connection.execute(sa.insert(meta).values(name=_HEAD, value=head))
        else:
            connection.execute(sa.update(meta).where(meta.c.name == _HEAD).values(value=head))
        return number

    def record(self, action: Action, *, actor: str = "", subject: str = "", detail: str = "") -> int:
        """`append` in a transaction of its own."""
        with self._database.writing() as connection:
            return self.append(connection, action, actor=actor, subject=subject, detail=detail)

    def rows(self, *, limit: int = 100, before: int | None = None) -> list[AuditRow]:
        """The newest rows first, at most ``limit``, with numbers below ``before``."""
        query = sa.select(audit).order_by(audit.c.number.desc()).limit(limit)
        if before is not None:
            query = query.where(audit.c.number < before)
        with self._database.reading() as connection:
            found = []
            for row in connection.execute(query):
                content = self._database.keys.unseal(connection, row.sealed_content, _context(row.number))
                actor, subject, detail = cbor2.loads(content)
                found.append(AuditRow(row.number, row.at, row.action, actor, subject, detail))
            return found

    def head(self) -> tuple[int, bytes]:
        """The newest row's number and chain value (0 and zeros for an empty trail)."""
        with self._database.reading() as connection:
            return self._head(connection)

    def verify(self) -> AuditReport:
        """Walk the whole chain."""
        keys = self._database.keys
        number, chain = 0, _ORIGIN
        with self._database.reading() as connection:
            for row in connection.execute(sa.select(audit).order_by(audit.c.number)):
                if row.number != number + 1:
                    return AuditReport(number, chain, f"row {number + 1} is missing")
                wanted = keys.chain(chain, _linked(row.number, row.at, row.action, bytes(row.sealed_content)))
                if not hmac.compare_digest(wanted, bytes(row.chain)):
                    return AuditReport(number, chain, f"row {row.number} was changed")
                try:
                    keys.unseal(connection, row.sealed_content, _context(row.number))
                except StoreKeyError:
                    return AuditReport(number, chain, f"row {row.number} does not open")
                number, chain = row.number, bytes(row.chain)
            head_number, head_chain = self._head(connection)
        if head_number > number:
            return AuditReport(number, chain, f"the last {head_number - number} rows are missing")
        if (head_number, head_chain) != (number, chain):
            return AuditReport(number, chain, "the recorded head is not the last row")
        return AuditReport(number, chain)

    def _head(self, connection: sa.Connection) -> tuple[int, bytes]:
        value = connection.execute(sa.select(meta.c.value).where(meta.c.name == _HEAD)).scalar()
        if value is None:
            return 0, _ORIGIN
        return int.from_bytes(bytes(value)[:8], "big"), bytes(value)[8:]


def _context(number: int) -> bytes:
    return b"audit " + number.to_bytes(8, "big")


def _linked(number: int, at: float, action: str, sealed: bytes) -> bytes:
    name = action.encode()
    return _FIXED.pack(number, at) + bytes([len(name)]) + name + sealed

"""`SqlEnrolmentStore`: the enrolment tables in the cloud's database, secrets and names sealed."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import cbor2
import sqlalchemy as sa

from vitalgate.cloud.audit import Action, Audit
from vitalgate.cloud.enrolment import CodeRecord, ContextRecord, IdentityRecord, KeyState
from vitalgate.cloud.store.database import Database
from vitalgate.cloud.store.gateways import set_revoked
from vitalgate.cloud.store.schema import enrolment_codes, enrolment_contexts, enrolment_identities
from vitalgate.gateway.code import code_id_text
from vitalgate.gateway.identity import fingerprint_text
from vitalgate.oscore.context import Parameters

_CODE: Final = b"enrolment code "
_IDENTITY: Final = b"enrolment identity "
_CONTEXT: Final = b"enrolment context "


class _Open(threading.local):
    connection: sa.Connection | None = None


class SqlEnrolmentStore:
    """An `vitalgate.cloud.enrolment.EnrolmentStore` on the store's database.

    What changes a gateway's standing is audited in the same transaction under the name ``actor``, and ingest learns of
    it at its next commit.
    """

    def __init__(self, database: Database, audit: Audit, *, actor: str = "") -> None:
        self._database = database
        self._audit = audit
        self._actor = actor
        self._open = _Open()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """See `EnrolmentStore.transaction`; may be nested, the outermost block counts."""
        if self._open.connection is not None:
            yield
            return
        with self._database.writing() as connection:
            self._open.connection = connection
            try:
                yield
            finally:
                self._open.connection = None

    @contextmanager
    def _write(self) -> Iterator[sa.Connection]:
        with self.transaction():
            assert self._open.connection is not None
            yield self._open.connection

    @contextmanager
    def _read(self) -> Iterator[sa.Connection]:
        if self._open.connection is not None:
            yield self._open.connection
            return
        with self._database.reading() as connection:
            yield connection

    def _replace(self, connection: sa.Connection, table: sa.Table, key: bytes, values: dict[str, object]) -> bool:
        """Insert or replace by primary key; True when it was inserted."""
        column = next(iter(table.primary_key.columns))
        if connection.execute(sa.update(table).where(column == key).values(values)).rowcount:
            return False
        connection.execute(sa.insert(table).values({column.name: key, **values}))
        return True

    def _row(self, table: sa.Table, key: bytes, context: bytes) -> list[Any] | None:
        column = next(iter(table.primary_key.columns))
        with self._read() as connection:
            blob = connection.execute(sa.select(table.c.sealed_content).where(column == key)).scalar()
            if blob is None:
                return None
            content: list[Any] = cbor2.loads(self._database.keys.unseal(connection, blob, context + key))
            return content

    def _rows(
        self, table: sa.Table, context: bytes, where: sa.ColumnElement[bool] | None = None
    ) -> list[tuple[bytes, list[Any]]]:
        column = next(iter(table.primary_key.columns))
        keys = self._database.keys
        query = sa.select(column, table.c.sealed_content)
        if where is not None:
            query = query.where(where)
        with self._read() as connection:
            return [
                (bytes(key), cbor2.loads(keys.unseal(connection, blob, context + bytes(key))))
                for key, blob in connection.execute(query).all()
            ]

    def _seal(self, context: bytes, key: bytes, content: list[Any]) -> bytes:
        return self._database.keys.seal(cbor2.dumps(content), context + key)

    # codes

    def put_code(self, record: CodeRecord) -> None:
        """Insert or replace."""
        content = [record.key, record.gateway, record.replaces, record.created_at, record.expires_at]
        content += [record.failures, record.used_by, record.used_at]
        with self._write() as connection:
            sealed = self._seal(_CODE, record.code_id, content)
            if self._replace(connection, enrolment_codes, record.code_id, {"sealed_content": sealed}):
                self._audit.append(
                    connection,
                    Action.CODE_CREATED,
                    actor=self._actor,
                    subject=record.gateway,
                    detail=code_id_text(record.code_id),
                )

    def code(self, code_id: bytes) -> CodeRecord | None:
        """By identifier."""
        content = self._row(enrolment_codes, code_id, _CODE)
        return None if content is None else CodeRecord(code_id, *content)

    def codes(self) -> list[CodeRecord]:
        """All."""
        return [CodeRecord(code_id, *content) for code_id, content in self._rows(enrolment_codes, _CODE)]

    def delete_code(self, code_id: bytes) -> None:
        """Forget one."""
        with self._write() as connection:
            connection.execute(sa.delete(enrolment_codes).where(enrolment_codes.c.code_id == code_id))

    # identities

    def put_identity(self, record: IdentityRecord) -> None:
        """Insert or replace."""
        before = self.identity(record.thumbprint)
        content = [record.public, record.gateway, record.state.value, record.generation, record.exchange]
        content += [record.rekey_key, record.enrolled_at, record.changed_at, record.reason]
        with self._write() as connection:
            gateway_key = self._database.keys.lookup("gateway", record.gateway)
            values: dict[str, object] = {
                "gateway_key": gateway_key,
                "state": record.state.value,
                "sealed_content": self._seal(_IDENTITY, record.thumbprint, content),
            }
            self._replace(connection, enrolment_identities, record.thumbprint, values)
            active = sa.select(enrolment_identities.c.thumbprint).where(
                enrolment_identities.c.gateway_key == gateway_key,
                enrolment_identities.c.state == KeyState.ACTIVE.value,
            )
            set_revoked(self._database, connection, record.gateway, connection.execute(active).first() is None)
            if before is None or before.state is not record.state:
                action = Action.GATEWAY_ENROLLED if record.state is KeyState.ACTIVE else Action.GATEWAY_REVOKED
                detail = f"{fingerprint_text(record.public)} {record.state.value} {record.reason}".rstrip()
                self._audit.append(connection, action, actor=self._actor, subject=record.gateway, detail=detail)

    @staticmethod
    def _identity(thumbprint: bytes, content: list[Any]) -> IdentityRecord:
        public, gateway, state, *rest = content
        return IdentityRecord(thumbprint, public, gateway, KeyState(state), *rest)

    def identity(self, thumbprint: bytes) -> IdentityRecord | None:
        """By thumbprint."""
        content = self._row(enrolment_identities, thumbprint, _IDENTITY)
        return None if content is None else self._identity(thumbprint, content)

    def identities(self) -> list[IdentityRecord]:
        """All, whatever their state."""
        return [self._identity(key, content) for key, content in self._rows(enrolment_identities, _IDENTITY)]

    def active_identity(self, gateway: str) -> IdentityRecord | None:
        """The ACTIVE one of a gateway."""
        with self._read() as connection:
            thumbprint = connection.execute(
                sa.select(enrolment_identities.c.thumbprint).where(
                    enrolment_identities.c.gateway_key == self._database.keys.lookup("gateway", gateway),
                    enrolment_identities.c.state == KeyState.ACTIVE.value,
                )
            ).scalar()
            return None if thumbprint is None else self.identity(bytes(thumbprint))

    # contexts

    def put_context(self, record: ContextRecord) -> None:
        """Insert or replace."""
        keys = record.keys
        content: list[Any] = [record.gateway, record.thumbprint, record.exchange]
        content += [[keys.master_secret, keys.sender_id, keys.recipient_id, keys.master_salt, keys.id_context]]
        content[-1] += [keys.aead, keys.hkdf]
        content += [record.created_at, record.retire_at]
        with self._write() as connection:
            values: dict[str, object] = {
                "gateway_key": self._database.keys.lookup("gateway", record.gateway),
                "sealed_content": self._seal(_CONTEXT, record.kid, content),
            }
            self._replace(connection, enrolment_contexts, record.kid, values)

    @staticmethod
    def _context(kid: bytes, content: list[Any]) -> ContextRecord:
        gateway, thumbprint, exchange, keys, created_at, retire_at = content
        return ContextRecord(kid, gateway, thumbprint, exchange, Parameters(*keys), created_at, retire_at)

    def context(self, kid: bytes) -> ContextRecord | None:
        """By kid."""
        content = self._row(enrolment_contexts, kid, _CONTEXT)
        return None if content is None else self._context(kid, content)

    def contexts(self, gateway: str = "") -> list[ContextRecord]:
        """Those of one gateway, or all."""
        where = None
        if gateway:
            where = enrolment_contexts.c.gateway_key == self._database.keys.lookup("gateway", gateway)
        return [self._context(kid, content) for kid, content in self._rows(enrolment_contexts, _CONTEXT, where)]

    def delete_context(self, kid: bytes) -> None:
        """Forget one."""
        with self._write() as connection:
            connection.execute(sa.delete(enrolment_contexts).where(enrolment_contexts.c.kid == kid))

    def context_kids(self) -> frozenset[bytes]:
        """The kids of all: a look at the index, nothing is unsealed."""
        with self._read() as connection:
            return frozenset(bytes(kid) for kid in connection.execute(sa.select(enrolment_contexts.c.kid)).scalars())

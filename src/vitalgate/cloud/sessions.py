"""Sessions: a random 256-bit token in a cookie, kept only as a keyed hash, ended by silence and by age.

The token against cross-site requests (CSRF) is derived from the session's token, so nothing is stored for it and it is
worth nothing to somebody who reads the database.
"""

import base64
import hmac
from dataclasses import dataclass, field
from typing import Final

import sqlalchemy as sa

from vitalgate.cloud.audit import Action, Audit
from vitalgate.cloud.store.database import Database
from vitalgate.cloud.store.schema import sessions
from vitalgate.cloud.users import TOKEN_BYTES, User, Users, token_bytes, token_text

_SESSION: Final = "session"
_CSRF: Final = "csrf"


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """Seconds of silence and of age after which a session ends; sessions a user may have (more end the oldest).

    ``touch_every``: how often activity is written down; a session may end this much early, never late.
    """

    idle: float = 1800.0
    absolute: float = 12 * 3600.0
    per_user: int = 16
    touch_every: float = 60.0


@dataclass(frozen=True, slots=True)
class Session:
    """A live session. ``token`` is what the cookie holds, ``csrf`` what forms must repeat."""

    token: str = field(repr=False)
    csrf: str = field(repr=False)
    user: User
    created_at: float
    expires_at: float

    def csrf_matches(self, given: str) -> bool:
        """Whether a form repeated the right token (compared in constant time)."""
        return hmac.compare_digest(self.csrf.encode(), given.encode())


class Sessions:
    """The sessions of one store."""

    def __init__(self, database: Database, users: Users, audit: Audit, *, limits: SessionLimits | None = None) -> None:
        self._database = database
        self._users = users
        self._audit = audit
        self.limits = limits or SessionLimits()

    def create(self, user: User) -> Session:
        """A session for a user who has just signed in (always a fresh token: nothing a visitor brought is kept)."""
        raw = self._database.randomness(TOKEN_BYTES)
        now = self._database.wall()
        with self._database.writing() as connection:
            self._sweep(connection, now)
            live = connection.execute(
                sa.select(sessions.c.token_hash)
                .where(sessions.c.user_id == user.id)
                .order_by(sessions.c.created_at.desc())
            ).scalars()
            for old in list(live)[self.limits.per_user - 1 :]:
                connection.execute(sa.delete(sessions).where(sessions.c.token_hash == old))
            connection.execute(
                sa.insert(sessions).values(
                    token_hash=self._database.keys.token_hash(_SESSION, raw),
                    user_id=user.id,
                    created_at=now,
                    last_seen=now,
                    expires_at=now + self.limits.absolute,
                )
            )
        return self._session(raw, user, now, now + self.limits.absolute)

    def get(self, token: str) -> Session | None:
        """The session of a cookie, or None where it is unknown, ended, or its user is disabled. Counts as activity."""
        raw = token_bytes(token)
        if raw is None:
            return None
        hashed = self._database.keys.token_hash(_SESSION, raw)
        now = self._database.wall()
        with self._database.reading() as connection:
            row = connection.execute(sa.select(sessions).where(sessions.c.token_hash == hashed)).one_or_none()
        if row is None:
            return None
        if now >= row.expires_at or now - row.last_seen >= self.limits.idle or now < row.created_at - 300:
            self._delete(sessions.c.token_hash == hashed)
            return None
        user = self._users.get(row.user_id)
        if user is None or user.disabled:
            return None
        if now - row.last_seen >= self.limits.touch_every:
            with self._database.writing() as connection:
                connection.execute(sa.update(sessions).where(sessions.c.token_hash == hashed).values(last_seen=now))
        return self._session(raw, user, row.created_at, row.expires_at)

    def end(self, session: Session) -> None:
        """Sign out."""
        raw = token_bytes(session.token)
        if raw is None:
            return
        with self._database.writing() as connection:
            hashed = self._database.keys.token_hash(_SESSION, raw)
            if connection.execute(sa.delete(sessions).where(sessions.c.token_hash == hashed)).rowcount:
                self._audit.append(connection, Action.SIGNED_OUT, actor=session.user.name)

    def end_all(self, user_id: int) -> None:
        """End every session of a user."""
        self._delete(sessions.c.user_id == user_id)

    def sweep(self) -> int:
        """Delete what has ended; how many."""
        with self._database.writing() as connection:
            return self._sweep(connection, self._database.wall())

    def _sweep(self, connection: sa.Connection, now: float) -> int:
        over = sa.or_(sessions.c.expires_at <= now, sessions.c.last_seen <= now - self.limits.idle)
        return connection.execute(sa.delete(sessions).where(over)).rowcount

    def _delete(self, which: sa.ColumnElement[bool]) -> None:
        with self._database.writing() as connection:
            connection.execute(sa.delete(sessions).where(which))

    def _session(self, raw: bytes, user: User, created_at: float, expires_at: float) -> Session:
        csrf = base64.urlsafe_b64encode(self._database.keys.token_hash(_CSRF, raw)).rstrip(b"=").decode()
        return Session(token_text(raw), csrf, user, created_at, expires_at)

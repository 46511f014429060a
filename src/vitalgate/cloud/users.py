"""Users: no default credential exists. The first one comes through a one-time link that `vitalgate cloud` prints.

A wrong password counts *before* it is tried, so that guesses sent side by side are counted too; the fifth in a row
locks the account for half a minute, each further one for twice as long, up to a quarter of an hour.
"""

import base64
import binascii
import enum
import threading
import unicodedata
from dataclasses import dataclass
from typing import Final

import sqlalchemy as sa

from vitalgate.cloud.audit import Action, Audit
from vitalgate.cloud.passwords import Cost, check, cost_of, hash_password, verify_password
from vitalgate.cloud.roles import PERMISSIONS, Permission, Role
from vitalgate.cloud.store.database import Database
from vitalgate.cloud.store.schema import sessions, sign_in_links, users

FIRST_USER: Final = "administrator"
FREE_FAILURES: Final = 5
FIRST_LOCK: Final = 30.0
LONGEST_LOCK: Final = 900.0
LINK_LIFETIME: Final = 900.0
TOKEN_BYTES: Final = 32
MAX_USERS: Final = 1000
MAX_NAME: Final = 64
MAX_LINKS: Final = 16
"""Unused links a user may have at once; a further one ends the oldest."""
_LINK: Final = "sign-in link"
_UNKNOWN_AUDIT_EVERY: Final = 60.0


class UserError(ValueError):
    """Something that cannot be done to a user; the text says why."""


class Refusal(enum.Enum):
    """Why a sign-in failed. Tell a person WRONG for DISABLED too."""

    WRONG = "wrong"
    LOCKED = "locked"
    DISABLED = "disabled"


@dataclass(frozen=True, slots=True)
class User:
    """A user as the rest of the program sees one."""

    id: int
    name: str
    role: Role
    has_password: bool
    created_at: float
    disabled: bool
    locked_until: float

    def may(self, permission: Permission) -> bool:
        """Whether the user's role carries ``permission``."""
        return not self.disabled and permission in PERMISSIONS[self.role]


@dataclass(frozen=True, slots=True)
class SignIn:
    """The outcome of a sign-in: a user, or a refusal and the seconds to wait before the next try."""

    user: User | None
    refusal: Refusal | None = None
    retry_after: float = 0.0


def token_text(token: bytes) -> str:
    """A token as it stands in a link or a cookie (43 characters, URL-safe)."""
    return base64.urlsafe_b64encode(token).rstrip(b"=").decode()


def token_bytes(text: str) -> bytes | None:
    """The reverse of `token_text`, or None for anything else."""
    if len(text) != 43 or not text.isascii():
        return None
    try:
        token = base64.b64decode(text + "=", altchars=b"-_", validate=True)
    except (ValueError, binascii.Error):
        return None
    return token if token_text(token) == text else None


def _canonical(name: str) -> str:
    return unicodedata.normalize("NFKC", name).strip().casefold()


class Users:
    """The users of one store."""

    def __init__(self, database: Database, audit: Audit, *, cost: Cost | None = None) -> None:
        self._database = database
        self._audit = audit
        self._cost = cost or Cost()
        self._nobody = hash_password("", self._cost, database.randomness)
        self._unknown_lock = threading.Lock()
        self._unknown_audited = float("-inf")
        self._unknown_since = 0

    # administration

    def create(self, name: str, role: Role, *, password: str | None = None, actor: str = "") -> User:
        """A new user. Raises `UserError` (bad or taken name, too many users), `PasswordError`."""
        shown = unicodedata.normalize("NFKC", name).strip()
        if not 0 < len(shown) <= MAX_NAME or not shown.isprintable():
            raise UserError(f"a user's name has 1 to {MAX_NAME} printable characters")
        kept = None
        if password is not None:
            check(password, shown)
            kept = hash_password(password, self._cost, self._database.randomness)
        with self._database.writing() as connection:
            return self._insert(connection, shown, role, kept, actor)

    def _insert(self, connection: sa.Connection, name: str, role: Role, kept: str | None, actor: str) -> User:
        keys = self._database.keys
        key = keys.lookup("user", _canonical(name))
        if connection.execute(sa.select(users.c.id).where(users.c.name_key == key)).first():
            raise UserError(f"there is a user {name!r} already")
        if (connection.execute(sa.select(sa.func.count()).select_from(users)).scalar() or 0) >= MAX_USERS:
            raise UserError(f"there are {MAX_USERS} users, no more are possible")
        made = connection.execute(
            sa.insert(users).values(
                name_key=key,
                sealed_name=keys.seal_text(name, "user name"),
                role=role.value,
                sealed_password=None if kept is None else keys.seal(kept.encode(), b"password " + key),
                created_at=self._database.wall(),
                failures=0,
                locked_until=0.0,
            )
        ).inserted_primary_key
        assert made is not None
        self._audit.append(connection, Action.USER_CREATED, actor=actor, subject=name, detail=role.value)
        user = self._by_id(connection, int(made[0]))
        assert user is not None
        return user

    def set_password(self, user_id: int, password: str, *, actor: str = "") -> None:
        """Set a password; every session and open link of the user ends. Raises `UserError`, `PasswordError`."""
        user = self.get(user_id)
        if user is None:
            raise UserError("there is no such user")
        check(password, user.name)
        kept = hash_password(password, self._cost, self._database.randomness)
        with self._database.writing() as connection:
            self._keep(connection, user_id, kept)
            connection.execute(sa.update(users).where(users.c.id == user_id).values(failures=0, locked_until=0.0))
            connection.execute(sa.delete(sessions).where(sessions.c.user_id == user_id))
            connection.execute(sa.delete(sign_in_links).where(sign_in_links.c.user_id == user_id))
            self._audit.append(connection, Action.PASSWORD_SET, actor=actor, subject=user.name)

    def change(self, user_id: int, *, role: Role | None = None, disabled: bool | None = None, actor: str = "") -> User:
        """Change a role, disable or enable. Raises `UserError`, also when no administrator would be left."""
        with self._database.writing() as connection:
            user = self._by_id(connection, user_id)
            if user is None:
                raise UserError("there is no such user")
            values: dict[str, object] = {}
            if role is not None and role is not user.role:
                values["role"] = role.value
            if disabled is not None and disabled != user.disabled:
                values["disabled_at"] = self._database.wall() if disabled else None
            if values:
                connection.execute(sa.update(users).where(users.c.id == user_id).values(**values))
                connection.execute(sa.delete(sessions).where(sessions.c.user_id == user_id))
                connection.execute(sa.delete(sign_in_links).where(sign_in_links.c.user_id == user_id))
                if user.role is Role.ADMINISTRATOR and not user.disabled and not self._administrators(connection):
                    raise UserError("the last administrator stays")
                what = ", ".join(name.removesuffix("_at") for name in sorted(values))
                self._audit.append(connection, Action.USER_CHANGED, actor=actor, subject=user.name, detail=what)
            changed = self._by_id(connection, user_id)
            assert changed is not None
            return changed

    def get(self, user_id: int) -> User | None:
        """The user with this id."""
        with self._database.reading() as connection:
            return self._by_id(connection, user_id)

    def find(self, name: str) -> User | None:
        """The user called ``name`` (case and width of letters do not matter)."""
        key = self._database.keys.lookup("user", _canonical(name))
        with self._database.reading() as connection:
            user_id = connection.execute(sa.select(users.c.id).where(users.c.name_key == key)).scalar()
            return None if user_id is None else self._by_id(connection, user_id)

    def all(self) -> list[User]:
        """Every user, oldest first."""
        with self._database.reading() as connection:
            ids = connection.execute(sa.select(users.c.id).order_by(users.c.id)).scalars().all()
            found = [self._by_id(connection, user_id) for user_id in ids]
            return [user for user in found if user is not None]

    # signing in

    def authenticate(self, name: str, password: str) -> SignIn:
        """Try a name and a password; the costly hash is made whether the user exists or not."""
        key = self._database.keys.lookup("user", _canonical(name))
        reserved = self._reserve(key)
        if isinstance(reserved, SignIn):
            return reserved
        if reserved is None:
            verify_password(password, self._nobody)
            self._unknown()
            return SignIn(None, Refusal.WRONG)
        user, kept, failures = reserved
        good = verify_password(password, kept or self._nobody) and kept is not None
        fresh = ""
        if good and kept is not None and cost_of(kept) != self._cost:
            fresh = hash_password(password, self._cost, self._database.randomness)
        with self._database.writing() as connection:
            if good and not user.disabled:
                connection.execute(sa.update(users).where(users.c.id == user.id).values(failures=0, locked_until=0.0))
                if fresh:
                    self._keep(connection, user.id, fresh)
                self._audit.append(connection, Action.SIGNED_IN, actor=user.name)
                return SignIn(self._by_id(connection, user.id))
            self._audit.append(connection, Action.SIGN_IN_FAILED, subject=user.name)
            if failures >= FREE_FAILURES:
                self._audit.append(connection, Action.LOCKED_OUT, subject=user.name)
        return SignIn(None, Refusal.DISABLED if good else Refusal.WRONG, _lock_after(failures))

    def _reserve(self, key: bytes) -> SignIn | tuple[User, str | None, int] | None:
        """Count an attempt before it is made: (user, kept password, failures with this one), a refusal, or None."""
        with self._database.reading() as connection:
            if connection.execute(sa.select(users.c.id).where(users.c.name_key == key)).first() is None:
                return None
        now = self._database.wall()
        with self._database.writing() as connection:
            row = connection.execute(sa.select(users).where(users.c.name_key == key)).one()
            if now < row.locked_until <= now + LONGEST_LOCK:  # a lock from a stepped clock does not last for ever
                return SignIn(None, Refusal.LOCKED, row.locked_until - now)
            failures = min(row.failures + 1, 1000)
            connection.execute(
                sa.update(users)
                .where(users.c.id == row.id)
                .values(failures=failures, locked_until=now + _lock_after(failures))
            )
            user = self._by_id(connection, row.id)
            assert user is not None
            kept = None
            if row.sealed_password is not None:
                kept = self._database.keys.unseal(connection, row.sealed_password, b"password " + key).decode()
            return user, kept, failures

    def _unknown(self) -> None:
        """Audit attempts on names that do not exist, at most once a minute: the trail must not be floodable."""
        with self._unknown_lock:
            self._unknown_since += 1
            now = self._database.wall()
            if 0 <= now - self._unknown_audited < _UNKNOWN_AUDIT_EVERY:
                return
            self._unknown_audited, count, self._unknown_since = now, self._unknown_since, 0
        self._audit.record(Action.SIGN_IN_FAILED, detail=f"unknown user, {count} times")

    # one-time links

    def create_link(self, user_id: int, *, lifetime: float = LINK_LIFETIME, actor: str = "") -> str:
        """A token that signs the user in once, within ``lifetime`` seconds. Raises `UserError`."""
        with self._database.writing() as connection:
            user = self._by_id(connection, user_id)
            if user is None or user.disabled:
                raise UserError("there is no such user, or the user is disabled")
            return self._link(connection, user, lifetime, actor)

    def _link(self, connection: sa.Connection, user: User, lifetime: float, actor: str) -> str:
        now = self._database.wall()
        token = self._database.randomness(TOKEN_BYTES)
        connection.execute(
            sa.delete(sign_in_links).where(
                sa.or_(sign_in_links.c.used_at.is_not(None), sign_in_links.c.expires_at <= now)
            )
        )
        live = connection.execute(
            sa.select(sign_in_links.c.token_hash)
            .where(sign_in_links.c.user_id == user.id)
            .order_by(sign_in_links.c.created_at.desc())
        ).scalars()
        for old in list(live)[MAX_LINKS - 1 :]:
            connection.execute(sa.delete(sign_in_links).where(sign_in_links.c.token_hash == old))
        connection.execute(
            sa.insert(sign_in_links).values(
                token_hash=self._database.keys.token_hash(_LINK, token),
                user_id=user.id,
                created_at=now,
                expires_at=now + lifetime,
            )
        )
        self._audit.append(connection, Action.LINK_CREATED, actor=actor, subject=user.name)
        return token_text(token)

    def redeem(self, token: str) -> User | None:
        """Use a link: the user it signs in, or None where it is unknown, used, expired, or the user is disabled."""
        raw = token_bytes(token)
        if raw is None:
            return None
        hashed = self._database.keys.token_hash(_LINK, raw)
        with self._database.reading() as connection:  # a guess costs no write
            if connection.execute(sa.select(sign_in_links).where(sign_in_links.c.token_hash == hashed)).first() is None:
                return None
        now = self._database.wall()
        with self._database.writing() as connection:
            used = connection.execute(
                sa.update(sign_in_links)
                .where(
                    sign_in_links.c.token_hash == hashed,
                    sign_in_links.c.used_at.is_(None),
                    sign_in_links.c.expires_at > now,
                )
                .values(used_at=now)
            )
            if used.rowcount != 1:
                return None
            user_id = connection.execute(
                sa.select(sign_in_links.c.user_id).where(sign_in_links.c.token_hash == hashed)
            ).scalar_one()
            user = self._by_id(connection, user_id)
            if user is None or user.disabled:
                return None
            connection.execute(sa.update(users).where(users.c.id == user.id).values(failures=0, locked_until=0.0))
            self._audit.append(connection, Action.LINK_USED, actor=user.name)
            return user

    def first_link(self, *, lifetime: float = LINK_LIFETIME) -> str | None:
        """A link for the first administrator, as long as no administrator has a password; None from then on."""
        with self._database.writing() as connection:
            for user in self._administrators(connection):
                if user.has_password:
                    return None
            waiting = self._administrators(connection)
            user = waiting[0] if waiting else self._insert(connection, FIRST_USER, Role.ADMINISTRATOR, None, "")
            return self._link(connection, user, lifetime, "")

    # within a transaction

    def _administrators(self, connection: sa.Connection) -> list[User]:
        query = sa.select(users.c.id).where(users.c.role == Role.ADMINISTRATOR.value, users.c.disabled_at.is_(None))
        found = [self._by_id(connection, user_id) for user_id in connection.execute(query).scalars().all()]
        return [user for user in found if user is not None]

    def _keep(self, connection: sa.Connection, user_id: int, kept: str) -> None:
        key = connection.execute(sa.select(users.c.name_key).where(users.c.id == user_id)).scalar_one()
        sealed = self._database.keys.seal(kept.encode(), b"password " + bytes(key))
        connection.execute(sa.update(users).where(users.c.id == user_id).values(sealed_password=sealed))

    def _by_id(self, connection: sa.Connection, user_id: int) -> User | None:
        row = connection.execute(sa.select(users).where(users.c.id == user_id)).one_or_none()
        if row is None:
            return None
        name = self._database.keys.unseal_text(connection, row.sealed_name, "user name")
        return User(
            id=row.id,
            name=name,
            role=Role(row.role),
            has_password=row.sealed_password is not None,
            created_at=row.created_at,
            disabled=row.disabled_at is not None,
            locked_until=row.locked_until,
        )


def _lock_after(failures: int) -> float:
    if failures < FREE_FAILURES:
        return 0.0
    return float(min(LONGEST_LOCK, FIRST_LOCK * 2.0 ** min(failures - FREE_FAILURES, 16)))

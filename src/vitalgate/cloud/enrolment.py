"""What the cloud remembers of gateways: one-time codes, identity keys, OSCORE contexts; what a person does with it.

Three tables of plain rows behind `EnrolmentStore`. The rules live in this module and in `enrolment_service`, never in
a store, so that a store only puts, gets, lists and deletes. What is secret (`CodeRecord.key`,
`IdentityRecord.rekey_key`, `ContextRecord.keys`) is to be sealed by a store that writes to disk. Times are wall-clock
seconds.
"""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Final, Protocol

from vitalgate.engine import Randomness
from vitalgate.gateway.code import EnrolmentCode, code_id_text
from vitalgate.gateway.handshake import gateway_id_ok
from vitalgate.gateway.identity import fingerprint_text
from vitalgate.oscore.context import Parameters

CODE_LIFE: Final = 15 * 60.0
MAX_CODE_LIFE: Final = 24 * 3600.0
CODE_KEPT: Final = 24 * 3600.0  # how long an expired code stays listed, so that its holder is told why it fails
MAX_CODES: Final = 64
MAX_CODE_FAILURES: Final = 10
MAX_IDENTITIES: Final = 2048  # each with two contexts at most, which fills the 4,096 places of `oscore.Contexts`


class KeyState(Enum):
    """What an identity key or a code is good for."""

    ACTIVE = "active"
    REPLACED = "replaced"  # another key has taken its place
    REVOKED = "revoked"
    USED = "used"
    EXPIRED = "expired"
    LOCKED = "locked"


@dataclass(frozen=True, slots=True)
class CodeRecord:
    """A one-time code. ``key`` is the code key, never the code. ``gateway``: the name to be given, or ''.
    ``replaces``: whether a gateway of that name may be replaced. ``used_by``: thumbprint of the identity key that used
    it, or b''. ``failures``: wrong proofs so far, at most `MAX_CODE_FAILURES`."""

    code_id: bytes
    key: bytes = field(repr=False)
    gateway: str
    replaces: bool
    created_at: float
    expires_at: float
    failures: int = 0
    used_by: bytes = b""
    used_at: float | None = None

    def state(self, wall: float) -> KeyState:
        """USED, LOCKED, EXPIRED or ACTIVE, whichever comes first in this order."""
        if self.used_by:
            return KeyState.USED
        if self.failures >= MAX_CODE_FAILURES:
            return KeyState.LOCKED
        return KeyState.ACTIVE if wall < self.expires_at else KeyState.EXPIRED


@dataclass(frozen=True, slots=True)
class IdentityRecord:
    """An identity key that was enrolled at some time. At most one record of a ``gateway`` is ACTIVE.

    ``thumbprint`` (16 bytes) is the key of the table. ``generation`` counts the finished exchanges of the gateway and
    makes an old confirm message worthless; ``exchange`` is the last one's TH2 (32 bytes).
    """

    thumbprint: bytes
    public: bytes
    gateway: str
    state: KeyState
    generation: int
    exchange: bytes
    rekey_key: bytes = field(repr=False)
    enrolled_at: float
    changed_at: float
    reason: str = ""


@dataclass(frozen=True, slots=True)
class ContextRecord:
    """An OSCORE context in service, the cloud's side. ``kid`` (4 bytes) is the gateway's Sender ID, unique among all
    live contexts, and the key of the table. ``retire_at``: when a context that has a successor ends, else None."""

    kid: bytes
    gateway: str
    thumbprint: bytes
    exchange: bytes
    keys: Parameters
    created_at: float
    retire_at: float | None = None


class EnrolmentStore(Protocol):
    """Three tables. ``put_*`` inserts or replaces by key, ``delete_*`` of what is not there does nothing, lists may
    come in any order. Calls outside `transaction` are transactions of their own. Every call and the end of a
    transaction may raise `cloud.store.errors.StoreError`; nothing is changed then."""

    def transaction(self) -> AbstractContextManager[None]:
        """All calls within see and change one state: all or nothing, serialised with every other writer of the store
        (other processes included), durable when the block ends. An exception that leaves the block undoes it."""

    def put_code(self, record: CodeRecord) -> None: ...  # noqa: D102 (the class says it)
    def code(self, code_id: bytes) -> CodeRecord | None: ...  # noqa: D102
    def codes(self) -> list[CodeRecord]: ...  # noqa: D102
    def delete_code(self, code_id: bytes) -> None: ...  # noqa: D102

    def put_identity(self, record: IdentityRecord) -> None: ...  # noqa: D102
    def identity(self, thumbprint: bytes) -> IdentityRecord | None: ...  # noqa: D102
    def identities(self) -> list[IdentityRecord]: ...  # noqa: D102

    def active_identity(self, gateway: str) -> IdentityRecord | None:
        """The one ACTIVE record of ``gateway``, or None."""

    def put_context(self, record: ContextRecord) -> None: ...  # noqa: D102
    def context(self, kid: bytes) -> ContextRecord | None: ...  # noqa: D102
    def contexts(self, gateway: str = "") -> list[ContextRecord]:
        """Those of one gateway, or all."""

    def delete_context(self, kid: bytes) -> None: ...  # noqa: D102

    def context_kids(self) -> frozenset[bytes]:
        """The kids of `contexts`: asked every few seconds, so without unsealing anything."""


class MemoryEnrolmentStore:
    """An `EnrolmentStore` that forgets at the end of the process: for tests and the virtual network."""

    def __init__(self) -> None:
        self._codes: dict[bytes, CodeRecord] = {}
        self._identities: dict[bytes, IdentityRecord] = {}
        self._contexts: dict[bytes, ContextRecord] = {}
        self._depth = 0

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """See `EnrolmentStore.transaction`; may be nested, the outermost block counts."""
        before = (dict(self._codes), dict(self._identities), dict(self._contexts))
        self._depth += 1
        done = False
        try:
            yield
            done = True
        finally:
            self._depth -= 1
            if not done:
                self._codes, self._identities, self._contexts = before

    def put_code(self, record: CodeRecord) -> None:
        """Insert or replace."""
        self._codes[record.code_id] = record

    def code(self, code_id: bytes) -> CodeRecord | None:
        """By identifier."""
        return self._codes.get(code_id)

    def codes(self) -> list[CodeRecord]:
        """All."""
        return list(self._codes.values())

    def delete_code(self, code_id: bytes) -> None:
        """Forget one."""
        self._codes.pop(code_id, None)

    def put_identity(self, record: IdentityRecord) -> None:
        """Insert or replace."""
        self._identities[record.thumbprint] = record

    def identity(self, thumbprint: bytes) -> IdentityRecord | None:
        """By thumbprint."""
        return self._identities.get(thumbprint)

    def identities(self) -> list[IdentityRecord]:
        """All, whatever their state."""
        return list(self._identities.values())

    def active_identity(self, gateway: str) -> IdentityRecord | None:
        """The ACTIVE one of a gateway."""
        for record in self._identities.values():
            if record.gateway == gateway and record.state is KeyState.ACTIVE:
                return record
        return None

    def put_context(self, record: ContextRecord) -> None:
        """Insert or replace."""
        self._contexts[record.kid] = record

    def context(self, kid: bytes) -> ContextRecord | None:
        """By kid."""
        return self._contexts.get(kid)

    def contexts(self, gateway: str = "") -> list[ContextRecord]:
        """Those of one gateway, or all."""
        return [record for record in self._contexts.values() if gateway in ("", record.gateway)]

    def delete_context(self, kid: bytes) -> None:
        """Forget one."""
        self._contexts.pop(kid, None)

    def context_kids(self) -> frozenset[bytes]:
        """The kids of all."""
        return frozenset(self._contexts)


# --- what a person does -------------------------------------------------------------------------------------------


class EnrolmentError(ValueError):
    """A request of an administrator that cannot be done; the text says why and what to do."""


@dataclass(frozen=True, slots=True)
class NewCode:
    """A code to show once. ``text`` is secret and hidden from repr."""

    text: str = field(repr=False)
    code_id: str
    gateway: str
    expires_at: float


@dataclass(frozen=True, slots=True)
class KeyEntry:
    """One line of `vitalgate keys list`. ``kind``: 'code', 'identity' or 'session'. ``key``: the name to give to
    rotate or revoke (a code's identifier, a fingerprint, a kid); never secret. ``until``: None means no end is set."""

    kind: str
    key: str
    gateway: str
    state: str
    since: float
    until: float | None = None
    reason: str = ""


def create_code(
    store: EnrolmentStore,
    wall: float,
    *,
    gateway: str = "",
    replaces: bool = False,
    life: float = CODE_LIFE,
    randomness: Randomness = os.urandom,
) -> NewCode:
    """Make a one-time code. ``gateway``: the name the gateway gets ('' lets the cloud choose); ``replaces``: that name
    may be taken over from an enrolled gateway, whose key then ends. ``life`` in seconds, at most a day.

    Raises `EnrolmentError`.
    """
    if gateway and not gateway_id_ok(gateway):
        raise EnrolmentError(
            "a gateway's name has 1 to 32 of a-z, 0-9, '-', '.', '_' and begins with a letter or digit"
        )
    if not 0 < life <= MAX_CODE_LIFE:
        raise EnrolmentError(f"a code lives more than 0 and at most {MAX_CODE_LIFE:.0f} seconds")
    with store.transaction():
        forget_old_codes(store, wall)
        if gateway and not replaces and store.active_identity(gateway):
            raise EnrolmentError(
                f"a gateway {gateway!r} is enrolled: revoke it first, or ask for a code that replaces it"
            )
        codes = store.codes()
        if sum(record.state(wall) is KeyState.ACTIVE for record in codes) >= MAX_CODES:
            raise EnrolmentError(f"{MAX_CODES} codes are open: wait until some are used or expire, or revoke them")
        code = EnrolmentCode.create(randomness)
        while store.code(code.code_id):
            code = EnrolmentCode.create(randomness)
        store.put_code(CodeRecord(code.code_id, code.key(), gateway, replaces, wall, wall + life))
    return NewCode(code.text(), code_id_text(code.code_id), gateway, wall + life)


def forget_old_codes(store: EnrolmentStore, wall: float) -> None:
    """Delete codes that ended a day ago; their keys go with them."""
    for record in store.codes():
        if wall >= record.expires_at + CODE_KEPT:
            store.delete_code(record.code_id)


def list_keys(store: EnrolmentStore, wall: float) -> list[KeyEntry]:
    """Every code, identity key and session the cloud knows, gateways in alphabetical order; no secret in it."""
    entries = [
        KeyEntry("code", code_id_text(r.code_id), r.gateway, r.state(wall).value, r.created_at, r.expires_at)
        for r in store.codes()
    ]
    entries += [
        KeyEntry("identity", fingerprint_text(r.public), r.gateway, r.state.value, r.enrolled_at, None, r.reason)
        for r in store.identities()
    ]
    entries += [
        KeyEntry("session", r.kid.hex(), r.gateway, "retiring" if r.retire_at else "active", r.created_at, r.retire_at)
        for r in store.contexts()
    ]
    return sorted(entries, key=lambda entry: (entry.gateway, entry.kind, entry.since, entry.key))


def rotate(store: EnrolmentStore, gateway: str) -> list[KeyEntry]:
    """End a gateway's sessions: at its next message the gateway is told that the cloud knows no such context and makes
    fresh keys by /rekey. Nothing is lost, what was not acknowledged stays in its spool. Returns the ended sessions.

    Raises `EnrolmentError` for a gateway that is not enrolled.
    """
    with store.transaction():
        if store.active_identity(gateway) is None:
            raise EnrolmentError(f"no gateway {gateway!r} is enrolled: see `vitalgate keys list`")
        return _end_sessions(store, gateway)


def revoke(store: EnrolmentStore, name: str, wall: float, reason: str = "") -> list[KeyEntry]:
    """Revoke what ``name`` names: a gateway (its identity key and sessions), or an open code by its identifier.
    A revoked identity key never comes back: the gateway needs a new one and a new code. Returns what ended.

    Raises `EnrolmentError` when there is nothing of that name.
    """
    with store.transaction():
        identity = store.active_identity(name)
        if identity is not None:
            ended = replace(identity, state=KeyState.REVOKED, changed_at=wall, reason=reason[:200])
            store.put_identity(ended)
            entry = KeyEntry(
                "identity", fingerprint_text(ended.public), name, "revoked", ended.enrolled_at, wall, reason
            )
            return [entry, *_end_sessions(store, name)]
        for code in store.codes():
            if code_id_text(code.code_id) == name.upper() and code.state(wall) is KeyState.ACTIVE:
                store.delete_code(code.code_id)
                return [KeyEntry("code", name.upper(), code.gateway, "revoked", code.created_at, wall, reason)]
    raise EnrolmentError(f"neither an enrolled gateway nor an open code is called {name!r}: see `vitalgate keys list`")


def _end_sessions(store: EnrolmentStore, gateway: str) -> list[KeyEntry]:
    ended = store.contexts(gateway)
    for record in ended:
        store.delete_context(record.kid)
    return [KeyEntry("session", r.kid.hex(), gateway, "ended", r.created_at, r.retire_at) for r in ended]

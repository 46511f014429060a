"""What a gateway keeps of its identity and enrolment, where, and when its keys may still be used.

Two sealed key stores, kept apart on purpose:

* in the *data folder* (which is backed up): the identity key, the next one while a rotation runs, the enrolment;
* in the *state folder* (which is in no backup): the OSCORE session, beside the folder of its sequence numbers.

So a gateway restored from yesterday's backup finds its identity but no session, or one whose numbers are still right,
because both live and die together: it either goes on safely or makes fresh keys by /rekey before it sends anything.
"""

import os
import time
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any, Final, Protocol

import cbor2

from vitalgate.engine import Randomness, Wall
from vitalgate.gateway.exchange import Established, GatewayEnrolment
from vitalgate.gateway.identity import IdentityError, IdentityKey, fingerprint_text
from vitalgate.gateway.keystore import Meta
from vitalgate.gateway.secrets import Secret
from vitalgate.oscore.context import ContextError, Parameters, SecurityContext, derive, record_name
from vitalgate.oscore.errors import SequenceError
from vitalgate.oscore.sequence import SequenceStore

IDENTITY: Final = "gateway.identity"
NEXT_IDENTITY: Final = "gateway.identity.next"
ENROLMENT: Final = "gateway.enrolment"
SESSION: Final = "gateway.session"
SCHEMA: Final = 1
CLOUD_NAME: Final = "cloud"
SESSION_LIFE: Final = 7 * 86400.0
_CLOCK_SLACK: Final = 86400.0


class VaultError(ValueError):
    """Something kept in a key store does not read as it was written; the text says what to do."""


class Secrets(Protocol):
    """What is needed of `gateway.secrets.Keystore`."""

    def put(self, name: str, secret: bytes, meta: Meta | None = None) -> None: ...  # noqa: D102
    def get(self, name: str) -> Secret | None: ...  # noqa: D102
    def delete(self, name: str) -> bool: ...  # noqa: D102


class MemorySecrets:
    """Secrets that are forgotten at the end of the process: for tests and the virtual network."""

    def __init__(self) -> None:
        self._secrets: dict[str, Secret] = {}

    def put(self, name: str, secret: bytes, meta: Meta | None = None) -> None:
        """Keep."""
        self._secrets[name] = Secret(bytes(secret), dict(meta or {}))

    def get(self, name: str) -> Secret | None:
        """Find."""
        return self._secrets.get(name)

    def delete(self, name: str) -> bool:
        """Forget."""
        return self._secrets.pop(name, None) is not None


@dataclass(frozen=True, slots=True)
class Session:
    """The OSCORE context in use, gateway's side, and which identity key and exchange it came from."""

    gateway: str
    identity: bytes
    exchange: bytes
    keys: Parameters = field(repr=False)
    made_at: float


class Standing(Enum):
    """Whether a gateway may send now, and if not what it needs; the value is what people read."""

    READY = "ready"
    NOT_ENROLLED = "not enrolled: run `vitalgate enroll gateway` with a code from the cloud"
    NO_SESSION = "no session keys here: fresh ones are needed"
    OTHER_IDENTITY = "the session keys belong to another identity key: fresh ones are needed"
    NUMBERS_LOST = "the sequence numbers of the session keys are gone: fresh keys are needed"
    TOO_OLD = "the session keys have reached their age: fresh ones are needed"
    ROTATION = "a rotation was asked for: fresh keys are needed"

    @property
    def rekey(self) -> bool:
        """Whether a run of /rekey is what is needed."""
        return self not in (Standing.READY, Standing.NOT_ENROLLED)


@dataclass(frozen=True, slots=True)
class KeyEntry:
    """One line of `vitalgate keys list` at a gateway: ``kind`` 'identity', 'next identity', 'cloud' or 'session'."""

    kind: str
    key: str
    gateway: str
    state: str
    since: float | None = None


class GatewayVault:
    """The gateway's keys. ``data`` and ``state``: the two key stores. Raises `VaultError` for damaged content, and what
    the key stores raise (`SecretsError`)."""

    def __init__(
        self,
        data: Secrets,
        state: Secrets,
        *,
        randomness: Randomness = os.urandom,
        wall: Wall = time.time,
        session_life: float = SESSION_LIFE,
    ) -> None:
        self._data = data
        self._state = state
        self.randomness: Final = randomness
        self._wall = wall
        self._session_life = session_life

    # --- identity ---

    def identity(self) -> IdentityKey:
        """The identity key; made, and stored before it is used, at the first call."""
        found = self._key(IDENTITY)
        if found is None:
            found = IdentityKey.create(self.randomness)
            self._data.put(IDENTITY, found.to_bytes(), {"made_at": self._wall()})
        return found

    def next_identity(self) -> IdentityKey | None:
        """The key that takes over at the next rekey, or None."""
        found = self._key(NEXT_IDENTITY)
        if found is not None and found.public == self.identity().public:
            self._data.delete(NEXT_IDENTITY)  # a crash came between the two writes of `adopt`
            return None
        return found

    def next_identity_sent(self) -> bool:
        """Whether the next key has been proposed to the cloud: then the cloud may count it already."""
        found = self._data.get(NEXT_IDENTITY)
        return found is not None and bool(found.meta.get("sent"))

    def mark_next_identity_sent(self) -> None:
        """Note, before it is sent, that the next key is proposed to the cloud."""
        found = self._data.get(NEXT_IDENTITY)
        if found is not None and not found.meta.get("sent"):
            self._data.put(NEXT_IDENTITY, found.value, {**found.meta, "sent": True})

    def _key(self, name: str) -> IdentityKey | None:
        found = self._data.get(name)
        try:
            return None if found is None else IdentityKey.from_bytes(found.value)
        except IdentityError as error:
            raise VaultError(f"{name} in the key store is damaged: restore it from a backup") from error

    # --- enrolment and session ---

    def enrolment(self) -> GatewayEnrolment | None:
        """What the enrolment left, or None."""
        row = _read(self._data, ENROLMENT, (str, bytes, bytes, float))
        return None if row is None else GatewayEnrolment(*row)

    def session(self) -> Session | None:
        """The session keys, or None; whether they may be used is `load_session`'s to say."""
        row = _read(self._state, SESSION, (str, bytes, bytes, bytes, bytes, bytes, bytes, float))
        if row is None:
            return None
        gateway, identity, exchange, secret, salt, sender, recipient, made_at = row
        try:
            keys = Parameters(master_secret=secret, sender_id=sender, recipient_id=recipient, master_salt=salt)
        except ContextError as error:
            raise VaultError(f"{SESSION} in the key store is damaged: delete the state folder") from error
        return Session(gateway, identity, exchange, keys, made_at)

    def adopt(self, established: Established, sequences: SequenceStore) -> SecurityContext:
        """Put a finished exchange into service: remember it durably and return the context to send with.

        The order is such that a crash between any two steps leaves a gateway that needs a rekey, never one that
        repeats numbers or has lost its identity. Raises `SequenceError` too.
        """
        wall = float(self._wall())
        before = self.session()
        next_identity = self.next_identity()
        if next_identity is not None and next_identity.thumbprint == established.identity:
            self._data.put(IDENTITY, next_identity.to_bytes(), {"made_at": wall})
            self._data.delete(NEXT_IDENTITY)
        enrolment = self.enrolment()
        if established.rekey_key:
            enrolment = GatewayEnrolment(established.gateway, established.cloud, established.rekey_key, wall)
            _write(self._data, ENROLMENT, _enrolment_row(enrolment))
        elif enrolment is not None and enrolment.cloud != established.cloud:
            _write(self._data, ENROLMENT, _enrolment_row(replace(enrolment, cloud=established.cloud)))
        keys = established.keys
        context = SecurityContext(CLOUD_NAME, keys, sequences, fresh=True)
        row = (
            established.gateway, established.identity, established.exchange,
            keys.master_secret, keys.master_salt, keys.sender_id, keys.recipient_id, wall,
        )  # fmt: skip
        _write(self._state, SESSION, row)
        if before is not None:
            sequences.remove(record_name(derive(before.keys)))
        return context

    def load_session(self, sequences: SequenceStore) -> SecurityContext | Standing:
        """The context to go on with after a start, or why there is none: `Standing.rekey` says what to do about it.

        Keys are used again only if this very machine's state folder holds them *and* their sequence numbers, they
        belong to the identity and enrolment in the data folder, and they are not too old.
        """
        enrolment, session = self.enrolment(), self.session()
        if enrolment is None:
            return Standing.NOT_ENROLLED
        if session is None:
            return Standing.NO_SESSION
        if self._rotation_asked():
            return Standing.ROTATION
        if session.identity != self.identity().thumbprint or session.gateway != enrolment.gateway:
            return Standing.OTHER_IDENTITY
        if not -_CLOCK_SLACK <= self._wall() - session.made_at < self._session_life:
            return Standing.TOO_OLD
        try:
            return SecurityContext(CLOUD_NAME, session.keys, sequences, fresh=False)
        except SequenceError:
            return Standing.NUMBERS_LOST

    def rekey_due(self) -> bool:
        """Whether a running gateway should make fresh keys now: their age, or a rotation that was asked for."""
        session = self.session()
        if self.enrolment() is None:
            return False
        if session is None or self._rotation_asked():
            return True
        return not -_CLOCK_SLACK <= self._wall() - session.made_at < self._session_life

    def _rotation_asked(self) -> bool:
        session = self._state.get(SESSION)
        return self.next_identity() is not None or (session is not None and bool(session.meta.get("rotate")))

    # --- what a person does ---

    def list_keys(self) -> list[KeyEntry]:
        """The gateway's keys by fingerprint; no secret in it."""
        entries: list[KeyEntry] = []
        enrolment, session, following = self.enrolment(), self.session(), self.next_identity()
        name = enrolment.gateway if enrolment else ""
        if self._data.get(IDENTITY) is not None:
            state = "active" if enrolment else "not enrolled"
            entries.append(KeyEntry("identity", fingerprint_text(self.identity().public), name, state))
        if following is not None:
            entries.append(KeyEntry("next identity", fingerprint_text(following.public), name, "waiting"))
        if enrolment is not None:
            key = fingerprint_text(enrolment.cloud)
            entries.append(KeyEntry("cloud", key, name, "pinned", enrolment.enrolled_at))
        if session is not None:
            entries.append(KeyEntry("session", session.keys.sender_id.hex(), name, "active", session.made_at))
        return entries

    def rotate(self, *, identity: bool = False) -> list[KeyEntry]:
        """Ask for fresh session keys, and with ``identity`` for a new identity key too. A gateway that runs sees it
        through `rekey_due`; one that does not makes the rekey when it starts. Returns the keys as they stand now."""
        if identity and self.next_identity() is None:
            self._data.put(NEXT_IDENTITY, IdentityKey.create(self.randomness).to_bytes(), {"made_at": self._wall()})
        session = self._state.get(SESSION)
        if session is not None:
            self._state.put(SESSION, session.value, {"rotate": True})
        return self.list_keys()

    def revoke(self, sequences: SequenceStore | None = None) -> list[KeyEntry]:
        """Forget identity, enrolment and session: this gateway is out of service until it is enrolled anew. The cloud
        has to revoke it too: it cannot know. Returns what was forgotten."""
        forgotten, session = self.list_keys(), self.session()
        self._state.delete(SESSION)
        for name in (ENROLMENT, NEXT_IDENTITY, IDENTITY):
            self._data.delete(name)
        if session is not None and sequences is not None:
            sequences.remove(record_name(derive(session.keys)))
        return forgotten


def _enrolment_row(enrolment: GatewayEnrolment) -> tuple[Any, ...]:
    return (enrolment.gateway, enrolment.cloud, enrolment.rekey_key, enrolment.enrolled_at)


def _write(secrets: Secrets, name: str, row: tuple[Any, ...]) -> None:
    secrets.put(name, cbor2.dumps([SCHEMA, *row]))


def _read(secrets: Secrets, name: str, kinds: tuple[type, ...]) -> list[Any] | None:
    """The row under ``name``; the key store has authenticated it, so only another version's row can fail here."""
    found = secrets.get(name)
    if found is None:
        return None
    row = cbor2.loads(found.value)
    if not isinstance(row, list) or [type(part) for part in row] != [int, *kinds] or row[0] != SCHEMA:
        raise VaultError(f"{name} in the key store was written by another version of this program")
    return row[1:]

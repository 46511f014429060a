"""Sessions that can be resumed: what both ends remember, and how a server puts it into a ticket or a table."""

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from vitalgate.dtls.credentials import Credentials, Identity, Mode
from vitalgate.dtls.suites import NONCE_BYTES, SUITES
from vitalgate.dtls.wire import DecodeError, Reader, vector
from vitalgate.engine import Randomness

_MODES = tuple(Mode)
NAME_BYTES = 4


@dataclass(frozen=True, slots=True)
class Session:
    """What a resumed handshake needs. ``secret``: master secret of DTLS 1.2, resumption key of 1.3. ``credential``: the
    PSK identity or raw public key that the peer showed; ``expires``: wall time after which it may not be resumed."""

    version: int
    suite: int
    secret: bytes = field(repr=False)
    identity: Identity
    credential: bytes
    created: float
    expires: float
    age_add: int = 0

    def encode(self) -> bytes:
        """For a ticket of our own."""
        return b"".join(
            (
                self.version.to_bytes(2, "big"),
                self.suite.to_bytes(2, "big"),
                vector(1, self.secret),
                bytes((_MODES.index(self.identity.mode),)),
                vector(2, self.identity.name.encode()),
                vector(2, self.credential),
                int(self.created * 1000).to_bytes(8, "big"),
                int(self.expires).to_bytes(8, "big"),
                self.age_add.to_bytes(4, "big"),
            )
        )

    def usable(self, credentials: Credentials, wall: float) -> bool:
        """Whether it has not expired and the peer's credential has not been taken out of service."""
        if wall >= self.expires or self.suite not in SUITES:
            return False
        mode = self.identity.mode
        if mode is Mode.PSK:
            store = credentials.psks
            if store is None:
                return False
            return store.find(self.credential) is not None or (
                store.ours is not None and store.ours.identity == self.credential
            )
        if mode is Mode.RPK:
            return credentials.pins is not None and credentials.pins.name(self.credential) == self.identity.name
        if mode is Mode.X509:
            return bool(credentials.anchors)
        return not credentials.require_client


def decode_session(data: bytes) -> Session:
    """The reverse of `Session.encode`. Raises `DecodeError`."""
    reader = Reader(data)
    version, suite = reader.number(2), reader.number(2)
    secret = reader.vector(1, 1)
    mode = reader.number(1)
    name = reader.vector(2)
    credential = reader.vector(2)
    created, expires, age_add = reader.number(8), reader.number(8), reader.number(4)
    reader.end()
    if mode >= len(_MODES):
        raise DecodeError("no mode")
    try:
        identity = Identity(name.decode(), _MODES[mode])
    except UnicodeDecodeError as error:
        raise DecodeError("a name that is no text") from error
    return Session(version, suite, secret, identity, credential, created / 1000, float(expires), age_add)


class TicketKeys:
    """Seals sessions into tickets. The key changes every ``period`` seconds; the one before opens as long again."""

    __slots__ = ("_current", "_name", "_period", "_previous", "_previous_name", "_randomness", "_turns")

    def __init__(self, randomness: Randomness, period: float) -> None:
        self._randomness = randomness
        self._period = period
        self._name, self._current = randomness(NAME_BYTES), AESGCM(randomness(16))
        self._previous_name, self._previous = self._name, self._current
        self._turns: float | None = None

    def seal(self, session: Session, now: float) -> bytes:
        """A ticket."""
        self._turn(now)
        nonce = self._randomness(NONCE_BYTES)
        return self._name + nonce + self._current.encrypt(nonce, session.encode(), self._name)

    def open(self, ticket: bytes, now: float) -> Session | None:
        """The session in a ticket of ours, or None."""
        self._turn(now)
        name, nonce = ticket[:NAME_BYTES], ticket[NAME_BYTES : NAME_BYTES + NONCE_BYTES]
        for known, key in ((self._name, self._current), (self._previous_name, self._previous)):
            if name == known and len(nonce) == NONCE_BYTES:
                try:
                    return decode_session(key.decrypt(nonce, ticket[NAME_BYTES + NONCE_BYTES :], name))
                except (InvalidTag, DecodeError):
                    return None
        return None

    def _turn(self, now: float) -> None:
        if self._turns is None:
            self._turns = now + self._period
        elif now >= self._turns:
            self._previous_name, self._previous = self._name, self._current
            self._name, self._current = self._randomness(NAME_BYTES), AESGCM(self._randomness(16))
            if now >= self._turns + self._period:
                self._previous_name, self._previous = self._name, self._current
            self._turns = now + self._period


@dataclass(frozen=True, slots=True)
class Ticket:
    """A session as a client keeps it: ``session_id`` or ``ticket`` is what it shows; ``received`` is monotonic time."""

    session: Session
    session_id: bytes = b""
    ticket: bytes = b""
    received: float = 0.0


K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class SessionTable(Generic[K, V]):
    """A bounded table: what was put in first goes first."""

    __slots__ = ("_limit", "_rows")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._rows: OrderedDict[K, V] = OrderedDict()

    def __len__(self) -> int:
        return len(self._rows)

    def put(self, key: K, value: V) -> None:
        """Remember."""
        self._rows.pop(key, None)
        self._rows[key] = value
        if len(self._rows) > self._limit:
            self._rows.popitem(last=False)

    def get(self, key: K) -> V | None:
        """What was remembered, or None."""
        return self._rows.get(key)

    def remove(self, key: K) -> None:
        """Forget; harmless where there is nothing."""
        self._rows.pop(key, None)

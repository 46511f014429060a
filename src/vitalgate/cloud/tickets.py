"""The cloud's memory of an unfinished exchange, sealed and given to the gateway to bring back.

Between its offer and the gateway's confirm the cloud keeps nothing: what it needs travels as an AEAD box under a key
that lives in this process alone, for at most two lives of a ticket. A restart, or time, makes open tickets worthless
and the ephemeral secrets in them unreadable for good.
"""

from dataclasses import astuple, dataclass, field
from typing import Final

import cbor2
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from vitalgate.engine import Randomness

_AAD: Final = b"vitalgate 1 enrolment ticket"
_NONCE_BYTES: Final = 12


@dataclass(frozen=True, slots=True)
class Ticket:
    """``thumbprint``: of the identity key that speaks; ``public``: the identity key that counts once this is confirmed
    (another one when the identity is rotated); ``generation``: the gateway's when the offer was made."""

    kind: int
    issued: float
    generation: int
    code_id: bytes
    gateway: str
    thumbprint: bytes
    public: bytes
    kid: bytes
    exchange: bytes
    prk: bytes = field(repr=False)


class TicketBox:
    """Seals and opens tickets; ``life`` in seconds of the caller's monotonic clock."""

    __slots__ = ("_born", "_keys", "_life", "_randomness")

    def __init__(self, life: float, randomness: Randomness) -> None:
        self._life = life
        self._randomness = randomness
        self._keys: list[ChaCha20Poly1305] = []
        self._born = 0.0

    def _current(self, now: float) -> ChaCha20Poly1305:
        if not self._keys or now - self._born >= 2 * self._life:
            self._keys = [ChaCha20Poly1305(self._randomness(32))]
            self._born = now
        elif now - self._born >= self._life:
            self._keys = [ChaCha20Poly1305(self._randomness(32)), self._keys[0]]
            self._born = now
        return self._keys[0]

    def forget(self, now: float) -> None:
        """Drop keys whose tickets are all over; to be called now and then, so that a quiet time drops them too."""
        if self._keys and now - self._born >= self._life:
            self._current(now)

    def seal(self, ticket: Ticket, now: float) -> bytes:
        """The box that travels."""
        nonce = self._randomness(_NONCE_BYTES)
        return nonce + self._current(now).encrypt(nonce, cbor2.dumps(list(astuple(ticket))), _AAD)

    def open(self, box: bytes, now: float) -> Ticket | None:
        """The ticket, or None: not ours, altered, or older than its life."""
        self._current(now)
        for key in self._keys:
            try:
                content = key.decrypt(box[:_NONCE_BYTES], box[_NONCE_BYTES:], _AAD)
            except (InvalidTag, ValueError):  # ValueError: too short to hold a nonce
                continue
            ticket = Ticket(*cbor2.loads(content))
            return ticket if now - ticket.issued < self._life else None
        return None

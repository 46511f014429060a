"""The Echo option (RFC 9175 section 2): stateless challenges that show freshness and that an address is reachable.

A value is the time it was made and a MAC over that time and what it is bound to (RFC 9175 appendix A, "Integrity
Protected Timestamp"), so a server keeps nothing for the challenges it sends.
"""

import hmac
from hashlib import sha256

from vitalgate.coap.message import Code, Message
from vitalgate.coap.options import Option
from vitalgate.engine import Path, Randomness

TIME_BYTES = 4
MAC_BYTES = 8
TICKS = 100
"""Resolution: ticks a second; 32 bits of them wrap after 497 days, when a value would have to be as old to be taken."""


class Echo:
    """Makes and judges Echo values with a key of its own, made at start: a restart makes all earlier values stale."""

    __slots__ = ("_key",)

    def __init__(self, randomness: Randomness) -> None:
        self._key = randomness(32)

    def make(self, path: Path, now: float, identity: str = "") -> bytes:
        """A value (12 bytes) bound to the peer at ``path``, authenticated as ``identity``, and to ``now``."""
        time = (int(now * TICKS) & 0xFFFFFFFF).to_bytes(TIME_BYTES, "big")
        return time + self._mac(time, path, identity)

    def age(self, value: bytes, path: Path, now: float, identity: str = "") -> float | None:
        """How many seconds ago ``value`` was made for this peer, or None where it was not made here for it."""
        time = value[:TIME_BYTES]
        if len(value) != TIME_BYTES + MAC_BYTES or not hmac.compare_digest(
            value[TIME_BYTES:], self._mac(time, path, identity)
        ):
            return None
        return (int(now * TICKS) - int.from_bytes(time, "big") & 0xFFFFFFFF) / TICKS

    def challenge(self, path: Path, now: float, identity: str = "") -> Message:
        """The response 4.01 with a value: the request was not processed and is to be sent again with it."""
        return Message(Code.UNAUTHORIZED, ((Option.ECHO, self.make(path, now, identity)),))

    def _mac(self, time: bytes, path: Path, identity: str) -> bytes:
        # Paths are the drivers' plain values (addresses, names), whose repr tells them apart.
        return hmac.digest(self._key, time + repr((path, identity)).encode(), sha256)[:MAC_BYTES]

"""Stateless cookies (RFC 6347 section 4.2.1, RFC 9147 section 5.1): a MAC over what the client has to repeat.

The key changes now and then, and the one before stays valid as long again, so a cookie lives between one and two of
these periods. A cookie of DTLS 1.3 also carries what the server has to know of the exchange that it kept nothing of.
"""

import hmac
from hashlib import sha256

from vitalgate.engine import Path, Randomness

MAC_BYTES = 16


class Cookies:
    """Makes and judges cookies; its memory is two keys."""

    __slots__ = ("_current", "_previous", "_randomness", "_rotate", "_turns")

    def __init__(self, randomness: Randomness, period: float = 60.0) -> None:
        self._randomness = randomness
        self._rotate = period
        self._turns: float | None = None
        self._current = randomness(32)
        self._previous = randomness(32)

    def make(self, path: Path, content: bytes, now: float) -> bytes:
        """The MAC (16 bytes) over ``content`` for the peer at ``path``."""
        self._turn(now)
        return self._mac(self._current, path, content)

    def valid(self, mac: bytes, path: Path, content: bytes, now: float) -> bool:
        """Whether ``mac`` was made here for this peer and content, not long ago."""
        self._turn(now)
        fresh = hmac.compare_digest(mac, self._mac(self._current, path, content))
        return fresh or hmac.compare_digest(mac, self._mac(self._previous, path, content))

    def _mac(self, key: bytes, path: Path, content: bytes) -> bytes:
        # Paths are the drivers' plain values (addresses, names), whose repr tells them apart.
        where = repr(path).encode()
        return hmac.digest(key, len(where).to_bytes(2, "big") + where + content, sha256)[:MAC_BYTES]

    def _turn(self, now: float) -> None:
        if self._turns is None:
            self._turns = now + self._rotate
        elif now >= self._turns:
            idle = now >= self._turns + self._rotate
            self._previous = self._randomness(32) if idle else self._current
            self._current = self._randomness(32)
            self._turns = now + self._rotate

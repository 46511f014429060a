"""How often one address may try to sign in."""

from typing import Final

from vitalgate.cloud.bucket import AddressBuckets, TokenBucket

MAX_ADDRESSES: Final = 1024


class Throttle:
    """A token bucket an address, in a bounded table that forgets the address silent longest, and one for all together.

    The common bucket bounds what forgetting (or a crowd of addresses) may bring; it is ten times as large.
    """

    def __init__(self, per_minute: float, at_once: float) -> None:
        self._rate = per_minute / 60.0
        self._all = TokenBucket(self._rate * 10, at_once * 10)
        self._addresses = AddressBuckets(self._rate, at_once, MAX_ADDRESSES)

    @property
    def retry_after(self) -> int:
        """Whole seconds after which another try is let through."""
        return max(1, round(1.0 / self._rate))

    def admits(self, address: str, now: float) -> bool:
        """Count one try; False when it must not be made."""
        return self._addresses.take(address, now) and self._all.take(now)

"""How often one address may try to sign in."""

from collections import OrderedDict
from typing import Final

from vitalgate.cloud.bucket import TokenBucket

MAX_ADDRESSES: Final = 1024


class Throttle:
    """A token bucket an address, in a bounded table that forgets the address silent longest, and one for all together.

    The common bucket bounds what forgetting (or a crowd of addresses) may bring; it is ten times as large.
    """

    def __init__(self, per_minute: float, at_once: float) -> None:
        self._rate = per_minute / 60.0
        self._burst = at_once
        self._all = TokenBucket(self._rate * 10, self._burst * 10)
        self._addresses: OrderedDict[str, TokenBucket] = OrderedDict()

    @property
    def retry_after(self) -> int:
        """Whole seconds after which another try is let through."""
        return max(1, round(1.0 / self._rate))

    def admits(self, address: str, now: float) -> bool:
        """Count one try; False when it must not be made."""
        bucket = self._addresses.get(address)
        if bucket is None:
            if len(self._addresses) >= MAX_ADDRESSES:
                self._addresses.popitem(last=False)
            bucket = self._addresses[address] = TokenBucket(self._rate, self._burst)
        self._addresses.move_to_end(address)
        return bucket.take(now) and self._all.take(now)

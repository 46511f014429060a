"""Token buckets: how much of something peers may cause, all together or each address for itself."""

from collections import OrderedDict


class TokenBucket:
    """``rate`` tokens a second, at most ``burst`` at once; time is the caller's monotonic ``now``."""

    __slots__ = ("_burst", "_rate", "_then", "_tokens")

    def __init__(self, rate: float, burst: float) -> None:
        self._rate = rate
        self._burst = burst
        self._tokens = burst
        self._then = float("-inf")

    def take(self, now: float) -> bool:
        """Take one token; False when there is none."""
        if now > self._then:
            self._tokens = min(self._burst, self._tokens + (now - self._then) * self._rate)
            self._then = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


class AddressBuckets:
    """A `TokenBucket` an address, in a table of ``places`` that forgets the address silent longest."""

    __slots__ = ("_addresses", "_burst", "_places", "_rate")

    def __init__(self, rate: float, burst: float, places: int) -> None:
        self._rate = rate
        self._burst = burst
        self._places = places
        self._addresses: OrderedDict[str, TokenBucket] = OrderedDict()

    def __len__(self) -> int:
        return len(self._addresses)

    def take(self, address: str, now: float) -> bool:
        """Take one of the address's tokens; False when it has none."""
        bucket = self._addresses.get(address)
        if bucket is None:
            if len(self._addresses) >= self._places:
                self._addresses.popitem(last=False)
            bucket = self._addresses[address] = TokenBucket(self._rate, self._burst)
        self._addresses.move_to_end(address)
        return bucket.take(now)

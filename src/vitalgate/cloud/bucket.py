"""A token bucket: how much of something unverified peers may cause."""


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

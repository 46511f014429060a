"""Auditable events at a bounded rate: a flood of bad packets must not become a flood of records."""

from typing import Final

from vitalgate.ipsec.refusal import Drop

BURST: Final = 10
PER_SECOND: Final = 1.0


class AuditRate:
    """A bucket of tokens for each reason."""

    def __init__(self, burst: int = BURST, per_second: float = PER_SECOND) -> None:
        self._burst = float(burst)
        self._rate = per_second
        self._buckets: dict[Drop, tuple[float, float]] = {}
        self._suppressed: dict[Drop, int] = {}

    def take(self, reason: Drop, now: float) -> int | None:
        """How many were suppressed before this one, None where this one is to be suppressed as well."""
        tokens, since = self._buckets.get(reason, (self._burst, now))
        tokens = min(self._burst, tokens + (now - since) * self._rate)
        if tokens < 1:
            self._buckets[reason] = (tokens, now)
            self._suppressed[reason] = self._suppressed.get(reason, 0) + 1
            return None
        self._buckets[reason] = (tokens - 1, now)
        return self._suppressed.pop(reason, 0)

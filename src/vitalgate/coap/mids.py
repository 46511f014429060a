"""Message IDs for one peer: a random start, one after another, none twice within EXCHANGE_LIFETIME (RFC 7252 4.4)."""

GROUP = 4096
GROUPS = 65536 // GROUP
NEVER = float("-inf")


class MessageIds:
    """Sequential Message IDs from ``start``. The time of last use is kept for each of 16 groups of 4096: a group is
    entered again only when all of it has been unused for EXCHANGE_LIFETIME. ``avoided`` are Message IDs of messages
    that went to many peers at once, and the time until when nobody else may have them (section 8.1)."""

    __slots__ = ("_avoided", "_next", "_taken", "_used")

    def __init__(self, start: int, avoided: dict[int, float]) -> None:
        self._next = start & 0xFFFF
        self._used = [NEVER] * GROUPS
        self._taken = 0
        self._avoided = avoided

    def take(self, now: float, lifetime: float) -> int | None:
        """The next Message ID, or None while it may not be used again; `free_at` says until when."""
        while True:
            mid = self._next
            group = mid // GROUP
            if mid % GROUP == 0 and now < self._used[group] + lifetime:
                return None
            self._used[group] = now
            self._taken += 1
            self._next = (mid + 1) & 0xFFFF
            if now >= self._avoided.get(mid, NEVER):
                return mid

    def free_at(self, lifetime: float) -> float:
        """When the next Message ID may be used."""
        mid = self._next
        return self._used[mid // GROUP] + lifetime if mid % GROUP == 0 else NEVER

    def recent(self, mid: int, now: float, lifetime: float) -> bool:
        """True where ``mid`` may have been used within ``lifetime``."""
        ago = (self._next - 1 - mid) & 0xFFFF
        return ago < self._taken and now < self._used[mid // GROUP] + lifetime

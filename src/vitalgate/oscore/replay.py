"""The sliding window against replays (RFC 8613 sections 3.2.2 and 7.4; the form of RFC 6347 section 4.1.2.6)."""

DEFAULT_WINDOW = 32
LARGEST_WINDOW = 4096


class ReplayWindow:
    """Which sequence numbers were received. `fresh` is asked before the cryptography, `mark` called after it.

    A window of ``size`` remembers the highest number and ``size - 1`` below it; what lies lower counts as received.
    """

    __slots__ = ("_highest", "_mask", "_seen", "size")

    def __init__(self, size: int = DEFAULT_WINDOW) -> None:
        if not 1 <= size <= LARGEST_WINDOW:
            raise ValueError(f"a replay window holds 1 to {LARGEST_WINDOW} numbers")
        self.size = size
        self._mask = (1 << size) - 1
        self._highest = -1
        self._seen = 0  # bit i: `highest - i` was received

    @property
    def highest(self) -> int:
        """The highest number received, -1 at first."""
        return self._highest

    def fresh(self, number: int) -> bool:
        """Whether ``number`` may still be accepted."""
        age = self._highest - number
        if age < 0:
            return True
        return age < self.size and not self._seen >> age & 1

    def mark(self, number: int) -> None:
        """Remember ``number``, which was fresh and has been verified."""
        ahead = number - self._highest
        if ahead <= 0:
            self._seen |= 1 << -ahead
        else:
            self._seen = (self._seen << ahead | 1) & self._mask if ahead < self.size else 1
            self._highest = number

    def start_at(self, number: int) -> None:
        """Take ``number`` as received and as the lower limit: everything below it is refused (Appendix B.1.2)."""
        self._highest = number
        self._seen = self._mask

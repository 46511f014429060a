"""Anti-replay with 32-bit and extended sequence numbers (RFC 4303 section 3.4.3 and appendix A)."""

from typing import Final

SMALLEST: Final = 32
LARGEST: Final = 4096
DEFAULT: Final = 64
_LOW: Final = 0xFFFFFFFF


class ReplayWindow:
    """Which sequence numbers were received. `number` is asked before the cryptography, `mark` called after it.

    Bit i of ``seen`` says that ``highest - i`` was received; ``bits`` masks it to the window's size.
    ``size`` 0: nothing is remembered but the highest number, which extended numbers need.
    """

    __slots__ = ("bits", "esn", "highest", "seen", "size")

    def __init__(self, size: int = DEFAULT, *, esn: bool = False) -> None:
        if size and not SMALLEST <= size <= LARGEST:
            raise ValueError(f"a window holds {SMALLEST} to {LARGEST} numbers, or none")
        self.size = size
        self.esn = esn
        self.highest = 0
        self.bits = (1 << size) - 1
        self.seen = 0

    def number(self, low: int) -> int | None:
        """The whole sequence number whose low 32 bits were received, None where it may not be accepted."""
        highest = self.highest
        if self.esn:
            low = self._extended(low)
        ahead = low - highest
        if ahead > 0:
            return low
        if low <= 0:
            return None  # no packet has the number 0; below: an extended number of an epoch before the first
        size = self.size
        if size == 0:
            return low
        if -ahead >= size or self.seen >> -ahead & 1:
            return None
        return low

    def _extended(self, low: int) -> int:
        """Appendix A2.2: the high half that puts the number nearest to the window."""
        highest = self.highest
        # Without a window the sender may still be overtaken by packets under way.
        size = self.size or DEFAULT
        edge = (highest & _LOW) - size + 1
        epoch = highest >> 32
        if edge >= 0:
            return (epoch if low >= edge else epoch + 1) << 32 | low
        if low >= edge & _LOW:
            return (epoch - 1 << 32) + low  # below 0 in the first epoch: refused by the caller
        return epoch << 32 | low

    def mark(self, number: int) -> None:
        """Remember ``number``, which `number` gave and whose packet has been verified."""
        ahead = number - self.highest
        if ahead == 1:
            self.seen = (self.seen << 1 | 1) & self.bits
            self.highest = number
        elif ahead > 0:
            self.seen = (self.seen << ahead | 1) & self.bits if ahead < self.size else 1
            self.highest = number
        else:
            self.seen |= 1 << -ahead

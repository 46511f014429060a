"""What both protocols' senders share: the sequence counter and where it must stop."""

from collections.abc import Callable
from typing import Final, TypeAlias

from vitalgate.ipsec.association import Association, Parameters
from vitalgate.ipsec.ledger import Ledger
from vitalgate.ipsec.refusal import Drop, Refused
from vitalgate.ipsec.tunnel import wrapper

Reserve: TypeAlias = Callable[[int], bool]
"""Makes durable that numbers up to the one given may have been used; False where it could not."""
RESERVED_AHEAD: Final = 1024
"""Numbers reserved at a time: what a crash may skip."""


class Outbound(Association):
    """A sender's SA. ``start``: the last number that may have been used before; ``reserve``: see `Reserve`."""

    __slots__ = ("_reserve", "_reserved", "_start", "_stop", "_wrap", "sequence")

    def __init__(
        self,
        parameters: Parameters,
        *,
        allow_legacy: bool = False,
        now: float = 0.0,
        ledger: Ledger | None = None,
        start: int = 0,
        reserve: Reserve | None = None,
    ) -> None:
        super().__init__(parameters, allow_legacy=allow_legacy, now=now, ledger=ledger)
        self.sequence = start
        self._start = start
        self._reserve = reserve
        self._reserved = start if reserve is not None else self.overflow
        self._wrap = wrapper(parameters)
        self._stop = start  # the first packet computes where to stop

    def expire(self) -> None:
        """As `Association`."""
        self._stop = -1
        super().expire()

    def _limit(self, sequence: int) -> int:
        """``sequence`` is past a stop: heed it, and say which number to use. Raises `Refused`."""
        if self.expired:
            raise Refused(Drop.EXPIRED)
        if sequence > self.overflow:
            if not self.parameters.rollover:
                raise Refused(Drop.OVERFLOW)
            sequence = 1
        self._check_packets()
        if self._reserve is not None and sequence > self._reserved:
            ahead = min(sequence + RESERVED_AHEAD, self.overflow)
            if not self._reserve(ahead):
                raise Refused(Drop.RESERVATION)
            self._reserved = ahead
        stops = [self.overflow, self._reserved]
        soft, hard = self.parameters.soft.packets, self.parameters.hard.packets
        # `packets` counts the one under way already.
        stops += [sequence + each - self.packets for each in (soft, hard) if each is not None and each >= self.packets]
        self._stop = min(stops)
        return sequence

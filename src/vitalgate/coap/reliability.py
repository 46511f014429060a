"""Reliable transmission (RFC 7252 section 4.2): Confirmable messages under way and their retransmission."""

from collections.abc import Callable
from typing import Protocol

from vitalgate.coap.parameters import Limits, Parameters
from vitalgate.coap.timers import Timers
from vitalgate.counters import Counters
from vitalgate.engine import Datagram, Path, Randomness


class Sender(Protocol):
    """Who has a Confirmable message under way: exactly one of these is called, once."""

    def acknowledged(self, now: float) -> None:
        """The peer has it."""

    def reset(self, now: float) -> None:
        """The peer rejected it."""

    def timed_out(self, now: float) -> None:
        """Nothing came after the last retransmission."""


class Transmission:
    """One Confirmable message under way."""

    __slots__ = (
        "_reliability",
        "data",
        "due",
        "mid",
        "path",
        "renew",
        "retransmissions",
        "sender",
        "sent_at",
        "timeout",
    )

    def __init__(
        self, reliability: "Reliability", data: bytes, path: Path, mid: int, sender: Sender, timeout: float, now: float
    ) -> None:
        self._reliability = reliability
        self.data = data
        self.path = path
        self.mid = mid
        self.sender = sender
        self.timeout = timeout
        self.sent_at = now
        self.retransmissions = 0
        self.renew: Callable[[Transmission, float], None] | None = None
        """Called before it is sent again: the sender may have something newer to say (`Reliability.supersede`)."""
        self.due: float | None = None

    def on_due(self, now: float) -> None:
        """Retransmit or give up."""
        self._reliability.retransmit(self, now)


class Reliability:
    """The table of transmissions, keyed by (path, Message ID)."""

    __slots__ = (
        "_counters", "_limit", "_max_retransmit", "_outgoing", "_random_span", "_randomness", "_span", "_table",
        "_timeout", "_timers",
    )  # fmt: skip

    def __init__(
        self,
        parameters: Parameters,
        limits: Limits,
        counters: Counters,
        timers: Timers,
        randomness: Randomness,
        outgoing: list[Datagram],
    ) -> None:
        self._timeout = parameters.ack_timeout
        self._random_span = parameters.ack_timeout * (parameters.ack_random_factor - 1)
        self._max_retransmit = parameters.max_retransmit
        self._span = parameters.max_transmit_span
        self._limit = limits.transmissions
        self._counters = counters
        self._timers = timers
        self._randomness = randomness
        self._outgoing = outgoing
        self._table: dict[tuple[Path, int], Transmission] = {}

    def __len__(self) -> int:
        return len(self._table)

    @property
    def full(self) -> bool:
        """True where no transmission may be added."""
        return len(self._table) >= self._limit

    def send(self, data: bytes, path: Path, mid: int, sender: Sender, now: float) -> Transmission:
        """Send ``data`` and retransmit it until it is acknowledged, reset, stopped or given up."""
        # Section 4.2: the first timeout is random between ACK_TIMEOUT and ACK_TIMEOUT * ACK_RANDOM_FACTOR.
        # The upper end is left out, lest rounding put the last transmission of the longest out of MAX_TRANSMIT_SPAN.
        timeout = self._timeout + self._random_span * (int.from_bytes(self._randomness(2), "big") / 65536)
        transmission = Transmission(self, data, path, mid, sender, timeout, now)
        self._table[path, mid] = transmission
        self._timers.set(transmission, now + timeout)
        self._outgoing.append((data, path))
        return transmission

    def find(self, path: Path, mid: int) -> Transmission | None:
        """The transmission that an acknowledgement or Reset with ``mid`` from ``path`` is about, or None."""
        return self._table.get((path, mid))

    def stop(self, transmission: Transmission) -> None:
        """Send it no more; its sender hears nothing from here."""
        self._timers.clear(transmission)
        self._table.pop((transmission.path, transmission.mid), None)

    def supersede(self, transmission: Transmission, mid: int, data: bytes) -> None:
        """Send another message in its place from now on, with its timer and counter (RFC 7641 section 4.5.2)."""
        self._table.pop((transmission.path, transmission.mid), None)
        transmission.mid = mid
        transmission.data = data
        self._table[transmission.path, mid] = transmission

    def retransmit(self, transmission: Transmission, now: float) -> None:
        """The timeout of ``transmission`` passed: send it again, or give it up after MAX_RETRANSMIT times."""
        if transmission.retransmissions >= self._max_retransmit:
            self.stop(transmission)
            transmission.sender.timed_out(now)
            return
        transmission.retransmissions += 1
        if transmission.renew is not None:
            transmission.renew(transmission, now)
        if now <= transmission.sent_at + self._span:
            self._outgoing.append((transmission.data, transmission.path))
            self._counters.add("coap_retransmissions")
        # else: late (asleep); section 4.2 keeps all transmissions within MAX_TRANSMIT_SPAN, so this one is missed.
        # Timeouts double, so the n-th ends (2^(n+1) - 1) times the first after the start; ACK_TIMEOUT apart at least.
        due = transmission.sent_at + transmission.timeout * (2 ** (transmission.retransmissions + 1) - 1)
        self._timers.set(transmission, max(due, now + self._timeout))

"""What the parts of an endpoint share."""

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from vitalgate.coap.codec import encode_empty
from vitalgate.coap.deduplication import Deduplication
from vitalgate.coap.events import Event
from vitalgate.coap.forwarding import Forwarding
from vitalgate.coap.message import Message, Type
from vitalgate.coap.parameters import Limits, Parameters
from vitalgate.coap.peers import Peers
from vitalgate.coap.reliability import Reliability
from vitalgate.coap.timers import Timers
from vitalgate.counters import Counters
from vitalgate.engine import Datagram, Path, Randomness

if TYPE_CHECKING:
    from vitalgate.coap.calls import Calls


class Core:
    """Parameters, tables, timers and queues of one endpoint; its client and server sides work on them."""

    __slots__ = (
        "_exchange", "accepts", "calls", "counters", "deduplication", "events", "forwarding", "group_response",
        "limits", "outgoing", "parameters", "peers", "randomness", "relays", "reliability", "reset_notification",
        "timers", "understands",
    )  # fmt: skip

    def __init__(
        self,
        parameters: Parameters,
        limits: Limits,
        counters: Counters,
        randomness: Randomness,
        understands: frozenset[int],
        accepts: Callable[[int, Message, Path], bool] | None = None,
    ) -> None:
        self.parameters = parameters
        self.limits = limits
        self.counters = counters
        self.randomness = randomness
        self.understands = understands
        """Critical options that layers above take care of, in requests and responses."""
        self.accepts = accepts
        """Judges a response before it ends its exchange; one that it refuses is as if it had never come."""
        self.calls: Calls | None = None
        """The layer above requests of ours (`calls`)."""
        self.forwarding: Forwarding | None = None
        """The proxy whose clients send their requests here."""
        self.relays = False
        """True where responses are a proxy's to pass on, so that options nobody knows here are kept."""
        self.timers = Timers()
        self.outgoing: list[Datagram] = []
        self.events: deque[Event] = deque()
        self.peers = Peers(parameters, limits, counters, self.timers, randomness)
        self.deduplication = Deduplication(parameters, limits)
        self.reliability = Reliability(parameters, limits, counters, self.timers, randomness, self.outgoing)
        self.group_response: Callable[[Message, Path], bool] | None = None
        """Given a response whose token is of no request to its sender; True where it was to a group."""
        self.reset_notification: Callable[[Path, int, float], bool] | None = None
        """Told of a Reset message that no message under way is found for; True where it was for a notification."""
        self._exchange = 0

    def new_exchange(self) -> int:
        """A number for an exchange, unique in this endpoint."""
        self._exchange += 1
        return self._exchange

    def tell(self, event: Event) -> None:
        """Queue an event for the application."""
        self.events.append(event)

    def reject(self, path: Path, mid: int, reason: str, *, reset: bool) -> None:
        """Reject a message (RFC 7252 sections 4.2, 4.3): count it, and answer with a Reset message or not at all."""
        self.counters.add("coap_rejected", reason)
        if reset:
            self.reset(path, mid)

    def reset(self, path: Path, mid: int) -> None:
        """Send a Reset message."""
        self.outgoing.append((encode_empty(Type.RST, mid), path))

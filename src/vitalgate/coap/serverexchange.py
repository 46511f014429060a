"""What a server has under way: requests that the application answers later, and responses sent separately."""

from typing import Protocol

from vitalgate.coap.core import Core
from vitalgate.coap.extensions import Extended
from vitalgate.coap.message import Message, Type
from vitalgate.coap.peers import Peer


class Deferring(Protocol):
    """Whose requests they are."""

    def due(self, exchange: "ServerExchange", now: float) -> None:
        """A deadline of ``exchange`` passed."""


class ServerExchange:
    """A request that the application answers later."""

    __slots__ = (
        "_server", "acknowledged", "budget", "confirmable", "due", "ends", "exchange", "extended", "mid", "peer",
        "request", "token",
    )  # fmt: skip

    def __init__(
        self,
        server: "Deferring",
        exchange: int,
        peer: Peer,
        request: Message,
        budget: int,
        ends: float,
        extended: Extended | None,
    ) -> None:
        self._server = server
        self.exchange = exchange
        self.peer = peer
        self.request = request
        self.extended = extended
        self.mid = request.mid
        self.token = request.token
        self.confirmable = request.type == Type.CON
        self.acknowledged = False
        self.budget = budget
        self.ends = ends
        self.due: float | None = None

    def on_due(self, now: float) -> None:
        """The piggyback window is over, or nobody waits for the response any more."""
        self._server.due(self, now)


class SeparateResponse:
    """A Confirmable response under way (section 5.2.2); nothing depends on how it ends but the counters."""

    __slots__ = ("_core",)

    def __init__(self, core: Core) -> None:
        self._core = core

    def acknowledged(self, now: float) -> None:
        """The client has the response."""

    def reset(self, now: float) -> None:
        """The client does not know the request any more."""
        self._core.counters.add("coap_responses_undelivered", "reset")

    def timed_out(self, now: float) -> None:
        """The client never acknowledged."""
        self._core.counters.add("coap_responses_undelivered", "timeout")

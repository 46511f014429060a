"""What a `Proxy` asks of whoever runs it, its bounds, and a request on its way through it."""

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from vitalgate.coap.cache import CacheKey, Stored
from vitalgate.coap.endpoint import Endpoint
from vitalgate.coap.events import Failure, RequestReceived
from vitalgate.coap.message import Code, Message
from vitalgate.coap.options import build_options
from vitalgate.coap.proxypolicy import Target
from vitalgate.coap.proxyrequest import Plan
from vitalgate.coap.proxywatch import Client
from vitalgate.engine import Path

BUSY_SECONDS: Final = 10
"""Max-Age of 5.03: when to try again (RFC 7252 section 5.9.3.4)."""

Answer = Callable[[Message, float], None]
"""``answer(response, now)`` gives a client its response."""
Reach = Callable[[str, int], tuple[Endpoint, Path] | None]
"""``reach(address, port)``: the endpoint to ask from, and its path to there; None where there is no way."""


@dataclass(frozen=True, slots=True)
class ProxyLimits:
    """The bounds of a `Proxy`; a table that is full is counted as ``coap_limit_reached`` with the name here."""

    forwards: int = 1024
    """Requests under way to origin servers. Full: 5.03 with Max-Age."""
    watches: int = 256
    """Resources that are observed at origin servers for clients. Full: who asks is answered, and does not observe."""
    wait: float = 100.0
    """Seconds from taking a request until it is answered 5.04, with looking up the name. By default a little more than
    MAX_TRANSMIT_WAIT (RFC 7252 section 4.8.2)."""


@dataclass(frozen=True, slots=True)
class Resolve:
    """Look up the addresses of ``target.host`` and say them with `Proxy.resolved`."""

    ticket: int
    target: Target


@dataclass(frozen=True, slots=True)
class HttpAsk:
    """Ask the HTTP server at ``address`` (and nowhere else) for ``url`` what ``request`` says (`coap.httpmapping` has
    it in HTTP's words) and give the response to `Proxy.answered`, or the failure to `Proxy.failed`."""

    ticket: int
    target: Target
    address: str
    url: str
    request: Message


class Trouble(enum.Enum):
    """Why an origin server was not asked or did not answer, and the code that says so (RFC 7252 section 5.7.1)."""

    UNKNOWN_NAME = Code.BAD_GATEWAY, "name"
    UNREACHABLE = Code.BAD_GATEWAY, "no way to the target"
    NOT_UNDERSTOOD = Code.BAD_GATEWAY, "response"
    TOO_LARGE = Code.BAD_GATEWAY, "response too large"
    TIMEOUT = Code.GATEWAY_TIMEOUT, ""
    BUSY = Code.SERVICE_UNAVAILABLE, ""

    def response(self) -> Message:
        """The response."""
        code, text = self.value
        options = build_options(max_age=BUSY_SECONDS) if self is Trouble.BUSY else ()
        return Message(code, options, text.encode())


@dataclass(frozen=True, slots=True)
class LocalRequest:
    """A request that came to ``front`` and is not for the proxy, and that its resource wants to answer later."""

    front: Endpoint
    received: RequestReceived


ProxyEvent = Resolve | HttpAsk | LocalRequest

TROUBLE: Final[dict[Failure, Trouble]] = {
    Failure.TIMEOUT: Trouble.TIMEOUT,
    Failure.RESET: Trouble.NOT_UNDERSTOOD,
    Failure.REJECTED: Trouble.NOT_UNDERSTOOD,
    Failure.PROTECTION: Trouble.NOT_UNDERSTOOD,
    Failure.CANCELLED: Trouble.UNREACHABLE,
    Failure.LIMIT: Trouble.BUSY,
    Failure.BACK_OFF: Trouble.BUSY,
    Failure.INCOMPLETE: Trouble.NOT_UNDERSTOOD,
}
"""What a failed request of ours is to the client."""


class Flight:
    """One request under way to an origin server."""

    __slots__ = ("answers", "back", "client", "due", "exchange", "key", "observers", "outdated", "plan", "started",
                 "ticket", "validated")  # fmt: skip

    def __init__(self, ticket: int, plan: Plan, client: Message, key: CacheKey, answer: Answer, now: float) -> None:
        self.ticket = ticket
        self.plan = plan
        self.client = client
        """The request as the client sent it, for its ETags."""
        self.key = key
        self.answers = [answer]
        self.observers: list[Client] = []
        """Those of the clients that observe, where it is to be an observation."""
        self.started = now
        self.due = 0.0
        self.back: Endpoint | None = None
        self.exchange = 0
        self.validated: Stored | None = None
        self.outdated = False
        """True once the resource was changed through this proxy while the request was under way."""

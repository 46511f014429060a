"""What an endpoint tells its application: `MessageEndpoint.next_event` returns these."""

import enum
from dataclasses import dataclass

from vitalgate.coap.message import Message
from vitalgate.engine import Path


class Failure(enum.Enum):
    """Why a request of ours ended without a response."""

    TIMEOUT = "timeout"
    """No acknowledgement after the last retransmission, or no response in time."""
    RESET = "reset"
    """The peer sent a Reset message."""
    CANCELLED = "cancelled"
    """The application cancelled it."""
    REJECTED = "rejected"
    """The response had a critical option that we do not understand (RFC 7252 section 5.4.1)."""
    LIMIT = "limit"
    """A bound of `Limits` was reached; nothing was sent."""
    PROTECTION = "protection"
    """A security layer could not protect the request or refused the response."""


@dataclass(frozen=True, slots=True)
class RequestReceived:
    """A request that waits for `MessageEndpoint.respond`; ``identity``: the peer's authenticated name or ''."""

    exchange: int
    request: Message
    path: Path
    identity: str = ""


@dataclass(frozen=True, slots=True)
class ResponseReceived:
    """The response to our request ``exchange``."""

    exchange: int
    response: Message
    path: Path


@dataclass(frozen=True, slots=True)
class GroupRequestEnded:
    """The time for responses to our request ``exchange`` to the group ``path`` is over: there were ``responses``, each
    of them a `ResponseReceived` whose path is the server's own."""

    exchange: int
    path: Path
    responses: int


@dataclass(frozen=True, slots=True)
class RequestFailed:
    """Our request ``exchange`` ended without a response."""

    exchange: int
    path: Path
    reason: Failure


Event = RequestReceived | ResponseReceived | GroupRequestEnded | RequestFailed

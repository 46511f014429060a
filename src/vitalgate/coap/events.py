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
    INCOMPLETE = "incomplete"
    """The blocks that came make no whole (RFC 7959), or the representation changed too often to be read."""
    BACK_OFF = "back_off"
    """The server answered the like of it with 4.29, and Max-Age is not over (RFC 8516); nothing was sent."""


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


@dataclass(frozen=True, slots=True)
class RequestSent:
    """Our request ``exchange`` asked for no response (RFC 7967) and is over: acknowledged, or sent where it was
    Non-confirmable, or none of the responses that it did ask for came."""

    exchange: int
    path: Path


@dataclass(frozen=True, slots=True)
class TransferProgressed:
    """A block-wise transfer of our request ``exchange`` went on: bytes of its payload that the server has, of how many,
    and bytes of the response that came, of how many (None: the server did not say)."""

    exchange: int
    path: Path
    sent: int
    to_send: int
    received: int
    to_receive: int | None


@dataclass(frozen=True, slots=True)
class NotificationReceived:
    """The newest state of a resource that we observe (RFC 7641), whole; the first is the answer to the request itself.
    `ResponseReceived` with a last response or `RequestFailed` says that ``exchange`` observes no longer."""

    exchange: int
    response: Message
    path: Path


Event = (
    RequestReceived
    | ResponseReceived
    | GroupRequestEnded
    | RequestFailed
    | RequestSent
    | TransferProgressed
    | NotificationReceived
)

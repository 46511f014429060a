"""What an endpoint tells its application: `Endpoint.next_event` returns these."""

import enum
from dataclasses import dataclass
from typing import NamedTuple

from vitalgate.dtls.credentials import Identity
from vitalgate.engine import Path


class End(enum.Enum):
    """Why an association or a handshake ended; the value is its counter label."""

    LOCAL = "local"
    """We closed it."""
    PEER = "peer"
    """The peer said close_notify."""
    ALERT = "alert"
    """The peer sent a fatal alert."""
    REFUSED = "refused"
    """We refused what the peer sent or showed, and said so."""
    TIMEOUT = "timeout"
    """No answer after the last retransmission."""
    IDLE = "idle"
    """Nothing was heard for too long."""
    REPLACED = "replaced"
    """The peer made a new association from the same address."""
    EXHAUSTED = "exhausted"
    """A key was used as much as it may be."""
    LIMIT = "limit"
    """A bound of `Limits` was reached."""


@dataclass(frozen=True, slots=True)
class Connected:
    """A handshake is complete, both ends are authenticated as the mode says, and application data may flow."""

    association: int
    path: Path
    identity: Identity
    version: int
    suite: int
    resumed: bool


class Received(NamedTuple):
    """Application data of one record; a tuple, as there is one for each."""

    association: int
    path: Path
    data: bytes


@dataclass(frozen=True, slots=True)
class Moved:
    """The peer's newest record came from another address, found by its connection ID (RFC 9146 section 6); what is sent
    goes there from now on. The address has not shown that it receives: that is for the application to see to."""

    association: int
    path: Path
    before: Path


@dataclass(frozen=True, slots=True)
class Closed:
    """An association ended. ``alert``: what was said, or None."""

    association: int
    path: Path
    identity: Identity
    reason: End
    alert: int | None = None


@dataclass(frozen=True, slots=True)
class Failed:
    """A handshake ended before it was complete. ``detail``: what was wrong, in words, where we found it."""

    association: int
    path: Path
    reason: End
    alert: int | None = None
    detail: str = ""


Event = Connected | Received | Moved | Closed | Failed

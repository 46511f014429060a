"""What the enrolment service tells: answers to peers, as a table, and events to the ingest engine and the audit."""

from dataclasses import dataclass, field
from enum import Enum
from typing import Final, TypeAlias

from vitalgate.coap.message import Code
from vitalgate.oscore.context import ContextError, Parameters, SecurityContext
from vitalgate.oscore.contexts import Contexts


class Refusal(Enum):
    """Why a message was refused; the value labels the counter ``cloud_enrolment_messages``."""

    METHOD = "method"
    FORMAT = "format"
    MALFORMED = "malformed"
    UNPROVEN = "unproven"
    STALE = "stale"
    EXPIRED = "code-expired"
    LOCKED = "code-locked"
    USED = "code-used"
    NAME_TAKEN = "name-taken"
    REVOKED = "revoked"
    OTHER_CLOUD = "other-cloud"
    FULL = "full"
    BUSY = "busy"
    UNAVAILABLE = "unavailable"


ANSWERS: Final[dict[Refusal, tuple[Code, bytes]]] = {
    # Whoever has proven nothing is told nothing; the texts below UNPROVEN go to holders of a code or of a rekey key.
    Refusal.METHOD: (Code.METHOD_NOT_ALLOWED, b""),
    Refusal.FORMAT: (Code.UNSUPPORTED_CONTENT_FORMAT, b""),
    Refusal.MALFORMED: (Code.BAD_REQUEST, b""),
    Refusal.UNPROVEN: (Code.UNAUTHORIZED, b""),
    Refusal.STALE: (Code.UNAUTHORIZED, b""),
    Refusal.EXPIRED: (Code.FORBIDDEN, b"the code has expired"),
    Refusal.LOCKED: (Code.FORBIDDEN, b"the code is locked after wrong proofs"),
    Refusal.USED: (Code.CONFLICT, b"the code was used by another gateway"),
    Refusal.NAME_TAKEN: (Code.CONFLICT, b"a gateway of this name is enrolled"),
    Refusal.REVOKED: (Code.FORBIDDEN, b"this identity key is out of service"),
    Refusal.OTHER_CLOUD: (Code.FORBIDDEN, b"enrolled with another cloud key"),
    Refusal.FULL: (Code.SERVICE_UNAVAILABLE, b"no room for more gateways"),
    Refusal.BUSY: (Code.TOO_MANY_REQUESTS, b""),
    Refusal.UNAVAILABLE: (Code.SERVICE_UNAVAILABLE, b""),
}


@dataclass(frozen=True, slots=True)
class ContextAdded:
    """``context`` (named after its gateway) is to be put into service beside the contexts that are. ``keys`` are the
    session's, the cloud's side; ``public`` is the identity key (33 bytes) that it was made with."""

    gateway: str
    kid: bytes
    context: SecurityContext
    keys: Parameters = field(repr=False)
    public: bytes


@dataclass(frozen=True, slots=True)
class ContextRemoved:
    """``context`` is to be taken out of service now."""

    gateway: str
    kid: bytes
    context: SecurityContext


@dataclass(frozen=True, slots=True)
class GatewayEnrolled:
    """A gateway enrolled. ``replaced``: fingerprint of the key it took over from, or ''. ``code_id``: of the code."""

    gateway: str
    fingerprint: str
    replaced: str
    code_id: bytes


@dataclass(frozen=True, slots=True)
class GatewayRekeyed:
    """A gateway made fresh keys. ``rotated``: fingerprint of its new identity key, or ''."""

    gateway: str
    rotated: str


def apply(event: "Event", contexts: Contexts) -> bool:
    """Do in ``contexts`` what a context event says; other events change nothing. False when there is no room."""
    try:
        if isinstance(event, ContextAdded):
            contexts.add(event.context)
        elif isinstance(event, ContextRemoved):
            contexts.remove(event.context)
    except ContextError:
        return False
    return True


Event: TypeAlias = ContextAdded | ContextRemoved | GatewayEnrolled | GatewayRekeyed

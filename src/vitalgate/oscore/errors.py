"""What can go wrong, as values: why a message was refused, and why we could not protect one."""

import enum
from dataclasses import dataclass

from vitalgate.coap.message import Code, Message
from vitalgate.coap.options import build_options


class Refusal(enum.Enum):
    """Why a message did not pass; the value is its counter label."""

    MALFORMED = "malformed"
    NO_CONTEXT = "no-context"
    REPLAY = "replay"
    DECRYPTION = "decryption"
    UNPROTECTED = "unprotected"
    UNAVAILABLE = "unavailable"


@dataclass(frozen=True, slots=True)
class Answer:
    """The unprotected error a server gives: response code and diagnostic payload."""

    code: Code
    diagnostic: bytes


ANSWERS: dict[Refusal, Answer] = {
    # RFC 8613 sections 7.4 and 8.2; the last two are ours.
    Refusal.MALFORMED: Answer(Code.BAD_OPTION, b"Failed to decode COSE"),
    Refusal.NO_CONTEXT: Answer(Code.UNAUTHORIZED, b"Security context not found"),
    Refusal.REPLAY: Answer(Code.UNAUTHORIZED, b"Replay detected"),
    Refusal.DECRYPTION: Answer(Code.BAD_REQUEST, b"Decryption failed"),
    Refusal.UNPROTECTED: Answer(Code.UNAUTHORIZED, b"Protection required"),
    Refusal.UNAVAILABLE: Answer(Code.SERVICE_UNAVAILABLE, b""),
}


def answer(refusal: Refusal) -> Message:
    """The error as a message. Outer Max-Age 0 keeps proxies from storing it (section 4.1.3.1)."""
    row = ANSWERS[refusal]
    return Message(row.code, _NOT_STORED, row.diagnostic)


_NOT_STORED = build_options(max_age=0)


class OscoreError(ValueError):
    """A received message that is refused: the one error of this room's decoders. ``refusal`` says why."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.value)
        self.refusal = refusal


class ProtectionError(Exception):
    """A message of ours that cannot be protected, and so is not sent: the text says why."""


class SequenceError(ProtectionError):
    """No sender sequence number can be had: the store failed, another process holds it, or 2^40 were used."""

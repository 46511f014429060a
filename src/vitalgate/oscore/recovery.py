"""After a restart: a server that lost its replay window asks the client to show freshness (RFC 8613 Appendix B.1.2)."""

import hmac
from typing import Final

from vitalgate.coap.message import Code, Message
from vitalgate.coap.options import Option, with_option
from vitalgate.engine import Randomness
from vitalgate.oscore.context import SecurityContext
from vitalgate.oscore.errors import OscoreError, Refusal
from vitalgate.oscore.protect import Binding, protect_response
from vitalgate.oscore.replay import ReplayWindow

ECHO_BYTES: Final = 8
CHALLENGES: Final = 64
"""Most challenges a second under one context: as many requests as an honest peer has under way when we start again."""


def synchronise(
    context: SecurityContext, request: Message, binding: Binding, now: float, randomness: Randomness
) -> Message | None:
    """Judge a decrypted ``request`` under a context that may have no window.

    None: it is fresh, and ``context.window`` starts at its number; it may be processed. Otherwise the protected 4.01
    to send in its place: the Echo option alone, under a sequence number of our own, since the request may be a replay
    whose nonce an earlier run used for its response. Raises `SequenceError`, and `OscoreError` (UNAVAILABLE) beyond
    `CHALLENGES` a second: replays of old requests must not use up our numbers."""
    if context.window is not None:
        return None
    if not context.echo:
        context.echo = randomness(ECHO_BYTES)
    echoed = request.option(Option.ECHO)
    if echoed is not None and hmac.compare_digest(echoed, context.echo):
        # The event that the value stands for is our start: a request that holds it was made after it.
        window = ReplayWindow(context.window_size)
        window.start_at(binding.number)
        context.window = window
        context.echo = b""
        return None
    second = int(now)
    if second != context.challenge_second:
        context.challenge_second, context.challenges = second, 0
    if context.challenges >= CHALLENGES:
        raise OscoreError(Refusal.UNAVAILABLE)
    context.challenges += 1
    challenge = Message(Code.UNAUTHORIZED, ((Option.ECHO, context.echo),))
    return protect_response(context, binding, challenge, own_piv=True)


def challenge_in(response: Message) -> bytes | None:
    """The Echo value of a verified 4.01 that asks to send the request again, or None."""
    return response.option(Option.ECHO) if response.code == Code.UNAUTHORIZED else None


def with_echo(request: Message, value: bytes) -> Message:
    """``request`` once more, with the Echo option set to ``value`` (RFC 9175 section 2.3)."""
    return Message(request.code, with_option(request.options, Option.ECHO, value), request.payload, request.type)

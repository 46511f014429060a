"""The plaintext: code, Class E options, payload (RFC 8613 section 5.3), in the option form of RFC 7252 section 3.1."""

from typing import NamedTuple

from vitalgate.coap.codec import MessageFormatError, decode_options, encode_options, encode_payload
from vitalgate.coap.message import Message, Options
from vitalgate.coap.options import Option
from vitalgate.oscore.classes import OUTER_ONLY
from vitalgate.oscore.errors import OscoreError, ProtectionError, Refusal


class Split(NamedTuple):
    """An application's message apart: what is encrypted, which options stay outside, the Observe value or None."""

    plaintext: bytes
    outer: Options
    observe: bytes | None


def split(message: Message) -> Split:
    """Take ``message`` apart for protection. Raises `ProtectionError` for a message that is protected already, names
    a Proxy-Uri (to be taken apart first, section 4.1.3.3), or is no message (options out of order or range)."""
    options = inner = message.options
    outer: Options = ()
    observe = None
    for number, value in options:
        if number == Option.OBSERVE:
            observe = value
            outer = (*outer, (number, value))
        elif number in OUTER_ONLY:
            if number in (Option.OSCORE, Option.PROXY_URI):
                raise ProtectionError(f"a message with option {number} cannot be protected")
            outer = (*outer, (number, value))
            inner = ()
    if inner is not options:
        inner = tuple(option for option in options if option[0] not in OUTER_ONLY)
    try:
        plaintext = bytes((message.code,)) + encode_options(inner) + encode_payload(message.payload)
    except ValueError as error:
        raise ProtectionError(f"no message: {error}") from error
    return Split(plaintext, outer, observe)


class Inner(NamedTuple):
    """What a plaintext holds."""

    code: int
    options: Options
    payload: bytes


def decode(plaintext: bytes) -> Inner:
    """Read a verified plaintext. Raises `OscoreError` (MALFORMED) where it is empty, breaks the format of RFC 7252
    section 3.1, or holds an option that belongs outside only."""
    if not plaintext:
        raise OscoreError(Refusal.MALFORMED)
    try:
        options, payload = decode_options(plaintext, 1)
    except MessageFormatError:
        raise OscoreError(Refusal.MALFORMED) from None
    for number, _ in options:
        if number in OUTER_ONLY:
            raise OscoreError(Refusal.MALFORMED)
    return Inner(plaintext[0], options, payload)

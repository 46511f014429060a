"""The plaintext: code, Class E options, payload (RFC 8613 section 5.3), in the option form of RFC 7252 section 3.1.

Splitting a message by option class and encoding its inner part happen in one pass: this is the hot path.
"""

from typing import NamedTuple

from vitalgate.coap.message import Message, Options
from vitalgate.oscore.classes import OBSERVE, OUTER_ONLY, PROXY_URI
from vitalgate.oscore.errors import OscoreError, ProtectionError, Refusal
from vitalgate.oscore.option import OSCORE

_LONG = 269  # deltas and lengths from here take two more bytes, from 13 one
_LONGEST = 65535 + _LONG


class Split(NamedTuple):
    """An application's message apart: what is encrypted, which options stay outside, the Observe value or None."""

    plaintext: bytes
    outer: list[tuple[int, bytes]]
    observe: bytes | None


def split(message: Message) -> Split:
    """Take ``message`` apart for protection. Raises `ProtectionError` for a message that is protected already, names
    a Proxy-Uri (to be taken apart first, section 4.1.3.3), or is no message (options out of order or out of size)."""
    inner = bytearray((message.code,))
    outer: list[tuple[int, bytes]] = []
    observe = None
    last = 0
    for number, value in message.options:
        if number in OUTER_ONLY:
            if number in (OSCORE, PROXY_URI):
                raise ProtectionError(f"a message with option {number} cannot be protected")
            outer.append((number, value))
            continue
        if number == OBSERVE:
            observe = value
            outer.append((number, value))
        delta, size = number - last, len(value)
        if 0 <= delta < 13 and size < 13:
            inner.append(delta << 4 | size)
        else:
            _append_head(inner, delta, size)
        inner += value
        last = number
    if message.payload:
        inner.append(0xFF)
        inner += message.payload
    return Split(bytes(inner), outer, observe)


def _append_head(inner: bytearray, delta: int, size: int) -> None:
    if not (0 <= delta < _LONGEST and size < _LONGEST):
        raise ProtectionError("options out of order or out of size")
    nibbles = 0
    tail = b""
    for value in (delta, size):
        if value < 13:
            nibbles = nibbles << 4 | value
        elif value < _LONG:
            nibbles = nibbles << 4 | 13
            tail += (value - 13).to_bytes(1, "big")
        else:
            nibbles = nibbles << 4 | 14
            tail += (value - _LONG).to_bytes(2, "big")
    inner.append(nibbles)
    inner += tail


class Inner(NamedTuple):
    """What a plaintext holds."""

    code: int
    options: Options
    payload: bytes


def decode(plaintext: bytes) -> Inner:
    """Read a verified plaintext. Raises `OscoreError` (MALFORMED): it is empty, an option is cut short or uses a
    reserved length, its number passes 65535 or belongs outside only, or the payload marker has no payload."""
    size = len(plaintext)
    if not size:
        raise OscoreError(Refusal.MALFORMED)
    options: list[tuple[int, bytes]] = []
    number, at = 0, 1
    while at < size:
        head = plaintext[at]
        at += 1
        if head == 0xFF:
            if at == size:
                raise OscoreError(Refusal.MALFORMED)
            return Inner(plaintext[0], tuple(options), plaintext[at:])
        delta, length = head >> 4, head & 15
        if delta > 12:
            delta, at = _extended(plaintext, at, delta)
        if length > 12:
            length, at = _extended(plaintext, at, length)
        number += delta
        end = at + length
        if end > size or number > 65535 or number in OUTER_ONLY:
            raise OscoreError(Refusal.MALFORMED)
        options.append((number, plaintext[at:end]))
        at = end
    return Inner(plaintext[0], tuple(options), b"")


def _extended(data: bytes, at: int, nibble: int) -> tuple[int, int]:
    """A delta or length of one or two more bytes (RFC 7252 section 3.1), and where it ends."""
    width = nibble - 12
    end = at + width
    if width > 2 or end > len(data):
        raise OscoreError(Refusal.MALFORMED)
    return int.from_bytes(data[at:end], "big") + (13 if width == 1 else _LONG), end

"""The message format of RFC 7252 section 3: bytes to `Message` and back.

A decoder here returns a value or raises `MessageFormatError`; nothing else.
"""

import enum
import struct

from vitalgate.coap.message import Message, Options, Type

HEADER = struct.Struct("!BBH")
"""Version, type and token length; code; Message ID (RFC 7252 figure 7)."""
VERSION_BITS = 0x40
MAX_TOKEN = 8
"""Longest token of RFC 7252, and of what we send ourselves."""
MAX_EXTENDED_TOKEN = 65804
"""Longest token of RFC 8974 section 2.1."""
PAYLOAD_MARKER = 0xFF
MAX_OPTION_LENGTH = 65535 + 269
TYPES = tuple(Type)
RESET_BITS = VERSION_BITS | Type.RST << 4
ACK_BITS = VERSION_BITS | Type.ACK << 4


class Answer(enum.Enum):
    """What RFC 7252 has a recipient do with a message that it cannot process (sections 3, 4.2, 4.3)."""

    IGNORE = "ignore"
    RESET = "reset"


class MessageFormatError(ValueError):
    """A message format error. ``reason`` is one of a fixed set of words (a counter's label); ``type`` and ``mid`` are
    the message's, where its header could be read."""

    def __init__(self, reason: str, type_: Type | None = None, mid: int | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.type = type_
        self.mid = mid

    @property
    def answer(self) -> Answer:
        """Confirmable messages are rejected with a Reset message, all others silently (RFC 7252 sections 4.2, 4.3)."""
        return Answer.RESET if self.type is Type.CON else Answer.IGNORE


def decode(data: bytes, max_token: int = MAX_TOKEN) -> Message:
    """The message that ``data`` (one datagram) holds; ``max_token`` above 8: extended tokens up to it (RFC 8974).
    Raises `MessageFormatError`."""
    if len(data) < HEADER.size:
        raise MessageFormatError("short")
    first, code, mid = HEADER.unpack_from(data)
    if first & 0xC0 != VERSION_BITS:
        raise MessageFormatError("version")  # section 3: silently ignored, whatever its type bits say
    kind = TYPES[first >> 4 & 3]
    try:
        token, start = decode_token(data, max_token)
        if code == 0 and len(data) > HEADER.size:
            raise MessageFormatError("empty_with_data")  # section 4.1
        options, payload = decode_options(data, start)
    except MessageFormatError as error:
        error.type, error.mid = kind, mid
        raise
    return Message(code, options, payload, kind, mid, token)


def decode_token(data: bytes, max_token: int = MAX_TOKEN) -> tuple[bytes, int]:
    """The token of a datagram of at least 4 bytes, and where its options start (RFC 7252 section 3; with ``max_token``
    above 8 RFC 8974 section 2.1). Raises `MessageFormatError` without type and Message ID."""
    length = data[0] & 15
    start = HEADER.size
    if length > max_token or length == 15:
        raise MessageFormatError("token_length")
    if length > 12:
        start += length - 12
        if start > len(data):
            raise MessageFormatError("truncated")
        length = int.from_bytes(data[HEADER.size : start], "big") + (13 if length == 13 else 269)
        if length > max_token:
            raise MessageFormatError("token_length")
    end = start + length
    if end > len(data):
        raise MessageFormatError("truncated")
    return data[start:end], end


def encode_token(token: bytes) -> tuple[int, bytes]:
    """The token length field and what follows the header for ``token`` (RFC 8974 section 2.1). ValueError where it is
    too long for any message."""
    if len(token) > MAX_EXTENDED_TOKEN:
        raise ValueError(f"a token has at most {MAX_EXTENDED_TOKEN} bytes, not {len(token)}")
    nibble, more = _extend(len(token))
    return nibble, more + token


def decode_options(data: bytes, at: int = 0) -> tuple[Options, bytes]:
    """Options and payload from position ``at`` to the end of ``data`` (RFC 7252 section 3.1; also an OSCORE plaintext
    after its code). Raises `MessageFormatError` without type and Message ID."""
    options: list[tuple[int, bytes]] = []
    number = 0
    end = len(data)
    while at < end:
        byte = data[at]
        at += 1
        if byte == PAYLOAD_MARKER:
            if at == end:
                raise MessageFormatError("payload_empty")
            return tuple(options), data[at:]
        delta = byte >> 4
        length = byte & 15
        if delta > 12:
            if delta == 13 and at < end:
                delta = data[at] + 13
                at += 1
            elif delta == 14 and at + 1 < end:
                delta = (data[at] << 8 | data[at + 1]) + 269
                at += 2
            else:
                raise MessageFormatError("option_delta")
        if length > 12:
            if length == 13 and at < end:
                length = data[at] + 13
                at += 1
            elif length == 14 and at + 1 < end:
                length = (data[at] << 8 | data[at + 1]) + 269
                at += 2
            else:
                raise MessageFormatError("option_length")
        number += delta
        if number > 65535:
            raise MessageFormatError("option_number")
        stop = at + length
        if stop > end:
            raise MessageFormatError("truncated")
        options.append((number, data[at:stop]))
        at = stop
    return tuple(options), b""


def encode(message: Message, max_token: int = MAX_TOKEN) -> bytes:
    """The datagram of ``message``. Raises ValueError for what no message can hold: a token longer than ``max_token``,
    options out of order or range, an Empty message with anything in it."""
    token = message.token
    if len(token) > max_token:
        raise ValueError(f"a token has at most {max_token} bytes here, not {len(token)}")
    length, token = encode_token(token)
    if message.code == 0 and (token or message.options or message.payload):
        raise ValueError("an Empty message has no token, options or payload")
    header = HEADER.pack(VERSION_BITS | message.type << 4 | length, message.code, message.mid)
    return header + token + encode_options(message.options) + encode_payload(message.payload)


def encode_payload(payload: bytes) -> bytes:
    """The payload behind its marker, or nothing where it is empty."""
    return b"\xff" + payload if payload else b""


def encode_options(options: Options) -> bytes:
    """Options as RFC 7252 section 3.1 writes them. Raises ValueError where they are out of order or range."""
    out = bytearray()
    previous = 0
    for number, value in options:
        delta = number - previous
        length = len(value)
        if 0 <= delta < 13 and length < 13:
            out.append(delta << 4 | length)
        else:
            if delta < 0 or number > 65535 or length > MAX_OPTION_LENGTH:
                raise ValueError(f"option {number} is out of order or range")
            delta_nibble, delta_more = _extend(delta)
            length_nibble, length_more = _extend(length)
            out.append(delta_nibble << 4 | length_nibble)
            out += delta_more
            out += length_more
        out += value
        previous = number
    return bytes(out)


def _extend(value: int) -> tuple[int, bytes]:
    # An option's delta or length (section 3.1), a token's length: the nibble, and the bytes that extend it.
    if value < 13:
        return value, b""
    if value < 269:
        return 13, bytes((value - 13,))
    return 14, (value - 269).to_bytes(2, "big")


def encode_empty(kind: Type, mid: int) -> bytes:
    """An Empty message: acknowledgement, Reset or ping."""
    return HEADER.pack(VERSION_BITS | kind << 4, 0, mid)

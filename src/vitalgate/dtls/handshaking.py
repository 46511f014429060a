"""Handshake messages: header, fragments and reassembly (RFC 6347 section 4.2.2, RFC 9147 section 5)."""

import enum
from dataclasses import dataclass
from struct import Struct

from vitalgate.dtls.alerts import Alert, HandshakeError
from vitalgate.dtls.wire import DecodeError


class HandshakeType(enum.IntEnum):
    """The registry's values that we know."""

    HELLO_REQUEST = 0
    CLIENT_HELLO = 1
    SERVER_HELLO = 2
    HELLO_VERIFY_REQUEST = 3
    NEW_SESSION_TICKET = 4
    ENCRYPTED_EXTENSIONS = 8
    REQUEST_CONNECTION_ID = 9
    NEW_CONNECTION_ID = 10
    CERTIFICATE = 11
    SERVER_KEY_EXCHANGE = 12
    CERTIFICATE_REQUEST = 13
    SERVER_HELLO_DONE = 14
    CERTIFICATE_VERIFY = 15
    CLIENT_KEY_EXCHANGE = 16
    FINISHED = 20
    KEY_UPDATE = 24
    MESSAGE_HASH = 254


HEADER = Struct("!BBHHBHBH")
"""Type, length, message sequence number, fragment offset, fragment length; numbers of 24 bits in two parts."""
HEADER_BYTES = HEADER.size
assert HEADER_BYTES == 12
LARGEST_SEQUENCE = 0xFFFF


@dataclass(frozen=True, slots=True)
class Fragment:
    """A part of a message: ``body`` are its bytes from ``offset`` on, of ``length`` altogether."""

    type: int
    length: int
    sequence: int
    offset: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Message:
    """A whole handshake message; ``sequence`` is its message_seq."""

    type: int
    sequence: int
    body: bytes

    def with_dtls_header(self) -> bytes:
        """As if sent unfragmented: what the transcript of DTLS 1.2 takes (RFC 6347 section 4.2.6)."""
        return header(self.type, len(self.body), self.sequence, 0, len(self.body)) + self.body

    def with_tls_header(self) -> bytes:
        """Without the fields of DTLS: what the transcript of DTLS 1.3 takes (RFC 9147 section 5.2)."""
        return (self.type << 24 | len(self.body)).to_bytes(4, "big") + self.body


def header(kind: int, length: int, sequence: int, offset: int, fragment: int) -> bytes:
    """The twelve bytes before a fragment."""
    return HEADER.pack(
        kind, length >> 16, length & 0xFFFF, sequence, offset >> 16, offset & 0xFFFF, fragment >> 16, fragment & 0xFFFF
    )


def decode(data: bytes) -> list[Fragment]:
    """The fragments in the payload of one record, one or more. Raises `DecodeError`."""
    fragments: list[Fragment] = []
    at = 0
    while at < len(data) or not fragments:
        if len(data) - at < HEADER_BYTES:
            raise DecodeError("a truncated handshake header")
        kind, high, low, sequence, offset_high, offset_low, size_high, size_low = HEADER.unpack_from(data, at)
        length, offset, size = high << 16 | low, offset_high << 16 | offset_low, size_high << 16 | size_low
        at += HEADER_BYTES
        if offset + size > length:
            raise DecodeError("a fragment beyond its message")
        if size > len(data) - at:
            raise DecodeError("a fragment longer than its record")
        if size == 0 and length > 0:
            raise DecodeError("an empty fragment")
        fragments.append(Fragment(kind, length, sequence, offset, data[at : at + size]))
        at += size
    return fragments


class _Partial:
    """A message of which some bytes came: ``holes`` are the ranges that have not."""

    __slots__ = ("body", "holes", "type")

    def __init__(self, kind: int, length: int) -> None:
        self.type = kind
        self.body = bytearray(length)
        self.holes: list[tuple[int, int]] = [(0, length)] if length else []

    def add(self, offset: int, piece: bytes) -> None:
        start, end = offset, offset + len(piece)
        self.body[start:end] = piece
        holes: list[tuple[int, int]] = []
        for low, high in self.holes:
            if high <= start or end <= low:
                holes.append((low, high))
                continue
            if low < start:
                holes.append((low, start))
            if end < high:
                holes.append((end, high))
        self.holes = holes


class Reassembler:
    """Puts messages together and gives them out in order.

    Bounded: no message longer than ``largest`` bytes, none further ahead than ``ahead`` of the next, no more than
    ``holes`` gaps in one. What lies beyond is not kept, and `add` says so, so that it is not acknowledged either.
    """

    __slots__ = ("_ahead", "_holes", "_largest", "_partial", "next_sequence")

    def __init__(self, next_sequence: int, *, largest: int, ahead: int = 10, holes: int = 64) -> None:
        self.next_sequence = next_sequence
        self._largest = largest
        self._ahead = ahead
        self._holes = holes
        self._partial: dict[int, _Partial] = {}

    @property
    def waiting(self) -> bool:
        """Whether parts of messages are held."""
        return bool(self._partial)

    def add(self, fragment: Fragment) -> bool:
        """Take a fragment; True where it is kept or was taken before. `HandshakeError` for what no peer may send."""
        if fragment.length > self._largest:
            raise HandshakeError(Alert.ILLEGAL_PARAMETER, "a handshake message longer than we take")
        ahead = fragment.sequence - self.next_sequence
        if ahead < 0:
            return True
        if ahead > self._ahead:
            return False
        partial = self._partial.get(fragment.sequence)
        if partial is None:
            partial = self._partial[fragment.sequence] = _Partial(fragment.type, fragment.length)
        elif partial.type != fragment.type or len(partial.body) != fragment.length:
            raise HandshakeError(Alert.ILLEGAL_PARAMETER, "fragments of one message that do not fit together")
        if len(partial.holes) >= self._holes:
            return False
        partial.add(fragment.offset, fragment.body)
        return True

    def take(self) -> Message | None:
        """The next message in order, once it is whole."""
        partial = self._partial.get(self.next_sequence)
        if partial is None or partial.holes:
            return None
        del self._partial[self.next_sequence]
        message = Message(partial.type, self.next_sequence, bytes(partial.body))
        self.next_sequence += 1
        return message

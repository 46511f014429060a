"""The forms of a record on the wire, as pure functions.

* `plaintext` and DTLS 1.2's protected records without connection ID: type, version, epoch, sequence number, length
  (RFC 6347 section 4.1);
* DTLS 1.2's with one: content type 25, the connection ID before the length (RFC 9146 section 4);
* DTLS 1.3's unified header, where connection ID, half of the sequence number and the length may be left out
  (RFC 9147 section 4).

How records are protected is in `protection12` and `protection13`.
"""

import enum
from dataclasses import dataclass
from struct import Struct

from vitalgate.dtls.wire import DecodeError

DTLS_1_0 = 0xFEFF
DTLS_1_2 = 0xFEFD
DTLS_1_3 = 0xFEFC

HEADER = Struct("!BHQH")
"""Type, version, epoch (16 bits) with sequence number (48 bits), length."""
HEADER_BYTES = HEADER.size
CID_AT = 11
"""Where the connection ID begins in a record of content type 25."""
LENGTH_BYTES = 2

LARGEST_PLAINTEXT = 1 << 14
LARGEST_EXPANSION_12 = 1024
LARGEST_EXPANSION_13 = 256
SEQUENCE_BITS = 48
SEQUENCE_MASK = (1 << SEQUENCE_BITS) - 1


class ContentType(enum.IntEnum):
    """The registry's values for DTLS."""

    CHANGE_CIPHER_SPEC = 20
    ALERT = 21
    HANDSHAKE = 22
    APPLICATION_DATA = 23
    TLS12_CID = 25
    ACK = 26


FIXED_BITS = 0x20
"""001 in the three high bits: a record of DTLS 1.3."""
FIXED_MASK = 0xE0
CID_BIT = 0x10
SEQUENCE_BIT = 0x08
LENGTH_BIT = 0x04
EPOCH_BITS = 0x03


@dataclass(frozen=True, slots=True)
class Record:
    """One record as it lies in a datagram: bytes ``start`` to ``end``, its payload from ``payload`` on.

    ``epoch`` and ``sequence`` are whole for the old form; in the unified header ``epoch`` is its low two bits and
    ``sequence`` still encrypted, in ``sequence_bytes`` before ``payload``.
    """

    start: int
    payload: int
    end: int
    type: int
    version: int
    epoch: int
    sequence: int
    sequence_bytes: int = 6
    cid: bytes | None = None
    unified: bool = False


def decode(data: bytes, start: int, cid_length: int) -> Record:
    """The record at ``start`` of a datagram. ``cid_length``: how long our connection IDs are. Raises `DecodeError`."""
    if start >= len(data):
        raise DecodeError("no record")
    first = data[start]
    if first & FIXED_MASK == FIXED_BITS:
        return _decode_unified(data, start, first, cid_length)
    cid: bytes | None = None
    at = start + HEADER_BYTES
    if first == ContentType.TLS12_CID:
        at += cid_length
        cid = data[start + CID_AT : start + CID_AT + cid_length]
    elif first not in PLAINTEXT_TYPES:
        raise DecodeError("no content type of DTLS")
    if at > len(data):
        raise DecodeError("a truncated header")
    version = data[start + 1] << 8 | data[start + 2]
    number = int.from_bytes(data[start + 3 : start + 11], "big")
    end = at + (data[at - 2] << 8 | data[at - 1])
    if end > len(data):
        raise DecodeError("a record longer than its datagram")
    if version >> 8 != 0xFE:
        raise DecodeError("no version of DTLS")
    if end - at > LARGEST_PLAINTEXT + LARGEST_EXPANSION_12:
        raise DecodeError("a record longer than any may be")
    return Record(start, at, end, first, version, number >> SEQUENCE_BITS, number & SEQUENCE_MASK, cid=cid)


PLAINTEXT_TYPES = frozenset((20, 21, 22, 23, 26))


def _decode_unified(data: bytes, start: int, first: int, cid_length: int) -> Record:
    at = start + 1
    cid: bytes | None = None
    if first & CID_BIT:
        cid = data[at : at + cid_length]
        at += cid_length
    sequence_bytes = 2 if first & SEQUENCE_BIT else 1
    at += sequence_bytes
    end = len(data)
    if first & LENGTH_BIT:
        at += LENGTH_BYTES
        if at > end:
            raise DecodeError("a truncated header")
        end = at + (data[at - 2] << 8 | data[at - 1])
        sequence = data[at - 2 - sequence_bytes : at - 2]
    else:
        sequence = data[at - sequence_bytes : at]
    if end > len(data) or at > end:
        raise DecodeError("a record longer than its datagram")
    if end - at > LARGEST_PLAINTEXT + LARGEST_EXPANSION_13:
        raise DecodeError("a record longer than any may be")
    return Record(
        start, at, end, first, DTLS_1_3, first & EPOCH_BITS, int.from_bytes(sequence, "big"), sequence_bytes, cid, True
    )


def plaintext(content_type: int, version: int, sequence: int, fragment: bytes) -> bytes:
    """A record of epoch 0."""
    return HEADER.pack(content_type, version, sequence, len(fragment)) + fragment


def unified_first(epoch: int, *, cid: bool, long_sequence: bool, length: bool) -> int:
    """The first byte of a unified header."""
    return (
        FIXED_BITS
        | (CID_BIT if cid else 0)
        | (SEQUENCE_BIT if long_sequence else 0)
        | (LENGTH_BIT if length else 0)
        | epoch & EPOCH_BITS
    )


def reconstruct(low: int, bits: int, expected: int) -> int:
    """The number closest to ``expected`` whose low ``bits`` bits are ``low`` (RFC 9147 section 4.2.2)."""
    span = 1 << bits
    number = expected & ~(span - 1) | low
    if number > expected + (span >> 1):
        return number - span if number >= span else number
    if number + (span >> 1) < expected:
        return number + span
    return number


def split_inner(inner: bytes) -> tuple[int, int]:
    """Content type and length of the content of a DTLSInnerPlaintext, whose padding is zeros. Raises `DecodeError`."""
    if inner and inner[-1]:
        return inner[-1], len(inner) - 1
    content = inner.rstrip(b"\0")
    if not content:
        raise DecodeError("no content type inside")
    return content[-1], len(content) - 1

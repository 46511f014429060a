"""The value of the OSCORE option: the compressed COSE header (RFC 8613 section 6.1)."""

from typing import NamedTuple

from vitalgate.oscore.errors import OscoreError, Refusal

LONGEST_PIV = 5
LONGEST_OPTION = 255

_HAS_KID = 0x08
_HAS_KID_CONTEXT = 0x10
_RESERVED = 0xE0


class Header(NamedTuple):
    """What the option carries. ``piv``: Partial IV, 1 to 5 bytes without leading zeros, or b'' when absent; ``kid`` and
    ``kid_context`` are None when absent and may be empty byte strings when present."""

    piv: bytes = b""
    kid: bytes | None = None
    kid_context: bytes | None = None


def partial_iv(number: int) -> bytes:
    """A sequence number as a Partial IV: big-endian, no leading zeros, 0 as one byte (section 5)."""
    return number.to_bytes((number.bit_length() + 7) // 8 or 1, "big")


def encode(header: Header) -> bytes:
    """The option value of ``header``. Raises ValueError when a field does not fit."""
    piv, kid, kid_context = header
    if len(piv) > LONGEST_PIV:
        raise ValueError("a Partial IV has at most 5 bytes")
    flags = len(piv)
    middle = b""
    if kid_context is not None:
        if len(kid_context) > LONGEST_OPTION:
            raise ValueError("a kid context has at most 255 bytes")
        flags |= _HAS_KID_CONTEXT
        middle = bytes((len(kid_context),)) + kid_context
    if kid is not None:
        flags |= _HAS_KID
    value = bytes((flags,)) + piv + middle + (kid or b"")
    if len(value) > LONGEST_OPTION:
        raise ValueError("an OSCORE option has at most 255 bytes")
    return value if flags else b""


_EMPTY = Header()


def decode(value: bytes) -> Header:
    """The header in an option value. Raises `OscoreError` (MALFORMED) for reserved bits or lengths, a field cut short,
    bytes left over, flag bits all zero in a value that is not empty, and a Partial IV that is not the shortest."""
    if not value:
        return _EMPTY
    flags = value[0]
    at = 1 + (flags & 0x07)
    size = len(value)
    if not flags or flags & _RESERVED or at > LONGEST_PIV + 1 or at > size or size > LONGEST_OPTION:
        raise OscoreError(Refusal.MALFORMED)
    piv = value[1:at]
    if at > 2 and not piv[0]:
        raise OscoreError(Refusal.MALFORMED)
    kid_context = None
    if flags & _HAS_KID_CONTEXT:
        if at >= size:
            raise OscoreError(Refusal.MALFORMED)
        end = at + 1 + value[at]
        if end > size:
            raise OscoreError(Refusal.MALFORMED)
        kid_context = value[at + 1 : end]
        at = end
    if flags & _HAS_KID:
        return Header(piv, value[at:], kid_context)
    if at != size:
        raise OscoreError(Refusal.MALFORMED)
    return Header(piv, None, kid_context)

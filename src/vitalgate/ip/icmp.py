"""ICMP (RFC 792, RFC 1191) and ICMPv6 (RFC 4443): echo, and the errors that IPsec sends and heeds."""

import struct
from dataclasses import dataclass
from typing import Final

from vitalgate.ip.packet import ICMPV6, Bytes, PacketError, checksum, upper_checksum

HEADER: Final = struct.Struct("!BBHI")
UNREACHABLE: Final = (3, 1)
"""ICMP and ICMPv6 types of Destination Unreachable."""
FRAGMENTATION_NEEDED: Final = 4
"""Code of ICMP type 3 whose rest is 16 bits of nothing and the next hop's MTU (RFC 1191 section 4)."""
PACKET_TOO_BIG: Final = 2
ADMINISTRATIVELY_PROHIBITED: Final = (13, 1)
"""Codes of Destination Unreachable (RFC 1812 section 5.2.7.1, RFC 4443 section 3.1)."""
ECHO_REQUEST: Final = (8, 128)
ECHO_REPLY: Final = (0, 129)
ERRORS: Final = frozenset((3, 4, 5, 11, 12))
"""ICMP types that answer a packet; of ICMPv6 those below 128."""


@dataclass(frozen=True, slots=True)
class Icmp:
    """One message: type, code, the 32 bits behind the checksum, and the rest (of errors: the packet that caused it)."""

    type: int
    code: int
    rest: int
    payload: bytes


def decode(data: Bytes, source: bytes, destination: bytes) -> Icmp:
    """The message ``data`` between two addresses; 16-byte addresses make it ICMPv6. Raises `PacketError`."""
    if len(data) < HEADER.size:
        raise PacketError("short")
    found = checksum(data) if len(source) == 4 else upper_checksum(source, destination, ICMPV6, data)
    if found != 0:
        raise PacketError("checksum")
    kind, code, _, rest = HEADER.unpack_from(data)
    return Icmp(kind, code, rest, bytes(data[HEADER.size :]))


def encode(message: Icmp, source: bytes, destination: bytes) -> bytes:
    """Its bytes with the checksum computed. Raises `PacketError` for what has no form."""
    try:
        data = HEADER.pack(message.type, message.code, 0, message.rest) + message.payload
    except struct.error as error:
        raise PacketError("format") from error
    found = checksum(data) if len(source) == 4 else upper_checksum(source, destination, ICMPV6, data)
    return data[:2] + found.to_bytes(2, "big") + data[4:]


def is_error(version: int, kind: int) -> bool:
    """Whether an ICMP message of type ``kind`` answers a packet; such are never answered with another."""
    return kind in ERRORS if version == 4 else kind < 128


def too_big(message: Icmp, version: int) -> int | None:
    """The MTU in bytes that the message tells of, None where it is of another kind."""
    if version == 6:
        return message.rest if message.type == PACKET_TOO_BIG else None
    if message.type == UNREACHABLE[0] and message.code == FRAGMENTATION_NEEDED:
        return message.rest & 0xFFFF
    return None

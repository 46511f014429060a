"""The UDP header (RFC 768) over IPv4 and IPv6."""

import struct
from dataclasses import dataclass
from typing import Final

from vitalgate.ip.packet import UDP, Bytes, PacketError, upper_checksum

HEADER: Final = struct.Struct("!HHHH")
SIZE: Final = 8


@dataclass(frozen=True, slots=True)
class Udp:
    """One datagram: ports and payload."""

    source: int
    destination: int
    payload: bytes


def decode(data: Bytes, source: bytes, destination: bytes) -> Udp:
    """The datagram ``data`` between two addresses (4 or 16 bytes). Raises `PacketError`. A checksum of 0 is none,
    which IPv4 alone allows (RFC 8200 section 8.1)."""
    if len(data) < SIZE:
        raise PacketError("short")
    source_port, destination_port, length, given = HEADER.unpack_from(data)
    if length != len(data):
        raise PacketError("length")
    if given == 0:
        if len(source) == 16:
            raise PacketError("checksum")
    elif upper_checksum(source, destination, UDP, data) != 0:
        raise PacketError("checksum")
    return Udp(source_port, destination_port, bytes(data[SIZE:]))


def encode(datagram: Udp, source: bytes, destination: bytes) -> bytes:
    """Its bytes with the checksum computed. Raises `PacketError` for what has no form."""
    length = SIZE + len(datagram.payload)
    if length > 65535:
        raise PacketError("length")
    try:
        start = HEADER.pack(datagram.source, datagram.destination, length, 0)
    except struct.error as error:
        raise PacketError("format") from error
    found = upper_checksum(source, destination, UDP, start + datagram.payload) or 0xFFFF
    return start[:6] + found.to_bytes(2, "big") + datagram.payload

"""The IPv4 header (RFC 791 section 3.1)."""

import struct
from dataclasses import dataclass, replace
from typing import Final

from vitalgate.ip.packet import Bytes, PacketError, checksum

HEADER: Final = struct.Struct("!BBHHHBBH4s4s")
MINIMUM: Final = 20
MAX_LENGTH: Final = 65535
DONT_FRAGMENT: Final = 0x4000
MORE_FRAGMENTS: Final = 0x2000
OFFSET: Final = 0x1FFF
COPIED: Final = 0x80
"""The bit of an option's kind that has fragments carry it too."""


@dataclass(frozen=True, slots=True)
class IPv4:
    """One packet. ``tos``: DSCP and ECN; ``offset`` in bytes; ``options`` padded to a multiple of 4 bytes."""

    source: bytes
    destination: bytes
    protocol: int
    payload: bytes
    tos: int = 0
    identification: int = 0
    dont_fragment: bool = False
    more_fragments: bool = False
    offset: int = 0
    ttl: int = 64
    options: bytes = b""

    @property
    def fragment(self) -> bool:
        """Whether it is less than a whole datagram."""
        return self.more_fragments or self.offset > 0


def decode(data: Bytes) -> IPv4:
    """The packet that ``data`` holds from its first to its last byte. Raises `PacketError`."""
    if len(data) < MINIMUM:
        raise PacketError("short")
    first, tos, total, identification, bits, ttl, protocol, _, source, destination = HEADER.unpack_from(data)
    if first >> 4 != 4:
        raise PacketError("version")
    end = (first & 15) * 4
    if end < MINIMUM or end > len(data) or total != len(data):
        raise PacketError("length")
    if checksum(data[:end]) != 0:
        raise PacketError("checksum")
    if bits & 0x8000:
        raise PacketError("reserved_flag")
    offset = (bits & OFFSET) * 8
    if offset + total - end > MAX_LENGTH:
        raise PacketError("fragment")
    options = bytes(data[MINIMUM:end])
    option_ranges(options)
    return IPv4(
        source,
        destination,
        protocol,
        bytes(data[end:]),
        tos,
        identification,
        bool(bits & DONT_FRAGMENT),
        bool(bits & MORE_FRAGMENTS),
        offset,
        ttl,
        options,
    )


def encode(packet: IPv4) -> bytes:
    """The bytes of ``packet``, checksum computed. Raises `PacketError` for what has no form."""
    options = packet.options
    if len(options) % 4 or len(options) > 40 or packet.offset % 8:
        raise PacketError("format")
    end = MINIMUM + len(options)
    total = end + len(packet.payload)
    if total > MAX_LENGTH or not 0 <= packet.offset // 8 <= OFFSET:
        raise PacketError("length")
    bits = packet.offset // 8
    if packet.dont_fragment:
        bits |= DONT_FRAGMENT
    if packet.more_fragments:
        bits |= MORE_FRAGMENTS
    try:
        header = HEADER.pack(
            0x40 | end // 4,
            packet.tos,
            total,
            packet.identification,
            bits,
            packet.ttl,
            packet.protocol,
            0,
            packet.source,
            packet.destination,
        )
    except struct.error as error:
        raise PacketError("format") from error
    header += options
    return header[:10] + checksum(header).to_bytes(2, "big") + header[12:] + packet.payload


def option_ranges(options: Bytes) -> list[tuple[int, int, int]]:
    """(kind, start, end) of each option, single-byte ones included, up to the end-of-list option. Raises
    `PacketError`."""
    found = []
    at = 0
    while at < len(options):
        kind = options[at]
        if kind == 0:
            break
        if kind == 1:
            length = 1
        else:
            if at + 1 >= len(options):
                raise PacketError("option")
            length = options[at + 1]
            if length < 2 or at + length > len(options):
                raise PacketError("option")
        found.append((kind, at, at + length))
        at += length
    return found


def fragments(packet: IPv4, mtu: int) -> list[IPv4]:
    """``packet`` cut to packets of at most ``mtu`` bytes (RFC 791 section 3.2), itself alone if it fits. Raises
    `PacketError` where it may not be cut or ``mtu`` leaves no room."""
    if MINIMUM + len(packet.options) + len(packet.payload) <= mtu:
        return [packet]
    if packet.dont_fragment:
        raise PacketError("too_big")
    later = b"".join(packet.options[start:end] for kind, start, end in option_ranges(packet.options) if kind & COPIED)
    later += bytes(-len(later) % 4)
    made = []
    at, options = 0, packet.options
    while True:
        room = (mtu - MINIMUM - len(options)) // 8 * 8
        if room <= 0:
            raise PacketError("mtu")
        rest = len(packet.payload) - at
        last = rest <= mtu - MINIMUM - len(options)
        payload = packet.payload[at:] if last else packet.payload[at : at + room]
        more = packet.more_fragments or not last
        made.append(replace(packet, payload=payload, options=options, more_fragments=more, offset=packet.offset + at))
        if last:
            return made
        at += room
        options = later

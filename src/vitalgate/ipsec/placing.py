"""Where AH and ESP stand in a packet, and how a packet is put together round them (RFC 4302 and 4303 section 3.1)."""

from typing import Final

from vitalgate.ip import ipv4, ipv6
from vitalgate.ip.packet import AH, DESTINATION_OPTIONS, ESP, IP_IN_IP, IPV6, ROUTING, PacketError, checksum
from vitalgate.ipsec.refusal import Drop, Refused

_PLAIN: Final = frozenset((1, 4, 6, 17, 41, 50, 58, 132, 136))
"""Protocols that are no extension header: the walk is spared where IPv6 names one at once."""


def split(packet: bytes) -> tuple[int, int]:
    """Of a packet to be protected in transport mode: where its upper layer is named and where it begins, in bytes.

    Of IPv6, destination options go inside unless a routing header follows them. Fragments are refused (RFC 4303
    section 3.3.4). Raises `Refused`.
    """
    if len(packet) < ipv4.MINIMUM:
        raise Refused(Drop.MALFORMED)
    if packet[0] >> 4 == 4:
        start = (packet[0] & 15) * 4
        if start < ipv4.MINIMUM or start > len(packet):
            raise Refused(Drop.MALFORMED)
        if packet[6] & 0x3F or packet[7]:
            raise Refused(Drop.FRAGMENT)
        return 9, start
    if len(packet) < ipv6.SIZE:
        raise Refused(Drop.MALFORMED)
    if packet[6] in _PLAIN:
        return 6, ipv6.SIZE
    try:
        found = ipv6.chain(packet)
    except PacketError as error:
        raise Refused(Drop.MALFORMED) from error
    if found.fragmented:
        raise Refused(Drop.FRAGMENT)
    kinds = [extension.kind for extension in found.extensions]
    for index, extension in enumerate(found.extensions):
        if extension.kind in (AH, DESTINATION_OPTIONS) and ROUTING not in kinds[index:]:
            return found.names[index], extension.start
    return found.upper_name, found.start


def find(packet: bytes, protocol: int) -> tuple[int, int]:
    """Where the outermost header ``protocol`` (AH or ESP) of a received packet is named and where it begins. Raises
    `Refused`; fragments must have been put together before (RFC 4303 section 3.4.1)."""
    if len(packet) < ipv4.MINIMUM:
        raise Refused(Drop.SHORT)
    if packet[0] >> 4 == 4:
        start = (packet[0] & 15) * 4
        if packet[9] != protocol or start < ipv4.MINIMUM or start > len(packet):
            raise Refused(Drop.MALFORMED)
        if packet[6] & 0x3F or packet[7]:
            raise Refused(Drop.FRAGMENT)
        return 9, start
    if len(packet) < ipv6.SIZE:
        raise Refused(Drop.SHORT)
    if packet[6] == protocol:
        return 6, ipv6.SIZE
    try:
        found = ipv6.chain(packet)
    except PacketError as error:
        raise Refused(Drop.MALFORMED) from error
    if found.fragmented:
        raise Refused(Drop.FRAGMENT)
    for name, extension in zip(found.names, found.extensions, strict=True):
        if extension.kind == protocol:
            return name, extension.start
    if found.upper != protocol:
        raise Refused(Drop.MALFORMED)
    return found.upper_name, found.start


def outermost(packet: bytes) -> int | None:
    """AH or ESP if the packet has one, the outer one first; None for others and for what is malformed."""
    if len(packet) < ipv4.MINIMUM:
        return None
    if packet[0] >> 4 == 4:
        return packet[9] if packet[9] in (ESP, AH) else None
    if len(packet) < ipv6.SIZE or packet[0] >> 4 != 6:
        return None
    if packet[6] in (ESP, AH):
        return packet[6]
    if packet[6] in _PLAIN:
        return None
    try:
        found = ipv6.chain(packet)
    except PacketError:
        return None
    if any(extension.kind == AH for extension in found.extensions):
        return AH
    return ESP if found.upper == ESP else None


def joined(header: bytes, name: int, protocol: int, body: bytes) -> bytes:
    """The packet of an IP header (options and extension headers with it) and ``body``, which ``protocol`` names at
    ``name``; lengths and checksum are made anew. Raises `Refused`."""
    total = len(header) + len(body)
    if header[0] >> 4 == 4:
        if total > ipv4.MAX_LENGTH:
            raise Refused(Drop.TOO_BIG)
        start = header[:2] + total.to_bytes(2, "big") + header[4:9] + protocol.to_bytes(1, "big")
        rest = header[12:]
        return start + checksum(start + rest).to_bytes(2, "big") + rest + body
    if total - ipv6.SIZE > ipv6.MAX_PAYLOAD:
        raise Refused(Drop.TOO_BIG)
    start = header[:4] + (total - ipv6.SIZE).to_bytes(2, "big") + header[6:name]
    return start + protocol.to_bytes(1, "big") + header[name + 1 :] + body


def inner_packet(data: bytes, next_header: int) -> bytes:
    """The packet that a tunnel carried, without what was added to hide its size. Raises `Refused`."""
    if next_header == IP_IN_IP:
        if len(data) >= ipv4.MINIMUM and data[0] >> 4 == 4 and data[0] & 15 >= 5:
            total = data[2] << 8 | data[3]
            if (data[0] & 15) * 4 <= total <= len(data):
                return data if total == len(data) else data[:total]
    elif next_header == IPV6 and len(data) >= ipv6.SIZE and data[0] >> 4 == 6:
        total = ipv6.SIZE + (data[4] << 8 | data[5])
        if total <= len(data):
            return data if total == len(data) else data[:total]
    raise Refused(Drop.INNER)

"""Path MTU: what packets may measure, the ICMP errors that say so, and those that are heeded (RFC 4301 section 8)."""

import struct
from typing import Final

from vitalgate.ip import icmp, ipv4, ipv6
from vitalgate.ip.packet import AH, ESP, ICMP, ICMPV6, PacketError

FLOOR: Final = {4: 576, 6: 1280}
"""No error makes a path MTU smaller: errors are not authenticated."""
AGE: Final = 600.0
"""Seconds that a lowered path MTU is believed (RFC 1191 section 6.3)."""
_QUOTED4: Final = 8
_QUOTED6: Final = 1232
_SPI: Final = struct.Struct("!I")


def too_big(packet: bytes, mtu: int) -> bytes | None:
    """The ICMP error that tells the source of ``packet`` that ``mtu`` bytes are the most; None for what must not be
    answered (RFC 1122 section 3.2.2, RFC 4443 section 2.4)."""
    try:
        if packet[0] >> 4 == 4:
            found = ipv4.decode(packet)
            if found.offset or (found.protocol == ICMP and found.payload[:1] and icmp.is_error(4, found.payload[0])):
                return None
            quoted = packet[: len(packet) - len(found.payload) + _QUOTED4]
            message = icmp.Icmp(icmp.UNREACHABLE[0], icmp.FRAGMENTATION_NEEDED, mtu, quoted)
            body = icmp.encode(message, found.destination, found.source)
            return ipv4.encode(ipv4.IPv4(found.destination, found.source, ICMP, body))
        six = ipv6.decode(packet)
        chain = ipv6.chain(packet)
        if chain.upper == ICMPV6 and len(packet) > chain.start and icmp.is_error(6, packet[chain.start]):
            return None
        message = icmp.Icmp(icmp.PACKET_TOO_BIG, 0, mtu, packet[:_QUOTED6])
        body = icmp.encode(message, six.destination, six.source)
        return ipv6.encode(ipv6.IPv6(six.destination, six.source, ICMPV6, body))
    except PacketError:
        return None


def reported(packet: bytes) -> tuple[int, int, int] | None:
    """Protocol and SPI of the packet of ours that an ICMP error quotes, and the MTU that it tells of; None for all
    other packets."""
    try:
        if packet[:1] and packet[0] >> 4 == 4:
            four = ipv4.decode(packet)
            if four.protocol != ICMP or four.fragment:
                return None
            message, version = icmp.decode(four.payload, four.source, four.destination), 4
        else:
            six = ipv6.decode(packet)
            if six.next_header != ICMPV6:
                return None
            message, version = icmp.decode(six.payload, six.source, six.destination), 6
    except PacketError:
        return None
    mtu = icmp.too_big(message, version)
    quoted = message.payload
    if mtu is None or len(quoted) < FLOOR_QUOTE[version] or quoted[0] >> 4 != version:
        return None
    if version == 4:
        protocol, start = quoted[9], (quoted[0] & 15) * 4
    else:
        protocol, start = quoted[6], ipv6.SIZE
    at = start if protocol == ESP else start + 4
    if protocol not in (ESP, AH) or len(quoted) < at + 4:
        return None
    return protocol, _SPI.unpack_from(quoted, at)[0], mtu


FLOOR_QUOTE: Final = {4: ipv4.MINIMUM, 6: ipv6.SIZE}
"""Bytes of header that a quoted packet has."""

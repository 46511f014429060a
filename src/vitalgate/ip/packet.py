"""What all of this room shares: its one error, protocol numbers, the Internet checksum."""

from typing import Final, TypeAlias

Bytes: TypeAlias = bytes | bytearray | memoryview

HOP_BY_HOP: Final = 0
ICMP: Final = 1
IP_IN_IP: Final = 4
TCP: Final = 6
UDP: Final = 17
IPV6: Final = 41
ROUTING: Final = 43
FRAGMENT: Final = 44
ESP: Final = 50
AH: Final = 51
ICMPV6: Final = 58
NO_NEXT_HEADER: Final = 59
DESTINATION_OPTIONS: Final = 60
SCTP: Final = 132
MOBILITY: Final = 135
UDP_LITE: Final = 136


class PacketError(ValueError):
    """A packet that is not what its format says. ``reason`` is one of a fixed set of words (a counter's label)."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def checksum(data: Bytes, start: int = 0) -> int:
    """The Internet checksum of ``data`` (RFC 1071), 16 bits; ``start``: a sum of 16-bit words to begin with.

    A number modulo 65,535 is the ones' complement sum of its 16-bit digits, so that one division does it all.
    """
    total = int.from_bytes(data, "big")
    if len(data) & 1:
        total <<= 8
    total += start
    folded = total % 0xFFFF
    if folded:
        return 0xFFFF - folded
    return 0 if total else 0xFFFF


def upper_checksum(source: Bytes, destination: Bytes, protocol: int, data: Bytes) -> int:
    """The checksum of an upper-layer packet with its pseudo-header (RFC 768, RFC 8200 section 8.1); addresses of 4 or
    16 bytes. A computed 0 is given as 0: UDP alone sends it as 0xFFFF."""
    start = int.from_bytes(source, "big") + int.from_bytes(destination, "big") + protocol + len(data)
    return checksum(data, start)

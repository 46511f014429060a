"""The outer IP header of tunnels: addresses, DSCP, DF, ECN (RFC 4301 section 5.1.2, RFC 6040)."""

import struct
from collections.abc import Callable, Mapping
from typing import Final

from vitalgate.ip import ipv4, ipv6
from vitalgate.ip.packet import UDP
from vitalgate.ipsec.association import DontFragment, Parameters
from vitalgate.ipsec.refusal import Drop, Refused

_IPV4: Final = struct.Struct("!BBHHHBBH8s")
_UDP: Final = struct.Struct("!HHHH")
_CE: Final = 3
_MAX_READY: Final = 2048
Wrap = Callable[[bytes, bytes], bytes]
"""(inner packet, what it became) to the packet outside."""


def traffic_class(packet: bytes) -> int:
    """DSCP and ECN of a packet of either version."""
    if packet[0] >> 4 == 4:
        return packet[1]
    return (packet[0] & 15) << 4 | packet[1] >> 4


def outer_classes(dscp: int | None, mapping: Mapping[int, int], *, ecn: bool) -> bytes:
    """Outer traffic class for each inner one: DSCP as agreed, ECN copied (RFC 6040 section 4.1) or none."""
    made = bytearray(256)
    for inner in range(256):
        code = mapping.get(inner >> 2, inner >> 2) if dscp is None else dscp
        made[inner] = code << 2 | (inner & 3 if ecn else 0)
    return bytes(made)


def wrapper(parameters: Parameters) -> Wrap:
    """The call that puts an outer header, and the UDP header of RFC 3948 where there is one, before a packet."""
    classes = outer_classes(parameters.dscp, parameters.dscp_map, ecn=parameters.ecn)
    source, destination = parameters.source, parameters.destination
    hop_limit = parameters.hop_limit
    ports = parameters.encapsulation
    protocol = parameters.protocol if ports is None else UDP
    # A checksum of 0 is what RFC 3948 section 2.1 recommends, and RFC 6935 lets tunnels over IPv6 have.
    extra = 0 if ports is None else 8

    def udp(body: bytes) -> bytes:
        return body if ports is None else _UDP.pack(*ports, len(body) + 8, 0) + body

    if parameters.version == 6:
        pack6 = ipv6.HEADER.pack

        def wrap6(inner: bytes, body: bytes) -> bytes:
            length = len(body) + extra
            if length > ipv6.MAX_PAYLOAD:
                raise Refused(Drop.TOO_BIG)
            outer = classes[traffic_class(inner)]
            header = pack6(6 << 28 | outer << 20, length, protocol, hop_limit, source, destination)
            return header + udp(body) if extra else header + body

        return wrap6

    pack4 = _IPV4.pack
    addresses = source + destination
    copy, always = parameters.fragment is DontFragment.COPY, parameters.fragment is DontFragment.SET
    base = 0x4500 + (hop_limit << 8 | protocol) + sum(struct.unpack("!4H", addresses))
    identification = 0

    ready: dict[int, bytes] = {}
    """Headers of packets that are not to be cut, which differ in length and traffic class alone."""

    def wrap4(inner: bytes, body: bytes) -> bytes:
        nonlocal identification
        total = len(body) + 20 + extra
        first = inner[0]
        tos = classes[inner[1] if first < 0x60 else (first & 15) << 4 | inner[1] >> 4]
        # DF of an inner IPv6 packet counts as set: its own routers never cut it.
        if always or (copy and (first >= 0x60 or inner[6] & 0x40)):
            known = ready.get(total << 8 | tos)
            if known is not None:
                return known + udp(body) if extra else known + body
            number, bits = 0, ipv4.DONT_FRAGMENT
        else:
            identification = number = identification + 1 & 0xFFFF
            bits = 0
        if total > ipv4.MAX_LENGTH:
            raise Refused(Drop.TOO_BIG)
        found = base + total + number + bits + tos
        found = (found & 0xFFFF) + (found >> 16)
        found = ~(found + (found >> 16)) & 0xFFFF
        header = pack4(0x45, tos, total, number, bits, hop_limit, protocol, found, addresses)
        if bits:
            if len(ready) >= _MAX_READY:
                ready.clear()
            ready[total << 8 | tos] = header
        return header + udp(body) if extra else header + body

    return wrap4


def decapsulated(inner: bytes, outer_class: int, *, ecn: bool) -> bytes:
    """``inner`` with the congestion mark that its outer header brought (RFC 6040 section 4.2, figure 4). Raises
    `Refused` for congestion on a flow that did not say it understands."""
    outer_ecn = outer_class & 3
    if outer_ecn == 0 or not ecn:
        return inner
    inner_class = traffic_class(inner)
    inner_ecn = inner_class & 3
    if inner_ecn in (outer_ecn, _CE):
        return inner
    if inner_ecn == 0:
        if outer_ecn == _CE:
            raise Refused(Drop.ECN)
        return inner
    if outer_ecn != _CE and inner_ecn == 1:
        return inner  # ECT(0) outside does not undo ECT(1)
    return with_class(inner, inner_class & 0xFC | outer_ecn)


def with_class(packet: bytes, changed: int) -> bytes:
    """``packet`` with another traffic class, its IPv4 checksum set right (RFC 1624)."""
    if packet[0] >> 4 == 6:
        return bytes([0x60 | changed >> 4, (changed & 15) << 4 | packet[1] & 15]) + packet[2:]
    old = packet[10] << 8 | packet[11]
    total = (~old & 0xFFFF) + (~packet[1] & 0xFFFF) + changed
    total = (total & 0xFFFF) + (total >> 16)
    total = (total & 0xFFFF) + (total >> 16)
    return packet[:1] + bytes([changed]) + packet[2:10] + (~total & 0xFFFF).to_bytes(2, "big") + packet[12:]

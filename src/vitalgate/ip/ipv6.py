"""The IPv6 header and its extension headers (RFC 8200)."""

import struct
from dataclasses import dataclass, replace
from typing import Final

from vitalgate.ip.packet import (
    AH,
    DESTINATION_OPTIONS,
    FRAGMENT,
    HOP_BY_HOP,
    MOBILITY,
    ROUTING,
    Bytes,
    PacketError,
)

HEADER: Final = struct.Struct("!IHBB16s16s")
FRAGMENT_HEADER: Final = struct.Struct("!BBHI")
SIZE: Final = 40
MAX_PAYLOAD: Final = 65535
MAX_EXTENSIONS: Final = 16
"""Headers before the upper layer; more are refused, and nobody sends as many."""
PAD1: Final = 0
_EXTENSIONS: Final = frozenset((HOP_BY_HOP, ROUTING, FRAGMENT, AH, MOBILITY, DESTINATION_OPTIONS))


@dataclass(frozen=True, slots=True)
class IPv6:
    """One packet; ``payload`` begins with the header that ``next_header`` names, extension headers included."""

    source: bytes
    destination: bytes
    next_header: int
    payload: bytes
    traffic_class: int = 0
    flow_label: int = 0
    hop_limit: int = 64


@dataclass(frozen=True, slots=True)
class Extension:
    """One extension header: its protocol number and where it lies in the packet, in bytes from the packet's start."""

    kind: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Chain:
    """The headers between the IPv6 header and the upper layer (AH included where the packet has one).

    ``names``: for each extension header, where the byte is that names it; ``upper_name``: where the upper layer is
    named; ``upper``: its protocol number; ``start``: where it begins. ``offset`` and ``more``: the fragment header's
    fields (bytes; False without one): with ``offset`` > 0 what lies at ``start`` is no header.
    """

    extensions: tuple[Extension, ...]
    names: tuple[int, ...]
    upper_name: int
    upper: int
    start: int
    offset: int = 0
    more: bool = False
    fragmented: bool = False


def decode(data: Bytes) -> IPv6:
    """The packet that ``data`` holds from its first to its last byte. Raises `PacketError`. Jumbograms are refused."""
    if len(data) < SIZE:
        raise PacketError("short")
    first, length, next_header, hop_limit, source, destination = HEADER.unpack_from(data)
    if first >> 28 != 6:
        raise PacketError("version")
    if length != len(data) - SIZE:
        raise PacketError("length")
    return IPv6(source, destination, next_header, bytes(data[SIZE:]), first >> 20 & 255, first & 0xFFFFF, hop_limit)


def encode(packet: IPv6) -> bytes:
    """The bytes of ``packet``. Raises `PacketError` for what has no form."""
    if len(packet.payload) > MAX_PAYLOAD:
        raise PacketError("length")
    if not (0 <= packet.traffic_class < 256 and 0 <= packet.flow_label < 1 << 20):
        raise PacketError("format")
    first = 6 << 28 | packet.traffic_class << 20 | packet.flow_label
    try:
        header = HEADER.pack(
            first, len(packet.payload), packet.next_header, packet.hop_limit, packet.source, packet.destination
        )
    except struct.error as error:
        raise PacketError("format") from error
    return header + packet.payload


def chain(data: Bytes) -> Chain:
    """Walk the extension headers of the whole packet ``data`` (its IPv6 header was checked). Raises `PacketError`."""
    kind, name, at = data[6], 6, SIZE
    size = len(data)
    extensions: list[Extension] = []
    names: list[int] = []
    offset, more, fragmented = 0, False, False
    while kind in _EXTENSIONS and offset == 0:
        if len(extensions) == MAX_EXTENSIONS:
            raise PacketError("extensions")
        if at + 8 > size:
            raise PacketError("extension")
        if kind == HOP_BY_HOP and extensions:
            raise PacketError("hop_by_hop")  # RFC 8200 section 4.1: at once behind the IPv6 header or nowhere
        if kind == FRAGMENT:
            if fragmented:
                raise PacketError("fragment")
            fragmented = True
            _, _, bits, _ = FRAGMENT_HEADER.unpack_from(data, at)
            offset, more = bits & 0xFFF8, bool(bits & 1)
            end = at + 8
        else:
            end = at + ((data[at + 1] + 2) * 4 if kind == AH else (data[at + 1] + 1) * 8)
        if end > size or end < at + 8:
            raise PacketError("extension")
        extensions.append(Extension(kind, at, end))
        names.append(name)
        kind, name, at = data[at], at, end
    return Chain(tuple(extensions), tuple(names), name, kind, at, offset, more, fragmented)


def option_ranges(data: Bytes, extension: Extension) -> list[tuple[int, int, int]]:
    """(kind, start, end) of the Option Data of each option of a hop-by-hop or destination options header, padding
    included (Pad1: an empty range). Raises `PacketError`."""
    found = []
    at = extension.start + 2
    while at < extension.end:
        kind = data[at]
        if kind == PAD1:
            found.append((kind, at + 1, at + 1))
            at += 1
            continue
        if at + 2 > extension.end:
            raise PacketError("option")
        end = at + 2 + data[at + 1]
        if end > extension.end:
            raise PacketError("option")
        found.append((kind, at + 2, end))
        at = end
    return found


def _unfragmentable(data: Bytes) -> tuple[int, int]:
    """Where the part ends that every fragment carries, and where the byte is that names what follows it (RFC 8200
    section 4.5: up to the routing header, else the hop-by-hop options)."""
    found = chain(data)
    if found.fragmented:
        raise PacketError("fragment")
    split, name = SIZE, 6
    for extension in found.extensions:
        if extension.kind in (ROUTING, HOP_BY_HOP):
            split, name = extension.end, extension.start
    return split, name


def fragments(packet: IPv6, mtu: int, identification: int) -> list[IPv6]:
    """``packet`` cut by its source to packets of at most ``mtu`` bytes, itself alone if it fits. Raises `PacketError`
    where ``mtu`` leaves no room or it is a fragment already."""
    data = encode(packet)
    if len(data) <= mtu:
        return [packet]
    split, name = _unfragmentable(data)
    kind = data[name]
    start = bytearray(data[:split])
    start[name] = FRAGMENT
    room = (mtu - split - FRAGMENT_HEADER.size) // 8 * 8
    if room <= 0:
        raise PacketError("mtu")
    made = []
    for at in range(split, len(data), room):
        piece = data[at : at + room]
        more = at + room < len(data)
        header = FRAGMENT_HEADER.pack(kind, 0, at - split | more, identification & 0xFFFFFFFF)
        made.append(replace(packet, next_header=start[6], payload=bytes(start[SIZE:]) + header + piece))
    return made

"""Putting fragments together: bounded, and without mercy for overlaps (RFC 791 section 3.2, RFC 8200 section 4.5,
RFC 5722)."""

from collections.abc import Hashable
from dataclasses import dataclass, field, replace
from typing import Final

from vitalgate.ip import ipv4, ipv6
from vitalgate.ip.packet import FRAGMENT, PacketError

TIMEOUT: Final = 60.0
"""Seconds from the first fragment to giving up (RFC 8200 section 4.5)."""
MAX_DATAGRAMS: Final = 64
"""Datagrams under way; the oldest gives way to a new one."""
MAX_FRAGMENTS: Final = 128
"""Fragments of one datagram; a datagram of more is given up."""


@dataclass(slots=True)
class _Partial:
    until: float
    pieces: dict[int, bytes] = field(default_factory=dict)
    length: int | None = None
    held: int = 0
    first: ipv4.IPv4 | bytes | None = None
    """What the whole packet takes from its first fragment: the IPv4 packet, or the IPv6 headers every fragment has."""
    broken: bool = False


class Reassembler:
    """Fragments in, packets out. A datagram whose fragments overlap is dropped whole, and its later fragments with
    it, until its time is over."""

    def __init__(self, *, datagrams: int = MAX_DATAGRAMS, timeout: float = TIMEOUT) -> None:
        self._limit = datagrams
        self._timeout = timeout
        self._partial: dict[Hashable, _Partial] = {}

    def __len__(self) -> int:
        return len(self._partial)

    def add(self, packet: bytes, now: float) -> bytes | None:
        """The whole packet if ``packet`` (IPv4 or IPv6) is one or completes one, else None. Raises `PacketError`."""
        if not packet:
            raise PacketError("short")
        return self._add4(packet, now) if packet[0] >> 4 == 4 else self._add6(packet, now)

    def next_timeout(self) -> float | None:
        """When the oldest datagram under way is given up."""
        return min((partial.until for partial in self._partial.values()), default=None)

    def handle_timeout(self, now: float) -> int:
        """Give up what is too old; says how many datagrams that were."""
        late = [key for key, partial in self._partial.items() if partial.until <= now]
        for key in late:
            del self._partial[key]
        return len(late)

    def _add4(self, data: bytes, now: float) -> bytes | None:
        packet = ipv4.decode(data)
        if not packet.fragment:
            return data
        key = (packet.source, packet.destination, packet.protocol, packet.identification)
        first = packet if packet.offset == 0 else None
        partial = self._take(key, packet.offset, packet.payload, packet.more_fragments, first, now)
        if partial is None:
            return None
        assert isinstance(partial.first, ipv4.IPv4)
        payload = b"".join(partial.pieces[at] for at in sorted(partial.pieces))
        return ipv4.encode(replace(partial.first, payload=payload, more_fragments=False, offset=0))

    def _add6(self, data: bytes, now: float) -> bytes | None:
        packet = ipv6.decode(data)
        found = ipv6.chain(data)
        if not found.fragmented:
            return data
        index = next(i for i, extension in enumerate(found.extensions) if extension.kind == FRAGMENT)
        header, name = found.extensions[index], found.names[index]
        kind, _, _, identification = ipv6.FRAGMENT_HEADER.unpack_from(data, header.start)
        start = bytearray(data[: header.start])
        start[name] = kind
        if found.offset == 0 and not found.more:
            # An atomic fragment is a whole packet of its own (RFC 6946).
            return _with_length(bytes(start), data[header.end :])
        key = (packet.source, packet.destination, identification)
        first = bytes(start) if found.offset == 0 else None
        partial = self._take(key, found.offset, data[header.end :], found.more, first, now)
        if partial is None:
            return None
        assert isinstance(partial.first, bytes)
        return _with_length(partial.first, b"".join(partial.pieces[at] for at in sorted(partial.pieces)))

    def _take(
        self, key: Hashable, offset: int, piece: bytes, more: bool, first: ipv4.IPv4 | bytes | None, now: float
    ) -> _Partial | None:
        if not piece or (more and len(piece) % 8) or offset + len(piece) > ipv4.MAX_LENGTH:
            raise PacketError("fragment")
        partial = self._partial.get(key)
        if partial is None or partial.until <= now:
            self._partial.pop(key, None)
            if len(self._partial) >= self._limit:
                del self._partial[next(iter(self._partial))]
            partial = self._partial[key] = _Partial(now + self._timeout)
        if partial.broken:
            raise PacketError("overlap")
        if partial.pieces.get(offset) == piece:
            return None  # a fragment received twice
        end = offset + len(piece)
        if _overlaps(partial, offset, end, more) or len(partial.pieces) == MAX_FRAGMENTS:
            partial.broken = True
            partial.pieces.clear()
            raise PacketError("overlap")
        partial.pieces[offset] = piece
        partial.held += len(piece)
        if first is not None:
            partial.first = first
        if not more:
            partial.length = end
        if partial.length != partial.held:
            return None
        del self._partial[key]
        return partial


def _overlaps(partial: _Partial, start: int, end: int, more: bool) -> bool:
    if partial.length is not None and (end > partial.length or not more):
        return True
    for at, piece in partial.pieces.items():
        if start < at + len(piece) and at < end:
            return True
        if not more and at + len(piece) > end:
            return True
    return False


def _with_length(start: bytes, rest: bytes) -> bytes:
    length = len(start) - ipv6.SIZE + len(rest)
    if length > ipv6.MAX_PAYLOAD:
        raise PacketError("length")
    return start[:4] + length.to_bytes(2, "big") + start[6:] + rest

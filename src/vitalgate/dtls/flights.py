"""Flights: the messages that are sent together and again until the peer shows that it has them.

RFC 6347 section 4.2.4 sends a whole flight again; RFC 9147 section 5.8 leaves out what was acknowledged. How messages
are cut into fragments and put into records and datagrams is the same for both.
"""

from collections.abc import Callable

from vitalgate.dtls.handshaking import HEADER_BYTES, HandshakeType, header
from vitalgate.dtls.protection import Seal
from vitalgate.dtls.records import ContentType

LEAST_FRAGMENT = 16
"""A datagram with less room than this (and than the message needs) is closed and the next begun."""


class Outgoing:
    """One message of a flight, or (``kind`` None) bytes of another content type that travel with it. ``missing`` are
    the ranges of its body that were not acknowledged."""

    __slots__ = ("body", "content_type", "kind", "missing", "seal", "sequence")

    def __init__(
        self, seal: Seal, kind: int | None, sequence: int, body: bytes, content_type: int = ContentType.HANDSHAKE
    ) -> None:
        self.seal = seal
        self.kind = kind
        self.sequence = sequence
        self.body = body
        self.content_type = content_type
        self.missing: list[tuple[int, int]] = [(0, len(body))]

    def acknowledge(self, low: int, high: int) -> None:
        """The peer has bytes ``low`` to ``high``."""
        left: list[tuple[int, int]] = []
        for start, end in self.missing:
            if low <= start and end <= high:
                continue
            if high <= start or end <= low:
                left.append((start, end))
                continue
            if start < low:
                left.append((start, low))
            if high < end:
                left.append((high, end))
        self.missing = left


class Piece:
    """What goes into one record: parts of messages of one epoch. ``parts`` are (message, from, to)."""

    __slots__ = ("content", "content_type", "parts", "seal")

    def __init__(self, seal: Seal, content_type: int) -> None:
        self.seal = seal
        self.content_type = content_type
        self.content = b""
        self.parts: list[tuple[Outgoing, int, int]] = []

    def add(self, item: Outgoing, low: int, high: int) -> None:
        """Append a fragment, or bytes of another content type as they are."""
        if item.kind is None:
            self.content += item.body
        else:
            self.content += header(item.kind, len(item.body), item.sequence, low, high - low) + item.body[low:high]
        self.parts.append((item, low, high))

    def messages(self) -> tuple[tuple[str, int, int], ...]:
        """(name, handshake header bytes, body bytes) of each part, for the ledger."""
        return tuple(
            (_name(item), 0 if item.kind is None else HEADER_BYTES, high - low) for item, low, high in self.parts
        )


def _name(item: Outgoing) -> str:
    return ContentType(item.content_type).name if item.kind is None else HandshakeType(item.kind).name


def pack(items: list[Outgoing], mtu: int, *, together: bool) -> list[list[Piece]]:
    """Datagrams of records for all that is missing of ``items``, none longer than ``mtu`` bytes. ``together``: several
    messages may share a record."""
    datagrams: list[list[Piece]] = []
    left = 0
    for item in items:
        overhead = item.seal.layout(mtu, last=False).overhead
        head = 0 if item.kind is None else HEADER_BYTES
        for low, high in item.missing:
            at = low
            while True:
                shared = (
                    together
                    and bool(datagrams)
                    and datagrams[-1][-1].seal is item.seal
                    and datagrams[-1][-1].content_type == item.content_type
                )
                room = left - head - (0 if shared else overhead)
                if room < min(high - at, LEAST_FRAGMENT) or (item.kind is None and room < high - at):
                    if left == mtu:
                        raise ValueError("no room for a fragment in a whole datagram")
                    datagrams.append([])
                    left = mtu
                    datagrams[-1].append(Piece(item.seal, item.content_type))
                    room = left - overhead - head
                    left -= overhead
                elif not shared:
                    datagrams[-1].append(Piece(item.seal, item.content_type))
                    left -= overhead
                size = min(high - at, room)
                datagrams[-1][-1].add(item, at, at + size)
                left -= head + size
                at += size
                if at >= high:
                    break
    return datagrams


class Flight:
    """Messages under way, their timer, and (DTLS 1.3) which records they went in. ``on_timeout(flight, now)`` is called
    when the timer runs out."""

    __slots__ = ("attempts", "due", "items", "on_timeout", "records", "sent_at", "timeout")

    def __init__(self, items: list[Outgoing], timeout: float, on_timeout: "Callable[[Flight, float], None]") -> None:
        self.items = items
        self.timeout = timeout
        self.on_timeout = on_timeout
        self.attempts = 0
        """Transmissions after the first."""
        self.due: float | None = None
        self.sent_at = 0.0
        self.records: dict[tuple[int, int], list[tuple[Outgoing, int, int]]] = {}
        """(epoch, sequence number) -> what the record carried."""

    @property
    def complete(self) -> bool:
        """Whether all of it was acknowledged."""
        return not any(item.missing for item in self.items)

    def acknowledge(self, numbers: list[tuple[int, int]]) -> bool:
        """Take an ACK's record numbers; True where it told something new."""
        news = False
        for number in numbers:
            for item, low, high in self.records.pop(number, ()):
                item.acknowledge(low, high)
                news = True
        return news

    def on_due(self, now: float) -> None:
        """The timer ran out."""
        self.on_timeout(self, now)

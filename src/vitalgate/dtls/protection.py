"""What both versions share in protecting records: the unprotected epoch 0, and why a record is not taken."""

from typing import Protocol

from vitalgate.dtls.ledger import Layout
from vitalgate.dtls.records import DTLS_1_2, HEADER, HEADER_BYTES, SEQUENCE_MASK


class Discard(Exception):
    """A record is not taken, and nobody is told (RFC 9147 section 4.5.2); ``reason`` is a counter label."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Exhausted(Exception):
    """A key or a sequence number space has been used as much as it may be: the association ends."""


class Seal(Protocol):
    """Writes records of one epoch."""

    epoch: int
    sequence: int
    """Of the next record."""

    def seal(self, content_type: int, content: bytes, *, last: bool = True) -> bytes:
        """One record; ``last``: nothing follows it in its datagram. Raises `Exhausted`."""

    def layout(self, content: int, *, last: bool = True) -> Layout:
        """The fields of the next record, if it had ``content`` bytes."""


class PlainSeal:
    """Epoch 0."""

    __slots__ = ("epoch", "sequence", "version")

    def __init__(self, sequence: int = 0, version: int = DTLS_1_2) -> None:
        self.epoch = 0
        self.sequence = sequence
        self.version = version

    def seal(self, content_type: int, content: bytes, *, last: bool = True) -> bytes:
        """One unprotected record."""
        sequence = self.sequence
        if sequence > SEQUENCE_MASK:
            raise Exhausted
        self.sequence = sequence + 1
        return HEADER.pack(content_type, self.version, sequence, len(content)) + content

    def layout(self, content: int, *, last: bool = True) -> Layout:
        """Header and content."""
        return Layout(HEADER_BYTES, 0, 0, content, 0, 0, 0)

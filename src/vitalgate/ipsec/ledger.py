"""The overhead ledger: what every byte of every protected packet is, recorded where packets are built and opened.

Unattached it costs nothing. Lengths come from the form that a packet was written in, never from subtraction; a row
whose fields do not add up to the packet's length is refused.
"""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Layout:
    """Lengths in bytes of the fields of one packet under one SA."""

    ip: int = 0
    """The IP header (and extension headers) before AH, ESP or UDP: of a tunnel, the outer one; 0 where a socket
    writes it."""
    udp: int = 0
    """UDP encapsulation (RFC 3948); 0 where a socket writes it."""
    spi: int = 4
    sequence: int = 4
    ah: int = 0
    """What AH has beside SPI and sequence number: next header, length, reserved."""
    iv: int = 0
    payload: int = 0
    """What is carried: of a tunnel, the whole inner packet."""
    tfc: int = 0
    """Traffic flow confidentiality padding."""
    padding: int = 0
    pad_length: int = 0
    next_header: int = 0
    icv: int = 0
    icv_padding: int = 0
    """Of AH, to its multiple of 32 or 64 bits."""

    @property
    def total(self) -> int:
        """Length of the packet."""
        trailer = self.tfc + self.padding + self.pad_length + self.next_header + self.icv + self.icv_padding
        return self.ip + self.udp + self.spi + self.sequence + self.ah + self.iv + self.payload + trailer

    @property
    def overhead(self) -> int:
        """What the SA added: all but the payload and, in transport mode, the packet's own IP header (``ip``)."""
        return self.total - self.payload


@dataclass(frozen=True, slots=True)
class Row:
    """One packet under one SA; ``tunnel`` says that its IP header is part of the overhead."""

    sent: bool
    protocol: int
    spi: int
    sequence: int
    tunnel: bool
    layout: Layout


@dataclass(slots=True)
class Ledger:
    """Rows in the order of building and opening."""

    rows: list[Row] = field(default_factory=list)

    def record(self, row: Row, length: int) -> None:
        """Add a row for a packet of ``length`` bytes. ValueError where its fields do not add up."""
        if row.layout.total != length:
            raise ValueError(f"a packet of {length} bytes whose fields are {row.layout}")
        self.rows.append(row)

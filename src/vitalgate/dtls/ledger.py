"""The overhead ledger: what every byte of every record is, recorded where records are written and opened.

Unattached it costs nothing. Lengths come from the form that a record was written in, never from subtraction; a row
whose fields do not add up to the record's length is refused.
"""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Layout:
    """Lengths in bytes of the fields of one record."""

    header: int
    """Type, version, epoch, sequence number, length: what the form has of them, without connection ID."""
    cid: int
    nonce: int
    """Explicit nonce of DTLS 1.2."""
    content: int
    inner_type: int
    padding: int
    tag: int

    @property
    def total(self) -> int:
        """Length of the record."""
        return self.header + self.cid + self.nonce + self.content + self.inner_type + self.padding + self.tag

    @property
    def overhead(self) -> int:
        """All but the content."""
        return self.total - self.content


@dataclass(frozen=True, slots=True)
class Row:
    """One record: ``datagram`` numbers the datagrams in each direction; ``messages`` are (name, handshake header bytes,
    body bytes) of the fragments in it; ``again`` True for a retransmission."""

    sent: bool
    datagram: int
    epoch: int
    sequence: int
    content_type: int
    layout: Layout
    messages: tuple[tuple[str, int, int], ...] = ()
    again: bool = False


@dataclass(slots=True)
class Ledger:
    """Rows in the order of sending and receiving."""

    rows: list[Row] = field(default_factory=list)
    datagrams: int = 0
    """Datagrams counted, sent and received together."""

    def record(self, row: Row, length: int) -> None:
        """Add a row for a record of ``length`` bytes. ValueError where its fields do not add up."""
        if row.layout.total != length:
            raise ValueError(f"a record of {length} bytes whose fields are {row.layout}")
        self.rows.append(row)

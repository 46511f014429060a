"""Protected records of DTLS 1.3 as an association reads them: which epoch, which connection ID."""

from typing import Protocol

from vitalgate.dtls.association import Association
from vitalgate.dtls.events import Received
from vitalgate.dtls.protection import Discard
from vitalgate.dtls.protection13 import Open13
from vitalgate.dtls.records import CID_BIT, FIXED_BITS, FIXED_MASK, LENGTH_BIT, SEQUENCE_BIT, ContentType
from vitalgate.engine import Path

_APPLICATION = int(ContentType.APPLICATION_DATA)
FIRST_APPLICATION_EPOCH = 3


class After(Protocol):
    """What goes on after the handshake: `post13`."""

    def receive_handshake(self, content: bytes, epoch: int, sequence: int, now: float) -> None:
        """Handshake messages after the handshake."""

    def receive_ack(self, content: bytes, epoch: int, now: float) -> None:
        """An ACK after the handshake."""

    def newer(self, epoch: int, now: float) -> None:
        """A record of a new epoch verified."""

    def forged(self, opener: Open13, now: float) -> None:
        """A record did not verify."""

    def ended(self) -> None:
        """The association ends."""


class Reading13:
    """All epochs that can be read now. ``cid``: the connection ID that the peer has to use, b'' for none; others of
    ours are as good (RFC 9147 section 9)."""

    __slots__ = ("_association", "after", "cid", "current", "opens")

    def __init__(self, association: Association, cid: bytes) -> None:
        self._association = association
        self.cid = cid
        self.opens: dict[int, Open13] = {}
        """By epoch, the newest last."""
        self.current: Open13 | None = None
        """The newest epoch that was heard of."""
        self.after: After | None = None

    def add(self, opener: Open13) -> None:
        """Be ready to read one epoch more."""
        self.opens[opener.epoch] = opener
        if self.current is None:
            self.current = opener

    def drop_before(self, epoch: int) -> None:
        """Forget the keys of epochs before ``epoch``."""
        for old in [each for each in self.opens if each < epoch]:
            del self.opens[old]

    def receive(self, data: bytes, at: int, path: Path, now: float) -> int:
        """Take the record at ``at``. What does not verify is dropped without a word."""
        association, size, first = self._association, len(data), data[at]
        if first & FIXED_MASK != FIXED_BITS:
            association.discard("content-type")
            return size
        payload = at + 1
        if first & CID_BIT:
            payload += len(self.cid)
        if bool(first & CID_BIT) != bool(self.cid) or (self.cid and data[at + 1 : payload] not in association.cids):
            association.discard("cid")
            return size
        payload += 2 if first & SEQUENCE_BIT else 1
        if first & LENGTH_BIT:
            payload += 2
            if payload > size:
                association.discard("header")
                return size
            end = payload + (data[payload - 2] << 8 | data[payload - 1])
        else:
            end = size
        if payload > end or end > size:
            association.discard("length")
            return size
        opener = self.current
        if opener is None or (opener.epoch ^ first) & 3:
            opener = self._find(first & 3)
            if opener is None:
                if association.established:
                    association.discard("epoch")
                else:
                    association.keep_early(data[at:end])
                return end
        newest = opener.highest
        try:
            content_type, content, sequence = opener.open(data, at, payload, end)
        except Discard as discard:
            association.discard(discard.reason)
            if self.after is not None:
                self.after.forged(opener, now)
            return end
        association.heard = now
        if opener is not self.current and (self.current is None or opener.epoch > self.current.epoch):
            self.current = opener
            if self.after is not None:
                self.after.newer(opener.epoch, now)
        if path != association.path and sequence > newest and opener is self.current:
            association.moved(path)
        if content_type == _APPLICATION and association.established:
            association.core.emit_data(Received(association.number, association.path, content))
        elif content_type != _APPLICATION or opener.epoch >= FIRST_APPLICATION_EPOCH:
            association.receive_content(content_type, content, opener.epoch, sequence, now)
        return end

    def _find(self, bits: int) -> Open13 | None:
        """The newest epoch with these low bits."""
        for opener in reversed(self.opens.values()):
            if opener.epoch & 3 == bits:
                return opener
        return None

    def receive_handshake(self, content: bytes, epoch: int, sequence: int, now: float) -> None:
        """Handshake messages after the handshake. Raises `HandshakeError`."""
        if self.after is not None:
            self.after.receive_handshake(content, epoch, sequence, now)

    def receive_ack(self, content: bytes, epoch: int, now: float) -> None:
        """An ACK after the handshake. Raises `HandshakeError`."""
        if self.after is not None:
            self.after.receive_ack(content, epoch, now)

    def settle(self) -> None:
        """The peer repeats its handshake no more: epoch 2 may go."""
        self.drop_before(FIRST_APPLICATION_EPOCH)

    def ended(self) -> None:
        """The association ends."""
        if self.after is not None:
            self.after.ended()

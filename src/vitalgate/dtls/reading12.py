"""Protected records of DTLS 1.2 as an association reads them, and what comes after the handshake."""

from vitalgate.dtls import handshaking
from vitalgate.dtls.alerts import Alert
from vitalgate.dtls.association import Association
from vitalgate.dtls.events import Received
from vitalgate.dtls.handshaking import HandshakeType
from vitalgate.dtls.protection import Discard
from vitalgate.dtls.protection12 import EPOCH, Open12
from vitalgate.dtls.records import DTLS_1_2, HEADER, HEADER_BYTES, SEQUENCE_BITS, ContentType
from vitalgate.dtls.wire import DecodeError
from vitalgate.engine import Path

_APPLICATION = int(ContentType.APPLICATION_DATA)
_CID = int(ContentType.TLS12_CID)
_HEADER = HEADER.unpack_from


class Reading12:
    """The one protected epoch. ``cid``: the connection ID that we asked for, b'' for none."""

    __slots__ = ("_association", "_open", "cid")

    def __init__(self, association: Association, opener: Open12, cid: bytes) -> None:
        self._association = association
        self._open = opener
        self.cid = cid

    def receive(self, data: bytes, at: int, path: Path, now: float) -> int:
        """Take the record at ``at``. What does not verify is dropped without a word."""
        association, size = self._association, len(data)
        payload = at + HEADER_BYTES
        if payload > size:
            association.discard("header")
            return size
        version: int
        number: int
        length: int
        kind, version, number, length = _HEADER(data, at)
        if kind == _CID:
            payload += len(self.cid)
            length = int.from_bytes(data[payload - 2 : payload], "big")
        end = payload + length
        if end > size:
            association.discard("length")
            return size
        if number >> SEQUENCE_BITS != EPOCH or version != DTLS_1_2:
            association.discard("epoch")
            return end
        opener = self._open
        newest = opener.highest
        try:
            content_type, content = opener.open(data, at, payload, end, number)
        except Discard as discard:
            association.discard(discard.reason)
            return end
        association.heard = now
        if path != association.path and opener.highest > newest:
            association.moved(path)
        if content_type == _APPLICATION and association.established:
            if association.flight is not None:
                association.drop_flight()  # the peer would not send this without our last flight
            association.core.emit_data(Received(association.number, association.path, content))
        else:
            association.receive_content(content_type, content, 1, newest, now)
        return end

    def receive_handshake(self, content: bytes, epoch: int, sequence: int, now: float) -> None:
        """After the handshake: a repeated Finished asks for our last flight; a new handshake is refused."""
        association = self._association
        try:
            fragments = handshaking.decode(content)
        except DecodeError:
            association.discard("handshake")
            return
        for fragment in fragments:
            if fragment.type == HandshakeType.FINISHED and association.flight is not None:
                association.resend(association.flight, now)
            elif fragment.type in (HandshakeType.CLIENT_HELLO, HandshakeType.HELLO_REQUEST):
                association.core.counters.add("dtls_alerts_sent", "no-renegotiation")
                association.send_content(ContentType.ALERT, bytes((1, Alert.NO_RENEGOTIATION)))

    def receive_ack(self, content: bytes, epoch: int, now: float) -> None:
        """There is no such thing in DTLS 1.2."""
        self._association.discard("content-type")

    def settle(self) -> None:
        """There is but one epoch."""

    def ended(self) -> None:
        """Nothing to tidy up."""

"""After the handshake of DTLS 1.3: tickets, key updates, connection IDs, each message until it is acknowledged.

RFC 9147 sections 5.8.4, 7, 8 and 9: messages of each kind are flights of their own with a timer of their own. A new key
is used to write only when the peer has acknowledged the KeyUpdate; nothing else is begun until then.
"""

from collections.abc import Hashable

from vitalgate.dtls import handshaking
from vitalgate.dtls.acks13 import take_ack
from vitalgate.dtls.alerts import Alert, HandshakeError
from vitalgate.dtls.association import Association
from vitalgate.dtls.events import End
from vitalgate.dtls.flights import Flight, Outgoing
from vitalgate.dtls.handshaking import HandshakeType, Message, Reassembler
from vitalgate.dtls.messages13 import (
    CID_IMMEDIATE,
    CID_SPARE,
    decode_key_update,
    decode_new_connection_id,
    decode_new_session_ticket,
    decode_request_connection_id,
    encode_ack,
    encode_new_connection_id,
)
from vitalgate.dtls.protection import Exhausted
from vitalgate.dtls.protection13 import Open13, Seal13
from vitalgate.dtls.reading13 import Reading13
from vitalgate.dtls.records import DTLS_1_3, ContentType
from vitalgate.dtls.schedule import next_generation, resumption_psk, traffic_keys
from vitalgate.dtls.sessions import Session, Ticket
from vitalgate.dtls.suites import SUITES

MOST_CIDS = 8
"""Connection IDs of ours that one peer may hold, and spare ones of its that we keep."""
MOST_WAITING = 16
_TICKET = int(HandshakeType.NEW_SESSION_TICKET)
LAST_EPOCH = 0xFFFF
"""RFC 9147 section 8 lets epochs be held to 16 bits; then the association ends."""


class Post13:
    """One complete association. ``session_key``: under what a client keeps tickets."""

    __slots__ = (
        "_association", "_credential", "_flights", "_next_send", "_read_secret", "_reassembler", "_resumption",
        "_session_key", "_spare", "_updating", "_waiting", "_write_secret", "requested",
    )  # fmt: skip

    def __init__(
        self,
        association: Association,
        reassembler: Reassembler,
        next_send: int,
        write_secret: bytes,
        read_secret: bytes,
        resumption: bytes,
        credential: bytes,
        session_key: Hashable = None,
    ) -> None:
        self._association = association
        self._reassembler = reassembler
        self._next_send = next_send
        self._write_secret = write_secret
        self._read_secret = read_secret
        self._resumption = resumption
        self._credential = credential
        self._session_key = session_key
        self._flights: list[Flight] = []
        self._waiting: list[tuple[int, bytes]] = []
        self._updating: Flight | None = None
        self._spare: list[bytes] = []
        self.requested = False
        """Whether we asked for connection IDs and wait for them."""

    # What we send

    def send(self, kind: int, body: bytes, now: float) -> None:
        """Send a message until it is acknowledged; while a key update is under way it waits."""
        if self._updating is not None or any(f.items[0].kind == kind for f in self._flights if kind != _TICKET):
            if len(self._waiting) < MOST_WAITING:
                self._waiting.append((kind, body))
            return
        association = self._association
        if self._next_send > handshaking.LARGEST_SEQUENCE:
            raise Exhausted
        item = Outgoing(association.seal, kind, self._next_send, body)
        self._next_send += 1
        flight = Flight([item], association.core.parameters.retransmission, self._due)
        self._flights.append(flight)
        if kind == HandshakeType.KEY_UPDATE:
            self._updating = flight
        association.transmit(flight, now)
        association.core.timers.set(flight, now + flight.timeout)

    def update(self, now: float, *, ask: bool) -> None:
        """Change our key, and with ``ask`` the peer's too."""
        if self._updating is None and self._association.seal.epoch < LAST_EPOCH:
            self.send(HandshakeType.KEY_UPDATE, bytes((ask,)), now)

    def give_cids(self, count: int, now: float, *, immediate: bool) -> int:
        """Let the peer use new connection IDs, as spares or at once; how many they are."""
        association = self._association
        reading = association.reading
        if reading is None or not reading.cid:
            return 0
        cids: list[bytes] = []
        for _ in range(min(count, MOST_CIDS - len(association.cids))):
            cid = association.core.new_cid(association)
            if cid:
                cids.append(cid)
        usage = CID_IMMEDIATE if immediate and cids else CID_SPARE
        self.send(HandshakeType.NEW_CONNECTION_ID, encode_new_connection_id(tuple(cids), usage), now)
        return len(cids)

    def ask_cids(self, count: int, now: float) -> bool:
        """Ask the peer for connection IDs; False where it uses none, or owes us some."""
        seal = self._association.seal
        if self.requested or not isinstance(seal, Seal13) or not seal.cid:
            return False
        self.requested = True
        self.send(HandshakeType.REQUEST_CONNECTION_ID, bytes((min(count, 255),)), now)
        return True

    def use_spare_cid(self) -> bool:
        """Write with the next connection ID that the peer gave us; False where there is none."""
        seal = self._association.seal
        if not self._spare or not isinstance(seal, Seal13):
            return False
        seal.cid = self._spare.pop(0)
        return True

    def _due(self, flight: Flight, now: float) -> None:
        association = self._association
        parameters = association.core.parameters
        if flight.attempts >= parameters.retransmissions:
            if flight.items[0].kind == _TICKET:
                self._flights.remove(flight)  # the client does without
                return
            association.end(End.TIMEOUT, now)
            return
        flight.attempts += 1
        flight.timeout = min(flight.timeout * 2, parameters.retransmission_most)
        association.core.counters.add("dtls_retransmissions")
        association.transmit(flight, now)
        association.core.timers.set(flight, now + flight.timeout)

    # What the peer sends

    def receive_ack(self, content: bytes, epoch: int, now: float) -> None:
        """Some of our messages arrived. Raises `HandshakeError`."""
        association = self._association
        done = take_ack(association, content, epoch, [association.flight, *self._flights], now)
        for flight in done:
            if flight is association.flight:
                association.drop_flight()
                self._drop_handshake_epoch()
            else:
                self._flights.remove(flight)
                if flight is self._updating:
                    self._updating = None
                    self._write_next()
        while self._waiting and self._updating is None:
            waiting = len(self._waiting)
            kind, body = self._waiting.pop(0)
            self.send(kind, body, now)
            if len(self._waiting) == waiting:
                break

    def _drop_handshake_epoch(self) -> None:
        reading = self._association.reading
        if isinstance(reading, Reading13):
            reading.drop_before(3)

    def _write_next(self) -> None:
        association = self._association
        suite, old = SUITES[association.suite], association.seal
        assert isinstance(old, Seal13)
        self._write_secret = next_generation(suite, self._write_secret)
        parameters = association.core.parameters
        association.seal = Seal13(
            suite, traffic_keys(suite, self._write_secret), old.epoch + 1, old.cid, pad=parameters.pad,
            short=parameters.short_numbers,
        )  # fmt: skip
        association.core.counters.add("dtls_key_updates", "ours")

    def receive_handshake(self, content: bytes, epoch: int, sequence: int, now: float) -> None:
        """Messages, each acknowledged at once, also if they came before: the last ACK may be lost (section 7).
        Raises `HandshakeError`."""
        kept = True
        for fragment in handshaking.decode(content):
            kept = self._reassembler.add(fragment) and kept
        association = self._association
        while (message := self._reassembler.take()) is not None:
            self._process(message, epoch, now)
            if not association.established:
                return
        if kept:
            association.core.counters.add("dtls_acks_sent")
            association.send_content(ContentType.ACK, encode_ack([(epoch, sequence)]))

    def _process(self, message: Message, epoch: int, now: float) -> None:
        kind = message.type
        if epoch < 3:
            raise HandshakeError(Alert.UNEXPECTED_MESSAGE, "a message of the handshake after its end")
        if kind == _TICKET and self._association.client:
            self._take_ticket(message.body, now)
        elif kind == HandshakeType.KEY_UPDATE:
            self._take_key_update(message.body, epoch, now)
        elif kind == HandshakeType.NEW_CONNECTION_ID:
            self._take_cids(message.body)
        elif kind == HandshakeType.REQUEST_CONNECTION_ID:
            count = decode_request_connection_id(message.body)
            reading = self._association.reading
            if reading is None or not reading.cid:
                raise HandshakeError(Alert.UNEXPECTED_MESSAGE, "a request for connection IDs that we do not use")
            self.give_cids(count, now, immediate=False)
        else:
            raise HandshakeError(Alert.UNEXPECTED_MESSAGE, f"message {kind} after the handshake")

    def _take_ticket(self, body: bytes, now: float) -> None:
        association = self._association
        core = association.core
        found = decode_new_session_ticket(body)
        if not core.parameters.resume or not found.lifetime:
            return
        wall = core.wall()
        suite = SUITES[association.suite]
        lifetime = min(float(found.lifetime), core.parameters.ticket_lifetime)
        session = Session(
            DTLS_1_3, suite.value, resumption_psk(suite, self._resumption, found.nonce), association.identity,
            self._credential, wall, wall + lifetime, found.age_add,
        )  # fmt: skip
        core.tickets.put(self._session_key, Ticket(session, b"", found.ticket, now))

    def _take_key_update(self, body: bytes, epoch: int, now: float) -> None:
        asked = decode_key_update(body)
        association = self._association
        reading = association.reading
        assert isinstance(reading, Reading13)
        if epoch >= LAST_EPOCH or epoch + 1 in reading.opens:
            raise HandshakeError(Alert.UNEXPECTED_MESSAGE, "a second KeyUpdate in one epoch")
        suite = SUITES[association.suite]
        self._read_secret = next_generation(suite, self._read_secret)
        window = association.core.parameters.window
        reading.add(Open13(suite, traffic_keys(suite, self._read_secret), epoch + 1, window=window))
        association.core.counters.add("dtls_key_updates", "peer")
        if asked:
            self.update(now, ask=False)

    def _take_cids(self, body: bytes) -> None:
        cids, usage = decode_new_connection_id(body)
        seal = self._association.seal
        if not isinstance(seal, Seal13) or not seal.cid:
            raise HandshakeError(Alert.UNEXPECTED_MESSAGE, "connection IDs that were not agreed on")
        if any(not cid for cid in cids):
            raise HandshakeError(Alert.ILLEGAL_PARAMETER, "an empty connection ID")
        self.requested = False
        if usage == CID_IMMEDIATE and cids:
            seal.cid, cids = cids[0], cids[1:]
            self._spare.clear()
        self._spare.extend(cids[: MOST_CIDS - len(self._spare)])

    # What the records show

    def newer(self, epoch: int, now: float) -> None:
        """The peer writes with its new key: the old one is needed no more (section 8)."""
        reading = self._association.reading
        if epoch > 3 and isinstance(reading, Reading13):
            reading.drop_before(epoch)

    def forged(self, opener: Open13, now: float) -> None:
        """A record did not verify; in time for a new key (section 4.5.3)."""
        if opener.worn:
            self.update(now, ask=True)

    def ended(self) -> None:
        """No more timers."""
        for flight in self._flights:
            self._association.core.timers.clear(flight)
        self._flights.clear()

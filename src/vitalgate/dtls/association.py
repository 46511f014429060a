"""One association: its records, its flights, its life from the first hello to the end.

What the handshake says is decided by a `Handshake` (`client`, `server`, `client12` and so on), which is dropped when it
is complete. How protected records are read is a `Reading`, of DTLS 1.2 or of 1.3. What stays of an association is two
keys, a window, two numbers and a name.
"""

from typing import Protocol

from vitalgate.dtls import alerts
from vitalgate.dtls.alerts import Alert, HandshakeError
from vitalgate.dtls.core import Core
from vitalgate.dtls.credentials import NOBODY, Identity
from vitalgate.dtls.events import Closed, Connected, End, Failed, Moved, Received
from vitalgate.dtls.flights import Flight, Outgoing, Piece, pack
from vitalgate.dtls.ledger import Row
from vitalgate.dtls.protection import Exhausted, PlainSeal, Seal
from vitalgate.dtls.records import DTLS_1_2 as _DTLS_1_2
from vitalgate.dtls.records import FIXED_BITS, HEADER_BYTES, PLAINTEXT_TYPES, ContentType
from vitalgate.engine import Path

NEVER = float("-inf")
_FOREVER = float("inf")
RESEND_GUARD = 0.2
"""A peer that repeats itself is answered again no sooner than this after the last time, in seconds."""
_APPLICATION = int(ContentType.APPLICATION_DATA)
_PROTECTED = frozenset((_APPLICATION, int(ContentType.TLS12_CID), *range(FIXED_BITS, FIXED_BITS << 1)))
"""First bytes that only protected records have."""


class Handshake(Protocol):
    """The version's and role's part of an association, while its handshake lasts."""

    def receive_handshake(self, content: bytes, epoch: int, sequence: int, now: float) -> None:
        """A record of handshake messages came. Raises `HandshakeError`."""

    def receive_ack(self, content: bytes, epoch: int, now: float) -> None:
        """An ACK came."""

    def ended(self) -> None:
        """The association ends before the handshake is complete."""


class Reading(Protocol):
    """Reads protected records, and handshake messages in them once the handshake is complete."""

    cid: bytes
    """What the peer puts into its records now, b'' for none."""

    def receive(self, data: bytes, at: int, path: Path, now: float) -> int:
        """Take the record at ``at`` and return where the next begins. Raises `HandshakeError` and `Exhausted`."""

    def receive_handshake(self, content: bytes, epoch: int, sequence: int, now: float) -> None:
        """Handshake messages after the handshake. Raises `HandshakeError`."""

    def receive_ack(self, content: bytes, epoch: int, now: float) -> None:
        """An ACK after the handshake. Raises `HandshakeError`."""

    def settle(self) -> None:
        """The handshake is long past: what was kept for its sake may go."""

    def ended(self) -> None:
        """The association ends."""


class Association:
    """One peer. ``number`` names it to the application."""

    __slots__ = (
        "_linger_until", "cids", "client", "core", "due", "early", "established", "flight", "handshake", "heard",
        "hello_random", "identity", "number", "path", "pending_data", "reading", "resumed", "seal", "suite", "version",
    )  # fmt: skip

    def __init__(self, core: Core, number: int, path: Path, now: float, *, client: bool) -> None:
        self.core = core
        self.number = number
        self.path = path
        self.client = client
        self.cids: tuple[bytes, ...] = ()
        """Connection IDs of ours by which the peer may find us."""
        self.version = 0
        self.suite = 0
        self.identity: Identity = NOBODY
        self.resumed = False
        self.established = False
        self.seal: Seal = PlainSeal()
        """Writes records of the newest epoch."""
        self.reading: Reading | None = None
        """None as long as there are no keys."""
        self.handshake: Handshake | None = None
        self.flight: Flight | None = None
        """The handshake's last."""
        self.heard = now
        self.due: float | None = None
        self._linger_until = 0.0
        self.hello_random = b""
        """On a server, till the handshake is long past: tells a client that repeats itself from one beginning anew."""
        self.early: list[bytes] | None = None
        """Records that came before the keys for them."""
        self.pending_data: list[bytes] | None = None
        """Application data that came before the handshake was complete on our side."""

    # Receiving

    def receive(self, data: bytes, path: Path, now: float) -> None:
        """Take a datagram that was found to be for this association."""
        at, size = 0, len(data)
        try:
            while at < size:
                reading, first = self.reading, data[at]
                if reading is not None and first in _PROTECTED:
                    at = reading.receive(data, at, path, now)
                elif at + HEADER_BYTES <= size and first in PLAINTEXT_TYPES:
                    end = at + HEADER_BYTES + (data[at + 11] << 8 | data[at + 12])
                    if data[at + 3] or data[at + 4]:
                        if reading is None:
                            self.keep_early(data[at:end])
                            at = end
                        else:
                            at = reading.receive(data, at, path, now)
                    else:
                        self._receive_plain(data, at, end, now)
                        at = end
                else:
                    # Where a form cannot be read yet, neither can what follows it.
                    self.keep_early(data[at:])
                    return
        except HandshakeError as error:
            self.refuse(error.alert, error.reason, now)
        except Exhausted:
            self.end(End.EXHAUSTED, now)

    def receive_if_readable(self, data: bytes, path: Path, now: float) -> bool:
        """The same, where it is not sure whose datagram it is; False where it was not ours."""
        heard, self.heard = self.heard, NEVER
        self.receive(data, path, now)
        if self.heard != NEVER:
            return True
        self.heard = heard
        return False

    def _receive_plain(self, data: bytes, at: int, end: int, now: float) -> None:
        """A record of epoch 0."""
        if end > len(data):
            self.discard("length")
        elif self.established:
            # Nothing unprotected concerns a complete association; hellos were taken out before.
            self.discard("epoch")
        else:
            number = int.from_bytes(data[at + 5 : at + 11], "big")
            self.receive_content(data[at], data[at + HEADER_BYTES : end], 0, number, now)

    def keep_early(self, record: bytes) -> None:
        """Keep a record until there are keys for it."""
        if self.established or self.handshake is None:
            self.discard("epoch")
        elif self.early is None:
            self.early = [record]
        elif len(self.early) < self.core.limits.early:
            self.early.append(record)
        else:
            self.core.counters.add("dtls_limit_reached", "early")

    def read_early(self, now: float) -> None:
        """Take what came before the keys, which are there now."""
        while self.early:
            early, self.early = self.early, None
            for record in early:
                self.receive(record, self.path, now)
            if self.early == early:
                return

    def receive_content(self, content_type: int, content: bytes, epoch: int, sequence: int, now: float) -> None:
        """What was in a record, in clear now."""
        if content_type == ContentType.HANDSHAKE:
            part = self.handshake or self.reading
            if part is None:
                self.discard("epoch")
            else:
                part.receive_handshake(content, epoch, sequence, now)
        elif content_type == ContentType.ALERT:
            self._receive_alert(content, now)
        elif content_type == ContentType.ACK:
            part = self.handshake or self.reading
            if part is not None:
                part.receive_ack(content, epoch, now)
        elif content_type == _APPLICATION and epoch:
            self._receive_data(content)
        elif content_type == ContentType.CHANGE_CIPHER_SPEC and not epoch:
            pass  # the epoch of the records says the same, and cannot be forged
        else:
            self.discard("content-type")

    def _receive_data(self, content: bytes) -> None:
        if self.established:
            self.core.emit_data(Received(self.number, self.path, content))
        elif self.pending_data is None:
            self.pending_data = [content]
        elif len(self.pending_data) < self.core.limits.early:
            self.pending_data.append(content)
        else:
            self.core.counters.add("dtls_limit_reached", "early")

    def _receive_alert(self, content: bytes, now: float) -> None:
        if len(content) != 2:
            self.discard("alert")
            return
        value = content[1]
        self.core.counters.add("dtls_alerts_received", alerts.name(value))
        if value == Alert.CLOSE_NOTIFY:
            self.end(End.PEER, now, alert=value, answer=Alert.CLOSE_NOTIFY if self.established else None)
        elif value not in alerts.NOT_FATAL and (content[0] == alerts.FATAL or self.version != _DTLS_1_2):
            self.end(End.ALERT, now, alert=value)

    def moved(self, path: Path) -> None:
        """The newest record came from another address (RFC 9146 section 6)."""
        before = self.path
        by_path = self.core.by_path
        if by_path.get(before) is self:
            del by_path[before]
        self.path = path
        if by_path.get(path) is None:
            by_path[path] = self
        self.core.counters.add("dtls_moved")
        self.core.emit(Moved(self.number, path, before))

    def discard(self, reason: str) -> None:
        """Count a record that is not taken."""
        self.core.counters.add("dtls_discarded", reason)

    # Sending

    def send(self, data: bytes) -> None:
        """Application data as one record in one datagram. Raises `Exhausted`."""
        core, seal = self.core, self.seal
        if core.ledger is not None:
            layout = seal.layout(len(data))
            sequence = seal.sequence
            record = seal.seal(_APPLICATION, data)
            core.ledger.datagrams += 1
            core.ledger.record(
                Row(True, core.ledger.datagrams, seal.epoch, sequence, _APPLICATION, layout), len(record)
            )
        else:
            record = seal.seal(_APPLICATION, data)
        core.outgoing.append((record, self.path))

    def send_content(self, content_type: int, content: bytes, seal: Seal | None = None) -> None:
        """One record of another type in a datagram of its own, sent once."""
        piece = Piece(seal or self.seal, content_type)
        piece.content = content
        self._send_datagram([piece], again=False)

    def _send_datagram(self, pieces: list[Piece], *, again: bool, flight: Flight | None = None) -> None:
        core, ledger = self.core, self.core.ledger
        if ledger is not None:
            ledger.datagrams += 1
        datagram = b""
        for place, piece in enumerate(pieces, 1):
            seal = piece.seal
            last = place == len(pieces)
            layout = None if ledger is None else seal.layout(len(piece.content), last=last)
            sequence = seal.sequence
            record = seal.seal(piece.content_type, piece.content, last=last)
            if flight is not None and self.version != _DTLS_1_2:
                flight.records[seal.epoch, sequence] = piece.parts
            if ledger is not None and layout is not None:
                row = Row(
                    True, ledger.datagrams, seal.epoch, sequence, piece.content_type, layout, piece.messages(), again
                )
                ledger.record(row, len(record))
            datagram += record
        core.outgoing.append((datagram, self.path))

    def start(self, items: list[Outgoing], now: float, *, awaiting: bool = True) -> None:
        """Send the handshake's next flight. ``awaiting`` False: nothing answers it (the last flight of DTLS 1.2), so it
        is sent again only when the peer asks."""
        self.drop_flight()
        flight = self.flight = Flight(items, self.core.parameters.retransmission, self._flight_due)
        self.transmit(flight, now)
        if awaiting:
            self.core.timers.set(flight, now + flight.timeout)

    def transmit(self, flight: Flight, now: float) -> None:
        """Send what is missing of a flight."""
        flight.sent_at = now
        parameters = self.core.parameters
        for pieces in pack(
            flight.items, parameters.mtu, together=parameters.pack_messages and self.version != _DTLS_1_2
        ):
            self._send_datagram(pieces, again=flight.attempts > 0, flight=flight)

    def resend(self, flight: Flight, now: float) -> None:
        """Send a flight again because the peer seems not to have it; not in quick succession."""
        if now - flight.sent_at < RESEND_GUARD:
            return
        flight.attempts += 1
        self.core.counters.add("dtls_retransmissions")
        self.transmit(flight, now)

    def _flight_due(self, flight: Flight, now: float) -> None:
        parameters = self.core.parameters
        if flight.attempts >= parameters.retransmissions:
            self.end(End.TIMEOUT, now)
            return
        flight.attempts += 1
        flight.timeout = min(flight.timeout * 2, parameters.retransmission_most)
        self.core.counters.add("dtls_retransmissions")
        try:
            self.transmit(flight, now)
        except Exhausted:
            self.end(End.EXHAUSTED, now)
            return
        self.core.timers.set(flight, now + flight.timeout)

    def drop_flight(self) -> None:
        """The flight has arrived, or is of no use any more."""
        if self.flight is not None:
            self.core.timers.clear(self.flight)
            self.flight = None

    # Beginning and end

    def complete(self, now: float, *, keep_flight: bool, acknowledged: bool = False) -> None:
        """The handshake is complete on our side. ``keep_flight``: the peer may still need our last one; it says so, or
        (``acknowledged``) says when it has it."""
        core = self.core
        self.established = True
        self.handshake = None
        self.early = None
        if not keep_flight:
            self.drop_flight()
        elif self.flight is not None and not acknowledged:
            core.timers.clear(self.flight)
        self._linger_until = now + core.parameters.linger
        if core.starting.get(self.path) is self:
            del core.starting[self.path]
        before = core.by_path.get(self.path)
        core.by_path[self.path] = self
        if before is not None and before is not self:
            before.end(End.REPLACED, now)
        core.counters.add("dtls_handshakes_completed", self.identity.mode.value)
        core.emit(Connected(self.number, self.path, self.identity, self.version, self.suite, self.resumed))
        pending, self.pending_data = self.pending_data, None
        for data in pending or ():
            core.emit_data(Received(self.number, self.path, data))
        core.timers.set(self, min(self._linger_until, now + core.parameters.idle))

    def on_due(self, now: float) -> None:
        """The last flight was kept long enough, nothing was heard for too long, or the handshake takes too long."""
        if not self.established:
            self.end(End.TIMEOUT, now)
            return
        if now >= self._linger_until:
            self._linger_until = _FOREVER
            self.hello_random = b""
            if self.flight is not None and self.flight.due is None:
                self.drop_flight()
            if self.reading is not None:
                self.reading.settle()
        idle_at = self.heard + self.core.parameters.idle
        if now >= idle_at:
            self.end(End.IDLE, now, answer=Alert.CLOSE_NOTIFY)
        else:
            self.core.timers.set(self, min(idle_at, self._linger_until))

    def refuse(self, alert: Alert, reason: str, now: float) -> None:
        """Say what is wrong, and end."""
        self.end(End.REFUSED, now, alert=alert, answer=alert, detail=reason)

    def end(
        self, reason: End, now: float, *, alert: int | None = None, answer: Alert | None = None, detail: str = ""
    ) -> None:
        """The association ends; with ``answer`` the peer is told. Harmless when it has ended."""
        core = self.core
        if core.associations.pop(self.number, None) is None:
            return
        if answer is not None:
            core.counters.add("dtls_alerts_sent", alerts.name(answer))
            try:
                self.send_content(ContentType.ALERT, alerts.encode(answer))
            except Exhausted:
                core.counters.add("dtls_discarded", "exhausted")
        self.drop_flight()
        core.timers.clear(self)
        if self.handshake is not None:
            self.handshake.ended()
        if self.reading is not None:
            self.reading.ended()
        for table in (core.by_path, core.starting):
            if table.get(self.path) is self:
                del table[self.path]
        core.free_cids(self)
        if self.established:
            core.counters.add("dtls_associations_ended", reason.value)
            core.emit(Closed(self.number, self.path, self.identity, reason, alert))
        else:
            core.counters.add("dtls_handshakes_failed", reason.value)
            core.emit(Failed(self.number, self.path, reason, alert, detail))
        self.established = False
        self.handshake = None
        self.reading = None

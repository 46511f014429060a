"""A handshake's messages in and out, whatever they mean: reassembly, transcript, flights, and the table that says which
message may come when. What they mean is a `Role`: which of them there are depends on role and version.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, ClassVar, Protocol

from vitalgate.dtls import handshaking
from vitalgate.dtls.alerts import Alert, HandshakeError
from vitalgate.dtls.association import Association
from vitalgate.dtls.flights import Outgoing
from vitalgate.dtls.handshaking import Fragment, HandshakeType, Message, Reassembler
from vitalgate.dtls.protection import Seal
from vitalgate.dtls.records import DTLS_1_2, ContentType
from vitalgate.dtls.wire import DecodeError

_ALWAYS_PLAIN = frozenset((HandshakeType.CLIENT_HELLO, HandshakeType.SERVER_HELLO, HandshakeType.HELLO_VERIFY_REQUEST))


@dataclass(frozen=True, slots=True)
class Rule:
    """What a message does in a state: the method that takes it, and the states that may follow."""

    handler: Callable[[Any, Message, float], Enum]
    leads_to: tuple[Enum, ...]


Table = Mapping[tuple[Enum, int], Rule]
"""(state, handshake type) -> rule. What has no row may not come."""


class Role(Protocol):
    """Client or server of one version, or before the version is known."""

    TABLE: ClassVar[Table]
    state: Enum


class Acknowledging(Protocol):
    """DTLS 1.3: keeps account of the records of a flight, for ACKs."""

    def record(self, epoch: int, sequence: int, *, kept: bool, now: float) -> None:
        """A record of handshake messages came, and did not make us answer yet."""

    def last(self, epoch: int, sequence: int) -> None:
        """A record completed the handshake."""

    def receive(self, content: bytes, epoch: int, now: float) -> None:
        """An ACK came."""

    def next_flight(self) -> None:
        """We answer."""

    def ended(self) -> None:
        """No more."""


class Conversation:
    """The messages of one handshake. ``first`` is the message_seq of the peer's first and ``ours`` of our first."""

    __slots__ = ("_pending", "acknowledging", "association", "before", "items", "next_send", "reassembler", "role",
                 "transcript")  # fmt: skip

    def __init__(self, association: Association, *, first: int = 0, ours: int = 0) -> None:
        self.association = association
        self.reassembler = Reassembler(first, largest=association.core.limits.message)
        self.next_send = ours
        self.transcript = bytearray()
        self.before = 0
        """Length of the transcript before the message that is being processed."""
        self._pending: list[Message] | None = []
        self.items: list[Outgoing] = []
        self.role: Role | None = None
        self.acknowledging: Acknowledging | None = None

    # Messages in

    def receive_handshake(self, content: bytes, epoch: int, sequence: int, now: float) -> None:
        """Take the fragments of one record, and process every message that is whole and in order."""
        try:
            fragments = handshaking.decode(content)
        except DecodeError:
            if epoch:
                raise
            self.association.discard("handshake")
            return
        kept, behind = True, self.reassembler.next_sequence
        for fragment in fragments:
            if not self._may_come(fragment.type, epoch):
                self.association.discard("epoch")
                kept = False
                continue
            if fragment.sequence < behind:
                self._repeated(fragment, now)
            kept = self.reassembler.add(fragment) and kept
        association = self.association
        flight = association.flight
        while association.handshake is self and (message := self.reassembler.take()) is not None:
            self._step(message, now)
        if self.acknowledging is not None:
            if association.handshake is not self:
                self.acknowledging.last(epoch, sequence)
            elif association.flight is flight:
                self.acknowledging.record(epoch, sequence, kept=kept, now=now)

    def _may_come(self, kind: int, epoch: int) -> bool:
        version = self.association.version
        if version == DTLS_1_2:  # only Finished is protected (RFC 5246 section 7.4.9)
            return (kind == HandshakeType.FINISHED) == (epoch > 0)
        if kind in _ALWAYS_PLAIN:
            return epoch == 0
        return epoch > 0 or version == 0

    def _repeated(self, fragment: Fragment, now: float) -> None:
        """The last message of the peer's last flight again: it has not seen our answer (RFC 6347 section 4.2.4)."""
        flight = self.association.flight
        if (
            flight is not None
            and fragment.sequence == self.reassembler.next_sequence - 1
            and fragment.offset + len(fragment.body) == fragment.length
        ):
            self.association.resend(flight, now)

    def _step(self, message: Message, now: float) -> None:
        role = self.role
        assert role is not None
        rule = role.TABLE.get((role.state, message.type))
        if rule is None:
            raise HandshakeError(Alert.UNEXPECTED_MESSAGE, f"message {message.type} in state {role.state.name}")
        self.before = len(self.transcript)
        self.remember(message)
        state = rule.handler(role, message, now)
        assert state in rule.leads_to, f"{role.state} led to {state}"
        if self.role is role:
            role.state = state
        if self.association.early:
            self.association.read_early(now)  # there may be keys now

    def receive_ack(self, content: bytes, epoch: int, now: float) -> None:
        """An ACK; what speaks DTLS 1.2 does not know it."""
        if self.acknowledging is None:
            self.association.discard("content-type")
        else:
            self.acknowledging.receive(content, epoch, now)

    def ended(self) -> None:
        """The association ends before the handshake is complete."""
        if self.acknowledging is not None:
            self.acknowledging.ended()

    # The transcript

    def remember(self, message: Message) -> None:
        """Put a message into the transcript, whose form depends on the version: until that is known it waits."""
        if self._pending is not None:
            self._pending.append(message)
        elif self.association.version == DTLS_1_2:
            self.transcript += message.with_dtls_header()
        else:
            self.transcript += message.with_tls_header()

    def choose(self, version: int) -> None:
        """The version is known."""
        self.association.version = version
        pending, self._pending = self._pending, None
        for message in pending or ():
            self.before = len(self.transcript)
            self.remember(message)

    def restart(self) -> None:
        """Forget what was said so far: the transcript of DTLS 1.2 begins after HelloVerifyRequest."""
        self.transcript.clear()
        self._pending = None if self.association.version else []

    # Messages out

    def put(self, kind: int, body: bytes, seal: Seal | None = None) -> Message:
        """Add a message to the flight in the making, and to the transcript."""
        message = Message(kind, self.next_send, body)
        self.items.append(Outgoing(seal or self.association.seal, kind, self.next_send, body))
        self.next_send += 1
        self.remember(message)
        return message

    def put_change_cipher_spec(self, seal: Seal) -> None:
        """Add a ChangeCipherSpec in front of the messages of the next epoch."""
        self.items.append(Outgoing(seal, None, 0, b"\x01", ContentType.CHANGE_CIPHER_SPEC))

    def flush(self, now: float, *, awaiting: bool = True) -> None:
        """Send the flight."""
        if self.acknowledging is not None:
            self.acknowledging.next_flight()
        items, self.items = self.items, []
        self.association.start(items, now, awaiting=awaiting)

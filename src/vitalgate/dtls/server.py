"""A server's first look at a ClientHello: which version, and whether there is anything to agree on at all."""

from enum import Enum, auto
from typing import ClassVar

from vitalgate.dtls.alerts import Alert, HandshakeError
from vitalgate.dtls.association import Association
from vitalgate.dtls.conversation import Conversation, Rule, Table
from vitalgate.dtls.handshaking import HandshakeType, Message
from vitalgate.dtls.hellos import ClientHello, decode_client_hello
from vitalgate.dtls.protection import PlainSeal
from vitalgate.dtls.records import DTLS_1_3
from vitalgate.dtls.retry import Retry
from vitalgate.dtls.server12 import Server12
from vitalgate.dtls.server13 import Server13


class State(Enum):
    """Before the version is known."""

    WAIT_CLIENT_HELLO = auto()
    DECIDED = auto()


class ServerStart:
    """Takes the ClientHello of an address that showed that it receives. ``sequence`` is the hello's message_seq: what
    the server sent before it kept nothing, and the numbers go on from there (RFC 6347 section 4.2.2). ``record`` is the
    record sequence number that the server's first record takes over, ``retry`` what a cookie of DTLS 1.3 held."""

    def __init__(self, association: Association, sequence: int, record: int, retry: Retry | None) -> None:
        self.association = association
        self.retry = retry
        self.core = association.core
        self.state: Enum = State.WAIT_CLIENT_HELLO
        association.seal = PlainSeal(record)
        conversation = self.conversation = Conversation(association, first=sequence, ours=sequence)
        conversation.role = self
        association.handshake = conversation

    def on_client_hello(self, message: Message, now: float) -> State:
        """Choose the version, and hand over to it."""
        hello = decode_client_hello(message.body)
        version = choose_version(hello, self.core.parameters.versions)
        self.conversation.choose(version)
        if version == DTLS_1_3:
            Server13(self.conversation, hello, message, self.retry, now)
        else:
            Server12(self.conversation, hello, now)
        return State.DECIDED

    TABLE: ClassVar[Table] = {
        (State.WAIT_CLIENT_HELLO, HandshakeType.CLIENT_HELLO): Rule(on_client_hello, (State.DECIDED,)),
    }


def choose_version(hello: ClientHello, ours: tuple[int, ...]) -> int:
    """The first of our versions that the client offers. Raises `HandshakeError`."""
    offered = hello.versions
    for version in ours:
        if version in offered:
            return version
    raise HandshakeError(Alert.PROTOCOL_VERSION, "no version in common")

"""A client's hello, before it is known which version the server takes."""

from collections.abc import Hashable
from enum import Enum, auto
from typing import ClassVar

from vitalgate.dtls import extensions
from vitalgate.dtls.alerts import Alert, HandshakeError
from vitalgate.dtls.association import Association
from vitalgate.dtls.client12 import Client12
from vitalgate.dtls.conversation import Conversation, Rule, Table
from vitalgate.dtls.credentials import Credentials
from vitalgate.dtls.extensions import CertificateType, Extension, Extensions
from vitalgate.dtls.handshaking import HandshakeType, Message
from vitalgate.dtls.hellos import (
    DOWNGRADE,
    RANDOM_BYTES,
    ClientHello,
    decode_hello_verify_request,
    decode_server_hello,
)
from vitalgate.dtls.judging import Target
from vitalgate.dtls.records import DTLS_1_2, DTLS_1_3
from vitalgate.dtls.sessions import Ticket
from vitalgate.dtls.signatures import DEFAULT_SCHEMES
from vitalgate.dtls.suites import EMPTY_RENEGOTIATION_INFO_SCSV, SUITES, Exchange

FAKE_SESSION_ID_BYTES = 8
"""With a ticket a client sends a session ID of its own making: the server's echo says that it took the ticket (RFC 5077
section 3.4)."""


class State(Enum):
    """Before the version is known."""

    WAIT_SERVER_HELLO = auto()
    DECIDED = auto()


class ClientStart:
    """Sends ClientHello, answers HelloVerifyRequest, and hands over to the version that the server chose."""

    def __init__(self, association: Association, target: Target, session_key: Hashable, now: float) -> None:
        self.association = association
        self.core = association.core
        self.target = target
        self.session_key = session_key
        self.state: Enum = State.WAIT_SERVER_HELLO
        conversation = self.conversation = Conversation(association)
        conversation.role = self
        association.handshake = conversation
        parameters, credentials = self.core.parameters, self.core.credentials
        self.ticket = self._resumable(now)
        cid = self.core.new_cid(association)
        if cid is None:
            raise HandshakeError(Alert.INTERNAL_ERROR, "no connection ID is free")
        self.cid = cid
        suites = tuple(value for value in parameters.suites if _usable(value, credentials))
        suites = tuple(value for value in suites if SUITES[value].version in parameters.versions)
        if not suites:
            raise HandshakeError(Alert.INTERNAL_ERROR, "no credentials for any cipher suite that is allowed")
        if DTLS_1_2 in parameters.versions:
            suites = (*suites, EMPTY_RENEGOTIATION_INFO_SCSV)
        session_id = b""
        if self.ticket is not None and self.ticket.session.version == DTLS_1_2:
            session_id = self.ticket.session_id or self.core.randomness(FAKE_SESSION_ID_BYTES)
        self.hello = ClientHello(self.core.randomness(RANDOM_BYTES), suites, self._extensions(suites), session_id)
        self._send(now)

    def _send(self, now: float) -> None:
        self.conversation.put(HandshakeType.CLIENT_HELLO, self.hello.encode())
        self.conversation.flush(now)

    def _resumable(self, now: float) -> Ticket | None:
        core = self.core
        if not core.parameters.resume:
            return None
        ticket = core.tickets.get(self.session_key)
        if ticket is None or not ticket.session.usable(core.credentials, core.wall()):
            return None
        session = ticket.session
        if session.version not in core.parameters.versions or session.suite not in core.parameters.suites:
            return None
        return ticket

    def _extensions(self, suites: tuple[int, ...]) -> Extensions:
        parameters, credentials = self.core.parameters, self.core.credentials
        found: Extensions = {}
        offered = [SUITES[value] for value in suites if value in SUITES]
        signing = any(suite.exchange in (Exchange.ECDHE_ECDSA, Exchange.ANY) for suite in offered) and bool(
            credentials.peer_types
        )
        if parameters.cid is not None:
            found[Extension.CONNECTION_ID] = extensions.encode_cid(self.cid)
        if self.target.sni:
            found[Extension.SERVER_NAME] = extensions.encode_server_name(self.target.sni)
        if any(suite.exchange.ephemeral or suite.exchange is Exchange.ANY for suite in offered):
            found[Extension.SUPPORTED_GROUPS] = extensions.encode_list(parameters.groups)
        if any(suite.exchange.ephemeral for suite in offered):
            found[Extension.EC_POINT_FORMATS] = b"\x01\x00"
        if signing:
            found[Extension.SIGNATURE_ALGORITHMS] = extensions.encode_list(DEFAULT_SCHEMES)
            types = credentials.peer_types
            if types != (CertificateType.X509,):
                found[Extension.SERVER_CERTIFICATE_TYPE] = extensions.encode_list(types, prefix=1, size=1)
            ours = credentials.own.types if credentials.own is not None else ()
            if ours and ours != (CertificateType.X509,):
                found[Extension.CLIENT_CERTIFICATE_TYPE] = extensions.encode_list(ours, prefix=1, size=1)
        if DTLS_1_2 in parameters.versions:
            found[Extension.EXTENDED_MASTER_SECRET] = b""
            if parameters.resume and parameters.ask_tickets:
                ticket = self.ticket
                usable = ticket is not None and ticket.session.version == DTLS_1_2
                found[Extension.SESSION_TICKET] = ticket.ticket if ticket is not None and usable else b""
        return found

    # What the server says

    def on_hello_verify_request(self, message: Message, now: float) -> State:
        """The same hello again, with the cookie; what was said before does not count (RFC 6347 section 4.2.1)."""
        request = decode_hello_verify_request(message.body)
        if DTLS_1_2 not in self.core.parameters.versions:
            raise HandshakeError(Alert.PROTOCOL_VERSION, "a server that knows only DTLS 1.2")
        if self.hello.cookie:
            raise HandshakeError(Alert.UNEXPECTED_MESSAGE, "a second HelloVerifyRequest")
        hello = self.hello
        self.hello = ClientHello(hello.random, hello.suites, hello.extensions, hello.session_id, request.cookie)
        self.conversation.restart()
        self._send(now)
        return State.WAIT_SERVER_HELLO

    def on_server_hello(self, message: Message, now: float) -> State:
        """The version is chosen."""
        hello = decode_server_hello(message.body)
        parameters = self.core.parameters
        if hello.selected_version not in parameters.versions or hello.version != DTLS_1_2:
            raise HandshakeError(Alert.PROTOCOL_VERSION, "a version that we did not offer")
        if hello.selected_version == DTLS_1_3:
            raise HandshakeError(Alert.PROTOCOL_VERSION, "DTLS 1.3")
        if DTLS_1_3 in parameters.versions and hello.random.endswith(DOWNGRADE):
            raise HandshakeError(Alert.ILLEGAL_PARAMETER, "somebody took DTLS 1.3 out of our hello")
        self.conversation.choose(DTLS_1_2)
        Client12(self.conversation, self.hello, hello, self.target, self.session_key, self.ticket, self.cid, now)
        return State.DECIDED

    TABLE: ClassVar[Table] = {
        (State.WAIT_SERVER_HELLO, HandshakeType.HELLO_VERIFY_REQUEST): Rule(
            on_hello_verify_request, (State.WAIT_SERVER_HELLO,)
        ),
        (State.WAIT_SERVER_HELLO, HandshakeType.SERVER_HELLO): Rule(on_server_hello, (State.DECIDED,)),
    }


def _usable(value: int, credentials: Credentials) -> bool:
    """Whether a client can use a suite with what it has."""
    exchange = SUITES[value].exchange
    psk = credentials.psks is not None and credentials.psks.ours is not None
    keys = bool(credentials.peer_types)
    return psk if exchange.psk else keys if exchange is Exchange.ECDHE_ECDSA else psk or keys

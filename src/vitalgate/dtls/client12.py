"""The client of DTLS 1.2, from ServerHello on (RFC 5246 section 7.3, RFC 6347 section 4.2.4)."""

from collections.abc import Hashable
from enum import Enum, auto
from typing import ClassVar

from vitalgate.dtls import extensions
from vitalgate.dtls.alerts import Alert, HandshakeError
from vitalgate.dtls.common12 import Common12
from vitalgate.dtls.conversation import Conversation, Rule, Table
from vitalgate.dtls.credentials import NOBODY, Identity
from vitalgate.dtls.extensions import CertificateType, Extension
from vitalgate.dtls.groups import GROUPS
from vitalgate.dtls.handshaking import HandshakeType, Message
from vitalgate.dtls.hellos import ClientHello, ServerHello
from vitalgate.dtls.judging import Target, judge
from vitalgate.dtls.messages12 import (
    ClientKeyExchange,
    decode_certificate,
    decode_certificate_request,
    decode_new_session_ticket,
    decode_server_key_exchange,
    encode_certificate,
    encode_certificate_verify,
)
from vitalgate.dtls.prf import premaster_psk
from vitalgate.dtls.records import DTLS_1_2
from vitalgate.dtls.sessions import Session, Ticket
from vitalgate.dtls.signatures import PublicKey, scheme_for, sign, verify
from vitalgate.dtls.suites import SUITES, Exchange


class State(Enum):
    """What the client waits for."""

    CERTIFICATE = auto()
    KEY_EXCHANGE = auto()
    HINT_OR_DONE = auto()
    REQUEST_OR_DONE = auto()
    DONE = auto()
    TICKET = auto()
    FINISHED = auto()
    COMPLETE = auto()


class Client12:
    """Made by `ClientStart` when the server has chosen DTLS 1.2; takes the conversation over."""

    def __init__(
        self,
        conversation: Conversation,
        hello: ClientHello,
        answer: ServerHello,
        target: Target,
        session_key: Hashable,
        ticket: Ticket | None,
        cid: bytes,
        now: float,
    ) -> None:
        self.conversation = conversation
        self.association = conversation.association
        self.core = self.association.core
        self.target = target
        self.session_key = session_key
        suite = SUITES.get(answer.suite)
        if suite is None or answer.suite not in hello.suites or suite.version != DTLS_1_2:
            raise HandshakeError(Alert.ILLEGAL_PARAMETER, "a cipher suite that we did not offer")
        extensions.check_answers(hello.extensions, answer.extensions)
        if Extension.EXTENDED_MASTER_SECRET not in answer.extensions:
            raise HandshakeError(Alert.HANDSHAKE_FAILURE, "a server without extended master secret")
        if answer.extensions.get(Extension.RENEGOTIATION_INFO, b"\0") != b"\0":
            raise HandshakeError(Alert.HANDSHAKE_FAILURE, "renegotiation_info of another handshake")
        self.suite = suite
        self.common = Common12(conversation, suite, hello.random, answer.random)
        cid_out = answer.extensions.get(Extension.CONNECTION_ID)
        if cid_out is not None:
            self.common.cid_out = extensions.decode_cid(cid_out)
            self.common.cid_in = cid
        self.server_type = self._type(answer, Extension.SERVER_CERTIFICATE_TYPE)
        self.client_type = self._type(answer, Extension.CLIENT_CERTIFICATE_TYPE)
        self.session_id = answer.session_id
        self.gets_ticket = Extension.SESSION_TICKET in answer.extensions
        self.requested: tuple[int, ...] | None = None
        self.group = 0
        self.share = b""
        self.peer_key: PublicKey | None = None
        self.identity: Identity = NOBODY
        self.credential = b""
        self.ticket = b""
        self.ticket_lifetime = 0
        self.state: Enum
        conversation.role = self
        resumed = ticket is not None and bool(answer.session_id) and answer.session_id == hello.session_id
        self.association.resumed = resumed
        if resumed and ticket is not None:
            if ticket.session.suite != answer.suite:
                raise HandshakeError(Alert.ILLEGAL_PARAMETER, "a session resumed with another cipher suite")
            self.identity, self.credential = ticket.session.identity, ticket.session.credential
            self.common.master = ticket.session.secret
            self.ticket = ticket.ticket
            self.common.derive_keys(now)
            self.common.start_reading()
            self.state = State.TICKET if self.gets_ticket else State.FINISHED
        elif suite.exchange is Exchange.PSK:
            self.state = State.HINT_OR_DONE
        elif suite.exchange is Exchange.ECDHE_PSK:
            self.state = State.KEY_EXCHANGE
        else:
            self.state = State.CERTIFICATE

    @staticmethod
    def _type(answer: ServerHello, extension: Extension) -> CertificateType:
        value = answer.extensions.get(extension)
        if value is None:
            return CertificateType.X509
        try:
            return CertificateType(extensions.decode_number(value, 1))
        except ValueError as error:
            raise HandshakeError(Alert.UNSUPPORTED_CERTIFICATE, "a certificate type that we did not offer") from error

    def on_certificate(self, message: Message, now: float) -> State:
        """The server's key; that it holds it is shown by the signature in ServerKeyExchange."""
        certificates = decode_certificate(self.server_type, message.body)
        if not certificates:
            raise HandshakeError(Alert.HANDSHAKE_FAILURE, "a server without a certificate")
        if self.server_type not in self.core.credentials.peer_types:
            raise HandshakeError(Alert.UNSUPPORTED_CERTIFICATE, "a certificate type that we did not offer")
        credentials, wall = self.core.credentials, self.core.wall()
        self.peer_key, self.identity = judge(credentials, self.server_type, certificates, self.target, wall)
        self.credential = certificates[0] if self.server_type is CertificateType.RAW_PUBLIC_KEY else b""
        return State.KEY_EXCHANGE

    def on_server_key_exchange(self, message: Message, now: float) -> State:
        """The server's share, signed; or a hint, which we do not need."""
        exchange = self.suite.exchange
        found = decode_server_key_exchange(message.body, psk=exchange.psk, ephemeral=exchange.ephemeral)
        if exchange.ephemeral:
            if found.group not in self.core.parameters.groups:
                raise HandshakeError(Alert.ILLEGAL_PARAMETER, "a group that we did not offer")
            self.group, self.share = found.group, found.share
        if exchange is Exchange.ECDHE_ECDSA:
            assert self.peer_key is not None
            signed = self.common.client_random + self.common.server_random + found.parameters()
            verify(self.peer_key, found.scheme, found.signature, signed, any_curve=True)
            return State.REQUEST_OR_DONE
        return State.DONE

    def on_certificate_request(self, message: Message, now: float) -> State:
        """The server wants to know us."""
        self.requested = decode_certificate_request(message.body)
        return State.DONE

    def on_server_hello_done(self, message: Message, now: float) -> State:
        """The server's turn is over: our key, the keys of both, Finished."""
        common, conversation = self.common, self.conversation
        own = self.core.credentials.own
        certificates: tuple[bytes, ...] = ()
        if self.requested is not None:
            if own is not None and self.client_type in own.types and scheme_for(own.key, self.requested):
                certificates = own.certificates(self.client_type)
            conversation.put(HandshakeType.CERTIFICATE, encode_certificate(self.client_type, certificates))
        premaster = self._put_key_exchange()
        common.derive_master(premaster)
        if certificates and own is not None and self.requested is not None:
            scheme = scheme_for(own.key, self.requested)
            assert scheme is not None
            signature = sign(own.key, scheme, bytes(conversation.transcript))
            conversation.put(HandshakeType.CERTIFICATE_VERIFY, encode_certificate_verify(scheme.value, signature))
        common.derive_keys(now)
        common.put_finished()
        common.start_reading()
        conversation.flush(now)
        return State.TICKET if self.gets_ticket else State.FINISHED

    def _put_key_exchange(self) -> bytes:
        exchange = self.suite.exchange
        identity: bytes | None = None
        ours: bytes | None = None
        agreed: bytes | None = None
        if exchange.ephemeral:
            group = GROUPS[self.group]
            private = group.generate(self.core.randomness)
            ours, agreed = group.public(private), group.agree(private, self.share)
        key = b""
        if exchange.psk:
            psks = self.core.credentials.psks
            assert psks is not None
            assert psks.ours is not None
            identity, key = psks.ours.identity, psks.ours.key
            self.identity, self.credential = psks.ours.peer, identity
        self.conversation.put(HandshakeType.CLIENT_KEY_EXCHANGE, ClientKeyExchange(identity, ours).encode())
        if exchange.psk:
            return premaster_psk(key, agreed)
        assert agreed is not None
        return agreed

    def on_new_session_ticket(self, message: Message, now: float) -> State:
        """A ticket for the next time."""
        self.ticket_lifetime, self.ticket = decode_new_session_ticket(message.body)
        return State.FINISHED

    def on_finished(self, message: Message, now: float) -> State:
        """The server has the same keys and saw the same messages."""
        self.common.check_finished(message.body)
        association = self.association
        association.identity = self.identity
        if association.resumed:
            self.common.put_finished()
            self.conversation.flush(now, awaiting=False)
        else:
            self._remember(now)
        association.complete(now, keep_flight=association.resumed)
        return State.COMPLETE

    def _remember(self, now: float) -> None:
        core = self.core
        if not core.parameters.resume or not (self.ticket or self.session_id):
            return
        wall = core.wall()
        lifetime = min(self.ticket_lifetime or core.parameters.ticket_lifetime, core.parameters.ticket_lifetime)
        session = Session(
            DTLS_1_2, self.suite.value, self.common.master, self.identity, self.credential, wall, wall + lifetime
        )
        core.tickets.put(self.session_key, Ticket(session, b"" if self.ticket else self.session_id, self.ticket, now))

    TABLE: ClassVar[Table] = {
        (State.CERTIFICATE, HandshakeType.CERTIFICATE): Rule(on_certificate, (State.KEY_EXCHANGE,)),
        (State.KEY_EXCHANGE, HandshakeType.SERVER_KEY_EXCHANGE): Rule(
            on_server_key_exchange, (State.REQUEST_OR_DONE, State.DONE)
        ),
        (State.HINT_OR_DONE, HandshakeType.SERVER_KEY_EXCHANGE): Rule(on_server_key_exchange, (State.DONE,)),
        (State.HINT_OR_DONE, HandshakeType.SERVER_HELLO_DONE): Rule(
            on_server_hello_done, (State.TICKET, State.FINISHED)
        ),
        (State.REQUEST_OR_DONE, HandshakeType.CERTIFICATE_REQUEST): Rule(on_certificate_request, (State.DONE,)),
        (State.REQUEST_OR_DONE, HandshakeType.SERVER_HELLO_DONE): Rule(
            on_server_hello_done, (State.TICKET, State.FINISHED)
        ),
        (State.DONE, HandshakeType.SERVER_HELLO_DONE): Rule(on_server_hello_done, (State.TICKET, State.FINISHED)),
        (State.TICKET, HandshakeType.NEW_SESSION_TICKET): Rule(on_new_session_ticket, (State.FINISHED,)),
        (State.FINISHED, HandshakeType.FINISHED): Rule(on_finished, (State.COMPLETE,)),
    }

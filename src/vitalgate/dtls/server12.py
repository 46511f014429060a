"""The server of DTLS 1.2, from ClientHello on (RFC 5246 section 7.3, RFC 6347 section 4.2.4)."""

from enum import Enum, auto
from typing import ClassVar

from vitalgate.dtls import extensions
from vitalgate.dtls.alerts import Alert, HandshakeError
from vitalgate.dtls.common12 import Common12
from vitalgate.dtls.conversation import Conversation, Rule, Table
from vitalgate.dtls.credentials import NOBODY, Identity, Psk
from vitalgate.dtls.extensions import CertificateType, Extension, Extensions
from vitalgate.dtls.groups import GROUPS, PrivateShare
from vitalgate.dtls.handshaking import HandshakeType, Message
from vitalgate.dtls.hellos import DOWNGRADE, RANDOM_BYTES, ClientHello, ServerHello
from vitalgate.dtls.judging import judge
from vitalgate.dtls.messages12 import (
    ServerKeyExchange,
    decode_certificate,
    decode_certificate_verify,
    decode_client_key_exchange,
    encode_certificate,
    encode_certificate_request,
    encode_new_session_ticket,
)
from vitalgate.dtls.prf import premaster_psk
from vitalgate.dtls.records import DTLS_1_2, DTLS_1_3
from vitalgate.dtls.sessions import Session
from vitalgate.dtls.signatures import DEFAULT_SCHEMES, PublicKey, scheme_for, sign, verify
from vitalgate.dtls.suites import EMPTY_RENEGOTIATION_INFO_SCSV, SUITES, Exchange, Suite

SESSION_ID_BYTES = 16


class State(Enum):
    """What the server waits for."""

    CERTIFICATE = auto()
    KEY_EXCHANGE = auto()
    CERTIFICATE_VERIFY = auto()
    FINISHED = auto()
    COMPLETE = auto()


class Server12:
    """Made by `ServerStart` for a client that takes DTLS 1.2; answers its hello at once."""

    def __init__(self, conversation: Conversation, hello: ClientHello, now: float) -> None:
        self.conversation = conversation
        self.association = conversation.association
        self.core = self.association.core
        self.hello = hello
        self.identity: Identity = NOBODY
        self.credential = b""
        self.peer_key: PublicKey | None = None
        self.private: PrivateShare | None = None
        self.group = 0
        self.state: Enum
        conversation.role = self
        if Extension.EXTENDED_MASTER_SECRET not in hello.extensions:
            raise HandshakeError(Alert.HANDSHAKE_FAILURE, "a client without extended master secret")
        self.tickets = Extension.SESSION_TICKET in hello.extensions and self.core.parameters.tickets > 0
        self.server_type = CertificateType.X509
        self.client_type = CertificateType.X509
        self.schemes = _list(hello, Extension.SIGNATURE_ALGORITHMS)
        session = self._find_session(now)
        if session is not None:
            self.suite = SUITES[session.suite]
        else:
            self.suite = self._choose_suite()
        random = self.core.randomness(RANDOM_BYTES)
        if DTLS_1_3 in self.core.parameters.versions:
            random = random[: -len(DOWNGRADE)] + DOWNGRADE
        self.common = Common12(conversation, self.suite, hello.random, random)
        if session is not None:
            self._resume(session, now)
        else:
            self._answer(now)

    # What to agree on

    def _choose_suite(self) -> Suite:
        offered = self.hello.suites
        for value in self.core.parameters.suites_for(DTLS_1_2):
            if value in offered and self._can(SUITES[value].exchange):
                return SUITES[value]
        raise HandshakeError(Alert.HANDSHAKE_FAILURE, "no cipher suite in common")

    def _can(self, exchange: Exchange) -> bool:
        """Whether a key exchange works with what both have; keeps what was found on the way."""
        credentials = self.core.credentials
        if exchange.ephemeral and not self._choose_group():
            return False
        if exchange.psk:
            return credentials.psks is not None and len(credentials.psks) > 0
        own = credentials.own
        if own is None or scheme_for(own.key, self.schemes) is None:
            return False
        server_type = self._choose_type(Extension.SERVER_CERTIFICATE_TYPE, own.types)
        if server_type is None:
            return False
        self.server_type = server_type
        client_type = self._choose_type(Extension.CLIENT_CERTIFICATE_TYPE, credentials.peer_types)
        if client_type is None:
            return not credentials.require_client
        self.client_type = client_type
        return True

    def _choose_group(self) -> bool:
        # A client that names no groups leaves the choice to us (RFC 8422 section 4).
        named = Extension.SUPPORTED_GROUPS in self.hello.extensions
        offered = _list(self.hello, Extension.SUPPORTED_GROUPS) if named else self.core.parameters.groups
        for group in self.core.parameters.groups:
            if group in offered:
                self.group = group
                return True
        return False

    def _choose_type(self, extension: Extension, ours: tuple[CertificateType, ...]) -> CertificateType | None:
        value = self.hello.extensions.get(extension)
        offered = (0,) if value is None else extensions.decode_list(value, prefix=1, size=1)
        for kind in ours:
            if kind in offered:
                return kind
        return None

    # Resumption

    def _find_session(self, now: float) -> Session | None:
        core, hello = self.core, self.hello
        session = None
        ticket = hello.extensions.get(Extension.SESSION_TICKET)
        if core.parameters.tickets and ticket:
            session = core.ticket_keys.open(ticket, now)
        elif core.parameters.tickets and hello.session_id:
            session = core.server_sessions.get(hello.session_id)
        if session is None or session.version != DTLS_1_2 or session.suite not in hello.suites:
            return None
        return session if session.usable(core.credentials, core.wall()) else None

    def _resume(self, session: Session, now: float) -> None:
        """The short handshake (RFC 5246 section 7.3, figure 2)."""
        common, conversation = self.common, self.conversation
        self.association.resumed = True
        self.tickets = False  # the client keeps the one it has: a session does not live longer by being resumed
        self.identity, self.credential = session.identity, session.credential
        common.master = session.secret
        # Under a ticket the echo of the session ID says that it was taken (RFC 5077 section 3.4).
        self._put_server_hello(self.hello.session_id)
        common.derive_keys(now)
        common.put_finished()
        common.start_reading()
        conversation.flush(now)
        self.state = State.FINISHED

    # The server's turns

    def _put_server_hello(self, session_id: bytes) -> None:
        core, hello, common = self.core, self.hello, self.common
        answers: Extensions = {}
        if EMPTY_RENEGOTIATION_INFO_SCSV in hello.suites or Extension.RENEGOTIATION_INFO in hello.extensions:
            answers[Extension.RENEGOTIATION_INFO] = b"\0"
        answers[Extension.EXTENDED_MASTER_SECRET] = b""
        offered_cid = hello.extensions.get(Extension.CONNECTION_ID)
        if offered_cid is not None and core.parameters.cid is not None:
            cid = core.new_cid(self.association)
            if cid is None:
                raise HandshakeError(Alert.INTERNAL_ERROR, "no connection ID is free")
            common.cid_in, common.cid_out = cid, extensions.decode_cid(offered_cid)
            answers[Extension.CONNECTION_ID] = extensions.encode_cid(cid)
        if self.tickets:
            answers[Extension.SESSION_TICKET] = b""
        if self.suite.exchange is Exchange.ECDHE_ECDSA and not self.association.resumed:
            if Extension.SERVER_CERTIFICATE_TYPE in hello.extensions:
                answers[Extension.SERVER_CERTIFICATE_TYPE] = bytes((self.server_type,))
            if Extension.CLIENT_CERTIFICATE_TYPE in hello.extensions and core.credentials.peer_types:
                answers[Extension.CLIENT_CERTIFICATE_TYPE] = bytes((self.client_type,))
        if self.suite.exchange.ephemeral and Extension.EC_POINT_FORMATS in hello.extensions:
            answers[Extension.EC_POINT_FORMATS] = b"\x01\x00"
        answer = ServerHello(common.server_random, self.suite.value, answers, session_id)
        self.conversation.put(HandshakeType.SERVER_HELLO, answer.encode())

    def _answer(self, now: float) -> None:
        """ServerHello to ServerHelloDone."""
        core, conversation, common, exchange = self.core, self.conversation, self.common, self.suite.exchange
        by_id = core.parameters.tickets > 0 and not self.tickets
        self.session_id = core.randomness(SESSION_ID_BYTES) if by_id else b""
        self._put_server_hello(self.session_id)
        own = core.credentials.own
        if exchange is Exchange.ECDHE_ECDSA:
            assert own is not None
            body = encode_certificate(self.server_type, own.certificates(self.server_type))
            conversation.put(HandshakeType.CERTIFICATE, body)
        if exchange.ephemeral:
            conversation.put(HandshakeType.SERVER_KEY_EXCHANGE, self._key_exchange().encode())
        requested = exchange is Exchange.ECDHE_ECDSA and bool(core.credentials.peer_types)
        if requested:
            conversation.put(HandshakeType.CERTIFICATE_REQUEST, encode_certificate_request(DEFAULT_SCHEMES))
        conversation.put(HandshakeType.SERVER_HELLO_DONE, b"")
        conversation.flush(now)
        self.state = State.CERTIFICATE if requested else State.KEY_EXCHANGE
        self.association.suite = common.suite.value

    def _key_exchange(self) -> ServerKeyExchange:
        group = GROUPS[self.group]
        self.private = group.generate(self.core.randomness)
        share = group.public(self.private)
        if self.suite.exchange.psk:
            return ServerKeyExchange(b"", self.group, share)
        own = self.core.credentials.own
        assert own is not None
        scheme = scheme_for(own.key, self.schemes)
        assert scheme is not None
        unsigned = ServerKeyExchange(None, self.group, share)
        signed = self.common.client_random + self.common.server_random + unsigned.parameters()
        return ServerKeyExchange(None, self.group, share, scheme.value, sign(own.key, scheme, signed))

    # What the client says

    def on_certificate(self, message: Message, now: float) -> State:
        """The client's key, if it has one; that it holds it is shown by CertificateVerify."""
        credentials = self.core.credentials
        certificates = decode_certificate(self.client_type, message.body)
        if certificates:
            wall = self.core.wall()
            self.peer_key, self.identity = judge(credentials, self.client_type, certificates, None, wall)
            self.credential = certificates[0] if self.client_type is CertificateType.RAW_PUBLIC_KEY else b""
        elif credentials.require_client:
            raise HandshakeError(Alert.HANDSHAKE_FAILURE, "a client without a certificate")
        return State.KEY_EXCHANGE

    def on_client_key_exchange(self, message: Message, now: float) -> State:
        """The client's share or identity: both ends have the same secret from here on."""
        exchange = self.suite.exchange
        found = decode_client_key_exchange(message.body, psk=exchange.psk, ephemeral=exchange.ephemeral)
        agreed = None
        if found.share is not None:
            assert self.private is not None
            agreed = GROUPS[self.group].agree(self.private, found.share)
        if found.identity is not None:
            psk = self._find_psk(found.identity)
            self.identity, self.credential = psk.peer, psk.identity
            premaster = premaster_psk(psk.key, agreed)
        else:
            assert agreed is not None
            premaster = agreed
        self.common.derive_master(premaster)
        self.common.derive_keys(now)
        self.common.start_reading()
        return State.FINISHED if self.peer_key is None else State.CERTIFICATE_VERIFY

    def _find_psk(self, identity: bytes) -> Psk:
        psks = self.core.credentials.psks
        psk = None if psks is None else psks.find(identity)
        if psk is None:
            raise HandshakeError(Alert.UNKNOWN_PSK_IDENTITY, "a PSK identity that we do not know")
        return psk

    def on_certificate_verify(self, message: Message, now: float) -> State:
        """The client's signature over all messages before."""
        assert self.peer_key is not None
        scheme, signature = decode_certificate_verify(message.body)
        transcript = self.conversation.transcript[: self.conversation.before]
        verify(self.peer_key, scheme, signature, bytes(transcript), any_curve=True)
        return State.FINISHED

    def on_finished(self, message: Message, now: float) -> State:
        """The client has the same keys and saw the same messages."""
        self.common.check_finished(message.body)
        association = self.association
        association.identity = self.identity
        if association.resumed:
            association.complete(now, keep_flight=False)
            return State.COMPLETE
        if self.tickets:
            self._put_ticket(now)
        elif self.session_id:
            self.core.server_sessions.put(self.session_id, self._session())
        self.common.put_finished()
        self.conversation.flush(now, awaiting=False)
        association.complete(now, keep_flight=True)
        return State.COMPLETE

    def _session(self) -> Session:
        wall = self.core.wall()
        expires = wall + self.core.parameters.ticket_lifetime
        return Session(DTLS_1_2, self.suite.value, self.common.master, self.identity, self.credential, wall, expires)

    def _put_ticket(self, now: float) -> None:
        ticket = self.core.ticket_keys.seal(self._session(), now)
        lifetime = int(self.core.parameters.ticket_lifetime)
        self.conversation.put(HandshakeType.NEW_SESSION_TICKET, encode_new_session_ticket(lifetime, ticket))

    TABLE: ClassVar[Table] = {
        (State.CERTIFICATE, HandshakeType.CERTIFICATE): Rule(on_certificate, (State.KEY_EXCHANGE,)),
        (State.KEY_EXCHANGE, HandshakeType.CLIENT_KEY_EXCHANGE): Rule(
            on_client_key_exchange, (State.CERTIFICATE_VERIFY, State.FINISHED)
        ),
        (State.CERTIFICATE_VERIFY, HandshakeType.CERTIFICATE_VERIFY): Rule(on_certificate_verify, (State.FINISHED,)),
        (State.FINISHED, HandshakeType.FINISHED): Rule(on_finished, (State.COMPLETE,)),
    }


def _list(hello: ClientHello, extension: Extension) -> tuple[int, ...]:
    value = hello.extensions.get(extension)
    return () if value is None else extensions.decode_list(value)

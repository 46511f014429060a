"""The server of DTLS 1.3, from the ClientHello that is answered with ServerHello (RFC 8446 section 2, RFC 9147 section
5.7). HelloRetryRequest has been sent before, by `front`, which kept nothing."""

from enum import Enum, auto
from typing import ClassVar

from vitalgate.dtls import extensions
from vitalgate.dtls.alerts import Alert, HandshakeError
from vitalgate.dtls.common13 import Common13
from vitalgate.dtls.conversation import Conversation, Rule, Table
from vitalgate.dtls.credentials import NOBODY, Identity
from vitalgate.dtls.extensions import CertificateType, Extension, Extensions, KeyShare
from vitalgate.dtls.groups import GROUPS
from vitalgate.dtls.handshaking import HandshakeType, Message
from vitalgate.dtls.hellos import RANDOM_BYTES, ClientHello, ServerHello
from vitalgate.dtls.judging import judge
from vitalgate.dtls.messages13 import (
    NewSessionTicket,
    decode_certificate,
    encode_certificate_request,
    encode_encrypted_extensions,
)
from vitalgate.dtls.post13 import Post13
from vitalgate.dtls.psk13 import PSK_DHE, PSK_ONLY, Offer, check_binder, modes
from vitalgate.dtls.reading13 import Reading13
from vitalgate.dtls.records import DTLS_1_3
from vitalgate.dtls.retry import Retry, choose_suite
from vitalgate.dtls.schedule import Schedule, resumption_psk
from vitalgate.dtls.sessions import Session
from vitalgate.dtls.signatures import DEFAULT_SCHEMES, PublicKey, scheme_for
from vitalgate.dtls.suites import SUITES


class State(Enum):
    """What the server waits for."""

    CERTIFICATE = auto()
    CERTIFICATE_VERIFY = auto()
    FINISHED = auto()
    COMPLETE = auto()


class Server13:
    """Made by `ServerStart` for a client that takes DTLS 1.3; answers its hello at once. ``retry``: what was agreed on
    with HelloRetryRequest."""

    def __init__(
        self, conversation: Conversation, hello: ClientHello, message: Message, retry: Retry | None, now: float
    ) -> None:
        self.conversation = conversation
        self.association = conversation.association
        self.core = self.association.core
        self.hello = hello
        if hello.cookie:
            raise HandshakeError(Alert.ILLEGAL_PARAMETER, "a cookie of DTLS 1.2")
        parameters = self.core.parameters
        suite = choose_suite(hello, parameters) if retry is None else retry.suite
        if suite.value not in hello.suites:
            raise HandshakeError(Alert.ILLEGAL_PARAMETER, "the second ClientHello without the suite of the first")
        before = b""
        if retry is not None:
            before = retry.transcript(message.sequence - 1)
            conversation.transcript[:0] = before
        self.identity: Identity = NOBODY
        self.credential = b""
        self.expires = self.core.wall() + parameters.ticket_lifetime
        self.peer_key: PublicKey | None = None
        self.server_type = self.client_type = CertificateType.X509
        self.modes = modes(hello)
        self.common = Common13(conversation, suite)
        offer, index = self._find_psk(suite.hash, before, message, now)
        share, agreed = self._agree(retry, psk=offer is not None)
        if offer is None:
            self._need_certificates()
        else:
            self.identity, self.credential = offer.peer, offer.credential
            self.association.resumed = not offer.external
        self.common.schedule = Schedule(suite, None if offer is None else offer.key)
        self.common.schedule.agreed(agreed)
        self.state: Enum = State.FINISHED
        conversation.role = self
        self._answer(offer, index, share, now)

    # What to agree on

    def _find_psk(self, hash_name: str, before: bytes, message: Message, now: float) -> tuple[Offer | None, int]:
        """The first key that the client offers and we know; that it holds it is checked here."""
        value = self.hello.extensions.get(Extension.PRE_SHARED_KEY)
        parameters = self.core.parameters
        usable = (PSK_DHE in self.modes and parameters.psk_dhe) or (PSK_ONLY in self.modes and parameters.psk_only)
        if value is None or not usable:
            return None, 0
        offered = extensions.decode_offered_psks(value)
        for index, each in enumerate(offered.identities):
            offer = self._known(each.identity, now)
            if offer is not None and offer.hash == hash_name:
                check_binder(offer, offered, index, before, message.with_tls_header())
                return offer, index
        if self.core.credentials.own is None:
            raise HandshakeError(Alert.UNKNOWN_PSK_IDENTITY, "no PSK identity that we know")
        return None, 0

    def _known(self, identity: bytes, now: float) -> Offer | None:
        credentials = self.core.credentials
        psk = None if credentials.psks is None else credentials.psks.find(identity)
        if psk is not None:
            return Offer(identity, psk.key, True, "sha256", psk.peer, identity)
        if not self.core.parameters.tickets:
            return None
        session = self.core.ticket_keys.open(identity, now)
        if session is None or session.version != DTLS_1_3 or not session.usable(credentials, self.core.wall()):
            return None
        self.expires = session.expires  # a session does not live longer by being resumed
        hash_name = SUITES[session.suite].hash
        return Offer(identity, session.secret, False, hash_name, session.identity, session.credential)

    def _agree(self, retry: Retry | None, *, psk: bool) -> tuple[KeyShare | None, bytes | None]:
        """Our share, and what it agrees on with the client's."""
        parameters = self.core.parameters
        if psk and not (PSK_DHE in self.modes and parameters.psk_dhe):
            return None, None
        value = self.hello.extensions.get(Extension.KEY_SHARE)
        shares = {} if value is None else extensions.decode_key_shares(value)
        wanted = (retry.group,) if retry is not None and retry.group else parameters.groups
        for number in wanted:
            if number in shares:
                group = GROUPS[number]
                private = group.generate(self.core.randomness)
                return KeyShare(number, group.public(private)), group.agree(private, shares[number])
        if psk and PSK_ONLY in self.modes and parameters.psk_only:
            return None, None
        raise HandshakeError(Alert.MISSING_EXTENSION, "no share that we could use")

    def _need_certificates(self) -> None:
        own, credentials = self.core.credentials.own, self.core.credentials
        value = self.hello.extensions.get(Extension.SIGNATURE_ALGORITHMS)
        if value is None:
            raise HandshakeError(Alert.MISSING_EXTENSION, "neither a key that we know nor signature_algorithms")
        self.schemes = extensions.decode_list(value)
        if own is None or scheme_for(own.key, self.schemes) is None:
            raise HandshakeError(Alert.HANDSHAKE_FAILURE, "no key of ours that the client could verify")
        server_type = self._choose_type(Extension.SERVER_CERTIFICATE_TYPE, own.types)
        client_type = self._choose_type(Extension.CLIENT_CERTIFICATE_TYPE, credentials.peer_types)
        if server_type is None or (client_type is None and credentials.require_client):
            raise HandshakeError(Alert.UNSUPPORTED_CERTIFICATE, "no form of key in common")
        self.server_type = server_type
        self.client_type = CertificateType.X509 if client_type is None else client_type

    def _choose_type(self, extension: Extension, ours: tuple[CertificateType, ...]) -> CertificateType | None:
        value = self.hello.extensions.get(extension)
        offered = (0,) if value is None else extensions.decode_list(value, prefix=1, size=1)
        return next((kind for kind in ours if kind in offered), None)

    # The server's turn

    def _answer(self, offer: Offer | None, index: int, share: KeyShare | None, now: float) -> None:
        core, conversation, common = self.core, self.conversation, self.common
        answers: Extensions = {Extension.SUPPORTED_VERSIONS: DTLS_1_3.to_bytes(2, "big")}
        if share is not None:
            answers[Extension.KEY_SHARE] = share.encode()
        if offer is not None:
            answers[Extension.PRE_SHARED_KEY] = index.to_bytes(2, "big")
        offered_cid = self.hello.extensions.get(Extension.CONNECTION_ID)
        if offered_cid is not None and core.parameters.cid is not None:
            cid = core.new_cid(self.association)
            if cid is None:
                raise HandshakeError(Alert.INTERNAL_ERROR, "no connection ID is free")
            common.cid_in, common.cid_out = cid, extensions.decode_cid(offered_cid)
            answers[Extension.CONNECTION_ID] = extensions.encode_cid(cid)
        hello = ServerHello(core.randomness(RANDOM_BYTES), common.suite.value, answers)
        conversation.put(HandshakeType.SERVER_HELLO, hello.encode())
        common.handshake_keys()
        more: Extensions = {}
        requested = offer is None and bool(core.credentials.peer_types)
        if offer is None:
            if Extension.SERVER_CERTIFICATE_TYPE in self.hello.extensions:
                more[Extension.SERVER_CERTIFICATE_TYPE] = bytes((self.server_type,))
            if requested and Extension.CLIENT_CERTIFICATE_TYPE in self.hello.extensions:
                more[Extension.CLIENT_CERTIFICATE_TYPE] = bytes((self.client_type,))
        conversation.put(HandshakeType.ENCRYPTED_EXTENSIONS, encode_encrypted_extensions(more), common.seal2)
        if requested:
            body = encode_certificate_request(DEFAULT_SCHEMES)
            conversation.put(HandshakeType.CERTIFICATE_REQUEST, body, common.seal2)
            self.state = State.CERTIFICATE
        if offer is None:
            common.put_certificate(core.credentials.own, self.server_type, self.schemes)
        common.put_finished()
        common.application_secrets()
        conversation.flush(now)
        common.application_seal()

    # What the client says

    def on_certificate(self, message: Message, now: float) -> State:
        """The client's key, if it has one; that it holds it is shown by CertificateVerify."""
        credentials = self.core.credentials
        certificates = decode_certificate(message.body)
        if not certificates:
            if credentials.require_client:
                raise HandshakeError(Alert.CERTIFICATE_REQUIRED, "a client without a certificate")
            return State.FINISHED
        self.peer_key, self.identity = judge(credentials, self.client_type, certificates, None, self.core.wall())
        self.credential = certificates[0] if self.client_type is CertificateType.RAW_PUBLIC_KEY else b""
        return State.CERTIFICATE_VERIFY

    def on_certificate_verify(self, message: Message, now: float) -> State:
        """The client's signature over all messages before."""
        assert self.peer_key is not None
        self.common.check_certificate_verify(self.peer_key, message.body)
        return State.FINISHED

    def on_finished(self, message: Message, now: float) -> State:
        """The client has the same keys and saw the same messages."""
        common, conversation, association = self.common, self.conversation, self.association
        common.check_finished(message.body)
        resumption = common.schedule.resumption(common.transcript_hash())
        common.application_open()
        association.identity = self.identity
        reading = association.reading
        assert isinstance(reading, Reading13)
        post = reading.after = Post13(
            association, conversation.reassembler, conversation.next_send, common.write_secret, common.read_secret,
            b"", self.credential,
        )  # fmt: skip
        association.complete(now, keep_flight=False)
        if self.modes:
            for number in range(self.core.parameters.tickets):
                post.send(HandshakeType.NEW_SESSION_TICKET, self._ticket(number, resumption, now), now)
        return State.COMPLETE

    def _ticket(self, number: int, resumption: bytes, now: float) -> bytes:
        core, suite = self.core, self.common.suite
        nonce = bytes((number,))
        age_add = int.from_bytes(core.randomness(4), "big")
        wall = core.wall()
        session = Session(
            DTLS_1_3, suite.value, resumption_psk(suite, resumption, nonce), self.identity, self.credential, wall,
            self.expires, age_add,
        )  # fmt: skip
        ticket = core.ticket_keys.seal(session, now)
        return NewSessionTicket(max(1, int(self.expires - wall)), age_add, nonce, ticket).encode()

    TABLE: ClassVar[Table] = {
        (State.CERTIFICATE, HandshakeType.CERTIFICATE): Rule(
            on_certificate, (State.CERTIFICATE_VERIFY, State.FINISHED)
        ),
        (State.CERTIFICATE_VERIFY, HandshakeType.CERTIFICATE_VERIFY): Rule(on_certificate_verify, (State.FINISHED,)),
        (State.FINISHED, HandshakeType.FINISHED): Rule(on_finished, (State.COMPLETE,)),
    }

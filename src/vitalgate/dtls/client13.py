"""The client of DTLS 1.3, from ServerHello on (RFC 8446 section 2, RFC 9147 section 5.7)."""

from collections.abc import Hashable
from enum import Enum, auto
from typing import ClassVar

from vitalgate.dtls import extensions
from vitalgate.dtls.alerts import Alert, HandshakeError
from vitalgate.dtls.common13 import Common13
from vitalgate.dtls.conversation import Conversation, Rule, Table
from vitalgate.dtls.credentials import NOBODY, Identity
from vitalgate.dtls.extensions import CertificateType, Extension
from vitalgate.dtls.groups import GROUPS, PrivateShare
from vitalgate.dtls.handshaking import HandshakeType, Message
from vitalgate.dtls.hellos import ClientHello, ServerHello
from vitalgate.dtls.judging import Target, judge
from vitalgate.dtls.messages13 import decode_certificate, decode_certificate_request, decode_encrypted_extensions
from vitalgate.dtls.post13 import Post13
from vitalgate.dtls.psk13 import Offer
from vitalgate.dtls.reading13 import Reading13
from vitalgate.dtls.records import DTLS_1_3
from vitalgate.dtls.schedule import Schedule
from vitalgate.dtls.signatures import PublicKey
from vitalgate.dtls.suites import SUITES
from vitalgate.dtls.wire import Reader


class State(Enum):
    """What the client waits for."""

    ENCRYPTED_EXTENSIONS = auto()
    REQUEST_OR_CERTIFICATE = auto()
    CERTIFICATE = auto()
    CERTIFICATE_VERIFY = auto()
    FINISHED = auto()
    COMPLETE = auto()


class Client13:
    """Made by `ClientStart` when the server has chosen DTLS 1.3; takes the conversation over."""

    def __init__(
        self,
        conversation: Conversation,
        hello: ClientHello,
        answer: ServerHello,
        shares: dict[int, PrivateShare],
        offers: tuple[Offer, ...],
        target: Target,
        session_key: Hashable,
        cid: bytes,
    ) -> None:
        self.conversation = conversation
        self.association = conversation.association
        self.core = self.association.core
        self.hello = hello
        self.target = target
        self.session_key = session_key
        suite = SUITES.get(answer.suite)
        if suite is None or answer.suite not in hello.suites or suite.version != DTLS_1_3:
            raise HandshakeError(Alert.ILLEGAL_PARAMETER, "a cipher suite that we did not offer")
        if answer.session_id:
            raise HandshakeError(Alert.ILLEGAL_PARAMETER, "a session ID in DTLS 1.3")
        extensions.check_answers(hello.extensions, answer.extensions)
        self.common = Common13(conversation, suite)
        self.offer = self._chosen(answer, offers, suite.hash)
        agreed = self._agree(answer, shares)
        self.common.schedule = Schedule(suite, None if self.offer is None else self.offer.key)
        self.common.schedule.agreed(agreed)
        cid_out = answer.extensions.get(Extension.CONNECTION_ID)
        if cid_out is not None:
            self.common.cid_in, self.common.cid_out = cid, extensions.decode_cid(cid_out)
        self.common.handshake_keys()
        self.server_type = self.client_type = CertificateType.X509
        self.requested: tuple[int, ...] | None = None
        self.peer_key: PublicKey | None = None
        self.identity: Identity = NOBODY
        self.credential = b""
        if self.offer is not None:
            self.identity, self.credential = self.offer.peer, self.offer.credential
            self.association.resumed = not self.offer.external
        self.state: Enum = State.ENCRYPTED_EXTENSIONS
        conversation.role = self

    def _chosen(self, answer: ServerHello, offers: tuple[Offer, ...], hash_name: str) -> Offer | None:
        value = answer.extensions.get(Extension.PRE_SHARED_KEY)
        if value is None:
            return None
        index = extensions.decode_number(value, 2)
        if index >= len(offers) or offers[index].hash != hash_name:
            raise HandshakeError(Alert.ILLEGAL_PARAMETER, "a pre-shared key that we did not offer")
        return offers[index]

    def _agree(self, answer: ServerHello, shares: dict[int, PrivateShare]) -> bytes | None:
        value = answer.extensions.get(Extension.KEY_SHARE)
        if value is None:
            if self.offer is None or not self.core.parameters.psk_only:
                raise HandshakeError(Alert.MISSING_EXTENSION, "a server without a share")
            return None
        reader = Reader(value)
        share = extensions.decode_key_share(reader)
        reader.end()
        private = shares.get(share.group)
        if private is None:
            raise HandshakeError(Alert.ILLEGAL_PARAMETER, "a share of a group that we sent none of")
        return GROUPS[share.group].agree(private, share.share)

    def on_encrypted_extensions(self, message: Message, now: float) -> State:
        """What else the server agrees to."""
        found = decode_encrypted_extensions(message.body)
        extensions.check_answers(self.hello.extensions, found)
        self.server_type = _type(found.get(Extension.SERVER_CERTIFICATE_TYPE))
        self.client_type = _type(found.get(Extension.CLIENT_CERTIFICATE_TYPE))
        return State.REQUEST_OR_CERTIFICATE if self.offer is None else State.FINISHED

    def on_certificate_request(self, message: Message, now: float) -> State:
        """The server wants to know us."""
        self.requested = decode_certificate_request(message.body)
        return State.CERTIFICATE

    def on_certificate(self, message: Message, now: float) -> State:
        """The server's key; that it holds it is shown by CertificateVerify."""
        certificates = decode_certificate(message.body)
        if not certificates:
            raise HandshakeError(Alert.DECODE_ERROR, "a server without a certificate")
        credentials, wall = self.core.credentials, self.core.wall()
        if self.server_type not in credentials.peer_types:
            raise HandshakeError(Alert.UNSUPPORTED_CERTIFICATE, "a certificate type that we did not offer")
        self.peer_key, self.identity = judge(credentials, self.server_type, certificates, self.target, wall)
        self.credential = certificates[0] if self.server_type is CertificateType.RAW_PUBLIC_KEY else b""
        return State.CERTIFICATE_VERIFY

    def on_certificate_verify(self, message: Message, now: float) -> State:
        """The server's signature over all messages before."""
        assert self.peer_key is not None
        self.common.check_certificate_verify(self.peer_key, message.body)
        return State.FINISHED

    def on_finished(self, message: Message, now: float) -> State:
        """The server has the same keys and saw the same messages; our turn, and done."""
        common, conversation, association = self.common, self.conversation, self.association
        common.check_finished(message.body)
        common.application_secrets()
        if self.requested is not None:
            common.put_certificate(self.core.credentials.own, self.client_type, self.requested)
        common.put_finished()
        resumption = common.schedule.resumption(common.transcript_hash())
        conversation.flush(now)
        common.application_seal()
        common.application_open()
        association.identity = self.identity
        reading = association.reading
        assert isinstance(reading, Reading13)
        reading.after = Post13(
            association, conversation.reassembler, conversation.next_send, common.write_secret, common.read_secret,
            resumption, self.credential, self.session_key,
        )  # fmt: skip
        association.complete(now, keep_flight=True, acknowledged=True)
        return State.COMPLETE

    TABLE: ClassVar[Table] = {
        (State.ENCRYPTED_EXTENSIONS, HandshakeType.ENCRYPTED_EXTENSIONS): Rule(
            on_encrypted_extensions, (State.REQUEST_OR_CERTIFICATE, State.FINISHED)
        ),
        (State.REQUEST_OR_CERTIFICATE, HandshakeType.CERTIFICATE_REQUEST): Rule(
            on_certificate_request, (State.CERTIFICATE,)
        ),
        (State.REQUEST_OR_CERTIFICATE, HandshakeType.CERTIFICATE): Rule(on_certificate, (State.CERTIFICATE_VERIFY,)),
        (State.CERTIFICATE, HandshakeType.CERTIFICATE): Rule(on_certificate, (State.CERTIFICATE_VERIFY,)),
        (State.CERTIFICATE_VERIFY, HandshakeType.CERTIFICATE_VERIFY): Rule(on_certificate_verify, (State.FINISHED,)),
        (State.FINISHED, HandshakeType.FINISHED): Rule(on_finished, (State.COMPLETE,)),
    }


def _type(value: bytes | None) -> CertificateType:
    if value is None:
        return CertificateType.X509
    try:
        return CertificateType(extensions.decode_number(value, 1))
    except ValueError as error:
        raise HandshakeError(Alert.UNSUPPORTED_CERTIFICATE, "a certificate type that we did not offer") from error

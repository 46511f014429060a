"""What client and server of DTLS 1.3 share: keys of the epochs, Finished, certificates."""

import hmac

from vitalgate.dtls.acks13 import Acks13
from vitalgate.dtls.alerts import Alert, HandshakeError
from vitalgate.dtls.conversation import Conversation
from vitalgate.dtls.credentials import OwnKey
from vitalgate.dtls.extensions import CertificateType
from vitalgate.dtls.handshaking import HandshakeType
from vitalgate.dtls.messages12 import decode_certificate_verify, encode_certificate_verify
from vitalgate.dtls.messages13 import CLIENT_SIGNS, SERVER_SIGNS, encode_certificate
from vitalgate.dtls.protection13 import Open13, Seal13
from vitalgate.dtls.reading13 import Reading13
from vitalgate.dtls.schedule import Schedule, digest, finished_mac, traffic_keys
from vitalgate.dtls.signatures import PublicKey, scheme_for, sign, verify
from vitalgate.dtls.suites import Suite

HANDSHAKE_EPOCH = 2
APPLICATION_EPOCH = 3


class Common13:
    """Secrets and keys of one handshake. ``cid_in`` is what the peer sends, ``cid_out`` what we send."""

    def __init__(self, conversation: Conversation, suite: Suite) -> None:
        self.conversation = conversation
        self.association = conversation.association
        self.core = conversation.association.core
        self.suite = suite
        self.schedule = Schedule(suite)
        self.cid_in = b""
        self.cid_out = b""
        self.ours = b""
        """Handshake traffic secret that we write with."""
        self.theirs = b""
        self.write_secret = b""
        self.read_secret = b""
        self.seal2: Seal13 | None = None
        self.association.suite = suite.value
        self.acks = Acks13(self.association)
        conversation.acknowledging = self.acks

    def transcript_hash(self, end: int | None = None) -> bytes:
        """The hash of the handshake messages so far, or of their first ``end`` bytes."""
        return digest(self.suite.hash, bytes(self.conversation.transcript[:end]))

    def handshake_keys(self) -> None:
        """After ServerHello: epoch 2, both ways."""
        so_far = self.transcript_hash()
        client = self.schedule.handshake_traffic("c", so_far)
        server = self.schedule.handshake_traffic("s", so_far)
        self.ours, self.theirs = (client, server) if self.association.client else (server, client)
        self.seal2 = self._seal(self.ours, HANDSHAKE_EPOCH)
        reading = Reading13(self.association, self.cid_in)
        reading.add(self._open(self.theirs, HANDSHAKE_EPOCH))
        self.association.reading = reading
        self.association.seal = self.seal2

    def application_secrets(self) -> None:
        """After the server's Finished: the secrets of epoch 3."""
        so_far = self.transcript_hash()
        client = self.schedule.application_traffic("c", so_far)
        server = self.schedule.application_traffic("s", so_far)
        self.write_secret, self.read_secret = (client, server) if self.association.client else (server, client)

    def application_seal(self) -> None:
        """Write with epoch 3 from now on."""
        self.association.seal = self._seal(self.write_secret, APPLICATION_EPOCH)

    def application_open(self) -> None:
        """Be ready to read epoch 3."""
        reading = self.association.reading
        assert isinstance(reading, Reading13)
        reading.add(self._open(self.read_secret, APPLICATION_EPOCH))

    def _seal(self, secret: bytes, epoch: int) -> Seal13:
        parameters = self.core.parameters
        keys = traffic_keys(self.suite, secret)
        return Seal13(self.suite, keys, epoch, self.cid_out, pad=parameters.pad, short=parameters.short_numbers)

    def _open(self, secret: bytes, epoch: int) -> Open13:
        return Open13(self.suite, traffic_keys(self.suite, secret), epoch, window=self.core.parameters.window)

    # Messages of both roles

    def put_certificate(self, own: OwnKey | None, kind: CertificateType, schemes: tuple[int, ...]) -> bool:
        """Add our Certificate and, where we have one that serves, CertificateVerify; whether we had."""
        scheme = None if own is None or kind not in own.types else scheme_for(own.key, schemes)
        certificates = () if own is None or scheme is None else own.certificates(kind)
        self.conversation.put(HandshakeType.CERTIFICATE, encode_certificate(certificates), self.seal2)
        if own is None or scheme is None:
            return False
        context = CLIENT_SIGNS if self.association.client else SERVER_SIGNS
        signature = sign(own.key, scheme, context + self.transcript_hash())
        body = encode_certificate_verify(scheme.value, signature)
        self.conversation.put(HandshakeType.CERTIFICATE_VERIFY, body, self.seal2)
        return True

    def check_certificate_verify(self, key: PublicKey, body: bytes) -> None:
        """The peer holds the key that it showed. Raises `HandshakeError`."""
        scheme, signature = decode_certificate_verify(body)
        context = SERVER_SIGNS if self.association.client else CLIENT_SIGNS
        verify(key, scheme, signature, context + self.transcript_hash(self.conversation.before))

    def put_finished(self) -> None:
        """Add our Finished."""
        mac = finished_mac(self.suite.hash, self.ours, self.transcript_hash())
        self.conversation.put(HandshakeType.FINISHED, mac, self.seal2)

    def check_finished(self, body: bytes) -> None:
        """The peer's Finished, which covers all before it. Raises `HandshakeError`."""
        expected = finished_mac(self.suite.hash, self.theirs, self.transcript_hash(self.conversation.before))
        if not hmac.compare_digest(body, expected):
            raise HandshakeError(Alert.DECRYPT_ERROR, "a Finished that does not fit the handshake")

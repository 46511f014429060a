"""What client and server of DTLS 1.2 share: from the premaster secret to Finished."""

import hashlib
import hmac

from vitalgate.dtls.alerts import Alert, HandshakeError
from vitalgate.dtls.conversation import Conversation
from vitalgate.dtls.handshaking import HandshakeType
from vitalgate.dtls.prf import extended_master_secret, finished, key_block
from vitalgate.dtls.protection12 import Open12, Seal12
from vitalgate.dtls.reading12 import Reading12
from vitalgate.dtls.suites import Suite


class Common12:
    """Randoms, master secret and keys of one handshake. ``cid_in`` is what the peer sends, ``cid_out`` what we send."""

    def __init__(self, conversation: Conversation, suite: Suite, client_random: bytes, server_random: bytes) -> None:
        self.conversation = conversation
        self.association = conversation.association
        self.core = conversation.association.core
        self.suite = suite
        self.client_random = client_random
        self.server_random = server_random
        self.master = b""
        self.cid_in = b""
        self.cid_out = b""
        self._new_seal: Seal12 | None = None
        self._new_open: Open12 | None = None
        self.association.suite = suite.value

    def transcript_hash(self, end: int | None = None) -> bytes:
        """The hash of the handshake messages so far, or of their first ``end`` bytes."""
        return hashlib.new(self.suite.hash, self.conversation.transcript[:end]).digest()

    def derive_master(self, premaster: bytes) -> None:
        """The extended master secret, over everything up to ClientKeyExchange (RFC 7627 section 4)."""
        self.master = extended_master_secret(self.suite, premaster, self.transcript_hash())

    def derive_keys(self, now: float) -> None:
        """Make the keys, and be ready to read with them."""
        core, association = self.core, self.association
        keys = key_block(self.suite, self.master, self.client_random, self.server_random)
        client = (keys.client_key, keys.client_salt)
        server = (keys.server_key, keys.server_salt)
        ours, theirs = (client, server) if association.client else (server, client)
        self._new_seal = Seal12(self.suite, *ours, self.cid_out, pad=core.parameters.pad)
        self._new_open = Open12(self.suite, *theirs, self.cid_in, window=core.parameters.window)

    def start_reading(self) -> None:
        """Read the peer's protected records from now on."""
        assert self._new_open is not None
        self.association.reading = Reading12(self.association, self._new_open, self.cid_in)

    def put_finished(self) -> None:
        """Add ChangeCipherSpec and Finished to the flight; what follows is written with the new keys."""
        association = self.association
        assert self._new_seal is not None
        self.conversation.put_change_cipher_spec(association.seal)
        association.seal = self._new_seal
        data = finished(self.suite, self.master, "client" if association.client else "server", self.transcript_hash())
        self.conversation.put(HandshakeType.FINISHED, data)

    def check_finished(self, body: bytes) -> None:
        """The peer's Finished, which covers all before it. Raises `HandshakeError`."""
        sender = "server" if self.association.client else "client"
        expected = finished(self.suite, self.master, sender, self.transcript_hash(self.conversation.before))
        if not hmac.compare_digest(body, expected):
            raise HandshakeError(Alert.DECRYPT_ERROR, "a Finished that does not fit the handshake")

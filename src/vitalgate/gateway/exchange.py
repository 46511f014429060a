"""The gateway's side of the enrolment and rekey exchanges, bytes in and bytes out (docs/enrolment.md).

::

    exchange = begin_enrolment(identity, code)            # or begin_rekey(identity, enrolment)
    send(exchange.hello);  confirm = exchange.confirm(offer)
    send(confirm);         established = exchange.finish(done)

Nothing is kept that a crash could leave half done: only `Established` is worth storing, and an exchange that was cut
short is begun again.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from vitalgate.engine import Randomness
from vitalgate.gateway import handshake
from vitalgate.gateway.code import EnrolmentCode
from vitalgate.gateway.handshake import HandshakeError, Schedule
from vitalgate.gateway.identity import IdentityKey, thumbprint, verify
from vitalgate.oscore.context import Parameters


@dataclass(frozen=True, slots=True)
class GatewayEnrolment:
    """What an enrolled gateway keeps beside its identity key: its name, the cloud's pinned public key (33 bytes), the
    key under which its rekey messages are MACed (32 bytes), and when it was enrolled (wall time)."""

    gateway: str
    cloud: bytes
    rekey_key: bytes = field(repr=False)
    enrolled_at: float


@dataclass(frozen=True, slots=True)
class Established:
    """A finished exchange. ``exchange``: TH2, 32 bytes, its name. ``keys``: the new OSCORE context, gateway's side.
    ``cloud``: the cloud's public key, which differs from the pinned one after a proven succession.
    ``rekey_key``: set by an enrolment, empty after a rekey. ``identity``: thumbprint of the key that now counts."""

    gateway: str
    exchange: bytes
    keys: Parameters
    cloud: bytes
    identity: bytes
    rekey_key: bytes = field(default=b"", repr=False)


class GatewayExchange:
    """One run. Made by `begin_enrolment` and `begin_rekey`; ``hello`` is message 1, the same bytes at every sending."""

    __slots__ = (
        "_accepts_cloud",
        "_answer",
        "_ephemeral",
        "_first",
        "_identity",
        "_shared",
        "_thumbprint",
        "hello",
        "kind",
    )

    def __init__(
        self,
        kind: int,
        hello: bytes,
        identity: IdentityKey,
        ephemeral: X25519PrivateKey,
        shared: bytes,
        accepts_cloud: Callable[[handshake.Offer], bool],
        final_thumbprint: bytes,
    ) -> None:
        self.kind: Final = kind
        self.hello: Final = hello
        self._identity = identity
        self._ephemeral = ephemeral
        self._shared = shared
        self._accepts_cloud = accepts_cloud
        self._first = handshake.first_transcript(hello)
        self._thumbprint = final_thumbprint
        self._answer: tuple[handshake.Offer, Schedule] | None = None

    def confirm(self, offer: bytes) -> bytes:
        """Check message 2 and make message 3. Raises `HandshakeError`, which leaves the exchange as it was."""
        message = handshake.decode_offer(offer)
        if not self._accepts_cloud(message):
            raise HandshakeError("the answer comes from another cloud than this gateway is enrolled with")
        exchange = handshake.second_transcript(self._first, message.body, message.signature)
        secret = handshake.agree(self._ephemeral, message.ephemeral)
        schedule = Schedule.derive(exchange, secret, self._shared)
        if not handshake.mac_holds(schedule.offer_mac(message.ticket), message.mac):
            raise HandshakeError("the answer was not made by a cloud that knows the secret of this exchange")
        if not verify(message.identity, message.signature, handshake.offer_signed(self._first, message.body)):
            raise HandshakeError("the cloud did not prove its identity key")
        self._answer = message, schedule
        body = handshake.encode(handshake.VERSION, handshake.CONFIRM, message.ticket)
        signature = self._identity.sign(handshake.confirm_signed(exchange, message.ticket))
        return handshake.encode(body, signature, schedule.confirm_mac(body, signature))

    def finish(self, done: bytes) -> Established:
        """Check message 4. Raises `HandshakeError`, which leaves the exchange as it was."""
        message = handshake.decode_done(done)
        if self._answer is None:
            raise HandshakeError("the last message came before the second")
        offer, schedule = self._answer
        if not handshake.mac_holds(schedule.done_mac(message.body), message.mac) or message.gateway != offer.gateway:
            raise HandshakeError("the last message was not made by the cloud of this exchange")
        return Established(
            gateway=offer.gateway,
            exchange=schedule.exchange,
            keys=schedule.session(offer.kid),
            cloud=offer.identity,
            identity=self._thumbprint,
            rekey_key=schedule.rekey_key() if self.kind == handshake.ENROL else b"",
        )

    def __repr__(self) -> str:
        return f"GatewayExchange(kind={self.kind})"


def begin_enrolment(identity: IdentityKey, code: EnrolmentCode, randomness: Randomness = os.urandom) -> GatewayExchange:
    """An enrolment of ``identity`` under ``code``. Whichever cloud proves that it knows the code is accepted."""
    ephemeral = X25519PrivateKey.from_private_bytes(randomness(handshake.EPHEMERAL_BYTES))
    body = handshake.encode(
        handshake.VERSION,
        handshake.ENROL,
        code.code_id,
        identity.public,
        ephemeral.public_key().public_bytes_raw(),
        randomness(handshake.NONCE_BYTES),
    )
    shared = code.key()
    return GatewayExchange(
        handshake.ENROL,
        _hello(identity, shared, body),
        identity,
        ephemeral,
        shared,
        lambda offer: not offer.succession,
        identity.thumbprint,
    )


def begin_rekey(
    identity: IdentityKey,
    enrolment: GatewayEnrolment,
    randomness: Randomness = os.urandom,
    next_identity: IdentityKey | None = None,
) -> GatewayExchange:
    """Fresh keys for an enrolled gateway; with ``next_identity`` that key takes the place of ``identity``.

    Accepted is the pinned cloud key, or one whose succession the pinned key has signed.
    """
    ephemeral = X25519PrivateKey.from_private_bytes(randomness(handshake.EPHEMERAL_BYTES))
    public = ephemeral.public_key().public_bytes_raw()
    nonce = randomness(handshake.NONCE_BYTES)
    cloud = thumbprint(enrolment.cloud)
    proof = b""
    if next_identity is not None:
        proof = next_identity.sign(handshake.next_identity_signed(identity.thumbprint, cloud, public, nonce))
    body = handshake.encode(
        handshake.VERSION,
        handshake.REKEY,
        identity.thumbprint,
        cloud,
        public,
        nonce,
        next_identity.public if next_identity else b"",
        proof,
    )

    def accepts(offer: handshake.Offer) -> bool:
        if offer.gateway != enrolment.gateway:
            return False
        if offer.identity == enrolment.cloud:
            return not offer.succession
        signed = handshake.succession_signed(enrolment.cloud, offer.identity)
        return verify(enrolment.cloud, offer.succession, signed)

    return GatewayExchange(
        handshake.REKEY,
        _hello(identity, enrolment.rekey_key, body),
        identity,
        ephemeral,
        enrolment.rekey_key,
        accepts,
        (next_identity or identity).thumbprint,
    )


def _hello(identity: IdentityKey, shared: bytes, body: bytes) -> bytes:
    signature = identity.sign(handshake.parts(handshake.SIGN_HELLO, body))
    return handshake.encode(body, signature, handshake.hello_mac(shared, body, signature))

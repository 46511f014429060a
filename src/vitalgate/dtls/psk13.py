"""Pre-shared keys in DTLS 1.3: what a client offers, and the binders that show that it holds them (RFC 8446 section
4.2.11)."""

import hmac
from dataclasses import dataclass, field, replace

from vitalgate.dtls import extensions
from vitalgate.dtls.alerts import Alert, HandshakeError
from vitalgate.dtls.credentials import Identity
from vitalgate.dtls.extensions import Extension, OfferedPsks, PskIdentity
from vitalgate.dtls.handshaking import HandshakeType, Message
from vitalgate.dtls.hellos import ClientHello
from vitalgate.dtls.schedule import Schedule, digest
from vitalgate.dtls.suites import SUITES, Suite

PSK_ONLY = 0
PSK_DHE = 1
"""Values of psk_key_exchange_modes (section 4.2.9)."""
_BY_HASH: dict[str, Suite] = {"sha256": SUITES[0x1301], "sha384": SUITES[0x1302]}


@dataclass(frozen=True, slots=True)
class Offer:
    """One key that a client offers. ``hash``: the hash that it goes with; ``credential``: what the peer is known by
    when the session that follows is resumed."""

    identity: bytes
    key: bytes = field(repr=False)
    external: bool
    hash: str
    peer: Identity
    credential: bytes
    age: int = 0

    def binder(self, transcript: bytes) -> bytes:
        """The binder over a transcript that ends before the binders."""
        schedule = Schedule(_BY_HASH[self.hash], self.key)
        return schedule.binder(external=self.external, transcript_hash=digest(self.hash, transcript))


def with_binders(hello: ClientHello, offers: tuple[Offer, ...], before: bytes) -> ClientHello:
    """``hello`` with pre_shared_key as its last extension; ``before``: the transcript before it."""
    if not offers:
        return hello
    blank = OfferedPsks(
        tuple(PskIdentity(offer.identity, offer.age) for offer in offers),
        tuple(bytes(_BY_HASH[offer.hash].hash_bytes) for offer in offers),
    )
    hello = replace(hello, extensions={**hello.extensions, Extension.PRE_SHARED_KEY: blank.encode()})
    whole = Message(HandshakeType.CLIENT_HELLO, 0, hello.encode()).with_tls_header()
    covered = before + whole[: -len(blank.encode_binders())]
    bound = replace(blank, binders=tuple(offer.binder(covered) for offer in offers))
    return replace(hello, extensions={**hello.extensions, Extension.PRE_SHARED_KEY: bound.encode()})


def check_binder(offer: Offer, offered: OfferedPsks, index: int, before: bytes, hello: bytes) -> None:
    """The client holds the key that it offers; ``hello`` is its ClientHello with the header of TLS. Raises
    `HandshakeError`."""
    covered = before + hello[: -len(offered.encode_binders())]
    if not hmac.compare_digest(offered.binders[index], offer.binder(covered)):
        raise HandshakeError(Alert.DECRYPT_ERROR, "a binder that does not fit: the keys are not the same")


def modes(hello: ClientHello) -> tuple[int, ...]:
    """psk_key_exchange_modes; none where the client says nothing. Raises `HandshakeError`."""
    value = hello.extensions.get(Extension.PSK_KEY_EXCHANGE_MODES)
    if value is None:
        if Extension.PRE_SHARED_KEY in hello.extensions:
            raise HandshakeError(Alert.MISSING_EXTENSION, "pre-shared keys without a mode")
        return ()
    return extensions.decode_list(value, prefix=1, size=1)

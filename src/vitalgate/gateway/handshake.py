"""Messages, transcripts and keys of the enrolment and rekey exchanges (docs/enrolment.md), as pure functions.

Four messages, the same for both exchanges: *hello* (gateway to cloud), *offer*, *confirm*, *done*. Each is a CBOR array
(RFC 8949) in deterministic encoding whose layout is a row of fields below. The decoders read exactly these layouts and
nothing else of CBOR: what stands on an unprotected path gets no tags, maps, floats or nesting to play with.
A decoder returns a message or raises `HandshakeError`.

Every signature and MAC is made over length-prefixed parts headed by a label of its own: none can stand for another.
"""

import hashlib
import hmac
from dataclasses import dataclass, field
from typing import Final

import cbor2
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from vitalgate.gateway.code import CODE_ID_BYTES
from vitalgate.gateway.identity import PUBLIC_BYTES, SIGNATURE_BYTES, THUMBPRINT_BYTES
from vitalgate.oscore.context import Parameters

VERSION: Final = 1
ENROL, REKEY, OFFER, CONFIRM, DONE = 1, 2, 3, 4, 5

NONCE_BYTES: Final = 16
EPHEMERAL_BYTES: Final = 32
MAC_BYTES: Final = 16
KID_BYTES: Final = 4
MAX_KID_BYTES: Final = 7  # a 13-byte AEAD nonce leaves 7 bytes for the Sender ID (RFC 8613 section 3.3)
MAX_GATEWAY_ID: Final = 32
MAX_TICKET_BYTES: Final = 280
MAX_MESSAGE_BYTES: Final = 640


class HandshakeError(ValueError):
    """Bytes that are no message of this protocol, or a message whose proof does not hold. The text names no secret."""


# --- layouts ------------------------------------------------------------------------------------------------------

UINT, BYTES, TEXT = 0, 2, 3  # CBOR major types (RFC 8949 section 3.1)


@dataclass(frozen=True, slots=True)
class Field:
    """One array element: its name, CBOR major type, and the least and greatest value (UINT) or length in bytes."""

    name: str
    major: int
    least: int
    most: int


def _exactly(name: str, length: int) -> Field:
    return Field(name, BYTES, length, length)


_HEAD: Final = (Field("version", UINT, VERSION, VERSION), Field("kind", UINT, ENROL, DONE))
_SIGNED: Final = (
    Field("body", BYTES, 1, MAX_MESSAGE_BYTES),
    _exactly("signature", SIGNATURE_BYTES),
    _exactly("mac", MAC_BYTES),
)

HELLO_LAYOUT: Final = _SIGNED
ENROL_BODY: Final = (
    *_HEAD,
    _exactly("code_id", CODE_ID_BYTES),
    _exactly("identity", PUBLIC_BYTES),
    _exactly("ephemeral", EPHEMERAL_BYTES),
    _exactly("nonce", NONCE_BYTES),
)
REKEY_BODY: Final = (
    *_HEAD,
    _exactly("identity", THUMBPRINT_BYTES),
    _exactly("cloud", THUMBPRINT_BYTES),
    _exactly("ephemeral", EPHEMERAL_BYTES),
    _exactly("nonce", NONCE_BYTES),
    Field("next_identity", BYTES, 0, PUBLIC_BYTES),
    Field("next_signature", BYTES, 0, SIGNATURE_BYTES),
)
OFFER_LAYOUT: Final = (*_SIGNED, Field("ticket", BYTES, 1, MAX_TICKET_BYTES))
OFFER_BODY: Final = (
    *_HEAD,
    _exactly("identity", PUBLIC_BYTES),
    _exactly("ephemeral", EPHEMERAL_BYTES),
    _exactly("nonce", NONCE_BYTES),
    Field("gateway", TEXT, 1, MAX_GATEWAY_ID),
    Field("kid", BYTES, 1, MAX_KID_BYTES),
    Field("succession", BYTES, 0, SIGNATURE_BYTES),
)
CONFIRM_LAYOUT: Final = _SIGNED
CONFIRM_BODY: Final = (*_HEAD, Field("ticket", BYTES, 1, MAX_TICKET_BYTES))
DONE_LAYOUT: Final = (Field("body", BYTES, 1, MAX_MESSAGE_BYTES), _exactly("mac", MAC_BYTES))
DONE_BODY: Final = (*_HEAD, Field("gateway", TEXT, 1, MAX_GATEWAY_ID))

_ARGUMENT_BYTES: Final = {24: (1, 24), 25: (2, 0x100)}  # additional information: (bytes that follow, least value)


def _head(data: bytes, at: int) -> tuple[int, int, int]:
    """(major type, argument, next position) of the CBOR head at ``at``; only the shortest form, up to 16 bits."""
    if at >= len(data):
        raise HandshakeError("message ends early")
    major, argument = data[at] >> 5, data[at] & 31
    at += 1
    if argument >= 24:
        if argument not in _ARGUMENT_BYTES:
            raise HandshakeError("an element of this length or kind has no place here")
        size, least = _ARGUMENT_BYTES[argument]
        argument = int.from_bytes(data[at : at + size], "big")
        if len(data) < at + size or argument < least:
            raise HandshakeError("message ends early or is not in shortest form")
        at += size
    return major, argument, at


def read_array(layout: tuple[Field, ...], data: bytes) -> list[bytes]:
    """The elements of the CBOR array ``data`` as bytes (a UINT as its big-endian value of 4 bytes, TEXT as UTF-8).

    Raises `HandshakeError` unless ``data`` is exactly one array of ``layout`` in deterministic encoding.
    """
    if len(data) > MAX_MESSAGE_BYTES:
        raise HandshakeError("message too long")
    major, count, at = _head(data, 0)
    if major != 4 or count != len(layout):
        raise HandshakeError(f"not an array of {len(layout)} elements")
    elements: list[bytes] = []
    for row in layout:
        major, argument, at = _head(data, at)
        if major != row.major or not row.least <= argument <= row.most:
            raise HandshakeError(f"field {row.name!r} has the wrong kind, length or value")
        if major == UINT:
            elements.append(argument.to_bytes(4, "big"))
            continue
        value = data[at : at + argument]
        if len(value) < argument:
            raise HandshakeError("message ends early")
        elements.append(value)
        at += argument
    if at != len(data):
        raise HandshakeError("bytes after the end of the message")
    return elements


def _body(layout: tuple[Field, ...], kind: int, data: bytes) -> list[bytes]:
    """The elements of a body after version and kind."""
    _, found, *rest = read_array(layout, data)
    if int.from_bytes(found, "big") != kind:
        raise HandshakeError("a message of another kind")
    return rest


def gateway_id_ok(text: str) -> bool:
    """Whether ``text`` may name a gateway: 1 to 32 of a-z, 0-9, '-', '.', '_', beginning with a letter or digit."""
    return (
        0 < len(text) <= MAX_GATEWAY_ID
        and text[0].isalnum()
        and all(symbol in "abcdefghijklmnopqrstuvwxyz0123456789-._" for symbol in text)
    )


def _gateway_id(data: bytes) -> str:
    text = data.decode("ascii", "replace")
    if not gateway_id_ok(text):
        raise HandshakeError("not a gateway name")
    return text


# --- messages -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Hello:
    """Message 1. ``identity`` is the public key (33 bytes) when enrolling, its thumbprint (16) when rekeying;
    ``code_id`` is empty when rekeying, ``cloud`` (thumbprint of the pinned key) empty when enrolling.
    ``next_identity`` and ``next_signature`` are empty unless the gateway rotates its identity key."""

    kind: int
    raw: bytes
    body: bytes
    signature: bytes
    mac: bytes
    identity: bytes
    ephemeral: bytes
    nonce: bytes
    code_id: bytes = b""
    cloud: bytes = b""
    next_identity: bytes = b""
    next_signature: bytes = b""


@dataclass(frozen=True, slots=True)
class Offer:
    """Message 2. ``succession`` is empty, or the pinned key's signature that ``identity`` succeeds it."""

    body: bytes
    signature: bytes
    mac: bytes
    ticket: bytes
    identity: bytes
    ephemeral: bytes
    nonce: bytes
    gateway: str
    kid: bytes
    succession: bytes


@dataclass(frozen=True, slots=True)
class Confirm:
    """Message 3. ``ticket`` is the cloud's own sealed memory of the exchange, brought back."""

    body: bytes
    signature: bytes
    mac: bytes
    ticket: bytes


@dataclass(frozen=True, slots=True)
class Done:
    """Message 4: the cloud has put the new keys into service for ``gateway``."""

    body: bytes
    mac: bytes
    gateway: str


def decode_hello(kind: int, data: bytes) -> Hello:
    """Read message 1 of kind `ENROL` or `REKEY`. Raises `HandshakeError`."""
    body, signature, mac = read_array(HELLO_LAYOUT, data)
    if kind == ENROL:
        code_id, identity, ephemeral, nonce = _body(ENROL_BODY, ENROL, body)
        return Hello(ENROL, data, body, signature, mac, identity, ephemeral, nonce, code_id=code_id)
    identity, cloud, ephemeral, nonce, next_identity, next_signature = _body(REKEY_BODY, REKEY, body)
    if (len(next_identity), len(next_signature)) not in ((0, 0), (PUBLIC_BYTES, SIGNATURE_BYTES)):
        raise HandshakeError("a next identity comes with its signature, and neither without the other")
    return Hello(
        REKEY, data, body, signature, mac, identity, ephemeral, nonce,
        cloud=cloud, next_identity=next_identity, next_signature=next_signature,
    )  # fmt: skip


def decode_offer(data: bytes) -> Offer:
    """Read message 2. Raises `HandshakeError`."""
    body, signature, mac, ticket = read_array(OFFER_LAYOUT, data)
    identity, ephemeral, nonce, gateway, kid, succession = _body(OFFER_BODY, OFFER, body)
    if len(succession) not in (0, SIGNATURE_BYTES):
        raise HandshakeError("a succession is a signature or nothing")
    return Offer(body, signature, mac, ticket, identity, ephemeral, nonce, _gateway_id(gateway), kid, succession)


def decode_confirm(data: bytes) -> Confirm:
    """Read message 3. Raises `HandshakeError`."""
    body, signature, mac = read_array(CONFIRM_LAYOUT, data)
    (ticket,) = _body(CONFIRM_BODY, CONFIRM, body)
    return Confirm(body, signature, mac, ticket)


def decode_done(data: bytes) -> Done:
    """Read message 4. Raises `HandshakeError`."""
    body, mac = read_array(DONE_LAYOUT, data)
    (gateway,) = _body(DONE_BODY, DONE, body)
    return Done(body, mac, _gateway_id(gateway))


def kind_of(data: bytes) -> int:
    """The kind that a signed message claims (messages 1 and 3 go to the same resource), 0 if none can be seen."""
    try:
        body, _, _ = read_array(_SIGNED, data)
        _, _, at = _head(body, 0)
        _, _, at = _head(body, at)
        major, kind, _ = _head(body, at)
    except HandshakeError:
        return 0
    return kind if major == UINT else 0


def encode(*elements: int | bytes | str) -> bytes:
    """A CBOR array of ``elements`` in deterministic encoding."""
    return cbor2.dumps(list(elements), canonical=True)


# --- transcripts and keys -----------------------------------------------------------------------------------------

SIGN_HELLO: Final = b"vitalgate 1 hello signature"
SIGN_NEXT: Final = b"vitalgate 1 next identity signature"
SIGN_OFFER: Final = b"vitalgate 1 offer signature"
SIGN_CONFIRM: Final = b"vitalgate 1 confirm signature"
SIGN_SUCCESSION: Final = b"vitalgate 1 cloud key succession"


def parts(*items: bytes) -> bytes:
    """``items`` joined with a 4-byte length before each: no two different lists give the same bytes."""
    return b"".join(len(item).to_bytes(4, "big") + item for item in items)


def first_transcript(hello: bytes) -> bytes:
    """TH1, 32 bytes: the hash of the whole of message 1."""
    return hashlib.sha256(parts(b"vitalgate 1 transcript 1", hello)).digest()


def second_transcript(first: bytes, offer_body: bytes, offer_signature: bytes) -> bytes:
    """TH2, 32 bytes: the hash of message 1 and of what the cloud signed and its signature. It names the exchange."""
    return hashlib.sha256(parts(b"vitalgate 1 transcript 2", first, offer_body, offer_signature)).digest()


def mac(key: bytes, label: bytes, *items: bytes) -> bytes:
    """HMAC-SHA-256 over the labelled items, cut to 16 bytes."""
    return hmac.digest(key, parts(b"vitalgate 1 " + label, *items), "sha256")[:MAC_BYTES]


def mac_holds(expected: bytes, found: bytes) -> bool:
    """Compare two MACs in constant time."""
    return hmac.compare_digest(expected, found)


def _expand(secret: bytes, label: bytes, length: int) -> bytes:
    return HKDFExpand(hashes.SHA256(), length, b"vitalgate 1 " + label).derive(secret)


def hello_mac(shared: bytes, body: bytes, signature: bytes) -> bytes:
    """The MAC of message 1 under ``shared``: the code key when enrolling, the rekey key when rekeying."""
    return mac(_expand(shared, b"hello key", 32), b"hello", body, signature)


def agree(private: X25519PrivateKey, peer: bytes) -> bytes:
    """The X25519 secret (RFC 7748), 32 bytes. Raises `HandshakeError` for a point that gives the all-zero secret."""
    try:
        return private.exchange(X25519PublicKey.from_public_bytes(peer))
    except ValueError as error:
        raise HandshakeError("the ephemeral key contributes nothing") from error


CLOUD_SENDER_ID: Final = b""  # responses name no kid, so the cloud's may be the empty one


@dataclass(frozen=True, slots=True)
class Schedule:
    """Everything an exchange derives: PRK = HKDF-Extract(salt = TH2, X25519 secret || shared key)."""

    exchange: bytes
    prk: bytes = field(repr=False)

    @classmethod
    def derive(cls, exchange: bytes, secret: bytes, shared: bytes) -> "Schedule":
        """``exchange``: TH2. ``secret``: of X25519. ``shared``: code key or rekey key. 32 bytes each."""
        return cls(exchange, hmac.digest(exchange, secret + shared, "sha256"))

    def offer_mac(self, ticket: bytes) -> bytes:
        """The MAC of message 2: the cloud knows the shared key and the ephemeral secret, and stands by its ticket."""
        return mac(_expand(self.prk, b"offer key", 32), b"offer", self.exchange, ticket)

    def confirm_mac(self, body: bytes, signature: bytes) -> bytes:
        """The MAC of message 3: the gateway has derived the keys."""
        return mac(_expand(self.prk, b"confirm key", 32), b"confirm", self.exchange, body, signature)

    def done_mac(self, body: bytes) -> bytes:
        """The MAC of message 4: the cloud has put them into service."""
        return mac(_expand(self.prk, b"done key", 32), b"done", self.exchange, body)

    def rekey_key(self) -> bytes:
        """The key under which this gateway's rekey messages are MACed (32 bytes), from an enrolment."""
        return _expand(self.prk, b"rekey key", 32)

    def session(self, kid: bytes) -> Parameters:
        """The OSCORE context from the gateway's side: 16-byte master secret, 8-byte master salt, AES-CCM-16-64-128 with
        HKDF-SHA-256, and no ID Context: master secrets are fresh in every exchange, so no request need carry one."""
        return Parameters(
            master_secret=_expand(self.prk, b"oscore master secret", 16),
            sender_id=kid,
            recipient_id=CLOUD_SENDER_ID,
            master_salt=_expand(self.prk, b"oscore master salt", 8),
        )


def confirm_signed(exchange: bytes, ticket: bytes) -> bytes:
    """What the gateway signs in message 3."""
    return parts(SIGN_CONFIRM, exchange, ticket)


def offer_signed(first: bytes, body: bytes) -> bytes:
    """What the cloud signs in message 2."""
    return parts(SIGN_OFFER, first, body)


def next_identity_signed(thumbprint: bytes, cloud: bytes, ephemeral: bytes, nonce: bytes) -> bytes:
    """What a gateway's next identity key signs in message 1 of a rekey that rotates the identity."""
    return parts(SIGN_NEXT, thumbprint, cloud, ephemeral, nonce)


def succession_signed(former: bytes, current: bytes) -> bytes:
    """What a cloud's former key signs when ``current`` takes its place (both public keys, 33 bytes)."""
    return parts(SIGN_SUCCESSION, former, current)

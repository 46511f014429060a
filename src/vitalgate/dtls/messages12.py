"""The other handshake messages of DTLS 1.2, for the key exchanges that we have."""

from dataclasses import dataclass

from vitalgate.dtls.alerts import Alert, HandshakeError
from vitalgate.dtls.extensions import CertificateType
from vitalgate.dtls.signatures import ClientCertificateType
from vitalgate.dtls.wire import Reader, numbers, vector

NAMED_CURVE = 3
LONGEST_IDENTITY = 128
"""RFC 4279 section 5.3 asks for identities up to 128 bytes; longer ones are refused."""


def encode_certificate(kind: CertificateType, certificates: tuple[bytes, ...]) -> bytes:
    """Certificate: a chain (RFC 5246 section 7.4.2), or one SubjectPublicKeyInfo (RFC 7250 section 3)."""
    if kind is CertificateType.RAW_PUBLIC_KEY:
        return vector(3, certificates[0] if certificates else b"")
    return vector(3, b"".join(vector(3, each) for each in certificates))


def decode_certificate(kind: CertificateType, body: bytes) -> tuple[bytes, ...]:
    """The certificates, or the one key, of a Certificate message; empty where the peer has none."""
    reader = Reader(body)
    if kind is CertificateType.RAW_PUBLIC_KEY:
        spki = reader.vector(3)
        reader.end()
        return (spki,) if spki else ()
    block = reader.sub(3)
    reader.end()
    found: list[bytes] = []
    while len(block):
        found.append(block.vector(3, 1))
    return tuple(found)


@dataclass(frozen=True, slots=True)
class ServerKeyExchange:
    """An identity hint under PSK, an ephemeral share under (EC)DHE, a signature over it under ECDSA."""

    hint: bytes | None = None
    group: int = 0
    share: bytes = b""
    scheme: int = 0
    signature: bytes = b""

    def parameters(self) -> bytes:
        """ServerECDHParams (RFC 8422 section 5.4)."""
        return bytes((NAMED_CURVE,)) + self.group.to_bytes(2, "big") + vector(1, self.share)

    def encode(self) -> bytes:
        """The body."""
        body = b"" if self.hint is None else vector(2, self.hint)
        if self.group:
            body += self.parameters()
        if self.scheme:
            body += self.scheme.to_bytes(2, "big") + vector(2, self.signature)
        return body


def decode_server_key_exchange(body: bytes, *, psk: bool, ephemeral: bool) -> ServerKeyExchange:
    """RFC 4279 section 2, RFC 5489 section 2, RFC 8422 section 5.4. Raises `HandshakeError`."""
    reader = Reader(body)
    hint = reader.vector(2) if psk else None
    group, share, scheme, signature = 0, b"", 0, b""
    if ephemeral:
        if reader.number(1) != NAMED_CURVE:
            raise HandshakeError(Alert.ILLEGAL_PARAMETER, "a curve without a name")
        group = reader.number(2)
        share = reader.vector(1, 1)
        if not psk:
            scheme = reader.number(2)
            signature = reader.vector(2)
    reader.end()
    return ServerKeyExchange(hint, group, share, scheme, signature)


@dataclass(frozen=True, slots=True)
class ClientKeyExchange:
    """An identity under PSK, an ephemeral share under (EC)DHE."""

    identity: bytes | None = None
    share: bytes | None = None

    def encode(self) -> bytes:
        """The body."""
        body = b"" if self.identity is None else vector(2, self.identity)
        return body if self.share is None else body + vector(1, self.share)


def decode_client_key_exchange(body: bytes, *, psk: bool, ephemeral: bool) -> ClientKeyExchange:
    """RFC 4279 section 2, RFC 5489 section 2, RFC 8422 section 5.7. Raises `DecodeError`."""
    reader = Reader(body)
    identity = reader.vector(2, 0, LONGEST_IDENTITY) if psk else None
    share = reader.vector(1, 1) if ephemeral else None
    reader.end()
    return ClientKeyExchange(identity, share)


def encode_certificate_request(schemes: tuple[int, ...], authorities: tuple[bytes, ...] = ()) -> bytes:
    """CertificateRequest (RFC 5246 section 7.4.4)."""
    return (
        vector(1, bytes((ClientCertificateType.ECDSA_SIGN,)))
        + numbers(2, 2, schemes)
        + vector(2, b"".join(vector(2, name) for name in authorities))
    )


def decode_certificate_request(body: bytes) -> tuple[int, ...]:
    """The signature schemes that the server takes; none where it takes no kind of key that we could have."""
    reader = Reader(body)
    kinds = reader.vector(1, 1)
    schemes = reader.numbers(2, 2)
    authorities = reader.sub(2)
    reader.end()
    while len(authorities):
        authorities.vector(2, 1)
    return schemes if ClientCertificateType.ECDSA_SIGN in kinds else ()


def encode_certificate_verify(scheme: int, signature: bytes) -> bytes:
    """CertificateVerify (RFC 5246 section 7.4.8, RFC 8446 section 4.4.3)."""
    return scheme.to_bytes(2, "big") + vector(2, signature)


def decode_certificate_verify(body: bytes) -> tuple[int, bytes]:
    """Scheme and signature."""
    reader = Reader(body)
    scheme = reader.number(2)
    signature = reader.vector(2)
    reader.end()
    return scheme, signature


def encode_new_session_ticket(lifetime: int, ticket: bytes) -> bytes:
    """NewSessionTicket (RFC 5077 section 3.3)."""
    return lifetime.to_bytes(4, "big") + vector(2, ticket)


def decode_new_session_ticket(body: bytes) -> tuple[int, bytes]:
    """Lifetime hint in seconds, and ticket."""
    reader = Reader(body)
    lifetime = reader.number(4)
    ticket = reader.vector(2)
    reader.end()
    return lifetime, ticket

"""The other handshake messages of DTLS 1.3, and the ACK (RFC 8446 section 4, RFC 9147 sections 7 to 9)."""

from dataclasses import dataclass

from vitalgate.dtls import extensions
from vitalgate.dtls.alerts import Alert, HandshakeError
from vitalgate.dtls.extensions import Extension, Extensions, Place
from vitalgate.dtls.wire import DecodeError, Reader, vector

RECORD_NUMBER_BYTES = 16
SERVER_SIGNS = b" " * 64 + b"TLS 1.3, server CertificateVerify\0"
CLIENT_SIGNS = b" " * 64 + b"TLS 1.3, client CertificateVerify\0"
"""What goes before the transcript hash in CertificateVerify (RFC 8446 section 4.4.3)."""
CID_IMMEDIATE = 0
CID_SPARE = 1


def encode_certificate(certificates: tuple[bytes, ...]) -> bytes:
    """Certificate without a context; each entry is a certificate or a SubjectPublicKeyInfo (section 4.4.2)."""
    return b"\0" + vector(3, b"".join(vector(3, each) + b"\0\0" for each in certificates))


def decode_certificate(body: bytes) -> tuple[bytes, ...]:
    """The entries; empty where the peer has none. Raises `HandshakeError`."""
    reader = Reader(body)
    if reader.vector(1):
        raise HandshakeError(Alert.ILLEGAL_PARAMETER, "a certificate for a request that was not made")
    block = reader.sub(3)
    reader.end()
    found: list[bytes] = []
    while len(block):
        found.append(block.vector(3, 1))
        if extensions.decode(block, Place.CERTIFICATE):
            raise HandshakeError(Alert.UNSUPPORTED_EXTENSION, "a certificate with an extension that nobody asked for")
    return tuple(found)


def encode_encrypted_extensions(values: Extensions) -> bytes:
    """EncryptedExtensions (section 4.3.1)."""
    return extensions.encode(values)


def decode_encrypted_extensions(body: bytes) -> Extensions:
    """EncryptedExtensions (section 4.3.1)."""
    reader = Reader(body)
    found = extensions.decode(reader, Place.ENCRYPTED_EXTENSIONS)
    reader.end()
    return found


def encode_certificate_request(schemes: tuple[int, ...]) -> bytes:
    """CertificateRequest (section 4.3.2)."""
    return b"\0" + extensions.encode({Extension.SIGNATURE_ALGORITHMS: extensions.encode_list(schemes)})


def decode_certificate_request(body: bytes) -> tuple[int, ...]:
    """The signature schemes that the server takes."""
    reader = Reader(body)
    if reader.vector(1):
        raise HandshakeError(Alert.ILLEGAL_PARAMETER, "a context in the handshake's own request")
    found = extensions.decode(reader, Place.CERTIFICATE_REQUEST)
    reader.end()
    value = found.get(Extension.SIGNATURE_ALGORITHMS)
    if value is None:
        raise HandshakeError(Alert.MISSING_EXTENSION, "a CertificateRequest without signature_algorithms")
    return extensions.decode_list(value)


@dataclass(frozen=True, slots=True)
class NewSessionTicket:
    """Section 4.6.1; ``lifetime`` in seconds."""

    lifetime: int
    age_add: int
    nonce: bytes
    ticket: bytes

    def encode(self) -> bytes:
        """The body."""
        return (
            self.lifetime.to_bytes(4, "big")
            + self.age_add.to_bytes(4, "big")
            + vector(1, self.nonce)
            + vector(2, self.ticket)
            + b"\0\0"
        )


def decode_new_session_ticket(body: bytes) -> NewSessionTicket:
    """NewSessionTicket (section 4.6.1)."""
    reader = Reader(body)
    lifetime, age_add = reader.number(4), reader.number(4)
    nonce = reader.vector(1)
    ticket = reader.vector(2, 1)
    extensions.decode(reader, Place.NEW_SESSION_TICKET)
    reader.end()
    return NewSessionTicket(lifetime, age_add, nonce, ticket)


def decode_key_update(body: bytes) -> bool:
    """Whether the peer wants us to update too (section 4.6.3)."""
    if len(body) != 1:
        raise DecodeError("a KeyUpdate of the wrong length")
    if body[0] > 1:
        raise HandshakeError(Alert.ILLEGAL_PARAMETER, "a KeyUpdate that asks for neither")
    return body[0] == 1


def encode_new_connection_id(cids: tuple[bytes, ...], usage: int) -> bytes:
    """NewConnectionId (RFC 9147 section 9)."""
    return vector(2, b"".join(vector(1, cid) for cid in cids)) + bytes((usage,))


def decode_new_connection_id(body: bytes) -> tuple[tuple[bytes, ...], int]:
    """Connection IDs, and whether to use one at once."""
    reader = Reader(body)
    block = reader.sub(2)
    usage = reader.number(1)
    reader.end()
    cids: list[bytes] = []
    while len(block):
        cids.append(block.vector(1))
    if usage > CID_SPARE:
        raise HandshakeError(Alert.ILLEGAL_PARAMETER, "connection IDs for no use that there is")
    return tuple(cids), usage


def decode_request_connection_id(body: bytes) -> int:
    """How many the peer wants."""
    if len(body) != 1:
        raise DecodeError("a RequestConnectionId of the wrong length")
    return body[0]


def encode_ack(numbers: list[tuple[int, int]]) -> bytes:
    """ACK of records by (epoch, sequence number) (RFC 9147 section 7)."""
    return vector(
        2, b"".join(epoch.to_bytes(8, "big") + sequence.to_bytes(8, "big") for epoch, sequence in sorted(numbers))
    )


def decode_ack(content: bytes) -> list[tuple[int, int]]:
    """The record numbers of an ACK. Raises `DecodeError`."""
    reader = Reader(content)
    data = reader.vector(2)
    reader.end()
    if len(data) % RECORD_NUMBER_BYTES:
        raise DecodeError("an ACK that is no whole number of record numbers")
    return [
        (int.from_bytes(data[at : at + 8], "big"), int.from_bytes(data[at + 8 : at + 16], "big"))
        for at in range(0, len(data), RECORD_NUMBER_BYTES)
    ]

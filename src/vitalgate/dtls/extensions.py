"""Extensions of hello and other messages: the table of where each may stand, and the codecs of their values.

Places are those of RFC 8446 section 4.2; for DTLS 1.2 what a ClientHello may carry a ServerHello may answer.
"""

import enum
from dataclasses import dataclass

from vitalgate.dtls.alerts import Alert, HandshakeError
from vitalgate.dtls.wire import DecodeError, Reader, numbers, vector


class Place(enum.Flag):
    """The messages that an extension may stand in."""

    CLIENT_HELLO = enum.auto()
    SERVER_HELLO_12 = enum.auto()
    SERVER_HELLO = enum.auto()
    HELLO_RETRY_REQUEST = enum.auto()
    ENCRYPTED_EXTENSIONS = enum.auto()
    CERTIFICATE = enum.auto()
    CERTIFICATE_REQUEST = enum.auto()
    NEW_SESSION_TICKET = enum.auto()


class Extension(enum.IntEnum):
    """The registry's values that we know."""

    SERVER_NAME = 0
    SUPPORTED_GROUPS = 10
    EC_POINT_FORMATS = 11
    SIGNATURE_ALGORITHMS = 13
    CLIENT_CERTIFICATE_TYPE = 19
    SERVER_CERTIFICATE_TYPE = 20
    EXTENDED_MASTER_SECRET = 23
    SESSION_TICKET = 35
    PRE_SHARED_KEY = 41
    EARLY_DATA = 42
    SUPPORTED_VERSIONS = 43
    COOKIE = 44
    PSK_KEY_EXCHANGE_MODES = 45
    CERTIFICATE_AUTHORITIES = 47
    KEY_SHARE = 51
    CONNECTION_ID = 54
    RENEGOTIATION_INFO = 0xFF01


_CH, _SH12, _SH, _HRR = Place.CLIENT_HELLO, Place.SERVER_HELLO_12, Place.SERVER_HELLO, Place.HELLO_RETRY_REQUEST
_EE, _CT, _CR, _NST = (
    Place.ENCRYPTED_EXTENSIONS,
    Place.CERTIFICATE,
    Place.CERTIFICATE_REQUEST,
    Place.NEW_SESSION_TICKET,
)

PLACES: dict[int, Place] = {
    Extension.SERVER_NAME: _CH | _SH12 | _EE,
    Extension.SUPPORTED_GROUPS: _CH | _EE,
    Extension.EC_POINT_FORMATS: _CH | _SH12,
    Extension.SIGNATURE_ALGORITHMS: _CH | _CR,
    Extension.CLIENT_CERTIFICATE_TYPE: _CH | _SH12 | _EE,
    Extension.SERVER_CERTIFICATE_TYPE: _CH | _SH12 | _EE,
    Extension.EXTENDED_MASTER_SECRET: _CH | _SH12,
    Extension.SESSION_TICKET: _CH | _SH12,
    Extension.PRE_SHARED_KEY: _CH | _SH,
    Extension.EARLY_DATA: _CH | _EE | _NST,
    Extension.SUPPORTED_VERSIONS: _CH | _SH | _HRR,
    Extension.COOKIE: _CH | _HRR,
    Extension.PSK_KEY_EXCHANGE_MODES: _CH,
    Extension.CERTIFICATE_AUTHORITIES: _CH | _CR,
    Extension.KEY_SHARE: _CH | _SH | _HRR,
    Extension.CONNECTION_ID: _CH | _SH12 | _SH,
    Extension.RENEGOTIATION_INFO: _CH | _SH12,
}


class CertificateType(enum.IntEnum):
    """How a peer shows its public key (RFC 7250 section 3)."""

    X509 = 0
    RAW_PUBLIC_KEY = 2


Extensions = dict[int, bytes]


def decode(reader: Reader, place: Place) -> Extensions:
    """A block of extensions. `DecodeError`, or `HandshakeError` where one stands twice or in the wrong place."""
    block = reader.sub(2)
    found: Extensions = {}
    while len(block):
        kind = block.number(2)
        value = block.vector(2)
        if kind in found:
            raise HandshakeError(Alert.ILLEGAL_PARAMETER, "an extension that stands twice")
        if Extension.PRE_SHARED_KEY in found and place is Place.CLIENT_HELLO:
            raise HandshakeError(Alert.ILLEGAL_PARAMETER, "pre_shared_key is not the last extension")
        if kind in PLACES and place not in PLACES[kind]:
            raise HandshakeError(Alert.ILLEGAL_PARAMETER, "an extension in a message where it may not be")
        found[kind] = value
    return found


def encode(extensions: Extensions) -> bytes:
    """A block of extensions in the order given."""
    return vector(2, b"".join(kind.to_bytes(2, "big") + vector(2, value) for kind, value in extensions.items()))


def encode_hello(extensions: Extensions) -> bytes:
    """The same, and nothing at all where there is none: the form of DTLS 1.2's hellos."""
    return encode(extensions) if extensions else b""


def check_answers(offered: Extensions, answers: Extensions) -> None:
    """A server answers only what was asked (RFC 8446 section 4.2); `HandshakeError` otherwise."""
    for kind in answers:
        if kind not in offered and kind not in (Extension.COOKIE, Extension.RENEGOTIATION_INFO):
            raise HandshakeError(Alert.UNSUPPORTED_EXTENSION, "an extension that we did not ask for")


# Values


def encode_cid(cid: bytes) -> bytes:
    """connection_id (RFC 9146 section 3)."""
    return vector(1, cid)


def decode_cid(value: bytes) -> bytes:
    """connection_id (RFC 9146 section 3)."""
    reader = Reader(value)
    cid = reader.vector(1)
    reader.end()
    return cid


def encode_list(values: tuple[int, ...], *, prefix: int = 2, size: int = 2) -> bytes:
    """supported_groups, signature_algorithms; with a prefix of 1 supported_versions, certificate types and others."""
    return numbers(prefix, size, values)


def decode_list(value: bytes, *, prefix: int = 2, size: int = 2) -> tuple[int, ...]:
    """The reverse of `encode_list`; at least one element."""
    reader = Reader(value)
    found = reader.numbers(prefix, size)
    reader.end()
    return found


def decode_number(value: bytes, size: int) -> int:
    """A value that is one number."""
    if len(value) != size:
        raise DecodeError("an extension of the wrong length")
    return int.from_bytes(value, "big")


def encode_server_name(name: str) -> bytes:
    """server_name with one host name (RFC 6066 section 3)."""
    return vector(2, b"\0" + vector(2, name.encode("ascii")))


def decode_server_name(value: bytes) -> str:
    """The host name of server_name, '' where there is none."""
    reader = Reader(value)
    names = reader.sub(2, 1)
    reader.end()
    found = ""
    while len(names):
        kind = names.number(1)
        name = names.vector(2, 1)
        if kind == 0:
            try:
                found = name.decode("ascii")
            except UnicodeDecodeError as error:
                raise DecodeError("a host name that is not ASCII") from error
    return found


@dataclass(frozen=True, slots=True)
class KeyShare:
    """KeyShareEntry (RFC 8446 section 4.2.8)."""

    group: int
    share: bytes

    def encode(self) -> bytes:
        """The entry."""
        return self.group.to_bytes(2, "big") + vector(2, self.share)


def decode_key_share(reader: Reader) -> KeyShare:
    """One entry."""
    return KeyShare(reader.number(2), reader.vector(2, 1))


def encode_key_shares(shares: tuple[KeyShare, ...]) -> bytes:
    """key_share of a ClientHello; it may be empty, to ask for HelloRetryRequest."""
    return vector(2, b"".join(share.encode() for share in shares))


def decode_key_shares(value: bytes) -> dict[int, bytes]:
    """key_share of a ClientHello by group."""
    reader = Reader(value)
    block = reader.sub(2)
    reader.end()
    shares: dict[int, bytes] = {}
    while len(block):
        entry = decode_key_share(block)
        if entry.group in shares:
            raise HandshakeError(Alert.ILLEGAL_PARAMETER, "two shares of one group")
        shares[entry.group] = entry.share
    return shares


@dataclass(frozen=True, slots=True)
class PskIdentity:
    """PskIdentity (RFC 8446 section 4.2.11)."""

    identity: bytes
    age: int = 0


@dataclass(frozen=True, slots=True)
class OfferedPsks:
    """pre_shared_key of a ClientHello."""

    identities: tuple[PskIdentity, ...]
    binders: tuple[bytes, ...]

    def encode(self) -> bytes:
        """The value of the extension."""
        identities = b"".join(vector(2, each.identity) + each.age.to_bytes(4, "big") for each in self.identities)
        return vector(2, identities) + self.encode_binders()

    def encode_binders(self) -> bytes:
        """The list of binders alone: what a binder does not cover."""
        return vector(2, b"".join(vector(1, binder) for binder in self.binders))


def decode_offered_psks(value: bytes) -> OfferedPsks:
    """pre_shared_key of a ClientHello."""
    reader = Reader(value)
    block = reader.sub(2, 7)
    identities: list[PskIdentity] = []
    while len(block):
        identity = block.vector(2, 1)
        identities.append(PskIdentity(identity, block.number(4)))
    block = reader.sub(2, 33)
    binders: list[bytes] = []
    while len(block):
        binders.append(block.vector(1, 32, 255))
    reader.end()
    if len(identities) != len(binders):
        raise HandshakeError(Alert.ILLEGAL_PARAMETER, "not as many binders as identities")
    return OfferedPsks(tuple(identities), tuple(binders))


def encode_cookie(cookie: bytes) -> bytes:
    """cookie (RFC 8446 section 4.2.2)."""
    return vector(2, cookie)


def decode_cookie(value: bytes) -> bytes:
    """cookie (RFC 8446 section 4.2.2)."""
    reader = Reader(value)
    cookie = reader.vector(2, 1)
    reader.end()
    return cookie

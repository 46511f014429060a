"""ClientHello, ServerHello (and HelloRetryRequest), HelloVerifyRequest: the messages that both versions begin with."""

from dataclasses import dataclass, field

from vitalgate.dtls import extensions
from vitalgate.dtls.alerts import Alert, HandshakeError
from vitalgate.dtls.extensions import Extension, Extensions, Place
from vitalgate.dtls.records import DTLS_1_0, DTLS_1_2, DTLS_1_3
from vitalgate.dtls.wire import DecodeError, Reader, numbers, vector

RANDOM_BYTES = 32
RETRY_RANDOM = bytes.fromhex("cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c")
"""The random of a ServerHello that is a HelloRetryRequest (RFC 8446 section 4.1.3)."""
DOWNGRADE = b"DOWNGRD\x01"
"""The end of the random of a server that knows 1.3 and was asked for 1.2 (RFC 8446 section 4.1.3)."""


@dataclass(frozen=True, slots=True)
class ClientHello:
    """RFC 6347 section 4.2.1, RFC 9147 section 5.3."""

    random: bytes
    suites: tuple[int, ...]
    extensions: Extensions = field(default_factory=dict)
    session_id: bytes = b""
    cookie: bytes = b""
    version: int = DTLS_1_2

    def encode(self) -> bytes:
        """The body."""
        return b"".join(
            (
                self.version.to_bytes(2, "big"),
                self.random,
                vector(1, self.session_id),
                vector(1, self.cookie),
                numbers(2, 2, self.suites),
                b"\x01\x00",
                extensions.encode_hello(self.extensions),
            )
        )

    @property
    def versions(self) -> tuple[int, ...]:
        """The versions offered: those of supported_versions, or else the one named."""
        value = self.extensions.get(Extension.SUPPORTED_VERSIONS)
        if value is not None:
            return extensions.decode_list(value, prefix=1)
        # Versions count downwards on the wire: 0xfeff is DTLS 1.0, 0xfefd is 1.2.
        return (DTLS_1_2,) if self.version <= DTLS_1_2 else (self.version,)


def decode_client_hello(body: bytes) -> ClientHello:
    """A ClientHello. Raises `HandshakeError`."""
    reader = Reader(body)
    version = reader.number(2)
    random = reader.take(RANDOM_BYTES)
    session_id = reader.vector(1, 0, 32)
    cookie = reader.vector(1)
    suites = reader.numbers(2, 2)
    compression = reader.vector(1, 1)
    found = extensions.decode(reader, Place.CLIENT_HELLO) if len(reader) else {}
    reader.end()
    if 0 not in compression:
        raise HandshakeError(Alert.ILLEGAL_PARAMETER, "a ClientHello that insists on compression")
    if version >> 8 != DTLS_1_2 >> 8:
        raise HandshakeError(Alert.PROTOCOL_VERSION, "no version of DTLS")
    return ClientHello(random, suites, found, session_id, cookie, version)


@dataclass(frozen=True, slots=True)
class HelloPrefix:
    """What the first fragment of a ClientHello shows before the message is whole: enough to judge a cookie."""

    random: bytes
    session_id: bytes
    cookie: bytes
    cookie_13: bytes


def decode_prefix(fragment: bytes) -> HelloPrefix:
    """The beginning of a ClientHello, cut off anywhere after its cookie. Raises `DecodeError` where that is missing."""
    reader = Reader(fragment)
    reader.number(2)
    random = reader.take(RANDOM_BYTES)
    session_id = reader.vector(1, 0, 32)
    cookie = reader.vector(1)
    cookie_13 = b""
    try:
        reader.vector(2)
        reader.vector(1)
        reader.number(2)
        while len(reader):
            kind = reader.number(2)
            value = reader.vector(2)
            if kind == Extension.COOKIE:
                cookie_13 = extensions.decode_cookie(value)
                break
    except DecodeError:
        pass  # cut off: what lies beyond comes with the other fragments
    return HelloPrefix(random, session_id, cookie, cookie_13)


@dataclass(frozen=True, slots=True)
class ServerHello:
    """RFC 5246 section 7.4.1.3, RFC 8446 section 4.1.3; a HelloRetryRequest has `RETRY_RANDOM`."""

    random: bytes
    suite: int
    extensions: Extensions = field(default_factory=dict)
    session_id: bytes = b""
    version: int = DTLS_1_2

    @property
    def retry(self) -> bool:
        """Whether it is a HelloRetryRequest."""
        return self.random == RETRY_RANDOM

    @property
    def selected_version(self) -> int:
        """The version that the server chose."""
        value = self.extensions.get(Extension.SUPPORTED_VERSIONS)
        return self.version if value is None else extensions.decode_number(value, 2)

    def encode(self) -> bytes:
        """The body."""
        return b"".join(
            (
                self.version.to_bytes(2, "big"),
                self.random,
                vector(1, self.session_id),
                self.suite.to_bytes(2, "big"),
                b"\x00",
                extensions.encode_hello(self.extensions),
            )
        )


def decode_server_hello(body: bytes) -> ServerHello:
    """A ServerHello or HelloRetryRequest. Raises `HandshakeError`."""
    reader = Reader(body)
    version = reader.number(2)
    random = reader.take(RANDOM_BYTES)
    session_id = reader.vector(1, 0, 32)
    suite = reader.number(2)
    compression = reader.number(1)
    if compression:
        raise HandshakeError(Alert.ILLEGAL_PARAMETER, "compression that we did not offer")
    block = reader.rest()
    # Which extensions may stand here depends on the version, which is one of them.
    versioned = _version_in(block) == DTLS_1_3
    place = Place.SERVER_HELLO_12
    if versioned:
        place = Place.HELLO_RETRY_REQUEST if random == RETRY_RANDOM else Place.SERVER_HELLO
    found: Extensions = {}
    if block:
        inner = Reader(block)
        found = extensions.decode(inner, place)
        inner.end()
    return ServerHello(random, suite, found, session_id, version)


def _version_in(block: bytes) -> int | None:
    if not block:
        return None
    reader = Reader(block).sub(2)
    while len(reader):
        kind = reader.number(2)
        value = reader.vector(2)
        if kind == Extension.SUPPORTED_VERSIONS:
            return extensions.decode_number(value, 2)
    return None


@dataclass(frozen=True, slots=True)
class HelloVerifyRequest:
    """RFC 6347 section 4.2.1; its version is DTLS 1.0's whatever will be negotiated."""

    cookie: bytes
    version: int = DTLS_1_0

    def encode(self) -> bytes:
        """The body."""
        return self.version.to_bytes(2, "big") + vector(1, self.cookie)


def decode_hello_verify_request(body: bytes) -> HelloVerifyRequest:
    """A HelloVerifyRequest. Raises `DecodeError`."""
    reader = Reader(body)
    version = reader.number(2)
    cookie = reader.vector(1)
    reader.end()
    return HelloVerifyRequest(cookie, version)

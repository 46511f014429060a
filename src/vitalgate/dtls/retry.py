"""HelloRetryRequest without keeping state: the cookie holds what the server has to know when the client comes back.

RFC 8446 sections 4.1.4, 4.2.2, 4.4.1; RFC 9147 section 5.1. A cookie is the suite, the group that was asked for (0
where the client's share served), the hash of the first ClientHello, and a MAC over all this and the client's address.
"""

from dataclasses import dataclass

from vitalgate.dtls import extensions
from vitalgate.dtls.alerts import Alert, HandshakeError
from vitalgate.dtls.cookies import MAC_BYTES, Cookies
from vitalgate.dtls.extensions import Extension, Extensions
from vitalgate.dtls.handshaking import HandshakeType, Message
from vitalgate.dtls.hellos import RETRY_RANDOM, ClientHello, ServerHello
from vitalgate.dtls.parameters import Parameters
from vitalgate.dtls.records import DTLS_1_3
from vitalgate.dtls.schedule import digest
from vitalgate.dtls.suites import SUITES, Suite
from vitalgate.engine import Path


@dataclass(frozen=True, slots=True)
class Retry:
    """What was agreed before the client came back with ``cookie``."""

    suite: Suite
    group: int
    first_hash: bytes
    cookie: bytes

    def transcript(self, sequence: int) -> bytes:
        """What the transcript begins with: message_hash and HelloRetryRequest."""
        return message_hash(self.first_hash) + self.message(sequence).with_tls_header()

    def message(self, sequence: int) -> Message:
        """The HelloRetryRequest."""
        found: Extensions = {Extension.SUPPORTED_VERSIONS: DTLS_1_3.to_bytes(2, "big")}
        if self.group:
            found[Extension.KEY_SHARE] = self.group.to_bytes(2, "big")
        found[Extension.COOKIE] = extensions.encode_cookie(self.cookie)
        body = ServerHello(RETRY_RANDOM, self.suite.value, found).encode()
        return Message(HandshakeType.SERVER_HELLO, sequence, body)


def message_hash(first_hash: bytes) -> bytes:
    """The synthetic message that stands for the first ClientHello (RFC 8446 section 4.4.1)."""
    return Message(HandshakeType.MESSAGE_HASH, 0, first_hash).with_tls_header()


def choose_suite(hello: ClientHello, parameters: Parameters) -> Suite:
    """The suite for a client's hello: the first of ours; where it offers pre-shared keys, the first whose hash these go
    with, which is SHA-256 unless somebody says otherwise (RFC 8446 section 4.2.11). Raises `HandshakeError`."""
    found = [SUITES[value] for value in parameters.suites_for(DTLS_1_3) if value in hello.suites]
    if not found:
        raise HandshakeError(Alert.HANDSHAKE_FAILURE, "no cipher suite in common")
    if Extension.PRE_SHARED_KEY in hello.extensions:
        for suite in found:
            if suite.hash == "sha256":
                return suite
    return found[0]


def wanted_group(hello: ClientHello, parameters: Parameters) -> int:
    """The group to ask a share for; 0 where the client sent one that serves, or needs none."""
    value = hello.extensions.get(Extension.KEY_SHARE)
    if value is None:
        return 0  # pre-shared keys alone
    shares = extensions.decode_key_shares(value)
    if any(group in shares for group in parameters.groups):
        return 0
    offered = hello.extensions.get(Extension.SUPPORTED_GROUPS)
    named = () if offered is None else extensions.decode_list(offered)
    for group in parameters.groups:
        if group in named:
            return group
    raise HandshakeError(Alert.HANDSHAKE_FAILURE, "no group in common")


def make(
    hello: ClientHello, message: Message, parameters: Parameters, cookies: Cookies, path: Path, now: float
) -> Retry:
    """The answer to a first ClientHello. Raises `HandshakeError`."""
    suite, group = choose_suite(hello, parameters), wanted_group(hello, parameters)
    first_hash = digest(suite.hash, message.with_tls_header())
    content = suite.value.to_bytes(2, "big") + group.to_bytes(2, "big") + first_hash
    return Retry(suite, group, first_hash, content + cookies.make(path, content, now))


def judge(cookie: bytes, cookies: Cookies, path: Path, now: float) -> Retry | None:
    """What a cookie holds, or None where it is not ours for this address."""
    content, mac = cookie[:-MAC_BYTES], cookie[-MAC_BYTES:]
    if len(content) < 4 or not cookies.valid(mac, path, content, now):
        return None
    suite = SUITES[int.from_bytes(content[:2], "big")]
    return Retry(suite, int.from_bytes(content[2:4], "big"), content[4:], cookie)

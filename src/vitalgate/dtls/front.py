"""The server's front: hellos of addresses that have shown nothing yet, answered without keeping anything of them.

No more than one datagram, shorter than the hello, goes back to such an address. State is made only when a cookie that
was sent there comes back from there (RFC 6347 section 4.2.1, RFC 9147 section 5.1).
"""

from collections.abc import Callable

from vitalgate.dtls import alerts, handshaking, retry
from vitalgate.dtls.alerts import Alert, HandshakeError
from vitalgate.dtls.association import Association
from vitalgate.dtls.core import Core
from vitalgate.dtls.events import End
from vitalgate.dtls.handshaking import Fragment, HandshakeType, Message
from vitalgate.dtls.hellos import HelloPrefix, HelloVerifyRequest, decode_client_hello, decode_prefix
from vitalgate.dtls.ledger import Layout, Row
from vitalgate.dtls.records import DTLS_1_0, DTLS_1_2, DTLS_1_3, HEADER, HEADER_BYTES, ContentType, plaintext
from vitalgate.dtls.retry import Retry
from vitalgate.dtls.server import ServerStart, choose_version
from vitalgate.dtls.wire import DecodeError
from vitalgate.engine import Path

HELLO_AT = HEADER_BYTES
"""Where a datagram that begins with a handshake record has the type of its first message."""


class Front:
    """Looks at datagrams that begin with a ClientHello. ``new_number`` gives numbers for associations."""

    def __init__(self, core: Core, new_number: Callable[[], int]) -> None:
        self._core = core
        self._new_number = new_number

    def receive(self, data: bytes, path: Path, now: float) -> None:
        """Take such a datagram."""
        content_type, _, number, length = HEADER.unpack_from(data)
        end = HEADER_BYTES + length
        assert content_type == ContentType.HANDSHAKE
        try:
            if end > len(data):
                raise DecodeError("a record longer than its datagram")
            fragment = handshaking.decode(data[HEADER_BYTES:end])[0]
            starting = self._core.starting.get(path)
            if fragment.offset:
                if starting is None:
                    self._discard("hello-fragment")
                else:
                    starting.receive(data, path, now)
                return
            prefix = decode_prefix(fragment.body)
            if starting is not None and starting.hello_random == prefix.random:
                starting.receive(data, path, now)
                return
            complete = self._core.by_path.get(path)
            if complete is not None and complete.hello_random == prefix.random:
                self._discard("hello-repeated")  # a late copy of the hello that the association began with
                return
            self._judge(fragment, prefix, number, data, path, now)
        except HandshakeError as error:
            self._discard("hello")
            if error.alert in (Alert.PROTOCOL_VERSION, Alert.HANDSHAKE_FAILURE, Alert.ILLEGAL_PARAMETER):
                self._alert(error.alert, number, path)

    def _judge(self, fragment: Fragment, prefix: HelloPrefix, number: int, data: bytes, path: Path, now: float) -> None:
        core = self._core
        parameters, cookies = core.parameters, core.cookies
        if prefix.cookie_13 and DTLS_1_3 in parameters.versions:
            found = retry.judge(prefix.cookie_13, cookies, path, now)
            if found is None:
                raise HandshakeError(Alert.ILLEGAL_PARAMETER, "a cookie that we did not make")
            self._begin(fragment, prefix, number, data, path, now, found)
            return
        if prefix.cookie and cookies.valid(prefix.cookie, path, prefix.random + prefix.session_id, now):
            self._begin(fragment, prefix, number, data, path, now)
            return
        if fragment.length != len(fragment.body):
            self._discard("hello-fragment")
            return
        hello = decode_client_hello(fragment.body)
        version = choose_version(hello, parameters.versions)
        if not parameters.cookies and (version == DTLS_1_2 or not retry.wanted_group(hello, parameters)):
            self._begin(fragment, prefix, number, data, path, now)
            return
        core.counters.add("dtls_cookies_sent")
        if version == DTLS_1_3:
            message = Message(fragment.type, fragment.sequence, fragment.body)
            answer = retry.make(hello, message, parameters, cookies, path, now).message(fragment.sequence)
            self._send(ContentType.HANDSHAKE, DTLS_1_2, number, answer.with_dtls_header(), "HELLO_RETRY_REQUEST", path)
        else:
            cookie = cookies.make(path, prefix.random + prefix.session_id, now)
            body = HelloVerifyRequest(cookie).encode()
            request = Message(HandshakeType.HELLO_VERIFY_REQUEST, fragment.sequence, body)
            self._send(
                ContentType.HANDSHAKE, DTLS_1_0, number, request.with_dtls_header(), "HELLO_VERIFY_REQUEST", path
            )

    def _begin(
        self,
        fragment: Fragment,
        prefix: HelloPrefix,
        number: int,
        data: bytes,
        path: Path,
        now: float,
        found: Retry | None = None,
    ) -> None:
        """The address receives: a handshake begins."""
        core = self._core
        before = core.starting.get(path)
        if before is not None:
            before.end(End.REPLACED, now)  # the client began anew
        elif len(core.starting) >= core.limits.handshakes:
            core.counters.add("dtls_limit_reached", "handshakes")
            return
        if len(core.associations) >= core.limits.associations:
            core.counters.add("dtls_limit_reached", "associations")
            return
        association = Association(core, self._new_number(), path, now, client=False)
        association.hello_random = prefix.random
        core.associations[association.number] = association
        core.starting[path] = association
        core.counters.add("dtls_handshakes_started", "peer")
        core.timers.set(association, now + core.parameters.handshake)
        ServerStart(association, fragment.sequence, number, found)
        association.receive(data, path, now)

    def _alert(self, alert: Alert, number: int, path: Path) -> None:
        self._core.counters.add("dtls_alerts_sent", alerts.name(alert))
        self._send(ContentType.ALERT, DTLS_1_2, number, alerts.encode(alert), "ALERT", path)

    def _send(
        self, content_type: ContentType, version: int, number: int, content: bytes, name: str, path: Path
    ) -> None:
        record = plaintext(content_type, version, number, content)
        ledger = self._core.ledger
        if ledger is not None:
            ledger.datagrams += 1
            head = handshaking.HEADER_BYTES if content_type is ContentType.HANDSHAKE else 0
            layout = Layout(HEADER_BYTES, 0, 0, len(content), 0, 0, 0)
            messages = ((name, head, len(content) - head),)
            ledger.record(Row(True, ledger.datagrams, 0, number, content_type, layout, messages), len(record))
        self._core.outgoing.append((record, path))

    def _discard(self, reason: str) -> None:
        self._core.counters.add("dtls_discarded", reason)

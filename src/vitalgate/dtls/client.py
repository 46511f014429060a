"""A client's hello, before it is known which version the server takes."""

from collections.abc import Hashable
from dataclasses import replace
from enum import Enum, auto
from typing import ClassVar

from vitalgate.dtls import extensions, handshaking
from vitalgate.dtls.alerts import Alert, HandshakeError
from vitalgate.dtls.association import Association
from vitalgate.dtls.client12 import Client12
from vitalgate.dtls.client13 import Client13
from vitalgate.dtls.conversation import Conversation, Rule, Table
from vitalgate.dtls.credentials import Credentials
from vitalgate.dtls.extensions import CertificateType, Extension, Extensions, KeyShare
from vitalgate.dtls.groups import GROUPS, PrivateShare
from vitalgate.dtls.handshaking import HandshakeType, Message
from vitalgate.dtls.hellos import (
    DOWNGRADE,
    RANDOM_BYTES,
    ClientHello,
    ServerHello,
    decode_hello_verify_request,
    decode_server_hello,
)
from vitalgate.dtls.judging import Target
from vitalgate.dtls.psk13 import PSK_DHE, PSK_ONLY, Offer, with_binders
from vitalgate.dtls.records import DTLS_1_2, DTLS_1_3, HEADER_BYTES
from vitalgate.dtls.retry import message_hash
from vitalgate.dtls.schedule import digest
from vitalgate.dtls.sessions import Ticket
from vitalgate.dtls.signatures import DEFAULT_SCHEMES
from vitalgate.dtls.suites import EMPTY_RENEGOTIATION_INFO_SCSV, SUITES, Exchange

FAKE_SESSION_ID_BYTES = 8
"""With a ticket a client sends a session ID of its own making: the server's echo says that it took the ticket (RFC 5077
section 3.4)."""


class State(Enum):
    """Before the version is known."""

    WAIT_SERVER_HELLO = auto()
    DECIDED = auto()


class ClientStart:
    """Sends ClientHello, answers HelloVerifyRequest, and hands over to the version that the server chose."""

    def __init__(self, association: Association, target: Target, session_key: Hashable, now: float) -> None:
        self.association = association
        self.core = association.core
        self.target = target
        self.session_key = session_key
        self.state: Enum = State.WAIT_SERVER_HELLO
        conversation = self.conversation = Conversation(association)
        conversation.role = self
        association.handshake = conversation
        parameters, credentials = self.core.parameters, self.core.credentials
        self.ticket = self._resumable(now)
        cid = self.core.new_cid(association)
        if cid is None:
            raise HandshakeError(Alert.INTERNAL_ERROR, "no connection ID is free")
        self.cid = cid
        suites = tuple(value for value in parameters.suites if _usable(value, credentials))
        suites = tuple(value for value in suites if SUITES[value].version in parameters.versions)
        if not suites:
            raise HandshakeError(Alert.INTERNAL_ERROR, "no credentials for any cipher suite that is allowed")
        if DTLS_1_2 in parameters.versions:
            suites = (*suites, EMPTY_RENEGOTIATION_INFO_SCSV)
        session_id = b""
        if self.ticket is not None and self.ticket.session.version == DTLS_1_2:
            session_id = self.ticket.session_id or self.core.randomness(FAKE_SESSION_ID_BYTES)
        self.retried: ServerHello | None = None
        self.shares: dict[int, PrivateShare] = {}
        self.offers: tuple[Offer, ...] = ()
        found = self._extensions(suites)
        if DTLS_1_3 in parameters.versions and any(_version(value) == DTLS_1_3 for value in suites):
            self._add_13(found, now)
        self.hello = ClientHello(self.core.randomness(RANDOM_BYTES), suites, found, session_id)
        if self.shares and self._too_long():
            # A hello without a cookie has to fit in one datagram (RFC 9147 section 5.1): the share comes later.
            self.shares = {}
            found[Extension.KEY_SHARE] = extensions.encode_key_shares(())
        self._send(now)

    def _too_long(self) -> bool:
        body = with_binders(self.hello, self.offers, b"").encode()
        return len(body) + handshaking.HEADER_BYTES + HEADER_BYTES > self.core.parameters.mtu

    def _send(self, now: float) -> None:
        self.sent = with_binders(self.hello, self.offers, bytes(self.conversation.transcript))
        self.conversation.put(HandshakeType.CLIENT_HELLO, self.sent.encode())
        self.conversation.flush(now)

    def _add_13(self, found: Extensions, now: float) -> None:
        """What a hello says for DTLS 1.3 (RFC 8446 section 4.2)."""
        parameters, credentials = self.core.parameters, self.core.credentials
        found[Extension.SUPPORTED_VERSIONS] = extensions.encode_list(parameters.versions, prefix=1)
        offers: list[Offer] = []
        ticket = self.ticket
        if ticket is not None and ticket.session.version == DTLS_1_3:
            session = ticket.session
            age = int((now - ticket.received) * 1000) + session.age_add & 0xFFFFFFFF
            hash_name = SUITES[session.suite].hash
            offers.append(
                Offer(ticket.ticket, session.secret, False, hash_name, session.identity, session.credential, age)
            )
        psk = None if credentials.psks is None else credentials.psks.ours
        if psk is not None:
            offers.append(Offer(psk.identity, psk.key, True, "sha256", psk.peer, psk.identity))
        self.offers = tuple(offers)
        dhe = parameters.psk_dhe or bool(credentials.peer_types)
        if self.offers or parameters.resume:
            modes = ((PSK_DHE,) if parameters.psk_dhe else ()) + ((PSK_ONLY,) if parameters.psk_only else ())
            if not modes:
                modes, dhe = (PSK_DHE,), True
            found[Extension.PSK_KEY_EXCHANGE_MODES] = extensions.encode_list(modes, prefix=1, size=1)
        if dhe:
            entries: tuple[KeyShare, ...] = ()
            if parameters.early_key_share:
                entries = (self._share(parameters.groups[0]),)
            found[Extension.KEY_SHARE] = extensions.encode_key_shares(entries)

    def _share(self, number: int) -> KeyShare:
        group = GROUPS[number]
        private = group.generate(self.core.randomness)
        self.shares = {number: private}
        return KeyShare(number, group.public(private))

    def _resumable(self, now: float) -> Ticket | None:
        core = self.core
        if not core.parameters.resume:
            return None
        ticket = core.tickets.get(self.session_key)
        if ticket is None or not ticket.session.usable(core.credentials, core.wall()):
            return None
        session = ticket.session
        if session.version not in core.parameters.versions or session.suite not in core.parameters.suites:
            return None
        return ticket

    def _extensions(self, suites: tuple[int, ...]) -> Extensions:
        parameters, credentials = self.core.parameters, self.core.credentials
        found: Extensions = {}
        offered = [SUITES[value] for value in suites if value in SUITES]
        signing = any(suite.exchange in (Exchange.ECDHE_ECDSA, Exchange.ANY) for suite in offered) and bool(
            credentials.peer_types
        )
        if parameters.cid is not None:
            found[Extension.CONNECTION_ID] = extensions.encode_cid(self.cid)
        if self.target.sni:
            found[Extension.SERVER_NAME] = extensions.encode_server_name(self.target.sni)
        if any(suite.exchange.ephemeral or suite.exchange is Exchange.ANY for suite in offered):
            found[Extension.SUPPORTED_GROUPS] = extensions.encode_list(parameters.groups)
        if any(suite.exchange.ephemeral for suite in offered):
            found[Extension.EC_POINT_FORMATS] = b"\x01\x00"
        if signing:
            found[Extension.SIGNATURE_ALGORITHMS] = extensions.encode_list(DEFAULT_SCHEMES)
            types = credentials.peer_types
            if types != (CertificateType.X509,):
                found[Extension.SERVER_CERTIFICATE_TYPE] = extensions.encode_list(types, prefix=1, size=1)
            ours = credentials.own.types if credentials.own is not None else ()
            if ours and ours != (CertificateType.X509,):
                found[Extension.CLIENT_CERTIFICATE_TYPE] = extensions.encode_list(ours, prefix=1, size=1)
        if DTLS_1_2 in parameters.versions:
            found[Extension.EXTENDED_MASTER_SECRET] = b""
            if parameters.resume and parameters.ask_tickets:
                ticket = self.ticket
                usable = ticket is not None and ticket.session.version == DTLS_1_2
                found[Extension.SESSION_TICKET] = ticket.ticket if ticket is not None and usable else b""
        return found

    # What the server says

    def on_hello_verify_request(self, message: Message, now: float) -> State:
        """The same hello again, with the cookie; what was said before does not count (RFC 6347 section 4.2.1)."""
        request = decode_hello_verify_request(message.body)
        if DTLS_1_2 not in self.core.parameters.versions or self.retried is not None:
            raise HandshakeError(Alert.PROTOCOL_VERSION, "a server that knows only DTLS 1.2")
        if self.hello.cookie:
            raise HandshakeError(Alert.UNEXPECTED_MESSAGE, "a second HelloVerifyRequest")
        hello = self.hello
        self.hello = ClientHello(hello.random, hello.suites, hello.extensions, hello.session_id, request.cookie)
        self.conversation.restart()
        self._send(now)
        return State.WAIT_SERVER_HELLO

    def on_server_hello(self, message: Message, now: float) -> State:
        """The version is chosen."""
        hello = decode_server_hello(message.body)
        parameters = self.core.parameters
        if hello.selected_version not in parameters.versions or hello.version != DTLS_1_2:
            raise HandshakeError(Alert.PROTOCOL_VERSION, "a version that we did not offer")
        if hello.selected_version == DTLS_1_3:
            if self.hello.cookie:
                raise HandshakeError(Alert.ILLEGAL_PARAMETER, "DTLS 1.3 after HelloVerifyRequest")
            if self.retried is None:
                self.conversation.choose(DTLS_1_3)
            if hello.retry:
                self._retry(hello, now)
                return State.WAIT_SERVER_HELLO
            if self.retried is not None and self.retried.suite != hello.suite:
                raise HandshakeError(Alert.ILLEGAL_PARAMETER, "another suite than that of HelloRetryRequest")
            Client13(
                self.conversation, self.sent, hello, self.shares, self.offers, self.target, self.session_key, self.cid
            )
            return State.DECIDED
        if self.retried is not None:
            raise HandshakeError(Alert.ILLEGAL_PARAMETER, "another version than that of HelloRetryRequest")
        if DTLS_1_3 in parameters.versions and hello.random.endswith(DOWNGRADE):
            raise HandshakeError(Alert.ILLEGAL_PARAMETER, "somebody took DTLS 1.3 out of our hello")
        self.conversation.choose(DTLS_1_2)
        Client12(self.conversation, self.hello, hello, self.target, self.session_key, self.ticket, self.cid, now)
        return State.DECIDED

    def _retry(self, answer: ServerHello, now: float) -> None:
        """A second hello with what HelloRetryRequest asked for (RFC 8446 section 4.1.4)."""
        suite = SUITES.get(answer.suite)
        if self.retried is not None:
            raise HandshakeError(Alert.UNEXPECTED_MESSAGE, "a second HelloRetryRequest")
        if suite is None or suite.version != DTLS_1_3 or suite.value not in self.hello.suites:
            raise HandshakeError(Alert.ILLEGAL_PARAMETER, "a cipher suite that we did not offer")
        extensions.check_answers(self.hello.extensions, answer.extensions)
        self.retried = answer
        found: Extensions = {}
        cookie = answer.extensions.get(Extension.COOKIE)
        if cookie is not None:
            # First, so that the first fragment of a long hello shows it.
            found[Extension.COOKIE] = extensions.encode_cookie(extensions.decode_cookie(cookie))
        found.update(self.hello.extensions)
        wanted = answer.extensions.get(Extension.KEY_SHARE)
        if wanted is not None:
            group = extensions.decode_number(wanted, 2)
            if group not in self.core.parameters.groups or group in self.shares:
                raise HandshakeError(Alert.ILLEGAL_PARAMETER, "a share asked for that we sent or cannot make")
            found[Extension.KEY_SHARE] = extensions.encode_key_shares((self._share(group),))
        elif cookie is None:
            raise HandshakeError(Alert.ILLEGAL_PARAMETER, "a HelloRetryRequest that asks for nothing")
        conversation = self.conversation
        first_hash = digest(suite.hash, bytes(conversation.transcript[: conversation.before]))
        conversation.transcript[: conversation.before] = message_hash(first_hash)
        self.offers = tuple(offer for offer in self.offers if offer.hash == suite.hash)
        self.hello = replace(self.hello, extensions=found)
        self._send(now)

    TABLE: ClassVar[Table] = {
        (State.WAIT_SERVER_HELLO, HandshakeType.HELLO_VERIFY_REQUEST): Rule(
            on_hello_verify_request, (State.WAIT_SERVER_HELLO,)
        ),
        (State.WAIT_SERVER_HELLO, HandshakeType.SERVER_HELLO): Rule(
            on_server_hello, (State.DECIDED, State.WAIT_SERVER_HELLO)
        ),
    }


def _version(value: int) -> int:
    return SUITES[value].version if value in SUITES else 0


def _usable(value: int, credentials: Credentials) -> bool:
    """Whether a client can use a suite with what it has."""
    exchange = SUITES[value].exchange
    psk = credentials.psks is not None and credentials.psks.ours is not None
    keys = bool(credentials.peer_types)
    return psk if exchange.psk else keys if exchange is Exchange.ECDHE_ECDSA else psk or keys

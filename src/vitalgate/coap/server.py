"""The server side: requests from peers, their deduplication, dispatch and responses (RFC 7252 sections 4.2 to 5.4).

The way of a request whose option block is known and whose handler answers at once is short on purpose: no object but
the two messages is made for it.
"""

from collections.abc import Callable

from vitalgate.coap.blockserver import BlockServer
from vitalgate.coap.codec import (
    ACK_BITS,
    HEADER,
    MAX_TOKEN,
    VERSION_BITS,
    Answer,
    MessageFormatError,
    decode_options,
    decode_token,
    encode_empty,
    encode_options,
    encode_token,
)
from vitalgate.coap.core import Core
from vitalgate.coap.echo import Echo
from vitalgate.coap.events import RequestReceived
from vitalgate.coap.extensions import EXTENSION_OPTIONS, Extended, Extensions, is_muted
from vitalgate.coap.forwarding import Forwarding, check_forwarded
from vitalgate.coap.message import Code, Message, Options, Type, code_text, is_response
from vitalgate.coap.observe import Observations
from vitalgate.coap.options import (
    RFC7252_CRITICAL,
    Option,
    Use,
    build_options,
    check_options,
    encode_uint,
)
from vitalgate.coap.peers import Peer
from vitalgate.coap.serverexchange import SeparateResponse, ServerExchange
from vitalgate.coap.site import METHODS, SAFE_METHODS, ResponseError, Route, Site, bad_option
from vitalgate.engine import Path

AMPLIFICATION = 3
"""Bytes sent to an unverified address for each byte that came from it, at most (RFC 9175 section 2.4)."""
BUSY_SECONDS = 10
"""Max-Age of 5.03: when to try again (RFC 7252 section 5.9.3.4)."""
NON_BITS = VERSION_BITS | Type.NON << 4
FIRST_NON = NON_BITS
SERVER_CRITICAL = RFC7252_CRITICAL | {Option.ACCEPT, Option.IF_MATCH, Option.IF_NONE_MATCH}
UNLIMITED = 1 << 30

Known = tuple[Options, Route]
"""An option block's checked options and the route that they lead to."""


class Server:
    """Requests of peers. ``gate`` is whether unverified addresses are held to RFC 9175 section 2.4."""

    __slots__ = (
        "_block_bytes", "_core", "_counters", "_deduplication", "_echo", "_exchanges", "_extensions", "_gate",
        "_known", "_known_count", "_lifetime", "_max_bytes", "_max_token", "_mid_base", "_most", "_observations",
        "_option_bytes", "_outgoing", "_peers", "_site", "_trusted",
    )  # fmt: skip

    def __init__(
        self,
        core: Core,
        site: Site | None,
        trusted: Callable[[Path], bool] | None,
        *,
        gate: bool,
        extensions: bool = True,
    ) -> None:
        self._core = core
        self._counters = core.counters
        self._peers = core.peers
        self._deduplication = core.deduplication
        self._outgoing = core.outgoing
        self._site = site
        self._echo = Echo(core.randomness) if site is None else site.echo
        self._gate = gate
        self._trusted = trusted
        self._most = core.limits.unverified_response_bytes
        self._max_bytes = core.limits.message_bytes
        self._max_token = core.parameters.max_token_length
        self._lifetime = core.parameters.exchange_lifetime
        self._mid_base = int.from_bytes(core.randomness(2), "big")
        self._exchanges: dict[int, ServerExchange] = {}
        self._known: list[dict[bytes, Known]] = [{} for _ in range(32)]
        self._known_count = 0
        self._option_bytes: dict[Options, bytes] = {(): b""}
        self._extensions: Extensions | None = None
        self._observations: Observations | None = None
        self._block_bytes = UNLIMITED
        if extensions:
            blocks = BlockServer(core)
            self._observations = Observations(core, blocks, self._bytes)
            self._extensions = Extensions(blocks, self._observations)
            self._block_bytes = core.parameters.block_size
            core.reset_notification = self._observations.reset
        if site is not None:
            site.on_change.append(self._forget_known)
            if extensions:
                site.on_notify.append(self.notify)

    def __len__(self) -> int:
        return len(self._exchanges)

    def receive(self, data: bytes, path: Path, now: float, first: int, code: int, mid: int) -> None:
        """A Confirmable or Non-confirmable message with a request code; ``first`` is its first byte."""
        peer = self._peers.get(path)
        if peer is not None:
            reply = peer.seen.get(mid)
            if reply is not None:
                self._counters.add("coap_duplicates")
                if reply and first < FIRST_NON:
                    self._reply_again(reply, data, peer, path, now)
                return
        start = 4 + (first & 15)
        size = len(data)
        end = data.find(b"\xff", start)
        if end < 0:
            known = self._known[code].get(data[start:])
            payload = b""
        else:
            # The first 0xFF may be inside an option; but what is known is a whole option block, so behind one it is the
            # payload marker.
            known = self._known[code].get(data[start:end])
            payload = data[end + 1 :]
        if known is None or start > size or start > 4 + MAX_TOKEN or end + 1 == size or size > self._max_bytes:
            self._receive_unknown(data, path, now, first, code, mid, peer)
            return
        options, route = known
        kind = Type.CON if first < FIRST_NON else Type.NON
        self._serve(Message(code, options, payload, kind, mid, data[4:start]), route, peer, path, size, now)

    def _reply_again(self, reply: bytes, data: bytes, peer: Peer, path: Path, now: float) -> None:
        # Section 4.5: a duplicate gets the same acknowledgement. What only has the Message ID of an earlier request may
        # be far shorter than that was, so the bound for unverified addresses is kept for each datagram anew.
        size = len(data)
        if self._gate and now >= peer.verified_until and len(reply) > self._budget(path, size):
            try:
                token, _ = decode_token(data, self._max_token)
            except MessageFormatError:
                return
            reply = self._bytes(ACK_BITS, data[2] << 8 | data[3], token, self._challenge(path, now))
        self._outgoing.append((reply, path))

    def respond(self, exchange: int, response: Message, now: float) -> None:
        """The application's response: piggybacked while the request is unacknowledged, else separate."""
        if not is_response(response.code):
            raise ValueError(f"code {response.code} is no response's")
        found = self._exchanges.pop(exchange, None)
        if found is None:
            if self._observations is not None and self._observations.respond(exchange, response, now):
                return
            self._counters.add("coap_responses_undelivered", "late")
            return
        core = self._core
        core.timers.clear(found)
        peer = found.peer
        peer.deferred -= 1
        peer.heard = now
        request = found.request
        if self._extensions is not None:
            response = self._finish(found, response, now)
            if found.extended is not None and found.extended.muted and found.extended.mutes(request, response.code):
                self._mute(found)
                return
        if not found.acknowledged:
            reply = self._encode(request, response, peer, now)
            if len(reply) > found.budget:
                reply = self._encode(request, self._challenge(peer.path, now), peer, now)
            if found.confirmable:
                self._deduplication.replace(peer, found.mid, reply)
            if reply:
                self._outgoing.append((reply, peer.path))
            return
        mid = peer.mids.take(now, self._lifetime)
        if mid is None:
            core.counters.add("coap_limit_reached", "message_ids")
            core.counters.add("coap_responses_undelivered", "message_ids")
            return
        # To an unverified address nothing is retransmitted (RFC 9175 section 2.4 item 3).
        confirmable = found.budget == UNLIMITED and not core.reliability.full
        if found.budget == UNLIMITED and not confirmable:
            core.counters.add("coap_limit_reached", "transmissions")
        bits = VERSION_BITS if confirmable else NON_BITS
        data = self._bytes(bits, mid, found.token, response)
        if len(data) > found.budget:
            data = self._bytes(bits, mid, found.token, self._challenge(peer.path, now))
        if confirmable:
            core.reliability.send(data, peer.path, mid, SeparateResponse(core), now)
        else:
            self._outgoing.append((data, peer.path))

    def notify(
        self, resource: tuple[bytes, ...], now: float, response: Message | None = None, confirmable: bool | None = None
    ) -> int:
        """The state of a resource changed: send notifications to who observes it, and return how many do."""
        if self._observations is None:
            return 0
        return self._observations.notify(resource, now, response, confirmable=confirmable)

    def notify_client(self, path: Path, token: bytes, response: Message, now: float) -> bool:
        """Give one observer the newest state; False where it observes no longer."""
        return self._observations is not None and self._observations.notify_one(path, token, response, now)

    def encode(self, bits: int, mid: int, token: bytes, message: Message) -> bytes:
        """``message`` as a datagram, with ``bits`` for version and type."""
        return self._bytes(bits, mid, token, message)

    @property
    def extensions(self) -> Extensions | None:
        """The layers for blocks and observations, where there are any."""
        return self._extensions

    def _finish(self, found: ServerExchange, response: Message, now: float) -> Message:
        path = found.peer.path
        verified = found.budget == UNLIMITED
        if self._extensions is None or not (verified or len(response.payload) <= found.budget):
            return response
        if found.extended is not None:
            return found.extended.finish(found.request, response, path, "", now)
        return self._extensions.cut(found.request, response, path, "", now)

    def _mute(self, found: ServerExchange) -> None:
        # RFC 7967 section 2: no response; a Confirmable request is acknowledged all the same.
        self._counters.add("coap_responses_undelivered", "no_response")
        if found.confirmable and not found.acknowledged:
            reply = encode_empty(Type.ACK, found.mid)
            self._deduplication.replace(found.peer, found.mid, reply)
            self._outgoing.append((reply, found.peer.path))

    def due(self, exchange: ServerExchange, now: float) -> None:
        """A deadline of ``exchange``: acknowledge with an Empty message, or forget it."""
        if now < exchange.ends and not exchange.acknowledged:
            exchange.acknowledged = True
            reply = encode_empty(Type.ACK, exchange.mid)
            self._deduplication.replace(exchange.peer, exchange.mid, reply)
            exchange.budget -= len(reply) if exchange.budget != UNLIMITED else 0
            self._outgoing.append((reply, exchange.peer.path))
            self._core.timers.set(exchange, exchange.ends)
        else:
            del self._exchanges[exchange.exchange]
            exchange.peer.deferred -= 1
            self._counters.add("coap_responses_undelivered", "unanswered")

    # How a request is judged that is not known yet

    def _receive_unknown(
        self, data: bytes, path: Path, now: float, first: int, code: int, mid: int, peer: Peer | None
    ) -> None:
        kind = Type.CON if first < FIRST_NON else Type.NON
        size = len(data)
        try:
            token, start = decode_token(data, self._max_token)
            request = Message(code, (), b"", kind, mid, token)
            if size > self._max_bytes:
                self._counters.add("coap_limit_reached", "message_bytes")
                size1 = ((Option.SIZE1, encode_uint(self._max_bytes)),)
                self._error(request, Message(Code.REQUEST_ENTITY_TOO_LARGE, size1), peer, path, size, now)
                return
            request.options, request.payload = decode_options(data, start)
        except MessageFormatError as error:
            error.type = kind
            self._core.reject(path, mid, error.reason, reset=error.answer is Answer.RESET)
            return
        forwarding = self._core.forwarding
        if forwarding is not None and not forwarding.takes(request.options):
            forwarding = None
        check = check_options if forwarding is None else check_forwarded
        kept, bad = check(request.options, Use.REQUEST, SERVER_CRITICAL | self._core.understands)
        plain = kept is request.options
        block_end = size - len(request.payload) - (1 if request.payload else 0)
        request.options = kept
        if bad:
            self._counters.add("coap_rejected", "bad_option")
            self._error(request, bad_option(bad), peer, path, size, now)
            return
        echo = request.option(Option.ECHO)
        if echo is not None:
            peer = self._verify(echo, peer, path, now)
        route = self._route(request) if forwarding is None else self._forwarded(request, forwarding)
        if not isinstance(route, Route):
            self._error(request, Message(route), peer, path, size, now)
            return
        if self._site is not None and forwarding is None:
            refused = self._site.refuse(route, request, path, "", now)
            if refused is not None:
                self._error(request, refused, peer, path, size, now)
                return
        extended = None
        if self._extensions is not None and any(number in EXTENSION_OPTIONS for number, _ in kept):
            extended = Extended(self._extensions, request, route)
            route = extended.route
        elif self._site is not None and plain and echo is None and not route.once and route.fresh_within is None:
            self._keep_known(code, data[start:block_end], kept, route)
        self._serve(request, route, peer, path, size, now, extended)

    def _route(self, request: Message) -> Route | int:
        if request.option(Option.PROXY_URI) is not None or request.option(Option.PROXY_SCHEME) is not None:
            return Code.PROXYING_NOT_SUPPORTED  # section 5.7.2
        if request.code not in METHODS:
            return Code.METHOD_NOT_ALLOWED  # section 5.8
        return _EVENT if self._site is None else self._site.find(request.code, request.options)

    @staticmethod
    def _forwarded(request: Message, forwarding: Forwarding) -> Route | int:
        # Nothing is forwarded for an address that is not verified: the request would reach others by our hand.
        if request.code not in METHODS:
            return Code.METHOD_NOT_ALLOWED
        return Route(forwarding.handle, once=True, forwards=True)

    def _keep_known(self, code: int, block: bytes, options: Options, route: Route) -> None:
        if len(block) > self._core.limits.known_option_bytes:
            return
        if self._known_count >= self._core.limits.known_options:
            self._counters.add("coap_limit_reached", "known_options")
            self._forget_known()
        self._known[code][block] = (options, route)
        self._known_count += 1

    def _forget_known(self) -> None:
        for known in self._known:
            known.clear()
        self._known_count = 0

    # How a request is answered

    def _serve(
        self,
        request: Message,
        route: Route,
        peer: Peer | None,
        path: Path,
        size: int,
        now: float,
        extended: Extended | None = None,
    ) -> None:
        # ``budget``: the bytes that may be sent for it.
        if not self._gate or (peer is not None and now < peer.verified_until):
            budget = UNLIMITED
        else:
            budget = self._budget(path, size)
            if budget != UNLIMITED and not route.small and (route.once or request.code not in SAFE_METHODS):
                # RFC 9175 section 2.3: not processed before the address is verified.
                self._error(request, self._challenge(path, now), peer, path, size, now)
                return
            if budget != UNLIMITED and extended is not None and extended.keeps_state(self._site is None):
                # Notifications would be unbounded amplification, and blocks of strangers would fill the tables.
                self._error(request, self._challenge(path, now), peer, path, size, now)
                return
        if not route.idempotent:
            peer = self._admit(request, path, budget, size, now)
            if peer is None:
                return
        try:
            response = route.handler(request, path, "", now)
        except ResponseError as error:
            response = error.response()
        self._counters["coap_requests_received"] += 1
        if response is None:
            self._defer(request, peer, path, budget, size, now, extended)
            return
        if extended is not None or len(response.payload) > self._block_bytes:
            response = self._extend(request, response, extended, path, budget, now)
        reply = self._encode(request, response, peer, now)
        if len(reply) > budget:
            if request.code in SAFE_METHODS and not route.once:
                response = self._challenge(path, now)
            else:
                self._counters.add("coap_limit_reached", "unverified_response_bytes")
                response = Message(response.code)
            reply = self._encode(request, response, peer, now)
        if extended is not None and extended.muted and extended.mutes(request, response.code):
            self._counters.add("coap_responses_undelivered", "no_response")
            reply = encode_empty(Type.ACK, request.mid) if request.type == Type.CON else b""
        if not route.idempotent and peer is not None:
            confirmable = request.type == Type.CON
            peer.heard = now
            self._deduplication.remember(peer, request.mid, reply if confirmable else b"", now, confirmable=confirmable)
        if reply:
            self._outgoing.append((reply, path))

    def _extend(
        self, request: Message, response: Message, extended: Extended | None, path: Path, budget: int, now: float
    ) -> Message:
        # For an unverified address nothing is kept but what fits one datagram; the rest gets a challenge anyway.
        if self._extensions is None or len(response.payload) > budget:
            return response
        if extended is None:
            return self._extensions.cut(request, response, path, "", now)
        return extended.finish(request, response, path, "", now)

    def _admit(self, request: Message, path: Path, budget: int, size: int, now: float) -> Peer | None:
        # A record for a message that is to be remembered; where there is no room the request is answered here.
        verified = budget == UNLIMITED
        peer = self._peers.admit(path, now) if verified else self._peers.admit_unverified(path, now)
        limit = ""
        if peer is not None:
            limit = self._deduplication.full(peer)
            if not verified and len(peer.seen) >= self._core.limits.messages_per_unverified_peer:
                limit = "messages_per_unverified_peer"
            if not limit:
                return peer
            self._counters.add("coap_limit_reached", limit)
        self._error(request, _BUSY if verified else self._challenge(path, now), peer, path, size, now)
        return None

    def _defer(
        self,
        request: Message,
        peer: Peer | None,
        path: Path,
        budget: int,
        size: int,
        now: float,
        extended: Extended | None,
    ) -> None:
        core = self._core
        if peer is None or request.mid not in peer.seen:
            peer = self._admit(request, path, budget, size, now)
            if peer is None:
                return
        verified = budget == UNLIMITED
        waiting = max(len(self._exchanges), len(core.events))
        limit = "deferred_per_peer" if peer.deferred >= core.limits.deferred_per_peer else ""
        if waiting >= (core.limits.deferred if verified else core.limits.deferred // 4):
            limit = "deferred"
        if limit:
            self._counters.add("coap_limit_reached", limit)
            self._error(request, _BUSY if verified else self._challenge(path, now), peer, path, size, now)
            return
        peer.deferred += 1
        confirmable = request.type == Type.CON
        peer.heard = now
        self._deduplication.remember(peer, request.mid, b"", now, confirmable=confirmable)
        exchange = core.new_exchange()
        ends = now + self._lifetime
        kept = self._exchanges[exchange] = ServerExchange(self, exchange, peer, request, budget, ends, extended)
        core.timers.set(kept, now + core.parameters.piggyback_window if confirmable else ends)
        core.events.append(RequestReceived(exchange, request, path, ""))

    def _error(self, request: Message, response: Message, peer: Peer | None, path: Path, size: int, now: float) -> None:
        # A response that needs no memory: a duplicate of the request is judged anew and gets the same.
        self._counters.add("coap_errors_sent", code_text(response.code))
        reply = self._encode(request, response, peer, now)
        if response.payload and len(reply) > AMPLIFICATION * size:
            reply = self._encode(request, Message(response.code, response.options), peer, now)
        if self._extensions is not None and is_muted(request, response.code):
            reply = encode_empty(Type.ACK, request.mid) if request.type == Type.CON else b""
        if reply:
            self._outgoing.append((reply, path))

    # Addresses

    def _budget(self, path: Path, size: int) -> int:
        if self._trusted is not None and self._trusted(path):
            return UNLIMITED
        return min(AMPLIFICATION * size, self._most)

    def _challenge(self, path: Path, now: float) -> Message:
        self._counters.add("coap_challenges")
        return self._echo.challenge(path, now)

    def _verify(self, value: bytes, peer: Peer | None, path: Path, now: float) -> Peer | None:
        age = self._echo.age(value, path, now)
        if age is not None and age <= self._core.parameters.echo_lifetime:
            peer = self._peers.admit(path, now) if peer is None else peer
            if peer is not None:
                self._peers.verify(peer, now)
                self._counters.add("coap_addresses_verified")
        return peer

    # Bytes

    def _encode(self, request: Message, response: Message, peer: Peer | None, now: float) -> bytes:
        # The acknowledgement or Non-confirmable message that carries ``response``; b'' where no Message ID is free.
        if request.type == Type.CON:
            return self._bytes(ACK_BITS, request.mid, request.token, response)
        mid: int | None
        if peer is None:
            # Without a record of the peer, Message IDs follow the request's own, which it does not repeat within their
            # lifetime either; a duplicate that runs again gets the same one and so looks like one to the client.
            mid = self._mid_base + request.mid & 0xFFFF
        else:
            peer.heard = now
            mid = peer.mids.take(now, self._lifetime)
            if mid is None:
                self._counters.add("coap_limit_reached", "message_ids")
                return b""
        return self._bytes(NON_BITS, mid, request.token, response)

    def _bytes(self, bits: int, mid: int, token: bytes, response: Message) -> bytes:
        # ``response`` as a datagram; ``bits``: version and type.
        encoded = self._option_bytes.get(response.options)
        if encoded is None:
            encoded = self._encode_new(response.options)
        payload = response.payload
        length = len(token)
        if length > 12:
            length, token = encode_token(token)
        head = HEADER.pack(bits | length, response.code, mid)
        if len(encoded) + len(payload) + len(token) + 5 > self._max_bytes:
            self._counters.add("coap_limit_reached", "message_bytes")
            return HEADER.pack(bits | length, Code.INTERNAL_SERVER_ERROR, mid) + token
        if payload:
            return b"%b%b%b\xff%b" % (head, token, encoded, payload)
        return head + token + encoded

    def _encode_new(self, options: Options) -> bytes:
        encoded = encode_options(options)
        if len(encoded) <= self._core.limits.known_option_bytes:
            if len(self._option_bytes) >= self._core.limits.known_options:
                self._option_bytes = {(): b""}
            self._option_bytes[options] = encoded
        return encoded


def _no_handler(_request: Message, _path: Path, _identity: str, _now: float) -> None:
    return None


_EVENT = Route(_no_handler)
"""Without a site every request is the application's, by event."""
_BUSY = Message(Code.SERVICE_UNAVAILABLE, build_options(max_age=BUSY_SECONDS))

"""The client side: requests of ours, their matching with responses (RFC 7252 section 5.3) and NSTART (section 4.7)."""

from dataclasses import replace

from vitalgate.coap.codec import (
    HEADER,
    MAX_TOKEN,
    VERSION_BITS,
    Answer,
    MessageFormatError,
    decode,
    encode_empty,
    encode_options,
    encode_payload,
)
from vitalgate.coap.core import Core
from vitalgate.coap.events import Failure, RequestFailed, ResponseReceived
from vitalgate.coap.forwarding import check_forwarded
from vitalgate.coap.message import Code, Message, Type, is_request, is_response
from vitalgate.coap.options import Option, Use, check_options, with_option
from vitalgate.coap.peers import Peer
from vitalgate.coap.reliability import Transmission
from vitalgate.engine import Path


class ClientExchange:
    """One request of ours, from `Client.request` until its response or failure. Waiting in its peer's queue it has no
    token; under way it is found by token, and a Non-confirmable one by Message ID too (for a Reset)."""

    __slots__ = (
        "_client", "confirmable", "due", "echoed", "exchange", "expires", "holds", "mid", "peer", "request", "tail",
        "token", "transmission",
    )  # fmt: skip

    def __init__(
        self, client: "Client", exchange: int, request: Message, tail: bytes, peer: Peer, *, confirmable: bool
    ) -> None:
        self._client = client
        self.exchange = exchange
        self.request = request
        self.tail = tail
        """Options and payload as they are sent."""
        self.peer = peer
        self.confirmable = confirmable
        self.token: bytes | None = None
        self.mid = 0
        self.transmission: Transmission | None = None
        self.holds = False
        """True while it counts as an outstanding interaction with its peer."""
        self.echoed = False
        """True once a 4.01 with Echo was answered: a second one is the application's."""
        self.expires = 0.0
        self.due: float | None = None

    def acknowledged(self, now: float) -> None:
        """An Empty acknowledgement came: the response will come separately (section 5.2.2)."""
        self.transmission = None
        self._client.wait(self, now)

    def reset(self, now: float) -> None:
        """The peer rejected the request."""
        self.transmission = None
        self._client.fail(self, Failure.RESET, now)

    def timed_out(self, now: float) -> None:
        """The peer never acknowledged."""
        self.transmission = None
        self._client.fail(self, Failure.TIMEOUT, now)

    def on_due(self, now: float) -> None:
        """The share of NSTART may be given back, or the wait for the response is over."""
        self._client.due(self, now)


class Client:
    """Requests of ours by number, by (path, token), and Non-confirmable ones by (path, Message ID)."""

    __slots__ = ("_core", "_exchanges", "_lifetime", "_non", "_tokens", "_wakeups")

    def __init__(self, core: Core) -> None:
        self._core = core
        self._lifetime = core.parameters.exchange_lifetime
        self._exchanges: dict[int, ClientExchange] = {}
        self._tokens: dict[tuple[Path, bytes], ClientExchange] = {}
        self._non: dict[tuple[Path, int], ClientExchange] = {}
        self._wakeups: dict[Path, Wakeup] = {}

    def __len__(self) -> int:
        return len(self._exchanges)

    def request(self, request: Message, path: Path, now: float, *, confirmable: bool) -> int:
        """Send ``request`` as soon as NSTART lets it; the result comes as an event."""
        core = self._core
        exchange = core.new_exchange()
        # What cannot be encoded is the caller's mistake and is refused here, not later out of the queue.
        if not is_request(request.code):
            raise ValueError(f"code {request.code} is no request's")
        tail = encode_options(request.options) + encode_payload(request.payload)
        limit = ""
        peer = None
        if HEADER.size + MAX_TOKEN + len(tail) > core.limits.message_bytes:
            limit = "message_bytes"
        elif len(self._exchanges) >= core.limits.exchanges:
            limit = "exchanges"
        else:
            peer = core.peers.choose(path, now)
            if peer is not None and len(peer.queue) >= core.limits.queued_per_peer:
                limit = "queued_per_peer"
        if limit or peer is None:
            if limit:
                core.counters.add("coap_limit_reached", limit)
            core.counters.add("coap_requests_failed", Failure.LIMIT.value)
            core.events.append(RequestFailed(exchange, path, Failure.LIMIT))
            return exchange
        started = ClientExchange(self, exchange, request, tail, peer, confirmable=confirmable)
        self._exchanges[exchange] = started
        peer.exchanges += 1
        peer.queue.append(started)
        self._start(peer, now)
        return exchange

    def cancel(self, exchange: int, now: float) -> None:
        """Lose interest in a request of ours; harmless where it has ended."""
        found = self._exchanges.get(exchange)
        if found is not None:
            self.fail(found, Failure.CANCELLED, now)

    def receive_response(self, data: bytes, path: Path, now: float, kind: Type, mid: int) -> None:
        """A Confirmable or Non-confirmable message with a response code: a separate one (sections 5.2.2, 5.2.3)."""
        core = self._core
        confirmable = kind is Type.CON
        peer = core.peers.get(path)
        if peer is not None:
            reply = peer.seen.get(mid)
            if reply is not None:
                core.counters.add("coap_duplicates")
                # What a response was answered is an Empty message; a longer reply is to a request with its Message ID.
                if confirmable and len(reply) == HEADER.size:
                    core.outgoing.append((reply, path))
                return
        try:
            message = decode(data)
        except MessageFormatError as error:
            core.reject(path, mid, error.reason, reset=error.answer is Answer.RESET)
            return
        exchange = self._tokens.get((path, message.token))
        if exchange is None and core.group_response is not None and core.group_response(message, path):
            return
        if exchange is None:
            # Section 5.3.2: rejected. A Reset for a Non-confirmable one too: it ends observations we do not know.
            core.reject(path, mid, "unexpected_response", reset=True)
            return
        if core.accepts is not None and not core.accepts(exchange.exchange, message, path):
            core.reject(path, mid, "protection", reset=False)
            return
        if not self._take_options(exchange, message, now):
            if confirmable:
                core.outgoing.append((encode_empty(Type.RST, mid), path))
            return
        reply = b""
        if confirmable:
            reply = encode_empty(Type.ACK, mid)
            core.outgoing.append((reply, path))
        limit = core.deduplication.full(exchange.peer)
        if limit:
            # A duplicate will look unexpected and be reset, which section 5.3.2 calls normal.
            core.counters.add("coap_limit_reached", limit)
        else:
            core.deduplication.remember(exchange.peer, mid, reply, now, confirmable=confirmable)
        self._respond(exchange, message, now)

    def receive_acknowledgement(self, data: bytes, path: Path, now: float, mid: int) -> None:
        """An Acknowledgement: Empty, or with a piggybacked response (section 5.2.1). Never answered (section 4.2)."""
        core = self._core
        try:
            message = decode(data)
        except MessageFormatError as error:
            core.reject(path, mid, error.reason, reset=False)
            return
        if message.code and not is_response(message.code):
            core.reject(path, mid, "reserved_code", reset=False)
            return
        transmission = core.reliability.find(path, mid)
        if transmission is None:
            core.reject(path, mid, "unexpected_acknowledgement", reset=False)
            return
        sender = transmission.sender
        if message.code and isinstance(sender, ClientExchange):
            if message.token != sender.token:
                core.reject(path, mid, "token", reset=False)
                return
            if core.accepts is not None and not core.accepts(sender.exchange, message, path):
                core.reject(path, mid, "protection", reset=False)
                return
            if self._take_options(sender, message, now):
                self._respond(sender, message, now)
            return
        # Of an acknowledgement of a response of ours, code and payload are ignored (section 5.2.2).
        core.reliability.stop(transmission)
        sender.acknowledged(now)

    def receive_reset(self, data: bytes, path: Path, now: float, mid: int) -> None:
        """A Reset message: whatever was under way with this Message ID is over. Never answered (section 4.2)."""
        core = self._core
        try:
            message = decode(data)
        except MessageFormatError as error:
            core.reject(path, mid, error.reason, reset=False)
            return
        if message.code:
            core.reject(path, mid, "reset_with_code", reset=False)
            return
        transmission = core.reliability.find(path, mid)
        if transmission is not None:
            core.reliability.stop(transmission)
            transmission.sender.reset(now)
            return
        exchange = self._non.get((path, mid))
        if exchange is not None:
            self.fail(exchange, Failure.RESET, now)
        elif core.reset_notification is None or not core.reset_notification(path, mid, now):
            core.reject(path, mid, "unexpected_reset", reset=False)

    def wait(self, exchange: ClientExchange, now: float) -> None:
        """The request was acknowledged: it no longer counts for NSTART, and its response has its own time to come."""
        exchange.expires = now + self._core.parameters.response_timeout
        self._core.timers.set(exchange, exchange.expires)
        self._release(exchange, now)

    def due(self, exchange: ClientExchange, now: float) -> None:
        """A deadline of an exchange without a transmission passed."""
        if now >= exchange.expires:
            self.fail(exchange, Failure.TIMEOUT, now)
        else:
            self._core.timers.set(exchange, exchange.expires)
            self._release(exchange, now)

    def fail(self, exchange: ClientExchange, reason: Failure, now: float) -> None:
        """End ``exchange`` with an event that says why."""
        self._core.counters.add("coap_requests_failed", reason.value)
        self._core.events.append(RequestFailed(exchange.exchange, exchange.peer.path, reason))
        self._end(exchange, now)

    def start_queued(self, path: Path, now: float) -> None:
        """Message IDs towards ``path`` are free again."""
        self._wakeups.pop(path, None)
        peer = self._core.peers.get(path)
        if peer is not None:
            self._start(peer, now)

    def _start(self, peer: Peer, now: float) -> None:
        # Send what NSTART allows of the peer's queue.
        nstart = self._core.parameters.nstart
        while peer.queue and peer.outstanding < nstart:
            mid = peer.mids.take(now, self._lifetime)
            if mid is None:
                # Section 4.4: no Message ID twice within EXCHANGE_LIFETIME, so the queue waits.
                if peer.path not in self._wakeups:
                    self._core.counters.add("coap_limit_reached", "message_ids")
                    wakeup = self._wakeups[peer.path] = Wakeup(self, peer.path)
                    self._core.timers.set(wakeup, peer.mids.free_at(self._lifetime))
                return
            exchange = peer.queue.popleft()
            peer.outstanding += 1
            exchange.holds = True
            self._send(exchange, mid, now)

    def _send(self, exchange: ClientExchange, mid: int, now: float) -> None:
        core = self._core
        peer = exchange.peer
        peer.heard = now
        # Section 5.3.1: 8 random bytes, so that who does not see our requests cannot make up a response.
        token = core.randomness(MAX_TOKEN)
        while (peer.path, token) in self._tokens:
            token = core.randomness(MAX_TOKEN)
        exchange.token = token
        exchange.mid = mid
        self._tokens[peer.path, token] = exchange
        tail = exchange.tail
        if peer.echo:
            if exchange.request.option(Option.ECHO) is None:
                options = with_option(exchange.request.options, Option.ECHO, peer.echo)
                tail = encode_options(options) + encode_payload(exchange.request.payload)
            peer.echo = b""
        kind = Type.CON if exchange.confirmable else Type.NON
        data = HEADER.pack(VERSION_BITS | kind << 4 | MAX_TOKEN, exchange.request.code, mid) + token + tail
        if exchange.confirmable:
            exchange.transmission = core.reliability.send(data, peer.path, mid, exchange, now)
            return
        self._non[peer.path, mid] = exchange
        core.outgoing.append((data, peer.path))
        # Section 4.7: towards a peer that does not answer no more than PROBING_RATE on average, so an unanswered
        # request counts as outstanding for as long as its bytes take at that rate.
        exchange.expires = now + core.parameters.response_timeout
        core.timers.set(exchange, min(exchange.expires, now + len(data) / core.parameters.probing_rate))

    def _take_options(self, exchange: ClientExchange, message: Message, now: float) -> bool:
        # False where the response has to be rejected (section 5.4.1); the exchange has then failed.
        check = check_forwarded if self._core.relays else check_options
        kept, bad = check(message.options, Use.RESPONSE, self._core.understands)
        if bad:
            self._core.counters.add("coap_rejected", "bad_option")
            self.fail(exchange, Failure.REJECTED, now)
            return False
        message.options = kept
        return True

    def _respond(self, exchange: ClientExchange, message: Message, now: float) -> None:
        core = self._core
        peer = exchange.peer
        peer.heard = now
        core.peers.verify(peer, now)  # it knew a token that we sent to its address
        echo = message.option(Option.ECHO)
        if echo is not None:
            # RFC 9175 section 2.3: sent again with the value after 4.01, else kept for the next request.
            peer.echo = echo
            if message.code == Code.UNAUTHORIZED and not exchange.echoed:
                self._detach(exchange)
                exchange.echoed = True
                options = with_option(exchange.request.options, Option.ECHO, echo)
                exchange.request = replace(exchange.request, options=options)
                exchange.tail = encode_options(options) + encode_payload(exchange.request.payload)
                peer.echo = b""
                self._release(exchange, now, start=False)
                peer.queue.appendleft(exchange)
                self._start(peer, now)
                return
        core.counters.add("coap_responses_received")
        core.events.append(ResponseReceived(exchange.exchange, message, peer.path))
        self._end(exchange, now)

    def _detach(self, exchange: ClientExchange) -> None:
        # Nothing that arrives or falls due from now on is about this sending of the request.
        self._core.timers.clear(exchange)
        if exchange.transmission is not None:
            self._core.reliability.stop(exchange.transmission)
            exchange.transmission = None
        if exchange.token is not None:
            self._tokens.pop((exchange.peer.path, exchange.token), None)
            self._non.pop((exchange.peer.path, exchange.mid), None)
            exchange.token = None
        else:
            exchange.peer.queue.remove(exchange)

    def _end(self, exchange: ClientExchange, now: float) -> None:
        self._detach(exchange)
        del self._exchanges[exchange.exchange]
        exchange.peer.exchanges -= 1
        self._release(exchange, now)

    def _release(self, exchange: ClientExchange, now: float, *, start: bool = True) -> None:
        # Give back the share of NSTART.
        if exchange.holds:
            exchange.holds = False
            exchange.peer.outstanding -= 1
            if start:
                self._start(exchange.peer, now)


class Wakeup:
    """Starts a peer's queue when Message IDs are free again."""

    __slots__ = ("_client", "_path", "due")

    def __init__(self, client: Client, path: Path) -> None:
        self._client = client
        self._path = path
        self.due: float | None = None

    def on_due(self, now: float) -> None:
        """Message IDs are free again."""
        self._client.start_queued(self._path, now)

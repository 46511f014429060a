"""The client side: requests of ours, their matching with responses (RFC 7252 section 5.3) and NSTART (section 4.7)."""

from dataclasses import replace
from typing import Protocol

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
from vitalgate.coap.events import Failure, RequestFailed, RequestSent, ResponseReceived
from vitalgate.coap.forwarding import check_forwarded
from vitalgate.coap.message import Code, Message, Type, is_request, is_response
from vitalgate.coap.options import Option, Use, check_options, with_option
from vitalgate.coap.peers import Peer
from vitalgate.coap.reliability import Transmission
from vitalgate.engine import Path

_TOO_LARGE = int(Code.REQUEST_ENTITY_TOO_LARGE)
_BLOCK2 = int(Option.BLOCK2)
MUTES_ALL = 0b11010
"""No-Response for classes 2, 4 and 5 (RFC 7967 section 2.1)."""


class Owner(Protocol):
    """Who sent a request on behalf of another layer, and takes its outcome in place of the application."""

    def answered(self, response: Message, now: float, *, more: bool) -> None:
        """A response; ``more``: it is a notification, and others follow."""

    def failed(self, reason: Failure, now: float) -> None:
        """No response comes (any more)."""


def is_notification(response: Message) -> bool:
    """True for a response after which more may come under the same token (RFC 7641 section 3.2)."""
    return response.code >> 5 == 2 and response.option(Option.OBSERVE) is not None


class ClientExchange:
    """One request of ours, from `Client.request` until its response or failure. Waiting in its peer's queue it has no
    token; under way it is found by token, and a Non-confirmable one by Message ID too (for a Reset). One that observes
    stays under its token for the notifications, and may be sent again under it."""

    __slots__ = (
        "_client", "confirmable", "due", "echoed", "ending", "exchange", "expires", "holds", "mid", "observing",
        "owner", "peer", "queued", "quiet", "request", "tail", "token", "transmission",
    )  # fmt: skip

    def __init__(
        self, client: "Client", exchange: int, request: Message, tail: bytes, peer: Peer, *, confirmable: bool
    ) -> None:
        self.owner: Owner | None = None
        self.observing = False
        """True where responses with an Observe option do not end it."""
        self.ending = False
        """True once it has asked to observe no longer: what comes with an Observe option is not the answer to that."""
        self.quiet = 0
        """Its No-Response option."""
        self.queued = True
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
        """An Empty acknowledgement came: the response will come separately (section 5.2.2), if one was asked for."""
        self.transmission = None
        if self.quiet & MUTES_ALL == MUTES_ALL:
            self._client.sent(self, now)
        else:
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

    __slots__ = ("_core", "_exchanges", "_lifetime", "_non", "_tokens", "_wakeups", "protects")

    def __init__(self, core: Core) -> None:
        self._core = core
        self._lifetime = core.parameters.exchange_lifetime
        self._exchanges: dict[int, ClientExchange] = {}
        self._tokens: dict[tuple[Path, bytes], ClientExchange] = {}
        self._non: dict[tuple[Path, int], ClientExchange] = {}
        self._wakeups: dict[Path, Wakeup] = {}
        self.protects = False

    def __len__(self) -> int:
        return len(self._exchanges)

    def request(
        self, request: Message, path: Path, now: float, *, confirmable: bool, owner: Owner | None = None,
        observing: bool = False, quiet: int = 0,
    ) -> int:  # fmt: skip
        """Send ``request`` as soon as NSTART lets it; the result goes to ``owner``, or is an event. ``observing``: it
        asks to observe; ``quiet``: the value of its No-Response option."""
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
            if owner is None:
                core.events.append(RequestFailed(exchange, path, Failure.LIMIT))
            else:
                owner.failed(Failure.LIMIT, now)
            return exchange
        started = ClientExchange(self, exchange, request, tail, peer, confirmable=confirmable)
        started.owner = owner
        started.observing = observing
        started.quiet = quiet
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

    def send(
        self, request: Message, path: Path, _identity: str, now: float, owner: Owner, *, confirmable: bool,
        observing: bool,
    ) -> int:  # fmt: skip
        """`request` on behalf of another layer (`calls.Carrier`)."""
        return self.request(request, path, now, confirmable=confirmable, owner=owner, observing=observing)

    def renew(self, exchange: int, request: Message, now: float, *, ending: bool) -> bool:
        """Send another request under the token of one that observes: to register again, or where ``ending`` to observe
        no longer (RFC 7641 sections 3.3.1, 3.6). False where that is over, or still under way itself."""
        found = self._exchanges.get(exchange)
        if found is None or found.token is None or found.transmission is not None or found.due is not None:
            return False
        if found.queued or len(found.peer.queue) >= self._core.limits.queued_per_peer:
            return False
        found.request = request
        found.tail = encode_options(request.options) + encode_payload(request.payload)
        found.ending = ending
        found.echoed = False
        found.queued = True
        found.peer.queue.append(found)
        self._start(found.peer, now)
        return True

    def drop(self, exchange: int, now: float) -> None:
        """Lose interest in a request whose owner needs not be told."""
        found = self._exchanges.get(exchange)
        if found is not None:
            self._end(found, now)

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
        if exchange.ending and is_notification(message):
            return  # sent before the request to observe no longer arrived, whose answer is still to come
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
        if now < exchange.expires:
            self._core.timers.set(exchange, exchange.expires)
            self._release(exchange, now)
        elif exchange.quiet:
            self.sent(exchange, now)  # RFC 7967 section 2.1: what it did not want may be what there was
        else:
            self.fail(exchange, Failure.TIMEOUT, now)

    def fail(self, exchange: ClientExchange, reason: Failure, now: float) -> None:
        """End ``exchange`` and say why."""
        self._core.counters.add("coap_requests_failed", reason.value)
        if exchange.owner is None:
            self._core.events.append(RequestFailed(exchange.exchange, exchange.peer.path, reason))
            self._end(exchange, now)
        else:
            self._end(exchange, now)
            exchange.owner.failed(reason, now)

    def sent(self, exchange: ClientExchange, now: float) -> None:
        """End ``exchange``, which did not want the response that has not come."""
        self._core.events.append(RequestSent(exchange.exchange, exchange.peer.path))
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
            exchange.queued = False
            peer.outstanding += 1
            exchange.holds = True
            self._send(exchange, mid, now)

    def _send(self, exchange: ClientExchange, mid: int, now: float) -> None:
        core = self._core
        peer = exchange.peer
        peer.heard = now
        # Section 5.3.1: 8 random bytes, so that who does not see our requests cannot make up a response.
        token = exchange.token
        if token is None:
            token = core.randomness(MAX_TOKEN)
            while (peer.path, token) in self._tokens:
                token = core.randomness(MAX_TOKEN)
            exchange.token = token
            self._tokens[peer.path, token] = exchange
        exchange.mid = mid
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
        probing = now + len(data) / core.parameters.probing_rate
        exchange.expires = now + core.parameters.response_timeout
        if exchange.quiet & MUTES_ALL == MUTES_ALL:
            exchange.expires = probing
        core.timers.set(exchange, min(exchange.expires, probing))

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
                exchange.queued = True
                peer.queue.appendleft(exchange)
                self._start(peer, now)
                return
        core.counters.add("coap_responses_received")
        owner = exchange.owner
        if owner is not None:
            self._hand_on(exchange, owner, message, now)
            return
        calls = core.calls
        options = message.options
        if calls is not None and (message.code >= _TOO_LARGE or (options and options[-1][0] >= _BLOCK2)):
            request = exchange.request
            if calls.continues(request, message, peer.path, now):
                self._end(exchange, now)
                calls.resume(exchange.exchange, request, message, peer.path, now, confirmable=exchange.confirmable)
                return
        core.events.append(ResponseReceived(exchange.exchange, message, peer.path))
        self._end(exchange, now)

    def _hand_on(self, exchange: ClientExchange, owner: Owner, message: Message, now: float) -> None:
        more = exchange.observing and not exchange.ending and is_notification(message)
        if not more:
            self._end(exchange, now)
        else:
            # Its token stays; the request itself, if it was under way, has its answer.
            self._core.timers.clear(exchange)
            if exchange.transmission is not None:
                self._core.reliability.stop(exchange.transmission)
                exchange.transmission = None
            self._non.pop((exchange.peer.path, exchange.mid), None)
            self._release(exchange, now)
        owner.answered(message, now, more=more)

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
        if exchange.queued:
            exchange.queued = False
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

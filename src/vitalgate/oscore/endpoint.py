"""`Endpoint`: a CoAP endpoint whose messages are protected with OSCORE; the same calls and events as without.

Two layers: the outer one is a `coap.Endpoint` that carries OSCORE messages and knows nothing of their content; here
they are verified and protected, and the requests inside answered. It fails closed: what has no context is not sent, and
the response to a protected request never leaves unprotected.
"""

import os
import time
from collections import deque
from collections.abc import Callable, Collection

from vitalgate.coap.endpoint import Endpoint as CoapEndpoint
from vitalgate.coap.events import Event, Failure, RequestFailed, RequestReceived, ResponseReceived
from vitalgate.coap.message import Message, is_request, is_response
from vitalgate.coap.options import Option, Use, check_options
from vitalgate.coap.parameters import Limits, Parameters
from vitalgate.coap.site import Site
from vitalgate.counters import Counters
from vitalgate.engine import Datagram, Path, Randomness, Wall
from vitalgate.oscore.context import SecurityContext
from vitalgate.oscore.contexts import Contexts
from vitalgate.oscore.errors import OscoreError, ProtectionError, Refusal, answer
from vitalgate.oscore.inner import InnerSite
from vitalgate.oscore.option import Header, decode
from vitalgate.oscore.outer import OuterSite
from vitalgate.oscore.protect import (
    Binding,
    protect_request,
    protect_response,
    unprotect_request,
    unprotect_response,
)
from vitalgate.oscore.recovery import challenge_in, synchronise, with_echo

UNDERSTOOD = frozenset((int(Option.OSCORE),))
ECHOES = 3
"""Challenges answered for one request: the server may restart and a resource want freshness. The next is handed on."""


class _Sent:
    """A request of ours under way. ``context`` None: it went unprotected, because the application said so."""

    __slots__ = ("binding", "confirmable", "context", "echoes", "exchange", "request", "response")

    def __init__(self, exchange: int, request: Message, context: SecurityContext | None, *, confirmable: bool) -> None:
        self.exchange = exchange
        self.request = request
        self.context = context
        self.confirmable = confirmable
        self.binding: Binding | None = None
        self.response: Message | None = None  # verified, until the outer endpoint tells of it
        self.echoes = 0  # challenges answered


class _Waiting:
    """A request that the application answers later. ``context`` None: it came unprotected, as its path may."""

    __slots__ = ("binding", "context", "ends", "outer")

    def __init__(self, outer: int, context: SecurityContext | None, binding: Binding | None, ends: float) -> None:
        self.outer = outer
        self.context = context
        self.binding = binding
        self.ends = ends


class Endpoint:
    """A `coap.endpoint.MessageEndpoint` under OSCORE.

    ``contexts`` may be changed at any time. ``site`` answers requests; without one each becomes a `RequestReceived`,
    whose ``identity`` is the name of the context that it verified under. ``unprotected`` are the paths, as tuples of
    segments, that may also be reached without protection (then ``identity`` is ''); all others answer 4.01.
    ``understands`` are critical options that the application takes care of, besides those of the site's resources. The
    other arguments are those of `coap.Endpoint`, which carries the protected messages.
    """

    def __init__(
        self,
        *,
        contexts: Contexts,
        site: Site | None = None,
        unprotected: Collection[tuple[str, ...]] = (),
        parameters: Parameters = Parameters(),  # noqa: B008  # frozen
        limits: Limits = Limits(),  # noqa: B008  # frozen
        counters: Counters | None = None,
        randomness: Randomness = os.urandom,
        wall: Wall = time.time,
        verify_addresses: bool = True,
        trusted: Callable[[Path], bool] | None = None,
        understands: frozenset[int] = frozenset(),
    ) -> None:
        self.contexts = contexts
        self.counters = Counters() if counters is None else counters
        self._inner = InnerSite(site, understands)
        self._randomness = randomness
        self._lifetime = parameters.exchange_lifetime
        self._response_understood = understands
        outer_site = OuterSite(site, unprotected, self._receive_protected, self.counters, randomness)
        self._outer = CoapEndpoint(
            parameters=parameters,
            limits=limits,
            site=outer_site,
            counters=self.counters,
            randomness=randomness,
            wall=wall,
            verify_addresses=verify_addresses,
            trusted=trusted,
            understands=UNDERSTOOD | understands,
            accepts=self._accepts,
            extensions=False,  # they belong inside the protection
        )
        self._events: deque[Event] = deque()
        self._exchange = 0
        self._sent: dict[int, _Sent] = {}  # by the outer endpoint's number
        self._outer_of: dict[int, int] = {}  # our number of a request under way -> the outer endpoint's
        self._waiting: dict[int, _Waiting] = {}  # by our number, in order of `ends`
        # Set while the outer endpoint hands a request on: the outer message, what it holds, and what it is bound to.
        self._deferred: tuple[Message, Message, SecurityContext, Binding] | None = None

    # The engine's five calls

    def receive_datagram(self, data: bytes, path: Path, now: float) -> None:
        """Feed one datagram. What does not verify is counted by reason and answered as RFC 8613 section 8.2 says."""
        self._expire(now)
        self._outer.receive_datagram(data, path, now)
        self._drain(now)

    def datagrams_to_send(self, now: float) -> list[Datagram]:
        """Take what is to be sent now."""
        return self._outer.datagrams_to_send(now)

    def next_timeout(self) -> float | None:
        """The one deadline that matters next, or None."""
        outer, contexts = self._outer.next_timeout(), self.contexts.next_timeout()
        if outer is None or contexts is None:
            return contexts if outer is None else outer
        return min(outer, contexts)

    def handle_timeout(self, now: float) -> None:
        """A deadline has passed; harmless when it has not."""
        self._expire(now)
        self._outer.handle_timeout(now)
        self._drain(now)

    def next_event(self) -> Event | None:
        """Take the oldest event, or None."""
        return self._events.popleft() if self._events else None

    # The application's

    def request(self, request: Message, path: Path, now: float, *, confirmable: bool = True, identity: str = "") -> int:
        """Protect and send a request under the context of the peer ``identity``, or of the peer that `Contexts.bind`
        names for ``path``; returns its exchange number. `ResponseReceived` or `RequestFailed` follows: with
        `Failure.PROTECTION` where there is no context, no sequence number, or the peer answers with an OSCORE error.
        A response that does not verify is ignored; a 4.01 with Echo is answered, up to `ECHOES` times. ValueError for
        what is no request."""
        _require_request(request)
        context = self.contexts.named(identity) if identity else self.contexts.towards(path)
        exchange = self._new_exchange()
        if context is None:
            self.counters.add("oscore_not_protected", "no-context")
            self._fail(exchange, path, Failure.PROTECTION)
        else:
            sent = _Sent(exchange, request, context, confirmable=confirmable)
            self._send(sent, context, request, path, now)
        self._drain(now)
        return exchange

    def request_unprotected(self, request: Message, path: Path, now: float, *, confirmable: bool = True) -> int:
        """Send a request in clear, as enrolment needs; otherwise like `request`."""
        _require_request(request)
        sent = _Sent(self._new_exchange(), request, None, confirmable=confirmable)
        self._track(sent, self._outer.request(request, path, now, confirmable=confirmable))
        self._drain(now)
        return sent.exchange

    def cancel(self, exchange: int, now: float) -> None:
        """Lose interest in a request: `RequestFailed` with `Failure.CANCELLED`; nothing where it has ended."""
        outer = self._outer_of.get(exchange)
        if outer is not None:
            self._outer.cancel(outer, now)
            self._drain(now)

    def respond(self, exchange: int, response: Message, now: float) -> None:
        """Answer a `RequestReceived`, protected if it was. One that nobody waits for any more is counted and dropped,
        and so is one whose context has been taken out of service. ValueError for what is no response."""
        if not is_response(response.code):
            raise ValueError(f"code {response.code} is no response's")
        waiting = self._waiting.pop(exchange, None)
        if waiting is None:
            self.counters.add("coap_responses_undelivered", "late")
        elif waiting.context is None or waiting.binding is None:
            self._outer.respond(waiting.outer, response, now)
        elif waiting.context not in self.contexts:
            self.counters.add("oscore_not_protected", "revoked")
            self._outer.respond(waiting.outer, answer(Refusal.NO_CONTEXT), now)
        else:
            self._outer.respond(waiting.outer, self._protected(waiting.context, waiting.binding, response), now)

    # Requests of peers

    def _receive_protected(self, message: Message, path: Path, _identity: str, now: float) -> Message | None:
        """The outer endpoint's handler of every request with an OSCORE option (section 8.2)."""
        try:
            context, request, binding = self._verify(message)
            challenge = synchronise(context, request, binding, now, self._randomness)
        except OscoreError as error:
            self.counters.add("oscore_requests_refused", error.refusal.value)
            return answer(error.refusal)
        except ProtectionError:
            self.counters.add("oscore_not_protected", "sequence")
            return answer(Refusal.UNAVAILABLE)
        if challenge is not None:
            self.counters.add("oscore_challenges")
            return challenge
        self.counters["oscore_requests_verified"] += 1
        response = self._inner.answer(request, path, context.name, now)
        if response is None:
            self._deferred = message, request, context, binding
            return None
        return self._protected(context, binding, response)

    def _verify(self, message: Message) -> tuple[SecurityContext, Message, Binding]:
        header = decode(message.option(Option.OSCORE) or b"")
        if header.kid is None or not header.piv or not message.payload:
            raise OscoreError(Refusal.MALFORMED)
        contexts = self.contexts.find(header)
        if not contexts:
            raise OscoreError(Refusal.NO_CONTEXT)
        if len(contexts) > 1:
            return _first_that_verifies(contexts, message, header)
        request, binding = unprotect_request(contexts[0], message, header)
        return contexts[0], request, binding

    def _protected(self, context: SecurityContext, binding: Binding, response: Message) -> Message:
        try:
            return protect_response(context, binding, response)
        except ProtectionError:
            self.counters.add("oscore_not_protected", "response")
            return answer(Refusal.UNAVAILABLE)

    # Requests of ours

    def _send(self, sent: _Sent, context: SecurityContext, request: Message, path: Path, now: float) -> None:
        try:
            protected, sent.binding = protect_request(context, request)
            outer = self._outer.request(protected, path, now, confirmable=sent.confirmable)
        except ProtectionError:
            self.counters.add("oscore_not_protected", "request")
            self._fail(sent.exchange, path, Failure.PROTECTION)
        else:
            self._track(sent, outer)

    def _track(self, sent: _Sent, outer: int) -> None:
        self._sent[outer] = sent
        self._outer_of[sent.exchange] = outer

    def _accepts(self, outer: int, response: Message, _path: Path) -> bool:
        """Whether a response may end its exchange (section 8.4). An error without OSCORE option may: it is how a server
        says that it has no context, or how the CoAP layer asks for Echo. All else that does not verify is ignored."""
        sent = self._sent.get(outer)
        if sent is None or sent.context is None or sent.binding is None:
            return sent is not None
        if response.option(Option.OSCORE) is None and response.code >= 0x80:
            return True
        try:
            if sent.context not in self.contexts:
                raise OscoreError(Refusal.NO_CONTEXT)
            sent.response = unprotect_response(sent.context, sent.binding, response)
        except OscoreError as error:
            self.counters.add("oscore_responses_ignored", error.refusal.value)
            return False
        return True

    def _drain(self, now: float) -> None:
        """Turn the outer endpoint's events into ours."""
        while (event := self._outer.next_event()) is not None:
            if isinstance(event, RequestReceived):
                self._hand_on(event, now)
            elif isinstance(event, ResponseReceived | RequestFailed):
                sent = self._sent.pop(event.exchange)
                self._outer_of.pop(sent.exchange, None)
                if isinstance(event, RequestFailed):
                    self._fail(sent.exchange, event.path, event.reason)
                else:
                    self._end(sent, event, now)
        self._deferred = None

    def _hand_on(self, event: RequestReceived, now: float) -> None:
        exchange = self._new_exchange()
        if self._deferred is not None and self._deferred[0] is event.request:
            _, request, context, binding = self._deferred
            self._waiting[exchange] = _Waiting(event.exchange, context, binding, now + self._lifetime)
            self._events.append(RequestReceived(exchange, request, event.path, context.name))
        else:
            self._waiting[exchange] = _Waiting(event.exchange, None, None, now + self._lifetime)
            self._events.append(RequestReceived(exchange, event.request, event.path, ""))

    def _end(self, sent: _Sent, event: ResponseReceived, now: float) -> None:
        if sent.context is None:
            self._events.append(ResponseReceived(sent.exchange, event.response, event.path))
            return
        response = sent.response
        if response is None:  # an error in clear: who sent it is not known, but the request is not going on
            self.counters.add("oscore_errors_received")
            self._fail(sent.exchange, event.path, Failure.PROTECTION)
            return
        echo = challenge_in(response)
        if echo is not None and sent.echoes < ECHOES:
            # Appendix B.1.2: the server lost its window; the same request again, under a number of its own.
            self.counters.add("oscore_echoes_answered")
            sent.echoes += 1
            sent.response = None
            self._send(sent, sent.context, with_echo(sent.request, echo), event.path, now)
            return
        response.options, bad = check_options(response.options, Use.RESPONSE, self._response_understood)
        if bad:
            self._fail(sent.exchange, event.path, Failure.REJECTED)
        else:
            self._events.append(ResponseReceived(sent.exchange, response, event.path))

    def _fail(self, exchange: int, path: Path, reason: Failure) -> None:
        self._events.append(RequestFailed(exchange, path, reason))

    def _new_exchange(self) -> int:
        self._exchange += 1
        return self._exchange

    def _expire(self, now: float) -> None:
        self.contexts.handle_timeout(now)
        while self._waiting:
            exchange, waiting = next(iter(self._waiting.items()))
            if waiting.ends > now:
                return
            del self._waiting[exchange]


def _first_that_verifies(
    contexts: tuple[SecurityContext, ...], message: Message, header: Header
) -> tuple[SecurityContext, Message, Binding]:
    # Several contexts with one Recipient ID, as while keys are rotated: section 3.3 has us try.
    refusals: set[Refusal] = set()
    for context in contexts:
        try:
            request, binding = unprotect_request(context, message, header)
        except OscoreError as error:
            if error.refusal is Refusal.MALFORMED:
                raise  # it verified, and holds no request
            refusals.add(error.refusal)
        else:
            return context, request, binding
    raise OscoreError(Refusal.DECRYPTION if Refusal.DECRYPTION in refusals else Refusal.REPLAY)


def _require_request(request: Message) -> None:
    if not is_request(request.code):
        raise ValueError(f"code {request.code} is no request's")

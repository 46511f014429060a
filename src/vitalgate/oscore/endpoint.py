"""`Endpoint`: a CoAP endpoint whose messages are protected with OSCORE; the same calls and events as without.

Two layers: the outer one is a `coap.Endpoint` that carries OSCORE messages and knows nothing of their content; here
they are verified and protected, and the requests inside answered. It fails closed: what has no context is not sent, and
the response to a protected request never leaves unprotected. Blocks (RFC 8613 section 4.1.3.4.1) and observations
(section 4.1.3.5) are inside, on top of this (`inner`, `requests`). What is not there: outer blocks, which only a proxy
would make, No-Response (every request is answered), and any of these for what is sent in clear.
"""

import os
import time
from collections.abc import Callable, Collection
from typing import NamedTuple

from vitalgate.coap.core import Core
from vitalgate.coap.endpoint import Endpoint as CoapEndpoint
from vitalgate.coap.events import Event, RequestReceived
from vitalgate.coap.message import Message, is_request, is_response
from vitalgate.coap.observe import Resource, Seal
from vitalgate.coap.options import Option, uri_path
from vitalgate.coap.parameters import Limits, Parameters
from vitalgate.coap.site import Site
from vitalgate.counters import Counters
from vitalgate.engine import Datagram, Path, Randomness, Wall
from vitalgate.oscore.context import SecurityContext
from vitalgate.oscore.contexts import Contexts
from vitalgate.oscore.errors import OscoreError, ProtectionError, Refusal, answer
from vitalgate.oscore.inner import InnerSite, Pending
from vitalgate.oscore.option import Header, decode
from vitalgate.oscore.outer import OuterSite
from vitalgate.oscore.protect import Binding, protect_response, unprotect_request
from vitalgate.oscore.recovery import synchronise
from vitalgate.oscore.requests import Requests

UNDERSTOOD = frozenset((int(Option.OSCORE),))


class _Waiting:
    """What the application answers later. ``secured`` None: a request that came unprotected, as its path may, or a
    notification (``notifies``), which is protected when it goes out."""

    __slots__ = ("ends", "notifies", "outer", "path", "secured")

    def __init__(self, outer: int, path: Path, secured: "_Secured | None", ends: float, *, notifies: bool) -> None:
        self.outer = outer
        self.path = path
        self.secured = secured
        self.ends = ends
        self.notifies = notifies


class _Secured(NamedTuple):
    """A verified request that the application is to answer: the message it came in, and what its answer needs."""

    message: Message
    pending: Pending
    context: SecurityContext
    binding: Binding


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
        self._randomness = randomness
        self._lifetime = parameters.exchange_lifetime
        self._core = Core(parameters, limits, self.counters, randomness, understands)
        """For what is inside the protection: its timers, events and numbers."""
        outer_site = OuterSite(
            site, unprotected, self._receive_protected, self._refuse_protected, self.counters, randomness
        )
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
        self._requests = Requests(contexts, self._core, self._outer.client, understands)
        self._calls = self._requests.calls
        self._inner = InnerSite(site, understands, self._core, self._outer, self._seal)
        self._waiting: dict[int, _Waiting] = {}  # by our number, in order of `ends`
        # Set while the outer endpoint hands a request on.
        self._deferred: _Secured | None = None

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
        first = None
        for due in (self._outer.next_timeout(), self.contexts.next_timeout(), self._core.timers.next()):
            if due is not None and (first is None or due < first):
                first = due
        return first

    def handle_timeout(self, now: float) -> None:
        """A deadline has passed; harmless when it has not."""
        self._expire(now)
        self._outer.handle_timeout(now)
        self._core.timers.run(now)
        self._drain(now)

    def next_event(self) -> Event | None:
        """Take the oldest event, or None."""
        return self._core.events.popleft() if self._core.events else None

    # The application's

    def request(self, request: Message, path: Path, now: float, *, confirmable: bool = True, identity: str = "") -> int:
        """Protect and send a request under the context of the peer ``identity``, or of the peer that `Contexts.bind`
        names for ``path``; returns its exchange number. `ResponseReceived` or `RequestFailed` follows: with
        `Failure.PROTECTION` where there is no context, no sequence number, or the peer answers with an OSCORE error.
        A response that does not verify is ignored; a 4.01 with Echo is answered, up to `ECHOES` times. ValueError for
        what is no request."""
        _require_request(request)
        exchange = self._calls.request(request, path, now, identity=identity, confirmable=confirmable)
        if exchange is None:
            exchange = self._requests.request(request, path, identity, now, confirmable=confirmable)
        self._drain(now)
        return exchange

    def request_unprotected(self, request: Message, path: Path, now: float, *, confirmable: bool = True) -> int:
        """Send a request in clear and in one message, as enrolment needs; otherwise like `request`."""
        _require_request(request)
        exchange = self._requests.request_unprotected(request, path, now, confirmable=confirmable)
        self._drain(now)
        return exchange

    def observe(self, request: Message, path: Path, now: float, *, confirmable: bool = True, identity: str = "") -> int:
        """Observe a resource under protection; see `coap.Endpoint.observe`, and `request` for ``identity``."""
        exchange = self._calls.observe(request, path, now, identity=identity, confirmable=confirmable)
        self._drain(now)
        return exchange

    def deregister(self, exchange: int, now: float) -> None:
        """End an observation by asking the server to; see `coap.Endpoint.deregister`."""
        self._calls.deregister(exchange, now)
        self._drain(now)

    def cancel(self, exchange: int, now: float) -> None:
        """Lose interest in a request or an observation: `RequestFailed` with `Failure.CANCELLED`; nothing where it has
        ended."""
        if not self._calls.cancel(exchange, now):
            self._requests.cancel(exchange, now)
        self._drain(now)

    def notify(self, path: str, now: float, response: Message | None = None, *, confirmable: bool | None = None) -> int:
        """Say that the state of resource ``path`` changed; see `coap.Endpoint.notify`."""
        segments: Resource = tuple(segment for _, segment in uri_path(path))
        count = self._inner.notify(segments, now, response, confirmable)
        self._drain(now)
        return count

    def respond(self, exchange: int, response: Message, now: float) -> None:
        """Answer a `RequestReceived`, protected if it was. One that nobody waits for any more is counted and dropped,
        and so is one whose context has been taken out of service. ValueError for what is no response."""
        if not is_response(response.code):
            raise ValueError(f"code {response.code} is no response's")
        waiting = self._waiting.pop(exchange, None)
        if waiting is None:
            self.counters.add("coap_responses_undelivered", "late")
        elif waiting.notifies:
            if not self._inner.respond(waiting.outer, response, now):
                self.counters.add("coap_responses_undelivered", "late")
        elif waiting.secured is None:
            self._outer.respond(waiting.outer, response, now)
        elif waiting.secured.context not in self.contexts:
            self.counters.add("oscore_not_protected", "revoked")
            self._outer.respond(waiting.outer, answer(Refusal.NO_CONTEXT), now)
        else:
            _, pending, context, binding = waiting.secured
            response = self._inner.finish(pending, response, waiting.path, context, binding, now)
            self._outer.respond(waiting.outer, self._protected(context, binding, response), now)

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
        response = self._inner.answer(request, path, context, binding, now)
        if isinstance(response, Pending):
            self._deferred = _Secured(message, response, context, binding)
            return None
        return self._protected(context, binding, response)

    def _seal(self, context: SecurityContext, binding: Binding) -> Seal:
        # Notifications go out long after their request: under its binding, while its context is in service.
        def seal(notification: Message, _now: float) -> Message:
            if context not in self.contexts:
                self.counters.add("oscore_not_protected", "revoked")
                return answer(Refusal.NO_CONTEXT)
            return self._protected(context, binding, notification)

        return seal

    def _refuse_protected(self, message: Message) -> Message | None:
        """The answer to what verifies under no context, or None: whoever cannot see the path cannot name one."""
        try:
            self._find(message)
        except OscoreError as error:
            self.counters.add("oscore_requests_refused", error.refusal.value)
            return answer(error.refusal)
        return None

    def _find(self, message: Message) -> tuple[tuple[SecurityContext, ...], Header]:
        header = decode(message.option(Option.OSCORE) or b"")
        if header.kid is None or not header.piv or not message.payload:
            raise OscoreError(Refusal.MALFORMED)
        contexts = self.contexts.find(header)
        if not contexts:
            raise OscoreError(Refusal.NO_CONTEXT)
        return contexts, header

    def _verify(self, message: Message) -> tuple[SecurityContext, Message, Binding]:
        contexts, header = self._find(message)
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

    # What the outer endpoint tells

    def _accepts(self, outer: int, response: Message, path: Path) -> bool:
        return self._requests.accepts(outer, response, path)

    def _drain(self, now: float) -> None:
        """Turn the outer endpoint's events into ours. Responses do not come this way: `Requests` owns them."""
        while (event := self._outer.next_event()) is not None:
            if isinstance(event, RequestReceived):
                self._hand_on(event, now)
        self._deferred = None

    def _hand_on(self, event: RequestReceived, now: float) -> None:
        exchange = self._core.new_exchange()
        secured = self._deferred
        notifies = self._inner.waits_for(event.exchange)
        request, identity = event.request, event.identity
        if secured is None or secured.message is not event.request:
            secured = None
        else:
            request, identity = secured.pending.request, secured.context.name
        ends = now + self._lifetime
        self._waiting[exchange] = _Waiting(event.exchange, event.path, secured, ends, notifies=notifies)
        self._core.tell(RequestReceived(exchange, request, event.path, identity))

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

"""`Proxy`: what stands between endpoints that clients speak to and endpoints that ask origin servers (RFC 7252
section 5.7), as a sans-IO engine.

It works on whole requests and responses. Messages, tokens, blocks and Echo are each endpoint's own matter, on its own
hop. What it cannot do without a system is an event: looking up a name (`Resolve`), asking an HTTP server (`HttpAsk`).
"""

import enum
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from vitalgate.coap.cache import CacheKey, ResponseCache, Stored, cache_key
from vitalgate.coap.endpoint import MessageEndpoint
from vitalgate.coap.events import Failure, RequestFailed, RequestReceived, ResponseReceived
from vitalgate.coap.message import Code, Message, Options
from vitalgate.coap.options import Option, build_options, sort_options
from vitalgate.coap.proxypolicy import Policy, Target, literal
from vitalgate.coap.proxyrequest import (
    HOP_LIMIT,
    Local,
    Plan,
    ReverseRoute,
    find_route,
    hops_left,
    is_for_proxy,
    loop_response,
    plan_forward,
    plan_response,
    plan_reverse,
    plan_uri,
)
from vitalgate.coap.site import SAFE_METHODS, Site
from vitalgate.counters import Counters
from vitalgate.engine import Path

BUSY_SECONDS: Final = 10
"""Max-Age of 5.03: when to try again (RFC 7252 section 5.9.3.4)."""

Answer = Callable[[Message, float], None]
"""``answer(response, now)`` gives a client its response."""
Reach = Callable[[str, int], tuple[MessageEndpoint, Path] | None]
"""``reach(address, port)``: the endpoint to ask from, and its path to there; None where there is no way."""


@dataclass(frozen=True, slots=True)
class ProxyLimits:
    """The bounds of a `Proxy`; the table of requests reached is counted as ``coap_limit_reached``."""

    forwards: int = 1024
    """Requests under way to origin servers. Full: 5.03 with Max-Age."""
    wait: float = 100.0
    """Seconds from taking a request until it is answered 5.04, with looking up the name. By default a little more than
    MAX_TRANSMIT_WAIT (RFC 7252 section 4.8.2)."""


@dataclass(frozen=True, slots=True)
class Resolve:
    """Look up the addresses of ``target.host`` and say them with `Proxy.resolved`."""

    ticket: int
    target: Target


@dataclass(frozen=True, slots=True)
class HttpAsk:
    """Ask the HTTP server at ``address`` (and nowhere else) for ``url`` what ``request`` says (`coap.httpmapping` has
    it in HTTP's words) and give the response to `Proxy.answered`, or the failure to `Proxy.failed`."""

    ticket: int
    target: Target
    address: str
    url: str
    request: Message


class Trouble(enum.Enum):
    """Why an origin server was not asked or did not answer, and the code that says so (RFC 7252 section 5.7.1)."""

    UNKNOWN_NAME = Code.BAD_GATEWAY, "name"
    UNREACHABLE = Code.BAD_GATEWAY, "no way to the target"
    NOT_UNDERSTOOD = Code.BAD_GATEWAY, "response"
    TOO_LARGE = Code.BAD_GATEWAY, "response too large"
    TIMEOUT = Code.GATEWAY_TIMEOUT, ""
    BUSY = Code.SERVICE_UNAVAILABLE, ""

    def response(self) -> Message:
        """The response."""
        code, text = self.value
        options = build_options(max_age=BUSY_SECONDS) if self is Trouble.BUSY else ()
        return Message(code, options, text.encode())


@dataclass(frozen=True, slots=True)
class LocalRequest:
    """A request that came to ``front`` and is not for the proxy, and that its resource wants to answer later."""

    front: MessageEndpoint
    received: RequestReceived


ProxyEvent = Resolve | HttpAsk | LocalRequest

TROUBLE: Final[dict[Failure, Trouble]] = {
    Failure.TIMEOUT: Trouble.TIMEOUT,
    Failure.RESET: Trouble.NOT_UNDERSTOOD,
    Failure.REJECTED: Trouble.NOT_UNDERSTOOD,
    Failure.PROTECTION: Trouble.NOT_UNDERSTOOD,
    Failure.CANCELLED: Trouble.UNREACHABLE,
    Failure.LIMIT: Trouble.BUSY,
    Failure.BACK_OFF: Trouble.BUSY,
    Failure.INCOMPLETE: Trouble.NOT_UNDERSTOOD,
}
"""What a failed request of ours is to the client."""


class Flight:
    """One request under way to an origin server."""

    __slots__ = ("answer", "back", "client", "due", "exchange", "key", "outdated", "plan", "started", "ticket",
                 "validated")  # fmt: skip

    def __init__(self, ticket: int, plan: Plan, client: Message, key: CacheKey, answer: Answer, now: float) -> None:
        self.ticket = ticket
        self.plan = plan
        self.client = client
        """The request as the client sent it, for its ETags."""
        self.key = key
        self.answer = answer
        self.started = now
        self.due = 0.0
        self.back: MessageEndpoint | None = None
        self.exchange = 0
        self.validated: Stored | None = None
        self.outdated = False
        """True once the resource was changed through this proxy while the request was under way."""


class Proxy:
    """A forward-proxy for the targets that ``policy`` permits, and a reverse-proxy for ``routes``.

    Give it to an endpoint as ``forwarding``; requests that nobody asks a proxy for are that endpoint's ``site``'s.
    ``reach`` gives the endpoint that asks an origin server, made with ``relays``. ``schemes`` are those that it serves,
    others are answered 5.05. ``own(address, port)`` is true where that is the proxy itself, whose ``site`` then answers
    (section 5.7.2). ``name`` is the proxy's in 5.08 (RFC 8768) and has no space.

    Whoever turns the endpoints calls `take_requests` and `take_responses` after feeding them, then takes this engine's
    events and deadlines, then what the endpoints have to send.
    """

    def __init__(
        self,
        policy: Policy,
        *,
        reach: Reach,
        routes: Sequence[ReverseRoute] = (),
        schemes: Iterable[str] = ("coap",),
        cache: ResponseCache | None = None,
        limits: ProxyLimits = ProxyLimits(),
        counters: Counters | None = None,
        site: Site | None = None,
        own: Callable[[str, int], bool] = lambda _address, _port: False,
        name: str = "vitalgate",
        hop_limit: int = HOP_LIMIT,
    ) -> None:
        if not name or " " in name or not 1 <= hop_limit <= 255:
            raise ValueError("a name without spaces and a hop limit from 1 to 255")
        self.counters = Counters() if counters is None else counters
        self.cache = ResponseCache(counters=self.counters) if cache is None else cache
        self.name = name
        self._policy = policy
        self._reach = reach
        self._routes = tuple(routes)
        self._schemes = frozenset(schemes)
        self._limits = limits
        self._site = Site() if site is None else site
        self._own = own
        self._hop_limit = hop_limit
        self._flights: dict[int, Flight] = {}
        self._exchanges: dict[tuple[int, int], Flight] = {}
        self._events: deque[ProxyEvent] = deque()
        self._ticket = 0

    def __len__(self) -> int:
        return len(self._flights)

    # What the endpoint asks that clients speak to (`forwarding.Forwarding`)

    def takes(self, options: Options) -> bool:
        """True where a request is for the proxy: by a proxy option, or by a reverse route's prefix."""
        return is_for_proxy(options) or find_route(options, self._routes) is not None

    def handle(self, request: Message, path: Path, identity: str, now: float) -> Message | None:
        """The response where it needs nobody else: an error, a cached one, a local one; else None."""
        plan = self._plan(request)
        if isinstance(plan, Local):
            return self._local(plan.request, path, identity, now)
        return plan if isinstance(plan, Message) else self._at_once(plan, request, now)

    # The five calls, but that datagrams are the endpoints'

    def take_requests(self, front: MessageEndpoint, now: float) -> int:
        """Take the events of an endpoint that clients speak to, and return how many there were. Requests that are not
        for the proxy become events."""
        count = 0
        while (event := front.next_event()) is not None:
            count += 1
            if not isinstance(event, RequestReceived):
                continue
            if not self.takes(event.request.options):
                self._events.append(LocalRequest(front, event))
                continue
            plan = self._plan(event.request)
            answer = partial(front.respond, event.exchange)
            if isinstance(plan, Plan):
                self._begin(plan, event.request, answer, now)
            else:  # a local resource that wants to answer later, which it cannot through here
                answer(Message(Code.NOT_IMPLEMENTED), now)
        return count

    def take_responses(self, back: MessageEndpoint, now: float) -> int:
        """Take the events of an endpoint that asks origin servers, and return how many there were."""
        count = 0
        while (event := back.next_event()) is not None:
            count += 1
            if isinstance(event, RequestReceived):
                back.respond(event.exchange, Message(Code.NOT_FOUND), now)  # nothing is served there
                continue
            if not isinstance(event, ResponseReceived | RequestFailed):
                continue  # how far a transfer is
            flight = self._exchanges.pop((id(back), event.exchange), None)
            if flight is None:
                continue
            flight.back = None
            if isinstance(event, ResponseReceived):
                self._take(flight, event.response, now)
            else:
                self._fail(flight, TROUBLE[event.reason], now)
        return count

    def next_event(self) -> ProxyEvent | None:
        """Take the oldest event, or None."""
        return self._events.popleft() if self._events else None

    def next_timeout(self) -> float | None:
        """When the oldest request under way has waited for too long, or None."""
        return next((flight.due for flight in self._flights.values()), None)

    def handle_timeout(self, now: float) -> None:
        """A deadline has passed; harmless when it has not."""
        while self._flights:
            flight = next(iter(self._flights.values()))  # all wait equally long, so the oldest is due first
            if flight.due > now:
                return
            self._fail(flight, Trouble.TIMEOUT, now)

    # Requests from elsewhere (HTTP), and what the events ask for

    def ask(self, request: Message, uri: str, answer: Answer, now: float) -> None:
        """Have ``request`` (without Uri-* options) asked for ``uri`` on behalf of somebody who is no CoAP endpoint.
        ``answer`` is called once, now or later."""
        planned = plan_uri(request, uri, hop_limit=self._hop_limit)
        plan = self._refuse(planned) or planned
        if isinstance(plan, Message):
            answer(plan, now)
            return
        response = self._at_once(plan, request, now)
        if response is None:
            self._begin(plan, request, answer, now)
        else:
            answer(response, now)

    def resolved(self, ticket: int, addresses: Sequence[str], now: float) -> None:
        """The addresses of the name of a `Resolve`, the preferred one first; none where it is unknown."""
        flight = self._flights.get(ticket)
        if flight is None:
            return
        if not addresses:
            self._fail(flight, Trouble.UNKNOWN_NAME, now)
            return
        plan = flight.plan
        reasons = [(self._judge(plan, address), address) for address in addresses]
        address = next((address for reason, address in reasons if not reason), None)
        if address is None:
            self._end(flight, self._deny(reasons[0][0]), now)
        elif self._own(address, plan.target.port) and plan.route is None:
            response = None if plan.url else self._local(_here(plan.request), (address, plan.target.port), "", now)
            self._end(flight, response or Message(Code.NOT_IMPLEMENTED), now)
        else:
            self._send(flight, address, now)

    def answered(self, ticket: int, response: Message, now: float) -> None:
        """The response of the HTTP server of an `HttpAsk`, in CoAP's words."""
        flight = self._flights.get(ticket)
        if flight is not None:
            self._take(flight, response, now)

    def failed(self, ticket: int, trouble: Trouble, now: float) -> None:
        """The HTTP server of an `HttpAsk` gave no response."""
        flight = self._flights.get(ticket)
        if flight is not None:
            self._fail(flight, trouble, now)

    # How a request is judged

    def _plan(self, request: Message) -> Plan | Local | Message:
        # What to do, with whatever can be refused without looking anything up refused.
        plan: Plan | Local | Message
        if is_for_proxy(request.options):
            plan = plan_forward(request, hop_limit=self._hop_limit)
        else:
            route = find_route(request.options, self._routes)
            assert route is not None, "takes() said so"
            plan = plan_reverse(request, route, hop_limit=self._hop_limit)
        return self._refuse(plan) or plan

    def _refuse(self, plan: Plan | Local | Message) -> Message | None:
        if isinstance(plan, Local):
            return None
        if isinstance(plan, Message):
            self.counters.add("coap_proxy_requests", "refused")
            return plan
        if plan.target.scheme not in self._schemes:
            self.counters.add("coap_proxy_requests", "refused")
            return Message(Code.PROXYING_NOT_SUPPORTED, (), b"scheme")
        reason = self._policy.judge_name(plan.target) if plan.route is None else ""
        address = literal(plan.target.host)
        if reason and not (address is not None and self._own(str(address), plan.target.port)):
            return self._deny(reason)
        return None

    def _judge(self, plan: Plan, address: str) -> str:
        if plan.route is None and self._own(address, plan.target.port):
            return ""
        reason = self._policy.judge(plan.target, address)
        # Whoever set up a route named its target.
        return reason if plan.route is None or reason == "group_address" else ""

    def _deny(self, reason: str) -> Message:
        self.counters.add("coap_proxy_denied", reason)
        self.counters.add("coap_proxy_requests", "denied")
        return Message(Code.FORBIDDEN, (), b"target not allowed")

    def _key(self, plan: Plan) -> CacheKey:
        # Routes apart: what is allowed through one says nothing about what may be asked for freely.
        prefix = None if plan.route is None else plan.route.prefix
        return cache_key(plan.request, (plan.target, plan.url, prefix))

    def _at_once(self, plan: Plan, request: Message, now: float) -> Message | None:
        response = self.cache.answer(self._key(plan), request, now)
        if response is not None:
            self.counters.add("coap_proxy_requests", "cached")
            return plan_response(response, plan, self.name)
        if not hops_left(plan):
            self.counters.add("coap_proxy_requests", "refused")
            return loop_response(self.name)
        if len(self._flights) >= self._limits.forwards:
            self.counters.add("coap_limit_reached", "forwards")
            self.counters.add("coap_proxy_requests", "busy")
            return Trouble.BUSY.response()
        return None

    def _local(self, request: Message, path: Path, identity: str, now: float) -> Message | None:
        self.counters.add("coap_proxy_requests", "local")
        return self._site.answer(request, path, identity, now)

    # How it is sent and answered

    def _begin(self, plan: Plan, request: Message, answer: Answer, now: float) -> None:
        response = self._at_once(plan, request, now)  # since `handle` somebody may have taken the last place
        if response is not None:
            answer(response, now)
            return
        self._ticket += 1
        flight = self._flights[self._ticket] = Flight(self._ticket, plan, request, self._key(plan), answer, now)
        flight.due = now + self._limits.wait
        address = literal(plan.target.host)
        if address is None:
            self._events.append(Resolve(flight.ticket, plan.target))
        else:
            # As it was written: it may name an interface.
            self.resolved(flight.ticket, [plan.target.host], now)

    def _send(self, flight: Flight, address: str, now: float) -> None:
        plan = flight.plan
        request = plan.request
        if request.code in SAFE_METHODS:
            flight.validated = self.cache.validator(flight.key)
            request = _conditional(request, flight.validated)
        flight.started = now
        if plan.url:
            self._events.append(HttpAsk(flight.ticket, plan.target, address, plan.url, request))
        else:
            reached = self._reach(address, plan.target.port)
            if reached is None:
                self._fail(flight, Trouble.UNREACHABLE, now)
                return
            flight.back, path = reached
            flight.exchange = flight.back.request(request, path, now)
            self._exchanges[id(flight.back), flight.exchange] = flight
        self.counters.add("coap_proxy_requests", "forwarded")

    def _take(self, flight: Flight, response: Message, now: float) -> None:
        plan = flight.plan
        learned = self.cache.take(
            flight.key, flight.client, response, asked_at=flight.started, now=now,
            validated=flight.validated, outdated=flight.outdated,
        )  # fmt: skip
        if flight.key.code not in SAFE_METHODS and response.code >> 5 == 2:
            for other in self._flights.values():
                other.outdated = other.outdated or other.key.resource == flight.key.resource
        if learned is None:
            self._fail(flight, Trouble.NOT_UNDERSTOOD, now)
        else:
            self._end(flight, plan_response(learned, plan, self.name), now)

    def _fail(self, flight: Flight, trouble: Trouble, now: float) -> None:
        self.counters.add("coap_proxy_requests", trouble.name.lower())
        self._end(flight, trouble.response(), now)

    def _end(self, flight: Flight, response: Message, now: float) -> None:
        del self._flights[flight.ticket]
        if flight.back is not None:
            del self._exchanges[id(flight.back), flight.exchange]
            flight.back.cancel(flight.exchange, now)
        flight.answer(response, now)


def _conditional(request: Message, stored: Stored | None) -> Message:
    # Section 5.6.2: the origin server may answer that what is stored is still valid.
    if stored is None or stored.etag is None or stored.etag in request.all(Option.ETAG):
        return request
    options = sort_options([*request.options, (int(Option.ETAG), stored.etag)])
    return Message(request.code, options, request.payload)


def _here(request: Message) -> Message:
    # A request for the proxy itself, which counted its own hop for nothing.
    of_proxy = (Option.URI_HOST, Option.URI_PORT, Option.HOP_LIMIT)
    options = tuple(pair for pair in request.options if pair[0] not in of_proxy)
    return Message(request.code, options, request.payload)

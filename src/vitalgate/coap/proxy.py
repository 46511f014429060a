"""`Proxy`: what stands between endpoints that clients speak to and endpoints that ask origin servers (RFC 7252
section 5.7), as a sans-IO engine.

It works on whole requests and responses. Messages, tokens, blocks and Echo are each endpoint's own matter, on its own
hop. What it cannot do without a system is an event: looking up a name (`Resolve`), asking an HTTP server (`HttpAsk`).
"""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial

from vitalgate.coap.cache import CacheKey, ResponseCache, Stored, cache_key
from vitalgate.coap.endpoint import Endpoint
from vitalgate.coap.events import NotificationReceived, RequestFailed, RequestReceived, ResponseReceived
from vitalgate.coap.message import Code, Message, Options
from vitalgate.coap.observe import REGISTER
from vitalgate.coap.options import Option, sort_options, uint_option, without_option
from vitalgate.coap.proxyevents import (
    TROUBLE,
    Answer,
    Flight,
    HttpAsk,
    LocalRequest,
    ProxyEvent,
    ProxyLimits,
    Reach,
    Resolve,
    Trouble,
)
from vitalgate.coap.proxypolicy import Policy, literal
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
from vitalgate.coap.proxywatch import Client, Watch, Watches, observed
from vitalgate.coap.site import SAFE_METHODS, Site
from vitalgate.counters import Counters
from vitalgate.engine import Path


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
        limits: ProxyLimits = ProxyLimits(),  # noqa: B008  # frozen
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
        self._registering: dict[CacheKey, Flight] = {}
        self._watches = Watches(limits.watches)
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
        if isinstance(plan, Message):
            return plan
        return None if _observes(plan, request) else self._at_once(plan, request, now)

    # The five calls, but that datagrams are the endpoints'

    def take_requests(self, front: Endpoint, now: float) -> int:
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
                client = Client(front, event.path, event.request.token) if _observes(plan, event.request) else None
                self._begin(plan, event.request, answer, now, client)
            else:  # a local resource that wants to answer later, which it cannot through here
                answer(Message(Code.NOT_IMPLEMENTED), now)
        return count

    def take_responses(self, back: Endpoint, now: float) -> int:
        """Take the events of an endpoint that asks origin servers, and return how many there were."""
        count = 0
        while (event := back.next_event()) is not None:
            count += 1
            if isinstance(event, RequestReceived):
                back.respond(event.exchange, Message(Code.NOT_FOUND), now)  # nothing is served there
                continue
            if isinstance(event, NotificationReceived):
                self._notified(back, event, now)
                continue
            if not isinstance(event, ResponseReceived | RequestFailed):
                continue  # how far a transfer is
            watch = self._watches.find(back, event.exchange)
            if watch is not None:
                last = event.response if isinstance(event, ResponseReceived) else TROUBLE[event.reason].response()
                self._watches.ended(watch, plan_response(last, watch.plan, self.name), now)
                continue
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
        return self._no_way(plan)

    def _no_way(self, plan: Plan) -> Message | None:
        # The response to what may not or cannot be sent on now.
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

    def _begin(self, plan: Plan, request: Message, answer: Answer, now: float, client: Client | None = None) -> None:
        key = self._key(plan)
        if client is not None and self._join(key, answer, client, now):
            return
        if client is not None and self._watches.full(len(self._registering)):
            self.counters.add("coap_limit_reached", "watches")
            client = None
        # Since `handle` somebody may have taken the last place.
        response = self._at_once(plan, request, now) if client is None else self._no_way(plan)
        if response is not None:
            answer(response, now)
            return
        self._ticket += 1
        flight = self._flights[self._ticket] = Flight(self._ticket, plan, request, key, answer, now)
        flight.due = now + self._limits.wait
        if client is not None:
            flight.observers.append(client)
            self._registering[key] = flight
        address = literal(plan.target.host)
        if address is None:
            self._events.append(Resolve(flight.ticket, plan.target))
        else:
            # As it was written: it may name an interface.
            self.resolved(flight.ticket, [plan.target.host], now)

    def _join(self, key: CacheKey, answer: Answer, client: Client, now: float) -> bool:
        # RFC 7641 section 5: one observation for all who observe the same.
        watch = self._watches.get(key)
        if watch is not None:
            watch.clients[client] = None
            self.counters.add("coap_proxy_requests", "watched")
            answer(observed(watch.state(now)), now)
            return True
        flight = self._registering.get(key)
        if flight is not None:
            flight.observers.append(client)
            flight.answers.append(answer)
        return flight is not None

    def _send(self, flight: Flight, address: str, now: float) -> None:
        plan = flight.plan
        request = plan.request
        if request.code in SAFE_METHODS and not flight.observers:
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
            flight.exchange = self._request(flight, flight.back, request, path, now)
            self._exchanges[id(flight.back), flight.exchange] = flight
        self.counters.add("coap_proxy_requests", "forwarded")

    def _request(self, flight: Flight, back: Endpoint, request: Message, path: Path, now: float) -> int:
        if flight.observers:
            # Each client has its own entity tags, and all of them get the same notifications.
            whole = Message(request.code, without_option(request.options, Option.ETAG), request.payload)
            try:
                return back.observe(whole, path, now)
            except ValueError:
                pass  # a FETCH whose question takes more than a block cannot observe; it can still be answered
        return back.request(request, path, now)

    def _notified(self, back: Endpoint, event: NotificationReceived, now: float) -> None:
        flight = self._exchanges.get((id(back), event.exchange))
        watch = self._watches.find(back, event.exchange)
        plan = flight.plan if flight is not None else watch.plan if watch is not None else None
        if plan is None:
            back.cancel(event.exchange, now)
            return
        key = self._key(plan)
        self.cache.take(key, plan.request, event.response, asked_at=now, now=now)
        response = plan_response(event.response, plan, self.name)
        if watch is not None:
            self._watches.changed(watch, response, now)
        elif flight is not None:
            watch = Watch(key, plan, back, event.exchange, response, now, dict.fromkeys(flight.observers))
            self._watches.add(watch)
            del self._exchanges[id(back), event.exchange]
            flight.back = None  # the exchange goes on
            self._end(flight, observed(response), now)

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
        if flight.observers:
            del self._registering[flight.key]
        for answer in flight.answers:
            answer(response, now)


def _observes(plan: Plan | Local, request: Message) -> bool:
    # True where the client wants to observe what can be observed: HTTP's resources cannot.
    wanted = uint_option(request, Option.OBSERVE) == REGISTER and request.code in SAFE_METHODS
    return wanted and isinstance(plan, Plan) and not plan.url


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

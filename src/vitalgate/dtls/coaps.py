"""`Endpoint`: a CoAP endpoint over DTLS (RFC 7252 section 9.1); the same calls and events as without.

The CoAP endpoint inside takes an association's number for a path, so that its message IDs, tokens and observations are
bound to the association, as section 9.1.1 wants, and a peer that moves takes them along. Nothing goes out unprotected:
a request to a peer without an association waits for a handshake.
"""

import os
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace

from vitalgate.coap.endpoint import Endpoint as CoapEndpoint
from vitalgate.coap.events import (
    Event,
    Failure,
    NotificationReceived,
    RequestFailed,
    RequestReceived,
    TransferProgressed,
)
from vitalgate.coap.message import Code, Message, Options, is_request
from vitalgate.coap.parameters import Limits, Parameters
from vitalgate.coap.site import Route, Site
from vitalgate.counters import Counters
from vitalgate.dtls.credentials import Credentials
from vitalgate.dtls.endpoint import Endpoint as DtlsEndpoint
from vitalgate.dtls.events import Closed, Connected, End, Failed, Moved, Received
from vitalgate.dtls.judging import Target
from vitalgate.dtls.parameters import Limits as DtlsLimits
from vitalgate.dtls.parameters import Parameters as DtlsParameters
from vitalgate.engine import Datagram, Path, Randomness, Wall

FIRST_QUEUED = 1 << 40
"""Requests that wait for a handshake are numbered from here on; the others have the CoAP endpoint's numbers."""
QUEUE = 64
"""Requests that may wait for the handshake with one peer; one more fails at once."""
ANYONE = Target()

_GOES_ON = (TransferProgressed, NotificationReceived)
"""Events after which a request is still under way."""
_REASONS = {End.TIMEOUT: Failure.TIMEOUT, End.LIMIT: Failure.LIMIT}


class _Queued:
    __slots__ = ("confirmable", "exchange", "observe", "request")

    def __init__(self, exchange: int, request: Message, *, confirmable: bool, observe: bool) -> None:
        self.exchange = exchange
        self.request = request
        self.confirmable = confirmable
        self.observe = observe


class _SecuredSite(Site):
    """Hands requests to the handlers of ``site`` with the peer's address and name in place of the association."""

    def __init__(self, site: Site, peer: Callable[[Path], tuple[Path, str]], randomness: Randomness) -> None:
        super().__init__(randomness=randomness)
        self._site = site
        self._peer = peer
        self._routes: dict[int, tuple[Route, Route]] = {}
        site.on_change.append(self._changed)
        site.on_notify.append(self._notified)

    def find(self, code: int, options: Options) -> Route | int:
        """The route of a request, or the code of the error that it gets."""
        route = self._site.find(code, options)
        if not isinstance(route, Route):
            return route
        known = self._routes.get(id(route))
        if known is None:
            known = self._routes[id(route)] = route, self._secured(route)
        return known[1]

    def _secured(self, route: Route) -> Route:
        handler, peer = route.handler, self._peer

        def secured(request: Message, association: Path, _identity: str, now: float) -> Message | None:
            path, identity = peer(association)
            return handler(request, path, identity, now)

        return replace(route, handler=secured)

    def _changed(self) -> None:
        self._routes.clear()
        for changed in self.on_change:
            changed()

    def _notified(
        self, segments: tuple[bytes, ...], now: float, response: Message | None, confirmable: bool | None
    ) -> int:
        return sum(notified(segments, now, response, confirmable) for notified in self.on_notify)


class Endpoint:
    """A `coap.endpoint.MessageEndpoint` under DTLS.

    ``targets`` says by path whom a client wants to reach there (see `Target`); a server's needs none. ``site`` answers
    requests; without one each becomes a `RequestReceived`, whose ``identity`` is the peer's authenticated name. The
    other arguments are those of `dtls.Endpoint` and `coap.Endpoint`.
    """

    def __init__(
        self,
        credentials: Credentials,
        *,
        listening: bool = False,
        targets: Mapping[Path, Target] | None = None,
        site: Site | None = None,
        dtls: DtlsParameters = DtlsParameters(),  # noqa: B008  # frozen
        dtls_limits: DtlsLimits = DtlsLimits(),  # noqa: B008  # frozen
        parameters: Parameters = Parameters(),  # noqa: B008  # frozen
        limits: Limits = Limits(),  # noqa: B008  # frozen
        counters: Counters | None = None,
        randomness: Randomness = os.urandom,
        wall: Wall = time.time,
        understands: frozenset[int] = frozenset(),
    ) -> None:
        self.counters = Counters() if counters is None else counters
        self.dtls = DtlsEndpoint(
            credentials,
            listening=listening,
            parameters=dtls,
            limits=dtls_limits,
            counters=self.counters,
            randomness=randomness,
            wall=wall,
        )
        self.targets: dict[Path, Target] = dict(targets or {})
        self._moved: set[int] = set()
        self._inner = CoapEndpoint(
            parameters=parameters,
            limits=limits,
            site=None if site is None else _SecuredSite(site, self._peer, randomness),
            counters=self.counters,
            randomness=randomness,
            wall=wall,
            # The handshake showed that the address receives; only one that changed since has not (RFC 9146 section 6).
            trusted=lambda association: association not in self._moved,
            understands=understands,
        )
        self._events: deque[Event] = deque()
        self._queued: dict[int, deque[_Queued]] = {}
        """By the number of the association whose handshake they wait for."""
        self._next = FIRST_QUEUED
        self._ours: dict[int, int] = {}
        """The CoAP endpoint's number of a request -> the number that the application has, where they differ."""
        self._theirs: dict[int, int] = {}
        self._under_way: dict[int, tuple[int, Path]] = {}
        """The CoAP endpoint's number of a request -> association and path."""

    # The engine's five calls

    def receive_datagram(self, data: bytes, path: Path, now: float) -> None:
        """Feed one datagram."""
        self.dtls.receive_datagram(data, path, now)
        self._turn(now)

    def datagrams_to_send(self, now: float) -> list[Datagram]:
        """Take what is to be sent now."""
        self._turn(now)  # a handler may have notified observers
        return self.dtls.datagrams_to_send(now)

    def next_timeout(self) -> float | None:
        """The one deadline that matters next, or None."""
        inner, outer = self._inner.next_timeout(), self.dtls.next_timeout()
        if inner is None or outer is None:
            return outer if inner is None else inner
        return min(inner, outer)

    def handle_timeout(self, now: float) -> None:
        """A deadline has passed; harmless when it has not."""
        self.dtls.handle_timeout(now)
        self._inner.handle_timeout(now)
        self._turn(now)

    def next_event(self) -> Event | None:
        """Take the oldest event, or None."""
        return self._events.popleft() if self._events else None

    # The application's

    def request(self, request: Message, path: Path, now: float, *, confirmable: bool = True) -> int:
        """Send a request, after a handshake where there is no association yet, and return its exchange number;
        `ResponseReceived` or `RequestFailed` follows, with `Failure.PROTECTION` where the handshake failed. ValueError
        for what is no request."""
        if not is_request(request.code):
            raise ValueError(f"code {request.code} is no request's")
        return self._begin(request, path, now, confirmable=confirmable, observe=False)

    def observe(self, request: Message, path: Path, now: float, *, confirmable: bool = True) -> int:
        """Observe a resource, after a handshake where there is no association yet, as `coap.Endpoint.observe` does. The
        observation ends with the association. ValueError for another method than GET and FETCH."""
        if request.code not in (Code.GET, Code.FETCH):
            raise ValueError(f"code {request.code} cannot observe")
        return self._begin(request, path, now, confirmable=confirmable, observe=True)

    def deregister(self, exchange: int, now: float) -> None:
        """Observe no longer; the server is told."""
        self._inner.deregister(self._theirs.get(exchange, exchange), now)
        self._turn(now)

    def notify(self, path: str, now: float, response: Message | None = None, *, confirmable: bool | None = None) -> int:
        """Say that the state of resource ``path`` changed; returns how many observe it."""
        told = self._inner.notify(path, now, response, confirmable=confirmable)
        self._turn(now)
        return told

    def _begin(self, request: Message, path: Path, now: float, *, confirmable: bool, observe: bool) -> int:
        association = self.dtls.association_at(path)
        if association is not None and self.dtls.identity(association) is not None:
            exchange = self._send(request, association, path, now, confirmable=confirmable, observe=observe)
        else:
            exchange, self._next = self._next, self._next + 1
            if association is None:
                association = self.dtls.connect(path, now, self.targets.get(path, ANYONE))
            queue = self._queued.setdefault(association, deque())
            if len(queue) < QUEUE:
                queue.append(_Queued(exchange, request, confirmable=confirmable, observe=observe))
            else:
                self._events.append(RequestFailed(exchange, path, Failure.LIMIT))
        self._turn(now)
        return exchange

    def _send(
        self, request: Message, association: int, path: Path, now: float, *, confirmable: bool, observe: bool
    ) -> int:
        call = self._inner.observe if observe else self._inner.request
        exchange = call(request, association, now, confirmable=confirmable)
        self._under_way[exchange] = association, path
        return exchange

    def cancel(self, exchange: int, now: float) -> None:
        """Lose interest in a request: `RequestFailed` with `Failure.CANCELLED`; nothing where it has ended."""
        for association, queue in self._queued.items():
            for queued in queue:
                if queued.exchange == exchange:
                    queue.remove(queued)
                    path = self.dtls.path(association)
                    self._events.append(RequestFailed(exchange, path, Failure.CANCELLED))
                    return
        self._inner.cancel(self._theirs.get(exchange, exchange), now)
        self._turn(now)

    def respond(self, exchange: int, response: Message, now: float) -> None:
        """Answer a `RequestReceived`. ValueError for what is no response."""
        self._inner.respond(exchange, response, now)
        self._turn(now)

    def _peer(self, association: Path) -> tuple[Path, str]:
        assert isinstance(association, int)
        identity = self.dtls.identity(association)
        return self.dtls.path(association), "" if identity is None else identity.name

    # Turning both layers

    def _turn(self, now: float) -> None:
        inner, dtls = self._inner, self.dtls
        while True:
            while (happened := dtls.next_event()) is not None:
                if isinstance(happened, Received):
                    inner.receive_datagram(happened.data, happened.association, now)
                elif isinstance(happened, Connected):
                    self._connected(happened.association, happened.path, now)
                elif isinstance(happened, Moved):
                    self._moved.add(happened.association)
                else:
                    self._ended(happened, now)
            outgoing = inner.datagrams_to_send(now)
            for data, association in outgoing:
                assert isinstance(association, int)
                dtls.send(association, data, now)
            events = self._hand_on(now)
            if not outgoing and not events:
                return

    def _connected(self, association: int, path: Path, now: float) -> None:
        for queued in self._queued.pop(association, ()):
            exchange = self._send(
                queued.request, association, path, now, confirmable=queued.confirmable, observe=queued.observe
            )
            self._ours[exchange] = queued.exchange
            self._theirs[queued.exchange] = exchange

    def _ended(self, event: Closed | Failed, now: float) -> None:
        reason = _REASONS.get(event.reason, Failure.PROTECTION)
        for queued in self._queued.pop(event.association, ()):
            self._events.append(RequestFailed(queued.exchange, event.path, reason))
        self._moved.discard(event.association)
        for exchange in [e for e, (association, _) in self._under_way.items() if association == event.association]:
            self._inner.cancel(exchange, now)

    def _hand_on(self, now: float) -> bool:
        """Give the CoAP endpoint's events to the application, with addresses and names in place of associations."""
        some = False
        while (event := self._inner.next_event()) is not None:
            some = True
            if isinstance(event, RequestReceived):
                path, identity = self._peer(event.path)
                self._events.append(replace(event, path=path, identity=identity))
                continue
            association, path = self._under_way.get(event.exchange, (None, event.path))
            exchange = self._ours.get(event.exchange, event.exchange)
            if isinstance(event, RequestFailed):
                reason = event.reason
                if association is not None and self.dtls.path(association) is None and reason is Failure.CANCELLED:
                    reason = Failure.PROTECTION  # the association went away under it
                event = replace(event, reason=reason)
                if reason is Failure.TIMEOUT and association is not None:
                    # The peer may have lost its half; the next request begins with a handshake.
                    self.dtls.close(association, now)
            if not isinstance(event, _GOES_ON):
                self._under_way.pop(event.exchange, None)
                self._theirs.pop(self._ours.pop(event.exchange, 0), None)
            self._events.append(replace(event, exchange=exchange, path=path))
        return some

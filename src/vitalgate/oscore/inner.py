"""How a verified request is answered: as the CoAP server would, had it come in clear, with blocks (RFC 8613 section
4.1.3.4.1) and observations (section 4.1.3.5) inside the protection."""

from collections.abc import Callable
from typing import NamedTuple

from vitalgate.coap.blocks import BLOCK_OPTIONS, Block
from vitalgate.coap.blockserver import BlockServer
from vitalgate.coap.core import Core
from vitalgate.coap.endpoint import Endpoint
from vitalgate.coap.extensions import EXTENSION_OPTIONS, Extended, Extensions
from vitalgate.coap.message import Message, Options
from vitalgate.coap.observe import Observations, Resource, Seal
from vitalgate.coap.options import Use, check_options
from vitalgate.coap.server import SERVER_CRITICAL
from vitalgate.coap.site import ResponseError, Route, Site, bad_option
from vitalgate.engine import Path
from vitalgate.oscore.context import SecurityContext
from vitalgate.oscore.protect import Binding

KNOWN = 4096
"""Option blocks whose route is remembered. Full: all are forgotten."""


class Pending(NamedTuple):
    """A request that the application answers later."""

    request: Message
    extended: Extended | None


class _Observations:
    """The list of observers as `Extended` uses it: whoever registers gets the seal of the request at hand."""

    def __init__(self, outer: Observations) -> None:
        self.outer = outer
        self.seal: Seal | None = None

    def register(
        self, request: Message, whole: Message, response: Message, route: Route, block: Block | None, path: Path,
        identity: str, now: float, *, asked: bool,
    ) -> Message:  # fmt: skip
        """See `Observations.register`."""
        return self.outer.register(
            request, whole, response, route, block, path, identity, now, asked=asked, seal=self.seal
        )

    def deregister(self, path: Path, token: bytes, now: float) -> None:
        """See `Observations.deregister`."""
        self.outer.deregister(path, token, now)


class InnerSite:
    """Checks a request's options and has ``site`` answer it; without a site every request is the application's.

    The route of an option block that was seen before is remembered: peers ask for the same few things all day.
    Notifications leave by ``outer``.
    """

    __slots__ = (
        "_block_bytes",
        "_extensions",
        "_known",
        "_listed",
        "_observations",
        "_seal_of",
        "_site",
        "_understood",
    )

    def __init__(
        self,
        site: Site | None,
        understands: frozenset[int],
        core: Core,
        outer: Endpoint,
        seal_of: Callable[[SecurityContext, Binding], Seal],
    ) -> None:
        self._seal_of = seal_of
        self._site = site
        self._understood = SERVER_CRITICAL | BLOCK_OPTIONS | understands
        self._known: dict[tuple[int, Options], Route] = {}
        blocks = BlockServer(core)
        self._listed = outer.observations_over(blocks)
        self._observations = _Observations(self._listed)
        self._extensions = Extensions(blocks, self._observations)
        self._block_bytes = core.parameters.block_size
        if site is not None:
            site.on_change.append(self._known.clear)
            site.on_notify.append(self.notify)

    def answer(
        self, request: Message, path: Path, context: SecurityContext, binding: Binding, now: float
    ) -> Message | Pending:
        """The response, or what `finish` needs where the application gives it later. ``request.options`` are cut to
        what is known; ``binding`` is for notifications, should the request lead to any."""
        route = self._known.get((request.code, request.options))
        if route is None:
            return self._answer_unknown(request, path, context, binding, now)
        return self._run(route, request, None, path, context.name, now)

    def finish(
        self, pending: Pending, response: Message, path: Path, context: SecurityContext, binding: Binding, now: float
    ) -> Message:
        """The response that the application gave, as it goes out."""
        if pending.extended is None and len(response.payload) <= self._block_bytes:
            return response
        self._observations.seal = self._seal_of(context, binding)
        return self._finish(pending.request, pending.extended, response, path, context.name, now)

    def waits_for(self, exchange: int) -> bool:
        """True where the application is asked for the representation of a notification by this exchange."""
        return self._listed.waits_for(exchange)

    def notify(
        self, resource: Resource, now: float, response: Message | None = None, confirmable: bool | None = None
    ) -> int:
        """The state of a resource changed; returns how many observe it."""
        return self._listed.notify(resource, now, response, confirmable=confirmable)

    def respond(self, exchange: int, response: Message, now: float) -> bool:
        """The application gives the representation for a notification; False where none waits for it."""
        return self._listed.respond(exchange, response, now)

    def _answer_unknown(
        self, request: Message, path: Path, context: SecurityContext, binding: Binding, now: float
    ) -> Message | Pending:
        identity = context.name
        received = request.options
        request.options, bad = check_options(received, Use.REQUEST, self._understood)
        if bad:
            return bad_option(bad)
        route: Route | int = _EVENT if self._site is None else self._site.find(request.code, request.options)
        if not isinstance(route, Route):
            return Message(route)
        if self._site is not None:
            refused = self._site.refuse(route, request, path, identity, now)
            if refused is not None:
                return refused
        if any(number in EXTENSION_OPTIONS for number, _ in request.options):
            self._observations.seal = self._seal_of(context, binding)
            extended = Extended(self._extensions, request, route)
            return self._run(extended.route, request, extended, path, identity, now)
        if self._site is not None and request.options is received and route.fresh_within is None:
            if len(self._known) >= KNOWN:
                self._known.clear()
            self._known[request.code, received] = route
        return self._run(route, request, None, path, identity, now)

    def _run(
        self, route: Route, request: Message, extended: Extended | None, path: Path, identity: str, now: float
    ) -> Message | Pending:
        try:
            response = route.handler(request, path, identity, now)
        except ResponseError as error:
            response = error.response()
        if response is None:
            return Pending(request, extended)
        if extended is None and len(response.payload) <= self._block_bytes:
            return response
        return self._finish(request, extended, response, path, identity, now)

    def _finish(
        self, request: Message, extended: Extended | None, response: Message, path: Path, identity: str, now: float
    ) -> Message:
        if extended is None:
            return self._extensions.cut(request, response, path, identity, now)
        return extended.finish(request, response, path, identity, now)


def _no_handler(_request: Message, _path: Path, _identity: str, _now: float) -> None:
    return None


_EVENT = Route(_no_handler)
"""Without a site every request is the application's, by event."""

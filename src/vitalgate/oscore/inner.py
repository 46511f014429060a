"""How a verified request is answered: as the CoAP server would, had it come in clear."""

from vitalgate.coap.message import Message, Options
from vitalgate.coap.options import Use, check_options
from vitalgate.coap.server import SERVER_CRITICAL
from vitalgate.coap.site import ResponseError, Route, Site, bad_option
from vitalgate.engine import Path

KNOWN = 4096
"""Option blocks whose route is remembered. Full: all are forgotten."""


class InnerSite:
    """Checks a request's options and has ``site`` answer it; without a site every request is the application's.

    The route of an option block that was seen before is remembered: peers ask for the same few things all day.
    """

    __slots__ = ("_known", "_site", "_understood")

    def __init__(self, site: Site | None, understands: frozenset[int]) -> None:
        self._site = site
        self._understood = SERVER_CRITICAL | understands
        self._known: dict[tuple[int, Options], Route] = {}
        if site is not None:
            site.on_change.append(self._known.clear)

    def answer(self, request: Message, path: Path, identity: str, now: float) -> Message | None:
        """The response, or None where the application gives it later. ``request.options`` are cut to what is known."""
        route = self._known.get((request.code, request.options))
        if route is None:
            return self._answer_unknown(request, path, identity, now)
        return _run(route, request, path, identity, now)

    def _answer_unknown(self, request: Message, path: Path, identity: str, now: float) -> Message | None:
        received = request.options
        request.options, bad = check_options(received, Use.REQUEST, self._understood)
        if bad:
            return bad_option(bad)
        if self._site is None:
            return None
        route = self._site.find(request.code, request.options)
        if not isinstance(route, Route):
            return Message(route)
        refused = self._site.refuse(route, request, path, identity, now)
        if refused is not None:
            return refused
        if request.options is received and route.fresh_within is None:
            if len(self._known) >= KNOWN:
                self._known.clear()
            self._known[request.code, received] = route
        return _run(route, request, path, identity, now)


def _run(route: Route, request: Message, path: Path, identity: str, now: float) -> Message | None:
    try:
        return route.handler(request, path, identity, now)
    except ResponseError as error:
        return error.response()

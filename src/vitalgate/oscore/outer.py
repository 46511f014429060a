"""What the outer CoAP endpoint serves: OSCORE messages, and in clear only the paths that policy leaves open."""

from collections.abc import Callable, Collection

from vitalgate.coap.message import Code, Message, Options
from vitalgate.coap.options import Option, path_segments
from vitalgate.coap.site import Handler, Route, Site
from vitalgate.counters import Counters
from vitalgate.engine import Path, Randomness


class OuterSite(Site):
    """Routes every request with an OSCORE option to ``protected``, a request in clear to the resource of ``site`` where
    its path is one of ``unprotected`` (tuples of segments), and answers 4.01 to all others. ``refuses`` gives the
    answer to an OSCORE message that cannot verify whoever sent it, or None."""

    def __init__(
        self,
        site: Site | None,
        unprotected: Collection[tuple[str, ...]],
        protected: Handler,
        refuses: Callable[[Message], Message | None],
        counters: Counters,
        randomness: Randomness,
    ) -> None:
        super().__init__(randomness=randomness)
        self._site = site
        self._open = frozenset(tuple(segment.encode() for segment in path) for path in unprotected)
        self._protected = Route(protected, once=True)  # no two OSCORE messages have the same options
        self._refuses = refuses
        self._event = Route(_by_event)
        self._counters = counters
        if site is not None:
            site.on_change.append(self._changed)

    def find(self, code: int, options: Options) -> Route | int:
        """The route of a request, or the code of the error that it gets."""
        for number, _ in options:
            if number >= Option.OSCORE:
                if number == Option.OSCORE:
                    return self._protected
                break
        if path_segments(options) not in self._open:
            self._counters.add("oscore_requests_refused", "unprotected")
            return Code.UNAUTHORIZED
        return self._event if self._site is None else self._site.find(code, options)

    def refuse(self, route: Route, request: Message, path: Path, identity: str, now: float) -> Message | None:
        """The response that keeps a request from its handler. Of a protected one only what needs no cryptography is
        judged here. But what is refused here is not remembered: it takes no Message ID from whom it claims to be."""
        if route is self._protected:
            return self._refuses(request)
        if self._site is None:
            return None
        return self._site.refuse(route, request, path, identity, now)

    def _changed(self) -> None:
        changed: Callable[[], None]
        for changed in self.on_change:
            changed()


def _by_event(_request: Message, _path: Path, _identity: str, _now: float) -> None:
    return None

"""Resources of a server: a tree of paths, what may be done at each, and ``/.well-known/core`` over all of them."""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from vitalgate.coap.echo import Echo
from vitalgate.coap.formats import ContentFormat
from vitalgate.coap.linkformat import Link, format_links, matches
from vitalgate.coap.message import Code, Message
from vitalgate.coap.options import Option, build_options, decode_uint, path_segments, queries, uri_path
from vitalgate.engine import Path, Randomness

Handler = Callable[[Message, Path, str, float], Message | None]
"""``handler(request, path, identity, now)``: the response, or None where it comes later through ``respond``. It must
raise nothing but `ResponseError`, and have done nothing yet where it returns None: only the `RequestReceived` that
follows says that there was room for the exchange. ``identity`` is the peer's authenticated name, '' under NoSec."""

Notified = Callable[[tuple[bytes, ...], float, Message | None, bool | None], int]
"""``notified(path segments, now, response, confirmable)``: how many observe the resource."""

METHODS = frozenset(range(Code.GET, Code.IPATCH + 1))
SAFE_METHODS = frozenset((Code.GET, Code.FETCH))
"""Methods that change nothing at the server (RFC 7252 section 5.8, RFC 8132 section 2)."""


class ResponseError(Exception):
    """Raised by a handler to answer with an error code and, for people, a diagnostic text (RFC 7252 section 5.5.2)."""

    def __init__(self, code: int, diagnostic: str = "", options: tuple[tuple[int, bytes], ...] = ()) -> None:
        super().__init__(diagnostic)
        self.code = code
        self.diagnostic = diagnostic
        self.options = options

    def response(self) -> Message:
        """The response to send."""
        return Message(self.code, self.options, self.diagnostic.encode())


@dataclass(frozen=True, slots=True)
class Route:
    """One method (or several) of one resource; see `Site.add` for the fields' meaning."""

    handler: Handler
    idempotent: bool = False
    small: bool = False
    fresh_within: float | None = None
    understands: frozenset[int] = frozenset()
    formats: frozenset[int] | None = None
    consumes: frozenset[int] | None = None
    observable: bool = False
    confirmable: bool = True
    groups: bool = False
    once: bool = False
    """True where a request can be taken but once, and none has the options of another (OSCORE): nothing is remembered
    of its options, and its method says nothing about what it does."""
    forwards: bool = False
    """True where the handler is a proxy's, which is told that a client wants to observe (RFC 7641 section 5)."""

    def accepts(self, request: Message) -> bool:
        """False where the request's Accept names no format of this resource (RFC 7252 section 5.10.4)."""
        accept = request.option(Option.ACCEPT)
        return accept is None or self.formats is None or decode_uint(accept) in self.formats

    def takes(self, request: Message) -> bool:
        """False where the payload's Content-Format is none that this resource takes (RFC 7252 section 5.9.2.10)."""
        if self.consumes is None:
            return True
        given = request.option(Option.CONTENT_FORMAT)
        return given is not None and decode_uint(given) in self.consumes


@dataclass(slots=True)
class _Node:
    children: dict[bytes, "_Node"] = field(default_factory=dict)
    routes: dict[int, Route] = field(default_factory=dict)
    subtree: bool = False
    link: Link | None = None


class Site:
    """A server's resources.

    >>> site = Site()
    >>> site.add("hello", lambda request, path, identity, now: Message(Code.CONTENT, (), b"hi"), methods=[Code.GET])
    >>> site.answer(Message(Code.GET, ((11, b"hello"),)), None, "", 0.0).payload
    b'hi'
    """

    def __init__(self, *, randomness: Randomness = os.urandom) -> None:
        self.echo = Echo(randomness)
        """Makes the challenges for ``fresh_within``; an endpoint without a security layer shares it for addresses."""
        self.on_change: list[Callable[[], None]] = []
        """Called after a resource was added; endpoints drop what they keep about routes."""
        self.on_notify: list[Notified] = []
        """Called by `notify`; endpoints tell those that observe the resource through them."""
        self._root = _Node()
        self.add(
            ".well-known/core", self._discover, methods=[Code.GET], idempotent=True, listed=False, groups=True,
            formats=[ContentFormat.LINK_FORMAT],
        )  # fmt: skip

    def add(
        self,
        path: str,
        handler: Handler,
        *,
        methods: Iterable[int] = METHODS,
        idempotent: bool = False,
        small: bool = False,
        fresh_within: float | None = None,
        understands: Iterable[int] = (),
        formats: Iterable[int] | None = None,
        consumes: Iterable[int] | None = None,
        observable: bool = False,
        confirmable: bool = True,
        groups: bool = False,
        subtree: bool = False,
        listed: bool = True,
        rt: str = "",
        interface: str = "",
        title: str = "",
        sz: int | None = None,
    ) -> None:
        """Serve ``methods`` of ``path`` ('a/b') with ``handler``. ValueError where one of them is served already.

        * ``idempotent``: doing it twice does no harm, so a duplicate request runs the handler again and nothing is
          stored for it (RFC 7252 section 4.5). For methods like GET.
        * ``small``: the responses fit what may be sent to an unverified address, so requests that change something are
          let in from one; a response that does not fit after all goes without its payload. Without it such a request is
          answered 4.01 with Echo until the address is verified (RFC 9175 section 2.4).
        * ``fresh_within``: the request must carry an Echo value no older than this many seconds, else 4.01 with one.
        * ``understands``: critical options besides Uri-* and Accept that the handler takes care of.
        * ``formats``: the Content-Formats that it can answer with; a request whose Accept is none of them gets 4.06.
        * ``consumes``: the Content-Formats of payloads that it takes; another one, or none, gets 4.15. For FETCH, PATCH
          and iPATCH, whose payload means nothing without its format (RFC 8132 section 2.1), and for PUT and POST.
        * ``observable``: GET and FETCH may ask for notifications (RFC 7641, RFC 8132 section 2.4); say what changed
          with `notify`. ``confirmable``: they are Confirmable messages; else Non-confirmable but for one a day.
        * ``groups``: also answer requests that were sent to a group that this server is a member of (RFC 7252 section
          8): after a random time, and neither with an error nor, where it was to be read, with nothing.
        * ``subtree``: also serve every path below, where no other resource is.
        * ``listed``, ``rt``, ``interface``, ``title``, ``sz``: what ``/.well-known/core`` says (RFC 6690 section 3).
        """
        node = self._root
        for _, segment in uri_path(path):
            node = node.children.setdefault(segment, _Node())
        wanted = frozenset(methods)
        if not wanted or wanted - METHODS:
            raise ValueError(f"methods are codes 1 to 7, not {sorted(wanted)}")
        if wanted & node.routes.keys():
            raise ValueError(f"/{path} serves {sorted(wanted & node.routes.keys())} already")
        named = None if formats is None else frozenset(formats)
        taken = None if consumes is None else frozenset(consumes)
        route = Route(
            handler,
            idempotent,
            small,
            fresh_within,
            frozenset(understands),
            named,
            taken,
            observable,
            confirmable,
            groups,
        )
        node.routes.update(dict.fromkeys(wanted, route))
        node.subtree = node.subtree or subtree
        if listed:
            href = "/" + path.removeprefix("/")
            node.link = node.link or Link(href)
            formats_listed = tuple(sorted(set(node.link.ct) | (named or set())))
            node.link = replace(
                node.link, rt=rt or node.link.rt, interface=interface or node.link.interface,
                title=title or node.link.title, ct=formats_listed, sz=node.link.sz if sz is None else sz,
                obs=node.link.obs or observable,
            )  # fmt: skip
        for changed in self.on_change:
            changed()

    def find(self, code: int, options: tuple[tuple[int, bytes], ...]) -> Route | int:
        """The route of a request, or the code of the error that it gets: 4.04, 4.05."""
        node: _Node | None = self._root
        within: _Node | None = None
        for segment in path_segments(options):
            assert node is not None
            if node.subtree:
                within = node
            node = node.children.get(segment)
            if node is None:
                break
        if node is None or not node.routes:
            node = within
        if node is None:
            return Code.NOT_FOUND
        return node.routes.get(code) or Code.METHOD_NOT_ALLOWED

    def answer(self, request: Message, path: Path, identity: str, now: float) -> Message | None:
        """The response to a request whose options were checked already; None where it comes later."""
        route = self.find(request.code, request.options)
        if not isinstance(route, Route):
            return Message(route)
        return self.run(route, request, path, identity, now)

    def run(self, route: Route, request: Message, path: Path, identity: str, now: float) -> Message | None:
        """The response of ``route``: its conditions (options, Accept, freshness), then its handler."""
        refused = self.refuse(route, request, path, identity, now)
        if refused is not None:
            return refused
        try:
            return route.handler(request, path, identity, now)
        except ResponseError as error:
            return error.response()

    def refuse(self, route: Route, request: Message, path: Path, identity: str, now: float) -> Message | None:
        """The response that keeps ``request`` from the handler, or None."""
        bad = [n for n in _RESOURCE_OPTIONS if request.option(n) is not None and n not in route.understands]
        if bad:
            return bad_option(bad)
        if not route.accepts(request):
            return Message(Code.NOT_ACCEPTABLE)
        if not route.takes(request):
            return Message(Code.UNSUPPORTED_CONTENT_FORMAT)
        if route.fresh_within is not None:
            value = request.option(Option.ECHO)
            age = None if value is None else self.echo.age(value, path, now, identity)
            if age is None or age > route.fresh_within:
                return self.echo.challenge(path, now, identity)
        return None

    def notify(self, path: str, now: float, response: Message | None = None, *, confirmable: bool | None = None) -> int:
        """Say that the state of ``path`` changed: whoever observes it gets a notification, and how many they are is
        returned. Its content is ``response`` or, without one, what the resource's handler answers each of them;
        ``confirmable`` is for this change alone. May be called from a handler."""
        segments = tuple(segment for _, segment in uri_path(path))
        return sum(notified(segments, now, response, confirmable) for notified in self.on_notify)

    def links(self) -> list[Link]:
        """The listed resources, in the order of their paths."""
        found: list[Link] = []
        nodes = [self._root]
        while nodes:
            node = nodes.pop()
            if node.link is not None:
                found.append(node.link)
            nodes.extend(node.children.values())
        return sorted(found, key=lambda link: link.href)

    def _discover(self, request: Message, _path: Path, _identity: str, _now: float) -> Message:
        # RFC 6690 section 4: resource discovery; section 4.1: one filter, more of them must all match.
        filters = queries(request.options)
        chosen = [link for link in self.links() if all(matches(link, text) for text in filters)]
        options = build_options(content_format=ContentFormat.LINK_FORMAT)
        return Message(Code.CONTENT, options, format_links(chosen).encode())


_RESOURCE_OPTIONS = (Option.IF_MATCH, Option.IF_NONE_MATCH)


def bad_option(numbers: Iterable[int]) -> Message:
    """4.02 with a diagnostic payload that names the options (RFC 7252 section 5.4.1)."""
    named = ", ".join(str(int(number)) for number in numbers)
    return Message(Code.BAD_OPTION, (), f"option {named}"[:80].encode())

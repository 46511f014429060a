"""From the request that a client sends a proxy to the one that the proxy sends on (RFC 7252 sections 5.7.2, 5.7.3)."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from vitalgate.coap.message import Code, Message, Options
from vitalgate.coap.options import Option, decode_uint, encode_uint, sort_options
from vitalgate.coap.proxypolicy import PORTS, Target
from vitalgate.coap.uri import UriError, compose_uri, parse_uri

HOP_LIMIT: Final = 16
"""Hop-Limit of requests that came without one (RFC 8768 section 3)."""
MAX_DIAGNOSTIC: Final = 1024
"""Longest diagnostic payload of a 5.08 that a proxy still puts its name in front of (RFC 8768 section 4)."""

_PROXY = frozenset((Option.PROXY_URI, Option.PROXY_SCHEME))
_URI = frozenset((Option.URI_HOST, Option.URI_PORT, Option.URI_PATH, Option.URI_QUERY))
_OF_ONE_HOP = frozenset(
    (Option.BLOCK1, Option.BLOCK2, Option.SIZE1, Option.SIZE2, Option.REQUEST_TAG, Option.OBSERVE, Option.ECHO,
     Option.NO_RESPONSE, Option.HOP_LIMIT)
)  # fmt: skip
"""What client and proxy, or proxy and server, arrange between them. A proxy that puts bodies together has its own
blocks on either side (RFC 7959, RFC 9175 section 3), answers and asks for Echo itself (RFC 9175 section 2.3), mutes its
own responses (RFC 7967) and counts hops (RFC 8768)."""
_URI_CHARACTERS = re.compile(r"[!-~]+")
_HTTP_HOST = re.compile(r"\[[0-9a-f:.]+\]|[a-z0-9_](?:[a-z0-9_.-]*[a-z0-9_.])?")


class RouteError(ValueError):
    """A text that is no reverse route; it says why."""


@dataclass(frozen=True, slots=True)
class ReverseRoute:
    """Requests for paths below ``prefix`` go to ``target``, where ``base`` stands in its place."""

    prefix: tuple[bytes, ...]
    target: Target
    base: tuple[bytes, ...]
    host: Options
    """The Uri-Host option, where the target has a name."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be sent to whom. ``request``: with the options that go on; ``url``: for http and https the URL."""

    target: Target
    request: Message
    url: str = ""
    route: ReverseRoute | None = None


@dataclass(frozen=True, slots=True)
class Local:
    """A request whose URI names the proxy itself (section 5.7.2): as if it had been sent without a proxy option."""

    request: Message


def parse_route(text: str) -> ReverseRoute:
    """A route from '/prefix=coap://HOST[:PORT][/base]'. Raises `RouteError`.

    >>> parse_route("/ward=coap://192.0.2.1/v1").base
    (b'v1',)
    """
    prefix, separator, uri = text.partition("=")
    if not separator or not prefix.startswith("/"):
        raise RouteError(f"{text!r}: write /prefix=coap://HOST[:PORT][/base]")
    try:
        # What a path is in a URI is the same before and behind the sign.
        there = parse_uri(uri)
        here = parse_uri("coap://prefix" + prefix.rstrip("/"))
    except UriError as error:
        raise RouteError(f"{text!r}: {error}") from error
    if there.scheme != "coap" or any(number == Option.URI_QUERY for number, _ in (*there.options, *here.options)):
        raise RouteError(f"{text!r}: the target is a coap URI, and neither side has a query")
    base = [value for number, value in there.options if number == Option.URI_PATH]
    if base and not base[-1]:
        base.pop()  # a closing slash
    path = tuple(value for number, value in here.options if number == Option.URI_PATH)
    host = tuple(pair for pair in there.options if pair[0] == Option.URI_HOST)
    return ReverseRoute(path, Target(there.scheme, there.host, there.port), tuple(base), host)


def find_route(options: Options, routes: Sequence[ReverseRoute]) -> ReverseRoute | None:
    """The route of a request with ``options``: of those that fit the one with the longest prefix."""
    if not routes:
        return None
    path = tuple(value for number, value in options if number == Option.URI_PATH)
    fitting = [route for route in routes if path[: len(route.prefix)] == route.prefix]
    return max(fitting, key=lambda route: len(route.prefix), default=None)


def is_for_proxy(options: Options) -> bool:
    """True where a request with ``options`` asks for a forward-proxy."""
    return any(number in _PROXY for number, _ in options)


def plan_forward(request: Message, *, hop_limit: int = HOP_LIMIT) -> Plan | Local | Message:
    """What a forward-proxy is to do for ``request``, or the error response that it gets."""
    uri = request.option(Option.PROXY_URI)
    if uri is not None and request.option(Option.PROXY_SCHEME) is not None:
        return Message(Code.BAD_REQUEST, (), b"Proxy-Uri and Proxy-Scheme")
    if uri is not None:
        return plan_uri(request, uri.decode(errors="replace"), hop_limit=hop_limit)
    if request.option(Option.URI_HOST) is None:
        # Section 5.10.1: its default is the address that the request came to.
        return Local(Message(request.code, _without(request.options, _PROXY), request.payload))
    scheme = (request.option(Option.PROXY_SCHEME) or b"").decode(errors="replace").lower()
    # Section 6.5 for any scheme; a port that is not named is the scheme's own.
    port = PORTS.get(scheme, 0)
    return plan_uri(request, compose_uri(request.options, "", port, scheme), hop_limit=hop_limit)


def plan_uri(request: Message, uri: str, *, hop_limit: int = HOP_LIMIT) -> Plan | Message:
    """The same for the request URI ``uri``, which counts before any Uri-* option."""
    scheme = uri.partition(":")[0].lower()
    if scheme not in PORTS:
        return Message(Code.PROXYING_NOT_SUPPORTED, (), b"scheme")
    hops = _next_hops(request, hop_limit)
    if isinstance(hops, Message):
        return hops
    options = _without(request.options, _PROXY | _URI | _OF_ONE_HOP)
    if not _URI_CHARACTERS.fullmatch(uri):
        return Message(Code.BAD_REQUEST, (), b"URI")
    if scheme in ("http", "https"):
        target = _http_target(uri, scheme)
        if target is None:
            return Message(Code.BAD_REQUEST, (), b"URI")
        return Plan(target, Message(request.code, _with_hops(options, hops), request.payload), uri)
    try:
        there = parse_uri(uri)
    except UriError:
        return Message(Code.BAD_REQUEST, (), b"URI")
    options = _with_hops((*options, *there.options), hops)
    return Plan(Target(scheme, there.host, there.port), Message(request.code, options, request.payload))


def plan_reverse(request: Message, route: ReverseRoute, *, hop_limit: int = HOP_LIMIT) -> Plan | Message:
    """What a reverse-proxy is to do for ``request``, or the error response that it gets."""
    hops = _next_hops(request, hop_limit)
    if isinstance(hops, Message):
        return hops
    path = [value for number, value in request.options if number == Option.URI_PATH][len(route.prefix) :]
    query = [pair for pair in request.options if pair[0] == Option.URI_QUERY]
    there = [*route.host, *((int(Option.URI_PATH), value) for value in (*route.base, *path)), *query]
    options = _with_hops((*_without(request.options, _URI | _OF_ONE_HOP), *there), hops)
    return Plan(route.target, Message(request.code, options, request.payload), route=route)


def plan_response(response: Message, plan: Plan, name: str) -> Message:
    """What the client gets of the origin server's ``response``; ``name`` is the proxy's in 5.08 (RFC 8768)."""
    options = _without(response.options, _OF_ONE_HOP)
    payload = response.payload
    if response.code == Code.HOP_LIMIT_REACHED:
        own = name.encode()
        if own in payload.split(b" "):
            return Message(Code.BAD_GATEWAY, (), b"loop")  # section 4: must not go on
        if len(own) + 1 + len(payload) <= MAX_DIAGNOSTIC:
            payload = own + b" " + payload if payload else own
    if plan.route is not None:
        options = _locations_here(options, plan.route)
    return Message(response.code, options, payload)


def loop_response(name: str) -> Message:
    """5.08 with the proxy's name."""
    return Message(Code.HOP_LIMIT_REACHED, (), name.encode())


def _locations_here(options: Options, route: ReverseRoute) -> Options:
    # What was created below the route's base is reached below its prefix.
    path = tuple(value for number, value in options if number == Option.LOCATION_PATH)
    if not path or path[: len(route.base)] != route.base:
        return options
    here = (*route.prefix, *path[len(route.base) :])
    rest = _without(options, frozenset((Option.LOCATION_PATH,)))
    return sort_options([*rest, *((int(Option.LOCATION_PATH), value) for value in here)])


def _next_hops(request: Message, initial: int) -> int | Message:
    # RFC 8768 section 3. What is left of hops may be 0 only where the request is not sent on.
    value = request.option(Option.HOP_LIMIT)
    if value is None:
        return initial
    hops = decode_uint(value)
    if not 1 <= hops <= 255:
        return Message(Code.BAD_REQUEST, (), b"Hop-Limit")
    return hops - 1


def hops_left(plan: Plan) -> int:
    """The Hop-Limit that goes on; 0: it must not."""
    value = plan.request.option(Option.HOP_LIMIT)
    return decode_uint(value or b"")


def _with_hops(options: Options, hops: int) -> Options:
    return sort_options([*options, (int(Option.HOP_LIMIT), encode_uint(hops))])


def _without(options: Options, numbers: frozenset[Option]) -> Options:
    return tuple(pair for pair in options if pair[0] not in numbers)


def _http_target(uri: str, scheme: str) -> Target | None:
    try:
        parts = urlsplit(uri)
        port = parts.port
        host = parts.hostname or ""
    except ValueError:
        return None
    written = f"[{host}]" if ":" in host else host
    if "#" in uri or "@" in parts.netloc or port == 0 or len(host) > 253 or not _HTTP_HOST.fullmatch(written):
        return None
    return Target(scheme, host, port or PORTS[scheme])

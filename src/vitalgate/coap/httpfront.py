"""HTTP clients and CoAP servers: requests from HTTP into CoAP, responses back (RFC 8075; RFC 7252 section 10.2)."""

import ipaddress
import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote_from_bytes, unquote, urlsplit

from vitalgate.coap.cache import max_age
from vitalgate.coap.httpvalues import (
    Headers,
    HttpRequest,
    HttpResponse,
    accepted,
    coap_etags,
    content_format_of,
    content_type,
    http_etag,
)
from vitalgate.coap.message import Code, Message, code_text
from vitalgate.coap.options import Option, build_options, content_format, is_critical, uint_option

BASE: Final = "/hc/"
"""Where the proxy function is: a target CoAP URI follows, or ``?target_uri=`` and one (RFC 8075 sections 5.3, 5.4)."""
LINKS: Final = f'<{BASE}>;rt="core.hc",<{BASE}>;rt="core.hc";hct="?target_uri={{+tu}}"'
"""What ``/.well-known/core`` says (RFC 8075 section 5.5): the default mapping, and the one by query."""

METHODS: Final[dict[str, Code]] = {
    "GET": Code.GET, "HEAD": Code.GET, "POST": Code.POST, "PUT": Code.PUT, "DELETE": Code.DELETE, "PATCH": Code.PATCH,
}  # fmt: skip
STATUS: Final[dict[int, int]] = {
    # RFC 8075 section 7, table 2; RFC 8132 section 2.3.1 and 3 (4.09, 4.22); RFC 8516; RFC 8768 section 5.
    Code.CREATED: 201, Code.DELETED: 200, Code.VALID: 304, Code.CHANGED: 200, Code.CONTENT: 200,
    Code.BAD_REQUEST: 400, Code.UNAUTHORIZED: 403, Code.BAD_OPTION: 500, Code.FORBIDDEN: 403, Code.NOT_FOUND: 404,
    Code.METHOD_NOT_ALLOWED: 400, Code.NOT_ACCEPTABLE: 406, Code.REQUEST_ENTITY_INCOMPLETE: 502, Code.CONFLICT: 409,
    Code.PRECONDITION_FAILED: 412, Code.REQUEST_ENTITY_TOO_LARGE: 413, Code.UNSUPPORTED_CONTENT_FORMAT: 415,
    Code.UNPROCESSABLE_ENTITY: 422, Code.TOO_MANY_REQUESTS: 429, Code.INTERNAL_SERVER_ERROR: 500,
    Code.NOT_IMPLEMENTED: 501, Code.BAD_GATEWAY: 502, Code.SERVICE_UNAVAILABLE: 503, Code.GATEWAY_TIMEOUT: 504,
    Code.PROXYING_NOT_SUPPORTED: 502, Code.HOP_LIMIT_REACHED: 508,
}  # fmt: skip
_CLASS_STATUS = {2: 200, 4: 400, 5: 502}
"""For codes that are in no table."""
_SCHEMES = ("coap://", "coaps://")


@dataclass(frozen=True, slots=True)
class Asked:
    """An HTTP request in CoAP's words: ``request`` without Uri-* options, for ``uri``."""

    request: Message
    uri: str
    method: str
    conditional: bool = False
    """True where the client has representations that a 2.03 may name."""


def to_coap(request: HttpRequest, *, names: Collection[str] = (), via: str = "") -> Asked | HttpResponse:
    """What to ask for, or the response at hand: an error, or the list of links.

    A request-target may be the target URI itself (``GET coap://host/path HTTP/1.1``) or name it below `BASE`. ``Host``
    must then be an address, ``localhost`` or one of ``names``, and the request none that a page of another site has a
    browser send: else whatever page somebody looks at could ask for what the proxy may reach. ``via`` is the proxy's
    name in the field ``Via``, found there where a request came round in a circle.
    """
    if via and re.search(rf"(?:^|[\s,]){re.escape(via)}(?:$|[\s,])", request.header("via")):
        return _error(508, "loop")
    code = METHODS.get(request.method)
    if code is None:
        return _error(501, "method")
    target = request.target
    if not target.lower().startswith(_SCHEMES):
        refused = _refuse_strangers(request, names)
        if refused is not None:
            return refused
        if target.partition("?")[0] == "/.well-known/core" and request.method in ("GET", "HEAD"):
            return HttpResponse(200, (("content-type", "application/link-format"),), LINKS.encode())
        found = target_uri(target)
        if found is None:
            return _error(404, f"the proxy is at {BASE}: append a target like coap://host/path")
        target = found
    if not target.lower().startswith(_SCHEMES):
        return _error(400, "the target is a coap URI with its scheme")
    options = _options(request, code)
    if isinstance(options, HttpResponse):
        return options
    conditional = any(number == Option.ETAG for number, _ in options)
    body = b"" if code == Code.GET else request.body
    return Asked(Message(code, build_options(more=options), body), target, request.method, conditional)


def target_uri(target: str) -> str | None:
    """The target CoAP URI in the request-target of a hosting HTTP URI, or None where it is none (RFC 8075 section 5).

    >>> target_uri("/hc/coap://%5B2001:db8::1%5D/light?on"), target_uri("/hc/?target_uri=coap%3A%2F%2Fhost%2Fa%3Fb")
    ('coap://[2001:db8::1]/light?on', 'coap://host/a?b')
    """
    for start in (f"{BASE}?target_uri=", f"{BASE[:-1]}?target_uri="):
        if target.startswith(start):
            found = target[len(start) :]
            return found if "://" in found else unquote(found, errors="replace")
    if not target.startswith(BASE):
        return None
    found = target[len(BASE) :]
    scheme, separator, rest = found.partition("://")
    authority = re.match(r"[^/?]*", rest)
    length = authority.end() if authority else 0
    # Section 5.3.2: brackets of IPv6 addresses are the one thing that is written differently.
    written = re.sub("%5b", "[", re.sub("%5d", "]", rest[:length], flags=re.IGNORECASE), flags=re.IGNORECASE)
    return scheme + separator + written + rest[length:]


def from_coap(response: Message, asked: Asked) -> HttpResponse:
    """The HTTP response to ``asked`` for a CoAP one (RFC 8075 sections 6, 7), with the body also where it is HEAD's."""
    if any(is_critical(number) for number, _ in response.options):
        return _error(502, "the response has a critical option that HTTP has no words for")
    code = response.code
    status = STATUS.get(code) or _CLASS_STATUS.get(code >> 5, 502)
    if code == Code.VALID and not asked.conditional:
        status = 502
    body = response.payload
    if code in (Code.DELETED, Code.CHANGED) and not body:
        status = 204
    headers: list[tuple[str, str]] = []
    form = content_format(response)
    if form is not None:
        headers.append(("content-type", content_type(form)))
    elif body:
        # Section 6.6: diagnostics are text; what else has no format is any bytes.
        headers.append(("content-type", "application/octet-stream" if code >> 5 == 2 else "text/plain;charset=utf-8"))
    etag = response.option(Option.ETAG)
    if etag is not None:
        headers.append(("etag", http_etag(etag)))
    if asked.method in ("GET", "HEAD"):
        headers.append(("cache-control", f"max-age={max_age(response)}"))
    seconds = uint_option(response, Option.MAX_AGE)
    if code in (Code.SERVICE_UNAVAILABLE, Code.TOO_MANY_REQUESTS) and seconds is not None:
        headers.append(("retry-after", str(seconds)))
    location = _location(response, asked)
    if location:
        headers.append(("location", location))
    reason = f"CoAP server returned {code_text(code)}" if code in (Code.METHOD_NOT_ALLOWED, Code.BAD_OPTION) else ""
    if status in (204, 304):
        body = b""
    return HttpResponse(status, tuple(headers), body, reason)


def _error(status: int, text: str, *headers: tuple[str, str]) -> HttpResponse:
    fields: Headers = (("content-type", "text/plain;charset=utf-8"), *headers)
    return HttpResponse(status, fields, text.encode() + b"\n")


def _refuse_strangers(request: HttpRequest, names: Collection[str]) -> HttpResponse | None:
    host = request.header("host").lower()
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    if name != "localhost" and name not in names and not _is_address(name):
        return _error(421, "the proxy does not go by this name")
    origin = request.header("origin").lower()
    if origin and urlsplit(origin).netloc != host:
        return _error(403, "pages of other sites may not ask")
    if request.header("sec-fetch-site").lower() in ("cross-site", "same-site"):
        return _error(403, "pages of other sites may not ask")
    return None


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _options(request: HttpRequest, code: Code) -> list[tuple[int, bytes]] | HttpResponse:
    options: list[tuple[int, bytes]] = []
    if request.body:
        if request.header("content-encoding").lower() not in ("", "identity"):
            return _error(415, "content coding")
        given = request.header("content-type")
        form = content_format_of(given)
        if given and form is None:
            return _error(415, f"no Content-Format for {given[:80]}")
        if form is not None:
            options += build_options(content_format=form)
    try:
        accept = accepted(request.header("accept"))
    except LookupError:
        return _error(406, "no Content-Format for what is accepted")
    if accept is not None:
        options += build_options(accept=accept)
    return options if _conditions(request, code, options) else _error(412, "no such condition")


def _conditions(request: HttpRequest, code: Code, options: list[tuple[int, bytes]]) -> bool:
    # RFC 7252 sections 5.10.6, 5.10.8; False where a condition can never be met, or not be asked for in CoAP.
    none_match, match = request.header("if-none-match").strip(), request.header("if-match").strip()
    if code == Code.GET:
        options += [(int(Option.ETAG), tag) for tag in coap_etags(none_match, weak=True)]
        return True
    if none_match == "*":
        options.append((int(Option.IF_NONE_MATCH), b""))
    elif none_match:
        return False
    if match == "*":
        options.append((int(Option.IF_MATCH), b""))
    elif match:
        tags = coap_etags(match, weak=False)
        options += [(int(Option.IF_MATCH), tag) for tag in tags]
        return bool(tags)
    return True


def _location(response: Message, asked: Asked) -> str:
    # RFC 7252 section 10.2.4: where what was created is, through this proxy again.
    path = "".join("/" + quote_from_bytes(value, "!$&'()*+,;=:@") for value in response.all(Option.LOCATION_PATH))
    query = "&".join(quote_from_bytes(value, "!$'()*+,;=:@/?") for value in response.all(Option.LOCATION_QUERY))
    if not path and not query:
        return ""
    base = urlsplit(asked.uri)
    authority = base.netloc.replace("[", "%5B").replace("]", "%5D")
    return f"{BASE}{base.scheme}://{authority}{path}" + (f"?{query}" if query else "")

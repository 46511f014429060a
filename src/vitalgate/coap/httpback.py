"""CoAP clients and HTTP servers: requests from CoAP into HTTP, responses back (RFC 7252 section 10.1)."""

from typing import Final
from urllib.parse import unquote_to_bytes, urljoin, urlsplit

from vitalgate.coap.httpvalues import (
    EtagTable,
    HttpRequest,
    HttpResponse,
    content_format_of,
    content_type,
    loose_content_format,
    remaining_freshness,
    seconds,
)
from vitalgate.coap.message import Code, Message, Options
from vitalgate.coap.options import Option, build_options, decode_uint, is_critical, sort_options, uint_option

METHODS: Final[dict[int, str]] = {
    Code.GET: "GET", Code.POST: "POST", Code.PUT: "PUT", Code.DELETE: "DELETE", Code.PATCH: "PATCH",
}  # fmt: skip
CODES: Final[dict[int, Code]] = {
    400: Code.BAD_REQUEST, 401: Code.UNAUTHORIZED, 403: Code.FORBIDDEN, 404: Code.NOT_FOUND,
    405: Code.METHOD_NOT_ALLOWED, 406: Code.NOT_ACCEPTABLE, 409: Code.CONFLICT, 410: Code.NOT_FOUND,
    412: Code.PRECONDITION_FAILED, 413: Code.REQUEST_ENTITY_TOO_LARGE, 415: Code.UNSUPPORTED_CONTENT_FORMAT,
    422: Code.UNPROCESSABLE_ENTITY, 429: Code.TOO_MANY_REQUESTS, 500: Code.INTERNAL_SERVER_ERROR,
    501: Code.NOT_IMPLEMENTED, 502: Code.BAD_GATEWAY, 503: Code.SERVICE_UNAVAILABLE, 504: Code.GATEWAY_TIMEOUT,
    508: Code.HOP_LIMIT_REACHED,
}  # fmt: skip
"""Statuses of errors and the codes that mean the same."""
_CLASS_CODE = {4: Code.BAD_REQUEST, 5: Code.BAD_GATEWAY}
MAX_DIAGNOSTIC: Final = 512
"""Longest text of an error that is passed on; the rest is cut off."""
_UNDERSTOOD = frozenset((Option.IF_MATCH, Option.IF_NONE_MATCH, Option.ACCEPT))


def to_http(request: Message, url: str, etags: EtagTable, *, name: str = "") -> HttpRequest | Message:
    """The HTTP request for ``url`` that ``request`` means, or the error response where HTTP has no words for it.
    ``name`` is the proxy's, for the field ``Via``."""
    method = METHODS.get(request.code)
    if method is None:
        return Message(Code.NOT_IMPLEMENTED)
    unknown = [number for number, _ in request.options if is_critical(number) and number not in _UNDERSTOOD]
    if unknown:
        return Message(Code.BAD_OPTION, (), f"option {unknown[0]}".encode())
    headers: list[tuple[str, str]] = []
    accept = uint_option(request, Option.ACCEPT)
    if accept is not None:
        headers.append(("accept", content_type(accept)))
    form = uint_option(request, Option.CONTENT_FORMAT)
    if form is not None and request.payload:
        headers.append(("content-type", content_type(form)))
    known = [text for value in request.all(Option.ETAG) if (text := etags.text(value)) is not None]
    if known and request.code == Code.GET:
        headers.append(("if-none-match", ", ".join(known)))
    if request.option(Option.IF_NONE_MATCH) is not None:
        headers.append(("if-none-match", "*"))
    conditions = request.all(Option.IF_MATCH)
    if conditions:
        texts = ["*" if not value else etags.text(value) for value in conditions]
        met = [text for text in texts if text is not None]
        if not met:
            return Message(Code.PRECONDITION_FAILED)
        headers.append(("if-match", "*" if "*" in met else ", ".join(met)))
    if name:
        headers.append(("via", f"1.1 {name}"))
    if request.payload or request.code != Code.GET:
        headers.append(("content-length", str(len(request.payload))))
    return HttpRequest(method, url, tuple(headers), request.payload)


def from_http(response: HttpResponse, request: Message, url: str, etags: EtagTable) -> Message:
    """The CoAP response for an HTTP one. Redirections are not followed, for where they lead nobody has judged."""
    status = response.status
    if status == 304:
        etag = etags.option(response.header("etag"))
        if etag is None:
            # It may leave its tag out where we named but one.
            asked = [value for value in request.all(Option.ETAG) if etags.text(value) is not None]
            etag = asked[0] if len(asked) == 1 else None
        if etag is None:
            return Message(Code.BAD_GATEWAY, (), b"304 without an entity tag")
        more = ((int(Option.ETAG), etag),)
        return Message(Code.VALID, build_options(max_age=remaining_freshness(response), more=more))
    if request.code == Code.DELETE and status in (404, 410):
        return Message(Code.DELETED)  # section 10.1.3: also where there was nothing
    if not 200 <= status < 300:
        return _error(response)
    if status == 206:
        return Message(Code.BAD_GATEWAY, (), b"a part alone")
    if response.header("content-encoding").lower() not in ("", "identity"):
        return Message(Code.BAD_GATEWAY, (), b"content coding")
    options: list[tuple[int, bytes]] = []
    code = _success(request.code, status)
    if response.body:
        given = response.header("content-type")
        form = loose_content_format(given) if given else None
        accept = request.option(Option.ACCEPT)
        if code == Code.CONTENT and accept is not None and form != decode_uint(accept):
            return Message(Code.NOT_ACCEPTABLE)
        if form is not None:
            options += build_options(content_format=form)
    if code == Code.CONTENT:
        etag = etags.option(response.header("etag"))
        options += build_options(
            max_age=remaining_freshness(response), more=() if etag is None else ((int(Option.ETAG), etag),)
        )
    if code == Code.CREATED:
        options += _location(response.header("location"), url)
    return Message(code, sort_options(options), response.body)


def _success(method: int, status: int) -> Code:
    if method == Code.GET:
        return Code.CONTENT
    if method == Code.DELETE:
        return Code.DELETED
    return Code.CREATED if status == 201 else Code.CHANGED


def _error(response: HttpResponse) -> Message:
    status = response.status
    if status // 100 not in _CLASS_CODE:
        return Message(Code.BAD_GATEWAY, (), f"HTTP {status}".encode())
    code = CODES.get(status, _CLASS_CODE[status // 100])
    wait = seconds(response.header("retry-after")) if status in (429, 503) else None
    age = remaining_freshness(response) if wait is None else wait
    text = b""
    if content_format_of(response.header("content-type")) == 0:
        # Section 5.5.2: a diagnostic is text in UTF-8, short and for people.
        text = response.body[:MAX_DIAGNOSTIC].decode(errors="ignore").encode()
    return Message(code, build_options(max_age=age), text)


def _location(location: str, url: str) -> Options:
    # Where what was created is, where that is at the same server and fits the options; else it is left out.
    if not location:
        return ()
    try:
        there, here = urlsplit(urljoin(url, location)), urlsplit(url)
    except ValueError:
        return ()
    if (there.scheme, there.netloc.lower()) != (here.scheme, here.netloc.lower()) or there.fragment:
        return ()
    options: list[tuple[int, bytes]] = []
    if there.path not in ("", "/"):
        options += [(int(Option.LOCATION_PATH), unquote_to_bytes(part)) for part in there.path[1:].split("/")]
    if there.query:
        options += [(int(Option.LOCATION_QUERY), unquote_to_bytes(part)) for part in there.query.split("&")]
    if any(len(value) > 255 or value in (b".", b"..") or not _is_text(value) for _, value in options):
        return ()
    return tuple(options)


def _is_text(value: bytes) -> bool:
    try:
        return value.decode().isprintable()
    except UnicodeDecodeError:
        return False

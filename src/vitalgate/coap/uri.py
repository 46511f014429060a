"""coap and coaps URIs: into options (RFC 7252 section 6.4) and back (section 6.5)."""

import ipaddress
from dataclasses import dataclass
from urllib.parse import quote_from_bytes, unquote_to_bytes, urlsplit

from vitalgate.coap.message import Options
from vitalgate.coap.options import OPTIONS, Option, decode_uint

DEFAULT_PORTS: dict[str, int] = {"coap": 5683, "coaps": 5684}
_SUB_DELIMITERS = "!$&'()*+,;="
_IN_SEGMENT = _SUB_DELIMITERS + ":@"
_IN_QUERY = _SUB_DELIMITERS.replace("&", "") + ":@/?"
"""What stays as it is in a path segment and in one query argument (section 6.5 steps 7 and 8)."""


class UriError(ValueError):
    """A URI that names no CoAP resource; the text says why."""


@dataclass(frozen=True, slots=True)
class Uri:
    """Where a request goes and the Uri-* options it carries. ``host`` is without brackets."""

    scheme: str
    host: str
    port: int
    options: Options


def parse_uri(uri: str) -> Uri:
    """Take ``uri`` apart for a request that goes to its own host and port. Raises `UriError`."""
    try:
        parts = urlsplit(uri)
        port = parts.port
        host = parts.hostname or ""
    except ValueError as error:
        raise UriError(f"{uri!r}: {error}") from error
    if parts.scheme not in DEFAULT_PORTS:
        raise UriError(f"{uri!r} is no absolute URI of the schemes {', '.join(DEFAULT_PORTS)}")
    if "#" in uri:
        raise UriError(f"{uri!r} has a fragment")
    if not host or "@" in parts.netloc:
        raise UriError(f"{uri!r} must have a host and no user")
    if port == 0:
        raise UriError(f"{uri!r} has port 0")
    options: list[tuple[int, bytes]] = []
    if not _is_address(host):
        name = _value(uri, host, Option.URI_HOST)
        options.append((Option.URI_HOST, name))
        host = name.decode()
    if parts.path not in ("", "/"):
        options += [(Option.URI_PATH, _value(uri, text, Option.URI_PATH)) for text in parts.path[1:].split("/")]
    if "?" in uri:
        options += [(Option.URI_QUERY, _value(uri, text, Option.URI_QUERY)) for text in parts.query.split("&")]
    return Uri(parts.scheme, host, port or DEFAULT_PORTS[parts.scheme], tuple(options))


def compose_uri(options: Options, host: str, port: int, scheme: str = "coap") -> str:
    """The URI of a request with ``options`` that goes to ``host`` (an address literal or a name) and ``port``."""
    netloc = f"[{host}]" if ":" in host else host
    path = ""
    arguments: list[str] = []
    for number, value in options:
        if number == Option.URI_HOST:
            name = value.decode(errors="replace")
            netloc = name if _is_address(name.strip("[]")) else quote_from_bytes(value, _SUB_DELIMITERS)
        elif number == Option.URI_PORT:
            port = decode_uint(value)
        elif number == Option.URI_PATH:
            path += "/" + quote_from_bytes(value, _IN_SEGMENT)
        elif number == Option.URI_QUERY:
            arguments.append(quote_from_bytes(value, _IN_QUERY))
    where = netloc if port == DEFAULT_PORTS.get(scheme) else f"{netloc}:{port}"
    return f"{scheme}://{where}{path or '/'}" + ("?" + "&".join(arguments) if arguments else "")


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _value(uri: str, text: str, number: int) -> bytes:
    value = unquote_to_bytes(text)
    row = OPTIONS[number]
    try:
        value.decode()
    except UnicodeDecodeError as error:
        raise UriError(f"{uri!r}: {text!r} is not UTF-8") from error
    if not row.min <= len(value) <= row.max or (number == Option.URI_PATH and value in (b".", b"..")):
        raise UriError(f"{uri!r}: {text!r} cannot be a {row.name} option")
    return value

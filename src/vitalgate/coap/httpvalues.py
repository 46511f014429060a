"""What HTTP and CoAP say in different words: media types, entity tags, how long something is fresh.

For both directions of a cross-proxy: RFC 7252 section 10, RFC 8075 sections 6 and 7.
"""

import re
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from hashlib import blake2s
from typing import Final

from vitalgate.coap.formats import MEDIA_TYPES, ContentFormat

Headers = tuple[tuple[str, str], ...]
"""Header fields in their order, names in lower case."""

COAP_PAYLOAD: Final = "application/coap-payload"
"""The media type of payloads whose Content-Format has no other, with the number as its parameter (RFC 8075 section
6.2)."""
MAX_ETAGS: Final = 1024
"""HTTP entity tags remembered by the option that stands for them. Full: the oldest is forgotten, and a condition on it
is not met."""
MAX_SECONDS: Final = 0xFFFFFFFF
_FORMATS: dict[str, int] = {}


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """An HTTP request. ``target`` is its request-target as it came, or the absolute URL where it goes out."""

    method: str
    target: str
    headers: Headers = ()
    body: bytes = b""

    def header(self, name: str) -> str:
        """All values of field ``name`` (lower case), joined by commas; '' where there is none."""
        return joined(self.headers, name)


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """An HTTP response. ``reason`` '' leaves the usual phrase."""

    status: int
    headers: Headers = ()
    body: bytes = b""
    reason: str = ""

    def header(self, name: str) -> str:
        """All values of field ``name`` (lower case), joined by commas; '' where there is none."""
        return joined(self.headers, name)


def joined(headers: Iterable[tuple[str, str]], name: str) -> str:
    """All values of a field as one list (RFC 9110 section 5.3)."""
    return ", ".join(value for found, value in headers if found == name)


# Media types


def content_type(number: int) -> str:
    """The media type of a Content-Format."""
    return MEDIA_TYPES.get(number) or f"{COAP_PAYLOAD};cf={number}"


def content_format_of(text: str) -> int | None:
    """The Content-Format of a media type, or None. Parameters count, but for the charset that a text has anyway.

    >>> content_format_of("text/plain; charset=UTF-8"), content_format_of("application/senml+cbor")
    (0, 112)
    >>> content_format_of("text/plain;charset=latin1"), content_format_of("application/coap-payload;cf=65000")
    (None, 65000)
    """
    if not _FORMATS:
        _FORMATS.update({_canonical(name): int(number) for number, name in MEDIA_TYPES.items()})
        _FORMATS["text/plain"] = ContentFormat.TEXT
    name = _canonical(text)
    if name.startswith(COAP_PAYLOAD + ";cf="):
        number = name.partition("=")[2]
        return int(number) if re.fullmatch("[0-9]{1,5}", number) and int(number) < 65536 else None
    found = _FORMATS.get(name)
    if found is None and name.endswith(";charset=utf-8"):
        found = _FORMATS.get(name.removesuffix(";charset=utf-8"))
    return found


def loose_content_format(text: str) -> int:
    """The Content-Format that comes nearest to a media type (RFC 8075 section 6.3): that of its structured syntax, of
    plain text in UTF-8, or of any bytes."""
    found = content_format_of(text)
    if found is not None:
        return found
    name, _, parameters = _canonical(text).partition(";")
    for suffix, number in (("+json", ContentFormat.JSON), ("+cbor", ContentFormat.CBOR), ("+xml", ContentFormat.XML)):
        if name.endswith(suffix):
            return number
    if name == "text/xml":
        return ContentFormat.XML
    if name.startswith("text/") and parameters in ("", "charset=utf-8", "charset=us-ascii"):
        return ContentFormat.TEXT
    return ContentFormat.OCTET_STREAM


def accepted(text: str) -> int | None:
    """The one Content-Format to ask for by a field ``Accept`` (RFC 7252 section 10.2.2): the most preferred one that
    has a number; None where any will do. Raises LookupError where none of what is wanted has a number."""
    wanted: list[tuple[float, int | None]] = []
    for each in text.split(","):
        if not each.strip():
            continue
        name, _, quality = re.sub(r"\s", "", each.lower()).partition(";q=")
        try:
            q = float(quality.partition(";")[0] or 1)
        except ValueError:
            q = 0.0
        if not q > 0:
            continue
        number = content_format_of(name)
        if number is not None:
            wanted.append((q, number))
        elif "*" in name:
            wanted.append((q, None))
    if not wanted:
        if text.strip():
            raise LookupError(text)
        return None
    return max(wanted, key=lambda pair: pair[0])[1]


def _canonical(text: str) -> str:
    # Lower case, without space, parameters in order, values without quotes.
    name, *parameters = (part.strip().lower() for part in text.split(";"))
    named = sorted(
        f"{key.strip()}={value.strip().strip(chr(34))}"
        for key, _, value in (part.partition("=") for part in parameters if part)
    )
    return ";".join([name, *named])


# Entity tags

_TAG = re.compile(r'(W/)?"([!#-~\x80-\xff]*)"')


def http_etag(value: bytes) -> str:
    """A CoAP entity tag as HTTP writes it."""
    return f'"{value.hex()}"'


def coap_etags(text: str, *, weak: bool) -> list[bytes]:
    """The CoAP entity tags in a list of HTTP ones, of which others are left out. ``weak``: tags marked as weak count
    as well (RFC 9110 section 8.8.3.2)."""
    found = []
    for mark, tag in _TAG.findall(text):
        if re.fullmatch("(?:[0-9a-f]{2}){1,8}", tag) and (weak or not mark):
            found.append(bytes.fromhex(tag))
    return found


class EtagTable:
    """HTTP's entity tags of any length by the ETag options that stand for them: their hashes."""

    def __init__(self) -> None:
        self._tags: OrderedDict[bytes, str] = OrderedDict()

    def __len__(self) -> int:
        return len(self._tags)

    def option(self, text: str) -> bytes | None:
        """The option for a field ``ETag``; None for a weak one, which CoAP has not (RFC 7252 section 10.1.1)."""
        match = _TAG.fullmatch(text.strip())
        if match is None or match[1]:
            return None
        value = blake2s(match[2].encode("latin-1", "replace"), digest_size=8).digest()
        self._tags[value] = match[0]
        self._tags.move_to_end(value)
        if len(self._tags) > MAX_ETAGS:
            self._tags.popitem(last=False)
        return value

    def text(self, option: bytes) -> str | None:
        """The entity tag that ``option`` stands for, where it is remembered."""
        return self._tags.get(option)


# Freshness


def directives(text: str) -> dict[str, str]:
    """The directives of a field ``Cache-Control``."""
    found: dict[str, str] = {}
    for part in text.split(","):
        name, _, value = part.strip().lower().partition("=")
        if name:
            found.setdefault(name, value.strip().strip('"'))
    return found


def seconds(text: str) -> int | None:
    """A number of seconds as HTTP's fields write it, at most what Max-Age holds; None for anything else."""
    text = text.strip()
    if not (text.isascii() and text.isdigit()):
        return None
    return min(int(text[:12]), MAX_SECONDS)


def remaining_freshness(response: HttpResponse) -> int:
    """For how many seconds a shared cache may use ``response`` still (RFC 9111 section 4.2); 0 if unsaid."""
    control = directives(response.header("cache-control"))
    if control.keys() & {"no-store", "no-cache", "private"} or "*" in response.header("vary"):
        return 0
    for name in ("s-maxage", "max-age"):
        if name in control:
            lifetime = seconds(control[name]) or 0
            break
    else:
        lifetime = _until(response.header("expires"), response.header("date"))
    age = seconds(response.header("age") or "0")
    return 0 if age is None else max(0, lifetime - age)


def _until(expires: str, date: str) -> int:
    try:
        left = parsedate_to_datetime(expires).timestamp() - parsedate_to_datetime(date).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return 0
    return max(0, min(int(left), MAX_SECONDS))

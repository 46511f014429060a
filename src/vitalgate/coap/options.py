"""The one option table (RFC 7252 section 5.10 and later RFCs) and the functions that read and build options by it."""

import enum
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from vitalgate.coap.message import Message, Options

MAX_OPTION_NUMBER = 65535


class Option(enum.IntEnum):
    """Option numbers (IANA registry "CoAP Option Numbers")."""

    IF_MATCH = 1
    URI_HOST = 3
    ETAG = 4
    IF_NONE_MATCH = 5
    OBSERVE = 6
    URI_PORT = 7
    LOCATION_PATH = 8
    OSCORE = 9
    URI_PATH = 11
    CONTENT_FORMAT = 12
    MAX_AGE = 14
    URI_QUERY = 15
    HOP_LIMIT = 16
    ACCEPT = 17
    Q_BLOCK1 = 19
    LOCATION_QUERY = 20
    EDHOC = 21
    BLOCK2 = 23
    BLOCK1 = 27
    SIZE2 = 28
    Q_BLOCK2 = 31
    PROXY_URI = 35
    PROXY_SCHEME = 39
    SIZE1 = 60
    ECHO = 252
    NO_RESPONSE = 258
    REQUEST_TAG = 292


class Format(enum.Enum):
    """Formats of option values (RFC 7252 section 3.2)."""

    EMPTY = "empty"
    OPAQUE = "opaque"
    UINT = "uint"
    STRING = "string"


class Use(enum.Flag):
    """In which messages an option is defined; elsewhere it counts as unrecognised (RFC 7252 section 5.4)."""

    REQUEST = enum.auto()
    RESPONSE = enum.auto()
    BOTH = REQUEST | RESPONSE


def is_critical(number: int) -> bool:
    """True where an endpoint that does not know option ``number`` must not go on (RFC 7252 section 5.4.6)."""
    return number & 1 == 1


def is_unsafe(number: int) -> bool:
    """True where a proxy that does not know option ``number`` must not forward it (RFC 7252 section 5.4.6)."""
    return number & 2 == 2


def is_no_cache_key(number: int) -> bool:
    """True where option ``number`` is Safe-to-Forward and not part of the Cache-Key (RFC 7252 section 5.4.6)."""
    return number & 0x1E == 0x1C


@dataclass(frozen=True, slots=True)
class OptionRow:
    """One option: lengths are bytes of its value; ``repeatable`` says in which messages it may occur several times."""

    number: int
    name: str
    format: Format
    min: int
    max: int
    use: Use
    repeatable: Use | None = None

    @property
    def critical(self) -> bool:
        """See `is_critical`."""
        return is_critical(self.number)

    @property
    def unsafe(self) -> bool:
        """See `is_unsafe`."""
        return is_unsafe(self.number)

    @property
    def no_cache_key(self) -> bool:
        """See `is_no_cache_key`."""
        return is_no_cache_key(self.number)


OPTIONS: dict[int, OptionRow] = {
    row.number: row
    for row in (
        # RFC 7252 section 5.10, table 4
        OptionRow(Option.IF_MATCH, "If-Match", Format.OPAQUE, 0, 8, Use.REQUEST, Use.REQUEST),
        OptionRow(Option.URI_HOST, "Uri-Host", Format.STRING, 1, 255, Use.REQUEST),
        OptionRow(Option.ETAG, "ETag", Format.OPAQUE, 1, 8, Use.BOTH, Use.REQUEST),
        OptionRow(Option.IF_NONE_MATCH, "If-None-Match", Format.EMPTY, 0, 0, Use.REQUEST),
        OptionRow(Option.URI_PORT, "Uri-Port", Format.UINT, 0, 2, Use.REQUEST),
        OptionRow(Option.LOCATION_PATH, "Location-Path", Format.STRING, 0, 255, Use.RESPONSE, Use.RESPONSE),
        OptionRow(Option.URI_PATH, "Uri-Path", Format.STRING, 0, 255, Use.REQUEST, Use.REQUEST),
        OptionRow(Option.CONTENT_FORMAT, "Content-Format", Format.UINT, 0, 2, Use.BOTH),
        OptionRow(Option.MAX_AGE, "Max-Age", Format.UINT, 0, 4, Use.RESPONSE),
        OptionRow(Option.URI_QUERY, "Uri-Query", Format.STRING, 0, 255, Use.REQUEST, Use.REQUEST),
        OptionRow(Option.ACCEPT, "Accept", Format.UINT, 0, 2, Use.REQUEST),
        OptionRow(Option.LOCATION_QUERY, "Location-Query", Format.STRING, 0, 255, Use.RESPONSE, Use.RESPONSE),
        OptionRow(Option.PROXY_URI, "Proxy-Uri", Format.STRING, 1, 1034, Use.REQUEST),
        OptionRow(Option.PROXY_SCHEME, "Proxy-Scheme", Format.STRING, 1, 255, Use.REQUEST),
        OptionRow(Option.SIZE1, "Size1", Format.UINT, 0, 4, Use.BOTH),
        # RFC 7641 section 2
        OptionRow(Option.OBSERVE, "Observe", Format.UINT, 0, 3, Use.BOTH),
        # RFC 7959 section 2.1, 4
        OptionRow(Option.BLOCK2, "Block2", Format.UINT, 0, 3, Use.BOTH),
        OptionRow(Option.BLOCK1, "Block1", Format.UINT, 0, 3, Use.BOTH),
        OptionRow(Option.SIZE2, "Size2", Format.UINT, 0, 4, Use.BOTH),
        # RFC 7967 section 2, RFC 8613 section 2, RFC 8768 section 3
        OptionRow(Option.NO_RESPONSE, "No-Response", Format.UINT, 0, 1, Use.REQUEST),
        OptionRow(Option.OSCORE, "OSCORE", Format.OPAQUE, 0, 255, Use.BOTH),
        OptionRow(Option.HOP_LIMIT, "Hop-Limit", Format.UINT, 1, 1, Use.REQUEST),
        # RFC 9175 sections 2.2.1, 3.2.1
        OptionRow(Option.ECHO, "Echo", Format.OPAQUE, 1, 40, Use.BOTH),
        OptionRow(Option.REQUEST_TAG, "Request-Tag", Format.OPAQUE, 0, 8, Use.REQUEST, Use.REQUEST),
        # RFC 9177 section 4.1, RFC 9668 section 3.1
        OptionRow(Option.Q_BLOCK1, "Q-Block1", Format.UINT, 0, 3, Use.BOTH),
        OptionRow(Option.Q_BLOCK2, "Q-Block2", Format.UINT, 0, 3, Use.BOTH, Use.REQUEST),
        OptionRow(Option.EDHOC, "EDHOC", Format.EMPTY, 0, 0, Use.REQUEST),
    )
}

RFC7252_CRITICAL = frozenset(
    (Option.URI_HOST, Option.URI_PORT, Option.URI_PATH, Option.URI_QUERY, Option.PROXY_URI, Option.PROXY_SCHEME)
)
"""Critical request options that every server of this room understands; Accept, If-Match and If-None-Match are a
resource's own to understand, and later layers add theirs."""


def check_options(options: Options, use: Use, understood: Collection[int]) -> tuple[Options, tuple[int, ...]]:
    """What a recipient keeps of ``options``, and the numbers of the critical ones that it may not ignore.

    An option counts as unrecognised where it is not in the table, not defined for this kind of message, of a wrong
    length, one too many (RFC 7252 sections 5.4, 5.4.3, 5.4.5), or no valid text where it is a string; a critical one
    also where it is not in ``understood``. Unrecognised elective options are left out of what is kept (section 5.4.1).
    """
    kept: list[tuple[int, bytes]] = []
    bad: list[int] = []
    previous = -1
    for number, value in options:
        row = OPTIONS.get(number)
        if (
            row is None
            or use not in row.use
            or not row.min <= len(value) <= row.max
            or (number == previous and (row.repeatable is None or use not in row.repeatable))
            or (row.format is Format.STRING and not _is_text(number, value))
            or (number & 1 and number not in understood)
        ):
            if number & 1:
                bad.append(number)
        else:
            kept.append((number, value))
            previous = number
    return (options if len(kept) == len(options) else tuple(kept)), tuple(bad)


def _is_text(number: int, value: bytes) -> bool:
    # RFC 7252 section 5.10.1: a Uri-Path must not be '.' or '..', which a path resolved elsewhere could act on.
    if number == Option.URI_PATH and value in (b".", b".."):
        return False
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


def encode_uint(value: int) -> bytes:
    """A uint option's value: as few bytes as hold it, none for 0 (RFC 7252 section 3.2)."""
    return value.to_bytes((value.bit_length() + 7) // 8, "big")


def decode_uint(value: bytes) -> int:
    """The number of a uint option; leading zero bytes are accepted (RFC 7252 section 3.2)."""
    return int.from_bytes(value, "big")


def sort_options(pairs: Iterable[tuple[int, bytes]]) -> Options:
    """Pairs in the order of a message: ascending numbers, repeated ones as given."""
    return tuple(sorted(pairs, key=lambda pair: pair[0]))


def with_option(options: Options, number: int, value: bytes) -> Options:
    """``options`` with ``number`` set to ``value`` alone."""
    return sort_options([*without_option(options, number), (number, value)])


def without_option(options: Options, number: int) -> Options:
    """``options`` without any ``number``."""
    return tuple(pair for pair in options if pair[0] != number)


def uri_path(path: str) -> Options:
    """Uri-Path options of 'a/b'; '' and '/' give none, a leading '/' is dropped, other empty segments are kept."""
    trimmed = path.removeprefix("/")
    return tuple((Option.URI_PATH, segment.encode()) for segment in trimmed.split("/")) if trimmed else ()


def path_segments(options: Options) -> tuple[bytes, ...]:
    """The values of the Uri-Path options."""
    return tuple(value for number, value in options if number == Option.URI_PATH)


def path_text(options: Options) -> str:
    """The path for people and logs: '/a/b', or '/' (undecodable bytes replaced)."""
    return "/" + "/".join(segment.decode(errors="replace") for segment in path_segments(options))


def queries(options: Options) -> tuple[str, ...]:
    """The values of the Uri-Query options (valid text once `check_options` kept them)."""
    return tuple(value.decode(errors="replace") for number, value in options if number == Option.URI_QUERY)


def build_options(
    path: str = "",
    *,
    query: Iterable[str] = (),
    content_format: int | None = None,
    accept: int | None = None,
    max_age: int | None = None,
    more: Iterable[tuple[int, bytes]] = (),
) -> Options:
    """Options of a request or response in their order: the usual ones by name, any others through ``more``."""
    pairs: list[tuple[int, bytes]] = [*uri_path(path), *((Option.URI_QUERY, text.encode()) for text in query)]
    for number, value in (
        (Option.CONTENT_FORMAT, content_format),
        (Option.ACCEPT, accept),
        (Option.MAX_AGE, max_age),
    ):
        if value is not None:
            pairs.append((number, encode_uint(value)))
    return sort_options([*pairs, *more])


def uint_option(message: Message, number: int) -> int | None:
    """The first value of uint option ``number`` of ``message``, or None."""
    value = message.option(number)
    return None if value is None else decode_uint(value)


def content_format(message: Message) -> int | None:
    """The Content-Format of ``message``, or None."""
    return uint_option(message, Option.CONTENT_FORMAT)

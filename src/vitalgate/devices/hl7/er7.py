"""A lenient reader of ER7, the vertical-bar encoding of HL7 v2 (chapter 2), and what writing it needs.

Real monitors send messages that strict parsers refuse. This reader takes what it can, says in `Message.warnings` what
was wrong, and raises `Er7Error` only where nothing can be read at all.
"""

import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone
from typing import Final

from vitalgate.quick import quick

MAX_SEGMENTS: Final = 8192
MAX_MARKS: Final = 32_768
"""Escape characters resolved in one message: each costs far more time than another byte does."""
MAX_TIME: Final = 64
"""Characters of the longest text that may be a time."""
CHARSETS: Final[dict[str, str]] = {
    "": "utf-8",  # the standard says ASCII; devices that say nothing send either
    "ASCII": "utf-8",
    "UNICODE": "utf-8",
    "UNICODE UTF-8": "utf-8",
    "UTF-8": "utf-8",
    **{f"8859/{part}": f"iso8859-{part}" for part in (1, 2, 3, 4, 5, 6, 7, 8, 9, 15)},
    "GB 18030-2000": "gb18030",
    "GB18030": "gb18030",
    "GB2312": "gb18030",
    "GBK": "gb18030",
    "BIG-5": "big5",
    "KS X 1001": "euc_kr",
    "ISO IR87": "shift_jis",
}
"""Python codecs by MSH-18 (HL7 table 0211, and spellings seen)."""

_LINE_END: Final = re.compile(r"\r\n|\r|\n")
_SEGMENT_NAME: Final = re.compile(r"[A-Z][A-Z0-9]{2}", re.ASCII)
_HEX: Final = re.compile(r"(?:[0-9A-Fa-f]{2})+", re.ASCII)
_TIME: Final = re.compile(
    r"(\d{4})(\d\d)(\d\d)(?:(\d\d)(?:(\d\d)(?:(\d\d)(\.\d{1,6})?)?)?)?([+-]\d\d:?\d\d)?", re.ASCII
)
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")


class Er7Error(ValueError):
    """Bytes that cannot be read as a message at all. ``reason`` is a word of a small set."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Delimiters:
    """The separators a message declares in MSH-1 and MSH-2."""

    field: str = "|"
    component: str = "^"
    repetition: str = "~"
    escape: str = "\\"
    subcomponent: str = "&"


STANDARD: Final = Delimiters()


@quick
@dataclass(frozen=True, slots=True)
class Segment:
    """One segment: its name and its fields as they came. ``fields[n]`` is field n; in MSH, 1 is the separator."""

    name: str
    fields: tuple[str, ...]
    message: "Message"

    def raw(self, number: int) -> str:
        """Field ``number`` as it came, '' where it is missing or HL7's null (two quotation marks)."""
        if number >= len(self.fields):
            return ""
        text = self.fields[number]
        return "" if text == '""' else text

    def text(self, number: int, component: int = 1) -> str:
        """A component (from 1) of the field's first repetition, unescaped; '' where it is missing."""
        parts = self.components(number)
        return parts[component - 1] if component <= len(parts) else ""

    def components(self, number: int) -> tuple[str, ...]:
        """The components of the field's first repetition, unescaped."""
        first = self.raw(number).split(self.message.delimiters.repetition, 1)[0]
        return self.message.split(first)

    def repetitions(self, number: int) -> tuple[tuple[str, ...], ...]:
        """The components of each repetition, unescaped; () for an empty field."""
        text = self.raw(number)
        if not text:
            return ()
        return tuple(self.message.split(one) for one in text.split(self.message.delimiters.repetition))


@dataclass(slots=True)
class Message:
    """A message: its segments, in order, and the words of what was wrong with it."""

    delimiters: Delimiters
    charset: str
    warnings: set[str] = field(default_factory=set)
    segments: tuple[Segment, ...] = ()
    _marks: int = 0

    @property
    def header(self) -> Segment:
        """MSH: always the first."""
        return self.segments[0]

    def __iter__(self) -> Iterator[Segment]:
        return iter(self.segments)

    def first(self, name: str) -> Segment | None:
        """The first segment of that name, or None."""
        return next((segment for segment in self.segments if segment.name == name), None)

    def split(self, text: str) -> tuple[str, ...]:
        """One repetition's components, unescaped."""
        parts = text.split(self.delimiters.component)
        return tuple(map(self.unescape, parts)) if self.delimiters.escape in text else tuple(parts)

    def unescape(self, text: str) -> str:
        """Resolve escape sequences (chapter 2.7); one that is not known stays as it came, with a warning, and so does
        a text once `MAX_MARKS` were seen in the message."""
        mark = self.delimiters.escape
        if mark not in text:
            return text
        self._marks += text.count(mark)
        if self._marks > MAX_MARKS:
            self.warnings.add("escape")
            return text
        parts = text.split(mark)
        out = [parts[0]]
        at = 1
        while at < len(parts):
            if at + 1 == len(parts):  # no closing mark
                self.warnings.add("escape")
                out.append(mark + parts[at])
                break
            known = self._escape(parts[at])
            if known is None:  # taken for a lone mark; the next one may begin a sequence
                self.warnings.add("escape")
                out.append(mark + parts[at])
                at += 1
            else:
                out += (known, parts[at + 1])
                at += 2
        return "".join(out)

    def _escape(self, name: str) -> str | None:
        delimiters = self.delimiters
        simple = {
            "F": delimiters.field,
            "S": delimiters.component,
            "T": delimiters.subcomponent,
            "R": delimiters.repetition,
            "E": delimiters.escape,
            ".br": "\n",
            ".sp": "\n",
            "H": "",
            "N": "",
        }.get(name)
        if simple is not None:
            return simple
        if name[:1] == "X" and _HEX.fullmatch(name, 1):
            return bytes.fromhex(name[1:]).decode(self.charset, "replace")
        return None


def parse(data: bytes) -> Message:
    """Read a message; raises `Er7Error` with reason 'no-header', 'delimiters' or 'segments'."""
    data = data.lstrip(b"\r\n \t")
    if data[:3] != b"MSH" or len(data) < 8:
        raise Er7Error("no-header")
    delimiters, warning = _delimiters(data)
    header = re.split(rb"[\r\n]", data, maxsplit=1)[0].decode("latin-1")
    declared = header.split(delimiters.field)
    said = declared[17].split(delimiters.repetition)[0].strip() if len(declared) > 17 else ""
    charset = CHARSETS.get(said.upper())
    message = Message(delimiters, charset or "utf-8")
    if warning:
        message.warnings.add(warning)
    if charset is None:
        message.warnings.add("charset")
    try:
        text = data.decode(message.charset)
    except UnicodeDecodeError:
        message.warnings.add("charset")
        text = data.decode(message.charset, "replace")
    lines = [line for line in _LINE_END.split(text) if line.strip()]
    if len(lines) > MAX_SEGMENTS:
        raise Er7Error("segments")
    segments = []
    for number, line in enumerate(lines):
        fields = line.split(delimiters.field)
        if number == 0:
            fields.insert(1, delimiters.field)
        elif not _SEGMENT_NAME.fullmatch(fields[0]):
            message.warnings.add("segment-name")
            continue
        segments.append(Segment(fields[0], tuple(fields), message))
    message.segments = tuple(segments)
    return message


def _delimiters(data: bytes) -> tuple[Delimiters, str]:
    """MSH-1 and MSH-2 (chapter 2.5.4); shorter ones than the four are filled up with the usual."""
    separator = chr(data[3])
    if separator.isalnum() or ord(separator) < 0x21 or ord(separator) > 0x7E:
        raise Er7Error("delimiters")
    rest = data[4:12].decode("latin-1")
    declared = rest.split(separator, 1)[0].split("\r")[0].split("\n")[0]
    marks = (declared + "^~\\&"[len(declared) :])[:4]
    if len(set(marks + separator)) != 5 or any(mark.isalnum() or not 0x21 <= ord(mark) <= 0x7E for mark in marks):
        raise Er7Error("delimiters")
    warning = "" if 4 <= len(declared) <= 5 else "delimiters"
    return Delimiters(separator, *marks), warning


def escape(text: str, delimiters: Delimiters = STANDARD) -> str:
    """``text`` for a field: separators, and everything that could end a segment or a block, as escape sequences."""
    mark = delimiters.escape
    names = {
        mark: "E",
        delimiters.field: "F",
        delimiters.component: "S",
        delimiters.repetition: "R",
        delimiters.subcomponent: "T",
    }
    made = "".join(f"{mark}{names[one]}{mark}" if one in names else one for one in text)
    return _CONTROL.sub(lambda found: f"{mark}X{ord(found[0]):02X}{mark}", made)


def time_from(text: str, zone: timezone | None) -> tuple[float | None, timezone | None]:
    """A time (chapter 2A, DTM: YYYYMMDD[HH[MM[SS[.S+]]]][+ZZZZ]) as seconds since 1970, and the zone it states.

    Where it states none, ``zone`` counts, or UTC where that is None. None for what is no time.
    """
    return _time(text, zone) if len(text) <= MAX_TIME else (None, None)


@functools.lru_cache(maxsize=64)  # one message says the same time in many places
def _time(text: str, zone: timezone | None) -> tuple[float | None, timezone | None]:
    found = _TIME.fullmatch(text.strip())
    if found is None:
        return None, None
    year, month, day, hour, minute, second, fraction, stated = found.groups()
    own: timezone | None = None
    try:
        if stated:
            digits = stated[1:].replace(":", "")
            offset = timedelta(hours=int(digits[:2]), minutes=int(digits[2:]))
            own = timezone(offset if stated[0] == "+" else -offset)
        moment = datetime(
            int(year), int(month), int(day), int(hour or 0), int(minute or 0), min(int(second or 0), 59),
            tzinfo=own or zone or UTC,
        )  # fmt: skip
        return moment.timestamp() + float(fraction or 0) + (int(second or 0) == 60), own
    except (ValueError, OverflowError):
        return None, None


def time_text(at: float) -> str:
    """Seconds since 1970 as a DTM in UTC, to the millisecond."""
    moment = datetime.fromtimestamp(round(at, 3), UTC)
    return f"{moment:%Y%m%d%H%M%S}.{moment.microsecond // 1000:03d}+0000"

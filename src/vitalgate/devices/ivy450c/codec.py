"""Codec of the Ivy 450C's serial output "ANSAR-B": message bytes to observations and back.

A message (one a second)::

    FF "ANSAR-B " | ECG 200 | RESP 50 | PLETH 50 | P1 50 | P2 50 | lines, each ended by CR | FE

Waves are unsigned bytes, oldest first; a wave may hold any byte, FF and FE included, so messages are cut by structure.
A line is ``KEY=state;value...;text;``: an empty value is no reading, the text a status or an alarm. What the ``state``
digit says is not known; it is kept in `Message` and means nothing here.

The protocol has no checksum: a byte altered inside a wave, or one digit into another, cannot be seen. What the
structure tells is held strictly: a message whose lines do not parse to the last field is no message.

Scales. The pressure waves are in mmHg: in a recorded transmission their extremes are the SYS and DIA of the same
message. The protocol states no gain for ECG, respiration and pleth: these are given in the monitor's own counts (unit
1), with the offsets 100 and 86 that are known for ECG and pleth. 251 stands for "no signal"; real samples end at 250.
"""

import re
from dataclasses import dataclass
from decimal import Decimal

from vitalgate.counters import Counters
from vitalgate.devices.ivy450c.quirks import ECG_LEAD, LEADS, NO_VALUE, text_row
from vitalgate.devices.stream import NEED_MORE, Cut, Decoded, FrameError, SerialEngine, StreamLimits
from vitalgate.engine import Wall
from vitalgate.vitals.metrics import METRICS
from vitalgate.vitals.observation import Alarm, Observation, Priority, SampleFormat, Samples, Status

DECODER = "ivy450c/1"
HEADER = b"\xffANSAR-B "
END = 0xFE
MISSING = 0xFB
MAX_TEXT = 512
"""Longest lines accepted; the recorded ones are 143 bytes."""

_WAVE_BYTES = 400
_TEXT = len(HEADER) + _WAVE_BYTES
_FIRST = b"HR="
_LINE_BYTES = bytes(range(0x20, 0x7F)) + b"\r"
_KEY = re.compile(r"[A-Z][A-Z0-9]{0,7}\Z")
_NUMBER = re.compile(r"[+-]?\d{1,4}(\.\d{1,2})?\Z", re.ASCII)
_PULSE = re.compile(r"PR= *([0-9-]{0,4}) *\Z")


@dataclass(frozen=True, slots=True)
class Wave:
    """One wave of a message: its metric, label, samples a message (which lasts 1 s), unit and offset."""

    metric: int
    label: str
    size: int
    unit: str
    origin: int = 0


WAVES = (
    Wave(131328, "", 200, "1", -100),
    Wave(151780, "", 50, "1"),
    Wave(150452, "", 50, "1", -86),
    Wave(150016, "P1", 50, "mm[Hg]"),
    Wave(150016, "P2", 50, "mm[Hg]"),
)

PRESSURES = (150017, 150018, 150019)
LINES: dict[str, tuple[int, ...]] = {
    "HR": (147842,),
    "RR": (151562,),
    "ETCO2": (151708,),
    "SPO2": (150456,),
    "NIBP": (150021, 150022, 150023, 149546),
    "P1": PRESSURES,
    "P2": PRESSURES,
    "T1": (150344,),
    "T2": (150344,),
}
"""The metrics of a line's values, in order. NIBP's fourth is its pulse rate; the pulse of SPO2 stands in its text."""
PULSE_RATE = 149530
LABELLED = frozenset({"P1", "P2", "T1", "T2"})
"""Lines whose metric does not say which channel it is: their observations bear the line's key as label."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message: the five waves (200, 50, 50, 50, 50 bytes) and the lines as (key, fields) with text fields."""

    waves: tuple[bytes, ...]
    lines: tuple[tuple[str, tuple[str, ...]], ...]


def encode(message: Message) -> bytes:
    """The message's bytes; `decode` gives it back."""
    lines = "".join(f"{key}={';'.join(fields)};\r" for key, fields in message.lines)
    return b"".join((HEADER, *message.waves, lines.encode("ascii"), bytes([END])))


def decode(raw: bytes) -> Message:
    """Parse one whole message; raises `FrameError` with reason ``header``, ``text`` or ``line``."""
    if not raw.startswith(HEADER) or len(raw) <= _TEXT or raw[-1] != END:
        raise FrameError("header")
    text = raw[_TEXT:-1]
    if not _is_text(text):
        raise FrameError("text")
    waves, at = [], len(HEADER)
    for wave in WAVES:
        waves.append(raw[at : at + wave.size])
        at += wave.size
    parts = text.decode("ascii").split("\r")
    if parts.pop():
        raise FrameError("line", "the last is not ended")
    lines = tuple(_line(part) for part in parts)
    if len({key for key, _ in lines}) != len(lines):
        raise FrameError("line", "a key stands twice")
    return Message(tuple(waves), lines)


def _is_text(text: bytes | bytearray) -> bool:
    """True when ``text`` may be the lines of a message, or the beginning of them."""
    return len(text) <= MAX_TEXT and text[:3] == _FIRST[: len(text)] and not text.translate(None, _LINE_BYTES)


def _line(line: str) -> tuple[str, tuple[str, ...]]:
    key, equals, rest = line.partition("=")
    fields = rest.split(";")
    if not equals or not _KEY.match(key) or fields.pop():
        raise FrameError("line", "not KEY=fields;")
    metrics = LINES.get(key)
    if metrics is not None:
        if len(fields) != len(metrics) + 2 or not (fields[0].isdigit() or not fields[0]):
            raise FrameError("line", f"{key} has other fields")
        for value in fields[1:-1]:
            if value not in NO_VALUE and not _NUMBER.match(value):
                raise FrameError("line", f"{key} has a value that is no number")
    return key, tuple(fields)


class IvyFraming:
    """How messages lie in the monitor's byte stream (`vitalgate.devices.stream.Framing`).

    A message must begin with its header, have ``HR=`` behind 400 wave bytes, then nothing but printable text and CR up
    to FE: dropped or added bytes shift the text and are seen. The search for the next message begins behind a broken
    message's header, since the next header may lie within its 400 bytes.
    """

    kind = "ivy450c"
    lead = len(HEADER)

    def cut(self, buffer: bytearray) -> Cut:
        """Find what lies at the start of ``buffer``; asks for more up to 409 + 513 bytes."""
        at = buffer.find(HEADER)
        if at > 0:
            return Cut(skip=at)
        if at < 0:
            return Cut(skip=len(buffer) - _header_begun(buffer))
        if len(buffer) <= _TEXT:
            return NEED_MORE
        bound = _TEXT + MAX_TEXT + 1  # beyond it nothing can save this message, however much is buffered
        end = buffer.find(END, _TEXT, bound)
        if not _is_text(buffer[_TEXT : end if end >= 0 else bound]):
            return Cut(skip=len(HEADER), reason="text")
        return Cut(size=end + 1) if end >= 0 else NEED_MORE

    def decode(self, raw: bytes, received_at: float, hash_: bytes) -> Decoded:
        """The message's observations: waves first, then values in the order of the lines; raises `FrameError`."""
        return Decoded(observations(decode(raw), received_at, hash_))


def _header_begun(buffer: bytearray) -> int:
    """How many bytes at the end of ``buffer`` may be the beginning of a header."""
    for size in range(min(len(buffer), len(HEADER) - 1), 0, -1):
        if buffer.endswith(HEADER[:size]):
            return size
    return 0


class IvyEngine(SerialEngine):
    """The decoder: a `DeviceEngine` for any number of Ivy 450C lines."""

    def __init__(self, wall: Wall, counters: Counters | None = None, limits: StreamLimits | None = None) -> None:
        super().__init__(IvyFraming(), wall, counters, limits)


_RATES = {size: Decimal(size) for size in (50, 200)}
_ORIGINS = {wave.origin: Decimal(wave.origin) for wave in WAVES}


def observations(message: Message, received_at: float, hash_: bytes) -> tuple[Observation, ...]:
    """What a message says, in the project's form; a wave wholly without signal comes without samples."""
    made = []
    lead = 0
    for key, fields in message.lines:
        if key == "HR" and (found := ECG_LEAD.match(fields[-1])):
            lead = LEADS.get(found[1], 0)
    for wave, data in zip(WAVES, message.waves, strict=True):
        metric = lead if lead and wave is WAVES[0] else wave.metric
        if data.count(MISSING) == len(data):
            value, status = None, Status.UNAVAILABLE
        else:
            origin = _ORIGINS[wave.origin]
            value, status = (
                Samples(_RATES[wave.size], SampleFormat.U8, data, origin=origin, missing=MISSING),
                Status.NONE,
            )
        made.append(Observation(metric, value, wave.unit, received_at, hash_, DECODER, status, label=wave.label))
    for key, fields in message.lines:
        made += _values(key, fields, received_at, hash_)
    return tuple(made)


def _values(key: str, fields: tuple[str, ...], received_at: float, hash_: bytes) -> list[Observation]:
    metrics = LINES.get(key)
    if metrics is None:  # a line this decoder does not know: kept as the text it is
        return [Observation(0, ";".join(fields), "", received_at, hash_, DECODER, label=key)]
    values, text = list(fields[1:-1]), fields[-1].strip()
    if key == "SPO2" and (found := _PULSE.match(fields[-1])):
        metrics, text = (*metrics, PULSE_RATE), ""
        values.append(found[1])
    elif key == "SPO2":
        metrics = (*metrics, PULSE_RATE)
        values.append("")
    elif key == "HR" and ECG_LEAD.match(text):
        text = ""
    alarm, status = _alarm(text, values[0] not in NO_VALUE)
    label = key if key in LABELLED else ""
    made = []
    for metric, field in zip(metrics, values, strict=True):
        row = METRICS[metric]
        value = None if field in NO_VALUE else Decimal(field)
        if value is None:
            own = status | Status.UNAVAILABLE
        else:
            own = status if row.is_plausible(value) else status | Status.IMPLAUSIBLE
        made.append(Observation(metric, value, row.unit, received_at, hash_, DECODER, own, label=label, alarm=alarm))
        alarm = None  # the line has one alarm: its first value bears it
    return made


def _alarm(text: str, has_value: bool) -> tuple[Alarm | None, Status]:
    if not text:
        return None, Status.NONE
    row = text_row(text)
    priority = row.priority if has_value else row.without_value
    return Alarm(text, priority), row.status | (Status.IN_ALARM if priority >= Priority.LOW else Status.NONE)

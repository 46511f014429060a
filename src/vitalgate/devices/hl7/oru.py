"""What an ORU message says (HL7 v2.6 chapter 7, IHE PCD-01) as observations.

OBX-4 places each OBX in the device: ``MDS.VMD.CHANNEL.METRIC``, and a fifth level for facets of a metric. OBX without
a value describe the structure. A waveform's rate is its facet's, or follows from the time its OBR spans.

Times. ``device_time`` is OBX-14, or OBR-8 for waveforms, or OBR-7, or MSH-7; where a time states no zone, MSH-7's
counts, or UTC. ``clock_offset`` is MSH-7, when the device made the message, minus the time of arrival.
"""

import re
from collections import Counter as Tally
from dataclasses import dataclass, field, replace
from datetime import timezone
from decimal import Decimal
from typing import Final

from vitalgate.devices.hl7.er7 import Message, Segment, time_from
from vitalgate.devices.hl7.quirks import (
    CUFF_MARKS,
    FACET_PREFIX,
    FLAGS,
    NO_READING,
    PERIOD_NAMES,
    PERIOD_UNITS,
    PROCESSING,
    RATE_NAMES,
    RESULTS,
    STATED,
    TENFOLD,
)
from vitalgate.devices.hl7.terms import Term, term, unit
from vitalgate.devices.hl7.wave import WaveError, samples_from
from vitalgate.vitals.metrics import Metric
from vitalgate.vitals.observation import Alarm, Observation, Priority, Samples, Status, joined

DECODER: Final = "hl7/1"
MAX_OBSERVATIONS: Final = 1024
MAX_TEXT: Final = 256
"""Characters of a value, a patient or a place that are kept; what is longer is cut, with a warning."""
EVENTS: Final = frozenset({"R01", "R30", "R31", "R32", "W01"})
"""Trigger events whose messages have the form of ORU^R01."""

_NUMBER: Final = re.compile(r"[+-]?(?:\d{1,20}(?:\.\d{0,20})?|\.\d{1,20})", re.ASCII)
_EUI: Final = re.compile(r"(?:[0-9A-Fa-f]{2}[:-]?){7}[0-9A-Fa-f]{2}", re.ASCII)
_TEXT_TYPES: Final = frozenset({"ST", "TX", "FT", "IS", "ID", "DT", "TM", "DTM", "TS", "SI", "NR", "DR"})
_SURVEYED: Final = (*CUFF_MARKS, *RATE_NAMES, *PERIOD_NAMES)
"""One of these stands in the OBX-3 that `_survey` looks at."""
_CODED_TYPES: Final = frozenset({"CE", "CWE", "CNE", "CF"})


class Refusal(ValueError):
    """A message that is not taken. ``code`` is of HL7 table 0357, ``reason`` a word for counters, the text for people.

    The text is ours: it never repeats the message.
    """

    def __init__(self, code: int, reason: str, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Report:
    """What a message said: observations, the device's EUI-64 (16 hexadecimal digits) or '', and what was odd."""

    observations: tuple[Observation, ...]
    serial: str
    warnings: frozenset[str]


@dataclass(slots=True)
class _Facets:
    """What is known of one metric (by the first four levels of OBX-4)."""

    rate: Decimal | None = None


@dataclass(slots=True)
class _Context:
    """What the segments so far say of those that follow."""

    message: Message
    received_at: float
    hash: bytes
    mark: Status
    made_at: float | None
    zone: timezone | None
    patient: str = ""
    location: str = ""
    request: Segment | None = None
    begun: str = ""
    ended: str = ""
    facets: dict[str, _Facets] = field(default_factory=dict)
    cuffs: set[str] = field(default_factory=set)
    warnings: set[str] = field(default_factory=set)


def check(message: Message) -> None:
    """Refuse what is no result message; raises `Refusal`."""
    header = message.header
    kind, event = header.text(9, 1), header.text(9, 2)
    if kind != "ORU":
        raise Refusal(200, "type", "only result messages (ORU) are taken here")
    if event not in EVENTS:
        raise Refusal(201, "event", "this event of ORU is not taken here")
    if message.first("OBX") is None:
        raise Refusal(100, "no-results", "a result message without results")


def decode(message: Message, received_at: float, hash_: bytes) -> Report:
    """The observations of a message, in its order; raises `Refusal`."""
    check(message)
    header = message.header
    made_at, zone = time_from(header.text(7), None)
    processing = header.text(11)
    context = _Context(message, received_at, hash_, PROCESSING.get(processing, Status.TEST), made_at, zone)
    if processing not in PROCESSING:
        context.warnings.add("processing-id")
    if made_at is None:
        context.warnings.add("no-time")
    _survey(context)
    made: list[Observation] = []
    places: list[str] = []
    for segment in message:
        if segment.name == "PID":
            context.patient = _cut(segment.text(3), context)
        elif segment.name == "PV1":
            context.location = _cut("^".join(segment.components(3)).strip("^"), context)
        elif segment.name == "OBR":
            context.request, context.begun, context.ended = segment, segment.text(7), segment.text(8)
        elif segment.name == "OBX":
            observation = _observation(segment, context)
            if observation is not None:
                made.append(observation)
                places.append(segment.raw(4)[:MAX_TEXT])
                if len(made) > MAX_OBSERVATIONS:
                    raise Refusal(207, "too-many", f"a message with more than {MAX_OBSERVATIONS} results")
    return Report(_told_apart(made, places), _serial(message), frozenset(context.warnings | message.warnings))


def _survey(context: _Context) -> None:
    """The first pass: which VMDs and channels measure with a cuff, and the facets of metrics."""
    for segment in context.message:
        if segment.name != "OBX":
            continue
        said = segment.raw(3)
        if not any(word in said for word in _SURVEYED) and context.message.delimiters.escape not in said:
            continue
        place = segment.raw(4)
        name = segment.text(3, 2)
        if not segment.raw(5) and any(mark in name for mark in CUFF_MARKS):
            context.cuffs.add(_node(place))
        if name in RATE_NAMES or name in PERIOD_NAMES:
            number = _decimal(segment.text(5), context)
            if number is not None and number > 0:
                if name in PERIOD_NAMES:
                    period = number * next(
                        (PERIOD_UNITS[part] for part in segment.components(6) if part in PERIOD_UNITS), Decimal(1)
                    )
                    number = 1 / period
                context.facets.setdefault(_metric_place(place), _Facets()).rate = number


def _node(place: str) -> str:
    """A containment without its trailing zeros: '1.4.0.0' is the node '1.4'."""
    levels = place.split(".")
    while levels and levels[-1] == "0":
        levels.pop()
    return ".".join(levels)


def _metric_place(place: str) -> str:
    return ".".join(place.split(".")[:4])


def _observation(segment: Segment, context: _Context) -> Observation | None:
    """The observation of an OBX, or None for structure, facets and what has no form here."""
    kind, place = segment.raw(2), segment.raw(4)
    if not kind and not segment.raw(5):
        return None
    named = segment.components(3)
    if len(named) > 1 and named[1].startswith(FACET_PREFIX) and (place.count(".") > 3 or named[1] in RATE_NAMES):
        return None
    cuff = False
    if context.cuffs:
        levels = place.split(".")
        cuff = any(".".join(levels[:depth]) in context.cuffs for depth in (1, 2, 3))
    what = term(named, cuff, context.warnings)
    if not what.code and not what.name:
        context.warnings.add("no-code")
        return None
    in_unit = unit(segment.components(6), what.metric, context.warnings) if kind in ("NM", "SN", "NA") else ""
    status = joined(context.mark, _result_status(segment, context))
    found = _value(segment, kind, what, in_unit, context)
    if found is None:
        return None
    value, own, in_unit = found
    alarm, flagged = _flags(segment, what, context)
    device_time = _device_time(segment, isinstance(value, Samples), context)
    clock = context.made_at if context.made_at is not None else device_time
    return Observation(
        what.code,
        value,
        in_unit,
        context.received_at,
        context.hash,
        DECODER,
        joined(joined(status, own), flagged),
        device_time,
        None if clock is None else clock - context.received_at,
        "" if what.code else what.name,
        alarm,
        context.patient,
        context.location,
    )


_Value = tuple[Decimal | Samples | str | None, Status, str]


def _value(segment: Segment, kind: str, what: Term, in_unit: str, context: _Context) -> _Value | None:
    """The value of OBX-5 by OBX-2, the status that it brings and its unit; None for a type that has no form here."""
    if not segment.raw(5):
        return None, Status.UNAVAILABLE, in_unit
    if kind == "NA":
        return _wave(segment, in_unit, context)
    text = segment.text(5)
    if kind == "NM":
        return *_number(text, what.metric, in_unit, context), in_unit
    if kind == "SN":
        return _structured(segment, what.metric, in_unit, context)
    if kind in _CODED_TYPES:
        return _cut(segment.text(5, 2) or text, context), Status.NONE, ""
    if kind in _TEXT_TYPES or not kind:
        if what.metric is not None and not what.metric.wave and _NUMBER.fullmatch(text.strip()):
            context.warnings.add("number-as-text")
            in_unit = unit(segment.components(6), what.metric, context.warnings)
            return *_number(text, what.metric, in_unit, context), in_unit
        return _cut("~".join("^".join(parts) for parts in segment.repetitions(5)), context), Status.NONE, ""
    context.warnings.add("value-type")
    return None


def _decimal(text: str, context: _Context) -> Decimal | None:
    text = text.strip()
    if "," in text and "." not in text:
        context.warnings.add("decimal-comma")
        text = text.replace(",", ".")
    return Decimal(text) if _NUMBER.fullmatch(text) else None


def _number(text: str, metric: Metric | None, in_unit: str, context: _Context) -> tuple[Decimal | None, Status]:
    value = _decimal(text, context)
    if value is None:
        context.warnings.add("number")
        return None, Status.INVALID | Status.UNAVAILABLE
    if metric is None or in_unit != metric.unit or metric.is_plausible(value):
        return value, Status.NONE
    if value in NO_READING:
        return None, Status.UNAVAILABLE
    if metric.code in TENFOLD and metric.is_plausible(value.scaleb(-1)):
        context.warnings.add("tenfold")
        return value.scaleb(-1), Status.QUESTIONABLE
    return value, Status.IMPLAUSIBLE


def _structured(segment: Segment, metric: Metric | None, in_unit: str, context: _Context) -> _Value:
    """SN: a comparator and a number, else (a range, a ratio) its text."""
    comparator, first, separator, second, *_ = (*segment.components(5), "", "", "", "")
    if separator or second or comparator not in ("", "=", ">", ">=", "<", "<="):
        return _cut(f"{comparator}{first}{separator}{second}", context), Status.NONE, in_unit
    value, status = _number(first, metric, in_unit, context)
    if comparator.startswith(">"):
        status |= Status.ABOVE_RANGE
    elif comparator.startswith("<"):
        status |= Status.BELOW_RANGE
    return value, status, in_unit


def _wave(segment: Segment, in_unit: str, context: _Context) -> _Value:
    delimiters = context.message.delimiters
    said = segment.raw(5).replace(delimiters.repetition, delimiters.component)
    texts = list(map(str.strip, said.split(delimiters.component)))
    facets = context.facets.get(_metric_place(segment.raw(4)))
    rate = facets.rate if facets is not None else None
    if rate is None:
        rate = _rate_of_span(len(texts), context)
    if rate is None:
        context.warnings.add("no-rate")
        return None, Status.INVALID, in_unit
    try:
        wave = samples_from(texts, rate)
    except WaveError:
        context.warnings.add("array")
        return None, Status.INVALID, in_unit
    if not wave.exact:
        context.warnings.add("array-rounded")
        return wave.samples, Status.QUESTIONABLE, in_unit
    return wave.samples, Status.NONE, in_unit


def _rate_of_span(count: int, context: _Context) -> Decimal | None:
    """Samples a second, from the time between OBR-7 and OBR-8."""
    if context.request is None:
        return None
    start, _ = time_from(context.begun, context.zone)
    end, _ = time_from(context.ended, context.zone)
    if start is None or end is None or not 0 < end - start <= 3600:
        return None
    rate = Decimal(count) / Decimal(str(round(end - start, 6)))
    return rate if rate == rate.to_integral_value() else rate.quantize(Decimal("0.000001"))


def _result_status(segment: Segment, context: _Context) -> Status:
    word = segment.raw(11)
    status = RESULTS.get(word)
    if status is None:
        context.warnings.add("result-status")
        return Status.QUESTIONABLE
    return status


def _flags(segment: Segment, what: Term, context: _Context) -> tuple[Alarm | None, Status]:
    """The alarm and the status of OBX-8."""
    status, implied, stated = Status.NONE, None, None
    if not segment.raw(8):
        return None, status
    words = [parts[0] for parts in segment.repetitions(8) if parts[0]][:16]
    for word in words:
        flag = FLAGS.get(word)
        if flag is None:
            context.warnings.add("flag")
            continue
        status |= flag.status
        if flag.priority is not None:
            implied = max(implied or Priority.INFORMATION, flag.priority)
            if word in STATED:
                stated = max(stated or Priority.INFORMATION, flag.priority)
    priority = stated or implied
    if priority is None:
        return None, status
    name = what.metric.short if what.metric is not None else what.name
    says = " ".join(filter(None, (FLAGS[word].says for word in words if word in FLAGS)))
    return Alarm(f"{name} {says or 'alarm'}"[:MAX_TEXT], priority), status


def _device_time(segment: Segment, wave: bool, context: _Context) -> float | None:
    for text in (segment.text(14), context.ended if wave else "", context.begun):
        if text:
            at, _ = time_from(text, context.zone)
            if at is not None:
                return at
            context.warnings.add("time")
    return context.made_at


def _told_apart(made: list[Observation], places: list[str]) -> tuple[Observation, ...]:
    """A metric that several channels report bears its place in the device as label."""
    shared: dict[tuple[int, str], set[str]] = {}
    for observation, place in zip(made, places, strict=True):
        shared.setdefault((observation.metric, observation.label), set()).add(place)
    if all(len(found) < 2 for found in shared.values()):
        return tuple(made)
    return tuple(
        replace(one, label=f"{one.label} {place}".strip()) if len(shared[one.metric, one.label]) > 1 else one
        for one, place in zip(made, places, strict=True)
    )


def _serial(message: Message) -> str:
    """The device's EUI-64: in MSH-3 (HD: name, identifier, type), or what most OBX-18 say."""
    found = _eui(message.header.components(3)[1:2])
    if found:
        return found
    said = Tally(filter(None, (_eui(segment.components(18)[:1]) for segment in message if segment.name == "OBX")))
    return said.most_common(1)[0][0] if said else ""


def _eui(parts: tuple[str, ...]) -> str:
    text = parts[0].strip() if parts else ""
    return text.replace("-", "").replace(":", "").lower() if _EUI.fullmatch(text) else ""


def _cut(text: str, context: _Context) -> str:
    if len(text) > MAX_TEXT:
        context.warnings.add("text-cut")
        return text[:MAX_TEXT]
    return text

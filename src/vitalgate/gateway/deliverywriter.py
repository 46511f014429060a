"""Writing observations into a delivery's records (`vitalgate.gateway.delivery` has the table of labels)."""

import re
from decimal import Decimal
from typing import Final

from vitalgate.gateway.deliverycommon import (
    ALL_STATUS,
    DERIVED,
    MAX_METRIC,
    NEGATIVE_ZERO,
    DeliveryError,
    Record,
    check_decimal,
    check_samples,
    is_time,
)
from vitalgate.gateway.entry import Entry
from vitalgate.vitals.labels import VB, VD, VS, N, T, U, V
from vitalgate.vitals.observation import FRAME_HASH_BYTES, Observation, SampleFormat, Samples
from vitalgate.vitals.units import CONVERSIONS

_PLAIN_LABEL: Final = re.compile(r"[A-Za-z0-9.-]{1,32}")


class Writer:
    """Writes an entry's observations; keeps what the base fields stand at."""

    __slots__ = ("bases", "clock", "entry", "offset")

    def __init__(self, entry: Entry) -> None:
        self.entry = entry
        self.bases: tuple[str, int, str, str] = ("", 0, "", "")
        self.clock: float | None = None
        self.offset: object = DERIVED

    def write(self, observation: Observation, record: Record) -> None:
        """Add ``observation`` to the empty or merely begun ``record``."""
        entry = self.entry
        if (
            observation.device not in ("", entry.device)
            or observation.epoch not in (0, entry.epoch)
            or observation.sequence not in (0, entry.sequence)
        ):
            raise DeliveryError("an observation belongs to another entry")
        bases = (observation.decoder, int(observation.status), observation.patient, observation.location)
        if bases != self.bases:
            self._write_bases(bases, record)
        self._write_clock(observation, record)
        if not 0 <= observation.metric <= MAX_METRIC:
            raise DeliveryError("a metric is a 32-bit number")
        label = observation.label
        if not label:
            record[N] = str(observation.metric)
        elif _PLAIN_LABEL.fullmatch(label):
            record[N] = f"{observation.metric}/{label}"
        else:
            record[N] = str(observation.metric)
            record["gl"] = label
        if observation.gateway_time != entry.gateway_time:
            record[T] = _from_base(entry.gateway_time, observation.gateway_time)
        if observation.frame_hash != entry.frame_hash:
            if len(observation.frame_hash) != FRAME_HASH_BYTES:
                raise DeliveryError("a frame hash has 16 bytes")
            record["gh"] = observation.frame_hash
        _write_value(observation, record)
        alarm = observation.alarm
        if alarm is not None:
            record["ga"], record["gp"] = alarm.text, int(alarm.priority)

    def _write_bases(self, bases: tuple[str, int, str, str], record: Record) -> None:
        if not 0 <= bases[1] <= ALL_STATUS:
            raise DeliveryError("a status has unknown bits")
        for label, value, before in zip(("bgd", "bgx", "bgp", "bgl"), bases, self.bases, strict=True):
            if value != before:
                record[label] = value
        self.bases = bases

    def _write_clock(self, observation: Observation, record: Record) -> None:
        clock, offset = observation.device_time, observation.clock_offset
        if clock is None:
            own: object = DERIVED if offset is None else offset
        else:
            own = DERIVED if offset == clock - observation.gateway_time else offset
        if clock == self.clock and own == self.offset:
            return
        for time in (clock, offset):
            if time is not None and not is_time(time):
                raise DeliveryError("a device time is no number")
        record["bgt"] = False if clock is None else float(clock)
        if own is not DERIVED:
            record["bgo"] = False if own is None else float(own)  # type: ignore[arg-type]  # not the marker: a float
        self.clock, self.offset = clock, own


def _write_value(observation: Observation, record: Record) -> None:
    value, unit = observation.value, observation.unit
    if isinstance(value, Decimal):
        _write_number(value, unit, record)
        return
    if unit:
        record["gu"] = unit
    if value is None:
        record[VB] = False
    elif isinstance(value, str):
        record[VS] = value
    elif isinstance(value, Samples):
        _write_samples(value, record)
    else:
        raise DeliveryError("a value of a kind that no observation has")


def _write_number(value: Decimal, unit: str, record: Record) -> None:
    check_decimal(value)
    original = _number(value)
    row = CONVERSIONS.get(unit)
    if row is None:
        record[V] = value if isinstance(original, str) else original
    else:
        record[U] = row.unit
        if row.shift == 0:
            record[V] = value if isinstance(original, str) else original
        else:
            record[V] = row.convert(value)
            record["gv"] = original
    if isinstance(original, str):
        record["gv"] = original
    if unit and (row is None or row.unit != unit):
        record["gu"] = unit


def _number(value: Decimal) -> int | Decimal | str:
    """What carries every digit of ``value``: an integer for exponent 0, a decimal fraction, a text for a negative zero
    (which decimal fractions do not have)."""
    text = str(value)
    if text.isdigit():
        return int(text)
    if text[0] == "-":
        if not value:
            if not NEGATIVE_ZERO.fullmatch(text):
                raise DeliveryError("a value is out of bounds")
            return text
        if text[1:].isdigit():
            return int(text)
    return value


def _write_samples(samples: Samples, record: Record) -> None:
    check_samples(samples)
    record[VD] = samples.data
    record["gr"] = _number(samples.rate)
    if samples.format is SampleFormat.S16:
        record["gf"] = "h"
    if (factor := _number(samples.factor)) != 1 or isinstance(factor, Decimal):
        record["gx"] = factor
    if (origin := _number(samples.origin)) != 0 or isinstance(origin, Decimal):
        record["go"] = origin
    if samples.missing is not None:
        record["gm"] = samples.missing


def _from_base(base: float, time: float) -> float:
    """``time`` from ``base``, so that adding the two gives ``time`` again exactly."""
    if not is_time(time) or base + (time - base) != time:
        raise DeliveryError("an observation's time lies too far from its frame's")
    return time - base

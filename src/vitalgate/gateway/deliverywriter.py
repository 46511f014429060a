"""Writing observations into a delivery's records (`vitalgate.gateway.delivery` has the table of labels)."""

import functools
import re
import struct
from decimal import Decimal
from typing import Final

import cbor2

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
from vitalgate.vitals.labels import BN, BT, VB, VD, VS, N, T, U, V
from vitalgate.vitals.observation import FRAME_HASH_BYTES, Observation, SampleFormat, Samples
from vitalgate.vitals.units import CONVERSIONS

_PLAIN_LABEL: Final = re.compile(r"[A-Za-z0-9.-]{1,32}")


Fields = tuple[int, bytes]
"""Some fields of a record, encoded: how many, and key after value after key."""

_NOTHING: Final[Fields] = 0, b""
_CACHED: Final = 4096


def encoded(record: Record) -> Fields:
    """The fields of ``record``. Raises what `cbor2.dumps` raises."""
    return len(record), b"".join([cbor2.dumps(part) for item in record.items() for part in item])


_FLOAT: Final = struct.Struct(">Bd")
_KEYS: Final = {label: cbor2.dumps(label) for label in (BN, BT, "bge", "bgs", "bgc", "bgh", "bgt", "bgo", VD)}


def _head(major: int, number: int) -> bytes:
    """The head of an item of major type ``major`` (RFC 8949 section 3)."""
    major <<= 5
    if number < 24:
        return bytes((major | number,))
    if number < 1 << 8:
        return bytes((major | 24, number))
    if number < 1 << 16:
        return (number | (major | 25) << 16).to_bytes(3, "big")
    if number < 1 << 32:
        return (number | (major | 26) << 32).to_bytes(5, "big")
    return (number | (major | 27) << 64).to_bytes(9, "big")


def _float(number: float) -> bytes:
    return _FLOAT.pack(0xFB, number)


def _false_or(number: float | None) -> bytes:
    return b"\xf4" if number is None else _FLOAT.pack(0xFB, number)


@functools.lru_cache(maxsize=_CACHED)
def _of_device(name: str, epoch: int) -> tuple[bytes, bytes]:
    return _KEYS[BN] + cbor2.dumps(name), _KEYS["bge"] + _head(0, epoch)


def base_fields(entry: Entry, name: str) -> Fields:
    """What begins an entry, whose base name is ``name``; its numbers are within bounds."""
    device, epoch = _of_device(name, entry.epoch)
    return 6, b"".join(
        (
            device, _KEYS[BT], _float(entry.gateway_time), epoch, _KEYS["bgs"], _head(0, entry.sequence),
            _KEYS["bgc"], _head(0, entry.traffic_class), _KEYS["bgh"], _head(2, len(entry.frame_hash)),
            entry.frame_hash,
        )
    )  # fmt: skip


def map_of(*fields: Fields) -> bytes:
    """One map (RFC 8949 section 3.1, major type 5) of all ``fields``."""
    count = sum([some[0] for some in fields])
    head = bytes([0xA0 | count]) if count < 24 else bytes([0xB8, count])
    return head + b"".join([some[1] for some in fields])


class Writer:
    """Writes an entry's observations; keeps what the base fields stand at.

    A device says the same few names, units and numbers again and again: what they are encoded as is kept.
    """

    __slots__ = ("bases", "clock", "entry", "offset")

    def __init__(self, entry: Entry) -> None:
        self.entry = entry
        self.bases: tuple[str, int, str, str] = ("", 0, "", "")
        self.clock: float | None = None
        self.offset: object = DERIVED

    def write(self, observation: Observation, begun: Fields = _NOTHING) -> bytes:
        """The record of ``observation``, which begins with the fields ``begun``."""
        entry = self.entry
        if (
            observation.device not in ("", entry.device)
            or observation.epoch not in (0, entry.epoch)
            or observation.sequence not in (0, entry.sequence)
        ):
            raise DeliveryError("an observation belongs to another entry")
        bases = (observation.decoder, int(observation.status), observation.patient, observation.location)
        based = _NOTHING
        if bases != self.bases:
            based, self.bases = _based(bases, self.bases), bases
        clock = self._clock(observation)
        if not 0 <= observation.metric <= MAX_METRIC:
            raise DeliveryError("a metric is a 32-bit number")
        name = _name(observation.metric, observation.label)
        value = observation.value
        if type(value) is Decimal:
            said = _numeric(str(value), observation.unit)
        elif type(value) is Samples:
            said = _samples(value, observation.unit)
        else:
            said = encoded(_other(value, observation.unit))
        if (
            observation.gateway_time == entry.gateway_time
            and observation.frame_hash == entry.frame_hash
            and observation.alarm is None
        ):
            return map_of(begun, based, clock, name, said)
        own: Fields = _NOTHING
        record: Record = {}
        if observation.gateway_time != entry.gateway_time:
            record[T] = _from_base(entry.gateway_time, observation.gateway_time)
        if observation.frame_hash != entry.frame_hash:
            if len(observation.frame_hash) != FRAME_HASH_BYTES:
                raise DeliveryError("a frame hash has 16 bytes")
            record["gh"] = observation.frame_hash
        if record:
            own, record = encoded(record), {}
        alarm = observation.alarm
        if alarm is not None:
            record["ga"], record["gp"] = alarm.text, int(alarm.priority)
        return map_of(begun, based, clock, name, own, said, encoded(record))

    def _clock(self, observation: Observation) -> Fields:
        clock, offset = observation.device_time, observation.clock_offset
        if clock is None:
            own: object = DERIVED if offset is None else offset
        else:
            own = DERIVED if offset == clock - observation.gateway_time else offset
        if clock == self.clock and own == self.offset:
            return _NOTHING
        for time in (clock, offset):
            if time is not None and not is_time(time):
                raise DeliveryError("a device time is no number")
        self.clock, self.offset = clock, own
        said = _KEYS["bgt"] + _false_or(clock)
        return (1, said) if own is DERIVED else (2, said + _KEYS["bgo"] + _false_or(offset))


@functools.lru_cache(maxsize=_CACHED)
def _based(bases: tuple[str, int, str, str], former: tuple[str, int, str, str]) -> Fields:
    if not 0 <= bases[1] <= ALL_STATUS:
        raise DeliveryError("a status has unknown bits")
    labels = ("bgd", "bgx", "bgp", "bgl")
    return encoded({label: now for label, now, then in zip(labels, bases, former, strict=True) if now != then})


@functools.lru_cache(maxsize=_CACHED)
def _name(metric: int, label: str) -> Fields:
    record: Record = {}
    if not label:
        record[N] = str(metric)
    elif _PLAIN_LABEL.fullmatch(label):
        record[N] = f"{metric}/{label}"
    else:
        record[N] = str(metric)
        record["gl"] = label
    return encoded(record)


@functools.lru_cache(maxsize=_CACHED)
def _numeric(text: str, unit: str) -> Fields:
    record: Record = {}
    _write_number(Decimal(text), unit, record)  # a number's text has all its digits
    return encoded(record)


def _samples(samples: Samples, unit: str) -> Fields:
    check_samples(samples)
    more, rest = _scale(str(samples.rate), samples.format, str(samples.factor), str(samples.origin), samples.missing)
    data = samples.data
    count, body = _in_unit(unit)
    return count + 1 + more, b"".join((body, _KEYS[VD], _head(2, len(data)), data, rest))


@functools.lru_cache(maxsize=_CACHED)
def _in_unit(unit: str) -> Fields:
    return encoded({"gu": unit}) if unit else _NOTHING


@functools.lru_cache(maxsize=_CACHED)
def _scale(rate: str, form: SampleFormat, factor: str, origin: str, missing: int | None) -> Fields:
    record: Record = {"gr": _number(Decimal(rate))}
    if form is SampleFormat.S16:
        record["gf"] = "h"
    if (number := _number(Decimal(factor))) != 1 or isinstance(number, Decimal):
        record["gx"] = number
    if (number := _number(Decimal(origin))) != 0 or isinstance(number, Decimal):
        record["go"] = number
    if missing is not None:
        record["gm"] = missing
    return encoded(record)


def _other(value: object, unit: str) -> Record:
    record: Record = {"gu": unit} if unit else {}
    if value is None:
        record[VB] = False
    elif isinstance(value, str):
        record[VS] = value
    else:
        raise DeliveryError("a value of a kind that no observation has")
    return record


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


def _from_base(base: float, time: float) -> float:
    """``time`` from ``base``, so that adding the two gives ``time`` again exactly."""
    if not is_time(time) or base + (time - base) != time:
        raise DeliveryError("an observation's time lies too far from its frame's")
    return time - base

"""Reading a delivery's records (`vitalgate.gateway.delivery` has the table of labels)."""

import functools
import re
from decimal import Decimal
from typing import Any, Final

from vitalgate.gateway.deliverycommon import (
    ALL_STATUS,
    DERIVED,
    MAX_METRIC,
    NEGATIVE_ZERO,
    DeliveryError,
    check_decimal,
    check_samples,
    read_natural,
    read_text,
    read_time,
)
from vitalgate.gateway.entry import Entry
from vitalgate.gateway.noticeform import NOTICE_NAME, notice_from
from vitalgate.vitals.labels import BN, BT, BVER, VB, VD, VS, N, T, U, V
from vitalgate.vitals.observation import (
    FRAME_HASH_BYTES,
    Alarm,
    Observation,
    Priority,
    SampleFormat,
    Samples,
    Status,
    TrafficClass,
    status_of,
)
from vitalgate.vitals.urn import is_normal

GATEWAY_NAME: Final = "vitalgate:"
_SENML_VERSION: Final = 10
_CLASSES: Final = tuple(TrafficClass)
_PRIORITIES: Final = tuple(Priority)
_NAME: Final = re.compile(r"(0|[1-9][0-9]{0,9})(?:/([A-Za-z0-9.-]{1,32}))?", re.ASCII)
_BASES: Final = frozenset({"bgd", "bgx", "bgt", "bgo", "bgp", "bgl"})
_ONE: Final = Decimal(1)
_ZERO: Final = Decimal(0)
_NUMBERS: Final = (int, Decimal, float)


class Reader:
    """One entry being read: what its base fields stand at, and its observations so far."""

    __slots__ = (
        "clock", "decoder", "device", "epoch", "hash", "lane", "location", "notice", "observations", "offset",
        "patient", "sequence", "status", "time",
    )  # fmt: skip

    def __init__(self, record: dict[Any, Any]) -> None:
        name = read_text(record[BN])
        if record.get(BVER, _SENML_VERSION) != _SENML_VERSION:
            raise DeliveryError("a version of SenML that is not known")
        self.device = "" if name == GATEWAY_NAME else name[:-1]
        if name != GATEWAY_NAME and not (name.endswith(":") and is_normal(self.device)):
            raise DeliveryError("the base name is no device URN")
        self.time = read_time(record[BT])
        self.epoch = read_natural(record["bge"], 1 << 64)
        self.sequence = read_natural(record["bgs"], 1 << 63)
        if not self.sequence:
            raise DeliveryError("sequences count from 1")
        self.lane = _CLASSES[read_natural(record["bgc"], len(_CLASSES))]
        self.hash = _hash(record["bgh"])
        self.decoder = self.patient = self.location = ""
        self.status = Status.NONE
        self.clock: float | None = None
        self.offset: float | object | None = DERIVED
        self.observations: list[Observation] = []
        self.notice: Any = None

    def entry(self) -> Entry:
        """What was read."""
        return Entry(
            self.epoch,
            self.sequence,
            self.lane,
            self.device,
            self.hash,
            self.time,
            tuple(self.observations),
            self.notice,
        )

    def read(self, record: dict[Any, Any]) -> None:
        """Read one record."""
        if not _BASES.isdisjoint(record):
            self._bases(record)
        name = record.get(N)
        if name is None:
            return
        if name == NOTICE_NAME:
            if self.observations or self.notice is not None:
                raise DeliveryError("an entry holds observations or one notice")
            self.notice = notice_from(record)
            return
        if self.notice is not None:
            raise DeliveryError("an entry holds observations or one notice")
        if not self.device:
            raise DeliveryError("an observation of no device")
        metric, label = _name(name)
        if "gl" in record:
            label = read_text(record["gl"])
        time = self.time
        if T in record:
            time += read_time(record[T])
        clock, offset = self.clock, self.offset
        if offset is DERIVED:
            offset = None if clock is None else clock - time
        alarm = None
        if "ga" in record:
            alarm = Alarm(read_text(record["ga"]), _PRIORITIES[read_natural(record["gp"], len(_PRIORITIES))])
        value, unit = _value(record)
        self.observations.append(
            Observation(
                metric,
                value,
                unit,
                time,
                _hash(record["gh"]) if "gh" in record else self.hash,
                self.decoder,
                self.status,
                clock,
                offset,  # type: ignore[arg-type]  # the marker was replaced above
                label,
                alarm,
                self.patient,
                self.location,
                self.device,
                self.epoch,
                self.sequence,
            )
        )

    def _bases(self, record: dict[Any, Any]) -> None:
        if "bgd" in record:
            self.decoder = read_text(record["bgd"])
        if "bgx" in record:
            self.status = status_of(read_natural(record["bgx"], ALL_STATUS + 1))
        if "bgp" in record:
            self.patient = read_text(record["bgp"])
        if "bgl" in record:
            self.location = read_text(record["bgl"])
        if "bgt" in record:
            clock = record["bgt"]
            self.clock = None if clock is False else read_time(clock)
            self.offset = DERIVED
        if "bgo" in record:
            offset = record["bgo"]
            self.offset = None if offset is False else read_time(offset)


@functools.lru_cache(maxsize=4096)
def _name(name: str) -> tuple[int, str]:
    found = _NAME.fullmatch(name) if isinstance(name, str) else None
    if found is None or int(found[1]) > MAX_METRIC:
        raise DeliveryError("a name is a metric's number, and perhaps a label")
    return int(found[1]), found[2] or ""


def _value(record: dict[Any, Any]) -> tuple[Decimal | Samples | str | None, str]:
    unit = read_text(record["gu"]) if "gu" in record else read_text(record.get(U, ""))
    value: Decimal | Samples | str | None
    if V in record:
        if type(record[V]) not in _NUMBERS:
            raise DeliveryError("a numeric value is no number")
        value = _decimal(record["gv"] if "gv" in record else record[V])
        kinds = 1
    else:
        value, kinds = None, 0
    if VB in record:
        if record[VB] is not False:
            raise DeliveryError("a value that no observation has")
        kinds += 1
    if VS in record:
        value = read_text(record[VS])
        kinds += 1
    if VD in record:
        value = _samples(record)
        kinds += 1
    if kinds != 1:
        raise DeliveryError("a record has exactly one value (RFC 8428 section 4.2)")
    return value, unit


def _samples(record: dict[Any, Any]) -> Samples:
    data, kind = record[VD], record.get("gf", "B")
    missing = record.get("gm")
    if type(data) is not bytes or kind not in ("B", "h") or (missing is not None and type(missing) is not int):
        raise DeliveryError("a waveform has a field of another kind")
    samples = Samples(
        _decimal(record["gr"]),
        SampleFormat.S16 if kind == "h" else SampleFormat.U8,
        data,
        _decimal(record["gx"]) if "gx" in record else _ONE,
        _decimal(record["go"]) if "go" in record else _ZERO,
        missing,
    )
    check_samples(samples)
    return samples


def _decimal(value: object) -> Decimal:
    if isinstance(value, Decimal):
        number = value
    elif (type(value) is int and -(1 << 256) < value < 1 << 256) or (
        isinstance(value, str) and NEGATIVE_ZERO.fullmatch(value)
    ):
        number = Decimal(value)
    else:
        raise DeliveryError("a value is an integer or a decimal fraction")
    check_decimal(number)
    return number


def _hash(value: object) -> bytes:
    if type(value) is bytes and len(value) == FRAME_HASH_BYTES:
        return value
    raise DeliveryError("a frame hash has 16 bytes")

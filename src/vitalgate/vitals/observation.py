"""`Observation`: one value or one stretch of a waveform, in the form that every later room uses.

Decoders make observations; the gateway binds them to an identity; SenML carries them; the cloud stores them. Precision
is data: a value is a `Decimal` that keeps the digits the device sent (72.50 stays 72.50).
"""

import array
import enum
import hashlib
import sys
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from vitalgate.quick import quick

FRAME_HASH_BYTES = 16


def frame_hash(raw: bytes) -> bytes:
    """The name of a raw frame: the first 16 bytes of its SHA-256."""
    return hashlib.sha256(raw).digest()[:FRAME_HASH_BYTES]


class Status(enum.IntFlag):
    """Measurement status, one set for every protocol (IEEE 11073-10101 and IHE PCD OBX-8 terms)."""

    NONE = 0
    INVALID = 1
    QUESTIONABLE = 2
    UNAVAILABLE = 4
    CALIBRATING = 8
    TEST = 16
    DEMO = 32
    VALIDATED = 64
    EARLY = 128
    IN_ALARM = 256
    ALARM_INHIBITED = 512
    ABOVE_RANGE = 1024
    BELOW_RANGE = 2048
    NOT_PERFORMED = 4096
    IMPLAUSIBLE = 8192
    """Outside what is physically possible for the metric: kept and shown as such, never silently dropped."""


class _Statuses(dict[int, Status]):
    """Statuses by number: an `enum.IntFlag` takes a microsecond to make one, and every observation needs several."""

    def __missing__(self, bits: int) -> Status:
        status = Status(bits)
        if len(self) < 1 << 14:
            self[bits] = status
        return status


_STATUSES: Final = _Statuses()


def status_of(bits: int) -> Status:
    """`Status` of a number."""
    return _STATUSES[bits]


def joined(one: Status, other: Status) -> Status:
    """What is set in either."""
    return _STATUSES[int.__or__(one, other)]


class Priority(enum.IntEnum):
    """Alarm priority (IEC 60601-1-8)."""

    INFORMATION = 0
    LOW = 1
    MEDIUM = 2
    HIGH = 3


@dataclass(frozen=True, slots=True)
class Alarm:
    """What the device itself alarmed about: its own text and priority."""

    text: str
    priority: Priority


class SampleFormat(enum.Enum):
    """How samples lie in `Samples.data`: unsigned bytes, or big-endian signed 16-bit words."""

    U8 = "B"
    S16 = "h"


@quick
@dataclass(frozen=True, slots=True)
class Samples:
    """A stretch of a waveform: value in the observation's unit = origin + factor * raw sample.

    ``rate`` is samples per second; ``missing`` is the raw value that stands for "no signal", or None. The last sample
    is the newest: it belongs to the observation's time.
    """

    rate: Decimal
    format: SampleFormat
    data: bytes
    factor: Decimal = Decimal(1)
    origin: Decimal = Decimal(0)
    missing: int | None = None

    def __len__(self) -> int:
        return len(self.data) if self.format is SampleFormat.U8 else len(self.data) // 2

    def raw(self) -> list[int]:
        """The raw samples as integers, oldest first."""
        if self.format is SampleFormat.U8:
            return list(self.data)
        words = array.array("h", self.data)
        if sys.byteorder == "little":
            words.byteswap()
        return words.tolist()


def pack_s16(samples: list[int]) -> bytes:
    """Big-endian signed 16-bit words, clamped to their range, for `Samples.data`."""
    words = array.array("h", [min(32767, max(-32768, s)) for s in samples])
    if sys.byteorder == "little":
        words.byteswap()
    return words.tobytes()


@quick
@dataclass(frozen=True, slots=True)
class Observation:
    """One thing a device said.

    ``metric`` is the 32-bit MDC code (partition * 65536 + term), or 0 for a device's private metric, then named by
    ``label``. ``value`` is None when the device said "no value" (``status`` says why). ``unit`` is UCUM.
    Times are wall-clock seconds since 1970 UTC: ``gateway_time`` when the last byte of the frame arrived,
    ``device_time`` what the device's own clock said (or None), ``clock_offset`` device minus gateway.
    ``device``, ``epoch`` and ``sequence`` are empty until the gateway has bound and spooled the observation.
    """

    metric: int
    value: Decimal | Samples | str | None
    unit: str
    gateway_time: float
    frame_hash: bytes
    decoder: str
    status: Status = Status.NONE
    device_time: float | None = None
    clock_offset: float | None = None
    label: str = ""
    alarm: Alarm | None = None
    patient: str = ""
    location: str = ""
    device: str = ""
    epoch: int = 0
    sequence: int = 0

    @property
    def is_waveform(self) -> bool:
        """True when the value is a stretch of samples."""
        return isinstance(self.value, Samples)

    @property
    def is_demo(self) -> bool:
        """True when the value is demonstration or test data, not a patient's."""
        return bool(self.status & (Status.DEMO | Status.TEST))

    def bind(self, device: str, patient: str, location: str, mark: Status) -> "Observation":
        """The same observation with an identity; what the frame itself said of patient and location wins."""
        # Spelled out: `dataclasses.replace` takes twice as long, and every observation passes here.
        return Observation(
            self.metric,
            self.value,
            self.unit,
            self.gateway_time,
            self.frame_hash,
            self.decoder,
            joined(self.status, mark) if mark else self.status,
            self.device_time,
            self.clock_offset,
            self.label,
            self.alarm,
            self.patient or patient,
            self.location or location,
            device,
            self.epoch,
            self.sequence,
        )


class TrafficClass(enum.IntEnum):
    """How urgent a record is; a lower number goes first, and an alarm never waits behind bulk."""

    ALARM = 0
    WAVEFORM_REALTIME = 1
    VITAL_PERIODIC = 2
    BULK = 3


def traffic_class(observation: Observation) -> TrafficClass:
    """The class an observation travels in: by its alarm first, then by its kind."""
    if observation.alarm is not None and observation.alarm.priority >= Priority.LOW:
        return TrafficClass.ALARM
    if observation.is_waveform:
        return TrafficClass.WAVEFORM_REALTIME
    return TrafficClass.VITAL_PERIODIC

"""Codec of Nonin's serial data format 7: packets of 25 frames to observations and back.

A frame (75 a second)::

    STATUS | PLETH high | PLETH low | VAR | CHK        CHK = sum of the four before it, modulo 256

STATUS: bit 7 always 1, 6 sensor disconnected, 5 artifact, 4 out of track, 3 sensor alarm, 2 red and 1 green perfusion
(both: yellow), 0 SYNC, set in the first frame of a packet. What VAR means depends on the frame's place in its packet.

Of the rates and saturations that VAR offers this decoder takes the 4-beat averages, which say "no value" (511, 127) at
once; the variants "for display" hold an old value. The pleth is 16 bits without unit, given as S16 with origin 32768.
"""

import re
from dataclasses import dataclass
from decimal import Decimal

from vitalgate.counters import Counters
from vitalgate.devices.stream import NEED_MORE, Cut, Decoded, FrameError, SerialEngine, StreamLimits
from vitalgate.engine import Wall
from vitalgate.vitals.metrics import METRICS
from vitalgate.vitals.observation import Alarm, Observation, Priority, SampleFormat, Samples, Status

DECODER = "nonin-df7/1"
FRAME = 5
FRAMES = 25
PACKET = FRAME * FRAMES
RATE = 75
NO_RATE = 511
NO_SATURATION = 127

MARK, DISCONNECTED, ARTIFACT, OUT_OF_TRACK, SENSOR_ALARM, RED, GREEN, SYNC = (1 << bit for bit in range(7, -1, -1))

VAR_RATE, VAR_SATURATION, VAR_FIRMWARE, VAR_TIMER, VAR_STATUS = 0, 2, 3, 5, 7
"""Places in `Packet.var` (0 is the first frame): rates and the timer take two, high part first."""
VAR_RATE_LONG, VAR_RATE_DISPLAY, VAR_RATE_LONG_DISPLAY = 13, 19, 21
VAR_SATURATION_DISPLAY, VAR_SATURATION_FAST, VAR_SATURATION_BEAT = 8, 9, 10
VAR_SATURATION_LONG, VAR_SATURATION_LONG_DISPLAY = 15, 16
LOW_BATTERY = 0x01
"""Bit of the status byte in VAR."""

PLETH, SATURATION, PULSE_RATE = 150452, 150456, 149530


@dataclass(frozen=True, slots=True)
class Condition:
    """What a STATUS bit says: an alarm text ('' for none) with its priority, and the status it gives the values."""

    bit: int
    text: str
    priority: Priority
    status: Status


CONDITIONS = (
    Condition(DISCONNECTED, "SENSOR DISCONNECTED", Priority.LOW, Status.QUESTIONABLE),
    Condition(SENSOR_ALARM, "SENSOR ALARM", Priority.LOW, Status.QUESTIONABLE),
    Condition(OUT_OF_TRACK, "OUT OF TRACK", Priority.INFORMATION, Status.QUESTIONABLE),
    Condition(ARTIFACT, "", Priority.INFORMATION, Status.QUESTIONABLE),
)
LOW_BATTERY_TEXT = "LOW BATTERY"
LOW_PERFUSION_TEXT = "LOW PERFUSION"


@dataclass(frozen=True, slots=True)
class Packet:
    """One packet: 25 status bytes, 25 pleth samples (0..65535), 25 VAR bytes, in order of frames."""

    status: bytes
    pleth: tuple[int, ...]
    var: bytes

    def rate(self, place: int = VAR_RATE) -> int | None:
        """A pulse rate in beats a minute, or None: 9 bits, two in the first byte and seven in the second."""
        rate = (self.var[place] & 0x03) << 7 | self.var[place + 1] & 0x7F
        return None if rate == NO_RATE else rate

    def saturation(self, place: int = VAR_SATURATION) -> int | None:
        """An oxygen saturation in percent, or None."""
        saturation = self.var[place] & 0x7F
        return None if saturation == NO_SATURATION else saturation

    def timer(self) -> int:
        """The packet count of the device, modulo 16384."""
        return (self.var[VAR_TIMER] & 0x7F) << 7 | self.var[VAR_TIMER + 1] & 0x7F


def encode(packet: Packet) -> bytes:
    """The packet's 125 bytes; `decode` gives it back."""
    raw = bytearray()
    for status, pleth, var in zip(packet.status, packet.pleth, packet.var, strict=True):
        high, low = divmod(pleth, 256)
        raw += bytes((status, high, low, var, (status + high + low + var) & 0xFF))
    return bytes(raw)


def decode(raw: bytes) -> Packet:
    """Parse one packet; raises `FrameError` with reason ``size``, ``sequence`` or ``checksum``."""
    if len(raw) != PACKET:
        raise FrameError("size")
    if (fault := _fault(raw)) is not None:
        raise FrameError(fault[1])
    return _packet(raw)


def _packet(raw: bytes) -> Packet:
    """The packet of 25 good frames."""
    pleth = tuple(high << 8 | low for high, low in zip(raw[1::FRAME], raw[2::FRAME], strict=True))
    return Packet(raw[0::FRAME], pleth, raw[3::FRAME])


_STATUS_FIRST = bytes(byte for byte in range(256) if byte & (MARK | SYNC) == MARK | SYNC)
_STATUS_LATER = bytes(byte for byte in range(256) if byte & (MARK | SYNC) == MARK)
_BEGIN = re.compile(b"[" + re.escape(_STATUS_FIRST) + b"]")
_SIGNED = bytes(byte ^ 0x80 for byte in range(256))


def _fault(raw: bytes | bytearray) -> tuple[int, str] | None:
    """The first frame of ``raw`` (whole frames of one packet) that is none, and why; None when all are good."""
    for number, (status, high, low, var, check) in enumerate(
        zip(raw[0::FRAME], raw[1::FRAME], raw[2::FRAME], raw[3::FRAME], raw[4::FRAME], strict=False)
    ):
        if status not in (_STATUS_LATER if number else _STATUS_FIRST):
            return number, "sequence"
        if (status + high + low + var) & 0xFF != check:
            return number, "checksum"
    return None


class NoninFraming:
    """How packets lie in the oximeter's byte stream (`vitalgate.devices.stream.Framing`).

    A packet is 25 good frames of which only the first bears SYNC; one bad frame costs its packet. The search goes on
    one byte behind the broken packet's beginning.
    """

    kind = "nonin"
    lead = 1

    def cut(self, buffer: bytearray) -> Cut:
        """Find what lies at the start of ``buffer``; asks for more up to 125 bytes."""
        begin = _BEGIN.search(buffer)
        if begin is None:
            return Cut(skip=len(buffer))
        if begin.start():
            return Cut(skip=begin.start())
        fault = _fault(buffer[:PACKET])
        if fault is None:
            return Cut(size=PACKET) if len(buffer) >= PACKET else NEED_MORE
        number, reason = fault
        return Cut(skip=1, reason=reason) if number else Cut(skip=1)

    def decode(self, raw: bytes, received_at: float, hash_: bytes) -> Decoded:
        """The packet's pleth, saturation and pulse rate, and the firmware's revision."""
        packet = _packet(raw)  # `cut` gives good ones alone
        words = bytearray(2 * FRAMES)
        words[0::2] = raw[1::FRAME].translate(_SIGNED)
        words[1::2] = raw[2::FRAME]
        return Decoded(
            _observations(packet, bytes(words), received_at, hash_), version=str(packet.var[VAR_FIRMWARE] & 0x7F)
        )


class NoninEngine(SerialEngine):
    """The decoder: a `DeviceEngine` for any number of Nonin lines."""

    def __init__(self, wall: Wall, counters: Counters | None = None, limits: StreamLimits | None = None) -> None:
        super().__init__(NoninFraming(), wall, counters, limits)


_RATE, _ORIGIN = Decimal(RATE), Decimal(32768)


def _observations(packet: Packet, words: bytes, received_at: float, hash_: bytes) -> tuple[Observation, ...]:
    alarm, status, sensor = _conditions(packet)
    samples = Samples(_RATE, SampleFormat.S16, words, origin=_ORIGIN)
    made = [Observation(PLETH, samples, METRICS[PLETH].unit, received_at, hash_, DECODER, status)]
    for metric, number in ((SATURATION, packet.saturation()), (PULSE_RATE, packet.rate())):
        row = METRICS[metric]
        value = None if number is None or not sensor else Decimal(number)
        own = status
        if value is None:
            own |= Status.UNAVAILABLE
        elif not row.is_plausible(value):
            own |= Status.IMPLAUSIBLE
        if alarm is not None and alarm.priority >= Priority.LOW:
            own |= Status.IN_ALARM
        made.append(Observation(metric, value, row.unit, received_at, hash_, DECODER, own, alarm=alarm))
        alarm = None  # a packet has one alarm: its saturation bears it
    return tuple(made)


def _conditions(packet: Packet) -> tuple[Alarm | None, Status, bool]:
    """The packet's alarm (all texts, highest priority), the status of its values, and whether a sensor is there."""
    union = 0
    perfusion_low = False
    for byte in set(packet.status):
        union |= byte
        perfusion_low = perfusion_low or byte & (RED | GREEN) == RED
    low_battery = packet.var[VAR_STATUS] & LOW_BATTERY
    if not (perfusion_low or low_battery or union & (DISCONNECTED | SENSOR_ALARM | OUT_OF_TRACK | ARTIFACT)):
        return None, Status.NONE, True
    texts: list[str] = []
    priority, status = Priority.INFORMATION, Status.NONE
    for row in CONDITIONS:
        if union & row.bit:
            status |= row.status
            if row.text:
                texts.append(row.text)
                priority = max(priority, row.priority)
    if perfusion_low:
        texts.append(LOW_PERFUSION_TEXT)
        status |= Status.QUESTIONABLE
    if low_battery:
        texts.append(LOW_BATTERY_TEXT)
        priority = max(priority, Priority.LOW)
    return Alarm(", ".join(texts), priority) if texts else None, status, not union & DISCONNECTED

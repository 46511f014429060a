"""From one frame's observations to the parts that become entries: one traffic class each, none too large.

A stretch of a waveform that no entry holds is cut into stretches that follow each other in time.
"""

from collections.abc import Iterable
from dataclasses import replace
from decimal import Decimal
from typing import Final

from vitalgate.gateway.delivery import DeliveryError, pack_entry
from vitalgate.gateway.deliverycommon import MAX_TIME
from vitalgate.gateway.entry import MAX_ENTRY_BYTES, Entry
from vitalgate.gateway.storage import Part
from vitalgate.vitals.observation import Observation, SampleFormat, Samples, TrafficClass, traffic_class
from vitalgate.vitals.urn import MAX_LENGTH

_MOST: Final = (1 << 64) - 1
_LONGEST_DEVICE: Final = "urn:dev:example:".ljust(MAX_LENGTH, "x")
_LENGTH_HEAD: Final = 2
"""Bytes more that the length of up to 64 KiB of samples takes."""
_OWN_TIME: Final = 10
"""Bytes that a time other than the frame's takes."""
_SMALLEST_SEGMENT: Final = 64
"""Bytes of samples a segment has at least, whatever the texts beside them take."""


def split(observations: Iterable[Observation], limit: int = MAX_ENTRY_BYTES) -> list[Part]:
    """The parts of a frame, the most urgent class first, each packing to at most ``limit`` bytes.

    ``observations`` are one frame's: they bear its hash, and the latest of them its time. The order within a class is
    kept. One observation whose texts alone are larger makes a part of its own.
    """
    lanes: dict[TrafficClass, list[Observation]] = {}
    for observation in observations:
        lane = lanes.setdefault(traffic_class(observation), [])
        if isinstance(observation.value, Samples) and _bound(observation, observation) + _header(observation) > limit:
            lane.extend(segments(observation, limit))
        else:
            lane.append(observation)
    heard_at = max([one.gateway_time for lane in lanes.values() for one in lane], default=0.0)
    parts: list[Part] = []
    for name in sorted(lanes):
        parts.extend((name, part) for part in _fill(lanes[name], heard_at, limit))
    return parts


def segments(observation: Observation, limit: int = MAX_ENTRY_BYTES) -> list[Observation]:
    """A waveform cut into stretches of about equal length, oldest first, each small enough for an entry.

    Each has the time of its own last sample, by the gateway's clock and the device's; an alarm stays with the newest.
    Raises `TypeError` for an observation without samples.
    """
    samples = observation.value
    if not isinstance(samples, Samples):
        raise TypeError("only a waveform has segments")
    width = 1 if samples.format is SampleFormat.U8 else 2
    bare_one = replace(observation, value=replace(samples, data=b""))
    try:
        bare = len(pack_entry(_entry([bare_one], observation.gateway_time)))
    except DeliveryError:
        return [observation]  # it cannot be packed at all: the spool will say so
    room = limit - bare - _LENGTH_HEAD
    if len(samples.data) <= room:
        return [observation]
    most = max(room - _OWN_TIME, _SMALLEST_SEGMENT) // width
    count = len(samples)
    pieces = -(-count // most)
    made = []
    for piece in range(pieces):
        first, end = count * piece // pieces, count * (piece + 1) // pieces
        before = float(Decimal(count - end) / samples.rate) if samples.rate > 0 else 0.0
        last = piece == pieces - 1
        made.append(
            replace(
                observation,
                value=replace(samples, data=samples.data[first * width : end * width]),
                gateway_time=_earlier(observation.gateway_time, before),
                device_time=None if observation.device_time is None else _earlier(observation.device_time, before),
                alarm=observation.alarm if last else None,
            )
        )
    return made


def _earlier(time: float, seconds: float) -> float:
    return time - seconds if seconds < MAX_TIME else time


def _fill(observations: list[Observation], heard_at: float, limit: int) -> list[tuple[Observation, ...]]:
    """In halves until each fits: by a bound that costs little, and where that says no by the true size."""
    if len(observations) == 1 or _header(observations[0]) + _together(observations) <= limit:
        return [tuple(observations)]
    try:
        fits = len(pack_entry(_entry(observations, heard_at))) <= limit
    except DeliveryError:
        fits = False  # too large by far, or one of them cannot be packed: then it shall be alone
    if fits:
        return [tuple(observations)]
    half = len(observations) // 2
    return _fill(observations[:half], heard_at, limit) + _fill(observations[half:], heard_at, limit)


def _entry(observations: list[Observation], heard_at: float) -> Entry:
    """The entry of these observations, with the epoch and sequence that take most bytes."""
    first = observations[0]
    entry = Entry(_MOST, _MOST >> 1, TrafficClass.BULK, first.device, first.frame_hash, heard_at, tuple(observations))
    return entry if first.device else replace(entry, device=_LONGEST_DEVICE)


def _header(observation: Observation) -> int:
    """Bytes that an entry with this observation first takes for its base fields, at most."""
    return 130 + (len(observation.device) or MAX_LENGTH) + sum(map(_text, _texts(observation)))


def _together(observations: list[Observation]) -> int:
    """Bytes that the observations' records take at most, one behind the other."""
    before = observations[0]
    size = 0
    for observation in observations:
        size += _bound(observation, before)
        before = observation
    return size


def _bound(observation: Observation, before: Observation) -> int:
    """Bytes that the observation's record takes at most behind that of ``before``."""
    size = 64 + _text(observation.label) + _text(observation.unit)
    value = observation.value
    if type(value) is Decimal:
        if len(digits := str(value)) > 18:
            size += 2 * len(digits)
    elif isinstance(value, Samples):
        size += 60 + len(value.data)
        size += len(str(value.rate)) + len(str(value.factor)) + len(str(value.origin))
    elif isinstance(value, str):
        size += _text(value)
    if observation.alarm is not None:
        size += 12 + _text(observation.alarm.text)
    if observation is before:
        return size
    # What is the entry's is written where it changes.
    if (
        observation.decoder != before.decoder
        or observation.patient != before.patient
        or observation.location != before.location
    ):
        size += 21 + sum(map(_text, _texts(observation)))
    if observation.device_time != before.device_time or observation.clock_offset != before.clock_offset:
        size += 26
    return size + (7 if observation.status != before.status else 0)


def _texts(observation: Observation) -> tuple[str, str, str]:
    return observation.decoder, observation.patient, observation.location


def _text(text: str) -> int:
    return len(text) if text.isascii() else 4 * len(text)

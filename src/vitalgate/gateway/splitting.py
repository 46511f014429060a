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
        if isinstance(observation.value, Samples) and _bound(observation, observation.value) > limit:
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
    """In halves until each fits."""
    if len(observations) == 1:
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


def _bound(observation: Observation, samples: Samples) -> int:
    """Bytes that an entry with this waveform alone takes at most."""
    size = 260 + (len(observation.device) or MAX_LENGTH) + len(samples.data)
    size += len(str(samples.rate)) + len(str(samples.factor)) + len(str(samples.origin))
    texts = (observation.label, observation.unit, observation.decoder, observation.patient, observation.location)
    size += sum([len(text) if text.isascii() else 4 * len(text) for text in texts])
    alarm = observation.alarm
    return size if alarm is None else size + 12 + 4 * len(alarm.text)

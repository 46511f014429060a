"""A simulated Nonin oximeter: plays a real photoplethysmogram in serial data format 7.

Real: the pleth (`recordings.ppg`, from the foot of its first pulse to that of its last, stretched by less than 2 % to
whole packets so that it loops without a seam) and the pulse rates, from the recording's own pulses. Modelled: the
saturation, about 97 %. The timer counts packets, as the device's does.

Everything is demonstration data; the format has no place to say so (`vitalgate.devices.contract.Simulator`).
"""

import functools
import math

from vitalgate.devices import recordings
from vitalgate.devices.contract import Faults
from vitalgate.devices.nonin.codec import (
    FRAME,
    FRAMES,
    GREEN,
    MARK,
    NO_RATE,
    RATE,
    SYNC,
    VAR_FIRMWARE,
    VAR_RATE,
    VAR_RATE_DISPLAY,
    VAR_RATE_LONG,
    VAR_RATE_LONG_DISPLAY,
    VAR_SATURATION,
    VAR_SATURATION_BEAT,
    VAR_SATURATION_DISPLAY,
    VAR_SATURATION_FAST,
    VAR_SATURATION_LONG,
    VAR_SATURATION_LONG_DISPLAY,
    VAR_TIMER,
    Packet,
    encode,
)
from vitalgate.devices.playback import Playback
from vitalgate.engine import Wall

FIRMWARE = 48
PULSE_MARK = 0.1
"""Seconds for which a pulse is marked in STATUS."""
TIMER_STEPS = 16384


class NoninSimulator(Playback):
    """The oximeter: three packets a second; raises `RecordingError` where recordings are not installed."""

    def __init__(self, start: float, wall: Wall, faults: Faults, seed: int) -> None:
        super().__init__(packets(), FRAMES / RATE, start, faults, seed)

    def frame(self, looped: bytes, number: int) -> bytes:
        """The loop's packet with the timer of this one."""
        raw = bytearray(looped)
        for frame, value in zip((VAR_TIMER, VAR_TIMER + 1), divmod(number % TIMER_STEPS, 128), strict=True):
            at = frame * FRAME
            raw[at + 3] = value
            raw[at + 4] = sum(raw[at : at + 4]) & 0xFF
        return bytes(raw)


@functools.cache
def packets() -> tuple[bytes, ...]:
    """The loop: about 24 s of packets, with the timer at 0."""
    np = recordings.numpy()
    ppg = recordings.ppg()
    feet = recordings.feet(ppg)
    begin, end = float(feet[0]), float(feet[-1])
    count = round((end - begin) * RATE / FRAMES)
    seconds = count * FRAMES / RATE
    stretch = seconds / (end - begin)
    wave = recordings.resample(ppg, RATE)
    at = begin + np.arange(count * FRAMES) / RATE / stretch
    wave = np.interp(at, np.arange(len(wave)) / RATE, wave)
    wave = np.rint(2000.0 + 60000.0 * (wave - wave.min()) / (wave.max() - wave.min())).astype(int).tolist()
    pulses = (recordings.pulses(ppg) - begin) * stretch
    pulses = pulses[(pulses >= 0) & (pulses < seconds)]
    made = []
    for number in range(count):
        now = (number + 1) * FRAMES / RATE
        var = bytearray(FRAMES)
        for places, beats in (((VAR_RATE, VAR_RATE_DISPLAY), 4), ((VAR_RATE_LONG, VAR_RATE_LONG_DISPLAY), 8)):
            rate = recordings.rate_per_minute(pulses, now, seconds, beats)
            for place in places:
                var[place], var[place + 1] = divmod(NO_RATE if rate is None else rate, 128)
        saturation = round(97.0 + 1.2 * math.sin(2 * math.pi * now / seconds))
        for place in _SATURATIONS:
            var[place] = saturation
        var[VAR_FIRMWARE] = FIRMWARE
        status = bytearray([MARK | SYNC] + [MARK] * (FRAMES - 1))
        for frame in range(FRAMES):
            since = (number * FRAMES + frame) / RATE - pulses
            if ((since >= 0) & (since < PULSE_MARK)).any():
                status[frame] |= GREEN
        made.append(encode(Packet(bytes(status), tuple(wave[number * FRAMES : (number + 1) * FRAMES]), bytes(var))))
    return tuple(made)


_SATURATIONS = (
    VAR_SATURATION,
    VAR_SATURATION_DISPLAY,
    VAR_SATURATION_FAST,
    VAR_SATURATION_BEAT,
    VAR_SATURATION_LONG,
    VAR_SATURATION_LONG_DISPLAY,
)

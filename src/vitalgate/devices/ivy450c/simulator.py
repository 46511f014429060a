"""A simulated Ivy 450C: plays a real ECG, and what belongs to it, in the monitor's own wire format.

Real: the ECG (`recordings.ecg`, its baseline removed as a monitor does), the heart rate (mean of the recording's last 8
beats) and the shape of every pleth pulse (`recordings.ppg`), one recorded pulse stretched to each beat of the ECG.

Modelled, since no package holds a recording: arterial pressure (a pulse a beat, higher after a longer beat and with
expiration; SYS, DIA and MEAN are those of the wave of the last 5 s), respiration with one apnoea in each loop that is
alarmed after 20 s, saturation, temperature, and a cuff measurement a minute. ETCO2 and T2 have no sensor, P2 no
transducer, as in the recorded transmission this format is known from. That the monitor sends temperatures with one
decimal is assumed.

Everything is demonstration data; the format has no place to say so (`vitalgate.devices.contract.Simulator`).
"""

import functools
import itertools
import math
import random

from vitalgate.devices import recordings
from vitalgate.devices.contract import Faults
from vitalgate.devices.ivy450c.codec import Message, encode
from vitalgate.devices.playback import Playback
from vitalgate.devices.recordings import Signal
from vitalgate.engine import Wall

ECG_RATE, WAVE_RATE = 200, 50
ECG_COUNTS_PER_MILLIVOLT, ECG_ZERO = 45.0, 110.0
"""The simulator's own choice: the protocol states no gain; so the recording's greatest beats fit."""
TOP = 250
NO_SIGNAL = b"\xfb" * WAVE_RATE
TRANSIT = 0.2
"""Seconds from the R wave to the pulse at the finger."""
LONGEST_PULSE = 1.5
BREATHS_PER_MINUTE = 15.0
APNOEA = (20.0, 46.0)
APNOEA_DELAY = 20.0


class IvySimulator(Playback):
    """The monitor: one message a second; raises `RecordingError` where recordings are not installed."""

    def __init__(self, start: float, wall: Wall, faults: Faults, seed: int) -> None:
        super().__init__(messages(), 1.0, start, faults, seed)


@functools.cache
def messages() -> tuple[bytes, ...]:
    """The loop: as many whole seconds as the ECG lasts, a message each."""
    np = recordings.numpy()
    ecg = recordings.ecg()
    seconds = int(ecg.seconds)
    beats = recordings.beats(ecg)
    beats = beats[beats < seconds - 0.3]
    wave = recordings.resample(ecg, ECG_RATE)[: seconds * ECG_RATE]
    wave = wave - np.convolve(np.pad(wave, ECG_RATE, mode="edge"), np.full(2 * ECG_RATE + 1, 1 / 401), mode="valid")
    time = np.arange(seconds * WAVE_RATE) / WAVE_RATE
    resp = _respiration(time, seconds)
    pressure = _pressure(time, beats, resp)
    waves = [
        _bytes(ECG_ZERO + ECG_COUNTS_PER_MILLIVOLT * wave),
        _bytes(125.0 + 100.0 * resp),
        _bytes(100.0 + 100.0 * _pleth(time, beats)),
        _bytes(pressure),
    ]
    chance = random.Random(450)  # the model's own: the loop is the same for every seed
    made = []
    nibp = ""
    for second in range(seconds):
        end = second + 1.0
        rate = recordings.rate_per_minute(beats, end, seconds, 8)
        pulse = recordings.rate_per_minute(beats + TRANSIT, end, seconds, 4)
        window = np.roll(pressure, -WAVE_RATE * (second + 1))[-5 * WAVE_RATE :]
        low, mean, high = (round(float(value)) for value in (window.min(), window.mean(), window.max()))
        if second % 60 == 0:
            nibp = f"{high + chance.randint(-4, 6)};{low + chance.randint(-3, 4)};{mean + chance.randint(-2, 3)};{rate}"
        made.append(
            encode(
                Message(
                    (
                        waves[0][second * ECG_RATE : (second + 1) * ECG_RATE],
                        *(wave[second * WAVE_RATE : (second + 1) * WAVE_RATE] for wave in waves[1:]),
                        NO_SIGNAL,
                    ),
                    (
                        ("HR", ("1", str(rate), "ECG-II-MON")),
                        ("RR", ("1", _breaths(end, seconds), "APNEA: 20 SEC")),
                        ("ETCO2", ("1", "", "")),
                        ("SPO2", ("1", str(_saturation(end)), f"PR={pulse} ")),
                        ("NIBP", ("4", *nibp.split(";"), "")),
                        ("P1", ("3", str(high), str(low), str(mean), "")),
                        ("P2", ("3", "", "", "", "NO TRANSDUCER")),
                        ("T1", ("1", f"{36.8 + 0.2 * math.sin(2 * math.pi * end / seconds):.1f}", "")),
                        ("T2", ("1", "", "")),
                    ),
                )
            )
        )
    return tuple(made)


def _bytes(counts: Signal) -> bytes:
    np = recordings.numpy()
    data: bytes = np.clip(np.rint(counts), 0, TOP).astype(np.uint8).tobytes()
    return data


def _breath_phase(time: Signal, seconds: int) -> Signal:
    """Breaths since the loop's start: a whole number in a loop, quicker and slower within it."""
    np = recordings.numpy()
    breaths = round(BREATHS_PER_MINUTE * seconds / 60.0)
    phase: Signal = breaths * time / seconds + 0.3 * np.sin(2 * np.pi * 5 * time / seconds)
    return phase


def _respiration(time: Signal, seconds: int) -> Signal:
    """The chest's movement, -1 to 1; flat in the apnoea."""
    np = recordings.numpy()
    phase = 2 * np.pi * _breath_phase(time, seconds)
    breathing = np.clip((time - APNOEA[0]) / -0.5, 0, 1) + np.clip((time - APNOEA[1]) / 0.5, 0, 1)
    wave: Signal = np.clip(breathing, 0, 1) * (np.sin(phase) + 0.2 * np.sin(2 * phase)) / 1.2
    return wave


def _breaths(now: float, seconds: int) -> str:
    """The breathing rate shown at ``now``; none while the apnoea is alarmed."""
    if APNOEA[0] + APNOEA_DELAY <= now <= APNOEA[1]:
        return ""
    np = recordings.numpy()
    before, after = _breath_phase(np.array([now - 4.0, now + 4.0]), seconds)
    return str(round((after - before) * 60.0 / 8.0))


def _saturation(now: float) -> int:
    """SpO2 in percent: falls late in the apnoea and recovers after it."""
    depth = min(max((now - APNOEA[0] - 10.0) / 25.0, 0.0), max((APNOEA[1] + 30.0 - now) / 25.0, 0.0), 1.0)
    return round(97.4 + 0.8 * math.sin(now / 17.0) - 5.0 * depth)


def _pulse_position(time: Signal, beats: Signal) -> tuple[Signal, Signal, Signal]:
    """Of each moment: which beat it follows, seconds since its pulse began, and that pulse's length in seconds."""
    np = recordings.numpy()
    begins = np.concatenate(([beats[0] - 1.0], beats)) + TRANSIT
    lengths = np.minimum(np.diff(np.concatenate((begins, [begins[-1] + 1.0]))), LONGEST_PULSE)
    which = np.clip(np.searchsorted(begins, time, side="right") - 1, 0, None)
    return which, np.maximum(time - begins[which], 0.0), lengths[which]


def _pleth(time: Signal, beats: Signal) -> Signal:
    """The pleth, 0 to about 1: each beat plays the next pulse of the recording."""
    np = recordings.numpy()
    shapes = _recorded_pulses()
    which, since, length = _pulse_position(time, beats)
    at = np.minimum(since / length, 1.0) * (shapes.shape[1] - 1)
    low = np.minimum(at.astype(int), shapes.shape[1] - 2)
    rows = which % len(shapes)
    wave: Signal = shapes[rows, low] * (1 - (at - low)) + shapes[rows, low + 1] * (at - low)
    return wave


@functools.cache
def _recorded_pulses() -> Signal:
    """The recording's pulses, one a row, each from foot to foot in 101 steps, foot at 0; the median peak is 1."""
    np = recordings.numpy()
    ppg = recordings.ppg()
    feet = recordings.feet(ppg)
    grid = np.arange(len(ppg.samples)) / ppg.rate
    rows = []
    for begin, end in itertools.pairwise(feet):
        shape = np.interp(np.linspace(begin, end, 101), grid, ppg.samples)
        rows.append(shape - np.linspace(shape[0], shape[-1], 101))
    shapes = np.array(rows)
    made: Signal = shapes / np.median(shapes.max(axis=1))
    return made


def _pressure(time: Signal, beats: Signal, resp: Signal) -> Signal:
    """Arterial pressure in mmHg: upstroke of 0.12 s, dicrotic wave at 0.34 s, run-off to the next beat."""
    np = recordings.numpy()
    which, since, length = _pulse_position(time, beats)
    upstroke = np.sin(np.clip(since / 0.12, 0, 1) * np.pi / 2) ** 2
    pulse = upstroke * np.exp(-np.maximum(since - 0.12, 0) / 0.35) + 0.13 * np.exp(-(((since - 0.34) / 0.045) ** 2))
    before = np.concatenate(([0.65, 0.65], np.clip(np.diff(beats), 0.3, 1.2)))[which]
    systolic = 116.0 + 18.0 * (before - 0.65) - 3.0 * resp
    diastolic = 76.0 - 2.0 * resp
    run_off = np.exp(-length / 0.35) * np.minimum(since / length, 1.0)
    wave: Signal = diastolic + (systolic - diastolic) * np.clip(pulse - run_off, 0, 1)
    return wave

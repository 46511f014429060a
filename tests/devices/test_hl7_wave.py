"""Waveforms as text: every digit that was sent survives, or it is said that it did not."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitalgate.devices.hl7.wave import MISSING, WaveError, samples_from
from vitalgate.vitals.observation import SampleFormat

RATE = Decimal(250)


def values(samples):
    """The samples in their unit; None where there was none."""
    return [
        None if samples.missing is not None and raw == samples.missing else samples.origin + samples.factor * raw
        for raw in samples.raw()
    ]


@given(st.lists(st.decimals(-30, 30, places=3), min_size=1, max_size=50))
def test_alike_samples_survive_to_the_digit(numbers):
    wave = samples_from([str(number) for number in numbers], RATE)
    assert wave.exact
    assert [str(value) for value in values(wave.samples)] == [str(n if n else abs(n)) for n in numbers]


@given(
    st.lists(
        st.one_of(st.none(), *(st.decimals(-327, 327, places=places) for places in range(3))), min_size=1, max_size=50
    )
)
def test_samples_of_any_length_survive_in_value(numbers):
    texts = ["" if number is None else str(number) for number in numbers]
    if not any(texts):
        with pytest.raises(WaveError):
            samples_from(texts, RATE)
        return
    wave = samples_from(texts, RATE)
    assert wave.exact
    assert (wave.samples.format, wave.samples.rate) == (SampleFormat.S16, RATE)
    assert values(wave.samples) == numbers
    assert (wave.samples.missing == MISSING) == (None in numbers)


@given(st.lists(st.integers(-(10**11), 10**11), min_size=1, max_size=50))
def test_what_does_not_fit_is_rounded_and_says_so(numbers):
    wave = samples_from([str(number) for number in numbers], RATE)
    worst = max(abs(value - number) for value, number in zip(values(wave.samples), numbers, strict=True))
    assert wave.exact == (worst == 0) or worst == 0  # rounding may happen to hit
    assert worst <= wave.samples.factor / 2
    assert wave.samples.missing is None


@pytest.mark.parametrize(
    ("texts", "expected", "factor", "origin"),
    [
        (["0.0", "0.029"], ["0.000", "0.029"], "0.001", "0"),
        (["-.5", "+.5", "5."], ["-0.5", "0.5", "5.0"], "0.1", "0"),
        (["70000", "70001"], ["70000", "70001"], "1", "70000"),
        (["40000.5", "40000.6"], ["40000.5", "40000.6"], "0.1", "40000.5"),
        (["-32767", "32767"], ["-32767", "32767"], "1", "0"),
    ],
)
def test_forms(texts, expected, factor, origin):
    wave = samples_from(texts, RATE)
    assert wave.exact
    assert [str(value) for value in values(wave.samples)] == expected
    assert (str(wave.samples.factor), str(wave.samples.origin)) == (factor, origin)


@pytest.mark.parametrize(
    "texts", [[], [""], ["x"], ["1", "1e3"], ["1 2"], ["1\n"], ["--1"], ["."], ["1" * 13], ["1." + "1" * 10], ["١"]]
)
def test_what_is_no_waveform(texts):
    with pytest.raises(WaveError):
        samples_from(texts, RATE)


@given(st.lists(st.text(alphabet="0123456789+-.e \n\x00x", max_size=14), max_size=8))
def test_any_text_is_a_waveform_or_the_one_error(texts):
    try:
        wave = samples_from(texts, RATE)
    except WaveError:
        return
    assert len(wave.samples) == len(texts)

"""What both sides of the delivery format share: its error, its bounds and its labels."""

import functools
import math
import re
from decimal import Decimal
from typing import Any, Final

from vitalgate.vitals.observation import SampleFormat, Samples, Status

MAX_METRIC: Final = 4294967295
MAX_TIME: Final = 1e15
"""Times and clock offsets lie within this, in seconds."""
MAX_EXPONENT: Final = 64
MAX_RAW: Final = 1 << 31
ALL_STATUS: Final = functools.reduce(lambda a, b: a | b, (int(flag) for flag in Status), 0)
NEGATIVE_ZERO: Final = re.compile(r"-0(\.0{1,6}|E[+-][0-9]{1,3})?", re.ASCII)
"""A negative zero as text: decimal fractions have none."""

DERIVED: Final = object()
"""Stands for a clock offset that is device time minus the record's time."""

Record = dict[int | str, Any]


class DeliveryError(ValueError):
    """An entry that cannot be packed, or bytes that are no delivery. The text never repeats what was carried."""


def is_time(number: object) -> bool:
    """True for a finite number of seconds within the bounds."""
    return isinstance(number, float | int) and math.isfinite(number) and -MAX_TIME <= number <= MAX_TIME


def check_decimal(number: Decimal) -> None:
    """Raises `DeliveryError` for what is no finite number within the bounds."""
    if not number.is_finite() or not -MAX_EXPONENT <= number.adjusted() <= MAX_EXPONENT:
        raise DeliveryError("a value is no number, or out of bounds")


def check_samples(samples: Samples) -> None:
    """Raises `DeliveryError` for a waveform that cannot be."""
    for number in (samples.rate, samples.factor, samples.origin):
        check_decimal(number)
    if samples.rate <= 0 or (samples.format is SampleFormat.S16 and len(samples.data) % 2):
        raise DeliveryError("a waveform's rate or data cannot be")
    if samples.missing is not None and not -MAX_RAW <= samples.missing < MAX_RAW:
        raise DeliveryError("a waveform's mark for no signal is out of bounds")


def read_time(value: object) -> float:
    """A time or an offset in seconds; raises `DeliveryError`."""
    if type(value) in (float, int) and -MAX_TIME <= value <= MAX_TIME:  # type: ignore[operator]  # just tested
        return float(value)  # type: ignore[arg-type]  # just tested
    raise DeliveryError("a time is a finite number within bounds")


def read_text(value: object) -> str:
    """A text; raises `DeliveryError`."""
    if type(value) is str:
        return value
    raise DeliveryError("a field is of another kind than text")


def read_natural(value: object, below: int) -> int:
    """An integer from 0 to ``below`` - 1; raises `DeliveryError`."""
    if type(value) is int and 0 <= value < below:
        return value
    raise DeliveryError("a number is out of bounds")

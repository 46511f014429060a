"""Waveforms in OBX-5 (data type NA): numbers as text to `Samples`, digit for digit.

The factor is the power of ten of the longest fraction sent, so 0.029 is raw 29 times 0.001. Values beyond 16 bits get
an origin in their middle; where even that cannot hold them, trailing digits are rounded off.
"""

import array
import functools
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from vitalgate.vitals.observation import SampleFormat, Samples

MISSING: Final = -32768
"""The raw value of a sample that the device left empty."""
MOST: Final = 32767
MAX_WHOLE: Final = 12
MAX_FRACTION: Final = 9
"""Digits of a sample before and behind its point."""

_SAMPLE: Final = re.compile(
    rf"(?:[+-]?\d{{1,{MAX_WHOLE}}}(?:\.\d{{0,{MAX_FRACTION}}})?|[+-]?\.\d{{1,{MAX_FRACTION}}})?\Z", re.ASCII
)


class WaveError(ValueError):
    """Texts that are no waveform."""


@dataclass(frozen=True, slots=True)
class Wave:
    """The samples, and whether every digit that was sent survived in them."""

    samples: Samples
    exact: bool


def samples_from(texts: Sequence[str], rate: Decimal) -> Wave:
    """The samples that ``texts`` write, at ``rate`` a second; an empty text is a missing sample.

    Raises `WaveError` where one is no number of at most 12 and 9 digits, or where there is none at all.
    """
    fixed: Sequence[int | None]
    digits = len(texts[0].partition(".")[2]) if texts else 0
    if 0 < digits <= MAX_FRACTION and _alike(digits).match(joined := " ".join(texts)):
        fixed = present = list(map(int, joined.replace(".", "").split(" ")))
    else:
        if not all(map(_SAMPLE.match, texts)):
            raise WaveError("a sample is no number")
        digits = max([len(text) - 1 - text.index(".") for text in texts if "." in text], default=0)
        fixed = _fixed(texts, digits)
        present = [value for value in fixed if value is not None]
    if not present:
        raise WaveError("no samples")
    low, high = min(present), max(present)
    middle = dropped = 0
    if low < -MOST or high > MOST:
        middle = (low + high) // 2
        while max(high - middle, middle - low) > MOST * 10**dropped:
            dropped += 1
    step = 10**dropped
    if len(present) == len(fixed) and not middle and not dropped:
        words = array.array("h", present)
    else:
        words = array.array(
            "h",
            [
                MISSING if value is None else round((value - middle) / step) if dropped else value - middle
                for value in fixed
            ],
        )
    if sys.byteorder == "little":
        words.byteswap()
    samples = Samples(
        rate,
        SampleFormat.S16,
        words.tobytes(),
        Decimal(1).scaleb(dropped - digits),
        Decimal(middle).scaleb(-digits) if middle else Decimal(0),
        MISSING if len(present) < len(fixed) else None,
    )
    return Wave(samples, not dropped)


@functools.lru_cache(maxsize=MAX_FRACTION)
def _alike(digits: int) -> re.Pattern[str]:
    """Matches samples that all have ``digits`` behind the point, as devices write them, with spaces between."""
    one = rf"[+-]?\d{{1,{MAX_WHOLE}}}\.\d{{{digits}}}"
    return re.compile(rf"{one}(?: {one})*\Z", re.ASCII)


def _fixed(texts: Sequence[str], digits: int) -> list[int | None]:
    """Each sample times ten to the power of ``digits``, None for a missing one."""
    fixed: list[int | None] = []
    for text in texts:
        whole, _, fraction = text.partition(".")
        fixed.append(int(whole + fraction.ljust(digits, "0")) if text else None)
    return fixed

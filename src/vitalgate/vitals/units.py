"""From UCUM units to those that SenML may carry (IANA's SenML Units registry, RFC 8428 section 12.1).

SenML knows neither mmHg nor a rate a minute that a new producer should use, so such values are converted; the original
value and unit always travel beside the converted ones, and nobody ever converts back.
"""

from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Final

PASCALS_PER_MMHG: Final = Decimal("133.322387415")
"""The conventional millimetre of mercury: 13.5951 g/cm3 times 9.80665 m/s2 times 1 mm, exactly."""


@dataclass(frozen=True, slots=True)
class Conversion:
    """One row: value in ``unit`` (SenML) = value in the UCUM unit * ``factor``, exactly.

    ``shift`` is the power of ten where the factor is one (the converted value then keeps its digits), else None;
    ``times`` and ``per`` are the factor's numerator and denominator.
    """

    ucum: str
    unit: str
    factor: Fraction
    shift: int | None
    times: int
    per: int

    def convert(self, value: Decimal) -> Decimal | float:
        """The value in the SenML unit: with its digits where the factor is a power of ten, else the nearest double."""
        if self.shift is not None:
            return value.scaleb(self.shift)
        return float(value * self.times / self.per)


def _row(ucum: str, unit: str, factor: str = "1", per: int = 1) -> Conversion:
    decimal = Decimal(factor)
    power = per == 1 and decimal == Decimal(1).scaleb(decimal.adjusted())
    whole = Fraction(decimal) / per
    return Conversion(ucum, unit, whole, decimal.adjusted() if power else None, whole.numerator, whole.denominator)


CONVERSIONS: Final[dict[str, Conversion]] = {
    row.ucum: row
    for row in (
        _row("Cel", "Cel"),
        _row("K", "K"),
        _row("s", "s"),
        _row("ms", "s", "0.001"),
        _row("Hz", "Hz"),
        # "beat/min" and "1/min" are in the registry only for those who already use them.
        _row("/min", "1/s", per=60),
        _row("{beats}/min", "1/s", per=60),
        _row("{beat}/min", "1/s", per=60),
        _row("{breaths}/min", "1/s", per=60),
        _row("/s", "1/s"),
        # "%" is likewise discouraged: the ratio itself is sent.
        _row("%", "/", "0.01"),
        _row("1", "/"),
        _row("Pa", "Pa"),
        _row("hPa", "Pa", "100"),
        _row("kPa", "Pa", "1000"),
        _row("mbar", "Pa", "100"),
        _row("mm[Hg]", "Pa", str(PASCALS_PER_MMHG)),
        _row("cm[H2O]", "Pa", "98.0665"),
        _row("V", "V"),
        _row("mV", "V", "0.001"),
        _row("uV", "V", "0.000001"),
        _row("Ohm", "Ohm"),
        _row("m", "m"),
        _row("cm", "m", "0.01"),
        _row("mm", "m", "0.001"),
        _row("kg", "kg"),
        _row("g", "kg", "0.001"),
        _row("L", "m3", "0.001"),
        _row("mL", "m3", "0.000001"),
        _row("L/min", "m3/s", "0.001", per=60),
        _row("mL/h", "m3/s", "0.000001", per=3600),
        _row("W", "W"),
        _row("J", "J"),
    )
}
"""By UCUM unit. What has no row (mg/dL, mmol/L and others) is sent in its own unit, named in the extension label alone,
since the registry has nothing for it."""

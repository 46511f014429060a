"""The metric table: one row a quantity, with its codes, units and what is physically possible.

Codes are IEEE 11073-10101 terms as 32-bit numbers (partition * 65536 + term; SCADA partition 2, units partition 4),
LOINC where a vital-signs profile exists, UCUM units, and the MDC code of the unit. ``low``/``high`` are reject limits
for adults and children (physically possible), not alarm limits: a value outside is kept and marked `IMPLAUSIBLE`.
"""

from dataclasses import dataclass
from decimal import Decimal


@dataclass(frozen=True, slots=True)
class Metric:
    """One row. ``short`` is what a tile shows; ``group`` sorts tiles and colours; ``wave`` marks waveforms."""

    code: int
    name: str
    short: str
    unit: str
    unit_code: int
    low: Decimal
    high: Decimal
    group: str
    loinc: tuple[str, ...] = ()
    wave: bool = False

    def is_plausible(self, value: Decimal) -> bool:
        """True when the value is physically possible."""
        return self.low <= value <= self.high


BEATS, BREATHS, PERCENT, MMHG, MILLIVOLT, CELSIUS, DIMENSIONLESS, OHM = (
    264864,
    264928,
    262688,
    266016,
    266418,
    268192,
    262656,
    266432,
)


def _row(
    code: int,
    name: str,
    short: str,
    unit: str,
    unit_code: int,
    limits: tuple[int, int],
    group: str,
    *loinc: str,
    wave: bool = False,
) -> Metric:
    return Metric(code, name, short, unit, unit_code, Decimal(limits[0]), Decimal(limits[1]), group, loinc, wave)


METRICS: dict[int, Metric] = {
    row.code: row
    for row in (
        _row(147842, "MDC_ECG_HEART_RATE", "HR", "/min", BEATS, (0, 350), "ecg", "8867-4"),
        _row(149530, "MDC_PULS_OXIM_PULS_RATE", "PR", "/min", BEATS, (18, 321), "spo2", "8889-8", "8867-4"),
        _row(149546, "MDC_PULS_RATE_NON_INV", "PR", "/min", BEATS, (20, 300), "nibp", "8867-4"),
        _row(149522, "MDC_BLD_PULS_RATE_INV", "PR", "/min", BEATS, (0, 350), "ibp", "8867-4"),
        _row(150456, "MDC_PULS_OXIM_SAT_O2", "SpO2", "%", PERCENT, (0, 100), "spo2", "59408-5", "2708-6"),
        _row(150488, "MDC_BLD_PERF_INDEX", "PI", "%", PERCENT, (0, 20), "spo2", "61006-3"),
        _row(150021, "MDC_PRESS_BLD_NONINV_SYS", "NIBP sys", "mm[Hg]", MMHG, (20, 300), "nibp", "8480-6"),
        _row(150022, "MDC_PRESS_BLD_NONINV_DIA", "NIBP dia", "mm[Hg]", MMHG, (10, 250), "nibp", "8462-4"),
        _row(150023, "MDC_PRESS_BLD_NONINV_MEAN", "NIBP mean", "mm[Hg]", MMHG, (10, 300), "nibp", "8478-0"),
        _row(150033, "MDC_PRESS_BLD_ART_SYS", "ART sys", "mm[Hg]", MMHG, (-30, 400), "ibp", "8480-6"),
        _row(150034, "MDC_PRESS_BLD_ART_DIA", "ART dia", "mm[Hg]", MMHG, (-30, 400), "ibp", "8462-4"),
        _row(150035, "MDC_PRESS_BLD_ART_MEAN", "ART mean", "mm[Hg]", MMHG, (-30, 400), "ibp", "8478-0"),
        _row(150037, "MDC_PRESS_BLD_ART_ABP_SYS", "ABP sys", "mm[Hg]", MMHG, (-30, 400), "ibp", "8480-6"),
        _row(150038, "MDC_PRESS_BLD_ART_ABP_DIA", "ABP dia", "mm[Hg]", MMHG, (-30, 400), "ibp", "8462-4"),
        _row(150039, "MDC_PRESS_BLD_ART_ABP_MEAN", "ABP mean", "mm[Hg]", MMHG, (-30, 400), "ibp", "8478-0"),
        _row(150087, "MDC_PRESS_BLD_VEN_CENT_MEAN", "CVP", "mm[Hg]", MMHG, (-20, 60), "ibp", "60985-9"),
        _row(151562, "MDC_RESP_RATE", "RR", "/min", BREATHS, (0, 150), "resp", "9279-1"),
        _row(151708, "MDC_CONC_AWAY_CO2_ET", "EtCO2", "mm[Hg]", MMHG, (0, 150), "co2", "19891-1"),
        _row(150344, "MDC_TEMP", "Temp", "Cel", CELSIUS, (10, 50), "temp", "8310-5"),
        _row(150364, "MDC_TEMP_BODY", "Temp", "Cel", CELSIUS, (20, 46), "temp", "8310-5"),
        _row(131328, "MDC_ECG_ELEC_POTL", "ECG", "mV", MILLIVOLT, (-10, 10), "ecg", wave=True),
        _row(131329, "MDC_ECG_ELEC_POTL_I", "ECG I", "mV", MILLIVOLT, (-10, 10), "ecg", wave=True),
        _row(131330, "MDC_ECG_ELEC_POTL_II", "ECG II", "mV", MILLIVOLT, (-10, 10), "ecg", wave=True),
        _row(131389, "MDC_ECG_ELEC_POTL_III", "ECG III", "mV", MILLIVOLT, (-10, 10), "ecg", wave=True),
        _row(150452, "MDC_PULS_OXIM_PLETH", "Pleth", "1", DIMENSIONLESS, (-32768, 65535), "spo2", wave=True),
        _row(151780, "MDC_IMPED_TTHOR", "Resp", "1", DIMENSIONLESS, (-32768, 32767), "resp", wave=True),
        _row(150036, "MDC_PRESS_BLD_ART_ABP", "ABP", "mm[Hg]", MMHG, (-30, 400), "ibp", wave=True),
        _row(150032, "MDC_PRESS_BLD_ART", "ART", "mm[Hg]", MMHG, (-30, 400), "ibp", wave=True),
        _row(150016, "MDC_PRESS_BLD", "P", "mm[Hg]", MMHG, (-30, 400), "ibp", wave=True),
        _row(150017, "MDC_PRESS_BLD_SYS", "P sys", "mm[Hg]", MMHG, (-30, 400), "ibp", "8480-6"),
        _row(150018, "MDC_PRESS_BLD_DIA", "P dia", "mm[Hg]", MMHG, (-30, 400), "ibp", "8462-4"),
        _row(150019, "MDC_PRESS_BLD_MEAN", "P mean", "mm[Hg]", MMHG, (-30, 400), "ibp", "8478-0"),
    )
}

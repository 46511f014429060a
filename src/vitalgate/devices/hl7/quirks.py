"""What codes, units and words of HL7 devices mean: tables, so that another monitor's habit is another row.

Rows marked *seen* are habits of real monitors, known from code that copes with them; the others follow IEEE 11073-10101
and IHE PCD-01.
"""

from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from vitalgate.vitals.metrics import METRICS
from vitalgate.vitals.observation import Priority, Status

UNITS: Final[dict[str, str]] = {
    # MDC codes (partition 4), and their names
    "262656": "1", "MDC_DIM_DIMLESS": "1",
    "262688": "%", "MDC_DIM_PERCENT": "%",
    "264864": "/min", "MDC_DIM_BEAT_PER_MIN": "/min",
    "264928": "/min", "MDC_DIM_RESP_PER_MIN": "/min",
    "266016": "mm[Hg]", "MDC_DIM_MMHG": "mm[Hg]",
    "266048": "cm[H2O]", "MDC_DIM_CM_H2O": "cm[H2O]",
    "266418": "mV", "MDC_DIM_MILLI_VOLT": "mV",
    "268192": "Cel", "MDC_DIM_DEGC": "Cel",
    "264274": "mg/dL", "MDC_DIM_MILLI_G_PER_DL": "mg/dL",
    "266866": "mmol/L", "MDC_DIM_MILLI_MOLE_PER_L": "mmol/L",
    "263875": "kg", "MDC_DIM_KILO_G": "kg",
    "263441": "cm", "MDC_DIM_CENTI_M": "cm",
    "264096": "kg/m2", "MDC_DIM_KG_PER_M_SQ": "kg/m2",
    "263762": "mL", "MDC_DIM_MILLI_L": "mL",
    "265216": "L/min", "MDC_DIM_L_PER_MIN": "L/min",
    "265266": "mL/h", "MDC_DIM_MILLI_L_PER_HR": "mL/h",
    # what devices write instead
    "bpm": "/min", "BPM": "/min", "/min": "/min", "1/min": "/min", "rpm": "/min", "brpm": "/min",
    "{beat}/min": "/min", "{beats}/min": "/min", "{breaths}/min": "/min", "beats/min": "/min",
    "%": "%", "mmHg": "mm[Hg]", "mm(hg)": "mm[Hg]", "mm[Hg]": "mm[Hg]", "kPa": "kPa", "cmH2O": "cm[H2O]",
    "cm[H2O]": "cm[H2O]", "Cel": "Cel", "cel": "Cel", "C": "Cel", "°C": "Cel", "degC": "Cel", "mV": "mV", "uV": "uV",
    "mL": "mL", "ml": "mL", "L": "L", "L/min": "L/min", "mL/h": "mL/h", "kg": "kg", "cm": "cm", "m": "m", "s": "s",
    "ms": "ms", "mg/dL": "mg/dL", "mmol/L": "mmol/L", "1": "1", "Hz": "Hz", "V": "V", "Ohm": "Ohm",
}  # fmt: skip
"""UCUM by what stands in OBX-6: as MDC code, as MDC name, as text."""

MDC_BY_NAME: Final[dict[str, int]] = {
    **{row.name: row.code for row in METRICS.values()},
    "MDC_PULS_OXIM_PERF_REL": 150488,
    "MDC_ECG_LEAD_I": 131329,
    "MDC_ECG_LEAD_II": 131330,
    "MDC_ECG_LEAD_III": 131389,
    "MDC_AWAY_CO2_ET": 151708,
    # Seen with other manufacturers' own systems in OBX-3.3.
    "SPO2_SPO2": 150456,
    "NBPs": 150021,
    "NBPd": 150022,
    "NBPm": 150023,
}
"""MDC codes by the name in OBX-3.2, for devices that send no usable code."""

SAME: Final[dict[int, int]] = {
    150301: 150021, 150302: 150022, 150303: 150023,  # seen: MDC_PRESS_CUFF_SYS, _DIA, _MEAN
    150448: 150488,  # MDC_PULS_OXIM_PERF_REL
    151728: 151708,  # MDC_AWAY_CO2_ET
}  # fmt: skip
"""Codes that are another one's second name."""

MISNAMED: Final[dict[tuple[int, str], int]] = {
    (149522, "MDC_PULS_RATE"): 149530,  # seen: the code of the invasive pulse rate, sent for the oximeter's
}
"""Code and name that disagree: what is meant. Any other disagreement is a warning, and the code counts."""

NONINVASIVE: Final[dict[int, int]] = {150017: 150021, 150018: 150022, 150019: 150023}
"""Seen: the codes of any blood pressure, sent for a cuff's: taken for those where their VMD or channel is a cuff's."""
CUFF_MARKS: Final = ("NONINV", "NIBP", "CUFF")

HEX_SYSTEM: Final = "MDIL"
"""Seen: codes as partition and term in hexadecimal, '0002-4a05'."""

NO_READING: Final = frozenset(Decimal(text) for text in ("-100", "32767", "-32767", "-32768", "65535"))
"""Seen: numbers that mean "no reading". They count as such only where they could be no reading of the metric."""

TENFOLD: Final = frozenset({150364, 150344})
"""Seen: temperatures sent as 384.5 for 38.45. Ten times a plausible value is taken for this, and marked."""


@dataclass(frozen=True, slots=True)
class Flag:
    """A word of OBX-8: its status, the priority of the alarm it states, and what an alarm's text says for it."""

    status: Status = Status.NONE
    priority: Priority | None = None
    says: str = ""


FLAGS: Final[dict[str, Flag]] = {
    "INV": Flag(Status.INVALID),
    "QUES": Flag(Status.QUESTIONABLE),
    "NAV": Flag(Status.UNAVAILABLE),
    "CAL": Flag(Status.CALIBRATING),
    "TEST": Flag(Status.TEST),
    "DEMO": Flag(Status.DEMO),
    "VAL": Flag(Status.VALIDATED),
    "EARLY": Flag(Status.EARLY),
    "BUSY": Flag(Status.UNAVAILABLE),
    "OFF": Flag(Status.NOT_PERFORMED),
    "NI": Flag(Status.UNAVAILABLE),
    ">": Flag(Status.ABOVE_RANGE),
    "<": Flag(Status.BELOW_RANGE),
    "ALACT": Flag(Status.IN_ALARM, Priority.MEDIUM),
    "ALINH": Flag(Status.ALARM_INHIBITED),
    "PN": Flag(),
    "PL": Flag(Status.IN_ALARM, Priority.LOW),
    "PM": Flag(Status.IN_ALARM, Priority.MEDIUM),
    "PH": Flag(Status.IN_ALARM, Priority.HIGH),
    "N": Flag(),
    "L": Flag(Status.IN_ALARM, Priority.MEDIUM, "low"),
    "H": Flag(Status.IN_ALARM, Priority.MEDIUM, "high"),
    "A": Flag(Status.IN_ALARM, Priority.MEDIUM, "abnormal"),
    "LL": Flag(Status.IN_ALARM, Priority.HIGH, "very low"),
    "HH": Flag(Status.IN_ALARM, Priority.HIGH, "very high"),
    "AA": Flag(Status.IN_ALARM, Priority.HIGH, "very abnormal"),
}
"""OBX-8 (HL7 table 0078, IHE PCD-01). What is outside its limits counts as medium: what a device does not grade is not
played down. A stated priority (PL, PM, PH) wins over that."""
STATED: Final = frozenset({"PL", "PM", "PH"})

RESULTS: Final[dict[str, Status]] = {
    "": Status.NONE,
    "F": Status.VALIDATED,
    "C": Status.VALIDATED,
    "R": Status.NONE,
    "P": Status.NONE,
    "S": Status.NONE,
    "U": Status.NONE,
    "I": Status.NONE,
    "O": Status.NONE,
    "B": Status.NONE,
    "X": Status.UNAVAILABLE,
    "N": Status.NOT_PERFORMED,
    "D": Status.INVALID,
    "W": Status.INVALID,
}
"""OBX-11 (HL7 table 0085)."""

PROCESSING: Final[dict[str, Status]] = {"P": Status.NONE, "T": Status.DEMO, "D": Status.TEST}
"""MSH-11 (HL7 table 0103): production, training, debugging. What is none of these is never taken for production."""

RATE_NAMES: Final = frozenset({"MDC_ATTR_SAMP_RATE"})
PERIOD_NAMES: Final = frozenset({"MDC_ATTR_TIME_PD_SAMP"})
FACET_PREFIX: Final = "MDC_ATTR_"
"""Names of attributes: facets of the metric above them in OBX-4, never observations of their own there."""

PERIOD_UNITS: Final[dict[str, Decimal]] = {
    "MDC_DIM_SEC": Decimal(1), "s": Decimal(1), "264320": Decimal(1),
    "MDC_DIM_MILLI_SEC": Decimal("0.001"), "ms": Decimal("0.001"), "264338": Decimal("0.001"),
}  # fmt: skip

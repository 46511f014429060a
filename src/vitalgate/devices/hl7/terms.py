"""Codes of OBX-3 and units of OBX-6, as devices write them, to metrics and UCUM."""

import functools
import re
from dataclasses import dataclass
from typing import Final

from vitalgate.devices.hl7.quirks import HEX_SYSTEM, MDC_BY_NAME, MISNAMED, NONINVASIVE, SAME, UNITS
from vitalgate.vitals.metrics import METRICS, Metric

MAX_LABEL: Final = 64
_CODE: Final = re.compile(r"[1-9]\d{0,9}", re.ASCII)
_HEX_CODE: Final = re.compile(r"([0-9A-Fa-f]{4})-([0-9A-Fa-f]{4})", re.ASCII)
_SCADA: Final = 2 << 16


@dataclass(frozen=True, slots=True)
class Term:
    """What an OBX-3 names: an MDC code (0: none), its row where the table has one, and the text of a private one."""

    code: int
    metric: Metric | None
    name: str


def term(components: tuple[str, ...], cuff: bool, warnings: set[str]) -> Term:
    """The term of OBX-3 (CWE: code, name, system, and the same again for an alternate).

    ``cuff`` says that the containing VMD or channel measures with a cuff. Words of what was odd go to ``warnings``.
    """
    found, odd = _term(components[:6], cuff)
    if odd:
        warnings |= odd
    return found


@functools.lru_cache(maxsize=1024)  # a device names the same few things in every message
def _term(components: tuple[str, ...], cuff: bool) -> tuple[Term, frozenset[str]]:
    warnings: set[str] = set()
    parts = [part.strip() for part in components]
    parts += [""] * (6 - len(parts))
    for code_text, name, system in (parts[:3], parts[3:]):
        code = _code(code_text, name, system, warnings)
        if code:
            code = SAME.get(code, code)
            if cuff:
                code = NONINVASIVE.get(code, code)
            return Term(code, METRICS.get(code), name or code_text), frozenset(warnings)
    warnings.add("private-code")
    return Term(0, None, (parts[1] or parts[0])[:MAX_LABEL]), frozenset(warnings)


def _code(text: str, name: str, system: str, warnings: set[str]) -> int:
    """The MDC code of one triplet, or 0."""
    if system == HEX_SYSTEM and (found := _HEX_CODE.fullmatch(text)):
        return int(found[1], 16) << 16 | int(found[2], 16)
    if system in ("MDC", "") and _CODE.fullmatch(text) and int(text) < 1 << 32:
        code = int(text)
        meant = MISNAMED.get((code, name))
        if meant is not None:
            warnings.add("misnamed")
            return meant
        if code < _SCADA and code + _SCADA in METRICS:  # the term alone, without its partition
            warnings.add("partition")
            return code + _SCADA
        by_name = MDC_BY_NAME.get(name, code)
        if SAME.get(code, code) != SAME.get(by_name, by_name):
            warnings.add("misnamed")
        return code
    return MDC_BY_NAME.get(name, 0)


def unit(components: tuple[str, ...], metric: Metric | None, warnings: set[str]) -> str:
    """The UCUM unit of OBX-6; the metric's own where nothing is said; as it came where it is not known."""
    for part in components[:2]:
        found = UNITS.get(part.strip())
        if found is not None:
            return found
    said = next((part.strip() for part in components[:2] if part.strip()), "")
    if said:
        warnings.add("unit")
        return said[:MAX_LABEL]
    if metric is not None:
        warnings.add("no-unit")
        return metric.unit
    return ""

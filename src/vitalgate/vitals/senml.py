"""Sensor Measurement Lists (RFC 8428): packs in JSON and CBOR, validated, and resolved to records that stand alone.

Numbers keep their digits: what is written with a fraction in JSON, or as a decimal fraction in CBOR, is a `Decimal`.

What is read is a pack or raises `SenmlError`. Labels that are not known are kept where they have a simple value and
ignored otherwise, except those ending with '_', which must be understood and therefore are refused (section 4.4).
"""

import base64
import binascii
import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from decimal import Context, Decimal, InvalidOperation
from types import MappingProxyType
from typing import Any, Final, NoReturn, TypeAlias

import cbor2

from vitalgate.vitals import strictcbor
from vitalgate.vitals.labels import BY_NAME, BY_NUMBER

VERSION: Final = 10
ABSOLUTE_FROM: Final = 1 << 28
"""Times from here on are seconds since 1970; smaller ones are relative to now (section 4.5.3)."""
MAX_BYTES: Final = 1 << 20
MAX_RECORDS: Final = 65536
MAX_DIGITS: Final = 64

Number: TypeAlias = int | float | Decimal
Simple: TypeAlias = str | bytes | bool | int | float | Decimal

_NONE: Final[Mapping[str, Simple]] = MappingProxyType({})
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9:./_-]*")
_LABEL: Final = re.compile(r"[A-Za-z0-9][-_:.A-Za-z0-9]*")
_MAX_DEPTH: Final = 6
_LEAST: Final = -400
"""Power of ten below which nothing is a double: the least is about 5e-324."""
_EXACT: Final = Context(prec=MAX_DIGITS)


class SenmlError(ValueError):
    """Bytes or records that are no SenML pack."""


@dataclass(frozen=True, slots=True)
class Record:
    """One record; a field that is not there is None. Names are SenML's labels (section 4.3, table 1).

    ``vd`` is binary data. ``more`` holds the extension labels, with simple values.
    """

    bn: str | None = None
    bt: Number | None = None
    bu: str | None = None
    bv: Number | None = None
    bs: Number | None = None
    bver: int | None = None
    n: str | None = None
    u: str | None = None
    v: Number | None = None
    vs: str | None = None
    vb: bool | None = None
    vd: bytes | None = None
    s: Number | None = None
    t: Number | None = None
    ut: Number | None = None
    more: Mapping[str, Simple] = field(default_factory=lambda: _NONE, hash=False)

    def __post_init__(self) -> None:
        """Refuse what no record may be; raises `SenmlError`."""
        for label in _NUMBERS:
            value = getattr(self, label)
            if value is not None:
                _check_number(label, value)
        for label in _TEXTS:
            value = getattr(self, label)
            if value is not None and not isinstance(value, str):
                raise SenmlError(f"{label} is a text")
        if self.bver is not None and (type(self.bver) is not int or not 0 < self.bver <= VERSION):
            raise SenmlError("a version of SenML that is not known (section 4.4)")
        if self.vb is not None and type(self.vb) is not bool:
            raise SenmlError("vb is true or false")
        if self.vd is not None and not isinstance(self.vd, bytes):
            raise SenmlError("vd is binary")
        if sum(value is not None for value in (self.v, self.vs, self.vb, self.vd)) > 1:
            raise SenmlError("a record has one value field (section 4.2)")
        for label in self.more:
            if label in BY_NAME or not _LABEL.fullmatch(label):
                raise SenmlError("an extension label that is none")
            if label.endswith("_"):
                raise SenmlError("a label that must be understood is not (section 4.4)")

    @property
    def has_value(self) -> bool:
        """True when the record itself has a value or a sum."""
        return any(value is not None for value in (self.v, self.vs, self.vb, self.vd, self.s))

    @property
    def is_base_only(self) -> bool:
        """True when the record only sets base fields for those behind it."""
        return not self.has_value and self.n is None and self.u is None and self.t is None and self.ut is None


_NUMBERS: Final = ("bt", "bv", "bs", "v", "s", "t", "ut")
_TEXTS: Final = ("bn", "bu", "n", "u", "vs")
_FIELDS: Final = tuple(one.name for one in fields(Record) if one.name != "more")


def _check_number(label: str, value: object) -> None:
    if type(value) is float:
        good = math.isfinite(value)
    elif type(value) is int:
        good = abs(value) < 1 << 1023
    elif isinstance(value, Decimal):
        good = value.is_finite() and value.adjusted() >= _LEAST and math.isfinite(float(value))
        good = good and len(value.as_tuple().digits) <= MAX_DIGITS
    else:
        good = False
    if not good:
        raise SenmlError(f"{label} is no number that a double can stand for (section 5)")


# JSON


def loads_json(text: bytes | str) -> list[Record]:
    """A pack from JSON (section 5); raises `SenmlError`."""
    if len(text) > MAX_BYTES:
        raise SenmlError(f"a pack has at most {MAX_BYTES} bytes")
    try:
        if isinstance(text, bytes):
            text = text.decode("utf-8")
        pack = json.loads(
            text, parse_float=Decimal, parse_constant=_refuse_constant, object_pairs_hook=_without_doubles
        )
    except SenmlError:
        raise
    except (ValueError, RecursionError, InvalidOperation) as error:
        raise SenmlError("not JSON in UTF-8") from error
    return [_from_json(item) for item in _items(pack)]


def _refuse_constant(name: str) -> NoReturn:
    raise SenmlError(f"{name} is no number of JSON")


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise SenmlError("a label stands twice in a record")
    return found


def _items(pack: object) -> list[dict[Any, Any]]:
    if type(pack) is not list or not 0 < len(pack) <= MAX_RECORDS:
        raise SenmlError(f"a pack is an array of 1 to {MAX_RECORDS} records")
    for item in pack:
        if type(item) is not dict:
            raise SenmlError("a record is a map")
    return pack


def _from_json(item: dict[str, Any]) -> Record:
    known: dict[str, Any] = {label: item[label] for label in BY_NAME.keys() & item.keys()}
    if any(value is None for value in known.values()):
        raise SenmlError("a field without a value")
    if "vd" in known:
        known["vd"] = _from_base64(known["vd"])
    return Record(**known, more=_more({label: item[label] for label in item.keys() - BY_NAME.keys()}))


def _more(unknown: dict[str, Any]) -> Mapping[str, Simple]:
    for label in unknown:
        if label.endswith("_"):
            raise SenmlError("a label that must be understood is not (section 4.4)")
    if not unknown:
        return _NONE
    return {label: value for label, value in unknown.items() if _LABEL.fullmatch(label) and _is_simple(value)}


def _is_simple(value: object) -> bool:
    return isinstance(value, str | bytes | bool | int | float | Decimal)


def _from_base64(text: object) -> bytes:
    """Data in the URL-safe alphabet without padding (section 4.3; RFC 4648 section 5)."""
    if not isinstance(text, str) or not text.isascii():
        raise SenmlError("vd is a text in base64")
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as error:
        raise SenmlError("vd is no base64") from error
    if _to_base64(data) != text:
        raise SenmlError("vd is padded, or has bits that say nothing")
    return data


def _to_base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def dumps_json(pack: Iterable[Record]) -> str:
    """A pack as JSON (section 5); raises `SenmlError` for an empty one."""
    texts = []
    for record in pack:
        members = [f'"{label}":{_json_value(value)}' for label, value in _members(record)]
        texts.append("{" + ",".join(members) + "}")
    if not texts:
        raise SenmlError("a pack has at least one record")
    return "[" + ",".join(texts) + "]"


def _members(record: Record) -> list[tuple[str, Simple]]:
    known = [(label, value) for label in _FIELDS if (value := getattr(record, label)) is not None]
    return known + list(record.more.items())


def _json_value(value: Simple) -> str:
    if isinstance(value, bytes):
        return f'"{_to_base64(value)}"'
    if isinstance(value, Decimal):
        _check_number("an extension", value)
        return str(value).replace("E", "e")  # section 5: the "e" must be in lower case
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except ValueError as error:
        raise SenmlError("a value that JSON does not have") from error


# CBOR


def loads_cbor(data: bytes, *, stream: bool = False) -> list[Record]:
    """A pack from CBOR (section 6); ``stream`` allows an array of indefinite length. Raises `SenmlError`."""
    if len(data) > MAX_BYTES:
        raise SenmlError(f"a pack has at most {MAX_BYTES} bytes")
    try:
        pack = strictcbor.loads(data, max_depth=_MAX_DEPTH, indefinite=stream)
    except strictcbor.CborError as error:
        raise SenmlError("not CBOR of a pack's shape") from error
    return [_from_cbor(item) for item in _items(pack)]


def _from_cbor(item: dict[Any, Any]) -> Record:
    known: dict[str, Any] = {}
    unknown: dict[str, Any] = {}
    for label, value in item.items():
        if type(label) is int:
            if label in BY_NUMBER:
                known[BY_NUMBER[label]] = value
        elif type(label) is not str:
            raise SenmlError("a label is a number or a text")
        elif label not in BY_NAME:  # a known label is only ever a number here (section 6)
            unknown[label] = value
    if any(value is None for value in known.values()):
        raise SenmlError("a field without a value")
    return Record(**known, more=_more(unknown))


def dumps_cbor(pack: Iterable[Record]) -> bytes:
    """A pack as CBOR (section 6); raises `SenmlError`."""
    records = [{BY_NAME.get(label, label): value for label, value in _members(record)} for record in pack]
    if not records:
        raise SenmlError("a pack has at least one record")
    try:
        return cbor2.dumps(records)
    except (cbor2.CBOREncodeError, ValueError) as error:
        raise SenmlError("a value that CBOR does not have") from error


# resolving


@dataclass(slots=True)
class _Bases:
    """What the base fields stand at (section 4.1)."""

    bn: str = ""
    bt: Number = 0
    bu: str | None = None
    bv: Number | None = None
    bs: Number | None = None


def resolve(pack: Iterable[Record], now: Number) -> list[Record]:
    """The pack's records with base fields and relative times applied, in chronological order (section 4.6).

    ``now`` is the wall time in seconds that relative times start from. Raises `SenmlError`.
    """
    bases = _Bases()
    version = VERSION
    resolved: list[Record] = []
    for position, record in enumerate(pack):
        for label in ("bn", "bt", "bu", "bv", "bs"):
            value = getattr(record, label)
            if value is not None:
                setattr(bases, label, value)
        if record.bver is not None:
            if position and record.bver != version:
                raise SenmlError("all records of a pack have the same version (section 4.4)")
            version = record.bver
        if not record.is_base_only:
            resolved.append(_resolved(record, bases, now))
    if version != VERSION:
        resolved = [replace(record, bver=version) for record in resolved]
    return sorted(resolved, key=_moment)


def _moment(record: Record) -> Number:
    return 0 if record.t is None else record.t


def _resolved(record: Record, bases: _Bases, now: Number) -> Record:
    name = bases.bn + (record.n or "")
    if not _NAME.fullmatch(name):
        raise SenmlError("a name is empty or has characters that names have not (section 4.5.1)")
    v, s = record.v, record.s
    if record.vs is None and record.vb is None and record.vd is None:
        v = _sum(bases.bv, v)
    if s is not None or bases.bs is not None:
        s = _sum(bases.bs, s)
    if v is None and s is None and not record.has_value:
        raise SenmlError("a record without a value (section 4.2)")
    time = _sum(bases.bt, record.t)
    assert time is not None
    if time < ABSOLUTE_FROM:
        time = _sum(now, time)
    return Record(
        n=name, u=record.u or bases.bu, v=v, vs=record.vs, vb=record.vb, vd=record.vd, s=s, t=time, ut=record.ut,
        more=record.more,
    )  # fmt: skip


def _sum(base: Number | None, own: Number | None) -> Number | None:
    """Both together, where one is missing the other; exact to 64 digits unless one of them is a double."""
    if not base or own is None:
        return own if base is None or own is not None else base
    if isinstance(base, float) or isinstance(own, float):
        return float(base) + float(own)
    if isinstance(base, Decimal) or isinstance(own, Decimal):
        return _EXACT.add(Decimal(base), Decimal(own))
    return base + own

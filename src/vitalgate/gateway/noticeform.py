"""How notices are written in a delivery: which labels carry which of their fields. One row a kind."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from vitalgate.gateway.deliverycommon import DeliveryError, read_natural, read_text, read_time
from vitalgate.gateway.notice import DeviceGap, EpochOpened, Gap, Notice, Quarantined
from vitalgate.vitals.labels import VS, N
from vitalgate.vitals.urn import is_normal

NOTICE_NAME: Final = "notice"


def _natural(value: object) -> int:
    return read_natural(value, 1 << 64)


def _device(value: object) -> str:
    text = read_text(value)
    if text and not is_normal(text):
        raise DeliveryError("a device of a notice has no URN in normal spelling")
    return text


@dataclass(frozen=True, slots=True)
class NoticeForm:
    """One kind: its word, its class, and (field, label, reader) of each field."""

    word: str
    kind: type[Notice]
    fields: tuple[tuple[str, str, Callable[[object], Any]], ...]


FORMS: Final[tuple[NoticeForm, ...]] = (
    NoticeForm(
        "epoch",
        EpochOpened,
        (("previous_epoch", "ge", _natural), ("previous_sequence", "gq", _natural), ("cause", "gc", read_text)),
    ),
    NoticeForm(
        "gap",
        Gap,
        (
            ("device", "gd", _device),
            ("epoch", "ge", _natural),
            ("first_sequence", "gi", _natural),
            ("last_sequence", "gj", _natural),
            ("count", "gn", _natural),
            ("start", "gs", read_time),
            ("end", "gt", read_time),
            ("cause", "gc", read_text),
        ),
    ),
    NoticeForm(
        "device-gap",
        DeviceGap,
        (
            ("device", "gd", _device),
            ("start", "gs", read_time),
            ("end", "gt", read_time),
            ("cause", "gc", read_text),
            ("size", "gb", _natural),
        ),
    ),
    NoticeForm(
        "quarantined",
        Quarantined,
        (
            ("port", "gy", read_text),
            ("kind", "gk", read_text),
            ("serial", "gz", read_text),
            ("frames", "gn", _natural),
            ("since", "gs", read_time),
        ),
    ),
)
_BY_WORD: Final = {form.word: form for form in FORMS}
_BY_KIND: Final = {form.kind: form for form in FORMS}
NOTICE_LABELS: Final = frozenset(label for form in FORMS for _, label, _ in form.fields)


def notice_record(notice: Notice) -> dict[int | str, Any]:
    """The fields of a notice's record; raises `DeliveryError`."""
    form = _BY_KIND[type(notice)]
    record: dict[int | str, Any] = {N: NOTICE_NAME, VS: form.word}
    for field, label, read in form.fields:
        record[label] = read(getattr(notice, field))
    return record


def notice_from(record: dict[Any, Any]) -> Notice:
    """The notice of a record; raises `DeliveryError`, and `KeyError` where a field is missing."""
    form = _BY_WORD.get(read_text(record.get(VS)))
    if form is None:
        raise DeliveryError("a notice of a kind that is not known")
    return form.kind(**{field: read(record[label]) for field, label, read in form.fields})

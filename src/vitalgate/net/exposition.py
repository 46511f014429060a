"""Counters and gauges as the text that Prometheus reads (exposition format 0.0.4)."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from vitalgate.counters import COUNTERS

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
PREFIX: Final = "vitalgate_"


@dataclass(frozen=True, slots=True)
class Gauge:
    """A number that goes up and down, now: ``name`` in Prometheus form without the prefix."""

    name: str
    meaning: str
    value: float


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n")


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)


def exposition(counters: Iterable[Mapping[str, int]], gauges: Iterable[Gauge] = ()) -> str:
    """The text of `/metrics`: every row of the counter table, each the sum over ``counters``, then the gauges.

    A row without a label is shown even where nothing was counted, so that a rate over it has a start.
    """
    sums: dict[str, dict[str, int]] = {name: {} for name in COUNTERS}
    for counts in counters:
        for key, count in dict(counts).items():  # a copy: another thread may be counting
            name, _, rest = key.partition("{")
            labels = sums[name]
            labels[rest[:-1]] = labels.get(rest[:-1], 0) + count
    lines = []
    for name, row in COUNTERS.items():
        values = sums[name] if row.label else {"": sums[name].get("", 0)}
        full = f"{PREFIX}{name}_total"
        lines += [f"# HELP {full} {_escaped(row.meaning)}", f"# TYPE {full} counter"]
        for value, count in sorted(values.items()):
            label = _escaped(value).replace('"', '\\"')
            lines.append(f'{full}{{{row.label}="{label}"}} {count}' if row.label else f"{full} {count}")
    for gauge in gauges:
        full = PREFIX + gauge.name
        lines += [f"# HELP {full} {_escaped(gauge.meaning)}", f"# TYPE {full} gauge", f"{full} {_number(gauge.value)}"]
    return "\n".join(lines) + "\n"

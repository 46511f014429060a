"""Counters and gauges in the Prometheus text format: what every `/metrics` of the project answers."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from vitalgate.counters import COUNTERS, Counters

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Gauge:
    """A value that goes up and down: name without the ``vitalgate_`` prefix, meaning, value, and labels."""

    name: str
    meaning: str
    value: float
    labels: Mapping[str, str] | None = None


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def exposition(counters: Counters, gauges: Iterable[Gauge] = ()) -> str:
    """Every row of the counter table that has no label or was counted, then the gauges."""
    lines: list[str] = []
    by_name: dict[str, list[tuple[str, int]]] = {}
    for key, count in counters.items():
        name, _, label = key.partition("{")
        by_name.setdefault(name, []).append((label.removesuffix("}"), count))
    for row in COUNTERS.values():
        counted = by_name.get(row.name, [] if row.label else [("", 0)])
        if not counted:
            continue
        lines += [f"# HELP vitalgate_{row.name}_total {row.meaning}", f"# TYPE vitalgate_{row.name}_total counter"]
        for value, count in sorted(counted):
            labels = f'{{{row.label}="{_escape(value)}"}}' if row.label else ""
            lines.append(f"vitalgate_{row.name}_total{labels} {count}")
    seen: set[str] = set()
    for gauge in gauges:
        if gauge.name not in seen:
            seen.add(gauge.name)
            lines += [f"# HELP vitalgate_{gauge.name} {gauge.meaning}", f"# TYPE vitalgate_{gauge.name} gauge"]
        inner = ",".join(f'{key}="{_escape(value)}"' for key, value in (gauge.labels or {}).items())
        lines.append(f"vitalgate_{gauge.name}{f'{{{inner}}}' if inner else ''} {gauge.value:.10g}")
    return "\n".join(lines) + "\n"

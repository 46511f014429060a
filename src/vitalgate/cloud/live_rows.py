"""What the live board holds: its rows, and how a value and a stretch of a wave look in JSON."""

import math
from collections import deque
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from vitalgate.vitals.metrics import METRICS, Metric
from vitalgate.vitals.observation import Observation, Samples, Status

Json = dict[str, Any]

MAX_DIGITS = 24
SHOWN_STATUS = tuple(flag for flag in Status if flag is not Status.NONE)


@dataclass(slots=True)
class NumericRow:
    """The newest value of a metric."""

    version: int
    observation: Observation


@dataclass(slots=True)
class Chunk:
    """A stretch of a wave as it came."""

    version: int
    index: int
    count: int
    samples: Samples | None  # None: a stretch without signal
    values: list[float | None] | None = None

    def numbers(self) -> list[float | None]:
        """The samples in the metric's unit; made when somebody looks, then kept."""
        if self.values is None:
            if self.samples is None:
                self.values = [None] * self.count
            else:
                factor, origin = float(self.samples.factor), float(self.samples.origin)
                missing = self.samples.missing
                raw = self.samples.raw()[-self.count :]
                self.values = [None if r == missing else round(origin + factor * r, 6) for r in raw]
                if not all(value is None or math.isfinite(value) for value in self.values):
                    self.values = [None] * self.count  # a scale that is none
        return self.values


@dataclass(slots=True)
class WaveRow:
    """A wave's last seconds."""

    observation: Observation
    rate: float
    index: int = 0  # samples ever appended
    held: int = 0
    chunks: deque[Chunk] = field(default_factory=deque)

    def append(self, version: int, samples: Samples | None, count: int, limit: int) -> None:
        """Add the newest ``count`` samples (None: that many without signal); hold about ``limit`` at most."""
        count = min(count, limit)
        if count <= 0:
            return
        self.chunks.append(Chunk(version, self.index, count, samples))
        self.index += count
        self.held += count
        while self.held - self.chunks[0].count >= limit:
            self.held -= self.chunks.popleft().count


@dataclass(slots=True)
class DeviceRow:
    """A device as the board knows it."""

    device: str
    version: int = 0
    label: str = ""
    decoder: str = ""
    gateway: str = ""
    patient: str = ""
    location: str = ""
    stale_after: float = 10.0
    last_heard: float = 0.0  # wall, for people
    heard: float = float("-inf")  # monotonic, for judging
    last_time: float | None = None
    demo: bool = False
    test: bool = False
    gap_until: float = float("-inf")
    marks: tuple[str, ...] = ()
    numerics: dict[str, NumericRow] = field(default_factory=dict)
    waves: dict[str, WaveRow] = field(default_factory=dict)
    alarms: dict[str, Observation] = field(default_factory=dict)


@dataclass(slots=True)
class GatewayRow:
    """A gateway as the board knows it."""

    gateway: str
    version: int = 0
    security: str = ""
    last_heard: float = 0.0
    heard: float = float("-inf")
    revoked: bool = False
    marks: tuple[str, ...] = ()


def observation_key(observation: Observation) -> str:
    """What names a value within its device: the metric's code, with the label where several channels report it."""
    return f"{observation.metric}:{observation.label}" if observation.label else str(observation.metric)


def _metric_fields(observation: Observation) -> tuple[Json, Metric | None]:
    metric = METRICS.get(observation.metric)
    return {
        "key": observation_key(observation),
        "metric": observation.metric,
        "name": metric.name if metric else observation.label,
        "short": metric.short if metric else (observation.label or f"MDC {observation.metric}"),
        "channel": observation.label if metric else "",
        "group": metric.group if metric else "other",
        "unit": observation.unit,
        "time": observation.gateway_time,
    }, metric


def _digits(value: Decimal) -> str:
    """The number as it is written; with an exponent only where it would be long without one."""
    return format(value, "f") if value.is_finite() and abs(value.adjusted()) < MAX_DIGITS else str(value)


def numeric_json(observation: Observation) -> Json:
    """A value (NUMERIC of `vitalgate.cloud.live`)."""
    shape, _ = _metric_fields(observation)
    value = observation.value
    alarm = observation.alarm
    shape["value"] = _digits(value) if isinstance(value, Decimal) else None
    shape["text"] = value if isinstance(value, str) else None
    shape["status"] = [(flag.name or "").lower() for flag in SHOWN_STATUS if flag in observation.status]
    shape["alarm"] = {"text": alarm.text, "priority": int(alarm.priority)} if alarm else None
    return shape


def wave_json(wave: WaveRow, since: int) -> Json | None:
    """What of a wave is newer than version ``since`` (WAVE of `vitalgate.cloud.live`), or None."""
    chunks = [chunk for chunk in wave.chunks if chunk.version > since]
    if not chunks:
        return None
    shape, metric = _metric_fields(wave.observation)
    shape["rate"] = wave.rate
    shape["low"] = float(metric.low) if metric else None
    shape["high"] = float(metric.high) if metric else None
    shape["index"] = chunks[0].index
    shape["samples"] = [value for chunk in chunks for value in chunk.numbers()]
    return shape

"""How long observations took from the device's last byte to the cloud's commit: a histogram with bounded error.

Buckets are geometric, each 1 % wider than the one before, from 10 microseconds on: a percentile is at most 0.5 % off.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

_FLOOR: Final = 1e-5
_STEP: Final = math.log(1.01)
MAX_BUCKET: Final = 2600
"""The last bucket (beyond 19 days); longer latencies count there, their maximum is exact."""


@dataclass(frozen=True, slots=True)
class LatencySummary:
    """Percentiles in seconds; all 0.0 where ``count`` is 0."""

    count: int = 0
    p50: float = 0.0
    p95: float = 0.0
    p99: float = 0.0
    maximum: float = 0.0


def bucket_of(seconds: float) -> int:
    """The bucket a latency belongs to; what is below the floor (also below zero: clocks differ) is bucket 0."""
    if seconds <= _FLOOR:
        return 0
    return min(MAX_BUCKET, 1 + int(math.log(seconds / _FLOOR) / _STEP))


def _middle(bucket: int) -> float:
    return _FLOOR if bucket == 0 else _FLOOR * math.exp((bucket - 0.5) * _STEP)


class Latencies:
    """Counts per bucket with the exact maximum of each bucket."""

    __slots__ = ("buckets",)

    def __init__(self, rows: Iterable[tuple[int, int, float]] = ()) -> None:
        self.buckets: dict[int, tuple[int, float]] = {}
        self.merge(rows)

    def merge(self, rows: Iterable[tuple[int, int, float]]) -> None:
        """Add (bucket, count, maximum) rows."""
        for bucket, count, maximum in rows:
            old, top = self.buckets.get(bucket, (0, maximum))
            self.buckets[bucket] = (old + count, max(top, maximum))

    def add(self, seconds: float) -> None:
        """Count one latency."""
        self.add_to(bucket_of(seconds), seconds)

    def add_to(self, bucket: int, seconds: float) -> None:
        """Count one latency, whose bucket is known."""
        old = self.buckets.get(bucket)
        self.buckets[bucket] = (1, seconds) if old is None else (old[0] + 1, max(old[1], seconds))

    def rows(self) -> list[tuple[int, int, float]]:
        """(bucket, count, maximum) in order of bucket."""
        return [(bucket, *self.buckets[bucket]) for bucket in sorted(self.buckets)]

    def summary(self) -> LatencySummary:
        """The percentiles by the nearest-rank rule."""
        rows = self.rows()
        total = sum(count for _, count, _ in rows)
        if total == 0:
            return LatencySummary()

        def percentile(share: float) -> float:
            rank, seen = math.ceil(share * total), 0
            for bucket, count, maximum in rows:
                seen += count
                if seen >= rank:
                    return min(_middle(bucket), maximum)
            raise AssertionError("ranks end at the total")

        return LatencySummary(total, percentile(0.5), percentile(0.95), percentile(0.99), rows[-1][2])

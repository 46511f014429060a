"""Numbered runs of dropped entries, merged until a notice tells them.

Each sequence that was ever given out ends in one of two ways: delivered, or within a run. Runs of one device, epoch and
cause are exact while there are few; beyond the bound the last one is stretched over what lies between, and its count
still says how many entries were dropped.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

Key = tuple[int, int, str]
"""(device reference, epoch, cause)."""


@dataclass(frozen=True, slots=True)
class Run:
    """``count`` dropped entries of one device among the sequences ``first`` .. ``last`` of ``epoch``."""

    device: int
    epoch: int
    cause: str
    first: int
    last: int
    count: int
    start: float
    end: float


class GapRuns:
    """The runs not yet told. Changes can be taken back as a whole (`restore`) when their transaction fails."""

    __slots__ = ("_limit", "_runs", "changed")

    def __init__(self, limit: int, runs: Iterable[Run] = ()) -> None:
        self._limit = limit
        self.changed: set[Key] = set()
        """The keys whose runs differ from what is stored; whoever stores them clears it."""
        self._runs: dict[Key, tuple[Run, ...]] = {}
        for run in runs:
            key = (run.device, run.epoch, run.cause)
            self._runs[key] = (*self._runs.get(key, ()), run)

    def __len__(self) -> int:
        return len(self._runs)

    def drop(self, device: int, epoch: int, cause: str, sequence: int, at: float) -> None:
        """Record that ``sequence``, made at wall time ``at``, was dropped."""
        key = (device, epoch, cause)
        self.changed.add(key)
        runs = self._runs.get(key, ())
        last = runs[-1] if runs else None
        if last is not None and (sequence == last.last + 1 or len(runs) >= self._limit):
            grown = replace(
                last,
                first=min(last.first, sequence),
                last=max(last.last, sequence),
                count=last.count + 1,
                start=min(last.start, at),
                end=max(last.end, at),
            )
            self._runs[key] = (*runs[:-1], grown)
        else:
            self._runs[key] = (*runs, Run(device, epoch, cause, sequence, sequence, 1, at, at))

    def of(self, key: Key) -> tuple[Run, ...]:
        """The runs under ``key``."""
        return self._runs.get(key, ())

    def runs(self) -> list[Run]:
        """All of them."""
        return [run for runs in self._runs.values() for run in runs]

    def take(self) -> list[Run]:
        """All of them; none are left."""
        runs = self.runs()
        self.changed.update(self._runs)
        self._runs = {}
        return runs

    def snapshot(self) -> dict[Key, tuple[Run, ...]]:
        """What `restore` brings back."""
        return dict(self._runs)

    def restore(self, snapshot: dict[Key, tuple[Run, ...]]) -> None:
        """Go back to ``snapshot``; what has changed since counts as changed still, which at worst stores it again."""
        self._runs = dict(snapshot)

"""All deadlines of an endpoint in one heap, with lazy removal.

Deduplication has no entry here: its deadlines are in order of arrival, so a queue holds them (`deduplication`).
"""

import heapq
from typing import Protocol


class Timed(Protocol):
    """What can be set in `Timers`; ``due`` is the time set, or None, and is written by `Timers` alone."""

    due: float | None

    def on_due(self, now: float) -> None:
        """The deadline has passed (``due`` is None again)."""


class Timers:
    """A heap of (due, order, timed): at most one live entry for each timed thing; stale ones are dropped when met, and
    all at once when they outnumber the live ones."""

    __slots__ = ("_heap", "_live", "_order")

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Timed]] = []
        self._order = 0
        self._live = 0

    def __len__(self) -> int:
        return self._live

    def set(self, timed: Timed, due: float) -> None:
        """Have ``timed`` called at ``due``; what was set before for it no longer counts."""
        if timed.due is None:
            self._live += 1
        timed.due = due
        self._order += 1
        heap = self._heap
        if len(heap) > 64 + 2 * self._live:
            heap[:] = [entry for entry in heap if entry[2].due == entry[0]]
            heapq.heapify(heap)
        heapq.heappush(heap, (due, self._order, timed))

    def clear(self, timed: Timed) -> None:
        """Forget ``timed``; harmless where nothing is set."""
        if timed.due is not None:
            timed.due = None
            self._live -= 1

    def next(self) -> float | None:
        """The earliest deadline, or None."""
        heap = self._heap
        while heap and heap[0][2].due != heap[0][0]:
            heapq.heappop(heap)
        return heap[0][0] if heap else None

    def run(self, now: float) -> None:
        """Call everything whose deadline is not after ``now``, in order."""
        heap = self._heap
        while heap and heap[0][0] <= now:
            due, _, timed = heapq.heappop(heap)
            if timed.due == due:
                timed.due = None
                self._live -= 1
                timed.on_due(now)

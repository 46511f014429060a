"""Which entries go out next: by class, then by age, none twice, without reading the database for what is still at hand.

Ids grow with age. Of each class this keeps: how many wait; a short stretch that is ready in memory; the id up to which
the database was read; and the ids that came back undelivered.
"""

import heapq
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from vitalgate.gateway.storage import Stored
from vitalgate.vitals.observation import TrafficClass

READY: Final = 256
"""Entries of one class kept ready in memory at most."""

Item = tuple[Stored, int]
"""An entry and its size as the bounds count it."""
FetchAfter = Callable[[TrafficClass, int, int], Sequence[Item]]
"""(class, id, limit) -> the oldest entries of the class with a larger id."""
FetchOne = Callable[[int], Item | None]
"""id -> that entry, or None when it is gone or cannot be read."""


class _Lane:
    """One class."""

    __slots__ = ("read_to", "ready", "returned", "waiting")

    def __init__(self) -> None:
        self.waiting = 0
        self.read_to = 0
        self.ready: deque[Item] = deque()
        self.returned: list[int] = []


class Outgoing:
    """The order in which entries leave."""

    __slots__ = ("_fetch_after", "_fetch_one", "_lanes", "in_flight")

    def __init__(self, fetch_after: FetchAfter, fetch_one: FetchOne) -> None:
        self._fetch_after = fetch_after
        self._fetch_one = fetch_one
        self._lanes = {lane: _Lane() for lane in TrafficClass}
        self.in_flight: dict[int, tuple[TrafficClass, int]] = {}
        """id -> (class, size) of what was given out."""

    def found(self, lane: TrafficClass, count: int) -> None:
        """``count`` entries of ``lane`` lie in the database, none of them read."""
        self._lanes[lane].waiting += count

    def committed(self, items: Iterable[Item]) -> None:
        """These were just committed; they stay ready where the class has nothing older to send first."""
        for item in items:
            lane = self._lanes[item[0].traffic_class]
            if lane.waiting == len(lane.ready) and not lane.returned and len(lane.ready) < READY:
                lane.ready.append(item)
                lane.read_to = item[0].id
            lane.waiting += 1

    def dropped(self, lane: TrafficClass, count: int) -> None:
        """``count`` waiting entries of ``lane`` were deleted: what is ready may be among them."""
        found = self._lanes[lane]
        found.waiting -= count
        if found.ready:
            found.read_to = found.ready[0][0].id - 1
            found.ready.clear()

    def waiting(self, highest: TrafficClass) -> bool:
        """Whether anything of a class up to ``highest`` waits."""
        return any(lane.waiting > 0 for name, lane in self._lanes.items() if name <= highest)

    def take(self, limit: int, highest: TrafficClass, room: int) -> list[Stored]:
        """Give out the next entries: at most ``limit`` packed bytes (one entry may be larger), at most ``room``."""
        batch: list[Stored] = []
        left = limit
        for name, lane in self._lanes.items():
            if name > highest:
                break
            while lane.waiting > 0 and len(batch) < room:
                item = self._returned(lane)
                again = item is not None
                if item is None:
                    item = self._ready(name, lane)
                if item is None:
                    break
                stored, size = item
                if batch and len(stored.packed) > left:
                    if again:
                        heapq.heappush(lane.returned, stored.id)
                    else:
                        lane.ready.appendleft(item)
                    return batch
                lane.waiting -= 1
                self.in_flight[stored.id] = (name, size)
                batch.append(stored)
                left -= len(stored.packed)
        return batch

    def _returned(self, lane: _Lane) -> Item | None:
        """The oldest that came back; all of these are older than what is ready or unread."""
        while lane.returned:
            item = self._fetch_one(heapq.heappop(lane.returned))
            if item is not None:
                return item
        return None

    def _ready(self, name: TrafficClass, lane: _Lane) -> Item | None:
        """The oldest never given out. What is ready is one stretch without holes: `dropped` has it read again."""
        if not lane.ready:
            rows = self._fetch_after(name, lane.read_to, READY // 4)
            if not rows:
                return None
            lane.ready.extend(rows)
            lane.read_to = rows[-1][0].id
        return lane.ready.popleft()

    def lost(self, lane: TrafficClass) -> None:
        """One waiting entry of ``lane`` turned out to be unreadable."""
        self._lanes[lane].waiting -= 1

    def give_back(self, ids: Iterable[int]) -> list[tuple[TrafficClass, int]]:
        """These were not delivered: they wait again. Returns (class, id) of those that were in flight."""
        back = []
        for number in ids:
            found = self.in_flight.pop(number, None)
            if found is not None:
                lane = self._lanes[found[0]]
                heapq.heappush(lane.returned, number)
                lane.waiting += 1
                back.append((found[0], number))
        return back

    def finish(self, number: int) -> int | None:
        """``number`` was delivered or refused: its size, or None when it was not in flight."""
        found = self.in_flight.pop(number, None)
        return None if found is None else found[1]

"""A set of sequence numbers as disjoint ranges: what of an epoch is stored, and what was declared lost."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator


class Ranges:
    """Whole numbers held as ascending, disjoint, non-touching ranges. In-order growth costs one comparison."""

    __slots__ = ("_first", "_last")

    def __init__(self, ranges: Iterable[tuple[int, int]] = ()) -> None:
        self._first: list[int] = []
        self._last: list[int] = []
        for first, last in ranges:
            self.add(first, last)

    def __repr__(self) -> str:
        return f"Ranges({list(self)!r})"

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(zip(self._first, self._last, strict=True))

    def __len__(self) -> int:
        """How many ranges (not numbers)."""
        return len(self._first)

    def __contains__(self, number: int) -> bool:
        at = bisect_right(self._first, number) - 1
        return at >= 0 and number <= self._last[at]

    @property
    def highest(self) -> int:
        """The highest number held, or 0."""
        return self._last[-1] if self._last else 0

    def end_of(self, number: int) -> int:
        """The last number of the range that holds ``number``, or 0 where none does."""
        at = bisect_right(self._first, number) - 1
        return self._last[at] if at >= 0 and number <= self._last[at] else 0

    def count(self, first: int, last: int) -> int:
        """How many numbers of ``first``..``last`` are held."""
        return sum(
            max(0, min(last, self._last[at]) - max(first, self._first[at]) + 1)
            for at in range(bisect_left(self._last, first), bisect_right(self._first, last))
        )

    def add(self, first: int, last: int) -> None:
        """Add every number of ``first``..``last`` (inclusive; nothing when it is empty)."""
        if last < first:
            return
        lasts = self._last
        if lasts and first == lasts[-1] + 1:
            lasts[-1] = last
            return
        low = bisect_left(lasts, first - 1)  # the first range that touches or follows
        high = bisect_right(self._first, last + 1)  # one past the last that touches
        if low < high:
            first, last = min(first, self._first[low]), max(last, lasts[high - 1])
        self._first[low:high] = [first]
        lasts[low:high] = [last]

    def missing(self, upto: int) -> Iterator[tuple[int, int]]:
        """The ranges of 1..``upto`` that are not held."""
        expected = 1
        for first, last in self:
            if first > upto:
                break
            if first > expected:
                yield expected, first - 1
            expected = last + 1
        if expected <= upto:
            yield expected, upto

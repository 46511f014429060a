"""What was lost, doubled, or never heard: counted by device and raw-frame hash, with nothing assumed.

The demonstration counts real processes with it, `vitalgate.lab.world` a world in virtual time.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

Name = TypeVar("Name", str, bytes)
"""A frame's hash, raw or in hexadecimal digits."""

Multisets = Mapping[str, Mapping[Name, int]]
"""By device URN: how many of each frame hash."""


@dataclass(frozen=True, slots=True)
class Tally:
    """``lost``: entries that the spool committed and the store does not hold; ``duplicated``: those that it holds more
    often; ``unheard``: frames that devices said and that no spool committed (gaps of devices)."""

    lost: int
    duplicated: int
    unheard: int


@dataclass(frozen=True, slots=True)
class Account:
    """What became of everything.

    ``lost``, ``duplicated``, ``unheard`` as in `Tally`; of what one-way devices said unheard, ``untold`` is what no gap
    tells of; of the lost, ``dropped`` is what gap notices told by number,
    ``missing`` what exists by the numbers of its epoch and neither came nor was told. ``unanswered``: messages that
    two-way devices still want answered. ``datagrams`` and ``bytes`` count everything that was sent, both ways.
    ``history`` names the whole history of the network: equal only for equal histories.
    """

    lost: int
    duplicated: int
    unheard: int
    untold: int
    dropped: int
    missing: int
    unanswered: int
    committed: int
    stored: int
    observations: int
    samples: int
    datagrams: int
    bytes: int
    history: str


def tally(committed: Multisets[Name], stored: Multisets[Name], said: Multisets[Name], heard: Multisets[Name]) -> Tally:
    """Compare entries (``committed`` to the spool, ``stored`` in the cloud) and frames (``said`` by devices, ``heard``:
    committed). What the store holds under no device ('') is a gateway's own, and not counted."""
    lost = doubled = unheard = 0
    for urn in committed.keys() | stored.keys():
        if urn:
            here, there = Counter(committed.get(urn, {})), Counter(stored.get(urn, {}))
            lost += (here - there).total()
            doubled += (there - here).total()
    for urn, frames in said.items():
        unheard += (Counter(frames) - Counter(heard.get(urn, {}))).total()
    return Tally(lost, doubled, unheard)


def untold(
    said: Iterable[tuple[float, bytes]], heard: Iterable[tuple[float, bytes]], gaps: Iterable[tuple[float, float]]
) -> list[float]:
    """When one device said what nobody heard and no gap tells of: [] when every silence was told.

    ``said`` and ``heard`` are frames by (the gateway's wall time, hash), ``gaps`` (start, end) on the same clock.
    """
    unheard = Counter(said)
    unheard.subtract(heard)
    spans = list(gaps)
    return sorted(
        at
        for (at, _), count in unheard.items()
        for _ in range(count)
        if not any(start <= at <= end for start, end in spans)
    )

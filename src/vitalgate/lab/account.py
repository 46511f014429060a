"""What was lost, doubled, or never heard: counted by device and raw-frame hash, with nothing assumed.

The demonstration counts real processes with it, `vitalgate.lab.world` a world in virtual time.
"""

from collections import Counter
from collections.abc import Mapping
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

"""One group commit: what is written in the one transaction, and what is dropped in it when the spool is full."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Final

from vitalgate.gateway.gaps import GapRuns
from vitalgate.gateway.spooltables import GOES_LAST, MAY_GO, DeviceRow, EntryRow, EpochRow, Tables
from vitalgate.vitals.observation import TrafficClass

FULL: Final = "spool full"
"""The cause of gaps that make room."""
NOTICE_CLASS: Final = TrafficClass.WAVEFORM_REALTIME
"""Notices go behind alarms, and before what comes seldom anyway."""
_AT_ONCE: Final = 128
_ORDER: Final = (*((lane, MAY_GO) for lane in reversed(TrafficClass)), (NOTICE_CLASS, GOES_LAST))


@dataclass(slots=True)
class Group:
    """Everything one commit makes durable. ``over_bytes`` and ``over_entries`` is how much too much there would be,
    of which ``reserve_bytes`` and ``reserve_entries`` are granted to notices."""

    meta: Sequence[tuple[str, bytes]]
    epochs: Sequence[EpochRow]
    forget_epochs: Sequence[int]
    devices: Sequence[DeviceRow]
    entries: Sequence[EntryRow]
    released: Sequence[int]
    refusing: dict[int, str]
    repeats: Sequence[tuple[int, bytes, bytes]]
    trim_repeats: Collection[int]
    ledger: Sequence[tuple[int, bytes, int]]
    over_bytes: int
    over_entries: int
    reserve_bytes: int
    reserve_entries: int


@dataclass(slots=True)
class Outcome:
    """What a commit dropped for space, by class, and what it moved among the refused."""

    dropped: dict[TrafficClass, int] = field(default_factory=dict)
    dropped_bytes: int = 0
    passed: dict[tuple[TrafficClass, int], int] = field(default_factory=dict)
    """By class and ``keep``: the id up to which was searched for what may go."""
    refused: int = 0


def write_group(
    tables: Tables,
    group: Group,
    runs: GapRuns,
    in_flight: Collection[int],
    passed: dict[tuple[TrafficClass, int], int],
    repeats: int,
    refused: int,
) -> Outcome:
    """Write ``group`` in one transaction; at most ``repeats`` message numbers a device and ``refused`` entries stay.

    Raises `sqlite3.Error`; then nothing is written, and the caller puts ``runs`` back as they were.
    """
    outcome = Outcome(passed=dict(passed))
    with tables.transaction():
        if group.meta:
            tables.put_meta(group.meta)
        for row in group.epochs:
            tables.put_epoch(row)
        if group.forget_epochs:
            tables.drop_epochs(group.forget_epochs)
        if group.devices:
            tables.put_devices(group.devices)
        if group.released:
            tables.delete(group.released)
        for number, cause in group.refusing.items():
            found = tables.one(number)
            if found is not None:
                tables.refuse(found, cause, refused)
                runs.drop(found.device, found.epoch, cause, found.sequence, found.at)
                outcome.refused += 1
        if group.entries:
            tables.insert(group.entries)
        if group.repeats:
            tables.put_repeats(group.repeats)
        for device in group.trim_repeats:
            tables.trim_repeats(device, repeats)
        if group.ledger:
            tables.put_ledger(group.ledger)
        _make_room(tables, group, runs, in_flight, outcome)
        if runs.changed:
            tables.put_gaps(runs, runs.changed)
    return outcome


def _make_room(tables: Tables, group: Group, runs: GapRuns, in_flight: Collection[int], outcome: Outcome) -> None:
    """Drop the oldest of the least urgent class until it fits: what is in flight and what was acknowledged stays, and
    notices go last, since with them goes the cause of a gap."""
    over_bytes, over_entries = group.over_bytes, group.over_entries
    for lane, keep in _ORDER:
        if keep == GOES_LAST:
            over_bytes -= group.reserve_bytes
            over_entries -= group.reserve_entries
        while over_bytes > 0 or over_entries > 0:
            rows = tables.evictable(lane, keep, outcome.passed.get((lane, keep), 0), _AT_ONCE)
            if not rows:
                break
            victims = []
            for number, epoch, sequence, device, at, size in rows:
                if over_bytes <= 0 and over_entries <= 0:
                    break
                outcome.passed[lane, keep] = number
                if number in in_flight:
                    continue
                victims.append(number)
                runs.drop(device, epoch, FULL, sequence, at)
                over_bytes -= size
                over_entries -= 1
                outcome.dropped_bytes += size
            tables.delete(victims)
            if victims:
                outcome.dropped[lane] = outcome.dropped.get(lane, 0) + len(victims)

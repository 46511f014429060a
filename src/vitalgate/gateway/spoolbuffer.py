"""What waits in memory for the next commit."""

from dataclasses import dataclass
from typing import Final

from vitalgate.gateway.gaps import GapRuns
from vitalgate.gateway.spooltables import STAYS, EntryRow
from vitalgate.quick import quick

DISK: Final = "disk failing"
"""The cause of gaps that a disk refusing for long makes."""


@quick
@dataclass(frozen=True, slots=True)
class Pending:
    """One row to write, with what is needed once it is committed."""

    row: EntryRow
    packed: bytes
    frame_hash: bytes
    """Empty for a notice."""
    opens_frame: bool = False
    """Whether it is the first entry of its frame."""


class Buffer:
    """Entries, tickets of the frames they came in, and tags of the messages of two-way devices among them."""

    __slots__ = ("_next_ticket", "bytes", "entries", "repeats", "tickets")

    def __init__(self) -> None:
        self._next_ticket = 1
        self.clear()

    def clear(self) -> None:
        """Nothing waits any more."""
        self.entries: list[Pending] = []
        self.tickets: list[int] = []
        self.repeats: dict[tuple[str, bytes], bytes] = {}
        self.bytes = 0

    def __bool__(self) -> bool:
        return bool(self.entries or self.tickets)

    def add(self, pending: Pending) -> None:
        """Let one more entry wait."""
        self.entries.append(pending)
        self.bytes += pending.row.size

    def ticket(self) -> int:
        """A new ticket for a frame of the next commit."""
        ticket = self._next_ticket
        self._next_ticket += 1
        self.tickets.append(ticket)
        return ticket

    def notices_only(self) -> bool:
        """Whether no frame of a device waits."""
        return all(not pending.frame_hash for pending in self.entries)

    def shed(self, most_bytes: int, most_entries: int, runs: GapRuns) -> int:
        """Beyond the bounds: drop an eighth, least urgent and oldest first, never what a two-way device said.

        The drops are recorded in ``runs``; returns how many.
        """
        if self.bytes <= most_bytes and len(self.entries) <= most_entries:
            return 0
        goal_bytes, goal_entries = most_bytes * 7 // 8, most_entries * 7 // 8
        gone: set[int] = set()
        for pending in sorted(self.entries, key=lambda p: (-p.row.lane, p.row.id)):
            row = pending.row
            if self.bytes <= goal_bytes and len(self.entries) - len(gone) <= goal_entries:
                break
            if row.keep != STAYS:
                gone.add(row.id)
                self.bytes -= row.size
                runs.drop(row.device, row.epoch, DISK, row.sequence, row.at)
        self.entries = [pending for pending in self.entries if pending.row.id not in gone]
        return len(gone)

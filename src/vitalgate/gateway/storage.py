"""What the gateway's engine and the uplink ask of a spool, and what a spool answers."""

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from vitalgate.gateway.notice import Notice
from vitalgate.quick import quick
from vitalgate.vitals.observation import Observation, TrafficClass

ROW_BYTES: Final = 64
"""What a stored entry is taken to cost beyond its sealed bytes (its columns, its index entry, its share of a page)."""


@dataclass(frozen=True, slots=True)
class SpoolBounds:
    """How large a spool and what it holds in memory may become.

    ``max_bytes`` counts sealed entries and `ROW_BYTES` for each; the last ``reserve_bytes`` and ``reserve_entries`` of
    it (a quarter at most) are for notices alone. ``buffer_*`` bound what waits for its commit, ``repeats`` the message
    numbers that are remembered of each two-way device, ``refused_entries`` what the cloud would not take, ``gap_runs``
    the numbered runs that are told exactly for each device and cause before runs are merged, ``in_flight`` the entries
    given out at once.
    """

    max_bytes: int = 256 * 1024 * 1024
    max_entries: int = 2_000_000
    reserve_bytes: int = 65536
    reserve_entries: int = 64
    buffer_bytes: int = 8 * 1024 * 1024
    buffer_entries: int = 8192
    devices: int = 1024
    repeats: int = 1024
    refused_entries: int = 1000
    gap_runs: int = 16
    in_flight: int = 8192

    def for_frames(self) -> tuple[int, int]:
        """(bytes, entries) that frames of devices may take."""
        return (
            self.max_bytes - min(self.reserve_bytes, self.max_bytes // 4),
            self.max_entries - min(self.reserve_entries, self.max_entries // 4),
        )


class Appending(enum.Enum):
    """What became of a frame at once."""

    BUFFERED = "buffered"
    """It is durable when `SpoolStorage.commit` names its ticket."""
    REPEATED = "repeated"
    """It is durable already: the same message of the same device was committed before."""
    FULL = "full"
    """It was not taken: the spool is full, or cannot write. Only ever said of two-way devices."""
    REFUSED = "refused"
    """It was not taken and never will be: it cannot be packed, or there are too many devices."""


@dataclass(frozen=True, slots=True)
class Appended:
    """The answer to `SpoolStorage.append`; ``ticket`` counts only while `Appending.BUFFERED`."""

    state: Appending
    ticket: int = 0


@dataclass(frozen=True, slots=True)
class Committed:
    """What one group commit did. ``ok`` is False when the disk refused: then nothing was committed and all is kept."""

    ok: bool
    tickets: tuple[int, ...] = ()
    entries: int = 0


@quick
@dataclass(frozen=True, slots=True)
class Stored:
    """One entry on its way out: ``id`` names it to the spool, ``packed`` is its delivery form."""

    id: int
    traffic_class: TrafficClass
    packed: bytes


class OpeningCause(enum.Enum):
    """How the spool was found; also the cause of the device gaps that end with this opening."""

    FIRST = "first start"
    STOPPED = "gateway stopped"
    CRASHED = "gateway crashed"
    MISSING = "spool missing"
    RESTORED = "spool restored"
    DAMAGED = "spool damaged"


@dataclass(frozen=True, slots=True)
class SpoolStatus:
    """The spool as the dashboard and `doctor` show it; bytes as `SpoolBounds` counts them."""

    epoch: int
    last_sequence: int
    entries: int
    bytes: int
    max_bytes: int
    buffered: int
    in_flight: int
    refused: int
    dropped: int
    failing: str
    opening: OpeningCause


@dataclass(frozen=True, slots=True)
class SpoolOpened:
    """The spool is open: a new ``epoch`` after ``previous_epoch`` (0: none known). ``aside`` is where a damaged file
    went, or ''."""

    epoch: int
    previous_epoch: int
    cause: OpeningCause
    aside: str


@dataclass(frozen=True, slots=True)
class SpoolFailing:
    """The disk refuses; told once until it ends. ``reason``: 'disk-full', 'io', 'read-only', 'locked' or 'damaged'."""

    reason: str


@dataclass(frozen=True, slots=True)
class SpoolRecovered:
    """Commits work again."""


@dataclass(frozen=True, slots=True)
class EntriesDropped:
    """``count`` entries were dropped for ``cause``; their gap is recorded and will be told to the cloud."""

    count: int
    cause: str


SpoolEvent = SpoolOpened | SpoolFailing | SpoolRecovered | EntriesDropped

Part = tuple[TrafficClass, tuple[Observation, ...]]
"""One entry to be: observations of one frame and one class, small enough for an entry."""


class SpoolStorage(Protocol):
    """A spool. Calls are quick and never raise for what devices or disks do; only `commit` waits for the disk."""

    def expect(self, device: str, wall_now: float) -> None:
        """Say at the start that the one-way ``device`` is attached: what it said while nobody listened is a gap."""

    def append(
        self,
        device: str,
        parts: Sequence[Part],
        frame_hash: bytes,
        heard_at: float,
        *,
        two_way: bool = False,
        control_id: str = "",
    ) -> Appended:
        """Buffer one frame of ``device``, whole or not at all."""

    def notify(self, device: str, notice: Notice, at: float) -> None:
        """Buffer a notice about ``device`` (or '' for the gateway itself)."""

    def silent(self, device: str, cause: str) -> None:
        """Say that ``device`` has fallen silent: the gap runs from when it was last heard until it is heard again."""

    def commit(self, now: float) -> Committed:
        """Make everything buffered durable: one transaction, one sync."""

    def next_batch(self, limit: int, now: float, highest: TrafficClass = TrafficClass.BULK) -> list[Stored]:
        """The next entries to send, at most ``limit`` packed bytes (a single entry may be larger); [] when none wait.

        The most urgent class first and in it the oldest; none less urgent than ``highest``. What is given out is in
        flight until it is released, given back or refused.
        """

    def release(self, ids: Sequence[int]) -> None:
        """The cloud holds them: let go. The rows go with the next commit; a crash before it sends them again."""

    def give_back(self, ids: Sequence[int]) -> None:
        """They were not delivered: they wait again, in their old place."""

    def refuse(self, ids: Sequence[int], cause: str) -> None:
        """The cloud will never take them: set them aside, and record the gap."""

    def waiting(self, highest: TrafficClass = TrafficClass.BULK) -> bool:
        """Whether an entry of a class up to ``highest`` waits to be sent."""

    def must_commit(self) -> bool:
        """Whether there is anything for `commit` to do."""

    def commit_is_urgent(self) -> bool:
        """Whether something waits for its commit beside entries let go, which may ride on a later one."""

    def status(self) -> SpoolStatus:
        """The spool's state now."""

    def next_event(self) -> SpoolEvent | None:
        """Take the oldest event, or None."""

"""A spool and a store that are watched from outside, and that can be killed at a commit.

Nothing of what they do is changed. The `Book` outlives every crash, every deleted file and every restored copy, so that
what was promised can be compared with what is there.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitalgate.cloud.store.commit import Committed as Stored
from vitalgate.cloud.store.commit import Delivery
from vitalgate.cloud.store.store import Store
from vitalgate.gateway.delivery import pack_entry
from vitalgate.gateway.entry import Entry
from vitalgate.gateway.sealing import KeySource
from vitalgate.gateway.secrets import KeySource as StoreKeys
from vitalgate.gateway.spool import Spool
from vitalgate.gateway.storage import Appended, Committed, Part
from vitalgate.quick import quick

SPOOL_COMMIT, SPOOL_COMMITTED = "spool commit", "spool committed"
STORE_COMMIT, STORE_COMMITTED = "store commit", "store committed"
POINTS = (SPOOL_COMMIT, SPOOL_COMMITTED, STORE_COMMIT, STORE_COMMITTED)
"""Where a process can be killed: just before a commit, and after it, before anyone was told."""

Pass = Callable[[str], None]
"""Called at each of `POINTS`; raises `Killed` to kill the process there."""


class Killed(BaseException):
    """The process is dead from here on. Nothing that runs in it may catch this."""


@quick
@dataclass(frozen=True, slots=True)
class Promise:
    """One committed entry: whose, of which frame (a notice has no observations), made at wall time ``at``."""

    device: str
    frame_hash: bytes
    at: float
    observations: int
    opens_frame: bool


class Book:
    """Every entry that any spool of a gateway committed, by (epoch, sequence)."""

    def __init__(self) -> None:
        self.promises: dict[tuple[int, int], Promise] = {}
        self._pending: dict[tuple[int, int], Promise] = {}
        self._opening = False

    def begin_frame(self) -> None:
        """What is packed next, notices apart, is a frame's first entry."""
        self._opening = True

    def pack(self, entry: Entry) -> bytes:
        """`pack_entry`, noted. A sequence that was packed and not taken is packed again later: the last one counts."""
        packed = pack_entry(entry)
        opens, self._opening = (self._opening, False) if entry.notice is None else (False, self._opening)
        self._pending[entry.epoch, entry.sequence] = Promise(
            entry.device, entry.frame_hash, entry.gateway_time, len(entry.observations), opens
        )
        return packed

    def committed(self, epoch: int, last: int) -> None:
        """A commit made everything numbered durable, up to ``last`` of ``epoch``."""
        for number, promise in self._pending.items():
            if number[0] != epoch or number[1] <= last:
                self.promises[number] = promise
        self._pending.clear()

    def forget_pending(self) -> None:
        """The process died: what was not committed was not promised."""
        self._pending.clear()

    def entries(self) -> dict[str, Counter[bytes]]:
        """By device, how many committed entries of each frame hash; notices are not in it."""
        return self._counted(lambda promise: promise.observations > 0)

    def frames(self) -> dict[str, Counter[bytes]]:
        """By device, how many committed frames of each hash."""
        return self._counted(lambda promise: promise.opens_frame)

    def heard_at(self, device: str) -> list[tuple[float, bytes]]:
        """(The gateway's wall time, hash) of each committed frame of ``device``."""
        return [(one.at, one.frame_hash) for one in self.promises.values() if one.opens_frame and one.device == device]

    def _counted(self, which: Callable[[Promise], bool]) -> dict[str, Counter[bytes]]:
        counts: dict[str, Counter[bytes]] = {}
        for promise in self.promises.values():
            if which(promise):
                counts.setdefault(promise.device, Counter())[promise.frame_hash] += 1
        return counts


class RecordedSpool(Spool):
    """A `Spool` whose commits are written in a `Book`. The other arguments are those of `Spool`."""

    def __init__(self, path: Path, keys: KeySource, book: Book, passing: Pass, **settings: Any) -> None:
        self._book = book
        self._passing = passing
        try:
            super().__init__(path, keys, book.pack, **settings)
        except Killed:
            self.kill()
            raise

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
        """See `Spool.append`."""
        self._book.begin_frame()
        return super().append(device, parts, frame_hash, heard_at, two_way=two_way, control_id=control_id)

    def commit(self, now: float) -> Committed:
        """See `Spool.commit`; two points to be killed at."""
        self._passing(SPOOL_COMMIT)
        done = super().commit(now)
        if done.ok:
            status = self.status()
            self._book.committed(status.epoch, status.last_sequence)
        self._passing(SPOOL_COMMITTED)
        return done

    def kill(self) -> None:
        """See `Spool.kill`."""
        self._book.forget_pending()
        super().kill()


class RecordedStore(Store):
    """A `Store` with two points to be killed at, and a way to be killed."""

    def __init__(self, path: Path, keys: StoreKeys, passing: Pass, **settings: Any) -> None:
        self._passing = passing
        super().__init__(path, keys, **settings)

    def commit(self, batch: Sequence[Delivery]) -> list[Stored]:
        """See `Store.commit`."""
        self._passing(STORE_COMMIT)
        outcomes = super().commit(batch)
        self._passing(STORE_COMMITTED)
        return outcomes

    def kill(self) -> None:
        """Let go of the database as a crash does: nothing that waits in memory is written."""
        self.database.kill()

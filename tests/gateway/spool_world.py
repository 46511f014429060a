"""A spool on a folder that can be killed, copied, put back: what the spool's tests share."""

import shutil
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

from vitalgate.gateway.delivery import pack_entry, unpack
from vitalgate.gateway.entry import Entry
from vitalgate.gateway.notice import Notice
from vitalgate.gateway.sealing import FixedKeys
from vitalgate.gateway.spool import Spool
from vitalgate.gateway.storage import Part, SpoolBounds
from vitalgate.vitals.observation import Alarm, Observation, Priority, TrafficClass, frame_hash

IVY = "urn:dev:ops:32473-Ivy450C-0001"
NONIN = "urn:dev:mac:0024befffe804ff1"
MONITOR = "urn:dev:os:32473-monitor7"
KEYS = FixedKeys(bytes(range(32)))
START = 1_795_000_000.0
ALARM, WAVE, VITAL, BULK = TrafficClass


def observation(number: int, device: str = "", at: float = START, alarm: bool = False) -> Observation:
    """A heart rate that says which one it is."""
    return Observation(
        147842,
        Decimal(number),
        "/min",
        at,
        frame_hash(b"frame %d" % number),
        "test/1",
        alarm=Alarm("ASYSTOLE", Priority.HIGH) if alarm else None,
        device=device,
    )


def part(number: int, device: str, lane: TrafficClass = VITAL, at: float = START) -> Part:
    return lane, (observation(number, device, at, alarm=lane is ALARM),)


class World:
    """One folder with one spool, its wall clock, and whatever went out of it."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.folder = folder
        self.folder.mkdir(exist_ok=True)
        self.settings: dict[str, Any] = {"keys": KEYS, "pack": pack_entry, **settings}
        self.wall = START
        self.number = 0
        self.spool = self.open()

    @property
    def path(self) -> Path:
        return self.folder / "spool.db"

    def open(self) -> Spool:
        settings = {name: value for name, value in self.settings.items() if name not in ("keys", "pack")}
        return Spool(self.path, self.settings["keys"], self.settings["pack"], wall=lambda: self.wall, **settings)

    def reopen(self, *, clean: bool = False, between: Callable[[], None] | None = None) -> Spool:
        """Stop or kill, do something, open again."""
        if clean:
            self.spool.close()
        else:
            self.spool.kill()
        if between is not None:
            between()
        self.spool = self.open()
        return self.spool

    def say(self, device: str = IVY, lane: TrafficClass = VITAL, **how: Any) -> Any:
        """One more frame."""
        self.number += 1
        return self.spool.append(
            device,
            [part(self.number, device, lane, self.wall)],
            frame_hash(b"frame %d" % self.number),
            self.wall,
            **how,
        )

    def take(self, limit: int = 1024, highest: TrafficClass = BULK) -> list[Entry]:
        """The next batch as the cloud reads it, released."""
        batch = self.spool.next_batch(limit, 0.0, highest)
        entries = [unpack(stored.packed)[0] for stored in batch]
        self.spool.release([stored.id for stored in batch])
        return entries

    def drain(self) -> list[Entry]:
        """Everything, as the cloud reads it, in the order of sending."""
        taken: list[Entry] = []
        while True:
            entries = self.take()
            if not entries:
                self.spool.commit(0.0)
                if not self.spool.waiting() and not self.spool.must_commit():
                    return taken
            taken += entries

    def copy(self, target: Path) -> Path:
        """The folder's files as they are on disk at this moment."""
        target.mkdir()
        for file in self.folder.iterdir():
            if file.is_file() and not file.name.endswith(".lock"):
                shutil.copy2(file, target / file.name)
        return target


def values(entries: list[Entry]) -> list[int]:
    """The numbers that `World.say` gave."""
    return [int(o.value) for entry in entries for o in entry.observations if isinstance(o.value, Decimal)]


def notices(entries: list[Entry], kind: type[Notice]) -> list[Any]:
    return [entry.notice for entry in entries if isinstance(entry.notice, kind)]


def small(entries: int = 20, **more: int) -> SpoolBounds:
    """Bounds that a test reaches."""
    reserve = entries // 3
    return SpoolBounds(**{"max_entries": entries + reserve, "reserve_entries": reserve, **more})

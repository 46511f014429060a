"""Whatever happens in whatever order: every number that was given out is delivered or told as a gap, once accounted."""

import tempfile
from collections import defaultdict
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from spool_world import IVY, MONITOR, NONIN, World, notices, values

from vitalgate.gateway.delivery import unpack
from vitalgate.gateway.entry import Entry
from vitalgate.gateway.gaps import GapRuns
from vitalgate.gateway.notice import EpochOpened, Gap
from vitalgate.gateway.storage import Appending, SpoolBounds, Stored
from vitalgate.vitals.observation import TrafficClass

lanes = st.sampled_from(list(TrafficClass))
steps = st.one_of(
    st.tuples(st.just("say"), st.sampled_from([IVY, NONIN, MONITOR]), lanes, st.integers(1, 12)),
    st.tuples(st.just("commit")),
    st.tuples(st.just("take"), st.integers(1, 1500)),
    st.tuples(st.sampled_from(["release", "give_back", "refuse", "crash", "stop"])),
    st.tuples(st.just("full disk"), st.booleans()),
)


class Checker:
    """The cloud: everything that reached it, and what must have."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.delivered: dict[tuple[int, int], Entry] = {}
        self.flying: list[Stored] = []
        self.waiting: dict[int, int] = {}
        """Ticket -> number of what a two-way device waits for."""
        self.acknowledged: set[int] = set()
        self.last: dict[int, int] = defaultdict(int)

    def run(self, step: tuple[object, ...]) -> None:
        world = self.world
        match step:
            case ("say", str(device), TrafficClass() as lane, int(count)):
                for _ in range(count):
                    two_way = device == MONITOR
                    answer = world.say(device, lane, two_way=two_way)
                    assert answer.state is not Appending.FULL or two_way
                    if two_way and answer.state is Appending.BUFFERED:
                        self.waiting[answer.ticket] = world.number
            case ("commit",):
                self.commit()
            case ("take", int(limit)):
                batch = world.spool.next_batch(limit, 0.0)
                assert not {stored.id for stored in batch} & {stored.id for stored in self.flying}, "given out twice"
                self.flying += batch
            case ("release",):
                self.deliver(self.flying)
                self.flying = []
            case ("give_back",):
                world.spool.give_back([stored.id for stored in self.flying])
                self.flying = []
            case ("refuse",):
                # Of a notice of a gap that the cloud refuses only the number stays known: leave these out.
                chosen = [s for s in self.flying if not notices(unpack(s.packed), Gap)][:2]
                world.spool.refuse([stored.id for stored in chosen], "refused 4.00")
                self.acknowledged -= {n for s in chosen for n in values(unpack(s.packed))}
                self.flying = [stored for stored in self.flying if stored not in chosen]
            case ("crash",) | ("stop",):
                # What was refused and not yet committed is simply sent again.
                old = world.spool
                world.reopen(clean=step == ("stop",))
                self.last[old.status().epoch] = old.status().last_sequence
                self.flying, self.waiting = [], {}
            case ("full disk", bool(full)):
                self.set_disk(full)

    def set_disk(self, full: bool) -> None:
        """Let the database grow no further, or let it grow again."""
        assert self.world.spool._tables is not None
        database = self.world.spool._tables._db
        pages = database.execute("PRAGMA page_count").fetchone()[0] if full else 1_000_000
        database.execute(f"PRAGMA max_page_count = {pages}")

    def commit(self) -> None:
        for ticket in self.world.spool.commit(0.0).tickets:
            number = self.waiting.pop(ticket, None)
            if number is not None:
                self.acknowledged.add(number)
        self.note_epoch()
        status = self.world.spool.status()
        assert status.entries <= 40
        assert status.entries >= 0
        assert status.bytes >= 0

    def note_epoch(self) -> None:
        status = self.world.spool.status()
        self.last[status.epoch] = max(self.last[status.epoch], status.last_sequence)

    def deliver(self, batch: list[Stored]) -> None:
        for stored in batch:
            entry = unpack(stored.packed)[0]
            name = (entry.epoch, entry.sequence)
            assert self.delivered.setdefault(name, entry) == entry, "one name, one content"
        self.world.spool.release([stored.id for stored in batch])

    def end(self) -> None:
        """Drain, then account for every number."""
        self.set_disk(False)
        self.commit()
        self.world.spool.give_back([stored.id for stored in self.flying])
        while self.world.spool.waiting() or self.world.spool.must_commit():
            while batch := self.world.spool.next_batch(4096, 0.0):
                self.deliver(batch)
            self.commit()
        entries = list(self.delivered.values())
        told: dict[int, int] = defaultdict(int)
        for gap in notices(entries, Gap):
            told[gap.epoch] += gap.count
            assert gap.last_sequence - gap.first_sequence + 1 >= gap.count
        for epoch, last in self.last.items():
            delivered = sum(name[0] == epoch for name in self.delivered)
            refused_and_delivered = delivered + told[epoch] - last
            assert refused_and_delivered == 0, f"epoch {epoch:x}: {delivered} delivered, {told[epoch]} told, of {last}"
        opened = notices(entries, EpochOpened)
        assert len(opened) <= len(self.last)
        assert self.acknowledged <= set(values(entries)), "acknowledged and lost"
        status = self.world.spool.status()
        assert (status.entries, status.bytes, status.in_flight, status.buffered) == (0, 0, 0, 0)


@settings(max_examples=100)
@given(st.lists(steps, max_size=40))
def test_every_number_is_delivered_or_told(plan: list[tuple[object, ...]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder) / "data", bounds=SpoolBounds(max_entries=40, reserve_entries=10, buffer_entries=20))
        checker = Checker(world)
        checker.note_epoch()
        for step in plan:
            checker.run(step)
        checker.end()
        world.spool.kill()


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 300)), unique=True), st.integers(1, 5))
def test_runs_cover_what_was_dropped_and_count_it_exactly(drops: list[tuple[int, int]], limit: int) -> None:
    runs = GapRuns(limit)
    for device, sequence in drops:
        runs.drop(device, 7, "cause", sequence, float(sequence))
    for device in range(3):
        mine = [sequence for one, sequence in drops if one == device]
        here = [run for run in runs.runs() if run.device == device]
        assert len(here) <= limit
        assert sum(run.count for run in here) == len(mine)
        assert all(any(run.first <= sequence <= run.last for run in here) for sequence in mine)
        assert all(run.start == run.first and run.end == run.last for run in here)

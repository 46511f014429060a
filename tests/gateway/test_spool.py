"""The spool in ordinary service: order, commits, repeats, bounds, drops, and what its file shows."""

import sqlite3
import time
from pathlib import Path

import pytest
from spool_world import (
    ALARM,
    BULK,
    IVY,
    KEYS,
    MONITOR,
    NONIN,
    START,
    VITAL,
    WAVE,
    World,
    notices,
    observation,
    part,
    small,
    values,
)

from vitalgate.gateway.delivery import pack_entry, unpack
from vitalgate.gateway.notice import DeviceGap, EpochOpened, Gap, Quarantined
from vitalgate.gateway.secrets import Keystore, MasterKey
from vitalgate.gateway.spool import Spool, SpoolError
from vitalgate.gateway.spooldb import PRAGMAS
from vitalgate.gateway.storage import (
    Appending,
    EntriesDropped,
    OpeningCause,
    SpoolBounds,
    SpoolOpened,
)
from vitalgate.vitals.observation import frame_hash


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "data")


def bounded(tmp_path: Path, bounds: SpoolBounds) -> World:
    return World(tmp_path / "data", bounds=bounds)


def test_every_commit_waits_for_the_disk(world: World) -> None:
    assert world.spool.pragma("synchronous") == 2, "FULL: a commit that returned survives a power cut"
    assert world.spool.pragma("journal_mode") == "wal"
    for name, value in PRAGMAS.items():
        assert world.spool.pragma(name) == value


def test_files_are_private(world: World) -> None:
    world.say()
    world.spool.commit(0.0)
    for file in world.folder.iterdir():
        assert file.stat().st_mode & 0o077 == 0, file


def test_what_is_committed_comes_out_whole_and_is_let_go(world: World) -> None:
    parts = [part(1, IVY, ALARM), part(2, IVY, WAVE), part(3, IVY, VITAL)]
    answer = world.spool.append(IVY, parts, frame_hash(b"f"), START)
    assert answer.state is Appending.BUFFERED
    early = world.take()
    assert values(early) == [], "nothing goes out before it is durable"
    done = world.spool.commit(0.0)
    assert done.ok
    assert done.tickets == (answer.ticket,)
    mine = world.take(10_000)
    opened = early[0]
    assert opened.notice == EpochOpened(0, 0, "first start")
    assert opened.sequence == 1
    assert [entry.sequence for entry in mine] == [2, 3, 4]
    assert {entry.epoch for entry in early + mine} == {world.spool.status().epoch}
    assert [entry.traffic_class for entry in mine] == [ALARM, WAVE, VITAL]
    assert {(entry.device, entry.frame_hash, entry.gateway_time) for entry in mine} == {(IVY, frame_hash(b"f"), START)}
    assert values(mine) == [1, 2, 3]
    world.spool.commit(0.0)
    status = world.spool.status()
    assert (status.entries, status.bytes, status.in_flight, status.buffered) == (0, 0, 0, 0)
    assert not world.spool.must_commit()
    assert world.take() == []


def test_the_most_urgent_class_goes_first_and_in_it_the_oldest(world: World) -> None:
    world.drain()
    for lane in (BULK, VITAL, WAVE, VITAL, ALARM, BULK, WAVE, ALARM):
        world.say(lane=lane)
        world.spool.commit(0.0)
    assert values(world.take(10_000, ALARM)) == [5, 8]
    assert values(world.drain()) == [3, 7, 2, 4, 1, 6]


def test_a_batch_keeps_to_its_limit_unless_one_entry_is_larger(world: World) -> None:
    for _ in range(30):
        world.say()
    world.spool.commit(0.0)
    one = len(pack_entry(unpack(world.spool.next_batch(1, 0.0)[0].packed)[0]))
    assert one > 1, "a single entry larger than the limit goes alone"
    while batch := world.spool.next_batch(700, 0.0):
        assert sum(len(stored.packed) for stored in batch) <= 700
        assert len(batch) > 1 or not world.spool.waiting()


def test_what_comes_back_undelivered_goes_first_again_and_nothing_twice(world: World) -> None:
    world.drain()
    for _ in range(600):
        world.say()
    world.spool.commit(0.0)
    first, second = world.spool.next_batch(1024, 0.0), world.spool.next_batch(1024, 0.0)
    world.spool.give_back([stored.id for stored in second])
    world.spool.give_back([stored.id for stored in first])
    world.spool.give_back([stored.id for stored in first])
    again = world.take(1024)
    assert values(again) == [int(o.value) for s in first for o in unpack(s.packed)[0].observations]  # type: ignore[arg-type]
    assert values(again) + values(world.drain()) == list(range(1, 601))


def test_one_group_is_one_transaction(world: World) -> None:
    watcher = sqlite3.connect(world.path)
    watcher.execute("SELECT count(*) FROM entries").fetchone()
    versions = [watcher.execute("PRAGMA data_version").fetchone()[0]]
    counts = []
    for size in (1, 50, 500):
        for _ in range(size):
            world.say()
            versions.append(watcher.execute("PRAGMA data_version").fetchone()[0])
        done = world.spool.commit(0.0)
        assert (len(done.tickets), done.entries) == (size, size)
        versions.append(watcher.execute("PRAGMA data_version").fetchone()[0])
        counts.append(watcher.execute("SELECT count(*) FROM entries").fetchone()[0])
    assert counts == [2, 52, 552]
    assert len(set(versions)) == 4, "each commit is one change of the file, and nothing else changes it"
    watcher.close()


def test_releases_ride_on_the_next_commit(world: World) -> None:
    for _ in range(10):
        world.say()
    world.spool.commit(0.0)
    world.take(10_000)
    assert world.spool.must_commit()
    world.spool.commit(0.0)
    with sqlite3.connect(world.path) as reader:
        assert reader.execute("SELECT count(*) FROM entries").fetchone() == (0,)


# repeated messages of two-way devices


def test_a_repeated_message_is_known_whether_it_waits_or_is_committed(world: World) -> None:
    def send(control: str = "MSG1", body: bytes = b"one") -> object:
        return world.spool.append(
            MONITOR, [part(1, MONITOR)], frame_hash(body), START, two_way=True, control_id=control
        )

    first, second = send(), send()
    assert first.state is second.state is Appending.BUFFERED  # type: ignore[attr-defined]
    assert world.spool.commit(0.0).tickets == (first.ticket, second.ticket)  # type: ignore[attr-defined]
    assert send().state is Appending.REPEATED  # type: ignore[attr-defined]
    world.reopen()
    assert send().state is Appending.REPEATED, "also after a crash"  # type: ignore[attr-defined]
    assert send(body=b"other").state is Appending.BUFFERED, "the number came round again"  # type: ignore[attr-defined]
    world.spool.commit(0.0)
    assert send(body=b"other").state is Appending.REPEATED  # type: ignore[attr-defined]
    assert send(body=b"one").state is Appending.BUFFERED  # type: ignore[attr-defined]
    world.spool.commit(0.0)
    assert values(world.drain()) == [1, 1, 1]


def test_remembered_messages_are_bounded_oldest_out(tmp_path: Path) -> None:
    world = bounded(tmp_path, SpoolBounds(repeats=16))

    def send(number: int) -> Appending:
        state: Appending = world.spool.append(
            MONITOR, [], frame_hash(b"%d" % number), START, two_way=True, control_id=f"M{number}"
        ).state
        world.spool.commit(0.0)
        return state

    for number in range(100):
        assert send(number) is Appending.BUFFERED
    with sqlite3.connect(world.path) as reader:
        assert reader.execute("SELECT count(*) FROM repeats").fetchone()[0] <= 20
    assert all(send(number) is Appending.REPEATED for number in range(85, 100))
    assert send(3) is Appending.BUFFERED


def test_a_message_without_observations_is_acknowledged_after_a_commit_too(world: World) -> None:
    answer = world.spool.append(MONITOR, [], frame_hash(b"empty"), START, two_way=True, control_id="1")
    assert world.spool.must_commit()
    assert world.spool.commit(0.0).tickets == (answer.ticket,)


# bounds


def test_when_full_the_least_urgent_and_oldest_go_first_each_drop_numbered(tmp_path: Path) -> None:
    world = bounded(tmp_path, small(20))
    world.drain()
    for lane in (BULK, VITAL, WAVE, ALARM):
        for _ in range(5):
            world.say(lane=lane)
    world.spool.commit(0.0)
    assert world.spool.status().dropped == 0
    for _ in range(7):
        world.say(lane=ALARM)
    world.spool.commit(0.0)
    status = world.spool.status()
    assert (status.entries, status.dropped) == (20, 7)
    left = world.drain()
    assert values(left) == [16, 17, 18, 19, 20, *range(21, 28), *range(11, 16), 8, 9, 10]
    gap = notices(left, Gap)
    assert len(gap) == 1
    epoch = status.epoch
    assert gap[0] == Gap(IVY, epoch, 2, 8, 7, START, START, "spool full")


def test_something_less_urgent_than_all_that_is_there_is_what_goes(tmp_path: Path) -> None:
    world = bounded(tmp_path, small(10))
    world.drain()
    for _ in range(10):
        world.say(lane=ALARM)
    world.spool.commit(0.0)
    world.say(lane=BULK)
    world.spool.commit(0.0)
    left = world.drain()
    assert values(left) == list(range(1, 11))
    assert [(gap.first_sequence, gap.count) for gap in notices(left, Gap)] == [(12, 1)]


def test_two_way_devices_are_told_full_and_never_dropped(tmp_path: Path) -> None:
    world = bounded(tmp_path, small(10))
    world.drain()
    for _ in range(6):
        assert world.say(MONITOR, BULK, two_way=True).state is Appending.BUFFERED
    world.spool.commit(0.0)
    for _ in range(30):
        assert world.say(IVY, ALARM).state is Appending.BUFFERED
        world.spool.commit(0.0)
    assert world.say(MONITOR, ALARM, two_way=True).state is Appending.FULL
    assert world.spool.commit(0.0).tickets == ()
    left = world.drain()
    assert [value for value in values(left) if value <= 6] == [1, 2, 3, 4, 5, 6]
    assert [value for value in values(left) if value > 6] == [34, 35, 36], "a notice of the gap has one place"
    assert sum(gap.count for gap in notices(left, Gap)) == 27
    assert world.say(MONITOR, BULK, two_way=True).state is Appending.BUFFERED, "it recovers"


def test_bytes_are_bounded_too(tmp_path: Path) -> None:
    world = bounded(tmp_path, SpoolBounds(max_bytes=40_000, reserve_bytes=4_000))
    for _ in range(50):
        for _ in range(20):
            world.say()
        world.spool.commit(0.0)
        assert world.spool.status().bytes <= 36_000
    left = world.drain()
    told = sum(gap.count for gap in notices(left, Gap))
    assert len(values(left)) + told == 1000
    assert values(left) == list(range(1001 - len(values(left)), 1001))


@pytest.mark.parametrize("bounds", [SpoolBounds(max_bytes=65536), SpoolBounds(max_entries=100)])
def test_the_smallest_bounds_that_may_be_configured_leave_room_for_frames(tmp_path: Path, bounds: SpoolBounds) -> None:
    world = bounded(tmp_path, bounds)
    for _ in range(60):
        assert world.say(MONITOR, two_way=True).state is Appending.BUFFERED
    world.spool.commit(0.0)
    assert len(values(world.drain())) == 60


def test_notices_have_room_of_their_own_when_full(tmp_path: Path) -> None:
    world = bounded(tmp_path, small(10))
    for _ in range(10):
        world.say(MONITOR, VITAL, two_way=True)
    world.spool.commit(0.0)
    assert world.say(MONITOR, two_way=True).state is Appending.FULL
    world.spool.notify("", Quarantined("tcp:1", "nonin", "", 3, START), START)
    world.spool.commit(0.0)
    left = world.drain()
    assert len(notices(left, Quarantined)) == 1
    assert len(values(left)) == 9, "the tenth found the epoch's own notice there"


def test_gaps_are_told_while_it_stays_full_if_the_cloud_takes_some(tmp_path: Path) -> None:
    world = bounded(tmp_path, small(100))
    told, now = [], 0.0
    for _ in range(300):
        now += 0.5
        for _ in range(50):
            world.say()
        world.spool.commit(now)
        told += notices(world.take(400), Gap)
    assert len(told) >= 5
    assert sum(gap.count for gap in told) + world.spool.status().entries > 10_000


def test_what_is_in_flight_is_not_dropped(tmp_path: Path) -> None:
    world = bounded(tmp_path, small(10))
    world.drain()
    for _ in range(10):
        world.say()
    world.spool.commit(0.0)
    batch = world.spool.next_batch(500, 0.0)
    for _ in range(20):
        world.say()
        world.spool.commit(0.0)
    world.spool.give_back([stored.id for stored in batch])
    again = world.drain()
    assert values(again)[: len(batch)] == [int(unpack(s.packed)[0].observations[0].value) for s in batch]  # type: ignore[arg-type]
    for _ in range(10):
        world.say()
    world.spool.commit(0.0)
    batch = world.spool.next_batch(9999, 0.0)
    world.say()
    world.spool.commit(0.0)
    world.spool.give_back([stored.id for stored in batch])
    for _ in range(8):
        world.say()
    world.spool.commit(0.0)
    assert values(world.drain())[-8:] == list(range(world.number - 7, world.number + 1)), "back, the oldest go first"


def test_more_devices_than_the_bound_are_refused(tmp_path: Path) -> None:
    world = bounded(tmp_path, SpoolBounds(devices=2))
    assert world.say(IVY).state is Appending.BUFFERED
    assert world.say(NONIN).state is Appending.BUFFERED
    assert world.say(MONITOR).state is Appending.REFUSED
    assert world.say(IVY).state is Appending.BUFFERED


def test_what_cannot_be_packed_is_refused_and_takes_no_number(world: World) -> None:
    last = world.spool.status().last_sequence
    bad = observation(1, "urn:dev:mac:ffffffffffffffff")  # another device's
    assert world.spool.append(IVY, [(VITAL, (bad,))], frame_hash(b"x"), START).state is Appending.REFUSED
    world.say()
    world.spool.commit(0.0)
    assert world.spool.status().last_sequence == last + 1


def test_what_the_cloud_refuses_is_set_aside_with_a_gap_and_bounded(tmp_path: Path) -> None:
    world = bounded(tmp_path, SpoolBounds(refused_entries=5))
    world.drain()
    for _ in range(12):
        world.say()
    world.spool.commit(0.0)
    while batch := world.spool.next_batch(1, 0.0, VITAL):
        number = unpack(batch[0].packed)[0]
        if number.observations:
            world.spool.refuse([batch[0].id], "refused 4.00")
        else:
            world.spool.release([batch[0].id])
    world.spool.commit(0.0)
    world.spool.commit(0.0)
    left = world.drain()
    assert [(gap.device, gap.count, gap.cause) for gap in notices(left, Gap)] == [(IVY, 12, "refused 4.00")]
    assert world.spool.status().refused == 5
    with sqlite3.connect(world.path) as reader:
        rows = reader.execute("SELECT sequence, cause FROM refused ORDER BY id").fetchall()
    assert rows == [(sequence, "refused 4.00") for sequence in range(9, 14)]


def test_an_entry_that_does_not_open_is_set_aside_and_the_rest_goes_on(world: World) -> None:
    world.drain()
    for _ in range(5):
        world.say()
    world.spool.commit(0.0)

    def flip() -> None:
        with sqlite3.connect(world.path) as other:
            other.execute("UPDATE entries SET sealed = zeroblob(length(sealed)) WHERE sequence = 4")
            other.execute("UPDATE entries SET class = 3 WHERE sequence = 5")  # moved to another class

    world.reopen(between=flip)
    left = world.drain()
    assert values(left) == [1, 2, 5]
    assert sum(gap.count for gap in notices(left, Gap) if gap.cause == "unreadable") == 2
    assert world.spool.status().refused == 2
    assert world.spool.status().entries == 0


# the file


def test_the_file_shows_no_value_name_or_key(world: World, tmp_path: Path) -> None:
    patient, text = "Doe^Jane", "ASYSTOLE"
    for number in range(40):
        one = observation(number, IVY, alarm=True).bind(IVY, patient, "Ward 7", observation(1).status)
        world.spool.append(IVY, [(ALARM, (one,))], one.frame_hash, START, two_way=True, control_id=f"CTRL{number}")
    world.spool.notify("", Quarantined("/dev/ttyUSB7", "nonin", "SN-501-444", 3, START), START)
    world.spool.commit(0.0)
    batch = world.spool.next_batch(2000, 0.0)
    world.spool.refuse([batch[0].id], "refused 4.00")
    world.spool.commit(0.0)
    secret = KEYS.data_key("spool").key
    for clean in (False, True):
        content = b"".join(file.read_bytes() for file in world.copy(tmp_path / f"copy{clean}").iterdir())
        for known in (IVY, "Ivy450C", patient, "Jane", text, "Ward 7", "CTRL", "ttyUSB7", "SN-501", "147842", "test/1"):
            assert known.encode() not in content, known
        for known in (secret, observation(1).frame_hash, (147842).to_bytes(3, "big")):
            assert known not in content
        world.reopen(clean=True)


def test_the_ledger_counts_what_was_committed_and_is_off_by_default(tmp_path: Path) -> None:
    world = World(tmp_path / "data", ledger=True)
    world.say(IVY)
    world.say(NONIN)
    world.spool.append(IVY, [part(1, IVY), part(1, IVY, WAVE)], frame_hash(b"frame 1"), START)
    world.spool.commit(0.0)
    world.say(IVY)  # never committed
    world.drain()
    world.say(IVY)
    world.spool.kill()
    world.spool = world.open()
    ledger = world.spool.ledger()
    assert ledger[IVY] == {frame_hash(b"frame 1"): 3, frame_hash(b"frame 3"): 1}
    assert ledger[NONIN] == {frame_hash(b"frame 2"): 1}
    other = World(tmp_path / "other")
    other.say()
    other.spool.commit(0.0)
    assert other.spool.ledger() == {}


def test_entries_of_an_older_data_key_stay_readable(tmp_path: Path) -> None:
    keys = Keystore.open(tmp_path / "keys", MasterKey(bytes(32)))
    world = World(tmp_path / "data", keys=keys)
    world.say()
    world.spool.commit(0.0)
    keys.rotate("spool")
    world.reopen()
    world.say()
    world.spool.commit(0.0)
    with sqlite3.connect(world.path) as reader:
        assert len({row[0] for row in reader.execute("SELECT key_id FROM epochs")}) == 2
    assert values(world.drain()) == [1, 2]


def test_two_gateways_cannot_share_a_spool(world: World) -> None:
    with pytest.raises(SpoolError, match="in use by another process"):
        world.open()
    world.spool.kill()
    world.spool = world.open()


def test_a_folder_that_cannot_be_used_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(SpoolError, match="no-such-folder"):
        Spool(tmp_path / "no-such-folder" / "spool.db", KEYS, pack_entry)


def test_in_memory_for_virtual_time() -> None:
    spool = Spool(None, KEYS, pack_entry)
    spool.append(IVY, [part(1, IVY)], frame_hash(b"x"), START)
    assert spool.commit(0.0).ok
    assert len(spool.next_batch(4096, 0.0)) == 2
    assert spool.next_event() == SpoolOpened(spool.status().epoch, 0, OpeningCause.FIRST, "")
    spool.close()


def test_drops_are_told_to_whoever_listens(tmp_path: Path) -> None:
    world = bounded(tmp_path, small(5))
    for _ in range(9):
        world.say()
    world.spool.commit(0.0)
    events = []
    while (event := world.spool.next_event()) is not None:
        events.append(event)
    assert events[1:] == [EntriesDropped(5, "spool full")]


def test_a_silent_device_has_a_gap_when_it_is_heard_again(world: World) -> None:
    world.say()
    world.wall += 10
    world.spool.silent(IVY, "line silent")
    world.spool.silent(IVY, "line silent")
    world.wall += 5
    world.say()
    world.wall += 5
    world.say()
    world.spool.commit(0.0)
    assert notices(world.drain(), DeviceGap) == [DeviceGap(IVY, START, START + 15, "line silent")]


def test_it_keeps_up(world: World) -> None:
    """5,000 observations a second is the whole system's aim; the spool alone must be well beyond it."""
    frames = 4_000
    start, work = time.perf_counter(), time.process_time()
    for number in range(frames):
        world.say()
        if number % 50 == 49:
            assert world.spool.commit(0.0).ok
    rate = frames / (time.perf_counter() - start)
    own = frames / (time.process_time() - work)  # apart from the disk and from what else this machine does
    print(f"\nspool: {rate:.0f} entries/s packed, sealed and committed in groups of 50 ({own:.0f} by its own work)")
    assert own > 1_000

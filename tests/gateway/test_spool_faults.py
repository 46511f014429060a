"""The spool when things go wrong: killed at any step, deleted, put back from yesterday, damaged, on a full disk."""

import os
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from spool_world import ALARM, BULK, IVY, MONITOR, NONIN, START, VITAL, World, notices, part, small, values

from vitalgate.gateway.delivery import unpack
from vitalgate.gateway.notice import DeviceGap, EpochOpened, Gap
from vitalgate.gateway.sealing import FixedKeys
from vitalgate.gateway.spooltables import Tables
from vitalgate.gateway.storage import (
    Appending,
    OpeningCause,
    SpoolBounds,
    SpoolEvent,
    SpoolFailing,
    SpoolOpened,
    SpoolRecovered,
)
from vitalgate.vitals.observation import frame_hash


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "data")


def events(world: World) -> list[SpoolEvent]:
    found = []
    while (event := world.spool.next_event()) is not None:
        found.append(event)
    return found


# killed


def test_killed_at_every_step_nothing_committed_is_lost_and_nothing_else_appears(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The files are copied as they lie on disk at every step, also between the statements of a transaction."""
    copies: list[tuple[Path, list[int], list[int]]] = []
    world = World(tmp_path / "data")
    committed: list[int] = []
    pending: list[int] = []
    released: set[int] = set()

    def snapshot() -> None:
        held = [number for number in committed if number not in released]
        copies.append((world.copy(tmp_path / f"copy{len(copies)}"), held, [*committed, *pending]))

    def watched(name: str) -> Callable[..., Any]:
        original = getattr(Tables, name)

        def call(self: Tables, *args: Any) -> Any:
            result = original(self, *args)
            snapshot()
            return result

        return call

    for name in ("put_epoch", "put_devices", "delete", "insert", "put_repeats", "put_gaps"):
        monkeypatch.setattr(Tables, name, watched(name))
    for round_ in range(4):
        for _ in range(5):
            world.say(IVY)
            pending.append(world.number)
            snapshot()
        world.say(MONITOR, two_way=True, control_id=f"M{round_}")
        pending.append(world.number)
        assert world.spool.commit(0.0).ok
        committed += pending
        pending.clear()
        snapshot()
        taken = values(world.take(600))
        snapshot()
        released.update(taken)
    monkeypatch.undo()
    world.spool.kill()
    assert len(copies) > 40
    epochs = set()
    for folder, must_be_there, may_be_there in copies:
        again = World(folder)
        assert again.spool.opening is OpeningCause.CRASHED
        epochs.add(again.spool.status().epoch)
        found = values(again.drain())
        assert len(found) == len(set(found))
        assert set(must_be_there) <= set(found) <= set(may_be_there)
        again.spool.kill()
    assert len(epochs) == len(copies), "each opening has an epoch, and so keys and nonces, of its own"


def test_a_clean_stop_and_a_crash_are_told_apart_and_make_a_device_gap(world: World) -> None:
    world.say()
    world.spool.commit(0.0)
    first = world.spool.status()
    for clean, cause in ((True, OpeningCause.STOPPED), (False, OpeningCause.CRASHED)):
        heard = world.wall
        world.wall += 100
        world.reopen(clean=clean)
        world.wall += 1
        assert world.spool.opening is cause
        world.spool.expect(IVY, world.wall)
        world.spool.expect(NONIN, world.wall)  # never heard before
        world.spool.commit(0.0)
        world.wall += 4
        world.say(IVY)
        world.spool.commit(0.0)
        entries = world.drain()
        assert notices(entries, DeviceGap) == [DeviceGap(IVY, heard, world.wall, cause.value)]
        opened = notices(entries, EpochOpened)[-1]
        assert (opened.previous_epoch, opened.previous_sequence, opened.cause) == (
            first.epoch,
            first.last_sequence,
            cause.value,
        )
        first = world.spool.status()
    world.say(NONIN)
    world.spool.commit(0.0)
    assert notices(world.drain(), DeviceGap) == []


def test_a_gap_survives_a_crash_in_its_middle(world: World) -> None:
    world.say()
    world.spool.commit(0.0)
    world.wall += 30
    world.spool.silent(IVY, "line silent")
    world.spool.commit(0.0)
    for _ in range(3):
        world.wall += 10
        world.reopen()
        world.spool.expect(IVY, world.wall)
    world.say()
    world.spool.commit(0.0)
    assert notices(world.drain(), DeviceGap) == [DeviceGap(IVY, START, START + 60, "line silent")]


def test_numbered_gaps_survive_a_crash_before_they_are_told(tmp_path: Path) -> None:
    world = World(tmp_path / "data", bounds=small(10))
    world.drain()
    for _ in range(25):
        world.say()
    world.spool.commit(0.0)
    epoch = world.spool.status().epoch
    world.reopen()
    gaps = notices(world.drain(), Gap)
    assert [(gap.device, gap.epoch, gap.count) for gap in gaps] == [(IVY, epoch, 15)]
    assert notices(world.drain(), Gap) == []
    world.reopen()
    assert notices(world.drain(), Gap) == [], "told once"


# deleted, put back


def test_deleted(world: World) -> None:
    world.say(IVY)
    world.spool.commit(0.0)
    last = world.spool.status()

    def delete() -> None:
        for name in ("spool.db", "spool.db-wal", "spool.db-shm"):
            (world.folder / name).unlink(missing_ok=True)

    world.wall += 20
    world.reopen(between=delete)
    assert world.spool.opening is OpeningCause.MISSING
    world.spool.expect(IVY, world.wall)
    world.spool.expect(MONITOR, world.wall)
    world.wall += 5
    world.say(IVY)
    world.spool.commit(0.0)
    entries = world.drain()
    assert notices(entries, DeviceGap) == [DeviceGap(IVY, START, START + 25, "spool missing")]
    opened = notices(entries, EpochOpened)
    assert [(one.previous_epoch, one.cause) for one in opened] == [(last.epoch, "spool missing")]
    assert values(entries) == [2]


def test_yesterdays_put_back(world: World, tmp_path: Path) -> None:
    for _ in range(3):
        world.say(IVY)
    world.spool.commit(0.0)
    world.spool.close()
    yesterday = world.copy(tmp_path / "backup")
    old = world.spool.status()
    world.wall += 86_400
    world.spool = world.open()
    for _ in range(4):
        world.say(IVY)
    world.spool.commit(0.0)
    sent = world.drain()
    assert values(sent) == [1, 2, 3, 4, 5, 6, 7]
    newest = world.spool.status()
    world.spool.close()
    alive = world.wall

    def put_back() -> None:
        for name in ("spool.db-wal", "spool.db-shm"):
            (world.folder / name).unlink(missing_ok=True)
        shutil.copy2(yesterday / "spool.db", world.path)

    put_back()
    world.wall += 50
    world.spool = world.open()
    assert world.spool.opening is OpeningCause.RESTORED
    world.spool.expect(IVY, world.wall)
    world.say(IVY)
    world.spool.commit(0.0)
    again = world.drain()
    fresh = [entry for entry in again if entry.epoch not in (old.epoch, newest.epoch)]
    assert values(fresh) == [8], "what is new has an epoch of its own and is not taken for something old"
    resent = {(entry.epoch, entry.sequence): entry for entry in again if entry.epoch == old.epoch}
    before = {(entry.epoch, entry.sequence): entry for entry in sent}
    assert resent, "what the old copy still held is sent again"
    assert all(before[name] == entry for name, entry in resent.items()), "under its old name: the cloud knows it"
    assert notices(fresh, DeviceGap) == [DeviceGap(IVY, alive, world.wall, "spool restored")]
    opened = notices(fresh, EpochOpened)[0]
    assert (opened.previous_epoch, opened.previous_sequence) == (newest.epoch, newest.last_sequence)


def test_a_copy_taken_while_running_and_put_back_after_later_commits(world: World, tmp_path: Path) -> None:
    world.say()
    world.spool.commit(0.0)
    backup = world.copy(tmp_path / "backup")
    world.say()
    world.spool.commit(100.0)

    def put_back() -> None:
        for name in ("spool.db", "spool.db-wal", "spool.db-shm"):
            (world.folder / name).unlink(missing_ok=True)
            if (backup / name).exists():
                shutil.copy2(backup / name, world.folder / name)

    world.reopen(between=put_back)
    assert world.spool.opening is OpeningCause.RESTORED
    assert values(world.drain()) == [1]


def test_a_copy_of_the_whole_folder_put_back_still_begins_an_epoch_of_its_own(world: World, tmp_path: Path) -> None:
    world.say()
    world.spool.commit(0.0)
    backup = world.copy(tmp_path / "backup")
    first = World(backup)
    second = World(world.copy(tmp_path / "other"))
    names = set()
    for one in (world, first, second):
        one.number = 100
        one.say()
        one.spool.commit(0.0)
        names.update((entry.epoch, entry.sequence) for entry in one.drain() if values([entry]) == [101])
    assert len(names) == 3


def test_many_openings_leave_few_traces(world: World) -> None:
    for _ in range(60):
        world.reopen(clean=True)
        world.drain()
    with sqlite3.connect(world.path) as reader:
        assert reader.execute("SELECT count(*) FROM epochs").fetchone()[0] <= 20


# damaged


def damages() -> Iterator[tuple[str, Callable[[Path], None]]]:
    def rewrite(change: Callable[[bytearray], object]) -> Callable[[Path], None]:
        def apply(path: Path) -> None:
            data = bytearray(path.read_bytes())
            change(data)
            path.write_bytes(data)

        return apply

    def schema(path: Path) -> None:
        with sqlite3.connect(path) as other:
            other.execute("PRAGMA user_version = 7")

    def no_table(path: Path) -> None:
        with sqlite3.connect(path) as other:
            other.execute("DROP TABLE entries")

    def bad_meta(path: Path) -> None:
        with sqlite3.connect(path) as other:
            other.execute("UPDATE meta SET value = x'00'")

    def bad_rows(path: Path) -> None:
        with sqlite3.connect(path) as other:
            other.execute("UPDATE devices SET sealed_urn = 'text'")

    yield "no database at all", lambda path: path.write_bytes(b"this is no database" * 100) and None
    yield "cut short", rewrite(lambda data: data.__delitem__(slice(len(data) // 2, None)))
    yield "zeros at its end", rewrite(lambda data: data.__setitem__(slice(4096, len(data)), bytes(len(data) - 4096)))
    yield "a changed header", rewrite(lambda data: data.__setitem__(slice(20, 60), b"\xff" * 40))
    yield "another schema", schema
    yield "a table missing", no_table
    yield "its secret changed", bad_meta
    yield "rows of another kind", bad_rows


@pytest.mark.parametrize(("name", "damage"), list(damages()), ids=[name for name, _ in damages()])
def test_damaged_it_is_moved_aside_and_a_new_one_begins(
    world: World, name: str, damage: Callable[[Path], None]
) -> None:
    for _ in range(200):
        world.say()
    world.spool.commit(0.0)
    world.spool.close()
    damage(world.path)
    damaged = world.path.read_bytes()
    world.wall += 60
    world.spool = world.open()
    opened = events(world)[0]
    assert isinstance(opened, SpoolOpened)
    assert opened.cause is OpeningCause.DAMAGED
    assert Path(opened.aside).name == "spool.db.damaged-20261118T110740Z"
    assert Path(opened.aside).read_bytes() == damaged, "moved, not deleted"
    world.spool.expect(IVY, world.wall)
    world.say()
    world.spool.commit(0.0)
    entries = world.drain()
    assert values(entries) == [201]
    assert notices(entries, DeviceGap) == [DeviceGap(IVY, START, START + 60, "spool damaged")]
    world.spool.close()
    damage(world.path)
    world.spool = world.open()
    assert len([f for f in world.folder.glob("spool.db.damaged-*") if not f.name.endswith(("-wal", "-shm"))]) == 2, (
        "a second one gets a name of its own"
    )


def test_under_other_keys_it_is_moved_aside(world: World) -> None:
    world.say()
    world.spool.commit(0.0)
    world.settings["keys"] = FixedKeys(b"\x01" * 32)
    world.reopen()
    assert world.spool.opening is OpeningCause.DAMAGED
    assert values(world.drain()) == []


def test_damaged_while_running_it_goes_on_with_a_new_file(world: World) -> None:
    """What was buffered is not lost; the device keeps its identity."""
    for _ in range(50):
        world.say(two_way=True, control_id=f"M{world.number}")
    world.spool.commit(0.0)
    world.say()
    other = sqlite3.connect(world.path, isolation_level=None)
    other.execute("PRAGMA writable_schema = ON")
    other.execute("UPDATE sqlite_master SET sql = 'garbage' WHERE name = 'entries'")
    other.execute("PRAGMA schema_version = 99")  # so that the open connection reads it again
    other.close()
    assert [world.spool.commit(0.0).ok for _ in range(2)] == [False, True]
    assert [type(event) for event in events(world)][1:] == [SpoolFailing, SpoolOpened, SpoolRecovered]
    world.say()
    world.spool.commit(0.0)
    found = values(world.drain())
    assert found[-2:] == [51, 52]
    world.spool.close()
    world.spool = world.open()
    assert world.spool.opening is OpeningCause.STOPPED


# the disk refuses


def limit_pages(world: World, spare: int) -> Callable[[], None]:
    """Let the database grow by ``spare`` pages and no further, as a full disk does; the call lifts it."""
    assert world.spool._tables is not None
    database = world.spool._tables._db
    pages = database.execute("PRAGMA page_count").fetchone()[0]
    database.execute(f"PRAGMA max_page_count = {pages + spare}")
    return lambda: database.execute("PRAGMA max_page_count = 1073741823") and None


def fill_until_refused(world: World) -> int:
    """Frames until a commit is refused; returns how many were committed."""
    for _ in range(200):
        for _ in range(20):
            world.say()
        before = world.number - 20
        if not world.spool.commit(0.0).ok:
            return before
    raise AssertionError("the disk never filled")


def check_full_disk(world: World, lift: Callable[[], object]) -> None:
    world.drain()
    done = fill_until_refused(world)
    assert world.spool.status().failing == "disk-full"
    assert [e for e in events(world) if isinstance(e, SpoolFailing)] == [SpoolFailing("disk-full")]
    waiting = world.spool.status().buffered
    assert waiting == world.number - done
    for _ in range(5):
        answer = world.say()
        refused = world.say(MONITOR, two_way=True)
        assert answer.state is Appending.BUFFERED
        assert refused.state is Appending.FULL, "a two-way device is told at once"
        assert not world.spool.commit(0.0).ok
        assert world.spool.commit(0.0).tickets == (), "nothing is acknowledged"
    said = [number for number in range(1, world.number + 1) if number <= done + 20 or (number - done) % 2]
    lift()
    result = world.spool.commit(0.0)
    assert result.ok
    assert len(result.tickets) == world.spool.status().entries - done
    assert SpoolRecovered() in events(world)
    assert world.spool.status().failing == ""
    assert values(world.drain()) == said
    assert notices(world.drain(), Gap) == []


def test_full_disk_nothing_is_acknowledged_and_all_is_kept(world: World) -> None:
    world.drain()
    check_full_disk(world, limit_pages(world, 30))


def test_full_disk_for_real(tmp_path: Path) -> None:
    """A small tmpfs, where this machine lets us mount one."""
    mount = tmp_path / "mount"
    mount.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(mount)], capture_output=True, text=True, check=False
    ) if os.geteuid() == 0 and shutil.which("mount") else None  # fmt: skip
    if done is None or done.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {done.stderr.strip() if done else 'not root'}")
    try:
        (mount / "ballast").write_bytes(bytes(500_000))
        world = World(mount / "data")
        check_full_disk(world, (mount / "ballast").unlink)
        world.spool.close()
    finally:
        subprocess.run(["umount", str(mount)], check=True)


def test_what_waits_in_memory_is_bounded_too(tmp_path: Path) -> None:
    world = World(tmp_path / "data", bounds=SpoolBounds(buffer_entries=100))
    world.drain()
    lift = limit_pages(world, 0)
    done = fill_until_refused(world)
    first = world.number
    for _ in range(2000):
        world.say()
        world.spool.commit(0.0)
        assert world.spool.status().buffered <= 100
    dropped = world.spool.status().dropped
    assert dropped >= 1850
    lift()
    assert world.spool.commit(0.0).ok
    entries = world.drain()
    kept = [number for number in values(entries) if number > done]
    assert kept == list(range(first + 2001 - len(kept), first + 2001)), "the newest are kept"
    gaps = notices(entries, Gap)
    assert sum(gap.count for gap in gaps) == dropped == first - done + 2000 - len(kept)
    assert {gap.cause for gap in gaps} == {"disk failing"}


def test_what_a_two_way_device_said_stays_in_memory_whatever_else_goes(tmp_path: Path) -> None:
    world = World(tmp_path / "data", bounds=SpoolBounds(buffer_entries=100))
    world.drain()
    for _ in range(10):
        world.say(MONITOR, BULK, two_way=True)
    for _ in range(500):
        world.say(IVY, ALARM)
    assert world.say(MONITOR, two_way=True).state in (Appending.BUFFERED, Appending.FULL)
    world.spool.commit(0.0)
    found = values(world.drain())
    assert [number for number in found if number <= 10] == list(range(1, 11))


def test_a_full_disk_at_the_opening(world: World) -> None:
    """The epoch begins in memory and is written when the disk lets it."""
    for _ in range(50):
        world.say()
    world.spool.commit(0.0)
    held = world.spool.status().epoch
    original = Tables.put_epoch

    def refuse(self: Tables, *_: Any) -> None:
        self._db.execute("PRAGMA max_page_count = 1")
        self._db.execute("CREATE TABLE too_much (x)")  # SQLITE_FULL

    Tables.put_epoch = refuse  # type: ignore[method-assign]
    try:
        world.reopen()
        assert world.spool.status().failing == "disk-full"
        world.say()
        assert not world.spool.commit(0.0).ok
        assert values(world.take(300)), "what is there already can go out"
    finally:
        Tables.put_epoch = original  # type: ignore[method-assign]
    limit_pages(world, 0)()
    assert world.spool.commit(0.0).ok
    entries = world.drain()
    assert 51 in values(entries)
    assert [one.previous_epoch for one in notices(entries, EpochOpened)][-1] == held


def test_locked_by_a_reader_that_never_ends_is_waited_out(world: World) -> None:
    assert world.spool._tables is not None
    world.spool._tables._db.execute("PRAGMA busy_timeout = 1")
    other = sqlite3.connect(world.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    answer = world.say(MONITOR, two_way=True, control_id="1")
    assert not world.spool.commit(0.0).ok
    assert world.spool.status().failing == "locked"
    again = world.spool.append(
        MONITOR, [part(1, MONITOR, VITAL)], frame_hash(b"frame 1"), START, two_way=True, control_id="1"
    )
    assert again.state is Appending.BUFFERED, "the same message waits for the same commit"
    other.execute("COMMIT")
    other.close()
    assert world.spool.commit(0.0).tickets == (answer.ticket, again.ticket)
    assert values([unpack(s.packed)[0] for s in world.spool.next_batch(9999, 0.0)]) == [1]


def test_a_read_that_fails_is_over_with_the_next_commit(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where only two-way devices speak, of which nothing is taken meanwhile."""
    world.say(MONITOR, two_way=True, control_id="1")
    world.spool.commit(0.0)

    def refuse(*_: Any) -> None:
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorcode = sqlite3.SQLITE_IOERR
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(Tables, "repeat", refuse)
        assert world.say(MONITOR, two_way=True, control_id="2").state is Appending.FULL
    assert world.spool.status().failing == "io"
    assert world.say(MONITOR, two_way=True, control_id="2").state is Appending.FULL
    assert world.spool.must_commit()
    assert world.spool.commit(0.0).ok
    assert world.say(MONITOR, two_way=True, control_id="2").state is Appending.BUFFERED


def test_a_device_bound_again_while_the_gateway_runs_has_no_gap(world: World) -> None:
    world.say()
    world.spool.commit(0.0)
    world.wall += 10
    world.reopen()
    world.spool.expect(IVY, world.wall)
    world.say()
    world.wall += 10
    world.spool.expect(IVY, world.wall)
    world.say()
    world.spool.commit(0.0)
    assert notices(world.drain(), DeviceGap) == [DeviceGap(IVY, START, START + 10, "gateway crashed")]

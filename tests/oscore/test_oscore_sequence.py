"""RFC 8613 Appendix B.1.1: whatever stops the sender, no sequence number is used twice."""

import errno
import itertools
import os
import random
import signal
import stat
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vitalgate.oscore.errors import SequenceError
from vitalgate.oscore.sequence import LIMIT, FileSequenceStore, MemorySequenceStore, OsFiles, SenderSequence

RECORD = "00ff" * 8
FOLDER = Path("/disk")


class PowerCut(BaseException):
    """The machine stops: not an Exception, so that nothing in the code under test can go on."""


@dataclass
class Inode:
    content: bytes = b""
    durable: bytes | None = None  # None: nothing of it is on the platter


@dataclass
class Disk:
    """A folder on a disk with a cache: names and contents become durable only by sync, or by the disk's own whim.

    ``cut_at``: the operation (counted from 0) before which the machine stops; with ``half`` a write is torn in two."""

    names: dict[Path, Inode] = field(default_factory=dict)
    journal: list[dict[Path, Inode]] = field(default_factory=list)  # states of the folder since the last sync
    durable_names: dict[Path, Inode] = field(default_factory=dict)
    handles: dict[int, Inode] = field(default_factory=dict)
    operations: int = 0
    cut_at: int | None = None
    half: bool = False
    locked: bool = False
    syncs: bool = True
    fail: int | None = None
    numbers: itertools.count = field(default_factory=lambda: itertools.count(3))

    def _step(self):
        if self.cut_at is not None and self.operations == self.cut_at:
            raise PowerCut
        failing, self.operations = self.fail == self.operations, self.operations + 1
        if failing:
            raise OSError(errno.ENOSPC, "No space left on device")

    def _changed(self):
        self.journal.append(dict(self.names))

    def read(self, path):
        self._step()
        if path not in self.names:
            raise FileNotFoundError(errno.ENOENT, "No such file", str(path))
        return self.names[path].content

    def create(self, path):
        self._step()
        assert path not in self.names
        inode = self.names[path] = Inode()
        self._changed()
        handle = next(self.numbers)
        self.handles[handle] = inode
        return handle

    def write(self, handle, data):
        inode = self.handles[handle]
        if self.half and self.cut_at == self.operations:
            inode.content += data[: len(data) // 2]
        self._step()
        taken = max(1, len(data) * 2 // 3)  # a write may take less than it is given
        inode.content += data[:taken]
        return taken

    def sync(self, handle):
        self._step()
        if self.syncs:
            self.handles[handle].durable = self.handles[handle].content

    def close(self, handle):
        if handle == 2:
            self.locked = False
        self.handles.pop(handle, None)

    def replace(self, source, target):
        self._step()
        self.names[target] = self.names.pop(source)
        self._changed()

    def remove(self, path):
        self._step()
        if path not in self.names:
            raise FileNotFoundError(errno.ENOENT, "No such file", str(path))
        del self.names[path]
        self._changed()

    def sync_folder(self, folder):
        self._step()
        if self.syncs:
            self.durable_names, self.journal = dict(self.names), []

    def lock(self, path):
        if self.locked:
            raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
        self.locked = True
        return 2

    def after_kill(self) -> "Disk":
        """What the next process finds when only this one died: the cache is intact and nothing more is durable."""
        return Disk(self.names, self.journal, self.durable_names, numbers=self.numbers, syncs=self.syncs)

    def after_power_cut(self, choose: random.Random) -> "Disk":
        """What the machine finds when it starts again: any state of the folder since its last sync, and of each file
        that was not synced what the disk happened to write."""
        names = dict(choose.choice([self.durable_names, *self.journal]))
        found = {}
        for path, inode in names.items():
            synced = inode.durable is not None and inode.durable == inode.content
            choices = [inode.content] if synced else [inode.durable or b"", inode.content, inode.content[:20]]
            content = choose.choice(choices)
            found[path] = Inode(content, content)
        return Disk(dict(found), [], dict(found), numbers=self.numbers, syncs=self.syncs)


def run(disk: Disk, used: list[int], count: int, block: int) -> bool:
    """One life of a sender that records every number before it could use it; True when it was not stopped."""
    try:
        store = FileSequenceStore(FOLDER, files=disk)
        try:
            sequence = SenderSequence(store, RECORD, block=block)
        except SequenceError:
            assert not used, "numbers were used, yet there is no sound record of them"
            store.remove(RECORD)
            store.create(RECORD)
            sequence = SenderSequence(store, RECORD, block=block)
        for _ in range(count):
            used.append(sequence.next())
        store.close()
        return True
    except PowerCut:
        return False


def next_life(disk: Disk, kill: bool, choose: random.Random) -> Disk:
    return disk.after_kill() if kill else disk.after_power_cut(choose)


def operations_of_one_life(count: int, block: int) -> int:
    disk = Disk()
    assert run(disk, [], count, block)
    return disk.operations


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("kill", [True, False], ids=["killed", "power cut"])
def test_a_crash_at_every_step_repeats_no_number(kill, half):
    count, block = 7, 3
    for cut_at in range(operations_of_one_life(count, block) + 1):
        for seed in range(1 if kill else 12):
            choose = random.Random(f"{cut_at}/{seed}")
            used: list[int] = []
            disk = Disk(cut_at=cut_at, half=half)
            run(disk, used, count, block)
            disk = next_life(disk, kill, choose)
            assert run(disk, used, count, block)
            assert len(set(used)) == len(used)
            assert used == sorted(used)


@settings(derandomize=True, deadline=None, max_examples=300)
@given(
    lives=st.lists(
        st.tuples(st.integers(0, 40), st.booleans(), st.booleans(), st.integers(1, 9)), min_size=1, max_size=8
    ),
    block=st.integers(1, 5),
    seed=st.integers(0, 2**32),
)
def test_many_crashes_in_a_row_repeat_no_number(lives, block, seed):
    choose, used, disk = random.Random(seed), [], Disk()
    for cut_at, half, kill, count in lives:
        disk.cut_at, disk.half = cut_at, half
        run(disk, used, count, block)
        disk = next_life(disk, kill, choose)
    assert run(disk, used, 3, block)
    assert len(set(used)) == len(used)


def test_the_simulated_disk_betrays_a_store_that_does_not_sync():
    def repeats(seed: int) -> bool:
        used: list[int] = []
        disk = Disk(syncs=False)
        try:
            for life in range(4):
                disk.cut_at = 25
                run(disk, used, 9, 3)
                disk = disk.after_power_cut(random.Random(f"{seed}/{life}"))
        except AssertionError:  # the record was lost although numbers were used
            return True
        return len(set(used)) != len(used)

    assert any(repeats(seed) for seed in range(20))


@pytest.mark.parametrize("step", range(12))
def test_a_disk_that_fails_stops_the_sender_and_repeats_no_number(step):
    disk = Disk()
    used: list[int] = []
    assert run(disk, used, 2, 2)
    disk.operations, disk.fail = 0, step
    refused = 0
    try:
        store = FileSequenceStore(FOLDER, files=disk)
        sequence = SenderSequence(store, RECORD, block=2)
        for _ in range(8):
            try:
                used.append(sequence.next())
            except SequenceError:
                refused += 1
    except SequenceError:
        refused += 1
    assert refused == 1, "one failing operation stops one number and nothing after it"
    assert run(disk.after_power_cut(random.Random(step)), used, 3, 2)
    assert len(set(used)) == len(used)


def test_kill_9_of_a_real_process_repeats_no_number(tmp_path):
    program = (
        "import sys, pathlib\n"
        "from vitalgate.oscore.sequence import *\n"
        "store = FileSequenceStore(pathlib.Path(sys.argv[1]))\n"
        "sequence = SenderSequence(store, sys.argv[2], block=3)\n"
        "while True: sys.stdout.write(f'{sequence.next()}\\n'); sys.stdout.flush()\n"
    )
    store = FileSequenceStore(tmp_path)
    store.create(RECORD)
    store.close()
    used: list[int] = []
    for lines in (1, 4, 5, 9):
        process = subprocess.Popen([sys.executable, "-c", program, tmp_path, RECORD], stdout=subprocess.PIPE)
        head = [process.stdout.readline() for _ in range(lines)]
        process.send_signal(signal.SIGKILL)
        # What it had written before it died counts too; a last line without its end was not yet told in full.
        rest = process.stdout.read().splitlines(keepends=True)
        process.wait()
        process.stdout.close()
        used += [int(line) for line in head + rest if line.endswith(b"\n")]
    assert len(used) >= 19
    assert len(set(used)) == len(used)


def test_the_files_are_private_and_nothing_is_left_beside_them(tmp_path):
    old = os.umask(0)
    try:
        store = FileSequenceStore(tmp_path)
        store.create(RECORD)
        sequence = SenderSequence(store, RECORD, block=2)
        assert [sequence.next() for _ in range(5)] == [0, 1, 2, 3, 4]
    finally:
        os.umask(old)
    assert {path.name for path in tmp_path.iterdir()} == {".lock", f"{RECORD}.seq"}
    for path in tmp_path.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert store.load(RECORD) == 6
    store.remove(RECORD)
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_everything_is_synced_before_it_is_relied_on(tmp_path):
    calls: list[str] = []

    class Traced(OsFiles):
        def __getattribute__(self, name):
            calls.append(name)
            return super().__getattribute__(name)

    store = FileSequenceStore(tmp_path, files=Traced())
    store.create(RECORD)
    calls.clear()
    store.reserve(RECORD, 10)
    assert calls == ["read", "remove", "create", "write", "sync", "close", "replace", "sync_folder"]


def test_a_second_store_on_the_folder_is_refused(tmp_path):
    first = FileSequenceStore(tmp_path)
    with pytest.raises(SequenceError, match="another process"):
        FileSequenceStore(tmp_path)
    first.create(RECORD)
    first.close()
    with pytest.raises(SequenceError, match="closed"):
        first.load(RECORD)
    with FileSequenceStore(tmp_path) as second:
        assert second.load(RECORD) == 0


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(SequenceError, match="cannot use"):
        FileSequenceStore(tmp_path / "absent")


@pytest.mark.parametrize("name", ["", "../x", "a b", "a/b"])
def test_a_record_name_is_never_a_path(tmp_path, name):
    with FileSequenceStore(tmp_path) as store, pytest.raises(ValueError):
        store.create(name)


@settings(derandomize=True, deadline=None, max_examples=200)
@given(data=st.binary(max_size=60))
def test_a_damaged_record_stops_the_sender(data):
    disk = Disk(names={FOLDER / f"{RECORD}.seq": Inode(data, data)})
    store = FileSequenceStore(FOLDER, files=disk)
    with pytest.raises(SequenceError, match="damaged"):
        SenderSequence(store, RECORD)


def test_a_record_of_another_key_is_not_taken(tmp_path):
    other = "11ee" * 8
    with FileSequenceStore(tmp_path) as store:
        store.create(other)
        (tmp_path / f"{other}.seq").rename(tmp_path / f"{RECORD}.seq")
        with pytest.raises(SequenceError, match="damaged"):
            store.load(RECORD)


@pytest.mark.parametrize("kind", ["memory", "file"])
def test_the_store_interface(tmp_path, kind):
    store = MemorySequenceStore() if kind == "memory" else FileSequenceStore(tmp_path)
    with pytest.raises(SequenceError, match="no sequence record"):
        store.load(RECORD)
    with pytest.raises(SequenceError, match="no sequence record"):
        store.reserve(RECORD, 5)
    store.create(RECORD)
    with pytest.raises(SequenceError, match="already"):
        store.create(RECORD)
    store.reserve(RECORD, 5)
    with pytest.raises(SequenceError, match="never go back"):
        store.reserve(RECORD, 4)
    assert store.load(RECORD) == 5
    store.remove(RECORD)
    store.remove(RECORD)
    with pytest.raises(SequenceError, match="no sequence record"):
        store.load(RECORD)


def test_the_last_number_is_2_to_the_40_less_1():
    store = MemorySequenceStore()
    store.create(RECORD)
    store.reserve(RECORD, LIMIT - 5)
    sequence = SenderSequence(store, RECORD, block=3)
    assert [sequence.next() for _ in range(5)] == list(range(LIMIT - 5, LIMIT))
    for _ in range(3):
        with pytest.raises(SequenceError, match="new keys"):
            sequence.next()
    with pytest.raises(SequenceError):
        SenderSequence(store, RECORD).next()


def test_a_block_has_a_number():
    store = MemorySequenceStore()
    store.create(RECORD)
    with pytest.raises(ValueError):
        SenderSequence(store, RECORD, block=0)

"""The store's promises on delivery: each entry once, all or nothing, every gap accounted for."""

import itertools
import os
import sqlite3
from collections import Counter

import pytest
import sqlalchemy as sa
from cloudkit import DEVICE, START, Clock, Spool
from hypothesis import given, settings
from hypothesis import strategies as st

from vitalgate.cloud.enrolment import MAX_IDENTITIES
from vitalgate.cloud.store import commit as commit_module
from vitalgate.cloud.store import gateways as gateways_module
from vitalgate.cloud.store.commit import Delivery, Refusal
from vitalgate.cloud.store.errors import Reason, StoreUnavailable
from vitalgate.cloud.store.gateways import NOSEC
from vitalgate.cloud.store.ranges import Ranges
from vitalgate.cloud.store.store import Store
from vitalgate.gateway.notice import DeviceGap, EpochOpened, Gap, Quarantined
from vitalgate.gateway.secrets import FixedKeys

OTHER = "urn:dev:mac:acde48234567019f"


def counted(store):
    with store.database.reading() as connection:
        return connection.exec_driver_sql("SELECT count(*) FROM entries").scalar()


def dump(store):
    """Every row of every table but the salts of runs."""
    with store.database.reading() as connection:
        tables = connection.exec_driver_sql("SELECT name FROM sqlite_master WHERE type = 'table'").scalars().all()
        return {name: connection.exec_driver_sql(f"SELECT * FROM {name}").all() for name in tables if name != "seals"}


def test_what_was_committed_comes_back_exactly(store, spool, clock):
    entries = (spool.numerics(patient="P-17", location="Bed 4"), spool.wave(), spool.alarm())
    outcome = store.commit([Delivery("gw-1", entries, "oscore")])[0]
    assert (outcome.new, outcome.duplicates, outcome.refusal) == (entries, 0, None)
    found = {entry.sequence: entry for entry in store.read.latest(DEVICE)}
    for entry in entries:
        assert found[entry.sequence].observations == entry.observations
        assert found[entry.sequence].frame_hash == entry.frame_hash
        assert found[entry.sequence].traffic_class is entry.traffic_class
    assert str(found[1].observations[0].value) == "72.50"


def test_replaying_every_delivery_changes_nothing(store, location, keys, clock):
    spools = [Spool(epoch, clock) for epoch in (1, (1 << 64) - 1)]
    batch = []
    for spool in spools:
        batch.append(Delivery(f"gw-{spool.epoch}", (spool.notice(EpochOpened(0, 0, "first start")),), "oscore"))
        batch += [
            Delivery(
                f"gw-{spool.epoch}", (spool.numerics(f"{DEVICE}-{spool.epoch}"), spool.wave(f"{DEVICE}-{spool.epoch}"))
            )
            for _ in range(5)
        ]
        batch.append(Delivery(f"gw-{spool.epoch}", (spool.notice(Quarantined("ttyS1", "nonin", "501", 3, START)),)))
        batch.append(Delivery(f"gw-{spool.epoch}", (spool.notice(DeviceGap("", START, START + 1, "gateway stopped")),)))
    first = store.commit(batch)
    assert all(outcome.duplicates == 0 and outcome.refusal is None for outcome in first)
    before = dump(store)
    clock.pass_(3)
    for outcome, delivery in zip(store.commit(batch), batch, strict=True):
        assert (outcome.new, outcome.duplicates) == ((), len(delivery.entries))
    assert dump(store) == before
    store.close()
    again = Store(location, keys, wall=clock)  # what is in memory is gone: the rows alone decide
    assert [outcome.duplicates for outcome in again.commit(batch)] == [len(d.entries) for d in batch]
    after = dump(again)
    again.close()
    for name in before:
        if name != "latency":  # written down when the store was closed
            assert after[name] == before[name], name


def test_a_copy_within_one_batch_is_stored_once(store, spool):
    entry = spool.numerics()
    outcomes = store.commit([Delivery("gw-1", (entry, entry)), Delivery("gw-1", (entry,))])
    assert [(len(o.new), o.duplicates) for o in outcomes] == [(1, 1), (0, 1)]
    assert store.read.frame_hashes() == {DEVICE: Counter({entry.frame_hash: 1})}


@settings(max_examples=25)
@given(st.data())
def test_any_order_any_repetition_any_batching_stores_each_entry_once(tmp_path_factory, data):
    clock = Clock()
    keys = FixedKeys(os.urandom(32))
    location = tmp_path_factory.mktemp("store") / "store.db"
    spools = [Spool(7, clock), Spool(8, clock)]
    entries = [spool.numerics(f"{DEVICE}-{spool.epoch}") for spool in spools for _ in range(8)]
    sent = data.draw(st.lists(st.sampled_from(entries), max_size=40))
    store = Store(location, keys, wall=clock)
    try:
        while sent:
            cut = data.draw(st.integers(1, 6))
            batch, sent = sent[:cut], sent[cut:]
            store.commit([Delivery("gw-1", (entry,)) for entry in batch])
            if data.draw(st.integers(0, 5)) == 0:  # a crash: no close, a new process opens the file
                store.database.engine.dispose()
                store = Store(location, keys, wall=clock)
        store.commit([Delivery("gw-1", tuple(entries))])
        for hashes in store.read.frame_hashes().values():
            assert set(hashes.values()) == {1}
        assert sum(hashes.total() for hashes in store.read.frame_hashes().values()) == len(entries)
        for account in store.read.accounts():
            assert (account.contiguous, account.stored, account.missing, account.holes) == (8, 8, 0, ())
    finally:
        store.close()


class Crash(Exception):
    """Stands for the process ending here."""


@pytest.mark.parametrize("point", ["after taking", "at inserting", "before commit"])
def test_a_crash_before_the_commit_leaves_nothing_and_after_it_everything(
    store, location, keys, clock, spool, monkeypatch, point
):
    kept = (spool.numerics(),)
    store.commit([Delivery("gw-1", kept)])
    before = dump(store)
    lost = (spool.numerics(), spool.notice(EpochOpened(5, 3, "gateway crashed")), spool.numerics(OTHER))

    def crash(*arguments):
        raise Crash

    with monkeypatch.context() as patch:
        if point == "after taking":
            patch.setattr(commit_module.EpochState, "settle", crash)
        elif point == "at inserting":
            patch.setattr(commit_module.epoch_rows, "saved", crash)
        else:
            patch.setattr(commit_module.Committer, "_write_latencies", crash)
        with pytest.raises(Crash):
            store.commit([Delivery("gw-1", lost)])
    assert dump(store) == before
    # The same process goes on as if nothing had been: memory followed the disk.
    assert store.commit([Delivery("gw-1", kept + lost)])[0].new == lost
    store.database.engine.dispose()
    again = Store(location, keys, wall=clock)
    assert again.commit([Delivery("gw-1", kept + lost)])[0].duplicates == 4
    again.close()


def test_a_full_store_takes_nothing_and_goes_on_when_there_is_room(store, spool):
    store.commit([Delivery("gw-1", (spool.numerics(),))])
    engine = store.database.engine

    def limit(pages):
        # `max_page_count` belongs to a connection: set it on all that the pool makes from now on.
        engine.dispose()
        sa.event.listen(engine, "connect", set_limit)
        set_limit.pages = pages

    def set_limit(connection, entry):
        connection.execute(f"PRAGMA max_page_count = {set_limit.pages}")

    with store.database.reading() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
    limit(pages + 2)
    entries = tuple(spool.wave(data=os.urandom(400)) for _ in range(100))
    before = counted(store)
    with pytest.raises(StoreUnavailable) as refused:
        store.commit([Delivery("gw-1", entries)])
    assert refused.value.reason is Reason.FULL
    assert counted(store) == before
    set_limit.pages = 1 << 30
    engine.dispose()
    assert store.commit([Delivery("gw-1", entries)])[0].new == entries


def test_a_locked_store_is_said_to_be_locked(location, keys, clock, spool):
    store = Store(location, keys, wall=clock, busy_timeout_ms=1)
    store.commit([Delivery("gw-1", (spool.numerics(),))])
    other = sqlite3.connect(location, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    entry = spool.numerics()
    with pytest.raises(StoreUnavailable) as refused:
        store.commit([Delivery("gw-1", (entry,))])
    assert refused.value.reason is Reason.LOCKED
    other.execute("ROLLBACK")
    other.close()
    assert store.commit([Delivery("gw-1", (entry,))])[0].new == (entry,)
    store.close()


def test_two_processes_on_one_file_never_store_an_entry_twice(location, keys, clock, spool):
    here, there = Store(location, keys, wall=clock), Store(location, keys, wall=clock)
    first, second, third = (spool.numerics() for _ in range(3))
    here.commit([Delivery("gw-1", (first,))])
    assert there.commit([Delivery("gw-1", (first, second))])[0].new == (second,)
    # `here` believes that the second is new; the database's constraint says otherwise, so it reads again.
    outcome = here.commit([Delivery("gw-1", (second, third))])[0]
    assert (outcome.new, outcome.duplicates) == ((third,), 1)
    assert counted(here) == 3
    here.close()
    there.close()


def test_an_epoch_belongs_to_its_gateway_and_a_device_too(store, clock):
    mine, foreign = Spool(10, clock), Spool(11, clock)
    store.commit([Delivery("gw-1", (mine.numerics(),))])
    stolen = Delivery("gw-2", (foreign.notice(EpochOpened(0, 0, "first start")), mine.numerics(OTHER)))
    assert store.commit([stolen])[0].refusal is Refusal.FOREIGN_EPOCH
    posing = foreign.numerics(DEVICE)
    assert store.commit([Delivery("gw-2", (posing,))])[0].refusal is Refusal.FOREIGN_DEVICE
    about = foreign.notice(DeviceGap(DEVICE, START, START + 1, "x"))
    assert store.commit([Delivery("gw-2", (about,))])[0].refusal is Refusal.FOREIGN_DEVICE
    assert counted(store) == 1
    store.set_revoked("gw-1")
    assert store.commit([Delivery("gw-1", (mine.numerics(),))])[0].refusal is Refusal.REVOKED
    assert store.commit([Delivery("gw-2", (posing,))])[0].new == (posing,)  # the device has moved
    store.set_revoked("gw-1", False)
    assert store.commit([Delivery("gw-1", (mine.numerics(),))])[0].refusal is Refusal.FOREIGN_DEVICE
    store.move_device(DEVICE, "gw-1", actor="mary")
    assert store.commit([Delivery("gw-1", (mine.numerics(),))])[0].refusal is None
    assert [row.action for row in store.audit.rows()] == [
        "device_moved", "gateway_restored", "device_moved", "gateway_revoked",
    ]  # fmt: skip


def test_a_refused_delivery_holds_up_no_other(store, clock):
    good, bad = Spool(10, clock), Spool(11, clock)
    store.set_revoked("gw-2")
    outcomes = store.commit([Delivery("gw-2", (bad.numerics(OTHER),)), Delivery("gw-1", (good.numerics(),))])
    assert [outcome.refusal for outcome in outcomes] == [Refusal.REVOKED, None]
    assert counted(store) == 1


def test_revocation_in_another_process_counts_at_the_next_commit(location, keys, clock, spool):
    here, there = Store(location, keys, wall=clock), Store(location, keys, wall=clock)
    here.commit([Delivery("gw-1", (spool.numerics(),))])
    there.set_revoked("gw-1", actor="operator")
    assert here.commit([Delivery("gw-1", (spool.numerics(),))])[0].refusal is Refusal.REVOKED
    here.close()
    there.close()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda s: s.notice(EpochOpened(1 << 64, 0, "")),
        lambda s: s.notice(Gap("", 1, 1, 1 << 63, 1, 0.0, 1.0, "")),
        lambda s: s.notice(Gap("", -1, 1, 2, 1, 0.0, 1.0, "")),
        lambda s: s.notice(DeviceGap("", 0.0, 1.0, "", -5)),
        lambda s: s.notice(Quarantined("", "", "", 1 << 70, 0.0)),
    ],
)
def test_numbers_that_fit_no_column_are_refused(store, spool, spoil):
    assert store.commit([Delivery("gw-1", (spoil(spool),))])[0].refusal is Refusal.OUT_OF_RANGE
    assert counted(store) == 0


def test_holes_and_declared_gaps_are_told_apart(store, spool, clock):
    first = spool.numerics()
    dropped = spool.skip(3)
    missing = spool.skip(2)
    last = spool.numerics()
    store.commit([Delivery("gw-1", (first, last))])
    gap = spool.notice(Gap(DEVICE, spool.epoch, dropped[0], dropped[-1], 3, START, START + 2, "spool full"), DEVICE)
    store.commit([Delivery("gw-1", (gap,))])
    account = store.read.accounts()[0]
    assert account.holes == ((missing[0], missing[-1]),)
    assert (account.contiguous, account.highest, account.stored, account.declared, account.missing) == (4, 8, 3, 3, 2)
    row = store.read.gaps()[0]
    assert (row.gateway, row.device, row.kind, row.cause, row.first, row.last, row.count, row.epoch) == (
        "gw-1", DEVICE, "dropped", "spool full", dropped[0], dropped[-1], 3, spool.epoch,
    )  # fmt: skip


def test_an_entry_that_was_declared_dropped_and_comes_after_all_is_kept_once(store, location, keys, spool, clock):
    first, late, last = (spool.numerics() for _ in range(3))
    gap = spool.notice(Gap(DEVICE, spool.epoch, late.sequence, late.sequence, 1, START, START, "spool full"), DEVICE)
    store.commit([Delivery("gw-1", (first, last, gap))])
    assert store.read.accounts()[0].contiguous == 4
    assert store.commit([Delivery("gw-1", (late,))])[0].new == (late,)
    store.close()
    again = Store(location, keys, wall=clock)
    assert again.commit([Delivery("gw-1", (late,))])[0].duplicates == 1
    again.close()


def test_a_new_epoch_shows_what_the_old_one_never_delivered(store, clock):
    old, new = Spool(10, clock), Spool(11, clock)
    delivered = (old.numerics(), old.numerics())
    never = old.skip(3)
    store.commit([Delivery("gw-1", delivered)])
    store.commit([Delivery("gw-1", (new.notice(EpochOpened(10, never[-1], "gateway crashed")),))])
    accounts = {account.epoch: account for account in store.read.accounts()}
    assert accounts[10].holes == ((3, 5),)
    assert accounts[10].missing == 3
    assert accounts[11].previous_epoch == 10
    # An epoch that the cloud never heard of, named by its successor, is one whole hole.
    third = Spool(13, clock)
    store.commit([Delivery("gw-1", (third.notice(EpochOpened(12, 4, "gateway crashed")),))])
    assert {a.epoch: a for a in store.read.accounts()}[12].holes == ((1, 4),)


def test_a_gateway_cannot_declare_gaps_in_anothers_epoch(store, location, keys, clock):
    mine, foreign = Spool(10, clock), Spool(11, clock)
    first = mine.numerics()
    mine.skip()
    last = mine.numerics()
    store.commit([Delivery("gw-1", (first, last))])
    lie = foreign.notice(Gap("", 10, 2, 2, 1, START, START, "a lie"))
    assert store.commit([Delivery("gw-2", (lie,))])[0].new == (lie,)
    store.close()
    again = Store(location, keys, wall=clock)
    assert {a.epoch: a for a in again.read.accounts()}[10].holes == ((2, 2),)
    again.close()


def test_quarantine_keeps_the_newest_report_and_is_bounded(store, spool, clock):
    older = spool.notice(Quarantined("ttyS1", "nonin", "501", 3, START))
    clock.pass_(10)
    newer = spool.notice(Quarantined("ttyS1", "nonin", "501", 9, START))
    store.commit([Delivery("gw-1", (newer,)), Delivery("gw-1", (older,))])
    row = store.read.quarantine()[0]
    assert (row.gateway, row.kind, row.port, row.serial, row.frames) == ("gw-1", "nonin", "ttyS1", "501", 9)
    for number in range(300):
        clock.pass_(1)
        store.commit([Delivery("gw-1", (spool.notice(Quarantined("ttyS1", "nonin", str(number), 1, START)),))])
    rows = store.read.quarantine()
    assert len(rows) == 256
    assert rows[0].serial == "299"


def test_a_source_leaves_quarantine_when_the_gateway_releases_it(store, spool, clock):
    def report(serial, frames):
        clock.pass_(1)
        return spool.notice(Quarantined("ttyS1", "nonin", serial, frames, START))

    def serials():
        return sorted(row.serial for row in store.read.quarantine())

    late = report("501", 2)
    store.commit([Delivery("gw-1", (report("501", 3), report("502", 1)))])
    store.commit([Delivery("gw-2", (Spool(99, clock).notice(Quarantined("ttyS1", "nonin", "501", 3, START)),))])
    store.commit([Delivery("gw-1", (report("501", 0),))])
    assert serials() == ["501", "502"], "gw-2's is another source"
    store.commit([Delivery("gw-1", (late,))])
    assert serials() == ["501", "502"], "a report from before the release changes nothing"
    store.commit([Delivery("gw-1", (report("501", 1),))])
    assert serials() == ["501", "501", "502"], "it was bound and is no longer: it is back"
    for number in range(255):
        store.commit([Delivery("gw-1", (report(f"x{number}", 1), report(f"x{number}", 0)))])
    assert serials() == ["501", "501", "502"], "releases make room before sources do"


def test_a_gateway_that_starts_anew_begins_without_quarantine(store, clock):
    before, after = Spool(12, clock), Spool(13, clock)
    late = before.notice(Quarantined("ttyS1", "nonin", "503", 1, START))
    store.commit([Delivery("gw-1", (before.notice(Quarantined("ttyS1", "nonin", "501", 3, START)),))])
    store.commit([Delivery("gw-2", (Spool(99, clock).notice(Quarantined("ttyS1", "nonin", "504", 3, START)),))])
    clock.pass_(60)  # in which 501 is enrolled
    opened = after.notice(EpochOpened(12, 2, "gateway stopped"))
    clock.pass_(1)
    store.commit([Delivery("gw-1", (after.notice(Quarantined("ttyS2", "nonin", "502", 1, START)), opened))])
    store.commit([Delivery("gw-1", (late,))])
    assert sorted(row.serial for row in store.read.quarantine()) == ["502", "504"]


def test_latency_is_measured_from_the_last_byte_to_the_end_of_the_commit(store, spool, clock):
    for delay in range(1, 101):
        entry = spool.numerics()
        clock.pass_(delay / 1000)
        store.commit([Delivery("gw-1", (entry,))])
        store.commit([Delivery("gw-1", (entry,))])  # a duplicate counts no second time
    summary = store.latency()
    assert summary.count == 100
    assert summary.p50 == pytest.approx(0.050, rel=0.01)
    assert summary.p99 == pytest.approx(0.099, rel=0.01)
    assert summary.maximum == pytest.approx(0.100)


def test_latencies_outlive_the_process(store, location, keys, spool, clock):
    entry = spool.numerics()
    clock.pass_(0.25)
    store.commit([Delivery("gw-1", (entry,))])
    store.close()
    again = Store(location, keys, wall=clock)
    assert again.latency().count == 0
    assert again.read.latency().count == 1
    assert again.read.latency().maximum == pytest.approx(0.25)
    again.close()


def test_totals(store, spool):
    gap = DeviceGap(DEVICE, START, START + 5, "gateway stopped")
    store.commit([Delivery("gw-1", (spool.numerics(), spool.wave(), spool.notice(gap, DEVICE)))])
    totals = store.read.totals()
    assert (totals.gateways, totals.devices, totals.entries) == (1, 1, 3)
    assert (totals.observations, totals.samples, totals.device_gaps, totals.dropped) == (3, 50, 1, 0)


@given(st.lists(st.tuples(st.integers(1, 60), st.integers(0, 9)), max_size=30))
def test_ranges_agree_with_a_set(pieces):
    ranges, numbers = Ranges(), set()
    for first, length in pieces:
        ranges.add(first, first + length - 1)
        numbers |= set(range(first, first + length))
    assert {n for first, last in ranges for n in range(first, last + 1)} == numbers
    assert all((n in ranges) == (n in numbers) for n in range(75))
    assert {n for a, b in ranges.missing(70) for n in range(a, b + 1)} == set(range(1, 71)) - numbers
    pairs = list(ranges)
    assert all(b + 1 < c for (_, b), (c, _) in itertools.pairwise(pairs))
    assert ranges.highest == max(numbers, default=0)
    assert all(ranges.end_of(n) == next((b for a, b in pairs if a <= n <= b), 0) for n in range(75))


def test_a_gateway_that_makes_up_devices_leaves_room_for_the_others(store, clock, monkeypatch):
    monkeypatch.setattr(gateways_module, "MAX_DEVICES_OF_GATEWAY", 3)
    greedy, modest = Spool(1, clock), Spool(2, clock)
    made_up = [f"urn:dev:os:32473-{number}" for number in range(4)]
    outcomes = store.commit([Delivery("gw-1", (greedy.numerics(urn),)) for urn in made_up])
    assert [outcome.refusal for outcome in outcomes] == [None, None, None, Refusal.LIMIT]
    told = greedy.notice(DeviceGap(made_up[3], START, START + 1, "line silent"))
    assert store.commit([Delivery("gw-1", (told,))])[0].refusal is Refusal.LIMIT
    both = store.commit([Delivery("gw-2", (modest.numerics(),)), Delivery("gw-1", (greedy.numerics(made_up[0]),))])
    assert [outcome.refusal for outcome in both] == [None, None]
    assert {row.urn for row in store.read.devices()} == {*made_up[:3], DEVICE}


def test_names_that_anybody_may_make_up_leave_room_for_enrolled_gateways(store, clock, monkeypatch):
    monkeypatch.setattr(gateways_module, "MAX_UNPROTECTED", 2)
    epochs = itertools.count(1)

    def refusal(name, security):
        entry = Spool(next(epochs), clock).notice(EpochOpened(0, 0, "first start"))
        return store.commit([Delivery(name, (entry,), security)])[0].refusal

    assert [refusal(f"unprotected:{number}", NOSEC) for number in range(3)] == [None, None, Refusal.LIMIT]
    assert refusal("unprotected:0", NOSEC) is None
    assert refusal("ward-3", "coap-oscore") is None
    assert gateways_module.MAX_UNPROTECTED < gateways_module.MAX_GATEWAYS - MAX_IDENTITIES

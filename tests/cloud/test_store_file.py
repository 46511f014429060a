"""The database file: its settings, its schema and versions, and that nothing readable lies in it."""

import os
import sqlite3
import stat
from typing import ClassVar

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from cloudkit import DEVICE, START, Spool

from vitalgate.cloud.audit import Action
from vitalgate.cloud.store import dialect
from vitalgate.cloud.store import keys as keys_module
from vitalgate.cloud.store.commit import Delivery
from vitalgate.cloud.store.database import Database
from vitalgate.cloud.store.errors import Reason, StoreError, StoreKeyError, StoreUnavailable, StoreVersionError
from vitalgate.cloud.store.keys import Keys
from vitalgate.cloud.store.migrate import SCHEMA_VERSION, migrate, schema_version
from vitalgate.cloud.store.retention import DAY, STEP, Retention, RetentionPolicy
from vitalgate.cloud.store.schema import metadata
from vitalgate.cloud.store.store import Store
from vitalgate.gateway.notice import DeviceGap, Quarantined
from vitalgate.gateway.secrets import FixedKeys, Keystore, MasterKey


def everything(folder):
    """Every byte of every file in a folder, write-ahead log included."""
    return b"".join(path.read_bytes() for path in sorted(folder.iterdir()))


def test_a_commit_is_on_the_disk_when_it_returns(store):
    found = dialect.settings(store.database.engine)
    assert (found["journal_mode"], found["synchronous"]) == ("wal", 2)  # 2 is FULL
    assert found["foreign_keys"] == 1
    assert found["busy_timeout"] == dialect.BUSY_TIMEOUT_MS
    assert found == dialect.PRAGMAS | {"busy_timeout": dialect.BUSY_TIMEOUT_MS}
    with store.database.writing() as connection:  # the connection that commits
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2


def test_only_the_owner_can_read_the_file(store, location):
    assert stat.S_IMODE(location.stat().st_mode) == 0o600
    assert stat.S_IMODE(location.parent.stat().st_mode) == 0o700


def test_migrations_and_tables_say_the_same(store):
    with store.database.reading() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []
        assert schema_version(connection) == SCHEMA_VERSION


def test_a_store_of_version_1_is_upgraded_with_all_it_holds(location, keys, clock, spool):
    engine = dialect.open_engine(location)
    assert migrate(engine, "0001") is True
    made = Keys(keys)
    with dialect.for_writing(engine).begin() as connection:
        made.attach(connection, new=True)
        connection.exec_driver_sql("INSERT INTO meta (name, value) VALUES ('generation', x'0000000000000000')")
        made.use_run(made.begin_run(connection))
        connection.exec_driver_sql(
            "INSERT INTO gateways (name_key, sealed_name, created_at, security) VALUES (?, ?, ?, ?)",
            (made.lookup("gateway", "gw-old"), made.seal_text("gw-old", "gateway name"), START, "oscore"),
        )
        with pytest.raises(sa.exc.OperationalError):
            connection.exec_driver_sql("SELECT * FROM users")
    engine.dispose()
    store = Store(location, keys, wall=clock)
    assert [row.name for row in store.read.gateways()] == ["gw-old"]
    store.commit([Delivery("gw-old", (spool.numerics(),), "oscore")])
    store.audit.record(Action.SIGNED_IN, actor="mary")
    assert store.audit.verify().is_whole
    store.close()
    with dialect.open_engine(location).connect() as connection:
        assert schema_version(connection) == SCHEMA_VERSION


def test_a_migration_that_fails_leaves_the_old_schema(location, keys, monkeypatch):
    engine = dialect.open_engine(location)
    migrate(engine, "0001")

    def fail(connection):
        assert "audit" in sa.inspect(connection).get_table_names()  # half of the work is done
        raise RuntimeError("the power failed")

    with monkeypatch.context() as patch:
        patch.setattr(dialect, "protect_audit", fail)
        with pytest.raises(RuntimeError):
            migrate(engine)
    with engine.connect() as connection:
        assert schema_version(connection) == "0001"
        assert "users" not in sa.inspect(connection).get_table_names()
    engine.dispose()
    Store(location, keys).close()


def test_a_newer_store_is_refused_with_what_to_do(store, location, keys):
    store.close()
    raw = sqlite3.connect(location)
    raw.execute("UPDATE alembic_version SET version_num = '0999'")
    raw.commit()
    raw.close()
    with pytest.raises(StoreVersionError, match=r"0999.*up to.*install the program"):
        Store(location, keys)


def test_other_files_are_refused(tmp_path, keys):
    (tmp_path / "text.db").write_text("this is no database, but it is long enough to be looked at " * 20)
    with pytest.raises(StoreError, match="no database"):
        Store(tmp_path / "text.db", keys)
    raw = sqlite3.connect(tmp_path / "other.db")
    raw.execute("CREATE TABLE songs (title TEXT)")
    raw.commit()
    raw.close()
    with pytest.raises(StoreError, match="something else"):
        Store(tmp_path / "other.db", keys)
    with pytest.raises(StoreError, match="postgresql"):
        Store("postgresql://host/name", keys)
    (tmp_path / "blocked").write_text("")
    with pytest.raises(StoreError, match="cannot be made"):
        Store(tmp_path / "blocked" / "store.db", keys)


def test_another_key_is_refused(store, location):
    store.close()
    with pytest.raises(StoreKeyError):
        Store(location, FixedKeys(os.urandom(32)))


def test_nothing_readable_lies_in_the_file(store, location, spool, clock):
    entries = (
        spool.numerics(patient="PATIENT-4711", location="WARD-SEVEN", label="SECRETLABEL", heart_rate="173.25"),
        spool.wave(data=b"WAVEWAVEWAVEWAVE" * 4),
        spool.alarm(text="ASYSTOLE-NOW"),
        spool.notice(Quarantined("/dev/ttySECRET", "nonin", "SERIAL-0815", 3, START)),
        spool.notice(DeviceGap(DEVICE, START, START + 1, "gateway stopped"), DEVICE),
    )
    store.commit([Delivery("gateway-in-the-cellar", entries, "oscore")])
    store.name_device(DEVICE, "BED-FOUR-LABEL", actor="ACTOR-MARY")
    known = [
        "PATIENT-4711", "WARD-SEVEN", "SECRETLABEL", "173.25", "WAVEWAVE", "ASYSTOLE", "ttySECRET", "SERIAL-0815",
        DEVICE, "0024befffe804ff1", "gateway-in-the-cellar", "BED-FOUR", "ACTOR-MARY", "ivy450c",
    ]  # fmt: skip

    def found():
        data = everything(location.parent)
        texts = [text for text in known if text.encode() in data or text.encode("utf-16-le") in data]
        return texts, [entry.sequence for entry in entries[:3] if entry.frame_hash in data]

    assert found() == ([], [])
    assert len(everything(location.parent)) > 10_000  # there was something to look at
    store.close()
    assert found() == ([], [])


def test_sealed_content_moved_to_another_row_does_not_open(store, spool):
    store.commit([Delivery("gw-1", (spool.numerics(), spool.numerics(heart_rate="40")))])
    with store.database.writing() as connection:
        connection.exec_driver_sql(
            "UPDATE entries SET sealed_content = (SELECT sealed_content FROM entries WHERE sequence = 2) "
            "WHERE sequence = 1"
        )
    with pytest.raises(StoreKeyError):
        store.read.latest(DEVICE)


@pytest.mark.parametrize("spoil", [lambda b: b[:20], lambda b: b[:-1] + bytes([b[-1] ^ 1]), lambda b: b"\xff" * len(b)])
def test_altered_content_gives_the_one_documented_error(store, spool, spoil):
    store.commit([Delivery("gw-1", (spool.numerics(),))])
    with store.database.writing() as connection:
        blob = connection.exec_driver_sql("SELECT sealed_content FROM entries").scalar()
        connection.exec_driver_sql("UPDATE entries SET sealed_content = ?", (spoil(blob),))
    with pytest.raises(StoreKeyError):
        store.read.latest(DEVICE)


class RecordingAead:
    """Notes (key, nonce) of everything sealed, then seals for real."""

    used: ClassVar[list[tuple[bytes, bytes]]] = []

    def __init__(self, key):
        self.key = key
        self.real = REAL_AEAD(key)

    def encrypt(self, nonce, data, context):
        self.used.append((self.key, nonce))
        return self.real.encrypt(nonce, data, context)

    def decrypt(self, nonce, data, context):
        return self.real.decrypt(nonce, data, context)


REAL_AEAD = keys_module.AESGCM


def test_no_nonce_comes_twice_even_from_a_restored_backup(location, keys, clock, monkeypatch):
    RecordingAead.used = used = []
    monkeypatch.setattr(keys_module, "AESGCM", RecordingAead)
    spool = Spool(1, clock)
    store = Store(location, keys, wall=clock)
    store.commit([Delivery("gw-1", tuple(spool.numerics() for _ in range(20)))])
    store.close()
    yesterday = location.read_bytes()
    for _ in range(3):  # three days on, each from the same restored backup
        location.write_bytes(yesterday)
        for side in (".db-wal", ".db-shm"):
            location.with_suffix(side).unlink(missing_ok=True)
        store = Store(location, keys, wall=clock)
        store.commit([Delivery("gw-1", tuple(spool.numerics() for _ in range(20)))])
        with pytest.raises(StoreUnavailable), store.database.writing():  # a transaction undone
            store.database.keys.seal(b"x", b"y")
            raise StoreUnavailable(Reason.IO)
        store.audit.record(Action.RETENTION)
        store.close()
    assert len(used) > 80
    assert len(set(used)) == len(used)
    assert len({key for key, _ in used}) == 4


def test_the_salt_of_a_run_is_durable_before_anything_is_sealed_with_it(store, spool, monkeypatch):
    def fail(*arguments):
        raise StoreUnavailable(Reason.FULL)

    with monkeypatch.context() as patch:
        patch.setattr(Keys, "begin_run", fail)
        with pytest.raises(StoreUnavailable):
            store.commit([Delivery("gw-1", (spool.numerics(),))])
    assert not store.database.keys.in_run
    with pytest.raises(StoreKeyError):
        store.database.keys.seal(b"x", b"y")
    store.commit([Delivery("gw-1", (spool.numerics(),))])
    assert len(store.read.latest(DEVICE)) == 1


def test_a_forked_process_does_not_seal_under_its_parents_run(store, spool, monkeypatch):
    store.commit([Delivery("gw-1", (spool.numerics(),))])
    parent = os.getpid()
    monkeypatch.setattr(os, "getpid", lambda: parent + 1)
    assert not store.database.keys.in_run
    with pytest.raises(StoreKeyError):
        store.database.keys.seal(b"x", b"y")


def test_data_keys_may_be_rotated(location, tmp_path, clock, spool):
    keystore = Keystore.open(tmp_path / "keys", MasterKey(os.urandom(32)))
    store = Store(location, keystore, wall=clock)
    store.commit([Delivery("gw-1", (spool.numerics(),))])
    old = keystore.data_key("store")
    keystore.rotate("store")
    keystore.rotate("store-index")  # has no effect on a store that exists
    store.close()
    store = Store(location, keystore, wall=clock)
    store.commit([Delivery("gw-1", (spool.numerics(),))])
    assert len(store.read.latest(DEVICE)) == 2
    store.close()
    keystore.delete_key(old.key_id)  # what it sealed is gone for good, said clearly
    store = Store(location, keystore, wall=clock)
    with pytest.raises(StoreKeyError, match="does not have"):
        store.read.latest(DEVICE)
    store.close()


def test_a_store_of_another_installation_is_refused(location, tmp_path, clock):
    Store(location, Keystore.open(tmp_path / "keys", MasterKey(os.urandom(32))), wall=clock).close()
    with pytest.raises(StoreKeyError, match="another key store"):
        Store(location, Keystore.open(tmp_path / "other", MasterKey(os.urandom(32))), wall=clock)


def test_keys_never_show_themselves(keys):
    assert repr(Keys(keys)) == "Keys()"
    with pytest.raises(TypeError):
        Keys(keys).__reduce__()
    with pytest.raises(ValueError):
        FixedKeys(b"short")


def test_a_failed_opening_leaves_no_connection(tmp_path, keys):
    database = Database(tmp_path / "store.db", keys)
    database.close()
    with pytest.raises(StoreKeyError):
        Database(tmp_path / "store.db", FixedKeys(os.urandom(32)))
    raw = sqlite3.connect(tmp_path / "store.db", isolation_level=None, timeout=0)
    raw.execute("BEGIN EXCLUSIVE")
    raw.execute("ROLLBACK")
    raw.close()


def test_retention_deletes_what_is_old_and_accounted_for(store, spool, clock):
    old = tuple(spool.numerics() for _ in range(3))
    store.commit([Delivery("gw-1", old)])
    spool.skip()
    beyond_a_hole = spool.numerics()
    store.commit([Delivery("gw-1", (beyond_a_hole,))])
    clock.pass_(10 * DAY)
    new = spool.numerics()
    store.commit([Delivery("gw-1", (new,))])
    retention = Retention(store, RetentionPolicy(5 * DAY))
    assert retention.step() == 0
    kept = sorted(entry.sequence for entry in store.read.latest(DEVICE))
    assert kept == [beyond_a_hole.sequence, new.sequence]
    assert store.commit([Delivery("gw-1", (*old, beyond_a_hole, new))])[0].duplicates == 5  # nothing comes back
    assert store.audit.rows()[0].action == "retention"
    assert store.audit.rows()[0].detail == "3 entries deleted"
    assert retention.step() == 0
    assert store.audit.rows()[0].number == 1  # nothing done, nothing recorded


def test_retention_works_in_bounded_steps(store, spool, clock):
    count = 2 * STEP + 10
    store.commit([Delivery("gw-1", tuple(spool.wave(data=b"\0") for _ in range(count)))])
    clock.pass_(10 * DAY)
    retention = Retention(store, RetentionPolicy(5 * DAY))
    steps = 0
    while retention.step():
        steps += 1
    assert steps == 2
    assert store.read.totals().entries == 0
    assert store.audit.rows()[0].detail == f"{count} entries deleted"


def test_retention_can_be_off_but_never_shorter_than_a_day(store):
    assert Retention(store, RetentionPolicy(None)).step() == 0
    with pytest.raises(ValueError):
        Retention(store, RetentionPolicy(3600))

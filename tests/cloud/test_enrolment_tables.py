"""The enrolment tables on SQL: the same as in memory, sealed, audited, and felt by ingest."""

import dataclasses
import os

import pytest
from cloudkit import START
from hypothesis import given, settings
from hypothesis import strategies as st

from vitalgate.cloud.enrolment import (
    CodeRecord,
    ContextRecord,
    EnrolmentStore,
    IdentityRecord,
    KeyState,
    MemoryEnrolmentStore,
    create_code,
    list_keys,
    revoke,
)
from vitalgate.cloud.store.commit import Delivery, Refusal
from vitalgate.cloud.store.store import Store
from vitalgate.gateway.identity import IdentityKey
from vitalgate.gateway.secrets import FixedKeys
from vitalgate.oscore.context import Parameters


def identity(gateway, state=KeyState.ACTIVE, number=1):
    public = IdentityKey.from_bytes(number.to_bytes(32, "big")).public
    return IdentityRecord(
        number.to_bytes(16, "big"), public, gateway, state, 3, bytes(32), b"REKEYSECRET" * 3, START, START, "why not"
    )


def context(gateway, kid=b"\1\2\3\4"):
    keys = Parameters(b"MASTERSECRET-16b", kid, b"", b"MASTERSALT", b"idc")
    return ContextRecord(kid, gateway, bytes(16), bytes(32), keys, START, None)


def code(number=1, **fields):
    record = CodeRecord(number.to_bytes(5, "big"), b"CODESECRET" * 3, "gw-1", True, START, START + 900)
    return dataclasses.replace(record, **fields)


@pytest.fixture
def tables(store):
    return store.enrolment("operator")


def test_it_is_an_enrolment_store(tables):
    as_seen_by_others: EnrolmentStore = tables
    assert as_seen_by_others.codes() == []


def test_records_come_back_as_they_were(tables, store, location, keys, clock):
    rows = (code(used_by=bytes(16), used_at=START + 5, failures=2), identity("gw-1"), context("gw-1"))
    tables.put_code(rows[0])
    tables.put_identity(rows[1])
    tables.put_context(rows[2])
    store.close()
    again = Store(location, keys, wall=clock)
    tables = again.enrolment()
    assert tables.code(rows[0].code_id) == rows[0]
    assert tables.identity(rows[1].thumbprint) == tables.active_identity("gw-1") == rows[1]
    assert tables.context(rows[2].kid) == rows[2]
    assert (tables.codes(), tables.identities(), tables.contexts()) == ([rows[0]], [rows[1]], [rows[2]])
    assert tables.context_kids() == frozenset([rows[2].kid])
    assert (tables.code(b"nobody"), tables.identity(bytes(16)), tables.context(b"none")) == (None, None, None)
    assert tables.active_identity("gw-2") is None
    again.close()


@settings(max_examples=20)
@given(st.data())
def test_it_behaves_as_the_one_in_memory(tmp_path_factory, data):
    store = Store(tmp_path_factory.mktemp("store") / "store.db", FixedKeys(os.urandom(32)))
    pair = (store.enrolment(), MemoryEnrolmentStore())
    small = st.integers(1, 3)
    for _ in range(data.draw(st.integers(0, 12))):
        what = data.draw(st.integers(0, 5))
        number, other = data.draw(small), data.draw(small)
        gateway = f"gw-{other}"
        state = data.draw(st.sampled_from([KeyState.ACTIVE, KeyState.REVOKED]))
        for tables in pair:
            if what == 0:
                tables.put_code(code(number, failures=other))
            elif what == 1:
                tables.delete_code(number.to_bytes(5, "big"))
            elif what == 2:
                if state is KeyState.REVOKED or tables.active_identity(gateway) is None:
                    tables.put_identity(identity(gateway, state, number))
            elif what == 3:
                tables.put_context(context(gateway, number.to_bytes(4, "big")))
                assert number.to_bytes(4, "big") in {row.kid for row in tables.contexts(gateway)}
            elif what == 4:
                tables.delete_context(number.to_bytes(4, "big"))
            else:
                with pytest.raises(KeyError), tables.transaction():
                    tables.put_code(code(9))
                    tables.delete_context(number.to_bytes(4, "big"))
                    raise KeyError
    sql, memory = pair
    assert sorted(sql.codes(), key=repr) == sorted(memory.codes(), key=repr)
    assert sorted(sql.identities(), key=repr) == sorted(memory.identities(), key=repr)
    assert sorted(sql.contexts(), key=repr) == sorted(memory.contexts(), key=repr)
    assert sql.context_kids() == memory.context_kids()
    for number in range(1, 4):
        assert sorted(sql.contexts(f"gw-{number}"), key=repr) == sorted(memory.contexts(f"gw-{number}"), key=repr)
        assert sql.active_identity(f"gw-{number}") == memory.active_identity(f"gw-{number}")
    store.close()


def test_what_a_transaction_sees_and_what_others_see(tables, store):
    with tables.transaction():
        tables.put_code(code())
        with tables.transaction():  # nested: the outermost counts
            tables.put_identity(identity("gw-1"))
        assert len(tables.codes()) == 1
        assert store.enrolment().codes() == []
    assert len(store.enrolment().codes()) == 1
    with pytest.raises(KeyError), tables.transaction():
        with tables.transaction():
            tables.delete_code(code().code_id)
        raise KeyError
    assert len(tables.codes()) == 1


def test_revocation_reaches_ingest_and_the_audit_trail(tables, store, spool, clock):
    tables.put_identity(identity("gw-1"))
    assert store.commit([Delivery("gw-1", (spool.numerics(),), "oscore")])[0].refusal is None
    tables.put_context(context("gw-1"))
    assert {entry.kind for entry in revoke(tables, "gw-1", clock(), "stolen")} == {"identity", "session"}
    assert tables.context_kids() == frozenset()
    assert store.is_revoked("gw-1")
    assert store.commit([Delivery("gw-1", (spool.numerics(),), "oscore")])[0].refusal is Refusal.REVOKED
    tables.put_identity(identity("gw-1", number=2))  # enrolled again, with a new key
    assert store.commit([Delivery("gw-1", (spool.numerics(),), "oscore")])[0].refusal is None
    rows = store.audit.rows()
    assert [row.action for row in rows] == ["gateway_enrolled", "gateway_revoked", "gateway_enrolled"]
    assert (rows[1].actor, rows[1].subject) == ("operator", "gw-1")
    assert rows[1].detail.endswith("revoked stolen")


def test_codes_are_audited_without_their_secret(tables, store, clock):
    made = create_code(tables, clock(), gateway="gw-7")
    row = store.audit.rows()[0]
    assert (row.action, row.subject, row.detail) == ("code_created", "gw-7", made.code_id)
    assert [entry.gateway for entry in list_keys(tables, clock())] == ["gw-7"]


def test_no_secret_and_no_name_lies_in_the_file(tables, store, location):
    tables.put_code(code())
    tables.put_identity(identity("gateway-of-ward-nine"))
    tables.put_context(context("gateway-of-ward-nine"))
    data = b"".join(path.read_bytes() for path in location.parent.iterdir())
    for secret in (b"CODESECRET", b"REKEYSECRET", b"MASTERSECRET", b"MASTERSALT", b"ward-nine"):
        assert secret not in data

"""Users, one-time links, sessions and the audit trail."""

import sqlite3
import threading

import pytest
from cloudkit import START

from vitalgate.cloud.audit import Action, Audit
from vitalgate.cloud.passwords import Cost, PasswordError, hash_password, verify_password
from vitalgate.cloud.roles import PERMISSIONS, Permission, Role
from vitalgate.cloud.sessions import SessionLimits, Sessions
from vitalgate.cloud.users import FREE_FAILURES, Refusal, UserError, Users, token_bytes, token_text

CHEAP = Cost(log_n=4, r=1, p=1)
GOOD = "correct horse battery"


@pytest.fixture
def audit(store):
    return store.audit


@pytest.fixture
def users(store, audit):
    return Users(store.database, audit, cost=CHEAP)


@pytest.fixture
def sessions(store, users, audit):
    return Sessions(store.database, users, audit)


def actions(audit):
    return [row.action for row in reversed(audit.rows())]


def test_there_is_no_default_credential(users):
    assert users.all() == []
    for name in ("admin", "administrator", "root", ""):
        for password in ("", "admin", "password", "administrator"):
            assert users.authenticate(name, password).user is None


def test_the_first_administrator_comes_through_a_link_that_works_once(users, clock):
    link = users.first_link()
    user = users.redeem(link)
    assert (user.role, user.has_password) == (Role.ADMINISTRATOR, False)
    assert users.redeem(link) is None
    again = users.first_link()  # no password was set: the way in stays open to who runs the program
    users.set_password(user.id, GOOD)
    assert users.first_link() is None
    assert users.redeem(again) is None  # a password ends what was handed out before it
    assert users.authenticate("Administrator", GOOD).user == users.get(user.id)
    assert users.authenticate("administrator", "").refusal is Refusal.WRONG


def test_a_link_expires(users, clock):
    link = users.first_link(lifetime=900)
    clock.pass_(900)
    assert users.redeem(link) is None
    assert users.redeem(users.first_link()) is not None


@pytest.mark.parametrize("token", ["", "x" * 43, "é" * 43, "a" * 10_000, "!" * 43, "A" * 42 + "B"])
def test_what_is_no_link_gives_nobody(users, token):
    users.first_link()
    assert users.redeem(token) is None


def test_token_texts_are_canonical():
    token = bytes(range(32))
    assert token_bytes(token_text(token)) == token
    assert token_bytes(token_text(token)[:-1] + "9") is None  # other bits beyond the last byte


def test_links_of_a_user_are_bounded(users):
    first = users.create(name="mary", role=Role.CLINICIAN)
    links = [users.create_link(first.id) for _ in range(20)]
    redeemed = [users.redeem(link) is not None for link in links]
    assert sum(redeemed) == 16


def test_a_user_without_password_cannot_sign_in_with_one(users):
    users.create("mary", Role.VIEWER)
    for password in ("", "None", GOOD):
        assert users.authenticate("mary", password).refusal is Refusal.WRONG


def test_failures_lock_out_longer_and_longer(users, clock, audit):
    users.create("mary", Role.CLINICIAN, password=GOOD)
    for _ in range(FREE_FAILURES - 1):
        assert users.authenticate("mary", "wrong").retry_after == 0
    assert users.authenticate("mary", "wrong").retry_after == 30
    locked = users.authenticate("mary", GOOD)
    assert (locked.user, locked.refusal, locked.retry_after) == (None, Refusal.LOCKED, 30)
    clock.pass_(29.9)
    assert users.authenticate("mary", GOOD).refusal is Refusal.LOCKED
    clock.pass_(0.1)
    assert users.authenticate("mary", "wrong").retry_after == 60
    clock.pass_(60)
    for wait in (120, 240, 480, 900, 900):
        assert users.authenticate("mary", "wrong").retry_after == wait
        clock.pass_(wait)
    assert users.authenticate("mary", GOOD).user is not None
    assert users.authenticate("mary", "wrong").retry_after == 0  # success starts the count anew
    assert actions(audit).count("locked_out") == 7


def test_guesses_side_by_side_are_counted_too(users, clock):
    users.create("mary", Role.CLINICIAN, password=GOOD)
    results = []
    threads = [
        threading.Thread(target=lambda: results.append(users.authenticate("mary", "wrong").refusal)) for _ in range(12)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results.count(Refusal.WRONG) == FREE_FAILURES
    assert results.count(Refusal.LOCKED) == 12 - FREE_FAILURES


def test_a_lock_does_not_outlive_a_clock_that_was_set_back(users, clock):
    users.create("mary", Role.CLINICIAN, password=GOOD)
    for _ in range(FREE_FAILURES):
        users.authenticate("mary", "wrong")
    clock.pass_(-30 * 86400)
    assert users.authenticate("mary", GOOD).user is not None


def test_unknown_names_do_not_flood_the_audit_trail(users, audit, clock):
    for _ in range(50):
        assert users.authenticate("nobody", "x").refusal is Refusal.WRONG
    assert len(audit.rows()) == 1
    clock.pass_(60)
    users.authenticate("nobody", "x")
    assert audit.rows()[0].detail == "unknown user, 50 times"
    assert all("nobody" not in (row.subject + row.detail) for row in audit.rows())  # it may be a password


@pytest.mark.parametrize("password", ["short", "x" * 300, "aaaaaaaaaaaaaaaa", "abababababab", "Clinician-Mary"])
def test_bad_passwords_are_refused(users, password):
    with pytest.raises(PasswordError) as refused:
        users.create("clinician-mary", Role.CLINICIAN, password=password)
    assert password not in str(refused.value)
    assert users.all() == []


def test_names_are_one_whatever_their_case(users):
    users.create("Mary", Role.CLINICIAN, password=GOOD)
    assert users.find("MARY ").name == "Mary"
    with pytest.raises(UserError, match="already"):
        users.create("mary", Role.VIEWER)
    for name in ("", "x" * 65, "a\nb"):
        with pytest.raises(UserError):
            users.create(name, Role.VIEWER)


def test_the_last_administrator_stays(users):
    only = users.create("anna", Role.ADMINISTRATOR, password=GOOD)
    for change in ({"disabled": True}, {"role": Role.VIEWER}):
        with pytest.raises(UserError, match="last administrator"):
            users.change(only.id, **change)
        assert users.get(only.id) == only
    users.create("bert", Role.ADMINISTRATOR, password=GOOD)
    assert users.change(only.id, disabled=True).disabled
    assert users.authenticate("anna", GOOD).refusal is Refusal.DISABLED


def test_roles(users):
    mary = users.create("mary", Role.VIEWER)
    assert mary.may(Permission.VIEW_BOARD)
    assert not mary.may(Permission.MANAGE_USERS)
    assert PERMISSIONS[Role.ADMINISTRATOR] == set(Permission)
    assert all(Permission.VIEW_BOARD in PERMISSIONS[role] for role in Role)


def test_a_hash_made_at_another_cost_is_made_anew_at_sign_in(store, users, audit):
    dearer = Users(store.database, audit, cost=Cost(log_n=5, r=1, p=1))
    users.create("mary", Role.CLINICIAN, password=GOOD)
    kept = []
    for signer in (users, dearer, dearer):
        assert signer.authenticate("mary", GOOD).user is not None
        with store.database.reading() as connection:
            blob = connection.exec_driver_sql("SELECT sealed_password FROM users").scalar()
            key = connection.exec_driver_sql("SELECT name_key FROM users").scalar()
            kept.append(store.database.keys.unseal(connection, blob, b"password " + key).decode())
    assert kept[0].startswith("scrypt$4$1$1$")
    assert kept[1].startswith("scrypt$5$1$1$")
    assert kept[1] == kept[2]


def test_password_hashes_are_salted_and_forgiving_of_nonsense():
    first, second = hash_password(GOOD, CHEAP), hash_password(GOOD, CHEAP)
    assert first != second
    assert verify_password(GOOD, first)
    assert not verify_password(GOOD + "x", first)
    assert verify_password("ﬁne weather today", hash_password("fine weather today", CHEAP))  # NFKC
    for kept in ("", "x", "scrypt$99$8$1$AA$AA", "scrypt$4$1$1$?$?", "bcrypt$4$1$1$AA$AA"):
        assert not verify_password(GOOD, kept)


def test_the_products_own_cost_is_not_cheap():
    cost = Cost()
    assert 128 * (1 << cost.log_n) * cost.r >= 32 << 20
    assert verify_password(GOOD, hash_password(GOOD, cost))


# sessions


def test_a_session_ends_by_silence(users, sessions, clock):
    session = sessions.create(users.create("mary", Role.CLINICIAN))
    clock.pass_(1799)
    assert sessions.get(session.token) == session
    clock.pass_(1799)
    assert sessions.get(session.token) == session  # looking counts as activity
    clock.pass_(1800)
    assert sessions.get(session.token) is None
    clock.pass_(-1800)
    assert sessions.get(session.token) is None  # ended is ended


def test_a_session_ends_by_age_however_busy(users, sessions, clock):
    session = sessions.create(users.create("mary", Role.CLINICIAN))
    for _ in range(12 * 6 - 1):
        clock.pass_(600)
        assert sessions.get(session.token) is not None
    clock.pass_(600)
    assert sessions.get(session.token) is None


def test_sessions_end_with_sign_out_password_role_and_disabling(users, sessions, audit):
    users.create("anna", Role.ADMINISTRATOR)
    mary = users.create("mary", Role.CLINICIAN)
    for end in (
        sessions.end,
        lambda s: users.set_password(mary.id, GOOD),
        lambda s: users.change(mary.id, role=Role.VIEWER),
        lambda s: users.change(mary.id, disabled=True),
        lambda s: sessions.end_all(mary.id),
    ):
        session = sessions.create(mary)
        end(session)
        assert sessions.get(session.token) is None
    assert actions(audit).count("signed_out") == 1


def test_sessions_of_a_user_are_bounded_and_tokens_are_fresh(store, users, audit, clock):
    sessions = Sessions(store.database, users, audit, limits=SessionLimits(per_user=3))
    mary = users.create("mary", Role.CLINICIAN)
    opened = []
    for _ in range(5):
        opened.append(sessions.create(mary))
        clock.pass_(1)
    assert [sessions.get(session.token) is not None for session in opened] == [False, False, True, True, True]
    assert len({session.token for session in opened} | {session.csrf for session in opened}) == 10


def test_csrf_tokens_belong_to_their_session(users, sessions):
    mary = users.create("mary", Role.CLINICIAN)
    first, second = sessions.create(mary), sessions.create(mary)
    assert first.csrf_matches(first.csrf)
    assert sessions.get(first.token).csrf == first.csrf
    for wrong in (second.csrf, "", first.token, "é"):
        assert not first.csrf_matches(wrong)


def test_tokens_are_neither_shown_nor_stored(store, location, users, sessions):
    session = sessions.create(users.create("mary-the-nurse", Role.CLINICIAN, password=GOOD))
    link = users.create_link(session.user.id)
    assert session.token not in repr(session)
    assert session.csrf not in repr(session)
    store.close()
    data = location.read_bytes()
    for secret in (session.token, session.csrf, link, "mary-the-nurse", "scrypt$", GOOD):
        assert secret.encode() not in data
    for token in (session.token, link):
        assert token_bytes(token) not in data


def test_what_has_ended_is_swept(store, users, sessions, clock):
    mary = users.create("mary", Role.CLINICIAN)
    for _ in range(3):
        sessions.create(mary)
    clock.pass_(1800)
    assert sessions.sweep() == 3
    assert sessions.sweep() == 0


# audit


def fill(audit):
    for number in range(6):
        audit.record(Action.SIGNED_IN, actor=f"user {number}", subject="s", detail="d")


def test_the_trail_tells_who_did_what(audit, clock):
    audit.record(Action.CODE_CREATED, actor="anna", subject="gw-1", detail="ABCDEFGH")
    row = audit.rows()[0]
    assert (row.number, row.at, row.action) == (1, START, "code_created")
    assert (row.actor, row.subject, row.detail) == ("anna", "gw-1", "ABCDEFGH")
    assert audit.verify().is_whole
    fill(audit)
    assert [row.number for row in audit.rows(limit=2, before=5)] == [4, 3]


def test_deed_and_record_stand_or_fall_together(store, audit):
    with pytest.raises(RuntimeError), store.database.writing() as connection:
        audit.append(connection, Action.SIGNED_IN, actor="anna")
        raise RuntimeError
    assert audit.rows() == []
    assert audit.verify().rows == 0


def test_the_database_itself_refuses_to_change_the_trail(store, audit, location):
    fill(audit)
    raw = sqlite3.connect(location)
    for statement in ("UPDATE audit SET action = 'x' WHERE number = 2", "DELETE FROM audit WHERE number = 2"):
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            raw.execute(statement)
    raw.close()


@pytest.mark.parametrize(
    ("statement", "rows", "fault"),
    [
        ("UPDATE audit SET action = 'signed_out' WHERE number = 3", 2, "row 3 was changed"),
        ("UPDATE audit SET at = at + 1 WHERE number = 3", 2, "row 3 was changed"),
        ("UPDATE audit SET chain = zeroblob(32) WHERE number = 6", 5, "row 6 was changed"),
        ("DELETE FROM audit WHERE number = 3", 2, "row 3 is missing"),
        ("DELETE FROM audit WHERE number = 1", 0, "row 1 is missing"),
        ("DELETE FROM audit WHERE number > 4", 4, "the last 2 rows are missing"),
        ("DELETE FROM audit", 0, "the last 6 rows are missing"),
        ("UPDATE audit SET number = number + 1 WHERE number = 6", 5, "row 6 is missing"),
        (
            "UPDATE audit SET sealed_content = (SELECT sealed_content FROM audit WHERE number = 2) WHERE number = 4",
            3,
            "row 4 was changed",
        ),
        ("UPDATE meta SET value = zeroblob(40) WHERE name = 'audit_head'", 6, "the recorded head is not the last row"),
    ],
)
def test_verification_names_what_was_done_to_the_trail(store, location, audit, statement, rows, fault):
    fill(audit)
    assert audit.verify().is_whole
    raw = sqlite3.connect(location)
    raw.executescript(f"DROP TRIGGER audit_no_update; DROP TRIGGER audit_no_delete; {statement};")
    raw.close()
    report = Audit(store.database).verify()
    assert (report.is_whole, report.rows, report.fault) == (False, rows, fault)


def test_a_row_forged_without_the_key_shows(store, location, audit):
    fill(audit)
    raw = sqlite3.connect(location)
    raw.execute("INSERT INTO audit SELECT 7, at, action, sealed_content, chain FROM audit WHERE number = 6")
    raw.commit()
    raw.close()
    assert audit.verify().fault == "row 7 was changed"

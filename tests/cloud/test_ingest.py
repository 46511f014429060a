"""The ingest engine in lockstep with a real CoAP client: 2.04 stands for durable, and for nothing else."""

import sqlite3

import pytest
import sqlalchemy as sa
from cloudkit import DEVICE, START, Spool
from hypothesis import given
from hypothesis import strategies as st

from vitalgate.cloud.ingest import NOSEC, UNPROTECTED, Ingest, IngestLimits, fill_board
from vitalgate.cloud.live import LiveBoard
from vitalgate.cloud.store.commit import Delivery
from vitalgate.cloud.store.store import Store
from vitalgate.coap.endpoint import Endpoint
from vitalgate.coap.events import RequestReceived, ResponseReceived
from vitalgate.coap.message import Code, Message
from vitalgate.coap.options import Option, build_options, uint_option
from vitalgate.coap.site import Site
from vitalgate.counters import Counters
from vitalgate.gateway.delivery import pack
from vitalgate.gateway.notice import DeviceGap, EpochOpened, Gap, Quarantined
from vitalgate.net.virtual import Link, VirtualNetwork

SENML = build_options("ingest", content_format=112)
CLIENT, CLOUD = "client", "cloud"


class Rig:
    """One client and one cloud that pass datagrams by hand; time moves only when told."""

    def __init__(self, store, clock, **options):
        self.now = 0.0
        self.counters = Counters()
        self.board = LiveBoard(wall=clock, clock=clock)
        self.client = Endpoint(extensions=False)  # whole payloads, however large
        self.open(store, **options)

    def open(self, store, **options):
        site = Site()
        site.add("other", lambda *_: Message(Code.CONTENT, (), b"another resource"), methods=[Code.GET])
        site.add("later", lambda *_: None, methods=[Code.GET])
        self.endpoint = Endpoint(site=site, counters=self.counters)
        options.setdefault("allow_nosec", True)
        self.ingest = Ingest(self.endpoint, store, board=self.board, counters=self.counters, **options)
        self.ingest.attach(site)
        self.captured = []

    def send(self, *requests):
        """POST each payload (or send each message); the codes come back in order, all in one turn of the cloud."""
        exchanges = []
        for number, given_ in enumerate(requests):
            request = given_ if isinstance(given_, Message) else Message(Code.POST, SENML, given_)
            exchanges.append(self.client.request(request, (CLOUD, number), self.now))
        answers = {}
        for _ in range(4):
            for data, path in self.client.datagrams_to_send(self.now):
                self.captured.append((data, (CLIENT, path[1])))
                self.ingest.receive_datagram(data, (CLIENT, path[1]), self.now)
            for data, path in self.ingest.datagrams_to_send(self.now):
                self.client.receive_datagram(data, (CLOUD, path[1]), self.now)
            while (event := self.client.next_event()) is not None:
                assert isinstance(event, ResponseReceived), event
                answers[event.exchange] = event.response
        return [answers.get(exchange) for exchange in exchanges]

    def one(self, request):
        return self.send(request)[0]


@pytest.fixture
def rig(store, clock):
    return Rig(store, clock)


def limit_pages(store, pages):
    """Let the database file grow to ``pages`` pages: what a full disk does, without one."""
    engine = store.database.engine

    def set_limit(connection, entry):
        connection.execute(f"PRAGMA max_page_count = {pages}")

    engine.dispose()
    sa.event.listen(engine, "connect", set_limit)

    def lift():
        sa.event.remove(engine, "connect", set_limit)
        engine.dispose()

    return lift


def test_changed_means_that_another_process_can_read_it(rig, store, location, keys, clock, spool):
    entries = [spool.numerics(patient="P-1"), spool.wave()]
    assert rig.one(pack(entries)).code == Code.CHANGED
    other = Store(location, keys, wall=clock)
    found = {entry.sequence: entry for entry in other.read.latest(DEVICE)}
    assert found[1].observations == entries[0].observations
    assert found[2].observations == entries[1].observations
    other.close()


def test_all_requests_of_a_turn_share_one_commit(rig, store, spool):
    answers = rig.send(*(pack([spool.numerics()]) for _ in range(20)))
    assert {answer.code for answer in answers} == {Code.CHANGED}
    assert rig.counters["cloud_commits"] == 1
    assert rig.counters["cloud_entries_stored"] == 20
    assert rig.counters["cloud_observations_stored"] == 40


def test_a_turn_is_bounded(store, clock, spool):
    rig = Rig(store, clock, limits=IngestLimits(turn=8, waiting=16))
    codes = [answer.code for answer in rig.send(*(pack([spool.numerics()]) for _ in range(20)))]
    assert codes == [Code.CHANGED] * 16 + [Code.SERVICE_UNAVAILABLE] * 4
    assert rig.counters["cloud_commits"] == 2
    assert store.read.totals().entries == 16


def test_replaying_every_datagram_changes_nothing_even_after_the_cloud_was_killed(
    rig, store, location, keys, clock, spool
):
    payloads = [
        pack([spool.notice(EpochOpened(0, 0, "first start"))]),
        pack([spool.numerics(), spool.wave()]),
        pack([spool.notice(Gap(DEVICE, 5, 1, 2, 2, START, START, "spool full"), DEVICE)]),
    ]
    rig.send(*payloads)
    captured = list(rig.captured)
    before = (store.read.totals(), store.read.frame_hashes(), store.read.accounts(), store.read.gaps())
    store.database.engine.dispose()  # killed: nothing is closed, nothing in memory survives
    again = Store(location, keys, wall=clock)
    rig.open(again)
    for _ in range(2):
        for data, path in captured:
            rig.ingest.receive_datagram(data, path, rig.now)
        assert len(rig.ingest.datagrams_to_send(rig.now)) == len(captured)  # acknowledged once more
    assert (again.read.totals(), again.read.frame_hashes(), again.read.accounts(), again.read.gaps()) == before
    assert rig.counters["cloud_entries_stored"] == 4
    assert rig.counters["cloud_entries_duplicate"] == 4  # the second time the message layer itself knew them
    again.close()


def test_a_full_store_acknowledges_nothing_and_takes_all_of_it_later(rig, store, spool):
    rig.one(pack([spool.numerics()]))
    with store.database.reading() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
    lift = limit_pages(store, pages + 1)
    payloads = [pack([spool.wave(data=bytes(range(256)) * 2)]) for _ in range(40)]
    answers = rig.send(*payloads)
    assert {answer.code for answer in answers} == {Code.SERVICE_UNAVAILABLE}
    assert {uint_option(answer, Option.MAX_AGE) for answer in answers} == {10}
    assert {answer.payload for answer in answers} == {b"full"}
    assert store.read.totals().entries == 1
    assert rig.counters["cloud_store_unavailable{full}"] == 1
    lift()
    assert {answer.code for answer in rig.send(*payloads)} == {Code.CHANGED}
    assert store.read.totals().entries == 41


def test_a_locked_store_is_answered_later_too(location, keys, clock, spool):
    store = Store(location, keys, wall=clock, busy_timeout_ms=1)
    rig = Rig(store, clock)
    payload = pack([spool.numerics()])
    rig.one(pack([spool.numerics()]))
    other = sqlite3.connect(location, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    assert rig.one(payload).code == Code.SERVICE_UNAVAILABLE
    other.execute("ROLLBACK")
    other.close()
    assert rig.one(payload).code == Code.CHANGED
    store.close()


def test_a_damaged_store_raises_nothing(rig, store, location, spool):
    rig.one(pack([spool.numerics()]))
    store.database.engine.dispose()
    location.with_suffix(".db-wal").unlink(missing_ok=True)
    location.write_bytes(b"not a database at all" * 1000)
    answer = rig.one(pack([spool.numerics()]))
    assert (answer.code, answer.payload) == (Code.SERVICE_UNAVAILABLE, b"damaged")


@pytest.mark.parametrize(
    ("request_", "code", "outcome"),
    [
        (Message(Code.POST, SENML, b""), Code.BAD_REQUEST, "malformed"),
        (Message(Code.POST, SENML, b"\x80"), Code.BAD_REQUEST, "malformed"),
        (Message(Code.POST, SENML, b"garbage"), Code.BAD_REQUEST, "malformed"),
        (Message(Code.POST, build_options("ingest"), b"\x80"), Code.UNSUPPORTED_CONTENT_FORMAT, "format"),
        (Message(Code.POST, build_options("ingest", content_format=110), b"[]"), Code.UNSUPPORTED_CONTENT_FORMAT,
         "format"),
        (Message(Code.POST, SENML, bytes(8193)), Code.REQUEST_ENTITY_TOO_LARGE, "too_large"),
    ],
)  # fmt: skip
def test_what_is_no_delivery_gets_its_answer_at_once(rig, store, spool, request_, code, outcome):
    good = pack([spool.numerics()])
    answers = rig.send(request_, good)
    assert [answer.code for answer in answers] == [code, Code.CHANGED]
    assert rig.counters[f"cloud_deliveries{{{outcome}}}"] == 1
    assert store.read.totals().entries == 1
    if code == Code.REQUEST_ENTITY_TOO_LARGE:
        assert uint_option(answers[0], Option.SIZE1) == 8192


def test_other_methods_and_other_resources_are_not_ingests(rig):
    assert rig.one(Message(Code.GET, build_options("ingest"))).code == Code.METHOD_NOT_ALLOWED
    assert rig.one(Message(Code.GET, build_options("other"))).payload == b"another resource"
    assert b"</ingest>" in rig.one(Message(Code.GET, build_options(".well-known/core"))).payload
    assert rig.one(Message(Code.GET, build_options("later"))) is None
    event = rig.ingest.next_event()  # for whoever owns that resource
    assert isinstance(event, RequestReceived)
    assert rig.ingest.next_event() is None


@given(st.binary(max_size=200))
def test_any_payload_is_answered_and_raises_nothing(shared_rig, payload):
    assert shared_rig.one(payload).code in (Code.BAD_REQUEST, Code.CHANGED, Code.FORBIDDEN)


@given(st.data())
def test_any_spoiled_delivery_is_answered_and_raises_nothing(shared_rig, data):
    payload = bytearray(shared_rig.good)
    for _ in range(data.draw(st.integers(1, 4))):
        payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    answer = shared_rig.one(bytes(payload[: data.draw(st.integers(0, len(payload)))]))
    assert answer.code in (
        Code.BAD_REQUEST, Code.CHANGED, Code.FORBIDDEN, Code.UNPROCESSABLE_ENTITY, Code.TOO_MANY_REQUESTS,
    )  # fmt: skip


@pytest.fixture(scope="module")
def shared_rig(tmp_path_factory):
    import os

    from cloudkit import Clock

    from vitalgate.gateway.secrets import FixedKeys

    clock = Clock()
    store = Store(tmp_path_factory.mktemp("store") / "store.db", FixedKeys(os.urandom(32)), wall=clock)
    rig = Rig(store, clock)
    spool = Spool(3, clock)
    rig.good = pack(
        [
            spool.notice(EpochOpened(2, 9, "gateway stopped")),
            spool.numerics(patient="P", device_time=START + 1, clock_offset=1.0),
            spool.wave(),
            spool.alarm(),
            spool.notice(Gap(DEVICE, 2, 3, 5, 3, START, START + 1, "spool full"), DEVICE),
            spool.notice(DeviceGap(DEVICE, START, START + 1, "gateway stopped"), DEVICE),
            spool.notice(Quarantined("ttyS1", "nonin", "501", 3, START)),
        ]
    )
    yield rig
    store.close()


# identity


class Protected:
    """The endpoint as a security layer presents it: the same calls, and events that carry an authenticated name."""

    def __init__(self, inner, names):
        self.inner = inner
        self.names = names

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def next_event(self):
        event = self.inner.next_event()
        if isinstance(event, RequestReceived):
            return RequestReceived(event.exchange, event.request, event.path, self.names.get(event.path[1], ""))
        return event


def protected(store, clock, names, **options):
    rig = Rig(store, clock, allow_nosec=False, **options)
    # A site is asked before an identity is known here, so requests come as events from an endpoint without one.
    rig.endpoint = Endpoint(counters=rig.counters)
    rig.ingest = Ingest(Protected(rig.endpoint, names), store, board=rig.board, counters=rig.counters, **options)
    return rig


def test_without_security_nothing_is_taken_unless_that_was_allowed(store, clock, spool):
    rig = Rig(store, clock, allow_nosec=False)
    assert rig.one(pack([spool.numerics()])).code == Code.UNAUTHORIZED
    assert store.read.totals().entries == 0
    assert rig.counters["cloud_deliveries{unprotected}"] == 1


def test_unprotected_gateways_are_counted_and_never_pass_for_authenticated_ones(rig, store, spool, clock):
    rig.one(pack([spool.numerics()]))
    named = Message(Code.POST, build_options("ingest", query=["gw=ward-3"], content_format=112))
    named.payload = pack([Spool(99, clock).numerics("urn:dev:mac:acde48234567019f")])
    rig.one(named)
    assert rig.counters["cloud_unprotected_deliveries"] == 2
    assert [row.name for row in store.read.gateways()] == [UNPROTECTED, f"{UNPROTECTED}:ward-3"]
    assert {row.security for row in store.read.gateways()} == {NOSEC}


def test_the_authenticated_name_owns_what_it_brings(store, clock):
    rig = protected(store, clock, {0: "gw-1", 1: "gw-2"})
    mine, foreign = Spool(1, clock), Spool(2, clock)
    first, stolen, posing = pack([mine.numerics()]), pack([mine.numerics()]), pack([foreign.numerics()])
    good = pack([foreign.numerics("urn:dev:mac:acde48234567019f")])
    assert rig.one(first).code == Code.CHANGED
    answers = rig.send(pack([mine.numerics()]), stolen)
    assert [answer.code for answer in answers] == [Code.CHANGED, Code.FORBIDDEN]
    assert rig.send(pack([mine.numerics()]), posing)[1].code == Code.FORBIDDEN
    assert rig.send(pack([mine.numerics()]), good)[1].code == Code.CHANGED
    assert rig.counters["cloud_deliveries{foreign_epoch}"] == rig.counters["cloud_deliveries{foreign_device}"] == 1
    assert rig.board.snapshot()["devices"][0]["security"] == "coap-oscore"


def test_a_revoked_gateway_is_refused_and_shown_as_such(store, clock, spool):
    rig = protected(store, clock, {0: "gw-1"})
    rig.one(pack([spool.numerics()]))
    store.set_revoked("gw-1", actor="operator")
    assert rig.one(pack([spool.numerics()])).code == Code.UNAUTHORIZED  # by which the gateway sets nothing aside
    assert rig.board.snapshot()["gateways"][0]["marks"] == ["revoked"]
    assert rig.counters["cloud_deliveries{revoked}"] == 1
    assert store.read.totals().entries == 1


# the board


def test_the_board_shows_what_was_committed_and_only_that(location, keys, spool, clock):
    store = Store(location, keys, wall=clock, busy_timeout_ms=1)
    rig = Rig(store, clock)
    payload = pack([spool.numerics(heart_rate="88"), spool.wave()])
    other = sqlite3.connect(location, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    assert rig.one(payload).code == Code.SERVICE_UNAVAILABLE
    assert rig.board.snapshot()["devices"] == []
    other.execute("ROLLBACK")
    other.close()
    rig.one(payload)
    version = rig.board.snapshot()["version"]
    device = rig.board.snapshot()["devices"][0]
    assert [row["value"] for row in device["numerics"]] == ["88", "97"]
    assert len(device["waves"][0]["samples"]) == 50
    rig.one(payload)  # a duplicate is news of the link, not of the patient
    changes = rig.board.changes_since(version)
    assert [(d["numerics"], d["waves"]) for d in changes["devices"]] in ([], [([], [])])
    store.close()


def test_notices_reach_board_and_store(rig, store, spool, clock):
    rig.one(pack([spool.numerics()]))
    rig.one(
        pack(
            [
                spool.notice(Gap(DEVICE, spool.epoch, 50, 51, 2, START, START, "spool full"), DEVICE),
                spool.notice(DeviceGap(DEVICE, START - 9, START, "gateway stopped"), DEVICE),
                spool.notice(Quarantined("ttyS1", "nonin", "501", 3, START)),
            ]
        )
    )
    shape = rig.board.snapshot()
    assert [(gap["kind"], gap["cause"], gap["count"]) for gap in shape["gaps"]] == [
        ("dropped", "spool full", 2),
        ("device", "gateway stopped", 0),
    ]
    assert shape["quarantine"][0]["serial"] == store.read.quarantine()[0].serial == "501"
    assert "gap" in shape["devices"][0]["marks"]


def test_who_is_released_leaves_the_board_and_the_store(rig, store, spool, clock):
    def shown():
        board = sorted(row["serial"] for row in rig.board.snapshot()["quarantine"])
        assert board == sorted(row.serial for row in store.read.quarantine())
        return board

    report = [spool.notice(Quarantined("ttyS1", "nonin", serial, 3, START)) for serial in ("501", "502")]
    rig.one(pack(report))
    clock.pass_(1)
    rig.one(pack([spool.notice(Quarantined("ttyS1", "nonin", "501", 0, START))]))
    assert shown() == ["502"]
    clock.pass_(1)
    rig.one(pack([Spool(78, clock).notice(EpochOpened(spool.epoch, 3, "gateway stopped"))]))
    assert shown() == []


def test_a_board_filled_from_the_store_shows_what_the_last_one_showed(rig, store, spool, clock):
    for _ in range(5):
        rig.one(pack([spool.numerics(), spool.wave()]))
        clock.pass_(1)
    rig.one(pack([spool.notice(Quarantined("ttyS1", "nonin", "501", 3, START))]))
    rig.one(pack([spool.notice(DeviceGap(DEVICE, START, START + 1, "gateway stopped"), DEVICE)]))
    store.name_device(DEVICE, "Bed 4")
    rig.board.name(DEVICE, "Bed 4")
    store.commit([Delivery("gw-9", (Spool(77, clock).numerics("urn:dev:mac:acde48234567019f"),), "oscore")])
    store.set_revoked("gw-9")
    fresh = LiveBoard(wall=clock, clock=clock)
    fill_board(store, fresh)
    old, new = rig.board.snapshot(), fresh.snapshot()
    for shape in (old, new):
        for device in shape["devices"]:
            device.pop("last_heard")
    assert new["devices"][0] == old["devices"][0]
    assert (new["gaps"], new["quarantine"]) == (old["gaps"], old["quarantine"])
    assert {row["gateway"]: row["marks"] for row in new["gateways"]}["gw-9"] == ["revoked"]


# over a bad network


def test_one_minute_over_a_lossy_network_loses_and_doubles_nothing(store, clock):
    network = VirtualNetwork(7)
    network.default_link = Link(delay=0.02, jitter=0.01, loss=0.2, duplicate=0.1)
    site = Site(randomness=network.randomness("site"))
    server = Endpoint(site=site, randomness=network.randomness("cloud"))
    ingest = Ingest(server, store, allow_nosec=True)
    ingest.attach(site)
    network.add_host(CLOUD, ingest)
    client = Endpoint(randomness=network.randomness("client"))
    spool = Spool(5, clock)
    sent, waiting, answered = [], {}, []

    def post(entry, now):
        waiting[client.request(Message(Code.POST, SENML, pack([entry])), (CLIENT, CLOUD), now)] = entry

    def on_turn(now):
        while (event := client.next_event()) is not None:
            entry = waiting.pop(event.exchange)
            if isinstance(event, ResponseReceived) and event.response.code == Code.CHANGED:
                answered.append(entry)
            else:
                post(entry, now)

    network.add_host(CLIENT, client, on_turn)
    for second in range(60):

        def speak(second=second):
            clock.at = START + second
            sent.append(spool.numerics())
            post(sent[-1], network.now)
            network.touch(CLIENT)

        network.at(float(second), speak)
    network.run(600.0)
    assert len(answered) == len(sent) == 60
    hashes = store.read.frame_hashes()[DEVICE]
    assert hashes.total() == len(hashes) == 60
    account = store.read.accounts()[0]
    assert (account.contiguous, account.missing, account.holes) == (60, 0, ())
    assert ingest.counters["cloud_entries_duplicate"] > 0  # the network did its worst

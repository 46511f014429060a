"""The event stream (increments, bounds, back-pressure, its end), the JSON, and what pages show of a store."""

import contextlib
import http.client
import json
import queue
import socket
import threading
import time
from decimal import Decimal

import pytest
from cloudkit import DEVICE

from vitalgate.cloud.roles import Role
from vitalgate.cloud.store.commit import Delivery
from vitalgate.cloud.web import server
from vitalgate.cloud.web.events import event, to_json
from vitalgate.cloud.web.settings import (
    Check,
    Control,
    KeyAge,
    Level,
    Listener,
    SecurityState,
    StreamLimits,
    WebSettings,
)
from vitalgate.gateway.notice import DeviceGap, Gap, Quarantined
from vitalgate.net.exposition import Gauge
from vitalgate.vitals.observation import Alarm, Observation, Priority, SampleFormat, Samples, Status

BRISK = WebSettings(stream=StreamLimits(period=0.01, beat=0.05, recheck=0.0))


def heart_rate(clock, value, **more):
    return Observation(147842, Decimal(value), "/min", clock(), b"h" * 16, "ivy450c/1", **more)


def wave(clock, count=50, rate=50, metric=131330):
    samples = Samples(Decimal(rate), SampleFormat.U8, bytes(n % 251 for n in range(count)))
    return Observation(metric, samples, "mV", clock(), b"w" * 16, "ivy450c/1")


def show(site, *observations, device=DEVICE, gateway="ward-3", security="coap-oscore"):
    site.board.publish(gateway, security, device, observations, site.clock())


def until(condition, seconds=10.0):
    """Wait for a condition that another thread brings about."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "it never came"
        time.sleep(0.005)
    return found


class Screen:
    """An open event stream: ``next()`` gives the next event as (name, data)."""

    def __init__(self, visitor, since=None, headers=None):
        self.events = queue.Queue()
        self.opened = threading.Event()
        self.status = None
        params = {} if since is None else {"since": since}
        self._thread = threading.Thread(target=self._read, args=(visitor, params, headers or {}), daemon=True)
        self._thread.start()
        assert self.opened.wait(10)

    def _read(self, visitor, params, headers):
        with visitor.stream("GET", "/events", params=params, headers=headers) as answer:
            self.status, self.headers, self._answer = answer.status_code, answer.headers, answer
            self.opened.set()
            name = None
            with contextlib.suppress(Exception):  # the test closes the stream while it is being read
                for line in answer.iter_lines():
                    if line.startswith("event: "):
                        name = line[7:]
                    elif line.startswith("data: "):
                        self.events.put((name, json.loads(line[6:])))
        self.events.put((None, None))

    def next(self):
        return self.events.get(timeout=10)

    def find(self, good):
        """The first board message that ``good`` accepts."""
        while True:
            name, data = self.next()
            assert name == "board", (name, data)
            if good(data):
                return data

    def leave(self):
        self._answer.close()


def test_the_whole_board_first_and_then_increments_alone(make_site, clock):
    site = make_site(BRISK)
    show(site, heart_rate(clock, "72.50"), wave(clock))
    show(site, heart_rate(clock, "80"), device="urn:dev:mac:0000000000000002")
    screen = Screen(site.signed_in())
    assert screen.status == 200
    assert screen.headers["content-type"] == "text/event-stream; charset=utf-8"
    name, first = screen.next()
    assert (name, first["full"], len(first["devices"])) == ("board", True, 2)
    assert first["devices"][0]["numerics"][0]["value"] == "72.50"
    clock.pass_(1)
    show(site, heart_rate(clock, "73"), wave(clock))
    more = screen.find(lambda data: data["devices"])
    assert (more["full"], [row["device"] for row in more["devices"]]) == (False, [DEVICE])
    assert more["devices"][0]["numerics"][0]["value"] == "73"
    (trace,) = more["devices"][0]["waves"]
    assert (trace["index"], len(trace["samples"])) == (50, 50)
    assert more["quarantine"] is None
    assert more["version"] > first["version"]


def test_a_screen_that_comes_back_is_given_what_it_missed(make_site, clock):
    site = make_site(BRISK)
    show(site, heart_rate(clock, "72"))
    visitor = site.signed_in()
    screen = Screen(visitor)
    version = screen.next()[1]["version"]
    screen.leave()
    show(site, heart_rate(clock, "90"))
    for again in (Screen(visitor, since=version), Screen(visitor, headers={"last-event-id": str(version)})):
        data = again.find(lambda data: data["devices"])
        assert data["full"] is False
        assert data["devices"][0]["numerics"][0]["value"] == "90"
        again.leave()
    for unknown in ("1", "99999999999999999999", "x", "-1", "٣"):
        fresh = Screen(visitor, since=unknown)
        assert fresh.next()[1]["full"] is True, unknown
        fresh.leave()
        until(lambda: len(site.app.state.web.hub) == 0)


def test_a_beat_comes_when_nothing_happens_and_marks_change_with_time(make_site, clock):
    site = make_site(BRISK)
    show(site, heart_rate(clock, "72"))
    screen = Screen(site.signed_in())
    assert screen.next()[1]["devices"][0]["marks"] == []
    assert screen.find(lambda data: True)["devices"] == []
    clock.pass_(30)
    changed = screen.find(lambda data: data["devices"])
    assert changed["devices"][0]["marks"] == ["stale", "lost"]


def test_messages_are_shared_by_screens_that_keep_up(make_site, clock):
    site = make_site(BRISK)
    show(site, heart_rate(clock, "72"))
    screens = [Screen(site.signed_in(f"user{number}")) for number in range(3)]
    for screen in screens:
        assert screen.next()[1]["full"]
    show(site, heart_rate(clock, "75"))
    texts = {json.dumps(screen.find(lambda data: data["devices"])) for screen in screens}
    assert len(texts) == 1


def test_screens_are_bounded_for_a_session_and_in_all(make_site):
    limits = StreamLimits(clients=3, per_session=2, period=0.01, beat=0.05)
    site = make_site(WebSettings(stream=limits))
    one, two = site.signed_in("one"), site.signed_in("two")
    mine = [Screen(one), Screen(one)]
    assert [screen.status for screen in mine] == [200, 200]
    refused = one.get("/events")
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "10")
    assert one.get("/api/session").json()["streams_free"] is False
    assert Screen(two).status == 200
    assert two.get("/events").status_code == 503  # three in all
    mine[0].leave()
    until(lambda: two.get("/api/session").json()["streams_free"])
    assert Screen(two).status == 200
    assert site.counters["cloud_web_refused{screens}"] == 2


def test_all_sessions_of_one_user_together_leave_room_for_others(make_site):
    """Sixteen sessions of four screens each would be every place there is."""
    limits = StreamLimits(clients=4, per_user=2, per_session=2, period=0.01, beat=0.05)
    site = make_site(WebSettings(stream=limits))
    first, second = site.signed_in("one"), site.signed_in("one")
    assert [Screen(visitor).status for visitor in (first, second)] == [200, 200]
    assert second.get("/events").status_code == 503
    assert second.get("/api/session").json()["streams_free"] is False
    assert Screen(site.signed_in("two")).status == 200
    sessions = site.sessions.limits
    real = StreamLimits()
    assert real.per_user < real.clients <= sessions.per_user * real.per_session


def test_a_stream_ends_with_its_session(make_site):
    site = make_site(BRISK)
    visitor = site.signed_in("nurse")
    screen = Screen(visitor)
    assert screen.next()[0] == "board"
    site.sessions.end_all(site.users.find("nurse").id)
    while (found := screen.next())[0] == "board":
        pass
    assert found == ("end", {"reason": "signed-out"})
    assert screen.next() == (None, None)


def test_a_stream_ends_when_the_role_changes(make_site):
    site = make_site(BRISK)
    site.add("root", Role.ADMINISTRATOR)
    screen = Screen(site.signed_in("nurse", Role.CLINICIAN))
    site.users.change(site.users.find("nurse").id, role=Role.VIEWER)
    while (found := screen.next())[0] == "board":
        pass
    assert found == ("end", {"reason": "signed-out"})


def test_stopping_ends_streams_at_once_and_frees_the_port(make_site):
    site = make_site(BRISK)
    screen = Screen(site.signed_in())
    screen.next()
    before = time.monotonic()
    site.server.stop()
    assert not site.server.is_alive
    assert time.monotonic() - before < server.STOP_SECONDS
    while (found := screen.next())[0] == "board":
        pass
    assert found == ("end", {"reason": "stopping"})
    with socket.socket() as port:
        port.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        port.bind((site.server.host, site.server.port))
    site.board.publish("ward-3", "coap-oscore", DEVICE, (), site.clock())  # nobody listens any more: no harm


def raw_stream(site, visitor):
    line = socket.create_connection((site.server.host, site.server.port), timeout=10)
    line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    cookie = visitor.cookies["vitalgate"]
    line.sendall(f"GET /events HTTP/1.1\r\nHost: localhost\r\nCookie: vitalgate={cookie}\r\n\r\n".encode())
    return line


def flood(site, clock, condition):
    """Publish more waveforms than buffers hold, until ``condition`` holds."""

    def step():
        clock.pass_(1)
        show(site, *(wave(clock, 12_000, 12_000, metric) for metric in (131329, 131330, 131389)))
        return condition()

    return until(step)


def test_a_screen_that_stops_reading_costs_nothing_and_nobody(make_site, clock):
    site = make_site(BRISK)
    show(site, heart_rate(clock, "72"))
    hub = site.app.state.web.hub
    stuck = raw_stream(site, site.signed_in("stuck"))
    (viewer,) = until(lambda: tuple(hub._viewers))
    awake = Screen(site.signed_in("awake"))
    told = []

    def stalled():  # the one screen is told much while the other takes nothing
        while not awake.events.empty():
            told.append((awake.next(), viewer.version))
        return len(told) > 20 and told[-1][1] == told[-20][1]

    flood(site, clock, stalled)
    assert told[-1][0][1]["version"] > viewer.version
    assert len(hub) == 2
    stuck.close()
    until(lambda: len(hub) == 1)


def test_a_screen_that_never_reads_again_is_cut_off(make_site, clock, monkeypatch):
    monkeypatch.setattr(server, "STALL_SECONDS", 0.2)
    site = make_site(BRISK)
    stuck = raw_stream(site, site.signed_in())
    until(lambda: len(site.app.state.web.hub) == 1)
    flood(site, clock, lambda: len(site.app.state.web.hub) == 0)
    stuck.close()


def test_a_request_that_trickles_is_cut_off(make_site, monkeypatch):
    monkeypatch.setattr(server, "REQUEST_SECONDS", 0.2)
    site = make_site()
    head = (
        b"POST /sign-in HTTP/1.1\r\nHost: localhost\r\nContent-Length: 50\r\n"
        b"Content-Type: application/x-www-form-urlencoded\r\n\r\ncsrf="
    )
    for part in (b"", head[:20], head):
        with socket.create_connection((site.server.host, site.server.port), timeout=10) as line:
            line.sendall(part)
            with contextlib.suppress(ConnectionResetError):
                assert line.recv(100) == b""
    line = http.client.HTTPConnection(site.server.host, site.server.port, timeout=10)
    line.connect()
    kept = line.sock
    for _ in range(2):  # whole requests on one connection are not affected
        line.request("GET", "/health")
        assert line.getresponse().read() == b'{"status":"ok"}'
        assert line.sock is kept
    line.close()


def test_events_and_numbers_that_json_cannot_say():
    assert event("board", {"a": 1}, 7) == b'id: 7\nevent: board\ndata: {"a":1}\n\n'
    assert b"\n" not in to_json({"text": "a\nb\u2028"})
    assert json.loads(to_json({"a": [1.5, float("nan"), {"b": float("inf")}]})) == {"a": [1.5, None, {"b": None}]}


def test_a_role_sees_its_part_of_the_board(site, clock):
    show(site, heart_rate(clock, "72", patient="Jane Roe", location="bed 4"))
    site.board.quarantined("ward-3", kind="nonin", port="/dev/ttyS9", serial="SN-1234", frames=3, first=1.0, last=2.0)
    for role, patient, serial in (
        (Role.VIEWER, "", ""),
        (Role.CLINICIAN, "Jane Roe", ""),
        (Role.TECHNICIAN, "", "SN-1234"),
        (Role.ADMINISTRATOR, "Jane Roe", "SN-1234"),
    ):
        visitor = site.signed_in(role.value, role)
        screen = Screen(visitor)
        streamed = screen.next()[1]
        screen.leave()
        for board in (visitor.get("/api/board").json(), streamed):
            assert board["devices"][0]["patient"] == patient, role
            assert board["quarantine"][0]["serial"] == serial, role
        (row,) = visitor.get("/api/devices").json()["devices"]
        assert (row["patient"], "waves" in row) == (patient, False)
        assert visitor.get(f"/api/devices/{DEVICE}").json()["patient"] == patient
        assert ("Jane Roe" in visitor.get(f"/devices/{DEVICE}").text) is bool(patient)


@pytest.fixture
def filled(make_site, store, spool, clock):
    """Pages over a store with values, an alarm, both kinds of gaps and a device in quarantine."""
    state = SecurityState(
        (Control("Deliveries", Level.BAD, "unprotected deliveries are accepted"),),
        (Listener("deliveries", "127.0.0.1:5683", "nothing"),),
        (KeyAge("store", "cloud", clock() - 90_000, clock() + 86_400),),
    )
    site = make_site(
        security=lambda: state,
        checks=lambda: (Check("store", ok=True), Check("clock", ok=False)),
        gauges=lambda: (Gauge("cloud_devices", "Devices known.", 1),),
    )
    entries = [
        spool.numerics(heart_rate="72.50"),
        spool.alarm(text="<script>alert(1)</script>"),
        spool.wave(),
        spool.notice(Gap(DEVICE, spool.epoch, 100, 120, 21, clock() - 60, clock(), "spool_full")),
        spool.notice(DeviceGap(DEVICE, clock() - 300, clock() - 200, "gateway_down"), DEVICE),
        spool.notice(Quarantined("/dev/ttyUSB7", "nonin", "<b>7</b>", 12, clock() - 50)),
    ]
    committed = store.commit([Delivery("ward-3", tuple(entries), "coap-oscore")])
    assert len(committed[0].new) == len(entries)
    show(site, *(observation for entry in entries for observation in entry.observations))
    return site


def test_pages_show_the_store_and_escape_it(filled):
    root = filled.signed_in("root", Role.ADMINISTRATOR)
    device = root.get(f"/devices/{DEVICE}").text
    assert "72.50" in device
    assert "50 samples at 50 /s" in device
    assert "gateway down" in device
    gaps = root.get("/gaps").text
    assert "21 of the entries 100 to 120" in gaps
    assert "1 min 40 s" in gaps
    quarantine = root.get("/quarantine").text
    assert "/dev/ttyUSB7" in quarantine
    security = root.get("/security").text
    for words in ("unprotected deliveries are accepted", "127.0.0.1:5683", "1 d 1 h", "Audit trail", "ward-3"):
        assert words in security, words
    for page in (device, quarantine, gaps, security):
        assert "<script>alert" not in page
        assert "<b>7</b>" not in page
    assert "&lt;script&gt;alert(1)" in device
    assert "&lt;b&gt;7&lt;/b&gt;" in quarantine
    assert root.get("/devices/urn:dev:nobody").status_code == 404
    assert root.get("/api/devices/urn:dev:nobody").status_code == 404


def test_the_same_as_json(filled):
    root = filled.signed_in("root", Role.ADMINISTRATOR)
    gaps = root.get("/api/gaps").json()["gaps"]
    assert {row["kind"] for row in gaps} == {"dropped", "device"}
    assert str(0xF0E1D2C3B4A59687) in {row["epoch"] for row in gaps}
    assert root.get("/api/quarantine").json()["quarantine"][0]["port"] == "/dev/ttyUSB7"
    security = root.get("/api/security").json()
    assert security["listeners"][0]["address"] == "127.0.0.1:5683"
    assert security["gateways"][0]["protection"]["level"] == "protected"
    session = root.get("/api/session").json()
    assert (session["user"], session["role"], session["streams_free"]) == ("root", "administrator", True)


def test_machines_learn_of_health_readiness_and_counts(filled):
    visitor = filled.visitor()
    assert visitor.get("/health").json() == {"status": "ok"}
    ready = visitor.get("/ready")
    assert ready.status_code == 503
    assert ready.json() == {"status": "not ready", "checks": {"store": True, "clock": False}}
    text = visitor.get("/metrics").text
    assert "vitalgate_cloud_devices 1\n" in text
    assert 'vitalgate_cloud_web_requests_total{status="2xx"} 1\n' in text
    assert DEVICE not in text


def test_a_device_is_named_for_people(filled):
    nurse = filled.signed_in("nurse", Role.CLINICIAN)
    page = f"/devices/{DEVICE}"
    assert nurse.fill(page, label=" Bed <4> ").status_code == 303
    assert "Bed &lt;4&gt;" in nurse.get(page).text
    assert filled.board.snapshot()["devices"][0]["label"] == "Bed <4>"
    assert nurse.fill(page, label="x" * 65).status_code == 422
    assert nurse.post("/devices/urn:dev:nobody", data={"csrf": nurse.csrf(page), "label": "x"}).status_code == 422
    named = [row for row in filled.store.audit.rows() if row.action == "device_named"]
    assert [(row.actor, row.subject, row.detail) for row in named] == [("nurse", DEVICE, "Bed <4>")]


def test_unprotected_links_are_called_that(site, clock):
    show(site, heart_rate(clock, "72", alarm=Alarm("HR HIGH", Priority.HIGH)), security="coap-nosec")
    viewer = site.signed_in()
    assert "UNPROTECTED" in viewer.get(f"/devices/{DEVICE}").text
    row = site.signed_in("root", Role.ADMINISTRATOR).get("/api/security").json()["gateways"][0]
    assert row["protection"]["level"] == "none"
    show(site, heart_rate(clock, "72", status=Status.DEMO), security="rot13")
    assert "treat it as none" in viewer.get(f"/devices/{DEVICE}").text


def test_the_disclaimer_stands_on_every_page(site):
    root = site.signed_in("root", Role.ADMINISTRATOR)
    for page in ("/", "/gaps", "/quarantine", "/security", "/users", "/audit", "/password", "/nowhere"):
        assert "Information only – not a primary alarm system" in root.get(page).text
    assert "not a primary alarm system" in site.visitor().get("/sign-in").text


@pytest.mark.parametrize(
    ("security", "label"),
    [("coap-dtls13-rpk", "DTLS 1.3 RPK"), ("coap-dtls12-psk", "DTLS 1.2 PSK"), ("coap-oscore", "OSCORE")],
)
def test_links_are_called_by_their_protection(site, clock, security, label):
    show(site, heart_rate(clock, "72"), security=security)
    assert label in site.signed_in().get(f"/devices/{DEVICE}").text
    row = site.signed_in("root", Role.ADMINISTRATOR).get("/api/security").json()["gateways"][0]
    assert (row["protection"]["level"], row["protection"]["name"]) == ("protected", label)

"""The board of the present: whole and in increments it shows the same."""

import itertools
import json
import threading
from decimal import Decimal

import pytest
from cloudkit import DEVICE, START, Clock, Spool
from hypothesis import given, settings
from hypothesis import strategies as st

from vitalgate.cloud.live import BoardLimits, LiveBoard
from vitalgate.devices.registry import KINDS
from vitalgate.vitals.observation import Observation, SampleFormat, Samples, Status

OTHER = "urn:dev:mac:acde48234567019f"


@pytest.fixture
def board(clock):
    return LiveBoard(wall=clock, clock=clock)


def show(board, entry, gateway="gw-1", security="oscore"):
    board.publish(gateway, security, entry.device, entry.observations, entry.gateway_time)


def only(shape):
    return shape["devices"][0]


def numeric(shape, metric=147842):
    return next(row for row in only(shape)["numerics"] if row["metric"] == metric)


def test_a_device_with_its_numbers(board, spool):
    show(board, spool.numerics(patient="P-17", location="Bed 4"))
    board.name(DEVICE, "Bed 4, Ivy")
    shape = board.snapshot()
    json.dumps(shape, allow_nan=False)
    device = only(shape)
    assert shape["full"] is True
    assert (device["device"], device["label"], device["gateway"], device["security"]) == (
        DEVICE, "Bed 4, Ivy", "gw-1", "oscore",
    )  # fmt: skip
    assert (device["patient"], device["location"], device["decoder"]) == ("P-17", "Bed 4", "ivy450c/1")
    assert device["marks"] == ["demo"]
    rate = numeric(shape)
    assert (rate["short"], rate["value"], rate["unit"], rate["status"]) == ("HR", "72.50", "/min", ["demo"])


def test_nothing_changed_means_nothing_said(board, spool):
    show(board, spool.numerics())
    version = board.snapshot()["version"]
    quiet = board.changes_since(version)
    assert (quiet["version"], quiet["full"], quiet["devices"], quiet["gateways"]) == (version, False, [], [])
    assert (quiet["quarantine"], quiet["gaps"]) == (None, None)


def test_increments_hold_only_what_changed(board, spool):
    show(board, spool.numerics())
    show(board, spool.wave())
    show(board, spool.numerics(OTHER))
    version = board.snapshot()["version"]
    show(board, spool.wave(data=bytes([9, 9, 7])))
    changes = board.changes_since(version)
    assert [device["device"] for device in changes["devices"]] == [DEVICE]
    assert only(changes)["numerics"] == []
    wave = only(changes)["waves"][0]
    assert wave["index"] == 50
    assert wave["samples"] == [-5.5, -5.5, None]  # origin -10, factor 0.5, 7 is "no signal"


def merge(state, changes):
    """What a viewer does with changes (the dashboard's script does the same)."""
    if changes["full"]:
        state.clear()
    for device in changes["devices"]:
        known = state.setdefault(device["device"], {"numerics": {}, "waves": {}})
        known["head"] = {k: v for k, v in device.items() if k not in ("numerics", "waves")}
        for row in device["numerics"]:
            known["numerics"][row["key"]] = row
        for wave in device["waves"]:
            ring = known["waves"].setdefault(wave["key"], {})
            ring.update({wave["index"] + at: sample for at, sample in enumerate(wave["samples"])})
    return state


@settings(max_examples=100)
@given(st.data())
def test_a_viewer_of_increments_sees_what_a_viewer_of_the_whole_sees(data):
    clock = Clock()
    board = LiveBoard(wall=clock, clock=clock)
    spools = {DEVICE: Spool(1, clock), OTHER: Spool(2, clock)}
    viewer = merge({}, board.snapshot())
    version = board.version
    for _ in range(data.draw(st.integers(1, 25))):
        what = data.draw(st.sampled_from(["numerics", "wave", "alarm", "pass", "look", "gap", "name", "heard"]))
        device = data.draw(st.sampled_from([DEVICE, OTHER]))
        if what in ("numerics", "wave", "alarm"):
            show(board, getattr(spools[device], what)(device))
        elif what == "pass":
            clock.pass_(data.draw(st.sampled_from([0.5, 1.0, 15.0, 400.0])))
        elif what == "gap":
            board.add_gap("gw-1", device, "device", "x", clock() - 1, clock(), 0)
        elif what == "name":
            board.name(device, data.draw(st.sampled_from(["a", "b"])))
        elif what == "heard":
            board.heard("gw-1", data.draw(st.sampled_from(["oscore", "nosec"])))
        else:
            changes = board.changes_since(version)
            version = changes["version"]
            merge(viewer, changes)
    merge(viewer, board.changes_since(version))
    whole = merge({}, board.snapshot())
    assert viewer.keys() == whole.keys()
    for device, seen in whole.items():
        assert viewer[device]["head"] == seen["head"]
        assert viewer[device]["numerics"] == seen["numerics"]
        for key, ring in seen["waves"].items():
            kept = viewer[device]["waves"][key]
            assert ring == {index: kept[index] for index in ring}


def test_marks_follow_time_and_are_changes_like_any_other(board, spool, clock):
    show(board, spool.numerics())
    version = board.snapshot()["version"]
    clock.pass_(10.5)
    changes = board.changes_since(version)
    assert only(changes)["marks"] == ["stale", "demo"]
    clock.pass_(10)
    changes = board.changes_since(changes["version"])
    assert only(changes)["marks"] == ["stale", "lost", "demo"]
    assert changes["gateways"][0]["marks"] == ["lost"]
    show(board, spool.numerics())
    assert only(board.changes_since(changes["version"]))["marks"] == ["demo"]


def test_a_silent_device_of_a_speaking_gateway_is_stale_but_not_lost(board, spool, clock):
    show(board, spool.numerics())
    clock.pass_(30)
    board.heard("gw-1", "oscore")
    assert only(board.snapshot())["marks"] == ["stale", "demo"]


def test_each_kind_of_device_has_its_own_patience(clock, spool):
    board = LiveBoard(wall=clock, clock=clock, idle_after=lambda decoder: 90.0 if decoder == "hl7/1" else 5.0)
    show(board, spool.numerics())
    show(board, spool.numerics(OTHER, decoder="hl7/1"))
    clock.pass_(60)
    assert {d["device"]: "stale" in d["marks"] for d in board.snapshot()["devices"]} == {DEVICE: True, OTHER: False}


def test_patience_comes_from_the_registry_of_device_kinds(board, spool):
    show(board, spool.numerics())
    show(board, spool.numerics(OTHER, decoder="of another make"))
    assert {row["device"]: row["stale_after"] for row in board.snapshot()["devices"]} == {
        DEVICE: KINDS["ivy450c"].idle_after,
        OTHER: BoardLimits().stale_after,
    }


def test_data_that_comes_late_is_shown_as_stale(board, spool, clock):
    late = spool.numerics()
    clock.pass_(600)
    board.publish("gw-1", "oscore", DEVICE, late.observations, clock())
    assert only(board.snapshot())["marks"] == ["stale", "demo"]


def test_a_stepped_wall_clock_makes_nothing_look_silent(spool, clock):
    monotonic = Clock(0.0)
    board = LiveBoard(wall=clock, clock=monotonic)
    show(board, spool.numerics())
    clock.pass_(-3600)
    assert "lost" not in only(board.snapshot())["marks"]
    monotonic.pass_(30)
    assert "lost" in only(board.snapshot())["marks"]


def test_an_older_value_never_replaces_a_newer_one(board, spool, clock):
    old = spool.numerics(heart_rate="50")
    wave = spool.wave()
    clock.pass_(1)
    show(board, spool.numerics(heart_rate="60"))
    show(board, spool.wave(data=b"\x01"))
    show(board, old)
    show(board, wave)
    assert numeric(board.snapshot())["value"] == "60"
    assert only(board.snapshot())["waves"][0]["samples"] == [-9.5]


def test_a_silence_in_a_wave_is_drawn_as_nothing(board, spool, clock):
    show(board, spool.wave(data=bytes([1] * 50)))
    clock.pass_(3)
    show(board, spool.wave(data=bytes([2] * 50)))
    samples = only(board.snapshot())["waves"][0]["samples"]
    assert samples == [-9.5] * 50 + [None] * 100 + [-9.0] * 50


def test_jitter_of_a_line_is_not_a_silence(board, spool, clock):
    for delay in (1.3, 0.7, 1.2, 0.8):
        show(board, spool.wave(data=bytes([1] * 50)))
        clock.pass_(delay)
    assert None not in only(board.snapshot())["waves"][0]["samples"]


def test_alarms_show_until_the_value_comes_without(board, spool, clock):
    show(board, spool.alarm(text="ASYSTOLE"))
    alarm = only(board.snapshot())["alarms"][0]
    assert (alarm["text"], alarm["priority"]) == ("ASYSTOLE", 3)
    clock.pass_(1)
    show(board, spool.numerics())
    assert only(board.snapshot())["alarms"] == []


def test_texts_missing_values_and_status_words(board, clock):
    common = {"gateway_time": START, "frame_hash": bytes(16), "decoder": "hl7/1", "device": DEVICE}
    observations = [
        Observation(147842, None, "/min", status=Status.UNAVAILABLE | Status.QUESTIONABLE, **common),
        Observation(0, "LEADS OFF", "", label="message", **common),
        Observation(150456, Decimal("9E+999999"), "%", **common),
        Observation(151562, Decimal("NaN"), "/min", **common),
    ]
    board.publish("gw-1", "oscore", DEVICE, observations, START)
    shape = board.snapshot()
    assert len(json.dumps(shape, allow_nan=False)) < 5000
    assert (numeric(shape)["value"], numeric(shape)["status"]) == (None, ["questionable", "unavailable"])
    assert (numeric(shape, 0)["text"], numeric(shape, 0)["short"], numeric(shape, 0)["key"]) == (
        "LEADS OFF", "message", "0:message",
    )  # fmt: skip
    assert numeric(shape, 150456)["value"] == "9E+999999"


@pytest.mark.parametrize("rate", ["0", "-5", "NaN", "9E+999999", "1000000"])
def test_a_wave_with_a_senseless_rate_is_not_drawn(board, rate):
    samples = Samples(Decimal(rate), SampleFormat.U8, b"\1\2\3")
    wave = Observation(131330, samples, "mV", START, bytes(16), "x", device=DEVICE)
    board.publish("gw-1", "oscore", DEVICE, [wave, wave], START)
    assert only(board.snapshot())["waves"] == []
    assert board.left_out == 2


@pytest.mark.parametrize("factor", ["NaN", "Infinity", "9E+999999"])
def test_a_wave_with_a_senseless_scale_is_nothing(board, factor):
    samples = Samples(Decimal(50), SampleFormat.U8, b"\1\2\3", Decimal(factor))
    board.publish("gw-1", "oscore", DEVICE, [Observation(131330, samples, "mV", START, bytes(16), "x")], START)
    assert only(board.snapshot())["waves"][0]["samples"] == [None] * 3
    json.dumps(board.snapshot(), allow_nan=False)


def test_gaps_quarantine_and_revocation_show(board, spool, clock):
    show(board, spool.numerics())
    version = board.snapshot()["version"]
    board.add_gap("gw-1", DEVICE, "dropped", "spool full", START - 5, START, 12)
    board.quarantined("gw-1", kind="nonin", port="ttyS1", serial="501", frames=3, first=START, last=START)
    board.revoke("gw-1")
    changes = board.changes_since(version)
    assert (changes["gaps"][0]["cause"], changes["gaps"][0]["count"]) == ("spool full", 12)
    assert (changes["quarantine"][0]["serial"], changes["quarantine"][0]["frames"]) == ("501", 3)
    assert changes["gateways"][0]["marks"] == ["revoked"]
    assert "gap" in only(changes)["marks"]
    board.release("gw-1", kind="nonin", port="ttyS1", serial="501")
    assert board.changes_since(changes["version"])["quarantine"] == []
    clock.pass_(301)
    show(board, spool.numerics())
    assert "gap" not in only(board.snapshot())["marks"]


def test_every_table_is_bounded(clock):
    limits = BoardLimits(devices=2, gateways=2, numerics=3, waves=1, gaps=4, quarantine=2, wave_seconds=1.0)
    board = LiveBoard(wall=clock, clock=clock, limits=limits)
    spool = Spool(1, clock)
    for number in range(5):
        show(board, spool.numerics(f"{DEVICE}-{number}"), gateway=f"gw-{number}")
        board.add_gap("gw-1", DEVICE, "device", "x", START, START, number)
        board.quarantined("g", kind="k", port=str(number), serial="", frames=1, first=START, last=START + number)
    for metric in range(1, 10):
        wave = Samples(Decimal(50), SampleFormat.U8, bytes(500))
        common = {"gateway_time": START, "frame_hash": bytes(16), "decoder": "x"}
        observations = [Observation(metric, wave, "1", **common), Observation(metric, Decimal(1), "1", **common)]
        board.publish("gw-1", "oscore", f"{DEVICE}-0", observations, START)
    shape = board.snapshot()
    assert len(shape["devices"]) == len(shape["gateways"]) == 2
    assert [gap["count"] for gap in shape["gaps"]] == [1, 2, 3, 4]
    assert [row["port"] for row in shape["quarantine"]] == ["3", "4"]
    device = only(shape)
    assert (len(device["numerics"]), len(device["waves"])) == (3, 1)
    assert len(device["waves"][0]["samples"]) <= 51
    assert board.left_out > 10


def test_a_version_of_another_life_gives_the_whole_board(clock, spool):
    first = LiveBoard(wall=clock, clock=clock)
    show(first, spool.numerics())
    version = first.snapshot()["version"]
    clock.pass_(1)
    second = LiveBoard(wall=clock, clock=clock)
    assert second.changes_since(version)["full"] is True
    assert second.changes_since(second.version + 1)["full"] is True
    assert second.changes_since(-1)["full"] is True
    assert second.snapshot()["version"] < 2**53  # whole in every browser


def test_listeners_are_told_and_can_leave(board, spool):
    told = []
    cancel = board.subscribe(lambda: told.append(board.version))
    show(board, spool.numerics())
    board.heard("gw-1", "oscore")
    assert len(told) == 2
    cancel()
    cancel()
    show(board, spool.numerics())
    assert len(told) == 2


def test_readers_and_writers_may_be_threads(clock):
    board = LiveBoard(wall=clock, clock=clock)
    spool = Spool(1, clock)
    stop = threading.Event()
    faults = []

    def read():
        version = -1
        for _ in itertools.takewhile(lambda _: not stop.is_set(), itertools.count()):
            changes = board.changes_since(version)
            if changes["version"] < version:
                faults.append((changes["version"], version))
            version = changes["version"]

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for _ in range(300):
        show(board, spool.numerics())
        show(board, spool.wave())
    stop.set()
    for reader in readers:
        reader.join()
    assert faults == []
    wave = only(board.snapshot())["waves"][0]
    assert wave["index"] + len(wave["samples"]) == 300 * 50


def test_a_gateway_with_many_devices_does_not_take_the_whole_board(clock):
    board = LiveBoard(wall=clock, clock=clock, limits=BoardLimits(devices=4, devices_of_gateway=3))
    for number in range(5):
        show(board, Spool(1, clock).numerics(f"{DEVICE}-{number}"), gateway="gw-1")
    show(board, Spool(2, clock).numerics(OTHER), gateway="gw-2")
    assert [device["gateway"] for device in board.snapshot()["devices"]] == ["gw-1"] * 3 + ["gw-2"]
    assert board.left_out == 2
    assert BoardLimits().devices_of_gateway < BoardLimits().devices

"""The gateway engine with real decoders and a real spool, in hand-driven time."""

import random
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from spool_world import KEYS, START, notices

from vitalgate.cloud.ingest import Ingest
from vitalgate.cloud.store.store import Store
from vitalgate.coap.endpoint import Endpoint
from vitalgate.coap.parameters import Parameters
from vitalgate.coap.site import Site
from vitalgate.counters import Counters
from vitalgate.devices.hl7.er7 import parse
from vitalgate.devices.hl7.mllp import Block, Deframer, frame
from vitalgate.devices.nonin.codec import DISCONNECTED, MARK, SYNC, Packet, encode
from vitalgate.devices.registry import KINDS
from vitalgate.gateway.bindings import BindingTable, DeviceBinding, Quarantine
from vitalgate.gateway.delivery import pack_entry, unpack
from vitalgate.gateway.engine import (
    ClockStepped,
    DeviceHeard,
    DeviceQuarantined,
    DeviceSilent,
    GatewayEngine,
    GatewayLimits,
)
from vitalgate.gateway.entry import Entry
from vitalgate.gateway.notice import DeviceGap, Quarantined
from vitalgate.gateway.spool import Spool
from vitalgate.gateway.storage import SpoolBounds, SpoolFailing
from vitalgate.gateway.uplink import Uplink
from vitalgate.net.virtual import VirtualNetwork
from vitalgate.vitals.observation import Status, TrafficClass, frame_hash

LINE = "/dev/ttyS9"
MLLP = "tcp:127.0.0.1:2575"
NONIN = DeviceBinding("urn:dev:os:32473-nonin", "nonin", LINE, patient="Doe^Jane", location="Bed 3", demo=True)
MONITOR = DeviceBinding("urn:dev:mac:00a037fffe012345", "hl7", MLLP, serial="00a037fffe012345")


def nonin(number: int, *, alarm: bool = False) -> bytes:
    """One packet (125 bytes) whose pleth says which one it is."""
    flags = MARK | (DISCONNECTED if alarm else 0)
    var = bytearray(25)
    var[0], var[1], var[2] = 0, 72, 97
    var[13], var[14] = 0, 72
    return encode(Packet(bytes([flags | SYNC] + [flags] * 24), (number,) * 25, bytes(var)))


def hl7(control_id: str, *, eui: str = "00A037FFFE012345", value: int = 80) -> bytes:
    """One ORU^R01 in MLLP framing."""
    text = (
        f"MSH|^~\\&|MON^{eui}^EUI-64|LAB|||20261118110640.500+0000||ORU^R01^ORU_R01|{control_id}|P|2.6\r"
        "OBR|1|a|b|182777000^monitoring of patient^SCT|||20261118110639+0000|20261118110640+0000\r"
        f"OBX|1|NM|147842^MDC_ECG_HEART_RATE^MDC|1.5.1.1|{value}|264864^MDC_DIM_BEAT_PER_MIN^MDC|||||R\r"
    )
    return frame(text.encode())


class Rig:
    """An engine with two ports and its clock."""

    def __init__(self, folder: Path, bindings: tuple[DeviceBinding, ...] = (NONIN, MONITOR), **more: Any) -> None:
        self.folder = folder
        self.now = 100.0
        self.wall = START
        self.more = more
        self.bindings = BindingTable(bindings)
        self.start()

    def start(self) -> None:
        self.counters = Counters()
        self.spool = Spool(
            self.folder / "spool.db",
            KEYS,
            pack_entry,
            wall=lambda: self.wall,
            counters=self.counters,
            bounds=self.more.get("bounds"),
        )
        self.engine = GatewayEngine(
            self.spool,
            self.bindings,
            limits=self.more.get("limits"),
            counters=self.counters,
            wall=lambda: self.wall,
        )
        self.engine.add_port(LINE, KINDS["nonin"], self.now)
        self.engine.add_port(MLLP, KINDS["hl7"], self.now)
        self.engine.device_connected(LINE, "line", self.now)
        self.engine.device_connected(MLLP, "call", self.now, "127.0.0.1")

    def restart(self, *, clean: bool = False) -> None:
        if clean:
            self.spool.close()
        else:
            self.spool.kill()
        self.start()

    def hears(self, data: bytes, conn: str = "line") -> None:
        port = LINE if conn.startswith("line") else MLLP
        self.engine.device_data(port, conn, data, self.now)

    def answers(self, conn: str = "call") -> list[tuple[str, str]]:
        """(MSA-1, MSA-2) of each acknowledgement."""
        found = Deframer(1 << 20).feed(self.engine.device_data_to_send(MLLP, conn, self.now))
        messages = [parse(one.message) for one in found if isinstance(one, Block)]
        segments = [message.first("MSA") for message in messages]
        return [(segment.text(1), segment.text(2)) for segment in segments if segment is not None]

    def wait(self, seconds: float) -> None:
        """Let time pass, stopping at every deadline."""
        end = self.now + seconds
        while (due := self.engine.next_timeout()) is not None and due <= end:
            self.wall += max(0.0, due - self.now)
            self.now = max(self.now, due)
            self.engine.handle_timeout(self.now)
            after = self.engine.next_timeout()
            assert after is None or after > self.now, "a deadline that was handled is not due again"
        self.wall += end - self.now
        self.now = end

    def taken(self) -> list[Entry]:
        """Everything the spool has, released."""
        entries: list[Entry] = []
        while batch := self.spool.next_batch(4096, self.now):
            entries += [unpack(stored.packed)[0] for stored in batch]
            self.spool.release([stored.id for stored in batch])
        return entries

    def events(self, *kinds: type) -> list[Any]:
        found = []
        while (event := self.engine.next_event()) is not None:
            if isinstance(event, kinds):
                found.append(event)
        return found


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


def of(entries: list[Entry], binding: DeviceBinding) -> list[Entry]:
    return [entry for entry in entries if entry.device == binding.urn and entry.notice is None]


def test_a_frame_gets_its_identity_and_is_durable_within_the_commit_time(rig: Rig) -> None:
    rig.hears(nonin(1))
    assert of(rig.taken(), NONIN) == []
    rig.wait(0.019)
    assert of(rig.taken(), NONIN) == []
    rig.wait(0.002)
    entries = of(rig.taken(), NONIN)
    assert [entry.traffic_class for entry in entries] == [TrafficClass.WAVEFORM_REALTIME, TrafficClass.VITAL_PERIODIC]
    for entry in entries:
        for observation in entry.observations:
            assert (observation.device, observation.patient, observation.location) == (NONIN.urn, "Doe^Jane", "Bed 3")
            assert observation.status & Status.DEMO
            assert observation.gateway_time == START
    assert rig.events(DeviceHeard) == [DeviceHeard(NONIN.urn, LINE)]
    assert rig.counters["gateway_frames{buffered}"] == 1


def test_frames_share_commits(rig: Rig) -> None:
    before = rig.counters["gateway_spool_commits"]
    for number in range(10):
        rig.hears(nonin(number))
        rig.wait(0.001)
    rig.wait(0.05)
    assert rig.counters["gateway_spool_commits"] - before == 1
    assert len(of(rig.taken(), NONIN)) == 20


def test_an_alarm_is_committed_at_once(rig: Rig) -> None:
    rig.hears(nonin(1))
    rig.hears(nonin(2, alarm=True))
    entries = of(rig.taken(), NONIN)
    assert entries[0].traffic_class is TrafficClass.ALARM
    assert len(entries) > 2, "and what waited goes with it"


def test_a_flood_of_alarms_shares_commits(rig: Rig) -> None:
    before = rig.counters["gateway_spool_commits"]
    for number in range(100):
        rig.hears(nonin(number, alarm=True))
        rig.wait(0.0005)
    rig.wait(0.01)
    assert 8 <= rig.counters["gateway_spool_commits"] - before <= 13
    assert len({e.frame_hash for e in of(rig.taken(), NONIN)}) == 100


def test_many_frames_do_not_wait(tmp_path: Path) -> None:
    rig = Rig(tmp_path, limits=GatewayLimits(commit_entries=5))
    for number in range(5):
        rig.hears(nonin(number))
    assert len(of(rig.taken(), NONIN)) == 10


def test_a_two_way_device_is_acknowledged_after_the_commit_and_once_for_a_repetition(rig: Rig) -> None:
    rig.hears(hl7("A1"), "call")
    assert rig.answers() == []
    rig.wait(0.03)
    assert rig.answers() == [("AA", "A1")]
    rig.hears(hl7("A1"), "call")
    assert rig.answers() == [("AA", "A1")], "committed before: acknowledged at once"
    rig.restart()
    rig.hears(hl7("A1"), "call")
    assert rig.answers() == [("AA", "A1")], "known after a crash too"
    rig.hears(hl7("A2", value=81), "call")
    rig.wait(0.03)
    assert rig.answers() == [("AA", "A2")]
    assert len(of(rig.taken(), MONITOR)) == 2


def test_killed_before_the_commit_nothing_was_acknowledged_and_the_device_asks_again(rig: Rig) -> None:
    rig.hears(hl7("A1"), "call")
    rig.restart()
    assert rig.answers() == []
    rig.hears(hl7("A1"), "call")
    rig.wait(0.03)
    assert rig.answers() == [("AA", "A1")]
    assert len(of(rig.taken(), MONITOR)) == 1


def test_a_full_spool_says_so_to_a_two_way_device(tmp_path: Path) -> None:
    rig = Rig(tmp_path, bounds=SpoolBounds(max_entries=7, reserve_entries=1))
    codes = []
    for number in range(8):
        rig.hears(hl7(f"A{number}"), "call")
        rig.wait(0.03)
        codes += [code for code, _ in rig.answers()]
    assert codes == ["AA"] * 5 + ["AE"] * 3
    assert len(of(rig.taken(), MONITOR)) == 5
    rig.wait(1.0)
    rig.hears(hl7("A5"), "call")
    rig.wait(0.03)
    assert rig.answers() == [("AA", "A5")]


def test_a_disk_that_refuses_holds_acknowledgements_back_and_is_tried_again(rig: Rig) -> None:
    assert rig.spool._tables is not None
    rig.spool._tables._db.execute("PRAGMA busy_timeout = 1")
    other = sqlite3.connect(rig.folder / "spool.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    rig.hears(hl7("A1"), "call")
    rig.hears(nonin(1))
    rig.wait(1.0)
    rig.hears(hl7("A1"), "call")
    rig.hears(hl7("A2"), "call")
    rig.wait(20.0)
    assert rig.answers() == [], "A1 waits, and A2's refusal must not overtake it"
    assert rig.events(SpoolFailing) == [SpoolFailing("locked")]
    assert 4 <= rig.counters["gateway_spool_commit_failed{locked}"] <= 12, "tried again with growing pauses"
    other.execute("COMMIT")
    other.close()
    rig.wait(6.0)
    assert rig.answers() == [("AA", "A1"), ("AA", "A1"), ("AE", "A2")]
    entries = rig.taken()
    assert len(of(entries, MONITOR)) == 1
    assert len(of(entries, NONIN)) == 2


# quarantine


def test_who_is_not_enrolled_is_decoded_counted_and_not_forwarded(tmp_path: Path) -> None:
    rig = Rig(tmp_path, bindings=(MONITOR,))
    for number in range(100):
        rig.hears(nonin(number))
        rig.wait(1.0)
    entries = rig.taken()
    assert [entry for entry in entries if entry.observations] == []
    told = notices(entries, Quarantined)
    assert [(one.port, one.kind, one.serial, one.frames, one.since) for one in told] == [
        (LINE, "nonin", "", 1, START),
        (LINE, "nonin", "", 60, START),
    ]
    assert rig.counters["gateway_quarantined{not-enrolled}"] == 100
    assert rig.counters["device_frames{nonin}"] == 100
    assert rig.events(DeviceQuarantined) == [DeviceQuarantined(LINE, "nonin", "", Quarantine.NOT_ENROLLED)]
    rig.wait(60.0)
    assert [one.frames for one in notices(rig.taken(), Quarantined)] == [100], "what came last is told late, not never"


def test_an_enrolled_device_on_another_port_is_an_event(tmp_path: Path) -> None:
    rig = Rig(tmp_path, bindings=(NONIN, replace(MONITOR, port="tcp:127.0.0.1:9999")))
    rig.hears(hl7("A1"), "call")
    assert rig.answers() == [("AR", "A1")]
    (event,) = rig.events(DeviceQuarantined)
    assert event == DeviceQuarantined(MLLP, "hl7", MONITOR.serial, Quarantine.OTHER_PORT, MONITOR.urn)


def test_quarantine_is_bounded_however_many_names_are_claimed(rig: Rig) -> None:
    for number in range(100):
        rig.hears(hl7(f"A{number}", eui=f"00A037FFFE1{number:05X}"), "call")
    rig.wait(1.0)
    assert len(list(rig.engine.quarantined())) == 17
    assert sum(source.frames for _, source in rig.engine.quarantined()) == 100
    assert len(notices(rig.taken(), Quarantined)) == 17
    assert {code for code, _ in rig.answers()} == {"AR"}


def test_binding_a_device_lets_it_through_from_its_next_frame(tmp_path: Path) -> None:
    rig = Rig(tmp_path, bindings=())
    rig.hears(nonin(1))
    rig.engine.set_bindings(BindingTable([NONIN]), rig.now)
    rig.hears(nonin(2))
    rig.engine.set_bindings(BindingTable(), rig.now)
    rig.hears(nonin(3))
    rig.wait(1.0)
    assert {observation.frame_hash for entry in of(rig.taken(), NONIN) for observation in entry.observations} == {
        frame_hash_of(2)
    }
    assert list(rig.engine.watched()) == []


def test_whoever_was_in_quarantine_is_released_when_bindings_change(tmp_path: Path) -> None:
    rig = Rig(tmp_path, bindings=())
    rig.hears(nonin(1))
    rig.hears(hl7("A1"), "call")
    rig.wait(1.0)
    rig.taken()
    rig.engine.set_bindings(BindingTable([NONIN]), rig.now)
    rig.hears(nonin(2))
    rig.hears(hl7("A2"), "call")
    rig.wait(1.0)
    told = [(one.port, one.serial, one.frames) for one in notices(rig.taken(), Quarantined)]
    assert told == [(LINE, "", 0), (MLLP, MONITOR.serial, 0), (MLLP, MONITOR.serial, 1)]


def frame_hash_of(number: int) -> bytes:
    return frame_hash(nonin(number))


# silence, damage, floods


def test_a_silent_line_is_noticed_and_its_gap_told_when_it_speaks_again(rig: Rig) -> None:
    rig.hears(nonin(1))
    rig.wait(2.5)
    rig.hears(nonin(2))
    heard = rig.wall
    rig.wait(2.9)
    assert rig.events(DeviceSilent) == []
    rig.wait(1.2)
    assert rig.events(DeviceSilent) == [DeviceSilent(NONIN.urn, LINE)]
    rig.wait(1.0)
    rig.hears(nonin(3))
    end = rig.wall
    rig.wait(1.0)
    gaps = notices(rig.taken(), DeviceGap)
    assert gaps == [DeviceGap(NONIN.urn, heard, end, "line silent")]
    assert DeviceHeard(NONIN.urn, LINE) in rig.events(DeviceHeard)


def test_silence_is_told_once(rig: Rig) -> None:
    rig.hears(nonin(1))
    rig.wait(600.0)
    silent = rig.events(DeviceSilent)
    assert sorted(event.urn for event in silent) == sorted([NONIN.urn, MONITOR.urn])
    assert not rig.spool.must_commit()


def test_what_was_said_while_the_gateway_was_down_is_a_gap(rig: Rig) -> None:
    for clean, cause in ((False, "gateway crashed"), (True, "gateway stopped")):
        rig.hears(nonin(1))
        rig.hears(hl7("A1"), "call")
        rig.wait(0.5)
        heard = rig.wall - 0.5
        rig.taken()
        if clean:
            rig.engine.device_disconnected(LINE, "line", rig.now)
        rig.wall += 30.0
        rig.restart(clean=clean)
        rig.wait(1.0)
        rig.hears(nonin(2))
        rig.wait(0.1)
        assert notices(rig.taken(), DeviceGap) == [DeviceGap(NONIN.urn, heard, heard + 31.5, cause)]


def test_damaged_bytes_are_a_gap_with_their_number(rig: Rig) -> None:
    rig.hears(nonin(1))
    rig.wait(0.3)
    start = rig.wall - 0.3
    rig.hears(b"\x00" * 40 + nonin(2)[:60])
    rig.wait(0.3)
    rig.hears(nonin(3))
    end = rig.wall
    rig.hears(nonin(4))
    rig.wait(2.0)
    gaps = notices(rig.taken(), DeviceGap)
    assert gaps == [DeviceGap(NONIN.urn, start, end, "bytes damaged", 100)]


def test_a_noisy_line_does_not_fill_the_spool_with_notices(rig: Rig) -> None:
    noise = 0
    for number in range(600):
        rig.hears(nonin(number) + b"\x00" * 7)
        noise += 7
        rig.wait(0.3)
    rig.wait(11.0)
    gaps = [gap for gap in notices(rig.taken(), DeviceGap) if gap.cause == "bytes damaged"]
    assert 15 <= len(gaps) <= 20
    assert sum(gap.size for gap in gaps) in (noise, noise - 7), "every byte is in one of them (but those still open)"
    assert all(one.end <= other.start for one, other in pairwise(gaps)), "they do not overlap"


def test_noise_before_the_first_frame_is_only_counted(rig: Rig) -> None:
    rig.hears(nonin(9)[40:] + nonin(1))
    rig.hears(nonin(2))
    rig.wait(2.0)
    assert notices(rig.taken(), DeviceGap) == []
    assert rig.counters.total("device_bytes_discarded") == 85


def test_a_flood_is_cut_off_counted_and_holds_nobody_up(tmp_path: Path) -> None:
    rig = Rig(tmp_path, limits=GatewayLimits(line_bytes=2000, line_burst=4000))
    rig.hears(nonin(1))
    rig.wait(0.1)
    for _ in range(50):
        rig.hears(nonin(7) * 400)
        rig.hears(hl7("A1"), "call")
        rig.wait(0.1)
    assert rig.answers(), "the other device goes on"
    dropped = rig.counters["gateway_device_bytes_dropped{rate}"]
    assert dropped >= 50 * 50_000 - 4000 - 6 * 2000
    rig.wait(30.0)
    rig.hears(nonin(8))
    rig.wait(15.0)
    entries = rig.taken()
    assert len(of(entries, NONIN)) < 2 * (4000 + 6 * 2000 + 60_000) // 125
    gaps = [gap for gap in notices(entries, DeviceGap) if gap.cause == "rate limited"]
    assert gaps
    assert sum(gap.size for gap in gaps) >= dropped


def test_too_many_frames_of_a_two_way_device_are_told_full(tmp_path: Path) -> None:
    rig = Rig(tmp_path, limits=GatewayLimits(line_frames=1.0, frame_burst=3.0, address_lines=1))
    for number in range(6):
        rig.hears(hl7(f"A{number}"), "call")
    rig.wait(0.1)
    assert [code for code, _ in rig.answers()] == ["AA"] * 3 + ["AE"] * 3
    assert rig.counters["gateway_frames_dropped{rate}"] == 3


def test_an_address_gets_no_more_by_calling_again_and_again(tmp_path: Path) -> None:
    """Each call has a burst, and decoding costs far more than dialling: other lines would wait."""
    rig = Rig(tmp_path, limits=GatewayLimits(line_bytes=1000, line_burst=4000, addresses=2))
    message = hl7("A", eui="00A037FFFE0BAD00")

    def flood(peer: str) -> int:
        before = rig.counters["device_frames{hl7}"]
        for number in range(20):
            conn = f"call-{peer}-{number}"
            rig.engine.device_connected(MLLP, conn, rig.now, peer)
            rig.hears(message * 10, conn)
            if number % 2:
                rig.engine.device_disconnected(MLLP, conn, rig.now)
        return rig.counters["device_frames{hl7}"] - before

    most = 2 * 4000 // len(message)
    assert flood("192.0.2.1") == most
    assert flood("192.0.2.1") == 0
    assert flood("192.0.2.2") == most, "another address has its own"
    rig.wait(1.0)
    assert 0 < flood("192.0.2.1") <= 2 * 1000 // len(message)
    rig.hears(nonin(1))
    rig.wait(0.1)
    assert rig.counters["device_frames{nonin}"] == 1


def test_lines_beyond_the_bound_and_unknown_lines_are_counted(tmp_path: Path) -> None:
    rig = Rig(tmp_path, limits=GatewayLimits(lines=2))
    rig.engine.device_connected(MLLP, "call2", rig.now)
    rig.engine.device_connected(MLLP, "call3", rig.now)
    assert rig.counters["gateway_lines_refused"] == 1
    rig.hears(hl7("A1"), "call3")
    assert rig.counters["gateway_device_bytes_dropped{no-line}"] == len(hl7("A1"))
    rig.engine.device_disconnected(MLLP, "call3", rig.now)
    rig.engine.device_disconnected(MLLP, "call2", rig.now)
    rig.engine.device_connected(MLLP, "call3", rig.now)
    rig.hears(hl7("A1"), "call3")
    rig.wait(0.1)
    assert rig.answers("call3") == [("AA", "A1")]


def test_a_line_that_closes_in_a_frame_loses_only_that(rig: Rig) -> None:
    rig.hears(nonin(1) + nonin(2)[:50])
    rig.engine.device_disconnected(LINE, "line", rig.now)
    rig.engine.device_connected(LINE, "line", rig.now)
    rig.hears(nonin(3))
    rig.wait(1.0)
    assert len(of(rig.taken(), NONIN)) == 4


def test_a_clock_step_moves_times_and_nothing_else(rig: Rig) -> None:
    rig.hears(nonin(1))
    rig.wait(1.0)
    for step in (-86_400.0, 2 * 86_400.0):
        rig.wall += step
        rig.wait(1.5)
        rig.hears(nonin(2))
        rig.wait(0.1)
    steps = [round(event.seconds) for event in rig.events(ClockStepped)]
    assert steps == [-86_400, 172_800]
    entries = rig.taken()
    assert len(of(entries, NONIN)) == 6
    assert notices(entries, DeviceGap) == [], "no silence was seen where none was"
    assert all(gap.end >= gap.start for gap in notices(entries, DeviceGap))


def test_garbage_on_every_port_raises_nothing(rig: Rig) -> None:
    noise = random.Random(5)
    for _ in range(300):
        rig.hears(noise.randbytes(noise.randrange(200)))
        rig.hears(noise.randbytes(noise.randrange(200)), "call")
        rig.hears(b"\x0b" + noise.randbytes(50) + b"\x1c\x0d", "call")
        rig.wait(0.2)
    rig.hears(nonin(1))
    rig.hears(nonin(2))
    rig.wait(1.0)
    assert len(of(rig.taken(), NONIN)) >= 2


def test_ports_are_bounded_and_named_once(rig: Rig) -> None:
    with pytest.raises(ValueError, match="there already"):
        rig.engine.add_port(LINE, KINDS["nonin"], rig.now)


# whole


def test_from_bytes_to_the_store_over_a_bad_link(tmp_path: Path) -> None:
    """Every observation that was committed is in the store, once; the monitor is acknowledged for all it said."""
    network = VirtualNetwork(3, wall_start=START)
    network.default_link.loss, network.default_link.delay = 0.1, 0.02
    store = Store(tmp_path / "cloud.db", KEYS, wall=network.wall("cloud"))
    site = Site()
    cloud = Ingest(Endpoint(site=site, randomness=network.randomness("cloud")), store, allow_nosec=True)
    cloud.attach(site)
    stored: list[Entry] = []
    cloud.on_committed = stored.extend
    spool = Spool(
        tmp_path / "spool.db",
        KEYS,
        pack_entry,
        wall=network.wall("gateway"),
        randomness=network.randomness("spool"),
        ledger=True,
    )
    endpoint = Endpoint(parameters=Parameters(nstart=9), randomness=network.randomness("endpoint"))
    uplink = Uplink(endpoint, spool, ("gateway", "cloud"), randomness=network.randomness("uplink"))
    engine = GatewayEngine(spool, BindingTable([NONIN, MONITOR]), uplink=uplink, wall=network.wall("gateway"))
    engine.add_port(LINE, KINDS["nonin"], 0.0)
    engine.add_port(MLLP, KINDS["hl7"], 0.0)
    engine.device_connected(LINE, "line", 0.0)
    engine.device_connected(MLLP, "call", 0.0, "127.0.0.1")
    network.add_host("cloud", cloud)
    network.add_host("gateway", engine)
    acknowledged = 0

    def feed(port: str, conn: str, data: bytes) -> Callable[[], None]:
        def call() -> None:
            engine.device_data(port, conn, data, network.now)
            network.touch("gateway")

        return call

    for number in range(300):
        network.at(number / 3, feed(LINE, "line", nonin(number, alarm=number % 50 == 7)))
        network.at(number / 3, feed(MLLP, "call", hl7(f"C{number}", value=60 + number % 40)))
    network.at(30.0, lambda: network.partition("gateway", "cloud"))
    network.at(60.0, lambda: network.partition("gateway", "cloud", up=True))
    network.run(400.0)
    found = Deframer(1 << 20).feed(engine.device_data_to_send(MLLP, "call", network.now))
    acknowledged = sum(isinstance(one, Block) for one in found)
    assert acknowledged == 300
    assert spool.status().entries == 0
    ledger = spool.ledger()
    for binding in (NONIN, MONITOR):
        hashes: dict[bytes, int] = {}
        for entry in of(stored, binding):
            hashes[entry.frame_hash] = hashes.get(entry.frame_hash, 0) + 1
        assert hashes == dict(ledger[binding.urn]), "0 lost, 0 doubled"
    numbers = sorted(entry.sequence for entry in stored)
    assert numbers == list(range(1, spool.status().last_sequence + 1))
    store.close()

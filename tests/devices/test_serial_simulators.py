"""The simulated Ivy and Nonin: in the wire format, on schedule, honest about what they said."""

import itertools
from collections import Counter

import pytest

pytest.importorskip("numpy", reason="simulated devices need vitalgate[demo]")

from vitalgate.counters import Counters
from vitalgate.devices.contract import Faults, Frame, Transport
from vitalgate.devices.ivy450c.simulator import APNOEA, messages
from vitalgate.devices.nonin.codec import decode as decode_packet
from vitalgate.devices.playback import MAX_PENDING, Playback
from vitalgate.devices.recordings import beats, ecg
from vitalgate.devices.registry import KINDS
from vitalgate.vitals.observation import Priority, Status, frame_hash

SERIAL = ("ivy450c", "nonin")
PERIOD = {"ivy450c": 1.0, "nonin": 1 / 3}


def simulator(kind, faults=None, seed=0, start=100.0):
    made = KINDS[kind].make_simulator(start, lambda: 0.0, faults or Faults(), seed)
    made.connection_made(start)
    return made


def play(kind, seconds, faults=None, seed=0):
    """Run a simulator into its codec; gives (hashes said, frames heard, counters)."""
    device, counters = simulator(kind, faults, seed), Counters()
    engine = KINDS[kind].make_engine(lambda: now, counters)
    said, heard = [], []
    while (now := device.next_timeout()) <= 100.0 + seconds + 0.001:
        device.handle_timeout(now)
        engine.receive_data(device.data_to_send(now), 0, now)
        said += device.sent_frames()
        heard += [e for e in iter(engine.next_event, None) if isinstance(e, Frame)]
    return said, heard, counters


@pytest.mark.parametrize("kind", SERIAL)
class TestEveryKind:
    def test_row(self, kind):
        row = KINDS[kind]
        assert (row.slug, row.transport, row.two_way, row.serial.baud) == (kind, Transport.SERIAL, False, 9600)
        assert row.idle_after > 2 * PERIOD[kind]

    def test_what_it_says_is_what_is_decoded(self, kind):
        said, heard, counters = play(kind, 320)  # beyond the end of the loop
        assert len(said) == round(320 / PERIOD[kind])
        assert [f.hash for f in heard] == said
        assert counters.total("device_bytes_discarded") == 0

    def test_it_fits_its_line(self, kind):
        _, heard, _ = play(kind, 10)
        row = KINDS[kind].serial
        assert sum(len(f.raw) for f in heard) / 10 <= row.baud / (1 + row.bits + row.stop)

    def test_schedule_does_not_drift_or_wait(self, kind):
        device = simulator(kind)
        period = PERIOD[kind]
        assert device.next_timeout() == pytest.approx(100.0 + period)
        device.handle_timeout(100.0 + period / 2)
        assert device.data_to_send(100.0) == b""
        device.handle_timeout(100.0 + 600 * period + 1e-6)  # late: everything due is said
        assert len(device.sent_frames()) == 600
        assert device.next_timeout() == pytest.approx(100.0 + 601 * period)
        assert device.sent_frames() == []
        device.receive_data(b"\x15", 100.0)
        assert device.waiting() == 0

    def test_it_speaks_on_unheard(self, kind):
        device = simulator(kind)
        device.connection_lost(100.0)
        device.handle_timeout(105.01)
        assert device.data_to_send(105.01) == b""
        device.connection_made(105.01)
        device.handle_timeout(110.01)
        assert len(device.sent_frames()) == round(10 / PERIOD[kind])
        heard = device.data_to_send(110.01)
        assert len(heard) == pytest.approx(len(simulator_bytes(kind, 5)), rel=0.02)

    def test_a_line_nobody_reads_holds_a_bounded_amount(self, kind):
        device = simulator(kind)
        device.handle_timeout(100.0 + 3000 * PERIOD[kind])
        assert 0.9 * MAX_PENDING < len(device.data_to_send(0.0)) <= MAX_PENDING
        assert len(device.sent_frames()) >= 2999

    def test_seeds(self, kind):
        faults = Faults(drop=0.001, flip=0.001, garbage=0.1)
        first, again, other = (simulator_bytes(kind, 20, faults, seed) for seed in (1, 1, 2))
        assert first == again
        assert first != other
        assert simulator_bytes(kind, 5, seed=0) != simulator_bytes(kind, 5, seed=1)

    def test_stall_silences_the_line_but_not_the_device(self, kind):
        faults = Faults(stall=0.05, stall_seconds=5.0)
        said, heard, _ = play(kind, 200, faults, seed=3)
        assert len(said) == round(200 / PERIOD[kind])
        assert 0 < len(heard) < 0.95 * len(said)
        assert not Counter(f.hash for f in heard) - Counter(said)
        times = [f.received_at for f in heard]
        assert max(b - a for a, b in itertools.pairwise(times)) >= 5.0

    def test_garbage_costs_no_frame(self, kind):
        said, heard, counters = play(kind, 60, Faults(garbage=0.5), seed=4)
        assert [f.hash for f in heard] == said
        assert counters.total("device_bytes_discarded") > 100

    def test_dropped_bytes_cost_their_frames_only(self, kind):
        said, heard, _ = play(kind, 200, Faults(drop=0.0005), seed=5)
        assert 0.5 * len(said) < len(heard) < len(said)
        extra = Counter(f.hash for f in heard) - Counter(said)
        # Ivy messages have no checksum: a byte lost from a digit or a text leaves a message that parses
        assert extra.total() <= (0.05 * len(said) if kind == "ivy450c" else 0)


def simulator_bytes(kind, seconds, faults=None, seed=0):
    device = simulator(kind, faults, seed)
    device.handle_timeout(100.0 + seconds + 0.001)
    return device.data_to_send(0.0)


def test_flipped_bits_never_pass_a_checksum():
    said, heard, counters = play("nonin", 200, Faults(flip=0.001), seed=6)
    assert counters["device_bytes_discarded{nonin/checksum}"] > 1000
    assert len(heard) < len(said)
    assert not Counter(f.hash for f in heard) - Counter(said)


def test_hashes_are_of_frames_as_said_not_as_heard():
    device = Playback([b"a whole frame"], 1.0, 0.0, Faults(flip=1.0), 0)
    device.connection_made(0.0)
    device.handle_timeout(1.0)
    assert device.data_to_send(1.0) != b"a whole frame"
    assert device.sent_frames() == [frame_hash(b"a whole frame")]


@pytest.fixture(scope="module")
def loop():
    """The Ivy's whole loop, decoded: of each message (metric, label) -> observation."""
    return [{(o.metric, o.label): o for o in f.observations} for f in play("ivy450c", 300)[1]]


class TestIvyContent:
    def test_the_loop_is_the_whole_recording(self, loop):
        assert len(loop) == len(messages()) == 300

    def test_heart_rate_is_that_of_the_recording(self, loop):
        times = beats(ecg())
        shown = [float(seen[147842, ""].value) for seen in loop]
        assert sum(shown) / 300 == pytest.approx(60 * (len(times) - 1) / (times[-1] - times[0]), rel=0.06)
        assert len(set(shown)) > 15

    def test_the_pulse_follows_the_heart(self, loop):
        pairs = [(float(seen[147842, ""].value), float(seen[149530, ""].value)) for seen in loop]
        assert sum(abs(hr - pr) for hr, pr in pairs) / 300 < 6

    def test_pressures_are_those_of_the_wave(self, loop):
        for second in range(5, 300):
            wave = [s for seen in loop[second - 4 : second + 1] for s in seen[150016, "P1"].value.raw()]
            high, low, mean = (float(loop[second][code, "P1"].value) for code in (150017, 150018, 150019))
            assert max(wave) == pytest.approx(high, abs=1)
            assert min(wave) == pytest.approx(low, abs=1)
            assert sum(wave) / len(wave) == pytest.approx(mean, abs=1)
            assert 60 < low < mean < high < 150

    def test_the_apnoea_is_flat_and_alarmed(self, loop):
        alarmed = [n for n, seen in enumerate(loop) if seen[151562, ""].alarm.priority is Priority.HIGH]
        assert alarmed == list(range(39, 46))
        for second in range(int(APNOEA[0]), int(APNOEA[1])):
            assert len(set(loop[second][151780, ""].value.raw())) == 1
        assert max(loop[10][151780, ""].value.raw()) - min(loop[10][151780, ""].value.raw()) > 20

    def test_values_are_plausible_and_never_the_sign_for_no_signal(self, loop):
        for seen in loop:
            for o in seen.values():
                assert not o.status & Status.IMPLAUSIBLE, o
                if o.is_waveform:
                    assert max(o.value.raw()) <= 250
            assert 88 <= seen[150456, ""].value <= 100
            assert 10 <= (seen[151562, ""].value or 15) <= 20
            assert seen[150016, "P2"].value is None

    def test_the_cuff_measures_once_a_minute(self, loop):
        readings = [tuple(seen[code, ""].value for code in (150021, 150022, 150023)) for seen in loop]
        changes = [n for n in range(1, 300) if readings[n] != readings[n - 1]]
        assert changes == [60, 120, 180, 240]
        assert all(high > mean > low for high, low, mean in readings)


class TestNoninContent:
    def test_rates_timer_and_seam(self):
        _, heard, _ = play("nonin", 60)
        packets = [decode_packet(f.raw) for f in heard]
        assert [p.timer() for p in packets] == list(range(180))
        assert all(52 <= p.rate() <= 68 for p in packets)  # the recording's mean is 59 to 62, by detector
        assert all(94 <= p.saturation() <= 100 for p in packets)
        assert {f.version for f in heard} == {"48"}
        wave = [sample for p in packets for sample in p.pleth]
        assert max(abs(b - a) for a, b in itertools.pairwise(wave)) < 9000  # nowhere a jump, loops included
        marked = [bool(byte & 2) for p in packets for byte in p.status]
        pulses = sum(b and not a for a, b in itertools.pairwise(marked))
        assert pulses == pytest.approx(59, abs=3)

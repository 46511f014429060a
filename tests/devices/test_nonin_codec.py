"""The Nonin codec (serial data format 7): bit layouts, checksum and sync, and its promise about bad input."""

import itertools
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vitalgate.counters import Counters
from vitalgate.devices.contract import Discarded, Frame
from vitalgate.devices.nonin.codec import FRAME, PACKET, NoninEngine, Packet, decode, encode
from vitalgate.devices.stream import FrameError, StreamLimits
from vitalgate.vitals.observation import Priority, Status

FLAGS = 0x7E  # STATUS without the mark and SYNC


def packet(rate=72, saturation=97, *, flags=None, var7=0, pleth=None, firmware=48, timer=0):
    """A packet; ``flags`` maps a frame's place to STATUS bits."""
    status = bytearray([0x81] + [0x80] * 24)
    for place, bits in (flags or {}).items():
        status[place] |= bits
    var = bytearray(25)
    var[0], var[1] = rate >> 7, rate & 0x7F
    var[2], var[3], var[7] = saturation, firmware, var7
    var[5], var[6] = divmod(timer, 128)
    return Packet(bytes(status), tuple(pleth or range(30000, 30025)), bytes(var))


def run(*chunks):
    engine = NoninEngine(lambda: 500.0)
    for chunk in chunks:
        engine.receive_data(chunk, "a", 0.0)
    engine.connection_lost("a", 0.0)
    return list(iter(engine.next_event, None))


def value_or_reason(raw):
    try:
        return decode(raw)
    except FrameError as error:
        return error.reason


def frames(events):
    return [event for event in events if isinstance(event, Frame)]


def one(made):
    (event,) = run(encode(made))
    return event, {o.metric: o for o in event.observations}


packets = st.builds(
    Packet,
    st.lists(st.integers(0, FLAGS).map(lambda b: 0x80 | b & FLAGS), min_size=25, max_size=25).map(
        lambda s: bytes([s[0] | 1, *s[1:]])
    ),
    st.lists(st.integers(0, 65535), min_size=25, max_size=25).map(tuple),
    st.binary(min_size=25, max_size=25),
)


class TestMeaning:
    def test_one_packet_byte_by_byte_as_documented(self):
        raw = encode(packet(rate=130, saturation=97, pleth=[0x1234] * 25))
        assert raw[:5] == bytes.fromhex("81 12 34 01 C8")  # CHK = 81+12+34+01 mod 256; rate 130 = 1 << 7 | 2
        assert raw[5:10] == bytes.fromhex("80 12 34 02 C8")
        assert raw[10:15] == bytes.fromhex("80 12 34 61 27")
        assert len(raw) == 125

    @pytest.mark.parametrize(
        ("high", "low", "rate"), [(0, 72, 72), (1, 0, 128), (1, 2, 130), (2, 65, 321), (3, 127, None)]
    )
    def test_rate_is_two_bits_and_seven(self, high, low, rate):
        made = packet()
        var = bytes([high | 0x7C, low, *made.var[2:]])  # the other bits of the first byte are reserved
        assert Packet(made.status, made.pleth, var).rate() == rate

    def test_observations(self):
        event, seen = one(packet(rate=200, saturation=93, firmware=48))
        assert list(seen) == [150452, 150456, 149530]
        assert (seen[150456].value, seen[150456].unit) == (Decimal(93), "%")
        assert (seen[149530].value, seen[149530].unit) == (Decimal(200), "/min")
        assert all(o.status is Status.NONE and o.alarm is None for o in seen.values())
        assert all(o.gateway_time == 500.0 and o.frame_hash == event.hash for o in seen.values())
        assert event.version == "48"

    @given(st.lists(st.integers(0, 65535), min_size=25, max_size=25))
    @settings(max_examples=20)
    def test_pleth_keeps_all_sixteen_bits(self, pleth):
        _, seen = one(packet(pleth=pleth))
        samples = seen[150452].value
        assert samples.rate == 75
        assert [samples.origin + samples.factor * raw for raw in samples.raw()] == pleth

    def test_no_reading(self):
        _, seen = one(packet(rate=511, saturation=127))
        assert seen[150456].value is None
        assert seen[149530].value is None
        assert seen[150456].status == seen[149530].status == Status.UNAVAILABLE

    @pytest.mark.parametrize(
        ("bits", "text", "priority"),
        [
            (0x08, "SENSOR ALARM", Priority.LOW),
            (0x10, "OUT OF TRACK", Priority.INFORMATION),
            (0x04, "LOW PERFUSION", Priority.INFORMATION),
            (0x20, None, None),
        ],
    )
    def test_conditions_make_values_questionable(self, bits, text, priority):
        _, seen = one(packet(flags={17: bits}))
        assert seen[150456].value == 97
        assert all(o.status & Status.QUESTIONABLE for o in seen.values())
        alarm = seen[150456].alarm
        assert (alarm and alarm.text, alarm and alarm.priority) == (text, priority)
        assert bool(seen[150456].status & Status.IN_ALARM) == (priority is Priority.LOW)
        assert seen[149530].alarm is None

    @pytest.mark.parametrize("bits", [0x02, 0x06])
    def test_green_and_yellow_perfusion_are_good(self, bits):
        _, seen = one(packet(flags={3: bits}))
        assert seen[150456].status is Status.NONE

    def test_a_disconnected_sensor_measures_nothing(self):
        _, seen = one(packet(flags={0: 0x40}))
        assert seen[150456].value is None
        assert seen[150456].alarm.text == "SENSOR DISCONNECTED"
        assert seen[150456].status & Status.UNAVAILABLE

    def test_low_battery_does_not_touch_the_values(self):
        _, seen = one(packet(var7=1, flags={2: 0x10}))
        assert (seen[150456].alarm.text, seen[150456].alarm.priority) == ("OUT OF TRACK, LOW BATTERY", Priority.LOW)
        _, seen = one(packet(var7=1))
        assert not seen[150456].status & Status.QUESTIONABLE

    def test_implausible_rate_is_kept_and_marked(self):
        _, seen = one(packet(rate=400))
        assert (seen[149530].value, seen[149530].status) == (Decimal(400), Status.IMPLAUSIBLE)

    @given(packets)
    def test_round_trip(self, made):
        assert decode(encode(made)) == made


THREE = [encode(packet(rate=60 + n, timer=n, pleth=range(n * 999, n * 999 + 25))) for n in range(3)]


class TestBadInput:
    def test_no_altered_packet_passes(self):
        """Every single-bit change anywhere in a packet costs that packet and no other."""
        for at, bit in itertools.product(range(PACKET), range(8)):
            bad = bytearray(THREE[1])
            bad[at] ^= 1 << bit
            got = [f.raw for f in frames(run(THREE[0], bytes(bad), THREE[2]))]
            assert got == [THREE[0], THREE[2]], (at, bit)

    @given(st.dictionaries(st.integers(0, 24), st.tuples(st.integers(0, 4), st.integers(1, 255)), min_size=1))
    @settings(max_examples=50)
    def test_one_changed_byte_in_each_of_several_frames(self, changes):
        bad = bytearray(THREE[1])
        for frame, (byte, change) in changes.items():
            bad[frame * FRAME + byte] ^= change
        events = run(THREE[0], bytes(bad), THREE[2])
        assert [f.raw for f in frames(events)] == [THREE[0], THREE[2]]
        assert sum(e.size for e in events if isinstance(e, Discarded)) == PACKET

    @pytest.mark.parametrize("drop", [1, 2, 5, 60, 124])
    @pytest.mark.parametrize("at", [0, 1, 5, 62])
    def test_lost_bytes_cost_one_packet(self, at, drop):
        damaged = THREE[1][:at] + THREE[1][at + drop :]
        assert [f.raw for f in frames(run(THREE[0], damaged, THREE[2]))] == [THREE[0], THREE[2]]

    def test_reasons(self):
        bad = bytearray(THREE[1])
        bad[3 * FRAME + 1] ^= 1
        assert run(bytes(bad), THREE[0])[0] == Discarded("a", PACKET, "checksum")
        assert run(THREE[1][: 20 * FRAME], THREE[0])[0] == Discarded("a", 100, "sequence")
        assert run(THREE[1][5:], THREE[0])[0] == Discarded("a", 120, "unsynchronised")
        assert run(THREE[0], THREE[1][:50])[1] == Discarded("a", 50, "incomplete")

    @given(
        st.lists(
            st.one_of(st.binary(max_size=60), st.integers(0, 24).map(lambda n: THREE[2][: n * FRAME])),
            min_size=4,
            max_size=4,
        ),
        st.data(),
    )
    @settings(max_examples=60)
    def test_garbage_between_packets_loses_none(self, noise, data):
        stream = b"".join(n + p for n, p in zip(noise, [*THREE, b""], strict=True))
        whole = run(stream)
        assert [f.raw for f in frames(whole)] == THREE
        assert sum(e.size for e in whole if isinstance(e, Discarded)) == sum(map(len, noise))
        assert run(*(stream[i : i + 1] for i in range(len(stream)))) == whole
        cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
        assert run(*(stream[a:b] for a, b in itertools.pairwise([0, *cuts, len(stream)]))) == whole

    @given(st.lists(st.tuples(st.integers(0, 375), st.binary(max_size=3), st.integers(0, 9)), max_size=6))
    @settings(max_examples=60)
    def test_damage_is_the_same_whole_and_byte_by_byte(self, edits):
        stream = b"".join(THREE)
        for at, put, cut in edits:
            stream = stream[:at] + put + stream[at + cut :]
        whole = run(stream)
        assert run(*(stream[i : i + 1] for i in range(len(stream)))) == whole
        assert sum(len(e.raw) if isinstance(e, Frame) else e.size for e in whole) == len(stream)

    @given(st.binary(max_size=300))
    def test_decode_gives_a_value_or_its_one_error(self, blob):
        for raw in (blob, THREE[0][: len(blob)] + blob, (blob + bytes(PACKET))[:PACKET]):
            made = value_or_reason(raw)
            assert made in ("size", "sequence", "checksum") or encode(made) == raw

    @pytest.mark.parametrize("endless", [bytes(5), b"\x81", b"\x81\x00\x00\x00\x81", THREE[0][5:10], b"\xff" * 5])
    def test_memory_is_bounded(self, endless):
        counters = Counters()
        engine = NoninEngine(lambda: 1.0, counters)
        for size in (7, 1000, 20000):
            engine.receive_data(endless * size, 1, 0.0)
            assert engine.buffered() < PACKET
        discarded = list(iter(engine.next_event, None))
        assert all(isinstance(e, Discarded) and e.size <= StreamLimits().run for e in discarded)
        assert counters["device_frames{nonin}"] == 0

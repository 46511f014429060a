"""The Ivy 450C's codec: held to a real monitor's transmission, to its grammar, and to its promise about bad input."""

import itertools
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vitalgate.counters import Counters
from vitalgate.devices.contract import Discarded, Frame, Outcome
from vitalgate.devices.ivy450c.codec import (
    HEADER,
    MAX_TEXT,
    MISSING,
    WAVES,
    IvyEngine,
    Message,
    decode,
    encode,
)
from vitalgate.devices.stream import FrameError, StreamLimits
from vitalgate.vitals.observation import Priority, SampleFormat, Status, TrafficClass, frame_hash, traffic_class

LINES = (
    ("HR", ("1", "80", "ECG-II-DIAG")),
    ("RR", ("1", "35", "APNEA: 20 SEC")),
    ("ETCO2", ("1", "", "")),
    ("SPO2", ("1", "100", "PR=80 ")),
    ("NIBP", ("4", "121", "75", "92", "80", "")),
    ("P1", ("3", "111", "73", "88", "")),
    ("P2", ("3", "", "", "", "NO TRANSDUCER")),
    ("T1", ("1", "", "")),
    ("T2", ("1", "", "")),
)
BOUND = 409 + MAX_TEXT + 1


def message(seed=0, **lines):
    """A message with waves of every byte value (FE and FF included) and some lines of its own."""
    waves = tuple(bytes((seed * 31 + 7 * i + 253) % 256 for i in range(wave.size)) for wave in WAVES)
    return Message(waves, tuple((key, lines.get(key, fields)) for key, fields in LINES))


def run(*chunks, engine=None, lose=True):
    engine = engine or IvyEngine(lambda: 1000.0)
    for chunk in chunks:
        engine.receive_data(chunk, "a", 0.0)
    if lose:
        engine.connection_lost("a", 0.0)
    return drain(engine)


def drain(engine):
    return list(iter(engine.next_event, None))


def value_or_reason(raw):
    try:
        return decode(raw)
    except FrameError as error:
        return error.reason


def frames(events):
    return [event for event in events if isinstance(event, Frame)]


def values(frame):
    """(metric, label) -> observation."""
    made = {(o.metric, o.label): o for o in frame.observations}
    assert len(made) == len(frame.observations)
    return made


class TestRealTransmission:
    @pytest.fixture
    def events(self, captures):
        return run(captures("ivy450c/serial-capture.bin"))

    def test_every_whole_message_and_every_byte_is_accounted_for(self, events, captures):
        data = captures("ivy450c/serial-capture.bin")
        assert [len(f.raw) for f in frames(events)] == [562] * 13
        assert b"".join(f.raw for f in frames(events)) == data[252 : 252 + 13 * 562]
        assert [e for e in events if isinstance(e, Discarded)] == [
            Discarded("a", 252, "unsynchronised"),
            Discarded("a", 342, "incomplete"),
        ]
        assert isinstance(events[0], Discarded)
        assert isinstance(events[-1], Discarded)

    def test_numbers(self, events):
        for frame in frames(events):
            seen = values(frame)
            numbers = {key: o.value for key, o in seen.items() if not o.is_waveform}
            assert numbers.pop((150017, "P1")) in (Decimal(110), Decimal(111))
            assert numbers == {
                (147842, ""): Decimal(80),
                (151562, ""): Decimal(35),
                (151708, ""): None,
                (150456, ""): Decimal(100),
                (149530, ""): Decimal(80),
                (150021, ""): Decimal(121),
                (150022, ""): Decimal(75),
                (150023, ""): Decimal(92),
                (149546, ""): Decimal(80),
                (150018, "P1"): Decimal(73),
                (150019, "P1"): Decimal(88),
                (150017, "P2"): None,
                (150018, "P2"): None,
                (150019, "P2"): None,
                (150344, "T1"): None,
                (150344, "T2"): None,
                (150016, "P2"): None,
            }
            assert {o.unit for o in seen.values()} == {"/min", "mm[Hg]", "%", "Cel", "1"}
            assert all(o.gateway_time == 1000.0 and o.frame_hash == frame_hash(frame.raw) for o in frame.observations)
            assert all((o.value is None) == bool(o.status & Status.UNAVAILABLE) for o in frame.observations)
        assert [str(values(f)[150017, "P1"].value) for f in frames(events)].count("110") == 2

    def test_texts(self, events):
        for frame in frames(events):
            alarms = {key: o.alarm for key, o in values(frame).items() if o.alarm}
            assert {key: (a.text, a.priority) for key, a in alarms.items()} == {
                (151562, ""): ("APNEA: 20 SEC", Priority.INFORMATION),
                (150017, "P2"): ("NO TRANSDUCER", Priority.INFORMATION),
            }
            assert values(frame)[150017, "P2"].status == Status.UNAVAILABLE | Status.NOT_PERFORMED
            assert values(frame)[147842, ""].status == Status.NONE

    def test_waves_lie_where_the_numbers_say(self, events):
        waves = {key: [] for key in ((131330, ""), (151780, ""), (150452, ""), (150016, "P1"))}
        for frame in frames(events):
            for key, o in values(frame).items():
                if o.is_waveform:
                    assert o.value.format is SampleFormat.U8
                    assert o.value.missing == MISSING
                    waves[key] += o.value.raw()
                    assert o.value.rate == len(o.value)  # a message lasts one second
        assert {key: len(samples) for key, samples in waves.items()} == {
            (131330, ""): 2600,
            (151780, ""): 650,
            (150452, ""): 650,
            (150016, "P1"): 650,
        }
        assert waves[131330, ""][:6] == [0x8A, 0x86, 0x8A, 0x8E, 0x86, 0x88]
        # RR=35, PR=80, P1=111/73: each wave repeats as its number says, and the pressure is in mmHg
        assert self.rate(waves[151780, ""], 125, 50) == pytest.approx(35, abs=0.5)
        assert self.rate(waves[150452, ""], 135, 50) == pytest.approx(80, abs=0.5)
        assert self.rate(waves[131330, ""], 190, 200) == pytest.approx(80, abs=0.5)
        assert (max(waves[150016, "P1"]), min(waves[150016, "P1"])) == (111, 73)

    @staticmethod
    def rate(samples, level, per_second):
        """Upward crossings of ``level`` a minute."""
        ups = [i for i, (a, b) in enumerate(itertools.pairwise(samples)) if a < level <= b]
        return 60 * per_second * (len(ups) - 1) / (ups[-1] - ups[0])

    def test_split_in_any_way(self, events, captures):
        data = captures("ivy450c/serial-capture.bin")
        assert run(*(data[i : i + 1] for i in range(len(data)))) == events
        for size in (3, 64, 409, 561, 562, 563):
            assert run(*(data[i : i + size] for i in range(0, len(data), size))) == events

    def test_round_trip(self, events):
        for frame in frames(events):
            assert encode(decode(frame.raw)) == frame.raw


class TestMeaning:
    def one(self, **lines):
        events = run(encode(message(**lines)))
        assert len(events) == 1
        return values(events[0])

    def test_apnoea_without_a_rate_is_an_alarm(self):
        rr = self.one(RR=("1", "", "APNEA: 20 SEC"))[151562, ""]
        assert rr.alarm.priority is Priority.HIGH
        assert rr.value is None
        assert rr.status == Status.UNAVAILABLE | Status.IN_ALARM
        assert traffic_class(rr) is TrafficClass.ALARM

    def test_a_text_nobody_knows_is_not_played_down(self):
        hr = self.one(HR=("1", "190", "VTACH 190"))[147842, ""]
        assert (hr.alarm.text, hr.alarm.priority) == ("VTACH 190", Priority.MEDIUM)
        assert hr.status == Status.IN_ALARM

    @pytest.mark.parametrize(
        ("text", "metric"),
        [("ECG-I-MON", 131329), ("ECG-II-DIAG", 131330), ("ECG-III-MON", 131389), ("ECG-V-MON", 131328)],
    )
    def test_the_lead_names_the_ecg(self, text, metric):
        seen = self.one(HR=("1", "80", text))
        assert seen[metric, ""].is_waveform
        assert seen[147842, ""].alarm is None

    def test_digits_are_kept(self):
        assert str(self.one(T1=("1", "36.50", ""))[150344, "T1"].value) == "36.50"

    def test_impossible_values_are_kept_and_marked(self):
        t1 = self.one(T1=("1", "384.5", ""))[150344, "T1"]
        assert (t1.value, t1.status) == (Decimal("384.5"), Status.IMPLAUSIBLE)

    @pytest.mark.parametrize("text", ["PR= ", "PR=--- ", "NO PROBE"])
    def test_no_pulse_rate(self, text):
        seen = self.one(SPO2=("1", "", text))
        assert seen[149530, ""].value is None
        assert seen[149530, ""].status & Status.UNAVAILABLE

    def test_a_line_nobody_knows_is_kept_as_text(self):
        extra = Message(message().waves, (*LINES, ("AGENT", ("2", "ISO", ""))))
        (event,) = run(encode(extra))
        assert values(event)[0, "AGENT"].value == "2;ISO;"

    def test_waves_hold_any_byte(self):
        """FF and FE in a wave end no message, and every byte value but 251 is a sample."""
        (event,) = run(encode(message()))
        ecg = values(event)[131330, ""].value
        assert ecg.data == message().waves[0]
        assert {0xFF, 0xFE} <= set(ecg.data)
        assert (ecg.origin, ecg.factor) == (Decimal(-100), Decimal(1))


class TestGrammar:
    @pytest.mark.parametrize(
        "change",
        [
            (b"HR=1;80;", b"HR=1;8O;"),
            (b"HR=1;80;", b"HR=1;80"),
            (b"HR=1;80;ECG", b"XR=1;80;ECG"),
            (b"P1=3;111;", b"P1=3;"),
            (b"\rT2=", b"T2="),
            (b"T2=1", b"T1=1"),
            (b"T2=1;;;\r", b"T2=1;;;"),
            (b"NIBP=4", b"NIBP=x"),
            (b"APNEA", b"APN\x80A"),
            (b"RR=1", b"\nRR=1"),
            (HEADER, b"\xffANSAR-C "),
        ],
    )
    def test_what_does_not_parse_is_no_message(self, change):
        good, bad = encode(message(1)), encode(message(2)).replace(*change)
        assert bad != encode(message(2))
        with pytest.raises(FrameError):
            decode(bad)
        events = run(good, bad, good)
        assert [f.raw for f in frames(events)] == [good, good]
        assert sum(e.size for e in events if isinstance(e, Discarded)) == len(bad)

    @pytest.mark.parametrize("drop", [1, 2, 7, 20, 21, 300, 400])
    def test_lost_wave_bytes_are_seen(self, drop):
        good = encode(message(1))
        events = run(good, good[:50] + good[50 + drop :], good)
        assert [f.raw for f in frames(events)] == [good, good]

    def test_the_next_message_may_begin_inside_a_broken_one(self):
        good = encode(message(1))
        events = run(good[:100], good, good)
        assert [f.raw for f in frames(events)] == [good, good]
        assert events[0] == Discarded("a", 100, "text")


WHOLE = [encode(message(seed, HR=("1", str(60 + seed), "ECG-II-MON"))) for seed in range(4)]
NOISE = st.one_of(
    st.binary(max_size=40),
    st.sampled_from([HEADER, HEADER[:4], b"\xff", b"\xfe", b"HR=1;80;", b"\xff\xff", HEADER + bytes(60)]),
)


class TestBadInput:
    @given(st.lists(NOISE, min_size=5, max_size=5), st.data())
    @settings(max_examples=60)
    def test_garbage_between_messages_loses_none(self, noise, data):
        stream = b"".join(n + w for n, w in zip(noise, [*WHOLE, b""], strict=True))
        whole = run(stream)
        assert [f.raw for f in frames(whole)] == WHOLE
        assert sum(e.size for e in whole if isinstance(e, Discarded)) == sum(map(len, noise))
        assert run(*(stream[i : i + 1] for i in range(len(stream)))) == whole
        cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
        assert run(*(stream[a:b] for a, b in itertools.pairwise([0, *cuts, len(stream)]))) == whole

    @given(st.lists(st.tuples(st.integers(0, 4 * 580), st.binary(max_size=3), st.integers(0, 30)), max_size=6))
    @settings(max_examples=60)
    def test_damage_is_the_same_whole_and_byte_by_byte(self, edits):
        stream = b"".join(WHOLE)
        for at, put, cut in edits:
            stream = stream[:at] + put + stream[at + cut :]
        whole = run(stream)
        assert run(*(stream[i : i + 1] for i in range(len(stream)))) == whole
        accounted = sum(len(e.raw) if isinstance(e, Frame) else e.size for e in whole)
        assert accounted == len(stream)

    @given(st.binary(max_size=700), st.binary(max_size=700))
    def test_decode_gives_a_value_or_its_one_error(self, blob, tail):
        for raw in (blob, HEADER + blob, WHOLE[0][:409] + b"HR=" + tail + b"\xfe", WHOLE[0][:-1] + tail):
            made = value_or_reason(raw)
            assert made in ("header", "text", "line") or encode(made) == raw
            run(raw)

    @pytest.mark.parametrize(
        "endless",
        [bytes(10), b"\xff", HEADER, HEADER + bytes(400) + b"HR=", b"HR=1;80;;\r", WHOLE[0][:-1]],
    )
    def test_memory_is_bounded(self, endless):
        counters = Counters()
        engine = IvyEngine(lambda: 1.0, counters)
        total = 0
        for chunk in (endless * 50, (WHOLE[0][:-1] + b"A" * 2000) * 20, endless * 50):
            engine.receive_data(chunk, 1, 0.0)
            total += len(chunk)
            assert engine.buffered() <= BOUND
        discarded = [e for e in drain(engine) if isinstance(e, Discarded)]
        assert max(e.size for e in discarded) <= StreamLimits().run
        assert counters.total("device_bytes_discarded") == sum(e.size for e in discarded)

    def test_connections_and_events_are_bounded(self):
        counters = Counters()
        engine = IvyEngine(lambda: 1.0, counters, StreamLimits(connections=2, events=3))
        for conn in range(3):
            engine.receive_data(WHOLE[0], conn, 0.0)
        assert [(type(e), e.conn) for e in drain(engine)] == [(Frame, 0), (Frame, 1), (Discarded, 2)]
        engine.receive_data(WHOLE[0] * 5, 0, 0.0)
        assert len(drain(engine)) == 3
        assert counters["device_events_dropped{ivy450c}"] == 2
        engine.connection_lost(0, 0.0)
        engine.receive_data(WHOLE[0], 2, 0.0)
        assert len(frames(drain(engine))) == 1

    def test_connections_do_not_mix(self):
        engine = IvyEngine(lambda: 1.0)
        half = len(WHOLE[0]) // 2
        for part in (slice(None, half), slice(half, None)):
            for conn in (0, 1):
                engine.receive_data(WHOLE[conn][part], conn, 0.0)
        assert [(f.conn, f.raw) for f in drain(engine)] == [(0, WHOLE[0]), (1, WHOLE[1])]

    def test_a_one_way_device_is_told_nothing(self):
        engine = IvyEngine(lambda: 1.0)
        (frame,) = run(WHOLE[0], engine=engine, lose=False)
        engine.acknowledge(frame, Outcome.FULL, 0.0)
        assert engine.data_to_send("a", 0.0) == b""
        assert engine.next_timeout() is None
        assert drain(engine) == []

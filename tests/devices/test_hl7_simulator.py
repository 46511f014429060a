"""The simulated HL7 monitor and the engine that hears it: nothing lost, nothing doubled, whatever the line does."""

import random
from decimal import Decimal

import pytest

pytest.importorskip("numpy", reason="simulated devices need vitalgate[demo]")

from hypothesis import given, settings
from hypothesis import strategies as st

from vitalgate.counters import Counters
from vitalgate.devices.contract import Faults, Frame, Outcome, Transport
from vitalgate.devices.hl7.er7 import parse
from vitalgate.devices.hl7.mllp import Block, Deframer, frame
from vitalgate.devices.hl7.simulator import DESATURATION, ECG_RATE, PATIENCE, PAUSE, QUEUE, REJECTIONS, WINDOW, bodies
from vitalgate.devices.registry import KINDS
from vitalgate.vitals.observation import Priority, Status, frame_hash

START = 1000.0
EPOCH = 1_790_000_000.0
"""Wall time at monotonic 0."""


class Ward:
    """A simulator and an engine, joined by a line that can be cut, and a spool that takes its time."""

    def __init__(self, faults=None, seed=0):
        self.now = START
        self.counters = Counters()
        row = KINDS["hl7"]
        self.device = row.make_simulator(START, self.wall, faults or Faults(), seed)
        self.engine = row.make_engine(self.wall, self.counters)
        self.connection = 0
        self.said = []
        self.open_frames = []
        self.committed = []  # (control id, hash) in the order of their commits, each once
        self.repeated = 0

    def wall(self):
        return EPOCH + self.now

    def connect(self):
        self.connection += 1
        self.device.connection_made(self.now)
        self.engine.connection_made(self.connection, self.now)

    def cut(self):
        self.device.connection_lost(self.now)
        self.engine.connection_lost(self.connection, self.now)

    def turn(self, *, deliver=True):
        """Everything due now; without ``deliver`` the line swallows what the device writes."""
        self.device.handle_timeout(self.now)
        self.said += self.device.sent_frames()
        data = self.device.data_to_send(self.now)
        if deliver:
            self.engine.receive_data(data, self.connection, self.now)
        for event in iter(self.engine.next_event, None):
            if isinstance(event, Frame):
                self.open_frames.append(event)

    def decide(self, outcome=Outcome.COMMITTED):
        """The spool decides on every open frame, once a control id; then the device hears the answers."""
        for heard in self.open_frames:
            name = (heard.control_id, heard.hash)
            if outcome is Outcome.COMMITTED:
                if name in self.committed:
                    self.repeated += 1
                else:
                    self.committed.append(name)
            self.engine.acknowledge(heard, outcome, self.now)
        self.open_frames.clear()

    def answer(self):
        self.device.receive_data(self.engine.data_to_send(self.connection, self.now), self.now)

    def run(self, seconds):
        """Play with an obliging spool."""
        end = self.now + seconds
        while (due := self.device.next_timeout()) <= end:
            self.now = max(due, self.now)
            self.turn()
            self.decide()
            self.answer()
        self.now = end


@pytest.fixture
def ward():
    made = Ward()
    made.connect()
    return made


class TestWhatItSays:
    def test_row(self):
        row = KINDS["hl7"]
        assert (row.transport, row.two_way, row.idle_after, row.serial) == (Transport.TCP_LISTEN, True, 10.0, None)

    def test_a_loop_and_more_arrives_as_it_was_said(self, ward):
        ward.run(len(bodies()) + 20)
        assert len(ward.said) == len(bodies()) + 20
        assert [hash_ for _, hash_ in ward.committed] == ward.said
        assert len({number for number, _ in ward.committed}) == len(ward.said)
        assert (ward.device.waiting(), ward.device.acknowledged) == (0, len(ward.said))
        assert ward.counters.total("device_bytes_discarded") == 0
        assert ward.counters.total("device_hl7_warnings") == 0
        assert ward.counters["device_hl7_acknowledgements{AA}"] == len(ward.said)

    def test_observations(self, ward):
        ward.now += 1.0
        ward.turn()
        (heard,) = ward.open_frames
        by_metric = {one.metric: one for one in heard.observations}
        assert len(by_metric) == len(heard.observations) == 10
        assert all(one.is_demo for one in heard.observations)
        assert {one.patient for one in heard.observations} == {"SIM-0000"}
        assert {one.location for one in heard.observations} == {"SIMULATION^1^0"}
        assert len(heard.serial) == 16
        wave = by_metric[131330]
        assert (wave.value.rate, len(wave.value), wave.value.factor) == (ECG_RATE, ECG_RATE, Decimal("0.001"))
        assert wave.unit == "mV"
        assert wave.device_time == pytest.approx(EPOCH + START + 1.0, abs=0.001)  # its newest sample
        assert by_metric[150456].device_time == pytest.approx(EPOCH + START, abs=0.001)
        assert all(abs(one.clock_offset) < 0.002 for one in heard.observations)
        assert not any(one.status & Status.IMPLAUSIBLE for one in heard.observations)

    def test_the_fall_of_saturation_is_alarmed(self, ward):
        alarms = set()
        for second in range(len(bodies())):
            ward.now = START + second + 1.0
            ward.turn()
            for heard in ward.open_frames:
                alarms |= {(second, one.metric) for one in heard.observations if one.alarm is not None}
                assert all(one.alarm.priority is Priority.MEDIUM for one in heard.observations if one.alarm)
            ward.decide()
            ward.answer()
        assert {metric for _, metric in alarms} == {150456}
        assert all(DESATURATION[0] < second < DESATURATION[1] + 20 for second, _ in alarms)
        assert len(alarms) > 10

    def test_cuff_values_keep_the_time_of_their_measurement(self, ward):
        times = {}
        for second in range(130):
            ward.now = START + second + 1.0
            ward.turn()
            for heard in ward.open_frames:
                (systolic,) = (one for one in heard.observations if one.metric == 150021)
                times.setdefault(round(systolic.device_time, 2), set()).add(systolic.value)
            ward.decide()
            ward.answer()
        assert sorted(times) == [round(EPOCH + START + 1.0 + minute * 60, 2) for minute in range(3)]
        assert all(len(values) == 1 for values in times.values())

    def test_two_monitors_are_two_devices(self):
        serials, series = set(), set()
        for seed in (1, 2):
            ward = Ward(seed=seed)
            ward.connect()
            ward.run(1.0)
            serials.add(ward.device._eui)
            series.add(ward.said[0])
        assert len(serials) == len(series) == 2

    def test_seeds_that_any_process_may_choose(self):
        for seed in (0, 2**32, 2**63):
            assert KINDS["hl7"].make_simulator(START, lambda: EPOCH, Faults(), seed).next_timeout() == START + 1.0


class TestAcknowledgement:
    def test_nothing_is_acknowledged_before_it_is_decided(self, ward):
        ward.now += 1.0
        ward.turn()
        ward.answer()
        assert ward.device.waiting() == 1
        ward.decide()
        ward.answer()
        assert ward.device.waiting() == 0

    def test_full_is_asked_again_after_a_pause(self, ward):
        ward.now += 1.0
        ward.turn()
        first = ward.open_frames[0]
        ward.decide(Outcome.FULL)
        ward.answer()
        assert ward.device.waiting() == 1
        ward.now += PAUSE - 0.01
        ward.turn()
        assert not ward.open_frames
        ward.now = START + 1.0 + PAUSE
        ward.turn()
        assert ward.open_frames[0].raw == first.raw
        assert ward.open_frames[0].control_id == first.control_id
        ward.decide()
        ward.answer()
        assert ward.device.waiting() == 0

    def test_full_in_the_midst_keeps_the_order_of_what_follows(self, ward):
        ward.device.handle_timeout(START + 5.0)
        ward.now = START + 5.0
        ward.turn()
        assert len(ward.open_frames) == 5
        for place, heard in enumerate(ward.open_frames):
            outcome = Outcome.FULL if place == 1 else Outcome.COMMITTED
            ward.engine.acknowledge(heard, outcome, ward.now)
        second = ward.open_frames[1].hash
        ward.open_frames.clear()
        ward.answer()
        assert ward.device.waiting() == 1
        ward.now += PAUSE
        ward.turn()
        assert [heard.hash for heard in ward.open_frames] == [second, *ward.said[5:]]

    def test_what_is_refused_for_good_is_given_up_after_three_times(self, ward):
        ward.now += 1.0
        refused = set()
        for _ in range(REJECTIONS):
            ward.turn()
            refused.add(ward.open_frames[0].control_id)
            ward.decide(Outcome.REFUSED)
            ward.answer()
            ward.now += PAUSE
        ward.turn()
        assert (ward.device.rejected, len(refused)) == (1, 1)
        assert refused.isdisjoint(heard.control_id for heard in ward.open_frames)

    def test_an_answer_that_never_comes(self, ward):
        ward.now += 1.0
        ward.turn(deliver=False)
        ward.now += PATIENCE - 0.01
        ward.turn()
        assert ward.said[0] not in [heard.hash for heard in ward.open_frames]
        ward.decide()
        ward.answer()
        ward.now = START + 1.0 + PATIENCE
        assert ward.device.next_timeout() <= ward.now
        ward.turn()
        assert ward.said[0] in [heard.hash for heard in ward.open_frames]

    def test_no_more_than_a_window_is_under_way(self, ward):
        ward.now += 100.0
        ward.turn()
        assert len(ward.open_frames) == WINDOW
        assert ward.device.waiting() == 100
        ward.decide()
        ward.answer()
        ward.turn()
        assert len(ward.open_frames) == WINDOW
        assert [heard.hash for heard in ward.open_frames] == ward.said[WINDOW : 2 * WINDOW]

    def test_a_reconnection_forgets_old_answers(self, ward):
        ward.now += 1.0
        ward.turn()
        ward.cut()
        ward.decide()  # committed, but the answer has nowhere to go
        assert ward.engine.data_to_send(ward.connection, ward.now) == b""
        ward.connect()
        assert ward.device.next_timeout() <= ward.now
        ward.turn()
        assert [heard.hash for heard in ward.open_frames] == ward.said
        ward.decide()
        ward.answer()
        assert (ward.repeated, len(ward.committed), ward.device.waiting()) == (1, 1, 0)


class TestALineThatFails:
    @pytest.mark.parametrize("seed", range(4))
    def test_lost_connections_lose_and_double_nothing(self, seed):
        """Cuts before, in the midst of and behind a message, before and behind its commit and its answer."""
        chance = random.Random(seed)
        ward = Ward(seed=seed)
        ward.connect()
        up = True
        while len(ward.said) < 200 or ward.device.waiting():
            due = ward.device.next_timeout()
            ward.now = max(ward.now, due) if chance.random() < 0.8 else ward.now + 0.05
            if up and len(ward.said) < 200 and chance.random() < 0.15:
                ward.device.handle_timeout(ward.now)
                data = ward.device.data_to_send(ward.now)
                ward.engine.receive_data(data[: chance.randrange(len(data) + 1)], ward.connection, ward.now)
                if chance.random() < 0.5:
                    ward.turn(deliver=False)
                    ward.decide()
                ward.cut()
                up = False
            elif not up and chance.random() < 0.5:
                ward.connect()
                up = True
            ward.turn(deliver=up)
            if chance.random() < 0.7:
                outcome = Outcome.FULL if chance.random() < 0.1 else Outcome.COMMITTED
                ward.decide(outcome)
            if up and chance.random() < 0.8:
                ward.answer()
            assert ward.now < START + 3000
        numbers = [number for number, _ in ward.committed]
        assert len(numbers) == len(set(numbers))
        assert sorted(hash_ for _, hash_ in ward.committed) == sorted(ward.said)
        assert ward.repeated > 0
        assert (ward.device.given_up, ward.device.rejected) == (0, 0)

    def test_an_hour_offline_is_kept_and_the_oldest_given_up(self):
        ward = Ward()
        ward.now += QUEUE
        ward.turn()
        assert (ward.device.waiting(), ward.device.given_up) == (QUEUE, 0)
        ward.now += 100.0
        ward.turn()
        assert (ward.device.waiting(), ward.device.given_up) == (QUEUE, 100)
        assert len(ward.said) == QUEUE + 100
        ward.connect()
        while ward.device.waiting() > 3000:
            ward.turn()
            ward.decide()
            ward.answer()
        assert [hash_ for _, hash_ in ward.committed] == ward.said[100 : 100 + len(ward.committed)]

    def test_the_oldest_is_given_up_even_under_way(self, ward):
        ward.now += 1.0
        ward.turn(deliver=False)
        ward.now += QUEUE
        ward.turn(deliver=False)
        assert (ward.device.waiting(), ward.device.given_up) == (QUEUE, 1)

    @pytest.mark.parametrize("faults", [Faults(garbage=0.5), Faults(stall=0.05)], ids=["garbage", "stall"])
    def test_what_the_line_swallows_or_adds_is_made_good(self, faults):
        ward = Ward(faults, seed=5)
        ward.connect()
        ward.run(300)
        while ward.device.waiting():
            ward.run(1)
        assert sorted(hash_ for _, hash_ in ward.committed) == sorted(ward.said)
        assert ward.counters.total("device_bytes_discarded") > 0

    def test_damage_is_heard_as_damage_or_not_at_all(self):
        """MLLP has no checksum: a number altered within a value is another number. What cannot be read is refused."""
        ward = Ward(Faults(drop=2e-5, flip=2e-5), seed=9)
        ward.connect()
        ward.run(200)
        true = {hash_ for _, hash_ in ward.committed} & set(ward.said)
        assert len(true) > 100
        assert len(ward.committed) > len(true)

    @settings(max_examples=200)
    @given(st.lists(st.binary(max_size=60) | st.sampled_from([b"MSH|^~\\&|", b"\rMSA|AA|", b"\x0b", b"\x1c\r", b"|"])))
    def test_any_answer_is_survived(self, pieces):
        device = KINDS["hl7"].make_simulator(START, lambda: EPOCH, Faults(), 0)
        device.connection_made(START)
        device.handle_timeout(START + 1.0)
        device.receive_data(b"".join(pieces), START + 1.0)
        device.receive_data(frame(b"".join(pieces)), START + 1.0)
        assert device.waiting() == 1

    def test_damaged_answers_are_no_acknowledgements(self, ward):
        ward.now += 1.0
        ward.turn()
        number = ward.open_frames[0].control_id
        for text in (
            f"MSH|^~\\&\rMSA|AA|{number}X",
            f"MSA|AA|{number}",
            f"MSH|^~\\&\rMSA|CA|{number}",
            "MSH|^~\\&\rMSA",
        ):
            ward.device.receive_data(frame(text.encode()), ward.now)
        assert ward.device.waiting() == 1


def test_journal_names_the_messages_as_they_are_sent(ward):
    ward.device.handle_timeout(START + 3.0)
    blocks = [found.message for found in Deframer(1 << 20).feed(ward.device.data_to_send(START + 3.0))]
    assert [frame_hash(message) for message in blocks] == ward.device.sent_frames()
    assert all(isinstance(found, Block) for found in Deframer(1 << 20).feed(frame(blocks[0])))
    assert [parse(message).header.text(11) for message in blocks] == ["T"] * 3

"""The HL7 engine: answers when and only when a message's fate is known, in order, within bounds."""

import hl7
import pytest
from hl7apy.parser import parse_message
from hl7kit import AT, B40, Bench, er7, message, obx
from hypothesis import given, settings
from hypothesis import strategies as st

from vitalgate.devices.contract import Discarded, Frame, Outcome
from vitalgate.devices.hl7 import mllp
from vitalgate.devices.hl7.codec import Hl7Limits
from vitalgate.devices.registry import KINDS
from vitalgate.vitals.observation import frame_hash


def test_it_is_registered():
    row = KINDS["hl7"]
    assert row.two_way
    assert type(row.make_engine(lambda: AT, Bench().counters)).__name__ == "Hl7Engine"


def test_a_frame_and_its_answer():
    bench = Bench()
    (frame,) = bench.send(er7(B40))
    assert frame == Frame(
        "a", er7(B40), frame_hash(er7(B40)), AT, frame.observations, "080019fffe134535", "004097134535", 1
    )
    assert bench.answers() == []  # not before its fate is known
    bench.engine.acknowledge(frame, Outcome.COMMITTED, 0.0)
    (answer,) = bench.answers()
    assert answer.header.text(9) == "ACK"
    assert answer.header.text(9, 2) == "R01"
    assert (answer.header.text(5), answer.header.text(5, 2), answer.header.text(6)) == (
        "VSP", "080019FFFE134535", "GE Healthcare",
    )  # fmt: skip
    assert (answer.header.text(11), answer.header.text(12)) == ("P", "2.6")
    assert answer.first("MSA").fields == ("MSA", "AA", "004097134535")
    assert answer.first("ERR") is None
    bench.engine.acknowledge(frame, Outcome.FULL, 0.0)  # too late: it is answered
    assert bench.answers() == []


@pytest.mark.parametrize(
    ("outcome", "code"), [(Outcome.COMMITTED, "AA"), (Outcome.FULL, "AE"), (Outcome.REFUSED, "AR")]
)
def test_outcomes_in_the_original_mode(outcome, code):
    bench = Bench()
    (frame,) = bench.send(message(control_id="M1"))
    bench.engine.acknowledge(frame, outcome, 0.0)
    (answer,) = bench.answers()
    said = answer.first("MSA")
    assert (said.text(1), said.text(2), bool(said.text(3))) == (code, "M1", code != "AA")
    if code != "AA":
        assert (answer.first("ERR").text(3), answer.first("ERR").text(4)) == ("207", "E")
    assert bench.counters[f"device_hl7_acknowledgements{{{code}}}"] == 1


@pytest.mark.parametrize(
    ("accept", "respond", "good", "bad"),
    [
        ("NE", "AL", ["AA"], ["AE"]),
        ("AL", "NE", ["CA"], ["CE"]),
        ("AL", "AL", ["CA", "AA"], ["CE", "AE"]),
        ("NE", "NE", [], []),
        ("ER", "SU", ["AA"], ["CE"]),
        ("AL", "ER", ["CA"], ["CE", "AE"]),
        ("AL", "", ["CA"], ["CE"]),
        ("", "AL", ["AA"], ["AE"]),
        ("NE", "ALWAYS", ["AA"], ["AE"]),
    ],
)
def test_the_enhanced_mode_answers_as_it_is_asked(accept, respond, good, bad):
    bench = Bench()
    for outcome, codes in ((Outcome.COMMITTED, good), (Outcome.FULL, bad)):
        (frame,) = bench.send(message(accept=accept, respond=respond, control_id="E"))
        assert bench.answers() == []  # no commit acknowledgement before the commit either
        bench.engine.acknowledge(frame, outcome, 0.0)
        answers = bench.answers()
        assert [one.first("MSA").text(1) for one in answers] == codes
        assert len({one.header.text(10) for one in answers}) == len(codes)
    assert bench.engine.unanswered() == 0


def test_answers_keep_the_order_of_the_messages():
    bench = Bench()
    first, second, third = bench.send(*(message(control_id=f"{number}") for number in range(3)))
    bench.engine.acknowledge(third, Outcome.COMMITTED, 0.0)
    bench.engine.acknowledge(second, Outcome.FULL, 0.0)
    assert bench.codes() == []
    assert bench.engine.unanswered() == 3
    bench.engine.acknowledge(first, Outcome.COMMITTED, 0.0)
    assert bench.codes() == [("AA", "0"), ("AE", "1"), ("AA", "2")]


def test_a_refused_message_waits_for_its_turn():
    bench = Bench()
    frames = bench.send(message(control_id="1"), b"hello", message(kind="ADT^A01", control_id="3"))
    assert len(frames) == 1
    assert bench.codes() == []
    bench.engine.acknowledge(frames[0], Outcome.COMMITTED, 0.0)
    assert bench.codes() == [("AA", "1"), ("AR", ""), ("AR", "3")]


def test_connections_are_apart():
    bench = Bench()
    (one,) = bench.send(message(control_id="1"), conn="a")
    (other,) = bench.send(message(control_id="2"), conn="b")
    bench.engine.acknowledge(other, Outcome.COMMITTED, 0.0)
    assert (bench.codes("a"), bench.codes("b")) == ([], [("AA", "2")])
    bench.engine.connection_lost("a", 0.0)
    bench.engine.connection_made("a", 0.0)
    bench.engine.acknowledge(one, Outcome.COMMITTED, 0.0)  # its connection is gone, whatever has its name now
    assert bench.codes("a") == []
    (again,) = bench.send(message(control_id="1"), conn="a")
    assert (again.hash, again.control_id) == (one.hash, one.control_id)
    bench.engine.acknowledge(again, Outcome.COMMITTED, 0.0)
    assert bench.codes("a") == [("AA", "1")]


def test_a_message_without_number_is_known_by_its_hash():
    bench = Bench()
    (frame,) = bench.send(message(control_id=""))
    assert frame.control_id == frame.hash.hex()
    bench.engine.acknowledge(frame, Outcome.COMMITTED, 0.0)
    assert bench.codes() == [("AA", "")]


@pytest.mark.parametrize(
    ("raw", "code", "reason"),
    [
        (b"hello", "100", "no-header"),
        (b"MSH|^^^^|x", "100", "delimiters"),
        (message(kind="QRY^A19"), "200", "type"),
        (message(kind="ORU^R40^ORU_R40"), "201", "event"),
        (er7(B40[: B40.index("OBX")]), "100", "no-results"),
    ],
)
def test_what_is_not_taken_gets_a_reason(raw, code, reason):
    bench = Bench()
    assert bench.send(raw) == []
    assert bench.events == [Discarded("a", len(raw), reason)]
    (answer,) = bench.answers()
    assert answer.first("MSA").text(1) == "AR"
    assert answer.first("ERR").text(3) == code
    assert bench.counters[f"device_bytes_discarded{{hl7/{reason}}}"] == len(raw)


def test_a_message_too_long_is_refused_by_its_number_and_the_next_is_read():
    bench = Bench(limits=Hl7Limits(message=1000))
    big = message(*[obx()] * 50, control_id="BIG")
    frames = bench.send(big, message(control_id="NEXT"))
    assert [one.control_id for one in frames] == ["NEXT"]
    bench.engine.acknowledge(frames[0], Outcome.COMMITTED, 0.0)
    assert bench.codes() == [("AR", "BIG"), ("AA", "NEXT")]
    rest = (big[1000:] + b"\x1c").replace(b"\r", b"")  # line ends between blocks mean nothing
    assert [(one.reason, one.size) for one in bench.events if isinstance(one, Discarded)] == [
        ("too-long", 1000),
        ("unsynchronised", len(rest)),
    ]


def test_what_is_echoed_cannot_break_the_answer():
    evil = r"7\X0D\MSA\F\AA\F\7\X1C0B\ä"
    bench = Bench()
    raw = message(control_id=evil)
    (frame,) = bench.send(raw)
    bench.engine.acknowledge(frame, Outcome.REFUSED, 0.0)
    (answer,) = bench.answers()
    assert [one.name for one in answer] == ["MSH", "MSA", "ERR"]
    assert answer.first("MSA").text(2) == "7\rMSA|AA|7\x1c\x0bä"
    assert frame.control_id == "7\rMSA|AA|7\x1c\x0bä"


def test_texts_of_refusals_do_not_repeat_what_came():
    bench = Bench()
    bench.send(message(kind="SECRET^NAME", control_id="1"))
    data = bench.engine.data_to_send("a", 0.0)
    assert b"SECRET" not in data


def test_our_answers_are_hl7_to_others():
    bench = Bench()
    frames = bench.send(er7(B40), message(control_id="2", accept="AL", respond="AL"), message(control_id="3"))
    for frame, outcome in zip(frames, Outcome, strict=True):
        bench.engine.acknowledge(frame, outcome, 0.0)
    found = mllp.Deframer(1 << 20).feed(bench.engine.data_to_send("a", 0.0))
    assert len(found) == 4
    for block in found:
        text = block.message.decode()
        assert str(hl7.parse(text)["MSA"][0][1]) in {"AA", "CE", "AE", "AR"}
        strict = parse_message(text, find_groups=True)
        assert strict.msa.msa_1.value in {"AA", "CE", "AE", "AR"}
        assert strict.validate()


# bounds


def test_more_messages_than_the_table_holds_are_asked_for_again():
    bench = Bench(limits=Hl7Limits(unanswered=3))
    frames = bench.send(*(message(control_id=f"{number}") for number in range(5)))
    assert [one.control_id for one in frames] == ["0", "1", "2"]
    for frame in frames:
        bench.engine.acknowledge(frame, Outcome.COMMITTED, 0.0)
    assert bench.codes() == [("AA", "0"), ("AA", "1"), ("AA", "2"), ("AE", "3"), ("AE", "4")]
    assert len(bench.send(message(control_id="3"))) == 1


def test_refusals_do_not_pile_up_without_bound():
    bench = Bench(limits=Hl7Limits(unanswered=3))
    bench.send(message(control_id="1"), *[b"x"] * 100)
    assert bench.engine.unanswered() == 6
    assert bench.counters["device_hl7_unanswered{waiting}"] == 95


def test_answers_that_nobody_takes_are_bounded():
    bench = Bench(limits=Hl7Limits(output=1000))
    bench.feed(mllp.frame(b"x") * 100)
    assert len(bench.engine.data_to_send("a", 0.0)) <= 1000
    assert bench.counters["device_hl7_unanswered{unread}"] > 90


def test_events_that_nobody_takes_are_bounded():
    bench = Bench(limits=Hl7Limits(events=2))
    bench.engine.receive_data(mllp.frame(message(control_id="1")) * 5, "a", 0.0)
    assert len(bench.take()) == 2
    assert bench.counters["device_events_dropped{hl7}"] == 3


def test_connections_are_bounded():
    bench = Bench(limits=Hl7Limits(connections=1))
    bench.engine.connection_made("a", 0.0)
    bench.engine.connection_made("b", 0.0)
    assert bench.send(message(), conn="b") == []
    assert bench.events[0].reason == "connections"
    assert bench.engine.data_to_send("b", 0.0) == b""


def test_a_message_that_does_not_end_is_dropped_in_time():
    bench = Bench()
    half = mllp.frame(message())[:50]
    assert bench.engine.next_timeout() is None
    bench.feed(half, now=10.0)
    bench.feed(b"x", now=20.0)  # more bytes of the same message do not give it more time
    assert bench.engine.next_timeout() == 40.0
    bench.engine.handle_timeout(39.9)
    assert bench.take() == []
    bench.engine.handle_timeout(40.0)
    assert bench.take() == [Discarded("a", 50, "stalled")]
    assert bench.engine.next_timeout() is None
    assert len(bench.send(message(), now=41.0)) == 1


def test_patience_begins_with_each_message():
    bench = Bench()
    bench.feed(mllp.frame(message())[:50], now=0.0)
    bench.feed(mllp.frame(message())[50:] + b"\x0bMSH", now=25.0)
    assert bench.engine.next_timeout() == 55.0


def test_what_a_closed_connection_had_begun_is_told():
    bench = Bench()
    bench.feed(b"\x0bMSH|", now=0.0)
    bench.engine.connection_lost("a", 1.0)
    assert bench.take() == [Discarded("a", 4, "incomplete")]
    bench.engine.connection_lost("a", 1.0)
    assert bench.take() == []


# any bytes

pieces = st.lists(
    st.sampled_from(
        [message(control_id="1"), message(control_id="2", accept="AL"), er7(B40), b"hello", b"", b"x" * 600]
    ).map(mllp.frame)
    | st.binary(max_size=40)
    | st.sampled_from([b"\x0b", b"\x1c\r", b"\x0bMSH|^~\\&|"]),
    max_size=8,
).map(b"".join)


def run(data, step):
    bench = Bench(limits=Hl7Limits(message=800))
    for at in range(0, len(data), step):
        bench.feed(data[at : at + step])
    frames = [one for one in bench.events if isinstance(one, Frame)]
    for number, frame in enumerate(frames):
        bench.engine.acknowledge(frame, list(Outcome)[number % 3], 0.0)
    assert bench.engine.unanswered() == 0
    bench.engine.connection_lost("a", 0.0)
    return bench.events + bench.take(), bench.counters


@settings(max_examples=100)
@given(pieces)
def test_fed_whole_or_byte_by_byte_it_gives_the_same(data):
    whole, byte_by_byte = run(data, max(1, len(data))), run(data, 1)
    assert whole == byte_by_byte


@settings(max_examples=100)
@given(pieces, st.data())
def test_damage_never_raises_and_every_block_is_answered(data, choose):
    damaged = bytearray(data)
    for _ in range(choose.draw(st.integers(0, 5)) if damaged else 0):
        damaged[choose.draw(st.integers(0, len(damaged) - 1))] = choose.draw(st.integers(0, 255))
    bench = Bench()
    bench.feed(bytes(damaged))
    frames = [one for one in bench.events if isinstance(one, Frame)]
    for frame in frames:
        bench.engine.acknowledge(frame, Outcome.COMMITTED, 0.0)
    assert len([code for code, _ in bench.codes() if code[1] == "A"]) >= sum(
        b"|NE|" not in one.raw and b"|AL|" not in one.raw for one in frames
    )

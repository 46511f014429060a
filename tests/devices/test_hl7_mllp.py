"""MLLP: blocks are found whatever stands around them, and however the stream is split."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitalgate.devices.hl7.mllp import INCOMPLETE, RUN, TOO_LONG, UNSYNCHRONISED, Block, Deframer, Junk, frame


def cut(data, limit=100, step=None):
    deframer = Deframer(limit)
    found = []
    for at in range(0, len(data), step or max(1, len(data))):
        found += deframer.feed(data[at : at + (step or len(data))])
    last = deframer.abandon()
    return found + ([last] if last else [])


def test_a_block():
    assert frame(b"MSH") == b"\x0bMSH\x1c\r"
    assert cut(frame(b"MSH") + frame(b"")) == [Block(b"MSH"), Block(b"")]


@pytest.mark.parametrize("between", [b"", b"\r", b"\n", b"\r\n\r\n"])
def test_line_ends_between_blocks_mean_nothing(between):
    assert cut(b"\x0bA\x1c" + between + b"\x0bB\x1c" + between) == [Block(b"A"), Block(b"B")]


def test_garbage_is_told_and_the_next_block_found():
    assert cut(b"ab\rc" + frame(b"A") + b"xyz") == [Junk(3, UNSYNCHRONISED), Block(b"A"), Junk(3, UNSYNCHRONISED)]
    assert cut(b"x" * (2 * RUN + 5)) == [Junk(RUN, UNSYNCHRONISED)] * 2 + [Junk(5, UNSYNCHRONISED)]


def test_a_block_without_end_is_dropped_at_the_next_beginning():
    assert cut(b"\x0bAB" + frame(b"C")) == [Junk(2, INCOMPLETE), Block(b"C")]
    assert cut(b"\x0bABC") == [Junk(3, INCOMPLETE)]


def test_a_block_that_is_too_long_says_how_it_began():
    assert cut(frame(b"x" * 100)) == [Block(b"x" * 100)]
    assert cut(frame(b"x" * 103) + frame(b"A")) == [
        Junk(100, TOO_LONG, b"x" * 100), Junk(4, UNSYNCHRONISED), Block(b"A"),
    ]  # fmt: skip  # what is left of it, and its FS


def test_abandoned_blocks_do_not_come_back():
    deframer = Deframer(100)
    deframer.feed(b"\x0bAB")
    assert deframer.pending
    assert deframer.abandon() == Junk(2, INCOMPLETE)
    assert not deframer.pending
    assert deframer.feed(b"CD\x1c\r" + frame(b"E")) == [Junk(3, UNSYNCHRONISED), Block(b"E")]
    assert deframer.abandon() is None


streams = st.lists(
    st.binary(max_size=120).map(frame) | st.binary(max_size=30) | st.sampled_from([b"\x0b", b"\x1c", b"\r", b"x" * 130])
).map(b"".join)


@given(streams, st.integers(1, 40))
def test_the_split_of_the_stream_does_not_show(data, step):
    assert cut(data, step=step) == cut(data)


@given(streams)
def test_every_byte_is_in_a_block_or_told(data):
    found = cut(data)
    told = sum(len(one.message) if isinstance(one, Block) else one.size for one in found)
    framing = data.count(b"\x0b") + sum(isinstance(one, Block) for one in found) + data.count(b"\r") + data.count(b"\n")
    assert told <= len(data) <= told + framing
    assert all(len(one.message) <= 100 for one in found if isinstance(one, Block))

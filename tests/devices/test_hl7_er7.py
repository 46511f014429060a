"""The lenient ER7 reader: what it forgives, what it refuses, and that nothing else comes out of it."""

import hl7
import pytest
from hl7kit import B40, er7
from hypothesis import given
from hypothesis import strategies as st

from vitalgate.devices.hl7.er7 import MAX_MARKS, STANDARD, Delimiters, Er7Error, escape, parse, time_from, time_text


def test_the_message_of_a_b40():
    message = parse(er7(B40))
    assert [one.name for one in message] == ["MSH", "PID", "PV1", "OBR", "OBX", "OBX", "OBX"]
    assert (message.delimiters, message.charset, message.warnings) == (STANDARD, "utf-8", set())
    header = message.header
    assert (header.text(1), header.raw(2), header.text(3, 2), header.text(9, 3)) == (
        "|", "^~\\&", "080019FFFE134535", "ORU_R01",
    )  # fmt: skip
    assert (header.text(10), header.text(12), header.text(16), header.text(99), header.text(3, 9)) == (
        "004097134535", "2.6", "AL", "", "",
    )  # fmt: skip
    assert message.first("PV1").components(3) == ("SURGERY", "", "V2")
    assert message.first("ZZZ") is None


def test_the_hl7_library_reads_the_same_fields():
    theirs = hl7.parse(er7(B40).decode())
    ours = parse(er7(B40))
    for mine, segment in zip(ours, theirs, strict=True):
        for number in range(3, len(segment)):
            assert mine.raw(number) == str(segment[number]), (mine.name, number)


@pytest.mark.parametrize("end", ["\r", "\n", "\r\n", "\r\r", "\n\r"])
def test_any_line_end_ends_a_segment(end):
    message = parse(("\r\n" + B40.strip().replace("\n", end) + end).encode())
    assert len(message.segments) == 7


def test_delimiters_are_those_the_message_declares():
    message = parse(b"MSH#*!$@#app*x#\rPID###a*b!c*d#e$F$f$S$g")
    assert message.delimiters == Delimiters("#", "*", "!", "$", "@")
    assert message.first("PID").repetitions(3) == (("a", "b"), ("c", "d"))
    assert message.first("PID").text(4) == "e#f*g"


@pytest.mark.parametrize(("declared", "marks"), [("^~\\&#", "^~\\&"), ("^~", "^~\\&"), ("", "^~\\&")])
def test_fewer_and_more_delimiters_are_forgiven(declared, marks):
    message = parse(f"MSH|{declared}|app|\rPID|||x".encode())
    assert message.first("PID").text(3) == "x"
    assert "".join(message.delimiters.__getattribute__(name) for name in Delimiters.__slots__[1:]) == marks
    assert message.warnings == (set() if len(declared) >= 4 else {"delimiters"})


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        (r"a\F\b\S\c\T\d\R\e\E\f", "a|b^c&d~e\\f"),
        (r"\X41\\X0D0A\ ", "A\r\n "),
        (r"\XC3A4\ ", "ä "),
        (r"line\.br\line", "line\nline"),
        (r"\H\bold\N\ ", "bold "),
    ],
)
def test_escapes(text, meant):
    message = parse(b"MSH|^~\\&|a")
    assert message.unescape(text) == meant
    assert message.warnings == set()


@pytest.mark.parametrize("text", [r"C:\temp\x", "100\\", r"\Q\ ", r"\X4\ ", "\\\\", r"\X\ "])
def test_what_is_no_escape_stays_as_it_came(text):
    message = parse(b"MSH|^~\\&|a")
    assert message.unescape(text) == text
    assert message.warnings == {"escape"}


@pytest.mark.parametrize(
    ("declared", "codec", "warns"),
    [
        ("UNICODE UTF-8", "utf-8", False), ("8859/1", "latin-1", False), ("8859/15", "iso8859-15", False),
        ("GB 18030-2000", "gb18030", False), ("", "utf-8", False), ("8859/1~UNICODE UTF-8", "latin-1", False),
        ("KLINGON", "utf-8", True),
    ],
)  # fmt: skip
def test_charsets(declared, codec, warns):
    raw = f"MSH|^~\\&|app|||||||||||||||{declared}\rPID|||Bär".encode(codec)
    message = parse(raw)
    assert message.first("PID").text(3) == "Bär"
    assert ("charset" in message.warnings) == warns


def test_a_trail_byte_that_looks_like_a_separator_is_none():
    name = "丂瓅亅"  # in GB 18030 among its bytes: 0x40, 0x5E ('^'), 0x7C ('|')
    assert {0x5E, 0x7C} & set(name.encode("gb18030")) or {0x40} & set(name.encode("gb18030"))
    raw = f"MSH|^~\\&|app|||||||||||||||GB18030\rPID|||{name}^x".encode("gb18030")
    assert parse(raw).first("PID").components(3) == (name, "x")


def test_bytes_that_are_not_in_the_charset_are_replaced():
    message = parse(b"MSH|^~\\&|app|||||||||||||||UNICODE UTF-8\rPID|||a\xffb")
    assert message.first("PID").text(3) == "a\ufffdb"
    assert message.warnings == {"charset"}


def test_lines_that_are_no_segments_are_left_out():
    message = parse(b"MSH|^~\\&|a\rnot a segment\rPID|1\rpid|2\rP|3")
    assert [one.name for one in message] == ["MSH", "PID"]
    assert message.warnings == {"segment-name"}


def test_null_is_empty():
    assert parse(b'MSH|^~\\&|""|x').header.text(3) == ""


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "no-header"), (b"hello", "no-header"), (b"MSH", "no-header"), (b"PID|1\rMSH|^~\\&|", "no-header"),
        (b"MSHA^~\\&Aapp", "delimiters"), (b"MSH|^^\\&|app", "delimiters"), (b"MSH||~\\|app|", None),
        (b"MSH\x00^~\\&|app", "delimiters"), (b"MSH|a~\\&|app", "delimiters"), (b"MSH\xe9^~\\&\xe9a", "delimiters"),
        (b"MSH|^~\\&|a" + b"\rPID" * 9000, "segments"),
    ],
)  # fmt: skip
def test_what_is_no_message(raw, reason):
    if reason is None:
        assert parse(raw).warnings == {"delimiters"}
        return
    with pytest.raises(Er7Error) as caught:
        parse(raw)
    assert caught.value.reason == reason


@given(st.binary(max_size=300) | st.binary(max_size=300).map(lambda data: b"MSH|^~\\&|" + data))
def test_any_bytes_are_a_message_or_the_one_error(data):
    try:
        message = parse(data)
    except Er7Error:
        return
    for segment in message:
        for number in range(len(segment.fields)):
            assert len(segment.repetitions(number)) <= len(segment.raw(number)) + 1


@given(st.text(max_size=50))
def test_what_is_escaped_is_read_again_and_breaks_nothing(text):
    written = escape(text)
    assert not set("|^~&\r\n\x0b\x1c") & set(written)
    message = parse(b"MSH|^~\\&|a")
    if text.isascii():
        assert message.unescape(written) == text


@pytest.mark.parametrize(
    ("text", "seconds", "stated"),
    [
        ("20130122134100", 1358862060.0, None),
        ("20130122134100+0100", 1358858460.0, 3600),
        ("20130122134100.25-0530", 1358881860.25, -19800),
        ("201301221341", 1358862060.0, None),
        ("2013012213", 1358859600.0, None),
        ("20130122", 1358812800.0, None),
        ("20161231235960Z", None, None),
        ("20161231235960", 1483228800.0, None),
    ],
)
def test_times(text, seconds, stated):
    at, zone = time_from(text, None)
    assert at == seconds
    assert (zone.utcoffset(None).total_seconds() if zone else None) == stated


def test_a_time_without_zone_takes_the_given_one():
    _, zone = time_from("20130122134100+0200", None)
    assert time_from("20130122134100", zone)[0] == 1358854860.0


@pytest.mark.parametrize("text", ["", "now", "20131322", "20130132", "2013012225", "20130122134100+9999", "２０１３"])
def test_what_is_no_time(text):
    assert time_from(text, None) == (None, None)


@given(st.integers(0, 4_000_000_000_000))
def test_written_times_are_read_again(milliseconds):
    at, zone = time_from(time_text(milliseconds / 1000), None)
    assert round(at * 1000) == milliseconds
    assert zone is not None


def test_a_message_made_of_escapes_is_left_as_it_came():
    """A quarter of a megabyte of them would hold every other device up for seconds."""
    message = parse(er7(B40))
    assert message.unescape("\\T\\" * (MAX_MARKS // 2)) == "&" * (MAX_MARKS // 2)
    assert message.warnings == set()
    assert message.unescape("\\T\\") == "\\T\\"
    assert message.warnings == {"escape"}
    assert parse(er7(B40)).unescape("\\T\\") == "&"

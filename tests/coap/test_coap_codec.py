"""The message format of RFC 7252 section 3: examples of the RFC, hostile inputs, and the promise of one error."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from vitalgate.coap import (
    Answer,
    Code,
    Message,
    MessageFormatError,
    Type,
    decode,
    decode_options,
    encode,
    encode_options,
)

TEMPERATURE = ((11, b"temperature"),)
# RFC 7252 appendix A: (figure, datagram, message)
APPENDIX_A = [
    ("16 request", "40017d34bb74656d7065726174757265", Message(Code.GET, TEMPERATURE, b"", Type.CON, 0x7D34)),
    ("16 response", "60457d34ff32322e332043", Message(Code.CONTENT, (), b"22.3 C", Type.ACK, 0x7D34)),
    ("17 request", "41017d3520bb74656d7065726174757265", Message(1, TEMPERATURE, b"", Type.CON, 0x7D35, b"\x20")),
    ("17 response", "61457d3520ff32322e332043", Message(Code.CONTENT, (), b"22.3 C", Type.ACK, 0x7D35, b"\x20")),
    ("20 acknowledgement", "60007d38", Message(Code.EMPTY, (), b"", Type.ACK, 0x7D38)),
    ("20 separate", "4145ad7b53ff32322e332043", Message(Code.CONTENT, (), b"22.3 C", Type.CON, 0xAD7B, b"\x53")),
    ("21 reset", "7000ad7c", Message(Code.EMPTY, (), b"", Type.RST, 0xAD7C)),
    ("22 request", "51017d4075bb74656d7065726174757265", Message(1, TEMPERATURE, b"", Type.NON, 0x7D40, b"\x75")),
    ("22 response", "5145ad7d75ff32322e332043", Message(Code.CONTENT, (), b"22.3 C", Type.NON, 0xAD7D, b"\x75")),
    ("23 not found", "5184952a86", Message(Code.NOT_FOUND, (), b"", Type.NON, 0x952A, b"\x86")),
]


@pytest.mark.parametrize(("datagram", "message"), [row[1:] for row in APPENDIX_A], ids=[row[0] for row in APPENDIX_A])
def test_appendix_a(datagram, message):
    assert decode(bytes.fromhex(datagram)) == message
    assert encode(message) == bytes.fromhex(datagram)


def decoded(data) -> Message | None:
    """The message, or None where decoding raises its one error, which says what to do."""
    try:
        return decode(data)
    except MessageFormatError as error:
        fault = error
    assert fault.reason
    assert fault.answer is (Answer.RESET if fault.type is Type.CON else Answer.IGNORE)
    return None


@pytest.mark.parametrize("datagram", [row[1] for row in APPENDIX_A])
def test_every_prefix_is_a_value_or_the_one_error(datagram):
    whole = bytes.fromhex(datagram)
    for end in range(len(whole)):
        message = decoded(whole[:end])
        assert message is None or encode(message) == whole[:end]


@pytest.mark.parametrize(
    ("datagram", "reason", "answer"),
    [
        ("", "short", Answer.IGNORE),
        ("400100", "short", Answer.IGNORE),
        ("00010001", "version", Answer.IGNORE),
        ("80010001", "version", Answer.IGNORE),
        ("c0010001", "version", Answer.IGNORE),
        # token lengths 9 to 15 are reserved, also where the bytes are there (nanocoap: 4 bytes with TKL 13, 14)
        ("4d010001", "token_length", Answer.RESET),
        ("4e010001", "token_length", Answer.RESET),
        ("49010001" + "00" * 9, "token_length", Answer.RESET),
        ("59010001" + "00" * 9, "token_length", Answer.IGNORE),
        ("6f450001" + "00" * 15, "token_length", Answer.IGNORE),
        ("4801000100", "truncated", Answer.RESET),
        ("40000001ff", "empty_with_data", Answer.RESET),
        ("4100000100", "empty_with_data", Answer.RESET),
        ("7000000100", "empty_with_data", Answer.IGNORE),
        ("40010001ff", "payload_empty", Answer.RESET),
        ("40010001b161ff", "payload_empty", Answer.RESET),
        ("40010001f0", "option_delta", Answer.RESET),
        ("40010001f161", "option_delta", Answer.RESET),
        ("400100010f", "option_length", Answer.RESET),
        # the bytes that extend a delta or length are missing (mbed-coap)
        ("40010001d0", "option_delta", Answer.RESET),
        ("40010001e0", "option_delta", Answer.RESET),
        ("40010001e000", "option_delta", Answer.RESET),
        ("400100010d", "option_length", Answer.RESET),
        ("400100010e", "option_length", Answer.RESET),
        ("400100010e00", "option_length", Answer.RESET),
        ("40010001de00", "option_length", Answer.RESET),
        ("400100010161b5", "truncated", Answer.RESET),
        ("400100010effff" + "00" * 16, "truncated", Answer.RESET),
        # 65535 + 12 must not wrap round to 11, Uri-Path (OpenThread)
        ("40010001e0fef2c0", "option_number", Answer.RESET),
        ("40010001e0ffff", "option_number", Answer.RESET),
        ("50010001e0ffff", "option_number", Answer.IGNORE),
    ],
)
def test_format_errors(datagram, reason, answer):
    with pytest.raises(MessageFormatError) as caught:
        decode(bytes.fromhex(datagram))
    assert (caught.value.reason, caught.value.answer) == (reason, answer)


def test_extremes_of_options():
    options = ((0, b""), (12, b"a" * 12), (12, b"b" * 13), (25, b"c" * 268), (293, b"d" * 269), (65535, b"e" * 65804))
    message = Message(Code.POST, options, b"\xff\xff", Type.NON, 65535, b"\xff" * 8)
    assert decode(encode(message)) == message


def test_marker_byte_inside_an_option_is_no_marker():
    message = Message(Code.GET, ((4, b"\xff\xff"), (11, b"\xff")), b"\xff", Type.CON, 1, b"\xff")
    assert decode(encode(message)) == message


def test_bytes_that_are_no_text_decode_all_the_same():
    """A token or path that is not UTF-8 (CoAPthon) is no message format error."""
    assert decode(bytes.fromhex("410100018fb2fffe")).options == ((11, b"\xff\xfe"),)


@pytest.mark.parametrize(
    "message",
    [
        Message(Code.GET, token=b"123456789"),
        Message(Code.GET, ((11, b"a"), (3, b"b"))),
        Message(Code.GET, ((65536, b""),)),
        Message(Code.GET, ((-1, b""),)),
        Message(Code.GET, ((11, b"a" * 65805),)),
        Message(Code.EMPTY, token=b"1"),
        Message(Code.EMPTY, ((11, b"a"),)),
        Message(Code.EMPTY, payload=b"a"),
    ],
)
def test_what_no_message_can_hold_is_not_encoded(message):
    with pytest.raises(ValueError):
        encode(message)


def test_repr_shows_sizes_and_no_content():
    text = repr(Message(Code.POST, ((15, b"name=Doe"),), b"Jane Doe", Type.CON, 7, b"\1"))
    assert text == "Message(0.02 CON mid=7 token=01 options=[15] payload=8B)"


option_lists = st.lists(
    st.tuples(
        st.integers(0, 65535) | st.integers(0, 40), st.binary(max_size=20) | st.binary(min_size=260, max_size=300)
    ),
    max_size=6,
).map(lambda pairs: tuple(sorted(pairs, key=lambda pair: pair[0])))
messages = st.builds(
    Message,
    st.integers(1, 255),
    option_lists,
    st.binary(max_size=40),
    st.sampled_from(Type),
    st.integers(0, 65535),
    st.binary(max_size=8),
)


@settings(derandomize=True, deadline=None, max_examples=300)
@given(messages)
def test_decode_inverts_encode(message):
    assert decode(encode(message)) == message


@settings(derandomize=True, deadline=None, max_examples=1000)
@given(st.binary(max_size=64) | st.binary(max_size=40).map(lambda tail: b"\x42\x01\x00\x01ab" + tail))
@example(bytes.fromhex("40010001e0fef2c0"))
def test_any_bytes_are_a_message_or_the_one_error(data):
    message = decoded(data)
    if message is not None:
        # Encoding is canonical where the sender's was: what we make of it again is never longer and means the same.
        again = encode(message)
        assert len(again) <= len(data)
        assert decode(again) == message


@settings(derandomize=True, deadline=None, max_examples=300)
@given(messages, st.data())
def test_a_damaged_message_is_a_message_or_the_one_error(message, data):
    raw = bytearray(encode(message))
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    del raw[data.draw(st.integers(0, len(raw))) :]
    message = decoded(bytes(raw))
    assert message is None or decode(encode(message)) == message


@settings(derandomize=True, deadline=None, max_examples=200)
@given(option_lists, st.binary(max_size=10))
def test_options_and_payload_alone(options, payload):
    tail = b"\xff" + payload if payload else b""
    assert decode_options(encode_options(options) + tail) == (options, payload)


@pytest.mark.parametrize("length", [0, 8, 9, 12, 13, 268, 269, 65804])
def test_extended_tokens(length):
    """RFC 8974 section 2.1, at the edges of each form."""
    message = Message(Code.GET, ((11, b"a"),), b"payload", Type.CON, 7, b"t" * length)
    data = encode(message, 65804)
    assert data[0] & 15 == (length if length < 13 else 13 if length < 269 else 14)
    assert decode(data, 65804) == message
    for end in range(len(data) - 9, 0, -1000):  # within header and token
        with pytest.raises(MessageFormatError):
            decode(data[:end], 65804)
    if length > 8:
        with pytest.raises(MessageFormatError, match="token_length"):
            decode(data, length - 1)
        with pytest.raises(ValueError, match="token"):
            encode(message, length - 1)


def test_no_token_is_longer_than_65804():
    with pytest.raises(ValueError, match="token"):
        encode(Message(Code.GET, token=bytes(65805)), 70000)

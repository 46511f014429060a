"""The OSCORE option's codec: a header or the one documented error, whatever arrives."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from vitalgate.oscore.errors import OscoreError, Refusal
from vitalgate.oscore.option import Header, decode, encode, partial_iv

quick = settings(derandomize=True, deadline=None, max_examples=400)

headers = st.builds(
    Header,
    st.one_of(st.just(b""), st.integers(0, 2**40 - 1).map(partial_iv)),
    st.none() | st.binary(max_size=7),
    st.none() | st.binary(max_size=200),
)


@quick
@given(headers)
def test_a_header_survives(header):
    assert decode(encode(header)) == header


@quick
@given(st.binary(max_size=260))
@example(b"\x1f")
@example(b"\x19\x00\xff")
def test_any_value_is_a_header_or_malformed(value):
    refused = set()
    for cut in range(len(value) + 1):
        try:
            header = decode(value[:cut])
        except OscoreError as error:
            refused.add(error.refusal)
        else:
            assert encode(header) == value[:cut], "two values would mean one header"
    assert refused <= {Refusal.MALFORMED}


@pytest.mark.parametrize(
    "value",
    [
        "00",  # flag bits all zero: the value is to be empty (section 2)
        "2001",  # a reserved bit
        "400100",
        "8901",
        "060102030405060708",  # reserved Partial IV lengths
        "0701020304050607",
        "09",  # Partial IV cut short
        "0305",
        "020005",  # not the shortest Partial IV
        "02000025",
        "1105",  # kid context: no length
        "11050344",  # kid context cut short
        "010525",  # bytes left over without the kid flag
        "1105014425",
        "08" + "00" * 255,  # longer than an option can be
    ],
)
def test_malformed_values(value):
    with pytest.raises(OscoreError) as caught:
        decode(bytes.fromhex(value))
    assert caught.value.refusal is Refusal.MALFORMED


@pytest.mark.parametrize(
    "header",
    [Header(bytes(6)), Header(b"", None, bytes(256)), Header(b"", bytes(255)), Header(b"\1", b"a", bytes(252))],
)
def test_headers_that_do_not_fit(header):
    with pytest.raises(ValueError):
        encode(header)


@pytest.mark.parametrize(
    ("number", "piv"), [(0, "00"), (1, "01"), (255, "ff"), (256, "0100"), (2**40 - 1, "ffffffffff")]
)
def test_partial_ivs_are_the_shortest(number, piv):
    assert partial_iv(number) == bytes.fromhex(piv)

"""SenML held to the examples of RFC 8428 and to its promise about bad input."""

import json
from decimal import Decimal

import cbor2
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from vitalgate.vitals.senml import Record, SenmlError, dumps_cbor, dumps_json, loads_cbor, loads_json, resolve

OW = "urn:dev:ow:10e2073a01080063"

# RFC 8428 section 5.1.2, second example, and its dump in section 6.
SERIES_JSON = """[
  {"bn":"urn:dev:ow:10e2073a0108006:","bt":1.276020076001e+09,"bu":"A","bver":5,"n":"voltage","u":"V","v":120.1},
  {"n":"current","t":-5,"v":1.2}, {"n":"current","t":-4,"v":1.3}, {"n":"current","t":-3,"v":1.4},
  {"n":"current","t":-2,"v":1.5}, {"n":"current","t":-1,"v":1.6}, {"n":"current","v":1.7}
]"""
SERIES_CBOR = bytes.fromhex(
    "87a721781b75726e3a6465763a6f773a31306532303733613031303830303"
    "63a22fb41d303a15b001062236141200500"
    "67766f6c746167650161560"
    "2fb405e066666666666a3006763757272656e74062402fb3ff3333333333333a30067"
    "63757272656e74062302fb3ff4cccccccccccda3006763757272656e74062202fb3f"
    "f6666666666666a3006763757272656e74062102f93e00a3006763757272656e7406"
    "2002fb3ff999999999999aa3006763757272656e74060002fb3ffb333333333333"
)

# Section 5.1.3 and, resolved, section 5.1.4.
MANY = """[
  {"bn":"urn:dev:ow:10e2073a01080063","bt":1.320067464e+09,"bu":"%RH","v":20},
  {"u":"lon","v":24.30621}, {"u":"lat","v":60.07965}, {"t":60,"v":20.3}, {"u":"lon","t":60,"v":24.30622},
  {"u":"lat","t":60,"v":60.07965}, {"t":120,"v":20.7}, {"u":"lon","t":120,"v":24.30623},
  {"u":"lat","t":120,"v":60.07966}, {"u":"%EL","t":150,"v":98}, {"t":180,"v":21.2},
  {"u":"lon","t":180,"v":24.30628}, {"u":"lat","t":180,"v":60.07967}
]"""
MANY_RESOLVED = [
    ("%RH", 1320067464, "20"), ("lon", 1320067464, "24.30621"), ("lat", 1320067464, "60.07965"),
    ("%RH", 1320067524, "20.3"), ("lon", 1320067524, "24.30622"), ("lat", 1320067524, "60.07965"),
    ("%RH", 1320067584, "20.7"), ("lon", 1320067584, "24.30623"), ("lat", 1320067584, "60.07966"),
    ("%EL", 1320067614, "98"), ("%RH", 1320067644, "21.2"), ("lon", 1320067644, "24.30628"),
    ("lat", 1320067644, "60.07967"),
]  # fmt: skip


def test_section_5_1_1_a_single_point_is_now():
    pack = loads_json('[{"n":"urn:dev:ow:10e2073a01080063","u":"Cel","v":23.1}]')
    assert pack == [Record(n=OW, u="Cel", v=Decimal("23.1"))]
    assert resolve(pack, 1_795_000_000) == [Record(n=OW, u="Cel", v=Decimal("23.1"), t=1_795_000_000)]


def test_section_5_1_2_base_name_and_units():
    pack = loads_json(
        '[{"bn":"urn:dev:ow:10e2073a01080063:","n":"voltage","u":"V","v":120.1},{"n":"current","u":"A","v":1.2}]'
    )
    assert [(one.n, one.u, str(one.v)) for one in resolve(pack, 0x60000000)] == [
        (OW + ":voltage", "V", "120.1"),
        (OW + ":current", "A", "1.2"),
    ]


def test_section_6_the_dump_and_the_json_say_the_same():
    from_json, from_cbor = loads_json(SERIES_JSON), loads_cbor(SERIES_CBOR)
    assert len(SERIES_CBOR) == 0xC3
    plain = [dict(fields(one)) for one in from_cbor]
    assert [{label: float(value) if label in ("bt", "v") else value for label, value in fields(one)}
            for one in from_json] == [
        {label: value for label, value in one.items() if (label, value) != ("t", 0)} for one in plain
    ]  # fmt: skip
    resolved = resolve(from_cbor, 0.0)
    assert resolved[0] == Record(n="urn:dev:ow:10e2073a0108006:current", u="A", v=1.2, t=1276020071.001, bver=5)
    assert [one.bver for one in resolved] == [5] * 7  # a version other than 10 stays (section 4.6)
    assert {one.n.rpartition(":")[2] for one in resolved if one.u == "V"} == {"voltage"}


def fields(record):
    return [
        (label, value)
        for label in ("bn", "bt", "bu", "bver", "n", "u", "v", "t")
        if (value := getattr(record, label)) is not None
    ]


def test_section_5_1_4_resolved():
    resolved = resolve(loads_json(MANY), 0)
    assert [(one.u, one.t, str(one.v)) for one in resolved] == MANY_RESOLVED
    assert {one.n for one in resolved} == {OW}
    assert all(one.bn is None and one.bt is None and one.bver is None for one in resolved)


def test_section_5_1_5_data_types():
    pack = loads_json(
        '[{"bn":"urn:dev:ow:10e2073a01080063:","n":"temp","u":"Cel","v":23.1},{"n":"label","vs":"Machine Room"},'
        '{"n":"open","vb":false},{"n":"nfv-reader","vd":"aGkgCg"}]'
    )
    assert [(one.vs, one.vb, one.vd) for one in pack[1:]] == [
        ("Machine Room", None, None), (None, False, None), (None, None, b"hi \n"),
    ]  # fmt: skip
    assert '"vd":"aGkgCg"' in dumps_json(pack)
    assert cbor2.loads(dumps_cbor(pack))[3][8] == b"hi \n"


def test_section_5_1_6_base_fields_change_one_by_one():
    pack = loads_json(
        '[{"bn":"2001:db8::2/","bt":1.320078429e+09,"n":"temperature","u":"Cel","v":25.2},'
        '{"n":"humidity","u":"%RH","v":30},{"bn":"2001:db8::1/","n":"temperature","u":"Cel","v":12.3},'
        '{"n":"humidity","u":"%RH","v":67}]'
    )
    assert [(one.n, one.t) for one in resolve(pack, 0)] == [
        ("2001:db8::2/temperature", 1320078429), ("2001:db8::2/humidity", 1320078429),
        ("2001:db8::1/temperature", 1320078429), ("2001:db8::1/humidity", 1320078429),
    ]  # fmt: skip


def test_section_5_1_7_a_record_may_set_base_fields_alone():
    pack = loads_json(
        '[{"bn":"urn:dev:ow:10e2073a01080063:"},{"n":"temp","u":"Cel","v":23.1},{"n":"heat","u":"/","v":1}]'
    )
    assert [one.n for one in resolve(pack, 0)] == [OW + ":temp", OW + ":heat"]
    lights = loads_json(
        '[{"bt":1.320078429e+09,"bu":"/","n":"2001:db8::3","v":0.5},{"n":"2001:db8::4","v":0.5},'
        '{"n":"2001:db8::3","t":0.1,"v":0},{"n":"2001:db8::4","t":0.1,"v":0}]'
    )
    assert [str(one.t) for one in resolve(lights, 0)] == ["1320078429"] * 2 + ["1320078429.1"] * 2


def test_base_values_and_sums_are_added_and_may_stand_for_missing_ones():
    pack = [
        Record(bn="m", bv=Decimal("20.5"), bs=100, n="1", v=Decimal("0.25")),
        Record(n="2"),
        Record(n="3", vs="text", s=5),
    ]
    assert [(one.v, one.vs, one.s) for one in resolve(pack, 0)] == [
        (Decimal("20.75"), None, 100),
        (Decimal("20.5"), None, 100),
        (None, "text", 105),
    ]


def test_relative_times_start_from_now_and_records_come_in_order():
    pack = [Record(bn="m", n="a", v=1), Record(n="b", v=2, t=-5), Record(n="c", v=3, t=5)]
    assert [(one.n, one.t) for one in resolve(pack, 1_795_000_000.5)] == [
        ("mb", 1_794_999_995.5), ("ma", 1_795_000_000.5), ("mc", 1_795_000_005.5),
    ]  # fmt: skip


def test_digits_survive_both_forms():
    pack = [Record(n="t", u="Cel", v=Decimal("72.50")), Record(n="t", v=Decimal("1.5E+3"))]
    assert dumps_json(pack) == '[{"n":"t","u":"Cel","v":72.50},{"n":"t","v":1.5e+3}]'
    assert str(loads_json(dumps_json(pack))[0].v) == "72.50"
    assert bytes.fromhex("02c48221191c52") in dumps_cbor(pack)  # v: decimal fraction 7250 * 10^-2
    assert [str(one.v) for one in loads_cbor(dumps_cbor(pack))] == ["72.50", "1.5E+3"]


def test_unknown_labels_are_kept_and_must_understand_labels_refused():
    pack = loads_json('[{"n":"a","v":1,"ucum":"mm[Hg]","deep":{"x":1}}]')
    assert dict(pack[0].more) == {"ucum": "mm[Hg]"}
    assert loads_cbor(dumps_cbor(pack)) == pack
    for wrong in ('[{"n":"a","v":1,"must_":1}]', '[{"n":"a","v":1,"bmust_":{}}]'):
        with pytest.raises(SenmlError):
            loads_json(wrong)
    with pytest.raises(SenmlError):
        loads_cbor(cbor2.dumps([{0: "a", 2: 1, "must_": 1}]))
    assert loads_cbor(cbor2.dumps([{0: "a", 2: 1, 99: 1, "v": "not the value"}])) == [Record(n="a", v=1)]


@pytest.mark.parametrize(
    "text",
    [
        "", "{}", "[]", "[1]", "[[]]", "nonsense", '[{"n":1,"v":1}]', '[{"n":"a","v":"1"}]', '[{"n":"a","v":true}]',
        '[{"n":"a","v":null}]', '[{"n":"a","v":NaN}]', '[{"n":"a","v":Infinity}]', '[{"n":"a","v":1e999}]',
        '[{"n":"a","v":1.8e308}]', '[{"n":"a","v":1e-401}]',
        '[{"n":"a","v":1,"vs":"x"}]', '[{"n":"a","v":1,"vb":false}]', '[{"n":"a","vb":1}]', '[{"n":"a","vd":"a+b/"}]',
        '[{"n":"a","vd":"aGkgCg=="}]', '[{"n":"a","vd":"aGkgCh"}]', '[{"n":"a","vd":"\\u00e9"}]', '[{"n":"a","vd":5}]',
        '[{"n":"a","v":1,"bver":11}]', '[{"n":"a","v":1,"bver":0}]', '[{"n":"a","v":1,"bver":1.0}]',
        '[{"n":"a","v":1,"bver":true}]', '[{"n":"a","v":1,"v":2}]', '[{"n":"a","v":1,"t":"now"}]',
        "[" * 100000, '[{"n":"a","v":' + "9" * 5000 + "}]", '[{"n":"a","v":1.' + "1" * 100 + "}]",
        b'[{"n":"\xff","v":1}]',
    ],
)  # fmt: skip
def test_what_is_no_pack_is_refused(text):
    with pytest.raises(SenmlError):
        loads_json(text)


@pytest.mark.parametrize(
    "pack",
    [
        [Record(v=1)],
        [Record(n="_a", v=1)],
        [Record(n="a b", v=1)],
        [Record(n="é", v=1)],
        [Record(bn="x"), Record(n="a")],
        [Record(n="a", u="V")],
        [Record(n="a", v=1, bver=5), Record(n="a", v=1, bver=10)],
        [Record(n="a", v=1), Record(n="a", v=1, bver=5)],
        [Record(bn="a", bv=1e308, v=1e308)],
    ],
)
def test_what_does_not_resolve_is_refused(pack):
    with pytest.raises(SenmlError):
        resolve(pack, 0)


@pytest.mark.parametrize(
    "data",
    [
        b"", b"\x80", b"\xa0", b"\x9f\xa2\x00aa\x02\x01\xff", b"\x81" * 100, b"\x81\xa2\x00aa\x02\xf6",
        b"\x81\xa2\x00aa\x02\xf9\x7e\x00", b"\x81\xa3\x00aa\x02\x01\x02\x01", b"\x81\xa2\x00aa\xf5\x01",
        b"\x81\xa2\x00aa\x02\x01\x00", b"\x81\xa2\x00aa\x02\xc1\x01", b"\x81\xa2\x00aa\x02\xd9\x03\xe7\x01",
    ],
)  # fmt: skip
def test_cbor_that_is_no_pack_is_refused(data):
    with pytest.raises(SenmlError):
        loads_cbor(data)


def test_a_stream_may_have_an_array_of_indefinite_length():
    assert loads_cbor(b"\x9f\xa2\x00aa\x02\x01\xff", stream=True) == [Record(n="a", v=1)]


names = st.text("abcXYZ019:./_-", max_size=8)
numbers = st.integers(-(10**12), 10**12) | st.decimals(-10000, 10000, places=3) | st.floats(-1e9, 1e9)
maybe = st.none() | numbers
values = (
    st.fixed_dictionaries({"v": numbers})
    | st.fixed_dictionaries({"vs": st.text(st.characters(exclude_categories=("Cs",)), max_size=10)})
    | st.fixed_dictionaries({"vb": st.booleans()})
    | st.fixed_dictionaries({"vd": st.binary(max_size=20)})
    | st.fixed_dictionaries({"s": numbers})
    | st.just({})
)
records = st.builds(
    lambda value, rest, more: Record(**value, **rest, more=more),
    values,
    st.fixed_dictionaries(
        {},
        optional={
            "bn": names,
            "n": names,
            "bu": names,
            "u": names,
            "bt": numbers,
            "t": numbers,
            "ut": numbers,
            "bv": numbers,
            "bs": numbers,
        },
    ),
    st.dictionaries(
        st.sampled_from(["gv", "ucum", "bge"]), st.text("abc", max_size=5) | st.integers(0, 99), max_size=2
    ),
)
packs = st.lists(records, min_size=1, max_size=5)


@given(packs)
@example([Record(n="least", v=5e-324), Record(n="most", v=1.7976931348623157e308), Record(n="zero", v=-0.0)])
def test_what_is_written_is_read_again(pack):
    assert loads_cbor(dumps_cbor(pack)) == pack
    again = loads_json(dumps_json(pack))
    assert [as_doubles(one) for one in again] == [as_doubles(one) for one in pack]
    json.loads(dumps_json(pack))


def as_doubles(record):
    return [
        float(value) if isinstance(value := getattr(record, label), Decimal) else value for label in Record.__slots__
    ]


@settings(max_examples=150)
@given(st.data())
def test_damaged_packs_give_a_pack_or_the_one_error(data):
    pack = data.draw(packs)
    for encoded, load in ((dumps_cbor(pack), loads_cbor), (dumps_json(pack).encode(), loads_json)):
        damaged = bytearray(encoded)
        for _ in range(data.draw(st.integers(1, 3))):
            damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
        try:
            found = load(bytes(damaged))
            resolve(found, 1_795_000_000.0)
        except SenmlError:
            continue
        assert dumps_json(found)


@given(st.binary(max_size=100))
def test_arbitrary_bytes_give_the_one_error(data):
    for load in (loads_cbor, loads_json):
        try:
            load(data)
        except SenmlError:
            continue

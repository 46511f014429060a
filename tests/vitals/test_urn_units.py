"""Device URNs (RFC 9039) and the units that SenML may carry."""

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitalgate.vitals import urn
from vitalgate.vitals.metrics import METRICS
from vitalgate.vitals.units import CONVERSIONS
from vitalgate.vitals.urn import DeviceUrn, UrnError

# RFC 9039 section 5 (and two of its forms with more identifiers).
EXAMPLES = [
    ("urn:dev:mac:0024beffff804ff1", "mac", ()),
    ("urn:dev:mac:0024befffe804ff1", "mac", ()),
    ("urn:dev:mac:acde48234567019f", "mac", ()),
    ("urn:dev:ow:10e2073a01080063", "ow", ()),
    ("urn:dev:ow:264437f5000000ed_humidity", "ow", ("humidity",)),
    ("urn:dev:ow:264437f5000000ed_temperature", "ow", ("temperature",)),
    ("urn:dev:org:32473-foo", "org", ()),
    ("urn:dev:os:32473-123456", "os", ()),
    ("urn:dev:os:32473-12-34-56", "os", ()),
    ("urn:dev:ops:32473-Refrigerator-5002", "ops", ()),
    ("urn:dev:example:new-1-2-3_comp", "example", ("comp",)),
    ("urn:dev:os:32473-123456:a:b_c_d", "os", ("c", "d")),
]


@pytest.mark.parametrize(("text", "form", "components"), EXAMPLES)
def test_the_examples_of_the_rfc(text, form, components):
    found = urn.parse(text)
    assert (str(found), found.form, found.components) == (text, form, components)
    assert urn.is_normal(text)


@pytest.mark.parametrize(
    "text",
    [
        "", "urn:dev:", "urn:dev:mac:", "urn:dev:mac:0024be", "urn:dev:mac:0024befffe804ff1a", "urn:dev:mac:zz",
        "urn:dev:mac:0024befffe804ff1:x", "urn:dev:ow:1", "urn:dev:org:0-foo", "urn:dev:org:032473-foo",
        "urn:dev:org:foo", "urn:dev:os:32473", "urn:dev:ops:32473-Refrigerator", "urn:dev:ops:32473--5002",
        "urn:dev:example:", "urn:dev:example:a_", "urn:dev:example:a__b", "urn:dev:example:a b", "urn:dev:example:ü",
        "urn:dev:EXAMPLE:a", "urn:example:dev:a", "urn:dev:example:a%20", "urn:dev:example:" + "a" * 200,
        " urn:dev:example:a", "urn:dev:example:a\n", "urn:dev:mac:０024befffe804ff1",
    ],
)  # fmt: skip
def test_what_is_no_device_urn_is_refused(text):
    with pytest.raises(UrnError):
        urn.parse(text)
    assert not urn.is_normal(text)


def test_there_is_one_normal_spelling():
    assert str(urn.parse("URN:DEV:mac:0024BEFFFE804FF1")) == "urn:dev:mac:0024befffe804ff1"
    assert str(urn.parse("Urn:Dev:os:32473-AbC")) == "urn:dev:os:32473-AbC"
    assert not urn.is_normal("urn:dev:mac:0024BEFFFE804FF1")


def test_names_are_made_of_what_devices_say():
    assert str(urn.from_eui(bytes.fromhex("0024be804ff1"))) == "urn:dev:mac:0024befffe804ff1"
    assert str(urn.from_eui(bytes.fromhex("080019fffe134535"))) == "urn:dev:mac:080019fffe134535"
    assert urn.from_eui(bytes(8)).eui64 == bytes(8)
    assert str(urn.from_one_wire(bytes.fromhex("10e2073a01080063"))) == "urn:dev:ow:10e2073a01080063"
    assert str(urn.from_organization(32473, "foo", "bar")) == "urn:dev:org:32473-foo:bar"
    assert str(urn.from_serial(32473, "0815")) == "urn:dev:os:32473-0815"
    named = urn.from_serial(32473, "0815-4711", product="B40")
    assert (str(named), named.serial) == ("urn:dev:ops:32473-B40-0815-4711", "0815-4711")
    assert str(urn.example("nonin", "1")) == "urn:dev:example:nonin:1"
    assert [urn.parse(text).serial for text in ("urn:dev:os:32473-12-34:x", "urn:dev:mac:0024befffe804ff1")] == [
        "12-34",
        "0024befffe804ff1",
    ]
    for wrong in (lambda: urn.from_eui(b"123"), lambda: urn.from_one_wire(b""), lambda: urn.from_serial(0, "1")):
        with pytest.raises(UrnError):
            wrong()


@given(st.text(max_size=60) | st.text("urn:dev:macowops0123456789abcdef-_.", max_size=60).map(lambda t: "urn:dev:" + t))
def test_any_text_is_a_urn_or_gives_the_one_error(text):
    try:
        found = urn.parse(text)
    except UrnError:
        return
    assert urn.parse(str(found)) == found


def test_components_are_part_of_the_name():
    assert str(DeviceUrn("ow", "264437f5000000ed", ("a", "b"))) == "urn:dev:ow:264437f5000000ed_a_b"


# The symbols of RFC 8428 section 12.1 that are not discouraged for new producers, as far as the table uses them.
RECOMMENDED = {"m", "kg", "s", "K", "Hz", "Pa", "J", "W", "V", "Ohm", "Cel", "m3", "m3/s", "1/s", "/"}


def test_only_units_for_new_producers_are_sent():
    assert {row.unit for row in CONVERSIONS.values()} <= RECOMMENDED


def test_every_metric_with_a_value_has_a_unit_to_send():
    assert {row.unit for row in METRICS.values()} <= CONVERSIONS.keys()


@pytest.mark.parametrize(
    ("unit", "value", "symbol", "converted"),
    [
        ("mm[Hg]", "120", "Pa", 15998.6864898),
        ("mm[Hg]", "1", "Pa", 133.322387415),
        ("/min", "72", "1/s", 1.2),
        ("/min", "60", "1/s", 1.0),
        ("cm[H2O]", "10", "Pa", 980.665),
        ("L/min", "6", "m3/s", 0.0001),
    ],
)
def test_values_are_converted_to_the_nearest_double(unit, value, symbol, converted):
    row = CONVERSIONS[unit]
    assert row.unit == symbol
    assert row.convert(Decimal(value)) == converted


@pytest.mark.parametrize(
    ("unit", "value", "converted"),
    [("%", "97.5", "0.975"), ("%", "97", "0.97"), ("mV", "1.250", "0.001250"), ("kPa", "16.0", "1.60E+4"),
     ("Cel", "36.80", "36.80")],
)  # fmt: skip
def test_powers_of_ten_keep_the_digits(unit, value, converted):
    assert str(CONVERSIONS[unit].convert(Decimal(value))) == converted


@given(st.sampled_from(sorted(CONVERSIONS)), st.decimals(-10000, 10000, places=2))
def test_conversions_are_exact_before_they_are_rounded(unit, value):
    row = CONVERSIONS[unit]
    exact = Fraction(value) * row.factor
    converted = row.convert(value)
    if isinstance(converted, Decimal):
        assert Fraction(converted) == exact
    else:
        assert converted == pytest.approx(float(exact), rel=2**-52)

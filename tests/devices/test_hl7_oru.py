"""ORU^R01 and IHE PCD-01 to observations: values, places, times, states, and the habits of real monitors."""

from decimal import Decimal

import pytest
from hl7kit import AT, B40, BEATS, HASH, er7, message, obx, report
from hypothesis import given, settings
from hypothesis import strategies as st

from vitalgate.devices.hl7.er7 import Er7Error, parse
from vitalgate.devices.hl7.oru import MAX_OBSERVATIONS, MAX_TEXT, Refusal, decode
from vitalgate.devices.hl7.quirks import FLAGS, NO_READING, PROCESSING, RESULTS, UNITS
from vitalgate.vitals.metrics import METRICS
from vitalgate.vitals.observation import Alarm, Observation, Priority, Samples, Status

MMHG = "266016^MDC_DIM_MMHG^MDC"
CELSIUS = "268192^MDC_DIM_DEGC^MDC"
MILLIVOLT = "266418^MDC_DIM_MILLI_VOLT^MDC"
LEAD_I = "131329^MDC_ECG_LEAD_I^MDC"


def only(*segments, **fields):
    found = report(message(*segments, **fields))
    assert len(found.observations) == 1
    return found.observations[0]


def test_the_message_of_a_b40():
    found = report(er7(B40))
    assert found.observations == (
        Observation(
            147842, Decimal("80"), "/min", AT, HASH, "hl7/1", Status.NONE, 1358862060.0, 1358862060.0 - AT,
            patient="HED12", location="SURGERY^^V2",
        ),
    )  # fmt: skip
    assert (found.serial, found.warnings) == ("080019fffe134535", frozenset())


def test_digits_are_kept():
    assert str(only(obx("72.50")).value) == "72.50"
    assert str(only(obx("+072")).value) == "72"
    assert str(only(obx(" 36.80 ", "150364^MDC_TEMP_BODY^MDC", unit=CELSIUS)).value) == "36.80"


def test_times_and_the_clock():
    segments = ("OBR|1|a|b|c|||20261118110500+0000|20261118110600+0000",)
    numeric = only(*segments, obx())
    assert (numeric.device_time, numeric.clock_offset) == (AT - 100.5, 0.0)  # OBR-7; the device's clock is right
    assert only(*segments, obx(at="20261118110530+0000")).device_time == AT - 70.5
    wave = only(*segments, obx("1^2^3", LEAD_I, kind="NA", unit=MILLIVOLT))
    assert wave.device_time == AT - 40.5  # OBR-8: the last sample is the newest
    slow = only(*segments, obx(), made="20261118110635.500+0000")
    assert slow.clock_offset == -5.0
    zoned = only("OBR|1|a|b|c|||20261118120500|", obx(), made="20261118120640.500+0100")
    assert (zoned.device_time, zoned.clock_offset) == (AT - 100.5, 0.0)  # the zone of MSH-7 counts
    bare = report(message("OBR|1|a|b|c", obx(), made=""))
    assert (bare.observations[0].device_time, bare.observations[0].clock_offset) == (None, None)
    assert bare.warnings == {"no-time"}
    odd = report(message("OBR|1|a|b|c|||yesterday|", obx()))
    assert (odd.observations[0].device_time, odd.warnings) == (AT, {"time"})


def test_processing_id_marks_what_is_no_patients():
    assert only(processing="P").status == Status.NONE
    assert only(processing="T").status == Status.DEMO
    assert only(processing="D").status == Status.TEST
    unknown = report(message(processing="X"))
    assert (unknown.observations[0].status, unknown.warnings) == (Status.TEST, {"processing-id"})


@pytest.mark.parametrize(
    ("result", "status"),
    [("F", Status.VALIDATED), ("R", Status.NONE), ("X", Status.UNAVAILABLE), ("N", Status.NOT_PERFORMED),
     ("W", Status.INVALID), ("C", Status.VALIDATED), ("", Status.NONE)],
)  # fmt: skip
def test_result_status(result, status):
    assert only(obx(result=result)).status == status


@pytest.mark.parametrize(
    ("flags", "status", "alarm"),
    [
        ("INV~QUES", Status.INVALID | Status.QUESTIONABLE, None),
        ("NAV", Status.UNAVAILABLE, None),
        ("CAL~TEST~DEMO", Status.CALIBRATING | Status.TEST | Status.DEMO, None),
        (">", Status.ABOVE_RANGE, None),
        ("ALINH", Status.ALARM_INHIBITED, None),
        ("H~PM~ALACT", Status.IN_ALARM, Alarm("HR high", Priority.MEDIUM)),
        ("PH", Status.IN_ALARM, Alarm("HR alarm", Priority.HIGH)),
        ("LL", Status.IN_ALARM, Alarm("HR very low", Priority.HIGH)),
        ("L~PL", Status.IN_ALARM, Alarm("HR low", Priority.LOW)),
        ("PN", Status.NONE, None),
        ("N", Status.NONE, None),
    ],
)
def test_flags(flags, status, alarm):
    found = only(obx(flags=flags))
    assert (found.status, found.alarm) == (status, alarm)


def test_unknown_flags_and_states_are_told():
    found = report(message(obx(flags="ZZ", result="Q")))
    assert found.warnings == {"flag", "result-status"}
    assert found.observations[0].status == Status.QUESTIONABLE


def test_no_value():
    for value in ("", '""'):
        found = only(obx(value, result="X"))
        assert (found.value, found.unit, found.status) == (None, "/min", Status.UNAVAILABLE)
    wrong = report(message(obx("eighty")))
    assert (wrong.observations[0].value, wrong.warnings) == (None, {"number"})
    assert Status.INVALID in wrong.observations[0].status


@pytest.mark.parametrize("value", ["-100", "32767", "-32768"])
def test_numbers_that_mean_no_reading(value):
    found = only(obx(value))
    assert (found.value, found.status) == (None, Status.UNAVAILABLE)


def test_a_number_that_could_be_a_reading_is_one():
    metric = "1.2.1.1"
    found = only(obx("65535", "150452^MDC_PULS_OXIM_PLETH^MDC", metric, unit="262656^MDC_DIM_DIMLESS^MDC"))
    assert found.value == Decimal(65535)
    private = only(obx("-100", "199999^VENDOR_THING^MDC", unit=""))
    assert (private.metric, private.value, private.status) == (199999, Decimal(-100), Status.NONE)


def test_implausible_values_are_kept_and_marked():
    found = only(obx("351"))
    assert (found.value, found.status) == (Decimal(351), Status.IMPLAUSIBLE)


def test_temperatures_ten_times_too_high():
    found = report(message(obx("384.5", "150364^MDC_TEMP_BODY^MDC", unit=CELSIUS)))
    assert (str(found.observations[0].value), found.observations[0].status) == ("38.45", Status.QUESTIONABLE)
    assert found.warnings == {"tenfold"}


@pytest.mark.parametrize(
    ("code", "metric"),
    [
        ("147842^MDC_ECG_HEART_RATE^MDC", 147842),
        ("147842^^", 147842),
        ("^MDC_ECG_HEART_RATE^MDC", 147842),
        ("0^MDC_ECG_HEART_RATE^MDC", 147842),
        ("8867-4^Heart rate^LN^147842^MDC_ECG_HEART_RATE^MDC", 147842),
        ("327680^SPO2_SPO2^EHC", 150456),
        ("0002-4a05^NBPs^MDIL", 150021),
        ("150301^MDC_PRESS_CUFF_SYS^MDC", 150021),
        ("150303^MDC_PRESS_CUFF_MEAN^MDC", 150023),
        ("149522^MDC_PULS_RATE^MDC", 149530),
        ("149522^MDC_BLD_PULS_RATE_INV^MDC", 149522),
        ("151728^MDC_AWAY_CO2_ET^MDC", 151708),
        ("16770^MDC_ECG_HEART_RATE^MDC", 147842),
    ],
)
def test_codes_as_real_monitors_write_them(code, metric):
    found = only(obx("50", code, unit=""))
    assert (found.metric, found.label, found.unit) == (metric, "", METRICS[metric].unit)


def test_a_code_that_nobody_knows_keeps_its_name():
    found = report(message(obx("3", "99^Pain score^LOCAL", unit="")))
    assert (found.observations[0].metric, found.observations[0].label) == (0, "Pain score")
    assert "private-code" in found.warnings
    nameless = report(message(obx("3", "^^LOCAL", unit=""), obx()))
    assert len(nameless.observations) == 1
    assert "no-code" in nameless.warnings


def test_a_name_and_a_code_that_disagree_are_told_and_the_code_counts():
    found = report(message(obx("97", "150456^MDC_ECG_HEART_RATE^MDC", unit="262688^MDC_DIM_PERCENT^MDC")))
    assert (found.observations[0].metric, found.warnings) == (150456, {"misnamed"})


def test_general_pressures_below_a_cuff_are_the_cuffs():
    cuff = obx("", "69854^MDC_DEV_METER_PRESS_BLD_NONINV_VMD^MDC", "1.4.0.0", "", "", result="X")
    codes = [f"{code}^MDC_PRESS_BLD^MDC" for code in (150017, 150018, 150019)]
    rows = [obx("80", code, f"1.{vmd}.1.{at}", unit=MMHG) for vmd in (4, 5) for at, code in enumerate(codes)]
    assert [one.metric for one in report(message(cuff, *rows)).observations] == [
        150021, 150022, 150023, 150017, 150018, 150019,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("unit", "ucum"),
    [(BEATS, "/min"), ("bpm", "/min"), ("^MDC_DIM_BEAT_PER_MIN", "/min"), ("", "/min"), ("furlong", "furlong")],
)
def test_units(unit, ucum):
    assert only(obx(unit=unit)).unit == ucum


def test_a_unit_other_than_the_metrics_is_kept_and_not_judged():
    found = only(obx("16.0", "150021^MDC_PRESS_BLD_NONINV_SYS^MDC", unit="kPa"))
    assert (found.value, found.unit, found.status) == (Decimal("16.0"), "kPa", Status.NONE)


@pytest.mark.parametrize(
    ("value", "found", "status"),
    [
        ("^100", Decimal(100), Status.NONE),
        (">^100", Decimal(100), Status.ABOVE_RANGE),
        ("<=^20", Decimal(20), Status.BELOW_RANGE),
        ("^1^:^2", "1:2", Status.NONE),
        ("^10^-^20", "10-20", Status.NONE),
    ],
)
def test_structured_numerics(value, found, status):
    one = only(obx(value, kind="SN"))
    assert (one.value, one.status) == (found, status)


def test_texts_codes_and_numbers_as_text():
    assert only(obx("Sinus~rhythm^x", "184327^MDC_ECG_RHYTHM^MDC", kind="ST", unit="")).value == "Sinus~rhythm^x"
    assert only(obx("1^Present^L", "184327^MDC_X^MDC", kind="CWE", unit="")).value == "Present"
    assert only(obx("on", "184327^MDC_X^MDC", kind="IS", unit="")).value == "on"
    number = report(message(obx("80", kind="ST")))
    assert (number.observations[0].value, number.warnings) == (Decimal(80), {"number-as-text"})
    assert only(obx("7,5", "150488^MDC_BLD_PERF_INDEX^MDC", unit="%")).value == Decimal("7.5")
    long = report(message(obx("x" * 1000, "184327^MDC_X^MDC", kind="TX", unit="")))
    assert (len(long.observations[0].value), long.warnings) == (MAX_TEXT, {"text-cut"})
    assert report(message(obx("x", kind="ED"), obx())).warnings == {"value-type"}


def facets(rate, name="0^MDC_ATTR_SAMP_RATE^MDC", unit="264608^MDC_DIM_HZ^MDC"):
    return (
        obx("0.0^0.029^-1.5^^2", LEAD_I, "1.1.1.1001", "NA", MILLIVOLT),
        obx(rate, name, "1.1.1.1001.1", "NM", unit),
        obx("-1^1", "0^MDC_ATTR_DATA_RANGE^MDC", "1.1.1.1001.2", "NR", MILLIVOLT),
    )


def test_a_waveform_and_its_facets():
    found = only(*facets("256.0"))
    samples = found.value
    assert isinstance(samples, Samples)
    assert (found.metric, found.unit, str(samples.rate)) == (131329, "mV", "256.0")
    values = [None if raw == samples.missing else samples.origin + samples.factor * raw for raw in samples.raw()]
    assert values == [Decimal(0), Decimal("0.029"), Decimal("-1.5"), None, Decimal(2)]


def test_a_period_is_a_rate_too():
    found = only(*facets("4", "0^MDC_ATTR_TIME_PD_SAMP^MDC", "264338^MDC_DIM_MILLI_SEC^MDC"))
    assert found.value.rate == 250


def test_a_rate_follows_from_the_span_of_the_order():
    order = "OBR|1|a|b|c|||20261118110639.000+0000|20261118110640.250+0000"
    wave = obx("^".join(["1"] * 250), LEAD_I, kind="NA", unit=MILLIVOLT)
    assert only(order, wave).value.rate == 200
    without = report(message("OBR|1|a|b|c|||20261118110639+0000|", wave))
    assert (without.observations[0].value, without.warnings) == (None, {"no-rate"})
    assert Status.INVALID in without.observations[0].status


def test_what_is_no_array_is_told():
    found = report(message(obx("1^two^3", LEAD_I, kind="NA", unit=MILLIVOLT)))
    assert (found.observations[0].value, found.warnings) == (None, {"array"})


def test_the_same_metric_of_two_channels_is_told_apart_by_its_place():
    temperature = "150344^MDC_TEMP^MDC"
    rows = [obx("36.5", temperature, f"1.4.{channel}.1", unit=CELSIUS) for channel in (1, 2)]
    assert [one.label for one in report(message(*rows, obx())).observations] == ["1.4.1.1", "1.4.2.1", ""]


def test_who_speaks():
    assert report(message()).serial == "00a037fffe012345"
    nameless = message(obx(equipment="080019FFFE0B4020^B40_GE"), obx(equipment="08-00-19-FF-FE-0B-40-20^B40_GE"))
    nameless = nameless.replace(b"MON^00A037FFFE012345^EUI-64", b"MONITOR")
    assert report(nameless).serial == "080019fffe0b4020"
    assert report(message().replace(b"MON^00A037FFFE012345^EUI-64", b"MONITOR")).serial == ""


@pytest.mark.parametrize(
    ("kind", "code"),
    [("ADT^A01", 200), ("QRY^R02", 200), ("", 200), ("ORU^R40^ORU_R40", 201), ("ORU", 201), ("ACK", 200)],
)
def test_messages_of_other_kinds_are_refused(kind, code):
    raw = message(kind=kind or "^")
    with pytest.raises(Refusal) as caught:
        report(raw)
    assert caught.value.code == code


def test_a_message_without_results_is_refused():
    with pytest.raises(Refusal) as caught:
        report(er7(B40[: B40.index("OBX")]))
    assert caught.value.reason == "no-results"


def test_a_message_with_too_many_results_is_refused():
    assert len(report(message(*[obx()] * MAX_OBSERVATIONS)).observations) == MAX_OBSERVATIONS
    with pytest.raises(Refusal) as caught:
        report(message(*[obx()] * (MAX_OBSERVATIONS + 1)))
    assert caught.value.reason == "too-many"


# A message as personal health devices send it (HL7 v2.6 by way of Continua): no PV1, empty OBX-1, an absolute time.
CONTINUA = r"""
MSH|^~\&|AT4_AHD^1234567890ABCDEF^EUI-64||||20090713090030+0500||ORU^R01^ORU_R01|MSGID1234|P|2.6|||NE|AL|||||IHE PCD ORU-R01 2006^HL7^2.16.840.1.113883.9.n.m^HL7
PID|||789567^^^Imaginary Hospital^PI||Doe^John^Joseph^^^^L^A|||M
OBR|1|AB12345^AT4_AHD^1234567890ABCDEF^EUI-64|CD12345^AT4_AHD^1234567890ABCDEF^EUI-64|182777000^monitoring of patient^SNOMED-CT|||20090813095715+0500
OBX|1|CWE|68220^MDC_TIME_SYNC_PROTOCOL^MDC|0.0.0.1|532224^MDC_TIME_SYNC_NONE^MDC||||||R
OBX||NA|150020^MDC_PRESS_BLD_NONINV^MDC|1.0.1||||||R|||20090813095715+0500
OBX||NM|150021^MDC_PRESS_BLD_NONINV_SYS^MDC|1.0.1.1|120|266016^MDC_DIM_MMHG^MDC|||||R
OBX||NM|150022^MDC_PRESS_BLD_NONINV_DIA^MDC|1.0.1.2|80|266016^MDC_DIM_MMHG^MDC|||||R
OBX||NM|150023^MDC_PRESS_BLD_NONINV_MEAN^MDC|1.0.1.3|100|266016^MDC_DIM_MMHG^MDC|||||R
"""  # noqa: E501  # a device's line is as long as it is


def test_a_blood_pressure_monitor_at_home():
    found = report(er7(CONTINUA))
    numerics = [(one.metric, one.value, one.unit) for one in found.observations if isinstance(one.value, Decimal)]
    assert numerics == [
        (150021, Decimal(120), "mm[Hg]"), (150022, Decimal(80), "mm[Hg]"), (150023, Decimal(100), "mm[Hg]"),
    ]  # fmt: skip
    assert found.serial == "1234567890abcdef"
    assert {one.patient for one in found.observations} == {"789567"}
    assert found.observations[-1].device_time == 1250139435.0


def test_tables_say_what_the_metric_table_says():
    for row in METRICS.values():
        assert UNITS[str(row.unit_code)] == row.unit or row.unit_code == 266432, row.name
    assert all(isinstance(flag.status, Status) for flag in FLAGS.values())
    assert set(PROCESSING) == {"P", "T", "D"}
    assert set("FRXNPCDW") <= set(RESULTS)
    assert Decimal(-100) in NO_READING


fragments = st.sampled_from(
    ["", '""', "^", "~", "\\", "&", "|", "NM", "NA", "SN", "80", "-100", "1e9", "9" * 30, "1^2^3", "147842^X^MDC",
     "0^MDC_ATTR_SAMP_RATE^MDC", "1.1.1.1.1", "20261118", "PH", "X", "\r", "OBX|", "OBR|", "PID|", "é", "\x00",
     "131329^MDC_ECG_LEAD_I^MDC", "266418", "264608^MDC_DIM_HZ^MDC", "0", "1.1.1.1"]
)  # fmt: skip


@settings(max_examples=200)
@given(st.lists(st.lists(fragments, max_size=16).map("|".join), max_size=6), st.data())
def test_any_segments_are_a_report_or_the_one_refusal(segments, data):
    raw = bytearray(message(*(f"OBX|{one}" for one in segments), obx()))
    for _ in range(data.draw(st.integers(0, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = decode(parse(bytes(raw)), AT, HASH)
    except (Er7Error, Refusal):
        return
    for one in found.observations:
        assert 0 <= one.metric < 1 << 32
        assert len(one.patient) <= MAX_TEXT
        assert isinstance(one.value, Decimal | Samples | str | None)
        if isinstance(one.value, Samples):
            assert one.value.rate > 0
            assert len(one.value) == len(one.value.raw()) > 0

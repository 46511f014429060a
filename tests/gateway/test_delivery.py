"""The delivery format: everything survives, nothing else is accepted, and entries stay small."""

from dataclasses import replace
from decimal import Decimal

import cbor2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vitalgate.gateway.delivery import (
    MAX_PAYLOAD_BYTES,
    DeliveryError,
    join,
    pack,
    pack_entry,
    unpack,
)
from vitalgate.gateway.entry import MAX_ENTRY_BYTES, NOTICE_HASH, Entry
from vitalgate.gateway.notice import DeviceGap, EpochOpened, Gap, Quarantined
from vitalgate.gateway.splitting import segments, split
from vitalgate.vitals import senml
from vitalgate.vitals.observation import (
    Alarm,
    Observation,
    Priority,
    SampleFormat,
    Samples,
    Status,
    TrafficClass,
    traffic_class,
)

DEVICE = "urn:dev:mac:0024befffe804ff1"
AT = 1_795_000_000.25
HASH = bytes(range(16))

texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=20)
times = st.floats(1_600_000_000, 2_100_000_000)
units = st.sampled_from(["", "/min", "%", "mm[Hg]", "Cel", "mV", "1", "mg/dL", "Pa", "1/s", "/", "kPa", "V"]) | texts
decimals = st.builds(
    lambda negative, digits, exponent: Decimal((int(negative), tuple(map(int, str(digits))), exponent)),
    st.booleans(),
    st.integers(0, 10**20),
    st.integers(-6, 6),
)
samples = st.builds(
    lambda rate, wide, data, factor, origin, missing: Samples(
        rate, SampleFormat.S16 if wide else SampleFormat.U8, data * (2 if wide else 1), factor, origin, missing
    ),
    decimals.filter(lambda number: number > 0),
    st.booleans(),
    st.binary(max_size=40),
    decimals,
    decimals,
    st.none() | st.integers(-32768, 65535),
)
clocks = st.tuples(st.none() | times, st.none() | st.floats(-1e9, 1e9)) | times.map(lambda at: (at, at - AT))


@st.composite
def observations(draw, device=DEVICE, epoch=7, sequence=9):
    clock, offset = draw(clocks)
    return Observation(
        metric=draw(st.sampled_from([0, 147842, 150456, 4294967295]) | st.integers(0, 4294967295)),
        value=draw(st.none() | texts | decimals | samples),
        unit=draw(units),
        gateway_time=draw(st.just(AT) | times),
        frame_hash=draw(st.just(HASH) | st.binary(min_size=16, max_size=16)),
        decoder=draw(st.sampled_from(["ivy450c/1", "hl7/1", ""])),
        status=Status(draw(st.integers(0, 16383))),
        device_time=clock,
        clock_offset=offset,
        label=draw(st.sampled_from(["", "P1"]) | texts),
        alarm=draw(st.none() | st.builds(Alarm, texts, st.sampled_from(Priority))),
        patient=draw(st.sampled_from(["", "HED12"]) | texts),
        location=draw(st.sampled_from(["", "SURGERY"])),
        device=device,
        epoch=epoch,
        sequence=sequence,
    )


natural = st.integers(0, 2**63 - 1)
notices = (
    st.builds(EpochOpened, natural, natural, texts)
    | st.builds(Gap, st.just(DEVICE), natural, natural, natural, natural, times, times, texts)
    | st.builds(DeviceGap, st.sampled_from([DEVICE, ""]), times, times, texts, natural)
    | st.builds(Quarantined, texts, texts, texts, natural, times)
)


@st.composite
def entries(draw):
    device = draw(st.sampled_from([DEVICE, "urn:dev:ops:32473-B40-0815"]))
    epoch, sequence = draw(st.integers(1, 2**64 - 1)), draw(st.integers(1, 2**63 - 1))
    if draw(st.integers(0, 3)) == 0:
        device = draw(st.sampled_from([device, ""]))
        return Entry(epoch, sequence, TrafficClass.BULK, device, NOTICE_HASH, AT, (), draw(notices))
    inner = tuple(draw(st.lists(observations(device, epoch, sequence), max_size=4)))
    return Entry(epoch, sequence, draw(st.sampled_from(TrafficClass)), device, HASH, AT, inner)


def exact(entry):
    """Equality of decimals forgets digits and the sign of zero: their spelling does not."""
    return entry, [repr(one) for one in entry.observations]


@settings(max_examples=120)
@given(st.lists(entries(), min_size=1, max_size=4))
def test_everything_survives(given_entries):
    found = unpack(pack(given_entries))
    assert [exact(entry) for entry in found] == [exact(entry) for entry in given_entries]


@given(st.lists(entries(), min_size=1, max_size=5))
def test_joined_entries_are_never_longer_than_apart_and_are_one_pack(given_entries):
    packed = [pack_entry(entry) for entry in given_entries]
    payload = join(packed)
    assert len(payload) <= sum(map(len, packed))
    assert payload == pack(given_entries)
    assert cbor2.loads(payload) == [record for one in packed for record in cbor2.loads(one)]


def test_joining_many_records_writes_the_longer_heads():
    for count in (23, 24, 255, 256, 300):
        many = [replace(numerics(1), sequence=sequence + 1) for sequence in range(count)]
        assert [entry.sequence for entry in unpack(join([pack_entry(e) for e in many][:60]))] == list(
            range(1, min(count, 60) + 1)
        )
        records = cbor2.loads(join([pack_entry(entry) for entry in many]))
        assert len(records) == count


def numerics(count, **fields):
    made = tuple(
        Observation(147842 + at, Decimal("72.50"), "/min", AT, HASH, "hl7/1", Status.DEMO, **fields)
        for at in range(count)
    )
    return Entry(7, 9, TrafficClass.VITAL_PERIODIC, DEVICE, HASH, AT, made)


def test_a_stranger_reads_name_unit_value_and_time():
    entry = Entry(
        7,
        9,
        TrafficClass.VITAL_PERIODIC,
        DEVICE,
        HASH,
        AT,
        (
            Observation(150021, Decimal("120"), "mm[Hg]", AT, HASH, "hl7/1", Status.DEMO),
            Observation(150456, Decimal("97.5"), "%", AT, HASH, "hl7/1"),
            Observation(150344, Decimal("36.80"), "Cel", AT - 2, HASH, "hl7/1", label="T1"),
        ),
    )
    first, second, third = cbor2.loads(pack_entry(entry))
    assert (first[-2], first[-3], first[0], first[1]) == (DEVICE + ":", AT, "150021", "Pa")
    assert first[2] == float(Decimal(120) * Decimal("133.322387415"))  # 15998.6864898 Pa
    assert (first["gu"], first["gv"]) == ("mm[Hg]", 120)
    assert (second[1], second[2], second["gv"]) == ("/", Decimal("0.975"), Decimal("97.5"))
    assert (third[0], third[1], str(third[2]), third[6]) == ("150344/T1", "Cel", "36.80", -2.0)
    assert "gv" not in third


@given(st.lists(entries(), min_size=1, max_size=3))
def test_every_delivery_is_a_senml_pack_that_resolves(given_entries):
    resolved = senml.resolve(senml.loads_cbor(pack(given_entries)), AT)
    found = [one for entry in given_entries for one in entry.observations]
    notices = [entry for entry in given_entries if entry.notice is not None]
    assert len(resolved) == len(found) + len(notices)
    assert sorted(one.t for one in resolved) == sorted(
        [one.gateway_time for one in found] + [entry.gateway_time for entry in notices]
    )
    names = {f"{one.device}:{one.metric}" for one in found} | {f"{e.device or 'vitalgate'}:notice" for e in notices}
    assert {one.n.partition("/")[0] for one in resolved} == names


def test_what_an_unbound_observation_lacks_comes_from_its_entry():
    entry = numerics(2)
    found = unpack(pack_entry(entry))[0]
    assert [(o.device, o.epoch, o.sequence) for o in found.observations] == [(DEVICE, 7, 9)] * 2


@pytest.mark.parametrize(
    "fields",
    [
        {"device": "urn:dev:mac:0024befffe804ff2"},
        {"epoch": 8},
        {"sequence": 8},
        {"metric": 1 << 32},
        {"metric": -1},
        {"value": Decimal("NaN")},
        {"value": Decimal("Infinity")},
        {"value": Decimal("1E+65")},
        {"value": 1.5},
        {"value": "\ud800"},
        {"gateway_time": float("nan")},
        {"gateway_time": 1e-300},
        {"device_time": float("inf")},
        {"frame_hash": b"short"},
        {"status": 1 << 14},
        {"value": Samples(Decimal(0), SampleFormat.U8, b"1")},
        {"value": Samples(Decimal(1), SampleFormat.S16, b"123")},
        {"value": "x" * 9000},
    ],
)
def test_what_cannot_be_carried_is_refused(fields):
    entry = numerics(1)
    wrong = replace(entry, observations=(replace(entry.observations[0], **fields),))
    with pytest.raises(DeliveryError):
        pack_entry(wrong)


@pytest.mark.parametrize(
    "fields",
    [
        {"device": "ivy"},
        {"device": "urn:dev:mac:0024BEFFFE804FF1"},
        {"frame_hash": b""},
        {"sequence": 0},
        {"epoch": 1 << 64},
        {"gateway_time": float("inf")},
        {"notice": EpochOpened(0, 0, "first start")},
    ],
)
def test_an_entry_that_cannot_be_is_refused(fields):
    with pytest.raises(DeliveryError):
        pack_entry(replace(numerics(1), **fields))


GOOD = cbor2.loads(pack_entry(numerics(2)))
NOTICE = cbor2.loads(
    pack_entry(Entry(7, 1, TrafficClass.BULK, "", NOTICE_HASH, AT, (), Gap(DEVICE, 7, 2, 3, 2, AT, AT, "spool full")))
)


def changed(record, **fields):
    made = dict(record)
    for label, value in fields.items():
        key = int(label[1:].replace("m", "-")) if label[0] == "_" else label
        if value is ...:
            made.pop(key, None)
        else:
            made[key] = value
    return made


@pytest.mark.parametrize(
    "fields",
    [
        *({label: ...} for label in ("bge", "bgc", "bgh", "bgs", "_m2", "_m3", "_2")),
        {"must_": 1},
        {"_m1": 11},
        {"_m2": "device:"},
        {"_m2": ""},
        {"_m2": "x"},
        {"_m2": "vitalgate:"},  # the gateway itself observes nothing
        {"_m2": DEVICE},
        {"_m2": "urn:dev:mac:0024BEFFFE804FF1:"},
        {"_m3": "now"},
        {"_m3": True},
        {"_m3": float("nan")},
        {"_m3": 1e300},
        {"bge": -1},
        {"bge": 1 << 64},
        {"bge": True},
        {"bgs": 0},
        {"bgs": 1.0},
        {"bgc": 4},
        {"bgh": b"123"},
        {"bgd": 1},
        {"bgx": 1 << 14},
        {"bgt": True},
        {"bgo": "1"},
        {"_0": 147842},
        {"_0": "0147842"},
        {"_0": "4294967296"},
        {"_0": "147842/"},
        {"_2": "72"},
        {"_2": Decimal("1E+65"), "gv": ...},
        {"_2": [1], "gv": ...},
        {"_2": float("nan"), "gv": ...},
        {"_3": "72"},
        {"_4": True, "_2": ..., "gv": ...},
        {"_8": "text", "_2": ..., "gr": 1},
        {"_8": b"123", "_2": ..., "gr": 1, "gf": "h"},
        {"_8": b"123", "_2": ..., "gr": 0},
        {"_8": b"123", "_2": ...},
        {"_8": b"123", "_2": ..., "gr": 1, "gf": "d"},
        {"_8": b"123", "_2": ..., "gr": 1, "gm": 1 << 40},
        {"gv": "seventy"},
        {"gv": 1.5},
        {"gu": 5},
        {"gl": b"x"},
        {"ga": "text"},
        {"ga": "text", "gp": 4},
        {"_6": "later"},
    ],
)
def test_every_wrong_field_is_refused(fields):
    with pytest.raises(DeliveryError):
        unpack(cbor2.dumps([changed(GOOD[0], **fields), GOOD[1]]))


@pytest.mark.parametrize(
    "records",
    [
        {},
        [],
        [1],
        [GOOD[1]],
        [GOOD[0], changed(GOOD[1], _m3=AT)],
        [GOOD[0], NOTICE[0] | {"bgs": 10}, GOOD[1]],
        [GOOD[0], {label: value for label, value in NOTICE[0].items() if label in (0, 3) or str(label)[0] == "g"}],
        [changed(NOTICE[0], _3="gossip")],
        [changed(NOTICE[0], gd="device")],
        [changed(NOTICE[0], gn=...)],
        [changed(NOTICE[0], gn=-1)],
        [changed(NOTICE[0], gs="then")],
        [[]],
        [GOOD[0]] * 3000,
    ],
)
def test_records_in_a_wrong_order_or_of_a_wrong_kind_are_refused(records):
    with pytest.raises(DeliveryError):
        unpack(cbor2.dumps(records))


def test_unknown_labels_are_ignored_unless_they_must_be_understood():
    extended = [GOOD[0] | {"ct": "x", 99: 1}, GOOD[1]]
    assert unpack(cbor2.dumps(extended)) == unpack(cbor2.dumps(GOOD))


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\x80",
        b"\x9f" + pack_entry(numerics(1))[1:] + b"\xff",
        b"\x81" * 5000,
        b"\xd9\x01\x00" * 5000,
        b"\xd8\x1c\x81\xd8\x1d\x00",
        b"\x9b" + b"\xff" * 8,
        b"\x81\xbb" + b"\xff" * 8,
        b"\x81\xa2\x00\x61a\x00\x61b",
        b"\x81\xa1\xc1\x00\x00",
        b"\x81\xa1\x02\xc4\x82\x1b\x7f\xff\xff\xff\xff\xff\xff\xff\x01",
        bytes(MAX_PAYLOAD_BYTES + 1),
        pack_entry(numerics(1)) + b"\x00",
    ],
)
def test_hostile_bytes_are_refused(payload):
    with pytest.raises(DeliveryError):
        unpack(payload)


@settings(max_examples=150)
@given(st.data())
def test_damaged_payloads_give_entries_or_the_one_error(data):
    payload = bytearray(pack(data.draw(st.lists(entries(), min_size=1, max_size=2))))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(payload) - 1))
        payload[at] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(payload)))
    for hostile in (bytes(payload), bytes(payload[:cut])):
        try:
            found = unpack(hostile)
        except DeliveryError:
            continue
        assert unpack(pack(found)) == found  # whatever is accepted can be carried


@settings(max_examples=150)
@given(st.binary(max_size=200))
def test_arbitrary_bytes_give_the_one_error(data):
    with pytest.raises(DeliveryError):
        unpack(data)


# splitting


def wave(count, wide=True, **fields):
    data = bytes(range(256)) * (count * 2 // 256 + 1)
    made = Samples(
        Decimal(500),
        SampleFormat.S16 if wide else SampleFormat.U8,
        data[: count * (2 if wide else 1)],
        Decimal("0.0025"),
        Decimal(-1),
        32767,
    )
    return Observation(131330, made, "mV", AT, HASH, "hl7/1", Status.DEMO, device=DEVICE, **fields)


def packed_size(lane, observations):
    return len(pack_entry(Entry(2**64 - 1, 2**63 - 1, lane, DEVICE, HASH, AT, observations)))


def test_a_long_waveform_is_cut_into_stretches_with_their_own_times():
    long = wave(1500, device_time=AT + 100, clock_offset=100.0, alarm=Alarm("VF", Priority.HIGH))
    pieces = segments(long)
    assert len(pieces) == 5
    assert b"".join(piece.value.data for piece in pieces) == long.value.data
    assert [len(piece.value) for piece in pieces] == [300] * 5
    assert [piece.gateway_time for piece in pieces] == [AT - 2.4, AT - 1.8, AT - 1.2, AT - 0.6, AT]
    assert [piece.device_time for piece in pieces] == [AT + 97.6, AT + 98.2, AT + 98.8, AT + 99.4, AT + 100]
    assert [piece.alarm for piece in pieces] == [None] * 4 + [long.alarm]
    assert {piece.clock_offset for piece in pieces} == {100.0}


def test_a_frame_is_split_by_class_and_keeps_its_order():
    vital, alarmed = numerics(3).observations[0], replace(numerics(1).observations[0], alarm=Alarm("HR", Priority.LOW))
    parts = split([vital, wave(10), alarmed, replace(vital, metric=1)])
    assert [(lane, [one.metric for one in part]) for lane, part in parts] == [
        (TrafficClass.ALARM, [147842]),
        (TrafficClass.WAVEFORM_REALTIME, [131330]),
        (TrafficClass.VITAL_PERIODIC, [147842, 1]),
    ]


@settings(max_examples=40)
@given(st.lists(observations(), max_size=30), st.integers(0, 3000), st.integers(0, 3000))
def test_every_part_fits_and_nothing_is_lost(given_observations, narrow, wide):
    plain = [
        replace(one, epoch=0, sequence=0, frame_hash=HASH, gateway_time=min(one.gateway_time, AT))
        for one in given_observations
    ]
    waves = [wave(narrow, wide=False), wave(wide, device_time=AT - 5, clock_offset=-5.0)]
    parts = split(plain + waves)
    for lane, part in parts:
        assert packed_size(lane, part) <= MAX_ENTRY_BYTES
        assert {traffic_class(one) for one in part if not one.is_waveform} <= {lane}
    found = [one for _, part in parts for one in part]
    for one in plain:
        assert one in found
    for whole in waves:
        pieces = [one for one in found if one.is_waveform and one.unit == "mV" and one.metric == 131330]
        data = [p.value.data for p in pieces if p.value.format is whole.value.format and p.decoder == "hl7/1"]
        assert b"".join(data).endswith(whole.value.data)


def test_full_entries_are_used_well():
    parts = split([replace(one, device=DEVICE) for one in numerics(30).observations])
    assert len(parts) == 2
    assert sum(len(part) for _, part in parts) == 30


def test_one_text_too_large_for_an_entry_stands_alone():
    large = replace(numerics(1).observations[0], value="x" * 1500, unit="")
    parts = split([*numerics(2).observations, large, *numerics(2).observations])
    assert [len(part) for _, part in parts if large in part] == [1]
    assert sum(len(part) for _, part in parts) == 5


def test_an_observation_that_cannot_be_packed_is_left_for_the_spool_to_refuse():
    wrong = replace(numerics(1).observations[0], value=Decimal("Infinity"))
    parts = split([*numerics(40).observations, wrong, replace(wave(900), metric=-1)])
    assert sum(len(part) for _, part in parts) == 42
    with pytest.raises(DeliveryError):
        for lane, part in parts:
            packed_size(lane, part)

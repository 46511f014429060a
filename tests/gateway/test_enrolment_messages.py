"""The decoders' promise: a message or `HandshakeError`, whole and byte by byte."""

import cbor2
import pytest
from enrolment_world import World
from hypothesis import given, settings
from hypothesis import strategies as st

from vitalgate.gateway import handshake
from vitalgate.gateway.handshake import HandshakeError

DECODERS = {
    "enrol": lambda data: handshake.decode_hello(handshake.ENROL, data),
    "rekey": lambda data: handshake.decode_hello(handshake.REKEY, data),
    "offer": handshake.decode_offer,
    "confirm": handshake.decode_confirm,
    "done": handshake.decode_done,
}


@pytest.fixture(scope="module")
def samples():
    """One real message of every kind."""
    world = World()
    gateway, _ = world.enrolled(gateway="ward-3")
    following = world.gateway().vault.identity()
    world.run(gateway.begin_rekey(next_identity=following))
    (_, enrol, offer), (_, confirm, done), (_, rekey, _), _ = world.trace
    return {"enrol": enrol, "offer": offer.payload, "confirm": confirm, "done": done.payload, "rekey": rekey}


def outcome(name, data):
    try:
        return DECODERS[name](data)
    except HandshakeError:
        return None


def test_messages_are_deterministic_cbor_that_others_read(samples):
    for name, data in samples.items():
        assert outcome(name, data) is not None
        array = cbor2.loads(data)
        body = cbor2.loads(array[0])
        assert body[0] == 1
        assert cbor2.dumps(array, canonical=True) == data
        assert cbor2.dumps(body, canonical=True) == array[0]


def test_each_decoder_refuses_the_other_kinds(samples):
    for name in DECODERS:
        for other, data in samples.items():
            assert (outcome(name, data) is not None) == (name == other)
    assert handshake.kind_of(samples["confirm"]) == handshake.CONFIRM
    assert handshake.kind_of(samples["enrol"]) == handshake.ENROL
    assert handshake.kind_of(samples["rekey"]) == handshake.REKEY
    assert handshake.kind_of(b"") == handshake.kind_of(b"\x83") == 0


def test_every_truncation_and_extension_is_refused(samples):
    for name, data in samples.items():
        for length in range(len(data)):
            assert outcome(name, data[:length]) is None
        for more in (b"\0", b"\xff", data):
            assert outcome(name, data + more) is None


def test_only_the_shortest_form_is_read(samples):
    assert samples["done"][:2] in (b"\x82\x4c", b"\x82\x4b", b"\x82\x4a")
    longer = b"\x82\x58" + bytes([samples["done"][1] & 31]) + samples["done"][2:]
    assert cbor2.loads(longer) == cbor2.loads(samples["done"])
    assert outcome("done", longer) is None
    assert outcome("done", b"\x9f" + samples["done"][1:] + b"\xff") is None  # indefinite length
    assert outcome("done", b"\xd9\xd9\xf7" + samples["done"]) is None  # self-described CBOR tag


@settings(derandomize=True, deadline=None, max_examples=300)
@given(st.sampled_from(sorted(DECODERS)), st.binary(max_size=700))
def test_any_bytes(name, data):
    outcome(name, data)
    handshake.kind_of(data)


@settings(derandomize=True, deadline=None, max_examples=400)
@given(st.sampled_from(sorted(DECODERS)), st.integers(0, 10_000), st.integers(1, 255), st.integers(0, 10_000))
def test_any_change_of_a_real_message(samples, name, at, change, cut):
    data = bytearray(samples[name])
    data[at % len(data)] ^= change
    found = outcome(name, bytes(data))
    if found is not None:  # the change sits inside a value: nothing else can have moved
        again = cbor2.loads(bytes(data))
        assert cbor2.dumps(again, canonical=True) == bytes(data)
    outcome(name, bytes(data[: cut % len(data)]))


@settings(derandomize=True, deadline=None, max_examples=200)
@given(
    st.sampled_from(sorted(DECODERS)),
    st.lists(
        st.recursive(
            st.integers() | st.binary(max_size=80) | st.text(max_size=40) | st.none() | st.booleans() | st.floats(),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
            max_leaves=6,
        ),
        max_size=9,
    ),
)
def test_any_cbor(name, elements):
    outcome(name, cbor2.dumps(elements))
    outcome(name, cbor2.dumps([cbor2.dumps(elements), bytes(64), bytes(16)]))
    outcome(name, cbor2.dumps([cbor2.dumps(elements), bytes(16)]))


def test_gateway_names():
    for good in ("a", "0", "ward-3.icu_2", "x" * 32):
        assert handshake.gateway_id_ok(good)
    for bad in ("", "-a", ".a", "A", "x" * 33, "a b", "a/b", "é", "a\n", "²"):
        assert not handshake.gateway_id_ok(bad)


def test_small_order_ephemeral_is_refused():
    private = handshake.X25519PrivateKey.generate()
    for point in (bytes(32), b"\1" + bytes(31)):
        with pytest.raises(HandshakeError):
            handshake.agree(private, point)


def test_parts_cannot_be_shifted():
    assert handshake.parts(b"ab", b"c") != handshake.parts(b"a", b"bc")
    assert handshake.parts(b"ab") != handshake.parts(b"ab", b"")

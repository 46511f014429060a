"""Codecs: what they promise about good and bad input; reassembly; the unified header; windows."""

import contextlib
import dataclasses
import itertools

import pytest
from dtls_world import NOBODY_NAMED, X509_TARGET, Pair, psk_pair, rpk_pair, x509_pair
from hypothesis import given, settings
from hypothesis import strategies as st

from vitalgate.dtls import extensions, handshaking, hellos, messages12, messages13, records
from vitalgate.dtls.alerts import Alert, HandshakeError
from vitalgate.dtls.credentials import Identity, Mode
from vitalgate.dtls.extensions import CertificateType, Place
from vitalgate.dtls.flights import Outgoing, pack
from vitalgate.dtls.handshaking import Fragment, Reassembler
from vitalgate.dtls.parameters import Parameters
from vitalgate.dtls.protection import Discard, PlainSeal
from vitalgate.dtls.protection12 import Open12, Seal12
from vitalgate.dtls.protection13 import Open13, Seal13
from vitalgate.dtls.records import DTLS_1_2, DTLS_1_3, reconstruct
from vitalgate.dtls.schedule import traffic_keys
from vitalgate.dtls.sessions import Session, TicketKeys, decode_session
from vitalgate.dtls.suites import SUITES
from vitalgate.dtls.wire import DecodeError, Reader

DECODERS = {
    "client hello": hellos.decode_client_hello,
    "hello prefix": hellos.decode_prefix,
    "server hello": hellos.decode_server_hello,
    "hello verify request": hellos.decode_hello_verify_request,
    "certificate": lambda data: messages12.decode_certificate(CertificateType.X509, data),
    "raw public key": lambda data: messages12.decode_certificate(CertificateType.RAW_PUBLIC_KEY, data),
    "server key exchange": lambda data: messages12.decode_server_key_exchange(data, psk=False, ephemeral=True),
    "server key exchange psk": lambda data: messages12.decode_server_key_exchange(data, psk=True, ephemeral=True),
    "client key exchange": lambda data: messages12.decode_client_key_exchange(data, psk=True, ephemeral=True),
    "certificate request": messages12.decode_certificate_request,
    "certificate verify": messages12.decode_certificate_verify,
    "ticket": messages12.decode_new_session_ticket,
    "certificate 1.3": messages13.decode_certificate,
    "encrypted extensions": messages13.decode_encrypted_extensions,
    "certificate request 1.3": messages13.decode_certificate_request,
    "ticket 1.3": messages13.decode_new_session_ticket,
    "key update": messages13.decode_key_update,
    "new connection id": messages13.decode_new_connection_id,
    "request connection id": messages13.decode_request_connection_id,
    "ack": messages13.decode_ack,
    "fragments": handshaking.decode,
    "record": lambda data: records.decode(data, 0, 2),
    "session": decode_session,
    "extensions": lambda data: extensions.decode(Reader(data), Place.CLIENT_HELLO),
    "key shares": extensions.decode_key_shares,
    "offered psks": extensions.decode_offered_psks,
    "server name": extensions.decode_server_name,
    "cid": extensions.decode_cid,
    "cookie": extensions.decode_cookie,
}


@pytest.mark.parametrize("name", DECODERS)
@settings(max_examples=150)
@given(data=st.binary(max_size=200))
def test_garbage_is_decoded_or_refused(name, data):
    with contextlib.suppress(HandshakeError):
        DECODERS[name](data)


def conversations():
    """Every datagram of handshakes of every kind."""
    found = []
    for make, target in ((psk_pair, NOBODY_NAMED), (rpk_pair, NOBODY_NAMED), (x509_pair, X509_TARGET)):
        for version in (DTLS_1_2, DTLS_1_3):
            world = Pair(make(), target, client=Parameters(versions=(version,), cid=2))
            world.connect()
            found += [data for _, data in world.datagrams]
    return found


DATAGRAMS = conversations()


def messages(datagram):
    """(type, body) of the unprotected messages of a datagram."""
    at, found = 0, []
    while at < len(datagram) and datagram[at] in records.PLAINTEXT_TYPES:
        record = records.decode(datagram, at, 2)
        if record.type == 22 and not record.epoch:
            found += [(f.type, f.body) for f in handshaking.decode(datagram[record.payload : record.end])]
        at = record.end
    return found


BY_TYPE = {
    1: hellos.decode_client_hello, 2: hellos.decode_server_hello, 3: hellos.decode_hello_verify_request,
    13: messages12.decode_certificate_request, 15: messages12.decode_certificate_verify,
    4: messages12.decode_new_session_ticket,
}  # fmt: skip


def test_real_messages_cut_short_anywhere_are_refused():
    seen = set()
    for datagram in DATAGRAMS:
        for kind, body in messages(datagram):
            if kind not in BY_TYPE:
                continue
            seen.add(kind)
            BY_TYPE[kind](body)
            for cut in range(len(body)):
                try:
                    BY_TYPE[kind](body[:cut])
                except HandshakeError:
                    continue
                # A hello may end where its extensions would begin: nothing else may.
                assert kind in (1, 2)
                assert BY_TYPE[kind](body[:cut]).encode()[cut:] == b""
    assert seen >= {1, 2, 3, 13, 15, 4}


def test_hellos_encode_to_what_they_were():
    for datagram in DATAGRAMS:
        for kind, body in messages(datagram):
            if kind in (1, 2, 3):
                assert BY_TYPE[kind](body).encode() == body


@settings(max_examples=300)
@given(which=st.integers(0, len(DATAGRAMS) - 1), at=st.integers(0, 2000), value=st.integers(0, 255), cut=st.booleans())
def test_a_damaged_datagram_is_decoded_or_refused(which, at, value, cut):
    data = bytearray(DATAGRAMS[which])
    at %= len(data)
    data[at] = value
    damaged = bytes(data[:at]) if cut else bytes(data)
    with contextlib.suppress(HandshakeError):
        messages(damaged)


# Fragments


@given(
    body=st.binary(min_size=1, max_size=200), cuts=st.lists(st.integers(0, 200), max_size=6), order=st.randoms(),
    overlap=st.integers(0, 5),
)  # fmt: skip
def test_fragments_in_any_order_and_overlap_make_the_message(body, cuts, order, overlap):
    edges = sorted({0, len(body), *(cut % len(body) for cut in cuts)})
    pieces = [(max(0, low - overlap), min(len(body), high + overlap)) for low, high in itertools.pairwise(edges)]
    pieces *= 2
    order.shuffle(pieces)
    reassembler = Reassembler(5, largest=1000)
    for low, high in pieces:
        assert reassembler.add(Fragment(11, len(body), 5, low, body[low:high]))
    message = reassembler.take()
    assert (message.type, message.sequence, message.body) == (11, 5, body)
    assert reassembler.take() is None


def test_reassembly_is_bounded():
    reassembler = Reassembler(0, largest=100, ahead=3)
    with pytest.raises(HandshakeError) as error:
        reassembler.add(Fragment(11, 101, 0, 0, b"x"))
    assert error.value.alert is Alert.ILLEGAL_PARAMETER
    assert not reassembler.add(Fragment(11, 10, 4, 0, b"x"))
    assert reassembler.add(Fragment(11, 10, 3, 0, b"x"))
    with pytest.raises(HandshakeError):
        reassembler.add(Fragment(12, 10, 3, 1, b"x"))  # the same message, of another type
    many = Reassembler(0, largest=1000, holes=4)
    kept = [many.add(Fragment(11, 1000, 0, at, b"x")) for at in range(0, 1000, 100)]
    assert kept == [True] * 3 + [False] * 7 or kept.count(False) > 0


@given(sizes=st.lists(st.integers(0, 900), min_size=1, max_size=6), mtu=st.integers(256, 1400), together=st.booleans())
def test_packing_keeps_to_the_mtu_and_loses_nothing(sizes, mtu, together):
    seal = PlainSeal()
    items = [Outgoing(seal, 11, number, bytes([number]) * size) for number, size in enumerate(sizes)]
    reassembler = Reassembler(0, largest=1000, ahead=100)
    for pieces in pack(items, mtu, together=together):
        datagram = b"".join(seal.seal(piece.content_type, piece.content) for piece in pieces)
        assert len(datagram) <= mtu
        for piece in pieces:
            for fragment in handshaking.decode(piece.content):
                assert reassembler.add(fragment)
    for item in items:
        assert reassembler.take().body == item.body


def test_what_is_acknowledged_is_not_sent_again():
    item = Outgoing(PlainSeal(), 11, 0, bytes(100))
    item.acknowledge(10, 20)
    item.acknowledge(15, 40)
    item.acknowledge(90, 100)
    assert item.missing == [(0, 10), (40, 90)]
    item.acknowledge(0, 100)
    assert item.missing == []


# Records


def test_every_form_of_the_unified_header_is_read():
    content = bytes(40)
    for cid in (b"", b"\1", b"\1\2\3\4"):
        for short in (False, True):
            for length in (False, True):
                first = records.unified_first(6, cid=bool(cid), long_sequence=not short, length=length)
                data = bytes((first,)) + cid + (b"\x07" if short else b"\x01\x07")
                data += (40).to_bytes(2, "big") if length else b""
                record = records.decode(data + content, 0, len(cid))
                assert (record.cid or b"", record.epoch, record.sequence) == (cid, 2, 7 if short else 0x107)
                assert record.end == len(data) + 40
                assert record.payload == len(data)


@given(expected=st.integers(0, 1 << 40), distance=st.integers(-100, 127))
def test_numbers_are_reconstructed_from_their_low_bits(expected, distance):
    number = expected + distance
    if number < 0:
        return
    assert reconstruct(number & 0xFF, 8, expected) == number
    assert reconstruct(number & 0xFFFF, 16, expected) == number


def ends(version, suite, *, cid=b"", pad=1, short=0):
    row = SUITES[suite]
    if version == DTLS_1_2:
        key, salt = bytes(row.aead.key), bytes(row.aead.salt)
        return Seal12(row, key, salt, cid, pad=pad), Open12(row, key, salt, cid)
    keys = traffic_keys(row, bytes(32))
    return Seal13(row, keys, 3, cid, pad=pad, short=short), Open13(row, keys, 3)


FORMS = [
    (version, value, cid)
    for value, suite in SUITES.items()
    for version in [suite.version]
    for cid in (b"", b"\1\2")
    if value in (0x1301, 0x1303, 0x1305, 0xC0A8, 0xCCAB, 0x00A8)
]


def opened(version, opener, data, cid):
    if version == DTLS_1_2:
        payload = 13 + len(cid)
        return opener.open(data, 0, payload, len(data), int.from_bytes(data[3:11], "big"))
    record = records.decode(data, 0, len(cid))
    return opener.open(data, 0, record.payload, record.end)[:2]


@pytest.mark.parametrize(("version", "suite", "cid"), FORMS)
def test_any_flipped_bit_is_found_and_any_replay_refused(version, suite, cid):
    seal, opener = ends(version, suite, cid=cid)
    record = seal.seal(23, b"vital sign", last=False)
    for at in range(len(record)):
        for bit in range(8):
            damaged = bytearray(record)
            damaged[at] ^= 1 << bit
            with pytest.raises((Discard, DecodeError)):
                opened_damaged(version, opener, bytes(damaged), cid)
    opener.failures = 0
    assert opened(version, opener, record, cid) == (23, b"vital sign")
    with pytest.raises(Discard) as replay:
        opened(version, opener, record, cid)
    assert replay.value.reason == "replay"


def opened_damaged(version, opener, data, cid):
    """As an association would: lengths and forms are looked at first."""
    opener.failures = 0
    record = records.decode(data, 0, len(cid))
    if version == DTLS_1_2 and (
        record.unified or record.version != DTLS_1_2 or record.epoch != 1 or record.end != len(data)
    ):
        raise DecodeError("not ours")
    if version == DTLS_1_3 and (
        not record.unified or record.epoch != 3 or bool(record.cid) != bool(cid) or record.end != len(data)
        or (record.cid or b"") != cid
    ):  # fmt: skip
        raise DecodeError("not ours")
    return opened(version, opener, data, cid)


@pytest.mark.parametrize("pad", [1, 16, 64])
@pytest.mark.parametrize(("version", "suite", "cid"), FORMS)
def test_layouts_say_what_records_are(version, suite, cid, pad):
    seal, opener = ends(version, suite, cid=cid, pad=pad)
    for size in (0, 1, 5, 6, 7, 8, 15, 16, 100):
        for last in (True, False):
            layout = seal.layout(size, last=last)
            record = seal.seal(23, bytes(size), last=last)
            assert layout.total == len(record)
            assert opened(version, opener, record, cid) == (23, bytes(size))


def test_short_numbers_are_used_only_where_they_cannot_be_mistaken():
    seal, opener = ends(DTLS_1_3, 0x1301, short=3)
    short = []
    for number in range(400):
        record = seal.seal(23, b"x")
        short.append(not record[0] & 8)
        assert opened(DTLS_1_3, opener, record, b"") == (23, b"x"), number
    assert all(short[:128])
    assert short[128:].count(False) == 68


def test_many_records_lost_in_a_row_are_survived():
    seal, opener = ends(DTLS_1_3, 0x1301, short=3)
    for _ in range(1000):
        lost = seal.seal(23, b"x")
    assert lost
    read = 0
    for _ in range(8):
        try:
            opened(DTLS_1_3, opener, seal.seal(23, b"x"), b"")
            read += 1
        except Discard:
            pass
    assert read >= 4


# Tickets


def test_tickets_open_for_two_periods_and_no_longer():
    session = Session(DTLS_1_2, 0xC0A8, bytes(48), Identity("bed-12", Mode.PSK), b"client1", 1.5, 99.0, 7)
    assert decode_session(session.encode()) == session
    keys = TicketKeys(lambda size: bytes(range(size)), 10.0)
    counter = iter(range(1, 1000))
    keys = TicketKeys(lambda size: next(counter).to_bytes(size, "big"), 10.0)
    ticket = keys.seal(session, 0.0)
    assert keys.open(ticket, 9.0) == session
    assert keys.open(ticket, 15.0) == session
    assert keys.open(ticket, 25.0) is None
    assert keys.open(b"", 25.0) is None
    ticket = keys.seal(session, 25.0)
    for at in range(len(ticket)):
        assert keys.open(ticket[:at] + bytes((ticket[at] ^ 1,)) + ticket[at + 1 :], 25.0) is None
    assert bytes(48).hex() not in repr(session)


def test_parameters_are_checked():
    for wrong in ({"versions": ()}, {"suites": (1,)}, {"cid": 33}, {"mtu": 100}):
        with pytest.raises(ValueError):
            dataclasses.replace(Parameters(), **wrong)

"""ESP: published packets to the byte, every suite round trip, tampering, replay, extended numbers, lifetimes."""

import dataclasses
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ipsec_packets import A4, B4, IN4, IN6, packet, parameters

from vitalgate.ip import ipv4, ipv6
from vitalgate.ip.packet import FRAGMENT, HOP_BY_HOP, UDP
from vitalgate.ipsec.algorithms import SuiteError, all_suites, suite
from vitalgate.ipsec.association import DontFragment, Expiry, Limits, Mode
from vitalgate.ipsec.esp import EspInbound, EspOutbound
from vitalgate.ipsec.ledger import Ledger
from vitalgate.ipsec.protection import opener, sealer
from vitalgate.ipsec.refusal import Drop, Refused
from vitalgate.ipsec.replay import ReplayWindow

KEY = bytes(range(16))
CLEAR = bytes.fromhex(
    "60000000001e114020010db800000000000000000000100120010db800000000000000000000200216331634001e3cdb44017d34aabbccdd"
    "b6766974616c73ff68723d303732"
)
T2 = "0000100500000102b01dc7f0558f735a70e377b92a1728873c94e49948f8308855328269b3c287e63b01e60c5845da1385be3858c4d86157"
T3 = "00001005000001028ee5e5272fa691c92f2494c9f83888da4403500ad920df2d65c7724d0acf2856e266bfd1d373dc16"
T3_ESN = "000010050000010299a0a67ba9f57c102dd1483215f81e042c7089a02181f85e1595795c9bdecdeda9f07027a2815f5f"
T3_PAD = "00001005000001028ee5e5272fa5901d2f2494c9f83888da4403500ad920df2d65c7724d0afc2956fa3459124d72c297"
PADDED = bytes.fromhex(CLEAR[:40].hex().replace("001e1140", "001d1140") + "16331634001d3d0f") + CLEAR[48:-1]


def pair(chosen, version=4, mode=Mode.TUNNEL, **changes):
    given = parameters(chosen, version, mode, **changes)
    ledger = Ledger()
    sender = EspOutbound(given, allow_legacy=True, ledger=ledger, randomness=random.Random(5).randbytes)
    return sender, EspInbound(given, allow_legacy=True, ledger=ledger), ledger


@pytest.mark.parametrize(
    ("name", "salt", "start", "clear", "esn", "expected"),
    [
        ("aes-gcm-16-iiv", "a0a1a2a3", 0x101, CLEAR, False, T2),
        ("aes-ccm-8-iiv", "a0a1a2", 0x101, CLEAR, False, T3),
        ("aes-ccm-8-iiv", "a0a1a2", 0x1_0000_0101, CLEAR, True, T3_ESN),
        ("aes-ccm-8-iiv", "a0a1a2", 0x101, PADDED, False, T3_PAD),
    ],
)
def test_published_packets(name, salt, start, clear, esn, expected):
    given = parameters(name, 6, Mode.TRANSPORT, key=KEY + bytes.fromhex(salt), esn=esn)
    sealed = EspOutbound(given, start=start).protect(clear)
    assert sealed[40:].hex() == expected
    receiver = EspInbound(given)
    if esn:
        receiver.window.highest = start
    assert receiver.unprotect(sealed) == clear


def test_packets_with_an_explicit_iv():
    # CCM-8 with the IV 0001..07: the counter gives IVs, so this one is opened.
    sealed = bytes.fromhex(
        "0000100500000102000102030405060746333dda21d26edc22bbd9ec4c1b51c377cba79ab615522df0e2ff3d93cfbd5ad93d19e3e8f1525b"
    )
    given = parameters("aes-ccm-8", 6, Mode.TRANSPORT, key=KEY + bytes.fromhex("a0a1a2"))
    assert EspInbound(given).open(sealed) == (CLEAR[40:], UDP)
    # RFC 7634 appendix A.
    key = bytes(range(0x80, 0xA0)) + bytes.fromhex("a0a1a2a3")
    sealed = bytes.fromhex(
        "0102030400000005101112131415161724039428b97f417e3c13753a4f05087b67c352e6a7fab1b982d466ef407ae5c614ee8099d52844eb"
        "61aa95dfab4c02f72aa71e7c4c4f64c9befe2facc638e8f3cbec163fac469b502773f6fb94e664da9165b82829f641e076aaa8266b7fb0f7"
        "b11b369907e1ad43"
    )
    given = parameters("chacha20-poly1305", key=key, spi=0x01020304)
    payload, next_header = EspInbound(given).open(sealed)
    assert next_header == 4
    assert payload[:20].hex() == "45000054a6f200004001e778c6336405c0000205"


@pytest.mark.parametrize("chosen", all_suites(), ids=lambda chosen: chosen.name)
@pytest.mark.parametrize("mode", list(Mode))
@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("esn", [False, True])
def test_what_is_protected_comes_back_at_every_size(chosen, mode, version, esn):
    sender, receiver, ledger = pair(chosen, version, mode, esn=esn)
    slow = chosen.encryption.name == "rc5"
    sizes = (0, 1, 7, 8, 100) if slow else (*range(36), 511, 512, 1400, 1499)
    for size in sizes:
        clear = packet(version, size)
        sealed = sender.protect(clear)
        assert receiver.unprotect(sealed) == clear
        out, back = ledger.rows[-2:]
        assert dataclasses.replace(back.layout) == out.layout
        assert out.layout.total == len(sealed)
        assert len(sealed) - len(clear) <= sender.overhead


@given(
    chosen=st.sampled_from([each for each in all_suites() if each.encryption.name != "rc5"]),
    mode=st.sampled_from(list(Mode)),
    outer=st.sampled_from([4, 6]),
    inner=st.sampled_from([4, 6]),
    size=st.integers(0, 1500),
    encapsulated=st.booleans(),
    esn=st.booleans(),
    tfc=st.sampled_from([0, 64, 900]),
)
@settings(max_examples=200)
def test_round_trip_and_ledger(chosen, mode, outer, inner, size, encapsulated, esn, tfc):
    tunnel = mode is Mode.TUNNEL
    ports = (4500, 4500) if encapsulated else None
    sender, receiver, ledger = pair(chosen, outer, mode, esn=esn, encapsulation=ports, tfc=tfc if tunnel else 0)
    clear = packet(inner, size, ends=IN4 if inner == 4 else IN6) if tunnel else packet(outer, size)
    assert receiver.unprotect(sender.protect(clear)) == clear
    sealed = sender.datagram(clear)
    opened = receiver.from_datagram(sealed)
    assert opened == clear
    assert [row.layout.ip for row in ledger.rows[-2:]] == [0, 0]
    assert ledger.rows[-1].layout == ledger.rows[-2].layout


@pytest.mark.parametrize("chosen", all_suites(), ids=lambda chosen: chosen.name)
def test_each_byte_flipped_is_refused(chosen):
    for esn in (False, True):
        sender, receiver, _ = pair(chosen, esn=esn)
        sealed = sender.protect(packet(4, 30))
        for at in range(20, len(sealed)):
            changed = bytearray(sealed)
            changed[at] ^= 0x40
            with pytest.raises(Refused):
                receiver.unprotect(bytes(changed))
        assert receiver.window.highest == 0, "nothing unauthenticated moves the window"
        assert receiver.unprotect(sealed) == packet(4, 30)
        with pytest.raises(Refused, match="replay"):
            receiver.unprotect(sealed)
        for size in range(len(sealed)):
            with pytest.raises(Refused):
                receiver.unprotect(sealed[:size])


@given(st.binary(max_size=120))
def test_any_bytes_are_refused(data):
    for version in (4, 6):
        for ports in (None, (4500, 4500)):
            _, receiver, _ = pair("aes-gcm-16", version, encapsulation=ports)
            for call in (receiver.unprotect, receiver.from_datagram):
                with pytest.raises(Refused):
                    call(data)


def test_extended_numbers_cross_the_edge():
    for name in ("aes-gcm-16", "aes-ccm-8-iiv", "aes-gmac", "aes-cbc+hmac-sha2-256-128", "aes-ctr+aes-xcbc-96"):
        given = parameters(name, esn=True)
        sender = EspOutbound(given, start=0xFFFFFFF0)
        receiver = EspInbound(given)
        receiver.window.highest = 0xFFFFFFF0
        clear = packet(4, 50)
        sealed = [sender.protect(clear) for _ in range(40)]
        assert sealed[14][24:28] == b"\xff\xff\xff\xff"
        assert sealed[15][24:28] == bytes(4)
        order = [*range(0, 40, 2), *range(1, 40, 2)]
        assert [receiver.unprotect(sealed[at]) for at in order] == [clear] * 40
        assert receiver.window.highest == 0x1_0000_0018
        for each in sealed:
            with pytest.raises(Refused, match="replay"):
                receiver.unprotect(each)


def test_without_extended_numbers_the_last_is_the_last():
    sender = EspOutbound(parameters("aes-gcm-16"), start=0xFFFFFFFE)
    sender.protect(packet(4, 10))
    for _ in range(2):
        with pytest.raises(Refused, match="overflow"):
            sender.protect(packet(4, 10))
    again = EspOutbound(parameters("aes-cbc+hmac-sha2-256-128", window=0, rollover=True), start=0xFFFFFFFE)
    assert [again.protect(packet(4, 10))[24:28].hex() for _ in range(3)] == ["ffffffff", "00000001", "00000002"]
    for wrong in ({"window": 64}, {"window": 0, "esn": True}):
        with pytest.raises(SuiteError):
            parameters("aes-cbc+hmac-sha2-256-128", rollover=True, **wrong)
    with pytest.raises(SuiteError):
        parameters("aes-gcm-16", rollover=True, window=0)


@given(
    st.sampled_from([32, 64, 100, 4096]),
    st.booleans(),
    st.lists(st.one_of(st.integers(-200, 200), st.integers(-5000, 5000)), min_size=1, max_size=60),
    st.integers(1, 1 << 34),
)
def test_the_window_against_a_set(size, esn, steps, start):
    """The model: a number is fresh when it was never seen and is not older than the window."""
    if not esn:
        start &= 0xFFFFFF
    window = ReplayWindow(size, esn=esn)
    window.highest = highest = max(start, 1)
    seen = {highest}
    window.seen = 1
    at = highest
    for step in steps:
        at = max(at + step, 1)
        if not esn:
            at = min(at, 0xFFFFFFFF)
        found = window.number(at & 0xFFFFFFFF)
        fresh = at not in seen and at > highest - size
        assert (found == at) is fresh, "an old number may be taken for one of the next epoch, which has another ICV"
        if fresh:
            window.mark(at)
            seen.add(at)
            highest = max(highest, at)
        assert window.highest == highest


def test_window_sizes():
    for size in (1, 31, 4097):
        with pytest.raises(ValueError):
            ReplayWindow(size)
    none = ReplayWindow(0)
    none.mark(7)
    assert none.number(7) == 7
    assert none.number(0) is None


def test_numbers_are_reserved_before_they_are_used():
    reserved = []
    sender = EspOutbound(parameters("aes-gcm-16"), start=10, reserve=lambda number: reserved.append(number) or True)
    for _ in range(2000):
        sender.protect(packet(4, 10))
        assert sender.sequence <= reserved[-1]
    assert 2 <= len(reserved) <= 3
    failing = EspOutbound(parameters("aes-gcm-16"), reserve=lambda number: False)
    for _ in range(2):
        with pytest.raises(Refused, match="reservation"):
            failing.protect(packet(4, 10))


@pytest.mark.parametrize("what", ["packets", "octets", "seconds"])
def test_lifetimes(what):
    soft, hard = (5, 10) if what == "packets" else (500, 1000) if what == "octets" else (60.0, 90.0)
    given = parameters("aes-gcm-16", soft=Limits(**{what: soft}), hard=Limits(**{what: hard}))
    clear = packet(4, 80)
    sender, receiver = EspOutbound(given, now=100.0), EspInbound(given, now=100.0)
    heard = []
    for each in (sender, receiver):
        each.on_expiry = lambda association, expiry: heard.append((type(association).__name__, expiry))
    if what == "seconds":
        assert sender.next_timeout() == 160.0
        sender.handle_timeout(159.0)
        assert heard == []
        sender.handle_timeout(160.0)
        assert sender.next_timeout() == 190.0
        sender.protect(clear)
        sender.handle_timeout(190.0)
        assert heard == [("EspOutbound", Expiry.SOFT), ("EspOutbound", Expiry.HARD)]
    else:
        for number in range(10):
            sealed = sender.protect(clear)
            assert heard.count(("EspOutbound", Expiry.SOFT)) == (number >= 5)
            assert receiver.unprotect(sealed) == clear
        with pytest.raises(Refused, match="expired"):
            sender.protect(clear)
        assert [expiry for name, expiry in heard if name == "EspOutbound"] == [Expiry.SOFT, Expiry.HARD]
        assert ("EspInbound", Expiry.SOFT) in heard
    with pytest.raises(Refused, match="expired"):
        sender.protect(clear)


def test_dummies_and_size_hiding():
    sender, receiver, _ = pair("aes-gcm-16", tfc=200)
    assert receiver.from_datagram(sender.dummy(77)) is None
    sealed = {len(sender.protect(packet(4, size, ends=IN4))) for size in (0, 1, 50, 180)}
    assert len(sealed) == 1


def test_wrong_padding_and_what_is_no_packet_inside():
    given = parameters("aes-gcm-16")
    seal = sealer(given.suite, given.key, given.spi, esn=False, randomness=random.randbytes)
    receiver = EspInbound(given)
    inner = packet(4, 20)
    cases = [
        (inner + b"\x01\x02\x02\x04", None),
        (inner + b"\x02\x01\x02\x04", Drop.PADDING),
        (inner + b"\x01\x02\xff\x04", Drop.PADDING),
        (b"\x01\x02\x03\x04", Drop.PADDING),
        (inner + b"\x01\x02\x02\x29", Drop.INNER),
        (inner + b"\x01\x02\x02\x11", Drop.INNER),
        (inner[:18] + b"\x00\x04", Drop.INNER),
        (b"\x4f" + inner[1:22] + b"\x00\x04", Drop.INNER),
    ]
    for number, (plain, reason) in enumerate(cases, 1):
        sealed = seal(number, plain)
        if reason is None:
            assert receiver.from_datagram(sealed) == inner
        else:
            with pytest.raises(Refused, match=reason.value):
                receiver.from_datagram(sealed)


def test_fragments_are_not_protected_in_transport_mode():
    for version in (4, 6):
        sender, _, _ = pair("aes-gcm-16", version, Mode.TRANSPORT)
        if version == 4:
            piece = packet(4, 16, more_fragments=True)
        else:
            piece = ipv6.encode(ipv6.fragments(ipv6.decode(packet(6, 500)), 200, 1)[0])
            assert piece[6] == FRAGMENT
        with pytest.raises(Refused, match="fragment"):
            sender.protect(piece)
        assert sender.sequence == 0


def test_ipv6_extension_headers_stay_before_esp():
    hop = bytes([60, 0, 1, 4, 0, 0, 0, 0])
    options = bytes([43, 0, 1, 4, 0, 0, 0, 0])
    routing = bytes([60, 2, 4, 0, 0, 0, 0, 0]) + bytes(16)
    last = bytes([UDP, 0, 1, 4, 0, 0, 0, 0])
    clear = packet(6, 0, HOP_BY_HOP)[:40] + hop + options + routing + last + bytes(9)
    clear = clear[:4] + (len(clear) - 40).to_bytes(2, "big") + clear[6:]
    sender, receiver, ledger = pair("aes-gcm-16", 6, Mode.TRANSPORT)
    sealed = sender.protect(clear)
    assert sealed[40:56] == hop + options
    assert sealed[56] == 50, "destination options behind the routing header go inside"
    assert ledger.rows[-1].layout.ip == 80
    assert receiver.unprotect(sealed) == clear


@pytest.mark.parametrize("rule", list(DontFragment))
def test_the_df_bit(rule):
    sender, _, _ = pair("aes-gcm-16", fragment=rule)
    for inner_df in (False, True):
        outer = ipv4.decode(sender.protect(packet(4, 20, dont_fragment=inner_df)))
        expected = {DontFragment.COPY: inner_df, DontFragment.SET: True, DontFragment.CLEAR: False}[rule]
        assert outer.dont_fragment is expected


def test_congestion_marks_follow_rfc_6040():
    # Rows of figure 4: what arrives inside, what arrives outside, what goes on (None: dropped).
    table = {
        (0, 0): 0, (0, 2): 0, (0, 1): 0, (0, 3): None,
        (2, 0): 2, (2, 2): 2, (2, 1): 1, (2, 3): 3,
        (1, 0): 1, (1, 2): 1, (1, 1): 1, (1, 3): 3,
        (3, 0): 3, (3, 2): 3, (3, 1): 3, (3, 3): 3,
    }  # fmt: skip
    for version in (4, 6):
        for (inner, outer), expected in table.items():
            sender, receiver, _ = pair("aes-gcm-16")
            field = "tos" if version == 4 else "traffic_class"
            sealed = sender.protect(packet(version, 20, ends=IN4 if version == 4 else IN6, **{field: 0xB8 | inner}))
            assert sealed[1] == 0xB8 | inner, "DSCP and ECN are copied outside"
            marked = ipv4.encode(dataclasses.replace(ipv4.decode(sealed), tos=0xB8 | outer))
            if expected is None:
                with pytest.raises(Refused, match="ecn"):
                    receiver.unprotect(marked)
                continue
            opened = receiver.unprotect(marked)
            found = ipv4.decode(opened).tos if version == 4 else ipv6.decode(opened).traffic_class
            assert found == 0xB8 | expected
    plain, _, _ = pair("aes-gcm-16", ecn=False, dscp=10)
    assert plain.protect(packet(4, 20, tos=0xB9))[1] == 10 << 2


def test_outer_headers_are_whole():
    for version in (4, 6):
        for ports in (None, (4500, 40000)):
            sender, _, _ = pair("aes-gcm-16", version, encapsulation=ports)
            sealed = sender.protect(packet(4, 100, ends=IN4))
            outer = ipv4.decode(sealed) if version == 4 else ipv6.decode(sealed)
            assert (outer.protocol if version == 4 else outer.next_header) == (50 if ports is None else 17)


@pytest.mark.parametrize(
    ("name", "transport", "tunnel"),
    [
        ("3des+hmac-sha1-96", 124, 164),
        ("aes-cbc+hmac-sha1-96", 140, 172),
        ("aes-cbc+hmac-sha2-256-128", 144, 176),
        ("aes-gcm-16", 124, 164),
        ("chacha20-poly1305", 124, 164),
        ("aes-ccm-8", 116, 156),
        ("aes-gcm-16-iiv", 116, 156),
        ("aes-ccm-8-iiv", 108, 148),
    ],
)
def test_sizes_of_a_coap_message_of_40_bytes_over_ipv6(name, transport, tunnel):
    for mode, expected in ((Mode.TRANSPORT, transport), (Mode.TUNNEL, tunnel)):
        assert len(pair(name, 6, mode)[0].protect(packet(6, 48))) == expected


def test_wrong_parameters_are_refused():
    for wrong in (
        {"spi": 0}, {"spi": 255}, {"spi": 1 << 32}, {"key": b""}, {"window": 31}, {"protocol": 6}, {"protocol": 51},
        {"source": b"abc"}, {"source": bytes(16)}, {"dscp": 64}, {"mode": Mode.TRANSPORT, "tfc": 10},
    ):  # fmt: skip
        with pytest.raises(SuiteError):
            parameters("aes-gcm-16", **wrong)
    with pytest.raises(SuiteError):
        opener(suite("hmac-sha1-96"), bytes(20), 256, esn=False, randomness=random.randbytes)
    assert parameters("aes-gcm-16").source == A4
    assert parameters("aes-gcm-16").destination == B4


@pytest.mark.parametrize("chosen", ["aes-gcm-16", "aes-gcm-8", "aes-ccm-8-iiv", "chacha20-poly1305"])
@pytest.mark.parametrize("outer", [4, 6])
def test_the_straight_way_is_the_general_way(chosen, outer):
    """With a ledger SAs go the general way, without one the straight way where there is one: same bytes, same state."""
    given = parameters(chosen, outer)
    general, straight = EspOutbound(given, ledger=Ledger()), EspOutbound(given)
    assert general.protect == general.protect_generally
    assert straight.protect != straight.protect_generally
    readers = EspInbound(given, ledger=Ledger()), EspInbound(given)
    source = random.Random(7)
    sealed = []
    for number in range(300):
        version = source.choice((4, 6))
        field = {"tos" if version == 4 else "traffic_class": source.randrange(256)}
        if version == 4 and number % 2:
            field["dont_fragment"] = True
        clear = packet(version, source.randrange(1400), ends=IN4 if version == 4 else IN6, **field)
        one, two = general.protect(clear), straight.protect(clear)
        assert one == two
        sealed.append(one)
    source.shuffle(sealed)
    for each in sealed:
        changed = bytearray(each)
        if source.random() < 0.4:
            changed[source.randrange(len(changed))] ^= 1 << source.randrange(8)
        answers = []
        for reader in readers:
            for data in (bytes(changed), each, each[:60]):
                try:
                    answers.append(reader.unprotect(data))
                except Refused as refused:
                    answers.append(refused.reason)
        assert answers[:3] == answers[3:]
    for one, two in ((general, straight), readers):
        assert (one.packets, one.octets) == (two.packets, two.octets)
    assert readers[0].window.highest == readers[1].window.highest
    assert readers[0].window.seen == readers[1].window.seen

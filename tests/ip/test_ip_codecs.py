"""The codecs of IPv4, IPv6, UDP and ICMP: known packets, round trips, and a value or `PacketError` for any bytes."""

import ipaddress
import struct

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from vitalgate.ip import icmp, ipv4, ipv6, udp
from vitalgate.ip.packet import AH, DESTINATION_OPTIONS, ESP, FRAGMENT, HOP_BY_HOP, UDP, PacketError, checksum
from vitalgate.ip.reassembly import MAX_FRAGMENTS, Reassembler

# An echo request of 84 bytes (RFC 7634 appendix A) and a CoAP request over IPv6 of 70, both seen on real networks.
PING = bytes.fromhex(
    "45000054a6f200004001e778c6336405c000020508005b7a3a080000553bec100007362708090a0b0c0d0e0f101112131415161718191a1b"
    "1c1d1e1f202122232425262728292a2b2c2d2e2f3031323334353637"
)
COAP6 = bytes.fromhex(
    "60000000001e114020010db800000000000000000000100120010db800000000000000000000200216331634001e3cdb44017d34aabbccdd"
    "b6766974616c73ff68723d303732"
)
A4, B4 = ipaddress.ip_address("192.0.2.1").packed, ipaddress.ip_address("198.51.100.7").packed
A6, B6 = ipaddress.ip_address("2001:db8::1").packed, ipaddress.ip_address("2001:db8:1::9").packed
addresses4 = st.binary(min_size=4, max_size=4)
addresses6 = st.binary(min_size=16, max_size=16)
octet = st.integers(0, 255)


def words(data: bytes) -> int:
    """The checksum as RFC 1071 section 4.1 computes it, a word at a time."""
    total = sum(struct.unpack(f"!{(len(data) + 1) // 2}H", data + bytes(len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


@given(st.binary(max_size=70))
@example(b"")
@example(b"\0\0\0")
@example(b"\xff\xff")
@example(b"\xff\xfe\0\1")
def test_the_checksum_is_that_of_the_definition(data):
    assert checksum(data) == words(data)


def test_known_packets():
    packet = ipv4.decode(PING)
    assert (packet.source, packet.destination) == (bytes([198, 51, 100, 5]), bytes([192, 0, 2, 5]))
    assert (packet.protocol, packet.ttl, packet.identification) == (1, 64, 0xA6F2)
    message = icmp.decode(packet.payload, packet.source, packet.destination)
    assert (message.type, message.code, message.rest) == (8, 0, 0x3A080000)
    assert ipv4.encode(packet) == PING
    assert icmp.encode(message, packet.source, packet.destination) == packet.payload

    six = ipv6.decode(COAP6)
    assert (six.next_header, six.hop_limit, len(six.payload)) == (UDP, 64, 30)
    datagram = udp.decode(six.payload, six.source, six.destination)
    assert (datagram.source, datagram.destination) == (5683, 5684)
    assert datagram.payload.endswith(b"hr=072")
    assert ipv6.encode(six) == COAP6
    assert udp.encode(datagram, six.source, six.destination) == six.payload


@given(
    st.builds(
        ipv4.IPv4,
        addresses4,
        addresses4,
        octet,
        st.binary(max_size=60),
        octet,
        st.integers(0, 65535),
        st.booleans(),
        st.booleans(),
        st.integers(0, 8000).map(lambda n: n * 8),
        octet,
        st.sampled_from([b"", b"\x01\x01\x01\x00", b"\x94\x04\x00\x00", b"\x07\x07\x04\x00\x00\x00\x00\x00"]),
    )
)
def test_ipv4_round_trip(packet):
    assert ipv4.decode(ipv4.encode(packet)) == packet


@given(
    st.builds(
        ipv6.IPv6, addresses6, addresses6, octet, st.binary(max_size=60), octet, st.integers(0, (1 << 20) - 1), octet
    )
)
def test_ipv6_round_trip(packet):
    assert ipv6.decode(ipv6.encode(packet)) == packet


def offered(data: bytes) -> None:
    for decode in (
        ipv4.decode,
        ipv6.decode,
        lambda d: udp.decode(d, A4, B4),
        lambda d: udp.decode(d, A6, B6),
        lambda d: icmp.decode(d, A4, B4),
        lambda d: icmp.decode(d, A6, B6),
        lambda d: Reassembler().add(d, 0.0),
    ):
        try:
            value = decode(data)
        except PacketError:
            continue
        if decode is ipv6.decode:
            try:
                found = ipv6.chain(data)
            except PacketError:
                continue
            assert found.start <= len(data)
            for extension in found.extensions:
                if extension.kind in (HOP_BY_HOP, DESTINATION_OPTIONS):
                    try:
                        ranges = ipv6.option_ranges(data, extension)
                    except PacketError:
                        continue
                    assert all(start <= end <= extension.end for _, start, end in ranges)
        assert value is None or value


@given(st.binary(max_size=120))
def test_any_bytes(data):
    offered(data)


@given(st.sampled_from([PING, COAP6]), st.integers(0, 90), octet)
def test_real_packets_changed_and_cut(packet, at, value):
    changed = bytearray(packet)
    changed[at % len(packet)] = value
    offered(bytes(changed))
    offered(packet[: at % len(packet)])


@given(st.binary(max_size=60), st.sampled_from([HOP_BY_HOP, 43, FRAGMENT, AH, 60, 135]))
def test_any_extension_headers(data, kind):
    offered(ipv6.encode(ipv6.IPv6(A6, B6, kind, data)))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({0: 0x65}, "version"),
        ({0: 0x44}, "length"),
        ({0: 0x4F}, "checksum"),
        ({3: 0x53}, "length"),
        ({6: 0x80}, "checksum"),
        ({10: 0}, "checksum"),
    ],
)
def test_wrong_ipv4_headers_are_named(change, reason):
    data = bytearray(PING)
    for at, value in change.items():
        data[at] = value
    with pytest.raises(PacketError, match=reason):
        ipv4.decode(bytes(data))


def test_options_that_do_not_end_are_refused():
    for options in (b"\x07\x05\x00\x00", b"\x07\x01\x00\x00", b"\x01\x01\x01\x07"):
        with pytest.raises(PacketError, match="option"):
            ipv4.option_ranges(options)


def test_udp_without_a_checksum_is_for_ipv4_alone():
    bare = struct.pack("!HHHH", 1, 2, 8, 0)
    assert udp.decode(bare, A4, B4) == udp.Udp(1, 2, b"")
    with pytest.raises(PacketError, match="checksum"):
        udp.decode(bare, A6, B6)


def test_extension_headers_are_walked():
    # Hop-by-hop (router alert, PadN 0), destination options (PadN 4), AH of 24 bytes, ESP.
    payload = bytes.fromhex("3c0005020000 0100 33 00 010400000000") + bytes.fromhex("32 04") + bytes(22) + bytes(8)
    data = ipv6.encode(ipv6.IPv6(A6, B6, HOP_BY_HOP, payload))
    found = ipv6.chain(data)
    assert [(each.kind, each.start, each.end) for each in found.extensions] == [(0, 40, 48), (60, 48, 56), (51, 56, 80)]
    assert (found.names, found.upper_name, found.upper, found.start) == ((6, 40, 48), 56, ESP, 80)
    assert ipv6.option_ranges(data, found.extensions[0]) == [(5, 44, 46), (1, 48, 48)]


def test_too_many_extension_headers_are_refused():
    header = bytes([DESTINATION_OPTIONS, 0, 1, 4, 0, 0, 0, 0])
    with pytest.raises(PacketError, match="extensions"):
        ipv6.chain(ipv6.encode(ipv6.IPv6(A6, B6, DESTINATION_OPTIONS, header * 17)))


def test_errors_and_their_mtu():
    needed = icmp.Icmp(3, 4, 1280, PING[:28])
    assert icmp.too_big(icmp.decode(icmp.encode(needed, A4, B4), A4, B4), 4) == 1280
    big = icmp.Icmp(2, 0, 1400, COAP6[:48])
    assert icmp.too_big(icmp.decode(icmp.encode(big, A6, B6), A6, B6), 6) == 1400
    assert icmp.too_big(icmp.Icmp(3, 1, 1280, b""), 4) is None
    assert icmp.is_error(4, 3)
    assert not icmp.is_error(4, 8)
    assert icmp.is_error(6, 4)
    assert not icmp.is_error(6, 128)


@given(st.binary(min_size=1, max_size=400), st.integers(68, 200), st.permutations(range(60)), st.booleans())
def test_ipv4_fragments_come_together_in_any_order(payload, mtu, order, options):
    packet = ipv4.IPv4(
        A4, B4, UDP, payload, identification=7, options=b"\x94\x04\0\0\x07\x03\x04\0" if options else b""
    )
    pieces = ipv4.fragments(packet, mtu)
    encoded = [ipv4.encode(piece) for piece in pieces]
    assert all(len(each) <= mtu for each in encoded)
    if options:
        assert all(piece.options == b"\x94\x04\0\0" for piece in pieces[1:])
    reassembler = Reassembler()
    made = [reassembler.add(encoded[at], 0.0) for at in order if at < len(encoded)]
    assert made[-1] == ipv4.encode(packet)
    assert made[:-1] == [None] * (len(encoded) - 1)
    assert len(reassembler) == 0


@given(st.binary(min_size=1, max_size=400), st.integers(80, 200), st.permutations(range(60)))
def test_ipv6_fragments_come_together_in_any_order(payload, mtu, order):
    packet = ipv6.IPv6(A6, B6, HOP_BY_HOP, bytes([UDP, 0, 1, 4, 0, 0, 0, 0]) + payload)
    encoded = [ipv6.encode(piece) for piece in ipv6.fragments(packet, mtu, 99)]
    assert all(len(each) <= mtu for each in encoded)
    reassembler = Reassembler()
    made = [reassembler.add(encoded[at], 0.0) for at in order if at < len(encoded)]
    assert made[-1] == ipv6.encode(packet)


def test_overlaps_drop_the_datagram():
    pieces = [ipv4.encode(each) for each in ipv4.fragments(ipv4.IPv4(A4, B4, UDP, bytes(100), identification=3), 68)]
    wrong = ipv4.encode(ipv4.IPv4(A4, B4, UDP, bytes(24), identification=3, more_fragments=True, offset=40))
    reassembler = Reassembler()
    assert reassembler.add(pieces[0], 0.0) is None
    assert reassembler.add(pieces[0], 0.0) is None, "the same again is no overlap"
    for each in (wrong, *pieces[1:]):
        with pytest.raises(PacketError, match="overlap"):
            reassembler.add(each, 1.0)
    assert reassembler.next_timeout() == 60.0
    assert reassembler.handle_timeout(60.0) == 1
    assert [reassembler.add(each, 61.0) for each in pieces][-1] is not None


def test_reassembly_is_bounded():
    reassembler = Reassembler(datagrams=4)
    for number in range(20):
        packet = ipv4.IPv4(A4, B4, UDP, bytes(8), identification=number, more_fragments=True)
        reassembler.add(ipv4.encode(packet), 0.0)
    assert len(reassembler) == 4
    with pytest.raises(PacketError):
        for at in range(MAX_FRAGMENTS + 1):
            packet = ipv4.IPv4(A4, B4, UDP, bytes(8), identification=99, more_fragments=True, offset=at * 16)
            reassembler.add(ipv4.encode(packet), 0.0)


def test_what_may_not_be_cut_is_not():
    with pytest.raises(PacketError, match="too_big"):
        ipv4.fragments(ipv4.IPv4(A4, B4, UDP, bytes(100), dont_fragment=True), 68)
    with pytest.raises(PacketError, match="mtu"):
        ipv4.fragments(ipv4.IPv4(A4, B4, UDP, bytes(100)), 27)
    piece = ipv6.fragments(ipv6.IPv6(A6, B6, UDP, bytes(100)), 100, 1)[0]
    with pytest.raises(PacketError, match="fragment"):
        ipv6.fragments(piece, 90, 1)

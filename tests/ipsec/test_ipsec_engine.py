"""The engine: two gateways and what lies between them, policy on both ways, ICMP, fragments, bad input."""

import dataclasses
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ipsec_packets import A4, A6, B4, B6, IN4, IN6, keymat, packet, parameters

from vitalgate.ip import icmp, ipv4, ipv6, udp
from vitalgate.ip.packet import AH, ESP, ICMP, TCP, UDP
from vitalgate.ipsec.ah import AhInbound, AhOutbound
from vitalgate.ipsec.algorithms import SuiteError, suite
from vitalgate.ipsec.association import Expiry, Limits, Mode
from vitalgate.ipsec.databases import Action, Method, Peer, Peers, Policies, Rule
from vitalgate.ipsec.engine import Ipsec
from vitalgate.ipsec.esp import EspInbound, EspOutbound
from vitalgate.ipsec.events import Acquire, Audit, Carrier, Expired, IkeReceived, IpsecPath, PacketReceived
from vitalgate.ipsec.selectors import EVERYTHING, Selector, flow, network

NET4, NET6 = (network(IN4[0], 16), network(IN4[1], 16)), (network(IN6[0], 16), network(IN6[1], 16))


def selector(version, flip=False, **more):
    one, other = NET4 if version == 4 else NET6
    return Selector(((other if flip else one),), ((one if flip else other),), **more)


class World:
    """Two engines A and B with one SA each way, and the wire between them."""

    def __init__(self, chosen="aes-gcm-16", carrier=Carrier.UDP, mode=Mode.TUNNEL, selectors=None, outer=4, **changes):
        one = suite(chosen)
        ends = (A4, B4) if outer == 4 else (A6, B6)
        there = parameters(one, outer, mode, spi=0x1001, key=keymat(one, 1), **changes)
        back = dataclasses.replace(there, spi=0x2002, key=keymat(one, 2), source=ends[1], destination=ends[0])
        self.paths = (IpsecPath("a", "b", carrier), IpsecPath("b", "a", carrier))
        if carrier is Carrier.RAW:
            self.paths = (IpsecPath(*ends, carrier), IpsecPath(*reversed(ends), carrier))
        self.a, self.b = Ipsec(), Ipsec()
        for engine, flip, out, into, path in (
            (self.a, False, there, back, self.paths[0]),
            (self.b, True, back, there, self.paths[1]),
        ):
            covered = (selectors or (lambda flip: (selector(4, flip), selector(6, flip))))(flip)
            engine.policies.replace((Rule("net", Action.PROTECT, covered, ((ESP, out.spi),), (((ESP, into.spi),),)),))
            engine.add_outbound(EspOutbound(out, allow_legacy=True), path, 0.0)
            engine.add_inbound(EspInbound(into, allow_legacy=True))
        self.wire = []

    def carry(self, now=0.0):
        for engine, other, path in ((self.a, self.b, self.paths[1]), (self.b, self.a, self.paths[0])):
            for data, sent in engine.datagrams_to_send(now):
                self.wire.append(data)
                other.receive_datagram(data, path._replace(traffic_class=sent.traffic_class), now)


def events(engine):
    return list(iter(engine.next_event, None))


def received(engine):
    return [event.packet for event in events(engine) if isinstance(event, PacketReceived)]


def between(version, size, protocol=UDP, back=False, **more):
    ends = IN4 if version == 4 else IN6
    return packet(version, size, protocol, ends[::-1] if back else ends, **more)


def dropped(engine):
    return {key[14:-1]: count for key, count in engine.counters.items() if key.startswith("ipsec_dropped")}


@pytest.mark.parametrize("chosen", ["aes-gcm-16", "aes-ccm-8-iiv", "aes-cbc+hmac-sha2-256-128"])
@pytest.mark.parametrize("carrier", list(Carrier))
@pytest.mark.parametrize("outer", [4, 6])
@pytest.mark.parametrize("version", [4, 6])
def test_site_to_site(chosen, carrier, outer, version):
    world = World(chosen, carrier, outer=outer)
    for size in (8, 100, 1200):
        world.a.send_packet(between(version, size), 0.0)
        world.b.send_packet(between(version, size, back=True), 0.0)
    world.carry()
    assert received(world.b) == [between(version, size) for size in (8, 100, 1200)]
    assert received(world.a) == [between(version, size, back=True) for size in (8, 100, 1200)]
    assert not any(between(version, 100)[20:] in data for data in world.wire)
    assert dropped(world.a) == dropped(world.b) == {}


@pytest.mark.parametrize("carrier", list(Carrier))
def test_host_to_host_in_transport_mode(carrier):
    world = World(
        carrier=carrier,
        mode=Mode.TRANSPORT,
        selectors=lambda flip: (Selector((network(B4 if flip else A4, 32),), (network(A4 if flip else B4, 32),)),),
    )
    datagram = udp.encode(udp.Udp(5683, 5683, b"coap"), A4, B4)
    clear = ipv4.encode(ipv4.IPv4(A4, B4, UDP, datagram))
    world.a.send_packet(clear, 0.0)
    world.carry()
    assert received(world.b) == [clear]


def test_a_bundle_through_the_engine():
    a, b = Ipsec(), Ipsec()
    esp, ah = parameters("aes-gcm-16", spi=0x1001), parameters("hmac-sha2-256-128", mode=Mode.TRANSPORT, protocol=AH)
    keys = ((ESP, esp.spi), (AH, ah.spi))
    path = IpsecPath(A4, B4, Carrier.RAW)
    a.policies.replace((Rule("net", Action.PROTECT, (selector(4),), keys),))
    b.policies.replace((Rule("net", Action.PROTECT, (selector(4, True),), (), (keys,)),))
    a.add_outbound(EspOutbound(esp), path, 0.0)
    a.add_outbound(AhOutbound(ah), path, 0.0)
    b.add_inbound(EspInbound(esp))
    b.add_inbound(AhInbound(ah))
    a.send_packet(between(4, 50), 0.0)
    [(data, _)] = a.datagrams_to_send(0.0)
    b.receive_datagram(data, path, 0.0)
    [event] = events(b)
    assert event == PacketReceived(between(4, 50), ((AH, ah.spi), (ESP, esp.spi)))
    # ESP alone, which the AH of the rule does not cover, is not enough.
    bare = EspOutbound(esp, start=100).protect(between(4, 50))
    b.receive_datagram(bare, path, 0.0)
    assert received(b) == []
    assert dropped(b) == {"policy": 1}


def test_policy_is_ordered_and_discards_by_default():
    web = Selector(EVERYTHING, EVERYTHING, TCP, remote_ports=(80, 443))
    rules = (
        Rule("web", Action.DISCARD, (web,)),
        Rule("tcp", Action.BYPASS, (Selector(EVERYTHING, EVERYTHING, TCP),)),
        Rule("net", Action.PROTECT, (selector(4),)),
    )
    engine = Ipsec(Policies(rules))
    ports = (1000).to_bytes(2, "big"), (80).to_bytes(2, "big"), (5683).to_bytes(2, "big")
    cases = [
        (TCP, ports[0] + ports[1], "discard"),
        (TCP, ports[0] + ports[2], None),
        (UDP, ports[0] + ports[2], "no_sa"),
        (ICMP, b"\x08\x00\x00\x00", "no_sa"),
    ]
    for protocol, start, reason in cases:
        before = dict(dropped(engine))
        clear = ipv4.encode(ipv4.IPv4(*IN4, protocol, start + bytes(20)))
        engine.send_packet(clear, 0.0)
        sent = engine.datagrams_to_send(0.0)
        if reason is None:
            assert sent == [(clear, IpsecPath(*IN4, Carrier.RAW))]
        else:
            assert sent == [], "what is to be protected never leaves in clear"
            assert dropped(engine)[reason] == before.get(reason, 0) + 1
    acquires = [event for event in events(engine) if isinstance(event, Acquire)]
    assert [event.rule for event in acquires] == ["net"], "asked for once a second at most"
    engine.send_packet(packet(6, 20), 0.0)
    assert dropped(engine)["discard"] == 2
    assert engine.datagrams_to_send(0.0) == []


def test_the_check_after_decapsulation():
    world = World()
    sender = world.a.associations.outbound((ESP, 0x1001)).association
    for inner, reason in (
        (packet(4, 30), "policy"),  # addresses outside the rule
        (between(4, 30, back=True), "policy"),
        (between(4, 30), None),
    ):
        before = dropped(world.b).get("policy", 0)
        world.b.receive_datagram(sender.datagram(inner), world.paths[1], 0.0)
        assert received(world.b) == ([inner] if reason is None else [])
        assert dropped(world.b).get("policy", 0) == before + (reason is not None)
    # In clear, what should have been protected is dropped as well.
    world.b.receive_datagram(between(4, 30), IpsecPath(A4, B4, Carrier.RAW), 0.0)
    assert received(world.b) == []
    assert dropped(world.b)["policy"] == 3


def test_bad_input_is_counted_and_leaves_no_state():
    world = World()
    path = world.paths[1]
    sealed = world.a.associations.outbound((ESP, 0x1001)).association.datagram(between(4, 30))
    for data, reason in (
        (b"", "short"),
        (b"\x01\x02\x03", "short"),
        (bytes.fromhex("000000ff00000001") + bytes(60), "spi_reserved"),
        (bytes.fromhex("0000999900000001") + bytes(60), "unknown_sa"),
        (sealed[:8] + bytes(10), "short"),
        (sealed[:-1], "malformed"),
        (sealed[:-1] + bytes([sealed[-1] ^ 1]), "integrity"),
        (sealed, None),
        (sealed, "replay"),
    ):
        before = dropped(world.b).get(reason, 0)
        world.b.receive_datagram(data, path, 0.0)
        if reason is not None:
            assert dropped(world.b)[reason] == before + 1
    assert len(received(world.b)) == 1
    assert len(world.b.associations) == 2
    sa = world.b.associations.inbound(ESP, 0x1001)
    assert {reason.value for reason in sa.drops} == {"short", "malformed", "integrity", "replay"}


def test_audit_records_are_limited():
    world = World()
    for number in range(500):
        world.b.receive_datagram((0x9999).to_bytes(4, "big") + bytes(60), world.paths[1], number / 1000)
    world.b.receive_datagram((0x9999).to_bytes(4, "big") + bytes(60), world.paths[1], 60.0)
    records = [event for event in events(world.b) if isinstance(event, Audit)]
    assert len(records) == 11
    assert records[0].spi == 0x9999
    assert records[-1].suppressed == 490
    assert dropped(world.b)["unknown_sa"] == 501


@given(
    st.binary(max_size=100), st.sampled_from(list(Carrier)), st.sampled_from([b"", b"\x45", b"\x60", b"\0\0\x10\x01"])
)
def test_any_bytes(data, carrier, start):
    world = World(carrier=carrier)
    path = world.paths[1]
    world.b.receive_datagram(start + data, path, 0.0)
    world.b.send_packet(start + data, 0.0)
    assert received(world.b) == []
    assert [sent for sent, _ in world.b.datagrams_to_send(0.0)] == []


def test_ike_and_keepalives_share_the_port():
    world = World()
    world.a.send_ike(b"ike message", world.paths[0], 5.0)
    world.carry(5.0)
    assert events(world.b) == [IkeReceived(b"ike message", world.paths[1])]
    assert world.a.next_timeout() == 25.0
    world.a.handle_timeout(24.0)
    assert world.a.datagrams_to_send(24.0) == []
    world.a.handle_timeout(25.0)
    [(data, path)] = world.a.datagrams_to_send(25.0)
    assert (data, path) == (b"\xff", world.paths[0])
    world.b.receive_datagram(data, world.paths[1], 25.0)
    assert world.b.counters["ipsec_keepalives{received}"] == 1
    assert world.a.next_timeout() == 45.0


def test_large_packets_are_cut_before():
    world = World(path_mtu=600)
    clear = between(4, 1400, identification=9)
    world.a.send_packet(clear, 0.0)
    world.carry()
    assert len(world.wire) == 3
    assert all(len(data) + 28 <= 600 for data in world.wire)
    pieces = received(world.b)
    assert b"".join(ipv4.decode(piece).payload for piece in pieces) == clear[20:]


def test_large_packets_are_cut_after_in_transport_mode():
    def hosts(version):
        one, other = (A4, B4) if version == 4 else (A6, B6)
        ranges = network(one, len(one) * 8), network(other, len(other) * 8)
        return lambda flip: (Selector((ranges[flip],), (ranges[not flip],)),)

    for version in (4, 6):
        world = World(carrier=Carrier.RAW, mode=Mode.TRANSPORT, outer=version, path_mtu=1280, selectors=hosts(version))
        clear = packet(version, 3000)
        world.a.send_packet(clear, 0.0)
        world.carry()
        assert len(world.wire) == 3
        assert all(len(data) <= 1280 for data in world.wire)
        assert [each[40 if version == 6 else 20 :] for each in received(world.b)] == [
            clear[40 if version == 6 else 20 :]
        ]


@pytest.mark.parametrize("version", [4, 6])
def test_what_may_not_be_cut_is_answered(version):
    world = World(path_mtu=1400)
    world.a.send_packet(between(version, 1400, **({"dont_fragment": True} if version == 4 else {})), 0.0)
    assert world.a.datagrams_to_send(0.0) == []
    [answer] = received(world.a)
    if version == 4:
        found = ipv4.decode(answer)
        message = icmp.decode(found.payload, found.source, found.destination)
    else:
        six = ipv6.decode(answer)
        found, message = six, icmp.decode(six.payload, six.source, six.destination)
    assert found.destination == (IN4 if version == 4 else IN6)[0]
    told = icmp.too_big(message, version)
    room = 1400 - world.a.associations.outbound((ESP, 0x1001)).association.overhead - 8
    assert told == room
    headers = 20 if version == 4 else 40
    world.a.send_packet(between(version, told - headers, **({"dont_fragment": True} if version == 4 else {})), 0.0)
    [(data, _)] = world.a.datagrams_to_send(0.0)
    assert len(data) + 28 <= 1400


def test_icmp_lowers_the_path_mtu_within_bounds():
    world = World(carrier=Carrier.RAW)
    sending = world.a.associations.outbound((ESP, 0x1001)).association
    sealed = sending.protect(between(4, 100))
    router = bytes([203, 0, 113, 1])

    def error(mtu, quoted):
        body = icmp.encode(icmp.Icmp(3, 4, mtu, quoted), router, A4)
        return ipv4.encode(ipv4.IPv4(router, A4, ICMP, body))

    path = IpsecPath(A4, router, Carrier.RAW)
    for mtu, quoted, expected in (
        (1300, sealed[:20] + (0x7777).to_bytes(4, "big") + bytes(4), 1500),
        (1300, sealed[:23], 1500),
        (1600, sealed[:28], 1500),
        (1300, sealed[:28], 1300),
        (68, sealed[:28], 576),
    ):
        world.a.receive_datagram(error(mtu, quoted), path, 100.0)
        assert sending.path_mtu == expected
    assert received(world.a) == []
    world.a.handle_timeout(700.0)
    assert sending.path_mtu == 1500, "believed for ten minutes"


def test_fragments_meet_rules_about_ports():
    ports = Selector((NET4[0],), (NET4[1],), UDP, remote_ports=(5683, 5683))
    back = Selector((NET4[1],), (NET4[0],), UDP, local_ports=(5683, 5683))
    world = World(selectors=lambda flip: (back if flip else ports,))
    body = (1000).to_bytes(2, "big") + (5683).to_bytes(2, "big") + bytes(400)
    whole = ipv4.IPv4(*IN4, UDP, body, identification=5)
    for piece in ipv4.fragments(whole, 200):
        world.a.send_packet(ipv4.encode(piece), 0.0)
    world.carry()
    assert received(world.b) == [ipv4.encode(whole)]
    later = ipv4.encode(ipv4.fragments(whole, 200)[1])
    found = flow(later)
    assert found.fragment
    assert not ports.outbound(found), "a port that cannot be seen is in no range"
    assert selector(4).outbound(found)


def test_lifetimes_and_removal():
    world = World(soft=Limits(seconds=50), hard=Limits(seconds=60, packets=3))
    assert world.a.next_timeout() == 20.0
    world.a.handle_timeout(50.0)
    expired = [event for event in events(world.a) if isinstance(event, Expired)]
    assert [event.expiry for event in expired] == [Expiry.SOFT] * 2
    for _ in range(5):
        world.a.send_packet(between(4, 10), 50.0)
    assert len([data for data, _ in world.a.datagrams_to_send(50.0) if len(data) > 1]) == 3
    assert dropped(world.a) == {"expired": 1, "no_sa": 1}
    assert world.a.associations.outbound((ESP, 0x1001)) is None
    world.a.handle_timeout(60.0)
    assert len(world.a.associations) == 0
    assert world.a.next_timeout() is None


def test_queues_are_bounded():
    world = World()
    for _ in range(3000):
        world.a.send_packet(between(4, 10), 0.0)
    assert len(world.a.datagrams_to_send(0.0)) == 1024
    assert dropped(world.a)["queue"] == 3000 - 1024


def test_keys_and_spis_are_used_once():
    world = World()
    used = world.a.associations.outbound((ESP, 0x1001)).association.parameters
    with pytest.raises(SuiteError, match="keying material"):
        world.a.add_inbound(EspInbound(dataclasses.replace(used, spi=0x5005)))
    with pytest.raises(SuiteError, match="in use"):
        world.a.add_inbound(EspInbound(dataclasses.replace(used, spi=0x2002, key=bytes(20))))
    world.a.remove(world.a.associations.outbound((ESP, 0x1001)).association)
    with pytest.raises(SuiteError, match="keying material"):
        world.a.add_outbound(EspOutbound(used), world.paths[0], 0.0)
    with pytest.raises(KeyError):
        world.a.remove(EspOutbound(used))


def test_congestion_marks_over_a_udp_socket():
    world = World()
    world.a.send_packet(between(4, 10, tos=2), 0.0)
    [(data, path)] = world.a.datagrams_to_send(0.0)
    assert path.traffic_class == 2
    world.b.receive_datagram(data, world.paths[1]._replace(traffic_class=3), 0.0)
    [opened] = received(world.b)
    assert ipv4.decode(opened).tos == 3


def test_peers_stand_for_their_addresses_alone():
    peers = Peers((Peer("b.test", Method.PSK, (NET4[1],)),))
    assert peers.find("b.test").may(selector(4))
    assert not peers.find("b.test").may(selector(6))
    assert not peers.find("b.test").may(Selector((NET4[0],), EVERYTHING))
    assert peers.find("c.test") is None


def test_selectors_that_are_none():
    for wrong in (
        lambda: Selector(((IN4[1], IN4[0]),), ()),
        lambda: Selector(((IN4[0], IN6[1]),), ()),
        lambda: Selector((), (), remote_ports=(5, 4)),
        lambda: network(IN4[0], 33),
        lambda: Policies((Rule("x", Action.BYPASS, ()), Rule("x", Action.BYPASS, ()))),
    ):
        with pytest.raises(ValueError):
            wrong()


def test_ranges_against_numbers():
    source = random.Random(2)
    for _ in range(300):
        low, high, at = (source.getrandbits(32) for _ in range(3))
        if low > high:
            continue
        one = Selector(EVERYTHING, ((low.to_bytes(4, "big"), high.to_bytes(4, "big")),))
        found = flow(packet(4, 8, ends=(IN4[0], at.to_bytes(4, "big"))))
        assert one.outbound(found) is (low <= at <= high)

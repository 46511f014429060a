"""What strangers and attackers send: no state before a valid cookie, no amplification, nobody believed or hurt."""

import dataclasses
import itertools
import random

import pytest
from dtls_world import NOBODY_NAMED, PSK, X509_TARGET, Pair, drain, psk_pair, rpk_pair, x509_pair
from hypothesis import given, settings
from hypothesis import strategies as st

from vitalgate.dtls import handshaking, hellos
from vitalgate.dtls.client import ClientStart
from vitalgate.dtls.client12 import Client12
from vitalgate.dtls.client13 import Client13
from vitalgate.dtls.cookies import Cookies
from vitalgate.dtls.credentials import Psk, PskStore
from vitalgate.dtls.endpoint import Endpoint
from vitalgate.dtls.events import Connected, Failed, Received
from vitalgate.dtls.parameters import Limits, Parameters
from vitalgate.dtls.records import DTLS_1_2, DTLS_1_3
from vitalgate.dtls.server import ServerStart
from vitalgate.dtls.server12 import Server12
from vitalgate.dtls.server13 import Server13

VERSIONS = [DTLS_1_2, DTLS_1_3]
PAIRS = {"psk": (psk_pair, NOBODY_NAMED), "rpk": (rpk_pair, NOBODY_NAMED), "x509": (x509_pair, X509_TARGET)}


def pair(version, mode="psk", **more):
    make, target = PAIRS[mode]
    return Pair(make(), target, client=Parameters(versions=(version,), **more))


def hello(version, mode="psk", **more):
    world = pair(version, mode, **more)
    world.client.connect("S", 0.0, world.target)
    return world, world.client.datagrams_to_send(0.0)[0][0]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("mode", PAIRS)
def test_a_hello_leaves_nothing_and_is_answered_with_less_than_thrice_its_size(version, mode):
    world, data = hello(version, mode)
    for number in range(500):
        world.server.receive_datagram(data, f"stranger {number}", 0.0)
        (answer,) = world.server.datagrams_to_send(0.0)
        assert len(answer[0]) <= 3 * len(data)
    assert len(world.server) == 0
    assert not world.server._core.starting
    assert world.server.next_timeout() is None


def answered(version, path="C", now=0.0):
    """A server, and a client's second hello, with the cookie that the server sent to ``path``."""
    world, data = hello(version)
    world.server.receive_datagram(data, path, now)
    ((answer, _),) = world.server.datagrams_to_send(now)
    world.client.receive_datagram(answer, "S", now)
    ((second, _),) = world.client.datagrams_to_send(now)
    return world, second


@pytest.mark.parametrize("version", VERSIONS)
def test_a_cookie_serves_the_address_that_it_was_sent_to_alone(version):
    world, second = answered(version)
    world.server.receive_datagram(second, "elsewhere", 0.0)
    assert len(world.server) == 0
    world.server.receive_datagram(second, "C", 0.0)
    assert len(world.server) == 1


@pytest.mark.parametrize("version", VERSIONS)
def test_a_cookie_serves_for_a_while_alone(version):
    for after, good in ((59.0, True), (121.0, False)):
        world, second = answered(version)
        world.server.receive_datagram(second, "C", after)
        assert len(world.server) == good


@pytest.mark.parametrize("version", VERSIONS)
def test_a_damaged_cookie_makes_no_state(version):
    world, second = answered(version)
    body = handshaking.decode(second[13:])[0].body
    prefix = hellos.decode_prefix(body)
    cookie = prefix.cookie or prefix.cookie_13
    start = second.index(cookie)
    for at in range(len(cookie)):
        damaged = bytearray(second)
        damaged[start + at] ^= 1
        world.server.receive_datagram(bytes(damaged), "C", 0.0)
        assert len(world.server) == 0
        ((answer, _),) = world.server.datagrams_to_send(0.0)
        assert len(answer) <= 3 * len(second)


def test_cookies_forget_their_keys():
    cookies = Cookies(random.Random(1).randbytes, 10.0)
    mac = cookies.make("C", b"x", 0.0)
    assert cookies.valid(mac, "C", b"x", 9.0)
    assert cookies.valid(mac, "C", b"x", 15.0)
    assert not cookies.valid(mac, "C", b"x", 25.0)
    mac = cookies.make("C", b"x", 25.0)
    assert not cookies.valid(mac, "C", b"x", 1000.0)  # nothing asked for long
    assert not cookies.valid(mac, "C", b"y", 25.0)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_repeated_second_hello_begins_nothing_anew(version):
    world, second = answered(version)
    world.server.receive_datagram(second, "C", 0.0)
    for data, _ in world.server.datagrams_to_send(0.0):
        world.client.receive_datagram(data, "S", 0.0)
    world.run()
    assert len(world.server) == 1
    world.server.receive_datagram(second, "C", 1.0)
    assert len(world.server) == 1
    assert world.server.datagrams_to_send(1.0) == []
    assert world.server.counters["dtls_discarded{hello-repeated}"] == 1


@pytest.mark.parametrize("version", VERSIONS)
def test_handshakes_under_way_are_bounded(version):
    server = Endpoint(
        psk_pair()[1], listening=True, parameters=Parameters(versions=(version,)), limits=Limits(handshakes=3)
    )
    for number in range(6):
        world, data = hello(version)
        path = f"client {number}"
        server.receive_datagram(data, path, 0.0)
        ((answer, _),) = server.datagrams_to_send(0.0)
        world.client.receive_datagram(answer, "S", 0.0)
        ((second, _),) = world.client.datagrams_to_send(0.0)
        server.receive_datagram(second, path, 0.0)
        server.datagrams_to_send(0.0)
    assert len(server) == 3
    assert server.counters["dtls_limit_reached{handshakes}"] == 3
    while (due := server.next_timeout()) is not None:
        server.handle_timeout(due)
        server.datagrams_to_send(due)
    assert len(server) == 0  # they do not stay


def test_associations_are_bounded():
    client, server = psk_pair()
    world = Pair((client, server), client=Parameters(), limits=Limits(associations=2))
    for number in range(4):
        world.client.connect(f"S{number}", 0.0)
    assert [type(event) for event in drain(world.client)] == [Failed, Failed]


@pytest.mark.parametrize("version", VERSIONS)
def test_a_thousand_peers_do_not_notice_a_flood(version):
    """A thousand peers talk while strangers send ten times as much: everything arrives, and none of it late."""
    parameters = Parameters(
        versions=(version,), cid=4, resume=False, psk_only=True, psk_dhe=False, suites=(0x1304, 0xC0A8)
    )
    store = PskStore(tuple(Psk(b"peer %d" % number, b"0123456789abcdef") for number in range(1000)))
    server = Endpoint(dataclasses.replace(psk_pair()[1], psks=store), listening=True, parameters=parameters)
    clients = []
    for number in range(1000):
        ours = PskStore(ours=Psk(b"peer %d" % number, b"0123456789abcdef"))
        client = Endpoint(dataclasses.replace(psk_pair()[0], psks=ours), parameters=parameters)
        association = client.connect("S", 0.0)
        exchange(client, server, number)
        (connected,) = [event for event in drain(client) if isinstance(event, Connected)]
        assert connected.association == association
        clients.append((client, association))
    assert {event.identity.name for event in drain(server)} == {f"peer {number}" for number in range(1000)}
    assert len(server) == 1000
    strangers = list(hostile(version))
    chance = random.Random(3)
    for number, (client, association) in enumerate(clients):
        for _ in range(10):
            server.receive_datagram(chance.choice(strangers), chance.choice((number, "stranger", 7)), 1.0)
        client.send(association, b"reading %d" % number, 1.0)
        for data, _ in client.datagrams_to_send(1.0):
            server.receive_datagram(data, number, 1.0)
    server.datagrams_to_send(1.0)
    received = [event for event in drain(server) if isinstance(event, Received)]
    assert [event.data for event in received] == [b"reading %d" % number for number in range(1000)]
    assert len(server) == 1000
    assert server.counters.total("dtls_associations_ended") == 0


def exchange(client, server, path):
    while True:
        up, down = client.datagrams_to_send(0.0), server.datagrams_to_send(0.0)
        if not up and not down:
            return
        for data, _ in up:
            server.receive_datagram(data, path, 0.0)
        for data, _ in down:
            client.receive_datagram(data, "S", 0.0)


def hostile(version):
    """Hellos, garbage, records for unknown peers, plain alerts and handshake messages."""
    yield hello(version)[1]
    chance = random.Random(5)
    for size in (0, 1, 12, 13, 40, 1200):
        yield chance.randbytes(size)
    for first in (20, 21, 22, 23, 25, 26, 0x20, 0x2F, 0x3F):
        for epoch in (0, 1, 2):
            yield bytes((first, 0xFE, 0xFD, 0, epoch)) + chance.randbytes(6) + b"\0\x20" + chance.randbytes(32)
    yield b"\x15\xfe\xfd\0\0" + bytes(6) + b"\0\2\2\x28"  # a fatal alert in clear
    yield b"\x16\xfe\xfd\0\0" + bytes(6) + b"\0\x0c\x14" + bytes(11)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("cid", [None, 4])
def test_nothing_in_clear_touches_a_complete_association(version, cid):
    world = pair(version, cid=cid)
    _, (accepted,) = world.connect()
    for data in hostile(version):
        world.server.receive_datagram(data, "C", 0.0)
        world.client.receive_datagram(data, "S", 0.0)
    world.server.datagrams_to_send(0.0)
    world.client.datagrams_to_send(0.0)
    assert drain(world.server) == drain(world.client) == []
    world.client.send(world.number, b"here", 0.0)
    assert world.run()[1] == [Received(accepted.association, "C", b"here")]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("cid", [None, 4])
def test_a_replay_is_counted_and_dropped(version, cid):
    world = pair(version, cid=cid)
    world.connect()
    world.client.send(world.number, b"once", 0.0)
    ((data, _),) = world.client.datagrams_to_send(0.0)
    for _ in range(5):
        world.server.receive_datagram(data, "C", 0.0)
    assert [event.data for event in drain(world.server)] == [b"once"]
    assert world.server.counters["dtls_discarded{replay}"] == 4


def test_too_many_forgeries_end_a_key():
    """RFC 9147 section 4.5.3: CCM_8 is worth 128 failures. Half way a new key is asked for."""
    world = pair(DTLS_1_3, suites=(0x1305,))
    _, (accepted,) = world.connect()
    association = world.server._core.associations[accepted.association]
    forged = b"\x2b\x00\x07" + bytes(40)
    for _ in range(60):
        world.server.receive_datagram(forged, "C", 0.0)
    assert world.server.datagrams_to_send(0.0) == []
    for _ in range(10):
        world.server.receive_datagram(forged, "C", 0.0)
    assert world.run() == ([], [])
    assert world.client.counters["dtls_key_updates{ours}"] == 1
    for _ in range(200):  # the old key is gone or worthless; the association stays
        world.server.receive_datagram(forged, "C", 0.0)
        world.run()
    world.client.send(world.number, b"still here", 0.0)
    events = world.run()[1]
    assert association.established
    assert [event.data for event in events] == [b"still here"]


# Whole datagrams and state machines, at random


def record(version, mode):
    world = pair(version, mode, cid=2)
    world.connect()
    world.client.send(world.number, b"x", 0.0)
    world.run()
    return world.datagrams


RECORDED = {(version, mode): record(version, mode) for version in VERSIONS for mode in PAIRS}


@settings(max_examples=250)
@given(
    version=st.sampled_from(VERSIONS), mode=st.sampled_from(sorted(PAIRS)),
    plan=st.lists(
        st.tuples(st.integers(0, 40), st.integers(0, 2000), st.integers(0, 255), st.integers(0, 3)), max_size=12
    ),
)  # fmt: skip
def test_damaged_lost_and_repeated_datagrams_break_nothing(version, mode, plan):
    """Real handshakes with datagrams damaged, dropped, doubled or replaced by those of another: no exception ever, no
    state that stays, and nobody connected under another name."""
    world = pair(version, mode, cid=2)
    others = [data for _, data in RECORDED[version, mode]]
    world.client.connect("S", 0.0, world.target)
    steps = {step: (at, value, what) for step, at, value, what in plan}
    count, now = itertools.count(), 0.0
    events = []
    for _ in range(60):
        for source, sink, path in ((world.client, world.server, "C"), (world.server, world.client, "S")):
            for data, _ in source.datagrams_to_send(now):
                at, value, what = steps.get(next(count), (0, 0, 4))
                if what == 0:
                    continue
                if what == 1:
                    at %= len(data)
                    data = data[:at] + bytes((value,)) + data[at + 1 :]  # noqa: PLW2901
                elif what == 2:
                    sink.receive_datagram(data, path, now)
                elif what == 3:
                    sink.receive_datagram(others[at % len(others)], path, now)
                sink.receive_datagram(data, path, now)
            events += drain(source)
        now += 5.0
        for end in (world.client, world.server):
            end.handle_timeout(now)
    for event in events:
        if isinstance(event, Connected):
            assert (
                event.identity.name
                in {"psk": {"bed-12"}, "rpk": {"cloud", "gateway-7"}, "x509": {"cloud.example", "client-3"}}[mode]
            )
    for end in (world.client, world.server):
        while (due := end.next_timeout()) is not None:
            end.handle_timeout(max(due, now))
            end.datagrams_to_send(due)
        assert len(end) == 0


@settings(max_examples=300)
@given(datagrams=st.lists(st.binary(max_size=120), max_size=8))
def test_garbage_breaks_nothing(datagrams):
    world = pair(DTLS_1_3)
    world.client.connect("S", 0.0)
    for data in datagrams:
        world.client.receive_datagram(data, "S", 0.0)
        world.server.receive_datagram(data, "C", 0.0)
    assert len(world.server) == 0


@pytest.mark.parametrize("role", [ClientStart, ServerStart, Client12, Server12, Client13, Server13])
def test_the_tables_are_whole(role):
    """Every state that a rule leads to has rules of its own, or is the last; every state but the first is led to."""
    states = {state for state, _ in role.TABLE}
    led_to = {state for rule in role.TABLE.values() for state in rule.leads_to}
    last = {state for state in led_to if state not in states}
    assert {state.name for state in last} <= {"COMPLETE", "DECIDED"}
    assert len(last) == 1
    assert {handshaking.HandshakeType(kind) for _, kind in role.TABLE}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("mode", PAIRS)
def test_messages_in_another_order_end_the_handshake(version, mode):
    """Each unprotected message of a server in place of its first: the client never goes on from there."""
    world = pair(version, mode)
    world.connect()
    server_messages = []
    for from_client, data in world.datagrams:
        if not from_client and data[0] == 22 and data[3:5] == b"\0\0":
            length = int.from_bytes(data[11:13], "big")
            server_messages += handshaking.decode(data[13 : 13 + length])
    for message in server_messages:
        if message.type in (2, 3):
            continue
        victim = pair(version, mode)
        victim.client.connect("S", 0.0, victim.target)
        victim.client.datagrams_to_send(0.0)
        body = handshaking.header(message.type, message.length, 0, 0, message.length) + message.body
        data = b"\x16\xfe\xfd" + bytes(8) + len(body).to_bytes(2, "big") + body
        victim.client.receive_datagram(data, "S", 0.0)
        (failed,) = drain(victim.client)
        assert isinstance(failed, Failed)
        assert failed.alert == 10


def test_a_downgrade_is_noticed():
    """Somebody takes DTLS 1.3 out of a hello; the server's random shows that it knows better (RFC 8446 4.1.3)."""
    both = Parameters()
    world = Pair(rpk_pair(), client=both)
    world.client.connect("S", 0.0)

    def strip(data):
        body = handshaking.decode(data[13:])[0]
        if body.type != 1:
            return data
        found = hellos.decode_client_hello(body.body)
        less = {kind: value for kind, value in found.extensions.items() if kind not in (43, 44, 45, 51)}
        body_less = dataclasses.replace(found, extensions=less).encode()
        content = handshaking.header(1, len(body_less), body.sequence, 0, len(body_less)) + body_less
        return data[:11] + len(content).to_bytes(2, "big") + content

    for _ in range(3):
        for data, _ in world.client.datagrams_to_send(0.0):
            world.server.receive_datagram(strip(data) if data[0] == 22 else data, "C", 0.0)
        for data, _ in world.server.datagrams_to_send(0.0):
            world.client.receive_datagram(data, "S", 0.0)
    (failed,) = drain(world.client)
    assert failed.detail == "somebody took DTLS 1.3 out of our hello"


def test_a_server_without_extended_master_secret_is_refused():
    world = pair(DTLS_1_2)
    world.client.connect("S", 0.0)
    for data, _ in world.client.datagrams_to_send(0.0):
        world.server.receive_datagram(data, "C", 0.0)
    ((verify, _),) = world.server.datagrams_to_send(0.0)
    world.client.receive_datagram(verify, "S", 0.0)
    world.client.datagrams_to_send(0.0)
    answer = hellos.ServerHello(bytes(32), 0xC0A8).encode()
    body = handshaking.header(2, len(answer), 1, 0, len(answer)) + answer
    world.client.receive_datagram(b"\x16\xfe\xfd" + bytes(7) + b"\1" + len(body).to_bytes(2, "big") + body, "S", 0.0)
    (failed,) = drain(world.client)
    assert failed.detail == "a server without extended master secret"


@pytest.mark.parametrize("version", VERSIONS)
def test_a_changed_finished_is_refused(version, monkeypatch):
    """Whoever lacks the keys cannot make Finished; who has them and saw another handshake makes another."""
    target = "vitalgate.dtls.common12.finished" if version == DTLS_1_2 else "vitalgate.dtls.common13.finished_mac"
    module, name = target.rsplit(".", 1)
    real = getattr(__import__(module, fromlist=[name]), name)
    calls = itertools.count()

    def wrong(*arguments):
        made = real(*arguments)
        return bytes((made[0] ^ 1,)) + made[1:] if next(calls) == 0 else made

    monkeypatch.setattr(target, wrong)
    world = pair(version)
    client, server = world.connect()
    assert {event.alert for event in client + server if isinstance(event, Failed)} == {51}
    assert not [event for event in client + server if isinstance(event, Connected)]


def test_secrets_stay_out_of_events_and_representations():
    world = pair(DTLS_1_3)
    events = [repr(event) for both in world.connect() for event in both]
    for association in world.client._core.associations.values():
        events.append(repr(association))
    assert not any(PSK.key.decode() in text or PSK.key.hex() in text for text in events)

"""CoAP over DTLS in virtual time: the same calls and events as without, and nothing in clear whatever happens."""

import dataclasses

import pytest
from dtls_world import NOBODY_NAMED, PSK, X509_TARGET, psk_pair, rpk_pair, x509_pair

from vitalgate.coap.events import Failure, RequestFailed, RequestReceived, ResponseReceived
from vitalgate.coap.message import Code, Message
from vitalgate.coap.options import build_options
from vitalgate.coap.site import Site
from vitalgate.dtls.coaps import FIRST_QUEUED, QUEUE, Endpoint
from vitalgate.dtls.credentials import Psk
from vitalgate.dtls.parameters import Parameters
from vitalgate.dtls.records import DTLS_1_2, DTLS_1_3
from vitalgate.net.virtual import Link, VirtualNetwork

PAIRS = {"psk": (psk_pair, NOBODY_NAMED), "rpk": (rpk_pair, NOBODY_NAMED), "x509": (x509_pair, X509_TARGET)}
NAMES = {"psk": "bed-12", "rpk": "gateway-7", "x509": "client-3"}
GET = Message(Code.GET, build_options(path="vitals"))


class World:
    """A client on host c and a server on host s, which answers GET /vitals inline or, with ``later``, when told to."""

    def __init__(self, mode="psk", version=DTLS_1_3, *, link=None, later=False, credentials=None, **more):
        make, target = PAIRS[mode]
        client, server = credentials or make()
        self.network = VirtualNetwork(1)
        if link is not None:
            self.network.default_link = link
        self.network.captured = []
        dtls = Parameters(**{"versions": (version,), "retransmission": 1.0, "cid": 2, **more})
        site = Site()
        self.asked = []
        site.add("vitals", self.answer, methods=[Code.GET], idempotent=True)
        self.site = site
        self.server = Endpoint(
            server, listening=True, site=None if later else site, dtls=dtls, wall=self.network.wall("s"),
            randomness=self.network.randomness("s"),
        )  # fmt: skip
        self.client = Endpoint(
            client, targets={("c", "s"): target}, dtls=dtls, wall=self.network.wall("c"),
            randomness=self.network.randomness("c"),
        )  # fmt: skip
        self.events = {"c": [], "s": []}
        for name, engine in (("s", self.server), ("c", self.client)):
            self.network.add_host(name, engine, lambda _now, name=name, engine=engine: self.drain(name, engine))

    def drain(self, name, engine):
        while (event := engine.next_event()) is not None:
            self.events[name].append(event)

    def answer(self, request, path, identity, now):
        self.asked.append((path, identity))
        return Message(Code.CONTENT, (), b"SpO2 98")

    def get(self, until=60.0):
        exchange = self.client.request(GET, ("c", "s"), self.network.now)
        self.network.touch("c")
        self.network.run(self.network.now + until)
        return exchange

    def nothing_in_clear(self):
        return not any(b"vitals" in data or b"SpO2" in data for _, _, data in self.network.captured)


@pytest.mark.parametrize("version", [DTLS_1_2, DTLS_1_3])
@pytest.mark.parametrize("mode", PAIRS)
def test_requests_wait_for_the_handshake_and_carry_the_peers_name(mode, version):
    world = World(mode, version)
    first = world.get()
    second = world.get()
    assert [event.exchange for event in world.events["c"]] == [first, second]
    assert first == FIRST_QUEUED
    assert all(event.path == ("c", "s") and event.response.payload == b"SpO2 98" for event in world.events["c"])
    assert world.asked == [(("s", "c"), NAMES[mode])] * 2
    assert world.client.counters.total("dtls_handshakes_completed") == 1
    assert world.nothing_in_clear()
    assert not world.client._under_way
    assert not world.client._ours


@pytest.mark.parametrize("version", [DTLS_1_2, DTLS_1_3])
def test_an_answer_that_comes_later(version):
    world = World(version=version, later=True)
    world.get(5.0)
    (asked,) = world.events["s"]
    assert isinstance(asked, RequestReceived)
    assert (asked.path, asked.identity) == (("s", "c"), "bed-12")
    world.server.respond(asked.exchange, Message(Code.CONTENT, (), b"at last"), world.network.now)
    world.network.touch("s")
    world.network.run(20.0)
    (response,) = world.events["c"]
    assert response.response.payload == b"at last"


def test_a_handshake_that_fails_fails_its_requests_and_sends_nothing():
    client, _ = psk_pair(Psk(PSK.identity, b"another key 1234"))
    world = World(credentials=(client, psk_pair()[1]))
    exchange = world.get()
    assert world.events["c"] == [RequestFailed(exchange, ("c", "s"), Failure.PROTECTION)]
    assert world.asked == []
    assert world.nothing_in_clear()


def test_a_peer_that_is_not_there_fails_with_timeout():
    world = World()
    world.network.partition("c", "s")
    exchange = world.get(300.0)
    assert world.events["c"] == [RequestFailed(exchange, ("c", "s"), Failure.TIMEOUT)]


def test_the_queue_of_one_handshake_is_bounded():
    world = World()
    world.network.partition("c", "s")
    for _ in range(QUEUE + 3):
        world.client.request(GET, ("c", "s"), 0.0)
    world.network.touch("c")
    assert [event.reason for event in world.events["c"]] == [Failure.LIMIT] * 3


def test_a_request_that_waits_can_be_cancelled():
    world = World()
    world.network.partition("c", "s")
    exchange = world.client.request(GET, ("c", "s"), 0.0)
    world.client.cancel(exchange, 0.0)
    world.network.touch("c")
    assert world.events["c"] == [RequestFailed(exchange, ("c", "s"), Failure.CANCELLED)]


@pytest.mark.parametrize("version", [DTLS_1_2, DTLS_1_3])
def test_a_server_that_forgot_us_is_found_again(version):
    """The server restarts and knows no association: the request times out, and the next makes a new one."""
    world = World(version=version)
    world.get()
    fresh = Endpoint(
        psk_pair()[1], listening=True, site=world.site, wall=world.network.wall("s"),
        dtls=dataclasses.replace(Parameters(), versions=(version,), retransmission=1.0, cid=2),
    )  # fmt: skip
    world.network.remove_host("s")
    world.network.add_host("s", fresh)
    exchange = world.get(300.0)
    assert world.events["c"][-1] == RequestFailed(exchange, ("c", "s"), Failure.TIMEOUT)
    exchange = world.get()
    assert isinstance(world.events["c"][-1], ResponseReceived)
    assert world.events["c"][-1].exchange == exchange


@pytest.mark.parametrize("version", [DTLS_1_2, DTLS_1_3])
def test_everything_arrives_over_a_bad_link(version):
    world = World("rpk", version, link=Link(delay=0.05, jitter=0.3, loss=0.15, duplicate=0.1), retransmissions=8)
    for _ in range(20):
        world.get(200.0)
    assert len(world.events["c"]) == 20
    assert all(isinstance(event, ResponseReceived) for event in world.events["c"])
    assert world.nothing_in_clear()


@pytest.mark.parametrize("version", [DTLS_1_2, DTLS_1_3])
def test_observers_are_told_under_protection(version):
    world = World(version=version)
    reading = [98]
    world.site.add(
        "live", lambda *_: Message(Code.CONTENT, (), b"SpO2 %d" % reading[0]), methods=[Code.GET], observable=True
    )
    exchange = world.client.observe(Message(Code.GET, build_options(path="live")), ("c", "s"), 0.0)
    world.network.touch("c")
    world.network.run(5.0)
    for value in (97, 96):
        reading[0] = value
        world.site.notify("live", world.network.now)
        world.network.touch("s")
        world.network.run(world.network.now + 5.0)
    told = [event.response.payload for event in world.events["c"] if event.exchange == exchange]
    assert told == [b"SpO2 98", b"SpO2 97", b"SpO2 96"]
    assert world.nothing_in_clear()


def test_a_plain_coap_message_is_not_answered():
    world = World()
    world.get()
    plain = b"\x40\x01\x12\x34\xb6vitals"
    asked = len(world.asked)
    world.server.receive_datagram(plain, ("s", "c"), world.network.now)
    assert world.server.datagrams_to_send(world.network.now) == []
    assert len(world.asked) == asked


def test_an_address_that_changed_has_to_show_itself_before_it_gets_much():
    """RFC 9146 section 6 asks for a strategy; ours is RFC 9175's: an answer too long for its request waits for Echo."""
    world = World()
    world.site.add("long", lambda *_: Message(Code.CONTENT, (), b"x" * 900), methods=[Code.GET], idempotent=True)
    world.get()
    request = Message(Code.GET, build_options(path="long"))
    world.client.request(request, ("c", "s"), world.network.now)
    ((data, _),) = world.client.datagrams_to_send(world.network.now)
    world.server.receive_datagram(data, ("s", "elsewhere"), world.network.now)
    ((answer, path),) = world.server.datagrams_to_send(world.network.now)
    assert path == ("s", "elsewhere")
    assert len(answer) <= 3 * len(data)

"""CoAP in clear and under DTLS on one port: told apart, numbered apart, and a peer that falls silent given up."""

import pytest

from vitalgate.coap.endpoint import Endpoint
from vitalgate.coap.events import Failure, RequestFailed, RequestReceived, ResponseReceived
from vitalgate.coap.message import Code, Message
from vitalgate.coap.options import build_options
from vitalgate.coap.site import Site
from vitalgate.dtls.coaps import Endpoint as CoapsEndpoint
from vitalgate.dtls.credentials import Credentials, Psk, PskStore
from vitalgate.dtls.parameters import Parameters
from vitalgate.net.sharedport import PLAIN, SharedPort
from vitalgate.net.stacks import DEFAULT_OF, STACKS
from vitalgate.net.virtual import VirtualNetwork

SERVER = ("c", "s")
GET = Message(Code.GET, build_options(path="vitals"))
KEY = Psk(b"session", bytes(range(32)), "ward-3")
DTLS = Parameters(cid=2, retransmission=1.0)


class World:
    """A client on host c and a server on host s; the server answers inline or, ``later``, when the test says so."""

    def __init__(self, *, later=False, silence=5.0):
        self.network = VirtualNetwork(1)
        site = Site()
        site.add("vitals", self.answer, methods=[Code.GET], idempotent=True)
        self.site, self.asked = None if later else site, []
        self.events = {"c": [], "s": []}
        self.client = self.port("c", Credentials(psks=PskStore(ours=KEY)), silence=silence)
        self.server = self.port("s", Credentials(psks=PskStore((KEY,))), site=self.site, listening=True)

    def port(self, host, credentials, *, site=None, listening=False, silence=None):
        randomness, wall = self.network.randomness(f"{host} {self.network.now}"), self.network.wall(host)
        secured = CoapsEndpoint(
            credentials, listening=listening, site=site, dtls=DTLS, randomness=randomness, wall=wall
        )
        plain = Endpoint(site=site, randomness=randomness, wall=wall)
        port = SharedPort(secured, plain, silence=silence)
        self.network.add_host(host, port, lambda _: self.drain(host, port))
        return port

    def drain(self, host, port):
        while (event := port.next_event()) is not None:
            stack = port.stack(event) if isinstance(event, RequestReceived) and not port.is_plain(event) else ""
            self.events[host].append((event, stack))

    def answer(self, request, path, identity, now):
        self.asked.append(identity)
        return Message(Code.CONTENT, (), b"SpO2 98")

    def run(self, seconds):
        self.network.touch("c")
        self.network.touch("s")
        self.network.run(self.network.now + seconds)

    def told(self):
        return [event for event, _ in self.events["c"]]


def test_what_is_protected_and_what_is_not_share_a_port():
    world = World()
    protected = world.client.request(GET, SERVER, 0.0)
    clear = world.client.request_unprotected(GET, SERVER, 0.0)
    world.run(10)
    answers = {event.exchange: event.response.payload for event in world.told()}
    assert answers == {protected: b"SpO2 98", clear: b"SpO2 98"}
    assert clear >= PLAIN > protected
    assert sorted(world.asked) == ["", "ward-3"]


def test_answers_that_come_later_go_the_way_of_their_requests():
    world = World(later=True)
    world.client.request(GET, SERVER, 0.0)
    world.client.request_unprotected(GET, SERVER, 0.0)
    world.run(3)
    received = {event.identity: (event, stack) for event, stack in world.events["s"]}
    assert {identity: stack for identity, (_, stack) in received.items()} == {"": "", "ward-3": "coap-dtls13-psk"}
    for identity, (event, _) in received.items():
        assert world.server.is_plain(event) == (identity == "")
        world.server.respond(event.exchange, Message(Code.CONTENT, (), identity.encode()), world.network.now)
    world.run(10)
    assert sorted(event.response.payload for event in world.told()) == [b"", b"ward-3"]
    assert all(isinstance(event, ResponseReceived) for event in world.told())


def test_cancelled_on_either_side():
    world = World()
    world.network.partition("c", "s")
    protected, clear = (call(GET, SERVER, 0.0) for call in (world.client.request, world.client.request_unprotected))
    for exchange in (protected, clear):
        world.client.cancel(exchange, 0.0)
    world.run(1)
    assert {event.exchange: event.reason for event in world.told()} == dict.fromkeys(
        (protected, clear), Failure.CANCELLED
    )
    assert not world.client._paths
    assert not world.client._waiting


def test_a_peer_that_lost_its_half_is_found_again_at_the_next_request():
    world = World()
    world.client.request(GET, SERVER, 0.0)
    world.run(100)  # an association that rested for long is no silence
    world.network.remove_host("s")
    world.server = world.port("s", Credentials(psks=PskStore((KEY,))), site=world.site, listening=True)
    asked = world.network.now
    lost = [world.client.request(GET, SERVER, asked) for _ in range(2)]
    world.run(4.9)
    assert len(world.told()) == 1
    world.run(0.2)
    assert world.told()[1:] == [RequestFailed(exchange, SERVER, Failure.TIMEOUT) for exchange in lost]
    found = world.client.request(GET, SERVER, world.network.now)
    world.run(5)
    assert isinstance(world.told()[-1], ResponseReceived)
    assert world.told()[-1].exchange == found
    assert world.client.counters["dtls_peers_silent"] == 1
    assert not world.client._waiting
    assert not world.client._given_up


def test_a_peer_that_is_only_slow_is_not_given_up():
    """It says that it has the request, and answers a minute later."""
    world = World(later=True)
    world.client.request(GET, SERVER, 0.0)
    for _ in range(20):
        world.client.request(GET, SERVER, world.network.now)
        world.run(3)
    assert world.client.counters["dtls_peers_silent"] == 0
    assert not world.told()


def test_without_a_bound_coaps_own_time_is_waited_for():
    world = World(silence=None)
    world.client.request(GET, SERVER, 0.0)
    world.run(10)
    world.network.remove_host("s")
    world.client.request(GET, SERVER, world.network.now)
    world.run(40)
    assert len(world.told()) == 1
    world.run(60)
    assert world.told()[1].reason is Failure.TIMEOUT


@pytest.mark.parametrize("first", [b"", b"\x00", b"\x13", b"\x80", b"\xff", b"\x40", b"\x16\xfe\xfd", b"\x2f"])
def test_other_datagrams_are_dropped(first):
    world = World()
    for end in (b"", bytes(40)):
        world.server.receive_datagram(first + end, ("s", "c"), 0.0)
    world.run(10)
    assert world.asked == []


def test_every_row_of_dtls_says_version_and_mode():
    rows = [row for row in STACKS.values() if row.security == "dtls"]
    assert {row.label for row in rows} == {"DTLS 1.3 RPK", "DTLS 1.3 PSK", "DTLS 1.2 RPK", "DTLS 1.2 PSK"}
    assert all(row.protects and row.dtls is not None and row.port == 5684 for row in rows)
    assert DEFAULT_OF["dtls"] == "coap-dtls13-rpk"

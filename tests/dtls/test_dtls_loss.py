"""Handshakes and data over bad networks, in virtual time: loss, reordering, duplication, small datagrams; seeded."""

import dataclasses
import itertools
import random

import pytest
from dtls_world import NOBODY_NAMED, X509_TARGET, psk_pair, rpk_pair, x509_pair

from vitalgate.dtls.endpoint import Endpoint
from vitalgate.dtls.events import Connected, Failed, Received
from vitalgate.dtls.parameters import Parameters
from vitalgate.dtls.records import DTLS_1_2, DTLS_1_3
from vitalgate.net.virtual import Link, VirtualNetwork

PAIRS = {"psk": (psk_pair, NOBODY_NAMED), "rpk": (rpk_pair, NOBODY_NAMED), "x509": (x509_pair, X509_TARGET)}
VERSIONS = {"1.2": DTLS_1_2, "1.3": DTLS_1_3}


class Host:
    """An endpoint on a host, and what it told."""

    def __init__(self, network, name, credentials, *, listening=False, parameters):
        self.events = []
        self.name = name
        self.engine = Endpoint(
            credentials, listening=listening, parameters=parameters, randomness=network.randomness(name),
            wall=network.wall(name),
        )  # fmt: skip
        network.add_host(name, self.engine, self.on_turn)

    def on_turn(self, now):
        while (event := self.engine.next_event()) is not None:
            self.events.append(event)

    def found(self, kind):
        return [event for event in self.events if isinstance(event, kind)]


class World:
    def __init__(self, seed, mode, version, *, link=None, parameters=None, **more):
        make, target = PAIRS[mode]
        client, server = make()
        self.network = VirtualNetwork(seed)
        if link is not None:
            self.network.default_link = link
        self.parameters = dataclasses.replace(
            parameters or Parameters(), versions=(VERSIONS[version],), **{"retransmission": 1.0, **more}
        )
        self.server = Host(self.network, "s", server, listening=True, parameters=self.parameters)
        self.client = Host(self.network, "c", client, parameters=self.parameters)
        self.target = target

    def connect(self, until=300.0):
        self.number = self.client.engine.connect(("c", "s"), self.network.now, self.target)
        self.network.touch("c")
        self.network.run(self.network.now + until)

    def talks(self):
        """Both ends are connected, to each other, and data passes both ways."""
        (connected,) = self.client.found(Connected)
        accepted = self.server.found(Connected)[-1]
        for link in (self.network.link("c", "s"), self.network.link("s", "c")):
            link.loss = link.duplicate = 0.0
        now = self.network.now
        self.client.engine.send(connected.association, b"ping", now)
        self.server.engine.send(accepted.association, b"pong", now)
        self.network.touch("c")
        self.network.touch("s")
        self.network.run(now + 5)
        return self.server.found(Received)[-1].data == b"ping" and self.client.found(Received)[-1].data == b"pong"


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("mode", PAIRS)
@pytest.mark.parametrize("mtu", [256, 1152])
def test_every_datagram_may_be_lost_once(mode, version, mtu):
    """Whichever datagrams of the handshake are lost, one or two of them, it completes."""
    whole = World(1, mode, version, mtu=mtu, cid=2)
    whole.network.captured = []
    whole.connect()
    count = len(whole.network.captured)
    assert whole.talks()
    pairs = [(one,) for one in range(count)] + random.Random(7).sample(
        list(itertools.combinations(range(count), 2)), min(12, count * (count - 1) // 2)
    )
    for lost in pairs:
        world = World(1, mode, version, mtu=mtu, cid=2)
        send, numbers = world.network._transmit, itertools.count()

        def transmit(source, data, path, send=send, numbers=numbers, lost=lost):
            if next(numbers) not in lost:
                send(source, data, path)

        world.network._transmit = transmit
        world.connect()
        assert world.client.found(Connected), (lost, world.client.events, world.server.events)
        assert world.talks(), lost


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("mode", PAIRS)
@pytest.mark.parametrize("seed", range(12))
def test_loss_reordering_and_duplication_together(mode, version, seed):
    """A fifth of all datagrams lost, a fifth doubled, delays of up to 0.4 s apart, small datagrams on odd seeds."""
    link = Link(delay=0.05, jitter=0.4, loss=0.2, duplicate=0.2)
    world = World(
        seed, mode, version, link=link, mtu=300 if seed % 2 else 1152, retransmissions=8, cid=seed % 4 or None
    )
    world.connect()
    assert world.client.found(Connected), (world.client.events, world.server.events)
    assert world.talks()
    assert len(world.client.found(Connected)) == 1


@pytest.mark.parametrize("version", VERSIONS)
def test_a_server_that_is_silent_is_given_up_in_time(version):
    """RFC 7925 section 11: 9 s, doubled up to 60 s."""
    world = World(1, "psk", version, retransmission=9.0)
    world.network.partition("c", "s")
    world.network.captured = []
    world.connect()
    (failed,) = world.client.events
    assert isinstance(failed, Failed)
    assert failed.reason.value == "timeout"
    assert [time for time, _, _ in world.network.captured] == [0.0, 9.0, 27.0, 63.0, 123.0]
    assert world.client.engine.next_timeout() is None


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("mode", PAIRS)
def test_a_client_that_goes_away_leaves_nothing(mode, version):
    world = World(1, mode, version)
    world.network.at(0.0012, lambda: world.network.partition("c", "s"))
    world.connect(1000.0)
    assert len(world.server.engine) == len(world.client.engine) == 0
    assert world.server.engine.next_timeout() is None


@pytest.mark.parametrize("version", VERSIONS)
def test_a_lost_last_flight_is_asked_for_again(version):
    world = World(3, "psk", version)
    # Everything the server sends after its first long flight is lost for a while.
    world.network.at(0.0021, lambda: setattr(world.network.link("s", "c"), "up", False))
    world.network.at(0.9, lambda: setattr(world.network.link("s", "c"), "up", True))
    world.connect()
    assert world.talks()
    assert world.server.engine.counters["dtls_retransmissions"] >= 1


@pytest.mark.parametrize("version", VERSIONS)
def test_an_idle_association_is_closed(version):
    world = World(1, "psk", version, idle=100.0)
    world.connect(50.0)
    assert world.talks()
    world.network.run(500.0)
    assert len(world.server.engine) == len(world.client.engine) == 0


@pytest.mark.parametrize("version", VERSIONS)
def test_one_seed_gives_one_history(version):
    def history():
        world = World(5, "psk", version, link=Link(delay=0.05, jitter=0.4, loss=0.2, duplicate=0.2))
        world.network.captured = []
        world.connect()
        return world.network.captured

    assert history() == history()

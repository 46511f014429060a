"""Client and server of ours against each other over a network that loses, doubles and delays: bodies arrive whole and
once, and whoever observes ends up with the newest state."""

import heapq
import random

import pytest
from coap_lockstep import seeded

from vitalgate.coap import (
    Code,
    Endpoint,
    Message,
    NotificationReceived,
    Option,
    Parameters,
    RequestFailed,
    ResponseReceived,
    Site,
    build_options,
)

SERVER, CLIENT = ("192.0.2.1", 5683), ("192.0.2.2", 4000)


class Network:
    """Two endpoints in virtual time."""

    def __init__(self, seed, *, loss=0.2, client_size=64, server_size=64):
        self.now = 100.0
        self.random = random.Random(seed)
        self.loss = loss
        self.flying = []
        self.order = 0
        self.site = Site(randomness=seeded(seed))
        self.server = Endpoint(
            site=self.site, randomness=seeded(seed + 1), parameters=Parameters(block_size=server_size)
        )
        self.client = Endpoint(randomness=seeded(seed + 2), parameters=Parameters(block_size=client_size))
        self.events = []

    def turn(self):
        """Go to the next moment at which something happens."""
        for engine, here, there in ((self.client, CLIENT, SERVER), (self.server, SERVER, CLIENT)):
            for data, path in engine.datagrams_to_send(self.now):
                assert path == there
                for _ in range(self.random.choices((0, 1, 2), (self.loss, 0.95 - self.loss, 0.05))[0]):
                    self.order += 1
                    delay = self.random.choice((0.01, 0.02, 0.05, 0.3))
                    heapq.heappush(self.flying, (self.now + delay, self.order, data, there, here))
        timeouts = [due for due in (self.client.next_timeout(), self.server.next_timeout()) if due is not None]
        self.now = max(self.now, min([*timeouts, *[flight[0] for flight in self.flying[:1]]]))
        while self.flying and self.flying[0][0] <= self.now:
            _, _, data, there, here = heapq.heappop(self.flying)
            (self.server if there == SERVER else self.client).receive_datagram(data, here, self.now)
        self.client.handle_timeout(self.now)
        self.server.handle_timeout(self.now)
        while (event := self.client.next_event()) is not None:
            self.events.append(event)

    def until(self, condition, *, within=2000.0):
        end = self.now + within
        while not (found := condition()):
            assert self.now < end, "it takes too long"
            self.turn()
        return found

    def outcome(self, exchange):
        def ended():
            kinds = ResponseReceived | RequestFailed
            return next((e for e in self.events if isinstance(e, kinds) and e.exchange == exchange), None)

        return self.until(ended)


@pytest.mark.parametrize("sizes", [(64, 64), (1024, 64), (64, 1024), (128, 32)])
@pytest.mark.parametrize("seed", range(6))
def test_body_and_answer_under_loss(seed, sizes):
    net = Network(seed, client_size=sizes[0], server_size=sizes[1])
    body = random.Random(seed).randbytes(3000)
    bodies = []

    def handler(request, path, identity, now):
        bodies.append(request.payload)
        return Message(Code.CHANGED, (), request.payload[::-1])

    net.site.add("echo", handler, methods=[Code.POST], small=True)
    post = net.client.request(Message(Code.POST, build_options("echo"), body), SERVER, net.now)
    outcome = net.outcome(post)
    if isinstance(outcome, ResponseReceived):
        assert (outcome.response.code, outcome.response.payload) == (Code.CHANGED, body[::-1])
        assert bodies == [body]
    else:
        assert set(bodies) <= {body}, "given up on the way: nothing half was taken"


@pytest.mark.parametrize("seed", range(10))
def test_two_bodies_at_once_under_loss(seed):
    net = Network(seed, loss=0.1)
    bodies = []

    def handler(request, path, identity, now):
        bodies.append(request.payload)
        return Message(Code.CHANGED, (), request.payload[:1])

    net.site.add("sink", handler, methods=[Code.PUT], small=True)
    sent = [bytes([65 + n]) * (500 + n) for n in range(3)]
    numbers = [net.client.request(Message(Code.PUT, build_options("sink"), body), SERVER, net.now) for body in sent]
    for number, body in zip(numbers, sent, strict=True):
        outcome = net.outcome(number)
        assert isinstance(outcome, ResponseReceived)
        assert outcome.response.payload == body[:1]
    assert sorted(bodies) == sent


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("seed", range(10))
def test_whoever_observes_ends_with_the_newest_state(seed, large):
    """RFC 7641 section 1.3: eventual consistency, in order."""
    net = Network(seed, loss=0.15)
    state = 0

    def value():
        return (b"%06d" % state) * (50 if large else 1)

    def handler(request, path, identity, now):
        return Message(Code.CONTENT, ((Option.ETAG, b"%d" % state), (Option.MAX_AGE, b"\x3c")), value())

    net.site.add("state", handler, methods=[Code.GET], idempotent=True, observable=True, confirmable=seed % 2 == 0)
    number = net.client.observe(Message(Code.GET, build_options("state")), SERVER, net.now)
    net.until(lambda: net.events)
    change = net.now
    for _ in range(12):
        change += net.random.choice((0.1, 1.0, 4.0, 20.0))
        net.until(lambda end=change: net.now >= end)
        state += 1
        net.site.notify("state", net.now)

    def seen():
        return [event.response.payload for event in net.events if isinstance(event, NotificationReceived)]

    net.until(lambda: seen() and seen()[-1] == value())
    states = [int(payload[:6]) for payload in seen()]
    assert all(payload == payload[:6] * (50 if large else 1) for payload in seen()), "none is mixed of two states"
    assert states == sorted(states)
    assert not any(isinstance(event, RequestFailed | ResponseReceived) for event in net.events)
    net.client.deregister(number, net.now)
    net.outcome(number)
    assert len(net.server._server.extensions.observations) == 0

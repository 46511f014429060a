"""Whatever arrives, in whatever order: no exception, nothing accepted that was not sent, and life goes on."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oscore_world import CHANGED, CLOUD, GATEWAY, KEYS, POST, World, again, events, site_of

from vitalgate.coap import Code, Message, Parameters, RequestFailed, ResponseReceived, Site
from vitalgate.coap.codec import decode, encode
from vitalgate.net.virtual import VirtualNetwork
from vitalgate.oscore.context import SecurityContext
from vitalgate.oscore.contexts import Contexts
from vitalgate.oscore.endpoint import Endpoint
from vitalgate.oscore.option import Header
from vitalgate.oscore.option import decode as decode_header
from vitalgate.oscore.option import encode as encode_header
from vitalgate.oscore.sequence import MemorySequenceStore

OPEN = {("enroll",)}


def still_works(world: World) -> None:
    world.wait(300.0)
    events(world.client)
    events(world.server)
    exchange = world.request()
    world.exchange()
    answers = [event for event in events(world.client) if event.exchange == exchange]
    assert [type(event) for event in answers] == [ResponseReceived]
    assert answers[0].response.payload == CHANGED.payload


class Recorder:
    def __init__(self):
        self.payloads = []

    def __call__(self, request, path, identity, now):
        self.payloads.append((identity, request.payload))
        return CHANGED


def world_with_recorder() -> tuple[World, Recorder]:
    recorder = Recorder()
    return World(site=site_of(recorder), unprotected=OPEN), recorder


values = st.one_of(
    st.binary(max_size=20),
    st.builds(
        lambda piv, kid, context: encode_header(Header(piv, kid, context)),
        st.sampled_from([b"", b"\0", b"\1", b"\xff\xff\xff\xff\xff"]),
        st.sampled_from([None, b"", b"g", b"x"]),
        st.sampled_from([None, b"", b"c"]),
    ),
)
near_oscore = st.builds(
    lambda code, value, payload, kind, mid, token: encode(Message(code, ((9, value),), payload, kind, mid, token)),
    st.sampled_from([1, 2, 5, 68, 69, 129, 132, 160]),
    values,
    st.binary(max_size=40),
    st.integers(0, 3),
    st.integers(0, 65535),
    st.binary(max_size=8),
)


@settings(derandomize=True, deadline=None, max_examples=150)
@given(datagrams=st.lists(st.one_of(st.binary(max_size=60), near_oscore), max_size=12))
def test_garbage_raises_nothing_and_is_never_served(datagrams):
    world, recorder = world_with_recorder()
    world.request()
    world.from_client()
    for data in datagrams:
        for cut in (data, data[: len(data) // 2]):
            world.to_server(cut, "stranger")
            world.to_client(cut)
            world.from_server()
            world.from_client()
    assert recorder.payloads == []
    assert not any(isinstance(event, ResponseReceived) for event in events(world.client))
    still_works(world)


@settings(derandomize=True, deadline=None, max_examples=200)
@given(data=st.data())
def test_mutated_datagrams_are_never_believed(data):
    world, recorder = world_with_recorder()
    body = b"exactly this, or nothing"
    exchange = world.request(Message(Code.POST, POST.options, body))
    (request,) = world.from_client()

    def mutated(datagram):
        raw = bytearray(datagram)
        for _ in range(data.draw(st.integers(1, 3))):
            position = data.draw(st.integers(0, len(raw) - 1))
            action = data.draw(st.sampled_from(["flip", "cut", "insert", "drop"]))
            if action == "flip":
                raw[position] ^= 1 << data.draw(st.integers(0, 7))
            elif action == "insert":
                raw.insert(position, data.draw(st.integers(0, 255)))
            elif action == "drop" and len(raw) > 1:
                del raw[position]
            else:
                del raw[max(1, position) :]
        return bytes(raw)

    world.to_server(mutated(request))
    world.from_server()
    assert all(payload == body for _, payload in recorder.payloads), "header bits may differ, never the content"
    world.to_server(request)
    assert len(recorder.payloads) <= 1
    for response in world.from_server():
        world.to_client(mutated(response))
    for event in events(world.client):
        assert event.exchange == exchange
        assert isinstance(event, RequestFailed) or event.response.payload == CHANGED.payload
    still_works(world)


def test_every_prefix_of_both_messages():
    world, recorder = world_with_recorder()
    world.request()
    (request,) = world.from_client()
    for size in range(len(request)):
        world.to_server(request[:size])
        world.from_server()
    assert recorder.payloads == []
    world.to_server(again(request, mid=9))
    (response,) = world.from_server()
    response = again(response, mid=int.from_bytes(request[2:4], "big"))
    for size in range(len(response)):
        world.to_client(response[:size])
        world.from_client()
    assert not any(isinstance(event, ResponseReceived) for event in events(world.client))
    world.to_client(response)
    assert [type(event) for event in events(world.client)] == [ResponseReceived]


@settings(derandomize=True, deadline=None, max_examples=60)
@given(data=st.data())
def test_requests_replayed_in_any_order_at_any_time_run_once(data):
    world, recorder = world_with_recorder()
    kept = []
    for n in range(6):
        world.request(Message(Code.POST, POST.options, bytes((n,))))
    while datagrams := world.from_client():
        kept += datagrams
        for datagram in datagrams:
            world.to_server(datagram)
        for datagram in world.from_server():
            world.to_client(datagram)
    for _ in range(10):
        datagram = data.draw(st.sampled_from(kept))
        if data.draw(st.booleans()):
            datagram = again(datagram, mid=data.draw(st.integers(0, 65535)), token=data.draw(st.binary(max_size=8)))
        if data.draw(st.integers(0, 9)) == 0:
            world.start_server(fresh=False)
        world.now += data.draw(st.sampled_from([0.0, 1.0, 500.0]))
        world.to_server(datagram, data.draw(st.sampled_from([GATEWAY, "elsewhere"])))
        world.from_server()
    assert [payload for _, payload in recorder.payloads] == [bytes((n,)) for n in range(6)]


# Over a network that loses, doubles, delays and reorders, with restarts on both sides


class Hosts:
    """A gateway that sends numbered requests until each is answered, and a cloud, on a seeded network."""

    def __init__(self, seed: int, **model) -> None:
        self.network = VirtualNetwork(seed)
        for name, value in model.items():
            setattr(self.network.default_link, name, value)
        self.network.captured = []
        self.stores = {GATEWAY: MemorySequenceStore(), CLOUD: MemorySequenceStore()}
        self.served: list[bytes] = []
        self.answered: set[bytes] = set()
        self.failed: list[RequestFailed] = []
        self.todo: list[bytes] = []
        self.life = 0
        self.start(GATEWAY, fresh=True)
        self.start(CLOUD, fresh=True)

    def start(self, name: str, *, fresh: bool) -> None:
        self.life += 1
        other = CLOUD if name == GATEWAY else GATEWAY
        keys = KEYS if name == GATEWAY else KEYS.reversed()
        contexts = Contexts()
        contexts.add(SecurityContext(other, keys, self.stores[name], fresh=fresh, block=8), path=(name, other))
        parameters = Parameters(ack_timeout=0.5, max_latency=5.0, nstart=4)
        site = Site() if name == CLOUD else None
        if site is not None:
            site.add("ingest", self.serve)
        randomness = self.network.randomness(f"{name}{self.life}")
        engine = Endpoint(contexts=contexts, site=site, parameters=parameters, randomness=randomness)
        if name == GATEWAY:
            self.gateway, self.under_way = engine, {}
        self.network.add_host(name, engine, on_turn=self.turn if name == GATEWAY else None)

    def serve(self, request, _path, identity, _now):
        assert identity == GATEWAY
        self.served.append(request.payload)
        return Message(Code.CHANGED, (), b"got " + request.payload)

    def turn(self, now: float) -> None:
        for event in events(self.gateway):
            body = self.under_way.pop(event.exchange)
            if isinstance(event, ResponseReceived):
                assert event.response.payload == b"got " + body
                self.answered.add(body)
            else:
                self.failed.append(event)
                self.todo.append(body)  # as the uplink would: once more, under a new number
        while self.todo and len(self.under_way) < 8:
            body = self.todo.pop(0)
            message = Message(Code.POST, POST.options, body)
            self.under_way[self.gateway.request(message, (GATEWAY, CLOUD), now)] = body


@pytest.mark.parametrize("seed", range(3))
def test_over_a_bad_network_with_restarts(seed):
    hosts = Hosts(seed, loss=0.2, duplicate=0.1, jitter=0.3, delay=0.05)
    bodies = [b"%d" % n for n in range(60)]
    hosts.todo = list(bodies)
    random.Random(seed).shuffle(bodies)

    def crash(name):
        hosts.network.remove_host(name)
        if name == GATEWAY:
            hosts.todo = list(hosts.under_way.values()) + hosts.todo
        hosts.start(name, fresh=False)

    for second, name in ((3.0, CLOUD), (6.0, GATEWAY), (9.0, CLOUD), (9.5, CLOUD), (12.0, GATEWAY)):
        hosts.network.at(second, lambda name=name: crash(name))
    hosts.network.touch(GATEWAY)
    hosts.network.run(1500.0)
    assert hosts.answered == set(bodies)
    # However often the two restarted, no number was used twice under a key: one Partial IV, one ciphertext.
    # The same for requests' numbers that a response without Partial IV borrows.
    used: dict[tuple[str, bytes], set[bytes]] = {}
    asked: dict[bytes, bytes] = {}
    for _, (source, _), datagram in hosts.network.captured:
        message = decode(datagram)
        value = message.option(9)
        if value:
            used.setdefault((source, decode_header(value).piv), set()).add(message.payload)
        if source == GATEWAY and value:
            asked[message.token] = decode_header(value).piv
        elif value == b"":
            used.setdefault(("borrowed", asked[message.token]), set()).add(message.payload)
    assert len(used) > len(bodies)
    assert {source for source, _ in used} == {GATEWAY, CLOUD, "borrowed"}
    assert all(len(ciphertexts) == 1 for ciphertexts in used.values())


def test_the_same_seed_gives_the_same_history():
    def history(seed):
        hosts = Hosts(seed, loss=0.1, jitter=0.2)
        hosts.todo = [b"%d" % n for n in range(20)]
        hosts.network.touch(GATEWAY)
        hosts.network.run(200.0)
        assert len(hosts.answered) == 20
        return hosts.network.captured

    assert history(5) == history(5)
    assert history(5) != history(6)

"""Blocks and observations against peers that say anything at all: no exception, every request ends, nothing is left."""

from coap_asking import Client
from coap_blocks import TEXT, Server
from hypothesis import given, settings
from hypothesis import strategies as st

from vitalgate.coap import (
    Code,
    Message,
    NotificationReceived,
    Option,
    TransferProgressed,
    Type,
    build_options,
    decode,
    encode,
)

SMALL = st.binary(max_size=3)
OPTIONS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from([Option.BLOCK1, Option.BLOCK2, Option.OBSERVE]), SMALL),
        st.tuples(st.sampled_from([Option.SIZE1, Option.SIZE2, Option.MAX_AGE]), SMALL),
        st.tuples(st.sampled_from([Option.ETAG, Option.ECHO]), st.binary(min_size=1, max_size=2)),
        st.tuples(st.just(Option.NO_RESPONSE), st.binary(max_size=1)),
        st.tuples(st.just(Option.REQUEST_TAG), st.binary(max_size=1)),
    ),
    unique_by=lambda pair: pair[0],
    max_size=4,
)
LENGTHS = st.sampled_from([0, 1, 16, 32, 63, 64, 65, 128, 300])
RESPONSES = st.sampled_from([*(code for code in Code if code > Code.IPATCH), 0xE1, 0x5F])
ANSWERS = st.lists(
    st.tuples(RESPONSES, OPTIONS, LENGTHS, st.sampled_from(list(Type)), st.integers(0, 3), st.floats(0, 40)),
    max_size=25,
)
REQUESTS = st.lists(
    st.tuples(
        st.sampled_from(["large", "sink", "both", "later", "watched"]), st.sampled_from(range(1, 8)), OPTIONS, LENGTHS,
        st.sampled_from([Type.CON, Type.NON]), st.floats(0, 40), st.binary(max_size=1),
    ),
    max_size=40,
)  # fmt: skip
RESET = st.lists(st.booleans(), min_size=40, max_size=40)


@settings(derandomize=True, deadline=None, max_examples=100)
@given(answers=ANSWERS, kind=st.sampled_from(["get", "put", "post", "observe"]), size=st.sampled_from([64, 1024]))
def test_client_and_a_server_that_says_anything(answers, kind, size):
    step = Client(block_size=size)
    if kind == "observe":
        number = step.observes()
    else:
        number = step.asks(
            {"get": Code.GET, "put": Code.PUT, "post": Code.POST}[kind], payload=TEXT if kind != "get" else b""
        )
    known, mid = [], 0x5000
    events = []
    for code, options, length, type_, which, wait in answers:
        known += [decode(data) for data in step.said()]
        requests = [message for message in known if 0 < message.code < 32]
        if requests:
            asked = requests[-1 - which % len(requests)]
            mid += 1
            number_ = asked.mid if type_ in (Type.ACK, Type.RST) else mid
            if type_ is Type.RST:
                answer = Message(0, (), b"", type_, number_)
            else:
                answer = Message(code, build_options(more=options), TEXT[:length], type_, number_, asked.token)
            step.hears(encode(answer))
        step.wait(wait)
        events += step.events()
    step.endpoint.cancel(number, step.now)
    events += step.events()
    ends = [event for event in events if not isinstance(event, TransferProgressed | NotificationReceived)]
    assert len(ends) == 1, "every request ends once"
    assert ends[0].exchange == number
    assert len(step.endpoint._calls) == 0
    assert len(step.endpoint.client) == 0
    step.wait(1000)
    assert step.endpoint.next_timeout() is None
    assert len(step.endpoint._core.reliability) == 0
    assert not step.endpoint._core.peers


@settings(derandomize=True, deadline=None, max_examples=100)
@given(requests=REQUESTS, reset=RESET)
def test_server_and_a_client_that_says_anything(requests, reset):
    step = Server()
    step.endpoint._server._site.add("watched", step.large, methods=[Code.GET, Code.FETCH], observable=True)
    for mid, (request, refuse) in enumerate(zip(requests, reset, strict=False)):
        path, code, options, length, kind, wait, token = request
        step.hears(encode(Message(code, build_options(path, more=options), TEXT[:length], kind, mid, token)))
        step.large.content = TEXT[mid % 300 :]
        step.endpoint._server._site.notify("watched", step.now)
        for data in step.said():
            message = decode(data)
            if message.type is Type.CON or refuse:
                step.hears(encode(Message(0, type=Type.RST if refuse else Type.ACK, mid=message.mid)))
        for event in step.events():
            if event.exchange % 2:
                step.endpoint.respond(event.exchange, Message(Code.CONTENT, (), TEXT), step.now)
        step.wait(wait)
    observations = step.endpoint._server.extensions.observations
    for observer in list(observations._observers.values()):
        for token in list(observer.observations):
            observations.deregister(observer.peer.path, token, step.now)
    step.wait(5000)
    step.said()
    assert len(observations) == 0
    assert not observations._observers
    assert not observations._resources
    assert not observations._by_mid
    assert not observations._deferred
    blocks = step.endpoint._server.extensions.blocks
    assert (len(blocks), blocks._assembly_bytes, blocks._representation_bytes) == (0, 0, 0)
    assert step.endpoint.next_timeout() is None
    assert len(step.endpoint._core.reliability) == 0
    assert not step.endpoint._core.peers

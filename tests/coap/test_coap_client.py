"""The client side against a peer scripted datagram by datagram (RFC 7252 sections 4.2 to 5.3, appendix A)."""

import pytest
from coap_lockstep import PEER, Lockstep, seeded

from vitalgate.coap import (
    Code,
    Endpoint,
    Failure,
    Limits,
    Message,
    Parameters,
    RequestFailed,
    ResponseReceived,
    Type,
    build_options,
    decode,
    encode,
)

GET = Message(Code.GET, build_options("temperature"))


def client(**kwargs) -> Lockstep:
    kwargs.setdefault("randomness", seeded())
    return Lockstep(Endpoint(**kwargs))


def one(step: Lockstep) -> Message:
    (data,) = step.said()
    return decode(data)


def reply(to: Message, code=Code.CONTENT, kind=Type.ACK, mid=None, options=(), payload=b"22.3 C", token=None) -> bytes:
    return encode(
        Message(code, options, payload, kind, to.mid if mid is None else mid, to.token if token is None else token)
    )


def test_parameters_of_table_3():
    p = Parameters()
    assert (p.max_transmit_span, p.max_transmit_wait, p.max_latency, p.processing_delay) == (45, 93, 100, 2)
    assert (p.max_rtt, p.exchange_lifetime, p.non_lifetime) == (202, 247, 145)
    # With a last wait above MAX_LATENCY, EXCHANGE_LIFETIME has to hold MAX_TRANSMIT_WAIT too (section 4.8.2).
    long = Parameters(max_retransmit=7)
    assert long.max_transmit_wait - long.max_transmit_span == 384
    assert long.exchange_lifetime == long.max_transmit_span + (384 - 100) + long.max_rtt


@pytest.mark.parametrize(
    "wrong",
    [
        {"ack_timeout": 0}, {"ack_random_factor": 0.9}, {"max_retransmit": -1}, {"nstart": 0}, {"probing_rate": 0},
        {"max_latency": 0}, {"piggyback_window": -1},
    ],
)  # fmt: skip
def test_parameters_that_section_4_8_1_forbids(wrong):
    with pytest.raises(ValueError):
        Parameters(**wrong)


def test_piggybacked_response():
    """Figures 16 and 17."""
    step = client()
    number = step.endpoint.request(GET, PEER, step.now)
    request = one(step)
    assert (request.type, request.code, request.options, request.payload) == (Type.CON, Code.GET, GET.options, b"")
    assert len(request.token) == 8
    step.hears(reply(request))
    event = step.event()
    assert isinstance(event, ResponseReceived)
    assert (event.exchange, event.path, event.response.payload) == (number, PEER, b"22.3 C")
    step.wait(300)
    step.silent()
    assert step.events() == []
    assert step.endpoint.next_timeout() is None, "nothing is kept of a finished exchange and an idle peer"


def test_retransmission_doubles_and_gives_up():
    """Section 4.2: MAX_RETRANSMIT times at doubling intervals, the first random in [ACK_TIMEOUT, 1.5 ACK_TIMEOUT]."""
    step = client()
    number = step.endpoint.request(GET, PEER, step.now)
    (first,) = step.said()
    start = step.now
    sent = []
    while not (events := step.events()):
        step.turn()
        sent += [(step.now - start, data) for data in step.said()]
    assert [data for _, data in sent] == [first] * 4, "the same bytes each time"
    times = [moment for moment, _ in sent]
    timeout = times[0]
    assert 2.0 <= timeout <= 3.0
    assert times == pytest.approx([timeout, 3 * timeout, 7 * timeout, 15 * timeout])
    assert step.now - start == pytest.approx(31 * timeout)
    assert step.now - start <= Parameters().max_transmit_wait
    assert events == [RequestFailed(number, PEER, Failure.TIMEOUT)]
    assert step.count("coap_retransmissions") == 4
    assert step.count("coap_requests_failed", "timeout") == 1


def test_first_timeout_is_spread_over_the_whole_interval():
    timeouts = []
    for seed in range(200):
        step = client(randomness=seeded(seed))
        step.endpoint.request(GET, PEER, 0.0)
        timeouts.append(step.endpoint.next_timeout())
    assert min(timeouts) >= 2.0
    assert max(timeouts) <= 3.0
    assert min(timeouts) < 2.05
    assert max(timeouts) > 2.95


def test_a_late_retransmission_keeps_spacing_and_span():
    """Section 4.2: who slept does not catch up within ACK_TIMEOUT, and sends nothing after MAX_TRANSMIT_SPAN."""
    step = client()
    number = step.endpoint.request(GET, PEER, step.now)
    (first,) = step.said()
    step.now += 40
    step.endpoint.handle_timeout(step.now)
    step.says(first)
    assert step.endpoint.next_timeout() == pytest.approx(step.now + 2)
    step.now += 10  # 50 s after the start: out of the span
    step.endpoint.handle_timeout(step.now)
    step.silent()
    step.wait(60)
    step.silent()
    assert step.event() == RequestFailed(number, PEER, Failure.TIMEOUT)


def test_lost_request_then_response():
    """Figure 18."""
    step = client()
    step.endpoint.request(GET, PEER, step.now)
    (first,) = step.said()
    step.wait(3)
    step.says(first)
    step.hears(reply(decode(first)))
    assert isinstance(step.event(), ResponseReceived)
    step.wait(100)
    step.silent()


def test_separate_response_and_its_duplicates():
    """Figure 20; section 4.5: each copy is acknowledged alike, and taken once."""
    step = client()
    step.endpoint.request(GET, PEER, step.now)
    request = one(step)
    step.hears(encode(Message(0, type=Type.ACK, mid=request.mid)))
    step.wait(60)
    step.silent()  # acknowledged: no more retransmissions
    separate = reply(request, kind=Type.CON, mid=0xAD7B)
    step.hears(separate)
    step.says("6000ad7b")
    assert isinstance(step.event(), ResponseReceived)
    step.wait(100)
    step.hears(separate)
    step.says("6000ad7b")
    assert step.events() == []
    step.wait(150)  # EXCHANGE_LIFETIME is over: forgotten, so now it is unexpected
    step.hears(separate)
    step.says("7000ad7b")


def test_separate_response_overtakes_the_acknowledgement():
    """Section 5.2.2: the response stops the retransmission as well."""
    step = client()
    step.endpoint.request(GET, PEER, step.now)
    request = one(step)
    step.hears(reply(request, kind=Type.CON, mid=1))
    step.says("60000001")
    assert isinstance(step.event(), ResponseReceived)
    step.hears(encode(Message(0, type=Type.ACK, mid=request.mid)))
    step.wait(100)
    step.silent()
    assert step.events() == []


def test_non_confirmable_response_to_a_confirmable_request():
    """Section 5.2.3."""
    step = client()
    step.endpoint.request(GET, PEER, step.now)
    request = one(step)
    response = reply(request, kind=Type.NON, mid=7)
    step.hears(response)
    assert isinstance(step.event(), ResponseReceived)
    step.hears(response)
    step.wait(100)
    step.silent()
    assert step.count("coap_duplicates") == 1


def test_non_confirmable_request():
    """Figure 22; no retransmission."""
    step = client()
    step.endpoint.request(GET, PEER, step.now, confirmable=False)
    request = one(step)
    assert request.type == Type.NON
    step.hears(reply(request, kind=Type.NON, mid=9))
    assert isinstance(step.event(), ResponseReceived)


def test_non_confirmable_request_unanswered():
    step = client()
    number = step.endpoint.request(GET, PEER, step.now, confirmable=False)
    one(step)
    step.wait(246)
    step.silent()
    assert step.events() == []
    step.wait(2)
    assert step.event() == RequestFailed(number, PEER, Failure.TIMEOUT)


def test_acknowledged_but_never_answered():
    step = client(parameters=Parameters(response_timeout=60))
    number = step.endpoint.request(GET, PEER, step.now)
    step.hears(encode(Message(0, type=Type.ACK, mid=one(step).mid)))
    step.wait(59)
    assert step.events() == []
    step.wait(2)
    assert step.event() == RequestFailed(number, PEER, Failure.TIMEOUT)


@pytest.mark.parametrize("confirmable", [True, False])
def test_reset_ends_the_request(confirmable):
    step = client()
    number = step.endpoint.request(GET, PEER, step.now, confirmable=confirmable)
    step.hears(encode(Message(0, type=Type.RST, mid=one(step).mid)))
    assert step.event() == RequestFailed(number, PEER, Failure.RESET)
    step.wait(100)
    step.silent()


def test_cancel():
    step = client()
    number = step.endpoint.request(GET, PEER, step.now)
    queued = step.endpoint.request(GET, PEER, step.now)
    request = one(step)
    step.endpoint.cancel(queued, step.now)
    step.endpoint.cancel(number, step.now)
    step.endpoint.cancel(number, step.now)
    step.endpoint.cancel(999, step.now)
    assert [event.reason for event in step.events()] == [Failure.CANCELLED] * 2
    step.wait(100)
    step.silent()
    step.hears(reply(request, kind=Type.CON, mid=5))  # nobody waits any more
    step.says("70000005")


def test_unexpected_responses_are_rejected():
    """Section 5.3.2 and figure 21; an acknowledgement is never answered."""
    step = client()
    step.hears("4145ad7c64ff32322e332043")
    step.says("7000ad7c")
    step.hears("5145ad7c64ff32322e332043")
    step.says("7000ad7c")
    step.hears("6145ad7c64ff32322e332043")
    step.hears("6000ad7c")
    step.hears("7000ad7c")
    step.silent()
    assert step.count("coap_rejected", "unexpected_response") == 2
    assert step.count("coap_rejected", "unexpected_acknowledgement") == 2
    assert step.count("coap_rejected", "unexpected_reset") == 1


def test_response_must_match_source_and_token():
    """Section 5.3.2, and 11.4: who cannot see the token cannot answer."""
    step = client()
    step.endpoint.request(GET, PEER, step.now)
    request = one(step)
    step.hears(reply(request, token=b"\0" * 8))
    step.silent()
    step.hears(reply(request, kind=Type.NON, mid=3), path=("198.51.100.7", 5683))
    assert step.endpoint.datagrams_to_send(step.now) == [(bytes.fromhex("70000003"), ("198.51.100.7", 5683))]
    step.hears(reply(request), path=("198.51.100.7", 5683))
    step.hears(reply(request, mid=request.mid ^ 1))
    assert step.events() == []
    step.silent()
    assert step.count("coap_rejected", "token") == 1
    step.hears(reply(request))
    assert isinstance(step.event(), ResponseReceived)


@pytest.mark.parametrize("code", [Code.GET, 0x20, 0x60, 0xC0, 0xE1])
def test_acknowledgement_with_a_code_that_it_may_not_have(code):
    """Section 4.2: silently ignored; the request goes on."""
    step = client()
    step.endpoint.request(GET, PEER, step.now)
    request = one(step)
    step.hears(reply(request, code=code))
    step.silent()
    assert step.events() == []
    assert step.count("coap_rejected", "reserved_code") == 1
    step.wait(3)
    assert one(step) == request


@pytest.mark.parametrize(
    "damaged", ["61450000", "60000000ff", "6045{}ff", "6145{}", "70450000", "7000{}00", "7145{}00"]
)
def test_malformed_acknowledgements_and_resets_are_never_answered(damaged):
    step = client()
    step.endpoint.request(GET, PEER, step.now)
    request = one(step)
    step.hears(damaged.format(f"{request.mid:04x}"))
    step.silent()
    assert step.events() == []
    assert step.endpoint.counters.total("coap_rejected") == 1


def test_critical_option_in_a_response():
    """Section 5.4.1: rejected; the application hears why it gets none."""
    step = client()
    number = step.endpoint.request(GET, PEER, step.now)
    step.hears(reply(one(step), options=((65001, b""),)))
    step.silent()
    assert step.event() == RequestFailed(number, PEER, Failure.REJECTED)
    number = step.endpoint.request(GET, PEER, step.now)
    step.hears(reply(one(step), kind=Type.CON, mid=4, options=((65001, b""),)))
    step.says("70000004")
    assert step.event() == RequestFailed(number, PEER, Failure.REJECTED)
    step.endpoint.request(GET, PEER, step.now)
    step.hears(reply(one(step), options=((65000, b""),)))
    assert step.event().response.options == (), "unrecognised elective options are ignored"


def test_option_that_a_layer_above_understands():
    step = client(understands=frozenset({9}))
    step.endpoint.request(GET, PEER, step.now)
    step.hears(reply(one(step), options=((9, b""),)))
    assert step.event().response.options == ((9, b""),)


def test_nstart_is_one_and_the_rest_waits_its_turn():
    """Section 4.7."""
    step = client()
    numbers = [step.endpoint.request(Message(Code.GET, build_options(name)), PEER, step.now) for name in "abc"]
    other = ("192.0.2.9", 5683)
    step.endpoint.request(GET, other, step.now)
    sent = step.endpoint.datagrams_to_send(step.now)
    assert [path for _, path in sent] == [PEER, other], "another peer is not held up"
    first = decode(sent[0][0])
    step.hears(reply(first, payload=b"a"))
    second = one(step)
    assert second.options == build_options("b")
    step.hears(encode(Message(0, type=Type.ACK, mid=second.mid)))
    third = one(step)  # an acknowledged request no longer counts
    step.hears(reply(third, payload=b"c"))
    step.hears(reply(second, kind=Type.NON, mid=1, payload=b"b"))
    assert [(event.exchange, event.response.payload) for event in step.events()] == [
        (numbers[0], b"a"),
        (numbers[2], b"c"),
        (numbers[1], b"b"),
    ]


def test_nstart_after_failures():
    step = client()
    for _ in range(4):
        step.endpoint.request(GET, PEER, step.now)
    step.hears(encode(Message(0, type=Type.RST, mid=one(step).mid)))
    one(step)
    step.wait(94)  # the second times out
    third = [decode(data) for data in step.said()][-1]
    step.endpoint.cancel(3, step.now)
    assert one(step).mid == third.mid + 1
    assert [event.reason for event in step.events()] == [Failure.RESET, Failure.TIMEOUT, Failure.CANCELLED]


def test_nstart_of_two():
    step = client(parameters=Parameters(nstart=2))
    for _ in range(3):
        step.endpoint.request(GET, PEER, step.now)
    first, _ = step.said()
    step.hears(reply(decode(first)))
    assert len(step.said()) == 1


def test_probing_rate_towards_a_silent_peer():
    """Section 4.7: unanswered Non-confirmable requests of n bytes follow each other n seconds apart."""
    step = client()
    request = Message(Code.POST, build_options("a"), b"x" * 85)
    for _ in range(3):
        step.endpoint.request(request, PEER, step.now, confirmable=False)
    (first,) = step.said()
    assert len(first) == 100
    step.wait(99.9)
    step.silent()
    step.wait(0.2)
    assert len(step.said()) == 1
    step.wait(99.9)
    assert len(step.said()) == 1


def test_message_ids_start_at_random_and_count_up():
    starts = set()
    for seed in range(20):
        step = client(randomness=seeded(seed), parameters=Parameters(nstart=3))
        for path in (PEER, PEER, ("192.0.2.2", 1)):
            step.endpoint.request(GET, path, step.now)
        a, b, c = (decode(data).mid for data, _ in step.endpoint.datagrams_to_send(step.now))
        assert b == (a + 1) & 0xFFFF
        starts |= {a, c}
    assert len(starts) == 40


def test_tokens_are_eight_random_bytes_each_time():
    asked = []

    def randomness(size):
        asked.append(size)
        return seeded(len(asked))(size)

    step = client(randomness=randomness, parameters=Parameters(nstart=100))
    for _ in range(100):
        step.endpoint.request(GET, PEER, step.now)
    tokens = {decode(data).token for data in step.said()}
    assert len(tokens) == 100
    assert asked.count(8) == 100


def test_a_token_in_use_is_not_taken_again():
    def stuck(size):
        stuck.calls += 1
        return bytes(size) if stuck.calls < 12 else bytes([stuck.calls]) * size

    stuck.calls = 0
    step = client(randomness=stuck, parameters=Parameters(nstart=2))
    for _ in range(2):
        step.endpoint.request(GET, PEER, step.now)
    first, second = (decode(data).token for data in step.said())
    assert first == bytes(8)
    assert second != first


def test_no_message_id_twice_within_exchange_lifetime():
    """Section 4.4: after 65536 messages the next one waits until the oldest are old enough, and then goes out."""
    step = client()
    seen: dict[int, float] = {}
    number = 0
    for _ in range(65536 + 4096):
        number = step.endpoint.request(GET, PEER, step.now)
        sent = step.said()
        if not sent:
            break
        request = decode(sent[0])
        assert request.mid not in seen
        seen[request.mid] = step.now
        step.hears(reply(request, payload=b""))
        step.endpoint.next_event()
        step.now += 0.001
    assert 65536 - 4096 <= len(seen) <= 65536
    assert step.count("coap_limit_reached", "message_ids") == 1
    while not (sent := step.said()):
        step.turn()
    request = decode(sent[0])
    group = request.mid // 4096
    assert step.now - max(used for mid, used in seen.items() if mid // 4096 == group) >= 247
    step.hears(reply(request))
    assert step.event().exchange == number


def test_a_reused_message_id_is_old_enough():
    step = client()
    seen: dict[int, float] = {}
    reused = 0
    for _ in range(75000):
        step.endpoint.request(GET, PEER, step.now)
        sent = step.said()
        while not sent:
            step.turn()
            sent = step.said()
        request = decode(sent[0])
        if request.mid in seen:
            reused += 1
            assert step.now - seen[request.mid] >= 247
        seen[request.mid] = step.now
        step.hears(reply(request, payload=b""))
        step.endpoint.next_event()
        step.now += 0.003
    assert reused > 5000


@pytest.mark.parametrize(
    ("limits", "requests", "name"),
    [
        ({"exchanges": 3}, 3, "exchanges"),
        ({"queued_per_peer": 2}, 3, "queued_per_peer"),
        ({"message_bytes": 20}, 0, "message_bytes"),
        ({"servers": 0}, 0, "servers"),
    ],
)
def test_own_limits_fail_the_request(limits, requests, name):
    step = client(limits=Limits(**limits))
    for _ in range(requests):
        step.endpoint.request(GET, PEER, step.now)
    assert step.events() == []
    number = step.endpoint.request(GET, PEER, step.now)
    assert step.event() == RequestFailed(number, PEER, Failure.LIMIT)
    assert step.count("coap_limit_reached", name) == 1


def test_a_server_that_is_idle_gives_its_place_back():
    step = client(limits=Limits(servers=1))
    other = ("192.0.2.9", 5683)
    step.endpoint.request(GET, PEER, step.now)
    step.hears(reply(one(step)))
    step.events()
    step.endpoint.request(GET, other, step.now)
    assert step.event().reason is Failure.LIMIT
    step.wait(300)
    step.endpoint.request(GET, other, step.now)
    assert step.events() == []


@pytest.mark.parametrize(
    "request_",
    [Message(Code.CONTENT), Message(Code.EMPTY), Message(Code.GET, ((11, b"a"), (3, b"b")))],
)
def test_what_is_no_request_is_the_callers_mistake(request_):
    step = client()
    with pytest.raises(ValueError):
        step.endpoint.request(request_, PEER, step.now)
    step.silent()

"""Every rule of RFC 7252 that has a time in it, held datagram by datagram with time turned by hand.

`RULES` lists them with the test that holds each; rules of other RFCs (block-wise transfers, observations, Echo) stand
in the files of those features.
"""

import re
from pathlib import Path

import pytest
from coap_lockstep import PEER, Lockstep, seeded
from hypothesis import given
from hypothesis import strategies as st

from vitalgate.coap import (
    Code,
    Endpoint,
    Failure,
    Message,
    Parameters,
    RequestFailed,
    ResponseReceived,
    Site,
    Type,
    build_options,
    decode,
    encode,
)

HERE = Path(__file__).parent
OWN = "test_coap_timers.py"
RULES = {
    "4.2: the first timeout is random between ACK_TIMEOUT and ACK_TIMEOUT * ACK_RANDOM_FACTOR": (
        "test_coap_client.py::test_first_timeout_is_spread_over_the_whole_interval"
    ),
    "4.2: it is drawn anew for each message": f"{OWN}::test_each_message_draws_its_own_timeout",
    "4.2: timeouts double, MAX_RETRANSMIT times": f"{OWN}::test_back_off_for_any_parameters",
    "4.2: the same bytes each time": "test_coap_client.py::test_retransmission_doubles_and_gives_up",
    "4.2: acknowledgement, Reset message or cancellation end retransmission": f"{OWN}::test_what_ends_retransmission",
    "4.2: who slept keeps the spacing": "test_coap_client.py::test_a_late_retransmission_keeps_spacing_and_span",
    "4.8.2: nothing is sent later than MAX_TRANSMIT_SPAN": f"{OWN}::test_back_off_for_any_parameters",
    "4.8.2: a message is given up within MAX_TRANSMIT_WAIT": f"{OWN}::test_back_off_for_any_parameters",
    "4.2, 5.2.2: responses of ours back off like requests": f"{OWN}::test_a_separate_response_backs_off_too",
    "4.4: no Message ID again within EXCHANGE_LIFETIME": (
        "test_coap_client.py::test_no_message_id_twice_within_exchange_lifetime"
    ),
    "4.5: duplicates of a Confirmable message are known for EXCHANGE_LIFETIME": (
        f"{OWN}::test_duplicates_are_known_for_exactly_their_lifetime"
    ),
    "4.5: duplicates of a Non-confirmable message for NON_LIFETIME": (
        f"{OWN}::test_duplicates_are_known_for_exactly_their_lifetime"
    ),
    "4.5: duplicates do not prolong it": f"{OWN}::test_duplicates_do_not_prolong_it",
    "4.5: duplicates of separate responses are acknowledged for EXCHANGE_LIFETIME": (
        f"{OWN}::test_duplicates_of_responses_are_acknowledged_for_exchange_lifetime"
    ),
    "4.7: NSTART outstanding interactions, others wait": (
        "test_coap_client.py::test_nstart_is_one_and_the_rest_waits_its_turn"
    ),
    "4.7: an interaction ends with response, acknowledgement, Reset, timeout or cancellation": (
        f"{OWN}::test_what_gives_a_share_of_nstart_back"
    ),
    "4.7: PROBING_RATE on average towards a peer that does not respond": f"{OWN}::test_probing_rate_on_average",
    "4.7: no limit by PROBING_RATE while a peer responds": f"{OWN}::test_a_peer_that_answers_is_not_probed",
    "4.8.2: EXCHANGE_LIFETIME and NON_LIFETIME follow from MAX_LATENCY": f"{OWN}::test_derived_times",
    "5.2.2: an Empty acknowledgement when the piggyback window ends": "test_coap_server.py::test_separate_response",
    "5.2.2: a response in the window rides on the acknowledgement": (
        "test_coap_server.py::test_late_response_within_the_window_is_piggybacked"
    ),
    "5.3.2, 4.8.2: an acknowledged request waits for its response and then fails": (
        "test_coap_client.py::test_acknowledged_but_never_answered"
    ),
    "8.2: a random moment of the leisure": "test_coap_multicast.py::test_moments_are_spread_over_the_whole_leisure",
    "8.2: a new leisure period starts after the one before": (
        "test_coap_multicast.py::test_a_new_leisure_period_starts_after_the_one_before"
    ),
    "8.1: a group's Message ID is nobody else's for EXCHANGE_LIFETIME": (
        "test_coap_multicast.py::test_message_ids_of_groups_and_peers_keep_apart"
    ),
}
GET = Message(Code.GET, build_options("t"))


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_has_its_test(rule):
    file, _, name = RULES[rule].partition("::")
    assert re.search(rf"^def {name}\(", (HERE / file).read_text(), re.MULTILINE)


def client(seed: int = 0, **parameters) -> Lockstep:
    return Lockstep(Endpoint(randomness=seeded(seed), parameters=Parameters(**parameters)))


def sent_until_it_ends(step: Lockstep) -> list[float]:
    """When each further transmission went out, relative to now; at the end the request has failed."""
    start, moments = step.now, []
    while step.endpoint._core.reliability:
        step.turn()
        moments += [step.now - start for _ in step.said()]
    return moments


@given(
    st.integers(0, 10_000),
    st.floats(0.01, 30),
    st.floats(1, 4),
    st.integers(0, 7),
)
def test_back_off_for_any_parameters(seed, ack_timeout, factor, retransmit):
    parameters = Parameters(ack_timeout=ack_timeout, ack_random_factor=factor, max_retransmit=retransmit)
    longest = seed % 4 == 0  # the draw that makes the last transmission fall on the very end of the span
    randomness = (lambda size: b"\xff" * size) if longest else seeded(seed)
    step = Lockstep(Endpoint(randomness=randomness, parameters=parameters))
    number = step.endpoint.request(GET, PEER, step.now)
    assert len(step.said()) == 1
    parameters, start = (
        Parameters(ack_timeout=ack_timeout, ack_random_factor=factor, max_retransmit=retransmit),
        step.now,
    )
    moments = sent_until_it_ends(step)
    assert len(moments) == retransmit
    slack = 1e-6
    if moments:
        first = moments[0]
        assert ack_timeout - slack <= first <= ack_timeout * factor + slack
        assert moments == pytest.approx([first * (2**n - 1) for n in range(1, retransmit + 1)], abs=slack)
        assert moments[-1] <= parameters.max_transmit_span + slack
    assert step.now - start <= parameters.max_transmit_wait + slack
    assert step.event() == RequestFailed(number, PEER, Failure.TIMEOUT)


def test_each_message_draws_its_own_timeout():
    step = client(nstart=50)
    timeouts = set()
    for _ in range(50):
        step.endpoint.request(GET, PEER, step.now)
    for transmission in step.endpoint._core.reliability._table.values():
        timeouts.add(transmission.timeout)
    assert len(timeouts) >= 49


@pytest.mark.parametrize("after", range(5))
@pytest.mark.parametrize("how", ["acknowledged", "answered", "reset", "cancelled"])
def test_what_ends_retransmission(how, after):
    """After each number of retransmissions: nothing more is sent from then on."""
    step = client()
    number = step.endpoint.request(GET, PEER, step.now)
    (data,) = step.said()
    for _ in range(after):
        step.turn()
        step.says(data)
    request = decode(data)
    if how == "acknowledged":
        step.hears(b"\x60\x00" + data[2:4])
    elif how == "answered":
        step.hears(encode(Message(Code.CONTENT, (), b"", Type.ACK, request.mid, request.token)))
    elif how == "reset":
        step.hears(b"\x70\x00" + data[2:4])
    else:
        step.endpoint.cancel(number, step.now)
    step.wait(1000)
    step.silent()
    assert len(step.events()) == 1
    assert step.count("coap_retransmissions") == after


def test_a_separate_response_backs_off_too():
    site = Site(randomness=seeded(1))
    site.add("later", lambda *_: None)
    step = Lockstep(Endpoint(site=site, randomness=seeded(2), verify_addresses=False))
    step.hears(encode(Message(Code.GET, build_options("later"), b"", Type.CON, 1, b"t")))
    exchange = step.event().exchange
    step.wait(1)
    step.says("60000001")
    step.endpoint.respond(exchange, Message(Code.CONTENT), step.now)
    (first,) = step.said()
    start, moments = step.now, []
    while step.endpoint._core.reliability:
        step.turn()
        for data in step.said():
            assert data == first
            moments.append(step.now - start)
    timeout = moments[0]
    assert 2 <= timeout <= 3
    assert moments == pytest.approx([timeout, 3 * timeout, 7 * timeout, 15 * timeout])
    assert step.count("coap_responses_undelivered", "timeout") == 1


class Counting(Lockstep):
    """A server that counts."""

    def __init__(self, **parameters):
        self.runs = 0
        site = Site(randomness=seeded(1))

        def run(request, path, identity, now):
            self.runs += 1
            return Message(Code.CHANGED, (), b"%d" % self.runs)

        site.add("t", run, methods=[Code.POST])
        super().__init__(
            Endpoint(site=site, randomness=seeded(2), verify_addresses=False, parameters=Parameters(**parameters))
        )

    def asks(self, kind) -> list[bytes]:
        self.hears(encode(Message(Code.POST, build_options("t"), b"", kind, 5, b"t")))
        return self.said()


@pytest.mark.parametrize("parameters", [{}, {"ack_timeout": 1.0, "max_retransmit": 2, "max_latency": 10.0}])
@pytest.mark.parametrize(("kind", "lifetime"), [(Type.CON, "exchange_lifetime"), (Type.NON, "non_lifetime")])
def test_duplicates_are_known_for_exactly_their_lifetime(kind, lifetime, parameters):
    until = getattr(Parameters(**parameters), lifetime)
    for moment, runs in ((0.001, 1), (until / 2, 1), (until - 0.001, 1), (until, 2), (until + 50, 2)):
        step = Counting(**parameters)
        first = step.asks(kind)
        step.wait(moment)
        again = step.asks(kind)
        assert step.runs == runs, moment
        if runs == 1:
            assert again == (first if kind is Type.CON else []), "the stored reply, or silence"


def test_duplicates_do_not_prolong_it():
    step = Counting()
    first = step.asks(Type.CON)
    for _ in range(24):
        step.wait(10)
        assert step.asks(Type.CON) == first
    step.wait(7)
    assert step.asks(Type.CON) != first
    assert step.runs == 2


def test_duplicates_of_responses_are_acknowledged_for_exchange_lifetime():
    step = client()
    step.endpoint.request(GET, PEER, step.now)
    request = decode(step.said()[0])
    response = encode(Message(Code.CONTENT, (), b"x", Type.CON, 0x1234, request.token))
    step.hears(response)
    step.says("60001234")
    assert isinstance(step.event(), ResponseReceived)
    step.wait(246.9)
    step.hears(response)
    step.says("60001234")
    assert step.events() == []
    step.wait(0.2)
    step.hears(response)
    step.says("70001234")  # nobody remembers (section 5.3.2)


@pytest.mark.parametrize("how", ["acknowledged", "answered", "reset", "cancelled", "timeout"])
def test_what_gives_a_share_of_nstart_back(how):
    """The next request goes at the very moment the one before is no longer outstanding, and not earlier."""
    step = client()
    first = step.endpoint.request(GET, PEER, step.now)
    step.endpoint.request(GET, PEER, step.now)
    (data,) = step.said()
    request = decode(data)
    if how == "acknowledged":
        step.hears(b"\x60\x00" + data[2:4])
    elif how == "answered":
        step.hears(encode(Message(Code.CONTENT, (), b"", Type.ACK, request.mid, request.token)))
    elif how == "reset":
        step.hears(b"\x70\x00" + data[2:4])
    elif how == "cancelled":
        step.endpoint.cancel(first, step.now)
    else:
        start = step.now
        for _ in range(4):
            step.turn()
            step.says(data)
        step.turn()
        assert 62 <= step.now - start <= 93
    (second,) = step.said()
    assert decode(second).mid == (request.mid + 1) & 0xFFFF


@given(
    st.lists(st.integers(0, 400), min_size=2, max_size=12),
    st.sampled_from([0.5, 1.0, 10.0, 100.0]),
    st.integers(0, 1000),
)
def test_probing_rate_on_average(sizes, rate, seed):
    """However many Non-confirmable requests wait for a silent peer: from the first byte on, what was sent before the
    last of them is no more than PROBING_RATE times the time (or they are given up meanwhile)."""
    step = client(seed, probing_rate=rate, response_timeout=1e6)
    for size in sizes:
        step.endpoint.request(Message(Code.POST, build_options("t"), b"x" * size), PEER, step.now, confirmable=False)
    start, before, sent = step.now, 0, 0
    for data in step.said():
        before = len(data)
        sent += 1
    while sent < len(sizes):
        step.turn()
        for data in step.said():
            assert before <= rate * (step.now - start) + 1e-6
            before += len(data)
            sent += 1
    assert before / rate >= step.now - start, "and no slower than that"


def test_a_peer_that_answers_is_not_probed():
    step = client()
    for _ in range(20):
        step.endpoint.request(GET, PEER, step.now, confirmable=False)
    start = step.now
    for mid in range(20):
        (data,) = step.said()
        request = decode(data)
        step.now += 0.05
        step.hears(encode(Message(Code.CONTENT, (), b"", Type.NON, mid, request.token)))
    assert step.now - start < 1.1
    assert len(step.events()) == 20


@given(st.floats(0.1, 10), st.floats(1, 3), st.integers(0, 6), st.floats(1, 300))
def test_derived_times(ack_timeout, factor, retransmit, latency):
    """Section 4.8.2, with PROCESSING_DELAY as ACK_TIMEOUT."""
    parameters = Parameters(
        ack_timeout=ack_timeout, ack_random_factor=factor, max_retransmit=retransmit, max_latency=latency
    )
    span = ack_timeout * (2**retransmit - 1) * factor
    wait = ack_timeout * (2 ** (retransmit + 1) - 1) * factor
    assert parameters.max_transmit_span == pytest.approx(span)
    assert parameters.max_transmit_wait == pytest.approx(wait)
    assert parameters.max_rtt == pytest.approx(2 * latency + ack_timeout)
    assert parameters.non_lifetime == pytest.approx(span + latency)
    assert parameters.exchange_lifetime >= span + 2 * latency + ack_timeout - 1e-6
    assert parameters.exchange_lifetime >= wait + latency - 1e-6, "a late acknowledgement of the last transmission"

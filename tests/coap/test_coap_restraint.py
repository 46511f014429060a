"""Requests that expect no response (RFC 7967), and requests that a server asked to wait with (RFC 8516)."""

import pytest
from coap_asking import TEXT, Client
from coap_lockstep import PEER

from vitalgate.coap import (
    Code,
    Failure,
    Limits,
    Message,
    Option,
    RequestFailed,
    RequestSent,
    ResponseReceived,
    Type,
    build_options,
    encode,
    encode_uint,
)

ALL = ((Option.NO_RESPONSE, b"\x1a"),)
NO_SUCCESS = ((Option.NO_RESPONSE, b"\x02"),)


def test_confirmable_request_without_response_ends_with_its_acknowledgement():
    step = Client()
    number = step.asks(Code.PUT, payload=b"1", more=ALL)
    request = step.request()
    assert request.option(Option.NO_RESPONSE) == b"\x1a"
    step.hears(encode(Message(0, type=Type.ACK, mid=request.mid)))
    assert step.event() == RequestSent(number, PEER)
    step.wait(300)
    assert step.events() == []
    assert step.endpoint.next_timeout() is None


def test_confirmable_request_that_is_not_acknowledged_has_failed_all_the_same():
    step = Client()
    number = step.asks(Code.PUT, payload=b"1", more=ALL)
    step.wait(100)
    assert step.event() == RequestFailed(number, PEER, Failure.TIMEOUT)


def test_non_confirmable_requests_without_response_keep_to_the_probing_rate():
    """RFC 7252 section 4.7: 1 byte a second on average towards who does not answer."""
    step = Client()
    numbers = [step.asks(Code.PUT, payload=b"1", more=ALL, confirmable=False) for _ in range(2)]
    (data,) = step.said()
    step.wait(len(data) - 1)
    assert step.events() == []
    step.wait(1)
    assert step.event() == RequestSent(numbers[0], PEER)
    assert len(step.said()) == 1
    step.wait(len(data))
    assert step.event() == RequestSent(numbers[1], PEER)


def test_response_that_comes_all_the_same():
    """Who does not know the option ignores it."""
    step = Client()
    number = step.asks(Code.PUT, payload=b"1", more=ALL)
    step.answers(step.request(), Code.CHANGED)
    event = step.event()
    assert event == ResponseReceived(number, event.response, PEER)


@pytest.mark.parametrize("confirmable", [True, False])
def test_some_responses_are_wanted(confirmable):
    """Section 2.1: the time for one passes without any; success was not to be told."""
    step = Client()
    number = step.asks(Code.PUT, payload=b"1", more=NO_SUCCESS, confirmable=confirmable)
    request = step.request()
    if confirmable:
        step.hears(encode(Message(0, type=Type.ACK, mid=request.mid)))
    step.wait(246)
    assert step.events() == []
    step.wait(2)
    assert step.event() == RequestSent(number, PEER)
    number = step.asks(Code.PUT, payload=b"1", more=NO_SUCCESS, confirmable=confirmable)
    request = step.request()
    step.hears(encode(Message(Code.NOT_FOUND, (), b"", Type.NON, 5, request.token)))
    assert step.event().response.code == Code.NOT_FOUND


# 4.29


def refused(step, max_age=None, **request):
    number = step.asks(**request)
    options = () if max_age is None else ((Option.MAX_AGE, encode_uint(max_age)),)
    step.answers(step.request(), Code.TOO_MANY_REQUESTS, options=options)
    event = step.event()
    assert (event.exchange, event.response.code) == (number, Code.TOO_MANY_REQUESTS)


def held(step, **request):
    number = step.asks(**request)
    sent, events = step.said(), step.events()
    if sent:
        step.endpoint.cancel(number, step.now)
        step.events()
        return False
    assert events == [RequestFailed(number, PEER, Failure.BACK_OFF)]
    return True


def test_nothing_of_the_kind_before_max_age():
    step = Client()
    refused(step, 30)
    assert held(step)
    step.wait(29)
    assert held(step)
    assert step.count("coap_back_offs") == 2
    step.wait(1.1)
    assert not held(step)


def test_without_max_age_it_is_a_minute():
    step = Client()
    refused(step)
    step.wait(59)
    assert held(step)
    step.wait(2)
    assert not held(step)


def test_other_requests_are_not_held():
    """Section 4: it is about requests like the one that was answered."""
    step = Client()
    refused(step, code=Code.POST, path="a", payload=b"1")
    assert held(step, code=Code.POST, path="a", payload=b"other")
    assert not held(step, code=Code.GET, path="a")
    assert not held(step, code=Code.POST, path="b")
    number = step.endpoint.request(Message(Code.POST, build_options("a")), ("192.0.2.9", 1), step.now)
    assert step.endpoint.datagrams_to_send(step.now)
    step.endpoint.cancel(number, step.now)


def test_large_requests_and_observations_are_held_too():
    step = Client(block_size=64)
    step.asks(Code.PUT, payload=TEXT)
    step.answers(step.request(), Code.TOO_MANY_REQUESTS)
    step.events()
    assert held(step, code=Code.PUT, payload=TEXT)
    assert held(step, code=Code.PUT, payload=b"1")
    step = Client()
    step.observes()
    step.answers(step.request(), Code.TOO_MANY_REQUESTS)
    step.events()
    number = step.observes()
    assert step.event() == RequestFailed(number, PEER, Failure.BACK_OFF)


def test_limit_of_back_offs():
    """Full: the oldest is forgotten."""
    step = Client(limits=Limits(back_offs=1))
    refused(step, path="a")
    refused(step, path="b")
    assert step.count("coap_limit_reached", "back_offs") == 1
    assert not held(step, path="a")
    assert held(step, path="b")

"""Observe, the client side, against a server scripted datagram by datagram (RFC 7641 section 3)."""

import pytest
from coap_asking import ETAG, TEXT, Client, b2
from coap_lockstep import PEER

from vitalgate.coap import (
    Code,
    Failure,
    Limits,
    Message,
    NotificationReceived,
    Option,
    RequestFailed,
    ResponseReceived,
    TransferProgressed,
    Type,
    build_options,
    decode,
    encode,
    encode_uint,
)
from vitalgate.coap.watch import is_newer

FIRST = ((Option.OBSERVE, b"\x0c"),)  # 12


def observing(**how):
    """A client whose registration was answered; the registration."""
    step = Client(**how)
    number = step.observes()
    request = step.request()
    step.answers(request, payload=b"0", options=FIRST)
    event = step.event()
    assert event == NotificationReceived(number, event.response, PEER)
    assert event.response.payload == b"0"
    return step, request, number


def renewal(step):
    """The next registration, when its time has come."""
    while not (sent := step.said()):
        step.turn()
    return decode(sent[0])


def payloads(step):
    return [event.response.payload for event in step.events() if isinstance(event, NotificationReceived)]


def test_registration_and_notifications():
    """Figure 2: Observe 0, then notifications under the same token, each acknowledged where it is Confirmable."""
    step, request, number = observing()
    assert request.options == build_options("x", more=((Option.OBSERVE, b""),))
    mid = step.notifies(request.token, 44, b"1", kind=Type.CON)
    step.says(f"6000{mid:04x}")
    event = step.event()
    assert (event.exchange, event.response.payload) == (number, b"1")
    step.notifies(request.token, 60, b"2")
    step.silent()
    assert payloads(step) == [b"2"]
    assert step.count("coap_notifications_received") == 3


def test_registration_that_is_answered_separately():
    step = Client()
    step.observes()
    request = step.request()
    step.hears(encode(Message(0, type=Type.ACK, mid=request.mid)))
    step.wait(30)
    step.notifies(request.token, 1, b"0", kind=Type.CON)
    step.notifies(request.token, 2, b"1")
    assert payloads(step) == [b"0", b"1"]


def test_notification_before_the_acknowledgement():
    """The answer to the registration may be lost: a notification does for it, and it is not sent again."""
    step = Client()
    step.observes()
    request = step.request()
    step.notifies(request.token, 5, b"1")
    assert payloads(step) == [b"1"]
    step.wait(50)
    step.silent()


def test_resource_that_can_not_be_observed():
    """Section 3.1: the response without the option is the one and last."""
    step = Client()
    number = step.observes()
    request = step.request()
    step.answers(request, payload=b"0")
    event = step.event()
    assert event == ResponseReceived(number, event.response, PEER)
    step.notifies(request.token, 1, b"1")
    assert step.events() == []
    assert len(step.said()) == 1, "it is reset"
    step.wait(300)
    assert step.endpoint.next_timeout() is None


def test_registration_that_fails():
    step = Client()
    number = step.observes()
    step.answers(step.request(), Code.NOT_FOUND)
    assert step.event().response.code == Code.NOT_FOUND
    number = step.observes()
    step.wait(100)
    assert step.event() == RequestFailed(number, PEER, Failure.TIMEOUT)
    number = step.observes()
    step.said()
    step.endpoint.cancel(number, step.now)
    assert step.event() == RequestFailed(number, PEER, Failure.CANCELLED)


def test_order_of_section_3_4():
    half = 1 << 23
    assert is_newer(2, 0, 1, 0)
    assert not is_newer(1, 0, 1, 0)
    assert not is_newer(1, 0, 2, 0)
    assert is_newer(half, 0, 1, 0)
    assert not is_newer(half + 1, 0, 1, 0)
    assert is_newer(0, 0, half + 1, 0)
    assert not is_newer(1, 0, half + 1, 0)
    assert is_newer(0, 0, (1 << 24) - 1, 0)
    assert not is_newer(1, 128, 2, 0)
    assert is_newer(1, 128.1, 2, 0)


def test_stale_notifications_are_dropped():
    step, request, _ = observing()
    for number in (20, 18, 19, 20, 22, 21):
        step.notifies(request.token, number, b"%d" % number)
    assert payloads(step) == [b"20", b"22"]
    assert step.count("coap_notifications_stale") == 4
    mid = step.notifies(request.token, 15, b"old", kind=Type.CON)
    step.says(f"6000{mid:04x}")  # acknowledged all the same
    step.notifies(request.token, 30, b"long", ((Option.MAX_AGE, encode_uint(1000)),))
    step.wait(129)
    step.notifies(request.token, 3, b"late")
    assert payloads(step) == [b"long", b"late"], "what comes 128 s later is newer"


def test_numbers_wrap():
    step, request, _ = observing()
    step.notifies(request.token, (1 << 23) + 11, b"1")
    step.notifies(request.token, (1 << 24) - 1, b"2")
    step.notifies(request.token, 0, b"3")
    assert payloads(step) == [b"1", b"2", b"3"]


def test_duplicate_of_a_notification():
    step, request, _ = observing()
    options = build_options(more=((Option.OBSERVE, b"\x20"),))
    note = encode(Message(Code.CONTENT, options, b"1", Type.CON, 77, request.token))
    for _ in range(2):
        step.hears(note)
        step.says("6000004d")
    assert payloads(step) == [b"1"]


def test_error_ends_it():
    """Section 3.2: a notification with an error is the last."""
    step, request, number = observing()
    mid = step.notifies(request.token, None, b"gone", code=Code.NOT_FOUND, kind=Type.CON)
    step.says(f"6000{mid:04x}")
    event = step.event()
    assert (event.exchange, event.response.code, event.response.payload) == (number, Code.NOT_FOUND, b"gone")
    mid = step.notifies(request.token, 70, b"1", kind=Type.CON)
    step.says(f"7000{mid:04x}")
    step.wait(300)
    step.silent()
    assert step.endpoint.next_timeout() is None


def test_response_without_the_option_ends_it():
    step, request, number = observing()
    step.notifies(request.token, None, b"last")
    event = step.event()
    assert event == ResponseReceived(number, event.response, PEER)


def test_forgotten_observation_is_reset():
    """Section 3.6: to forget it is enough; the next notification, Confirmable or not, is rejected."""
    step, request, number = observing()
    step.endpoint.cancel(number, step.now)
    assert step.event() == RequestFailed(number, PEER, Failure.CANCELLED)
    step.silent()
    mid = step.notifies(request.token, 44, b"1", kind=Type.CON)
    step.says(f"7000{mid:04x}")
    mid = step.notifies(request.token, 45, b"1", kind=Type.NON)
    step.says(f"7000{mid:04x}")
    assert step.events() == []


def test_deregistration():
    """Section 3.6: Observe 1 under the same token and with the same options; its answer is the end."""
    step, request, number = observing()
    step.endpoint.deregister(number, step.now)
    ending = step.request()
    assert (ending.token, ending.code) == (request.token, Code.GET)
    assert ending.options == build_options("x", more=((Option.OBSERVE, b"\1"),))
    mid = step.notifies(request.token, 44, b"1", kind=Type.CON)  # sent before ours arrived
    step.says(f"6000{mid:04x}")
    assert step.events() == []
    step.endpoint.deregister(number, step.now)
    step.silent()
    step.answers(ending, payload=b"1")
    event = step.event()
    assert (event.exchange, event.response.payload) == (number, b"1")
    step.wait(400)
    step.silent()
    assert step.events() == []
    assert step.endpoint.next_timeout() is None


def test_deregistration_that_is_not_answered():
    step, _, number = observing()
    step.endpoint.deregister(number, step.now)
    step.wait(100)
    assert len(step.said()) == 5
    assert step.event() == RequestFailed(number, PEER, Failure.TIMEOUT)


def test_deregistration_that_the_server_does_not_understand():
    step, request, number = observing()
    step.endpoint.deregister(number, step.now)
    step.answers(step.request(), payload=b"1", options=((Option.OBSERVE, b"\x20"),))
    assert isinstance(step.event(), ResponseReceived)
    mid = step.notifies(request.token, 44, b"1")
    step.says(f"7000{mid:04x}")


def test_deregistration_before_the_registration_is_answered():
    step = Client()
    number = step.observes()
    step.said()
    step.endpoint.deregister(number, step.now)
    assert step.event() == RequestFailed(number, PEER, Failure.CANCELLED)
    step.endpoint.deregister(number, step.now)
    assert step.events() == []


def test_registered_again_when_max_age_is_over():
    """Section 3.3.1: 5 to 15 s after what is known is no longer fresh; the same token and options."""
    waits = []
    for seed in range(30):
        step, request, _ = observing(seed=seed)
        step.notifies(request.token, 50, b"1", ((Option.MAX_AGE, encode_uint(100)),))
        start = step.now
        step.events()
        again = renewal(step)
        assert (again.token, again.options) == (request.token, request.options)
        assert again.mid != request.mid
        waits.append(step.now - start)
        step.answers(again, payload=b"2", options=((Option.OBSERVE, b"\x40"),))
        assert payloads(step) == [b"2"]
    assert min(waits) >= 105
    assert max(waits) <= 115
    assert max(waits) - min(waits) > 5


def test_default_max_age_is_a_minute():
    step, _, _ = observing()
    start = step.now
    renewal(step)
    assert 65 <= step.now - start <= 75


def test_notifications_put_it_off():
    step, request, _ = observing()
    for n in range(20):
        step.wait(30)
        step.notifies(request.token, 100 + n, b"")
        step.silent()


def test_server_that_started_again_counts_from_lower():
    """The answer to a registration is the newest state, whatever its number."""
    step, request, _ = observing()
    step.notifies(request.token, 5000, b"1")
    step.answers(renewal(step), payload=b"2", options=((Option.OBSERVE, b"\x03"),))
    step.notifies(request.token, 4, b"3")
    assert payloads(step) == [b"1", b"2", b"3"]


def test_renewal_that_is_not_answered_ends_it():
    step, _, number = observing()
    renewal(step)
    step.wait(100)
    assert step.event() == RequestFailed(number, PEER, Failure.TIMEOUT)
    step.said()
    step.wait(300)
    step.silent()


def test_notification_while_it_is_renewed():
    step, request, _ = observing()
    renewal(step)
    step.notifies(request.token, 60, b"1")
    assert payloads(step) == [b"1"]
    step.wait(50)
    step.silent()  # it is known to go on, so the renewal need not be sent again
    step.notifies(request.token, 61, b"2")
    assert payloads(step) == [b"2"]


def test_renewal_waits_its_turn():
    step, request, _ = observing()
    other = step.asks(path="other")
    first = step.request()
    step.hears(encode(Message(0, type=Type.ACK, mid=first.mid)))
    again = renewal(step)
    assert again.token == request.token
    step.answers(again, payload=b"1", options=((Option.OBSERVE, b"\x40"),))
    assert payloads(step) == [b"1"]
    step.endpoint.cancel(other, step.now)


def test_non_confirmable_registration():
    step = Client()
    step.observes(confirmable=False)
    request = step.request()
    assert request.type == Type.NON
    step.notifies(request.token, 1, b"0")
    step.notifies(request.token, 2, b"1")
    assert payloads(step) == [b"0", b"1"]
    step.wait(60)
    step.silent()
    assert step.events() == []


def test_reset_of_the_registration():
    step = Client()
    number = step.observes()
    step.hears(encode(Message(0, type=Type.RST, mid=step.request().mid)))
    assert step.event() == RequestFailed(number, PEER, Failure.RESET)


def test_echo_before_the_registration():
    step = Client()
    step.observes()
    step.answers(step.request(), Code.UNAUTHORIZED, options=((Option.ECHO, b"fresh"),))
    request = step.request()
    assert (request.option(Option.ECHO), request.option(Option.OBSERVE)) == (b"fresh", b"")
    step.answers(request, payload=b"0", options=FIRST)
    step.notifies(request.token, 44, b"1")
    assert payloads(step) == [b"0", b"1"]


# Notifications in blocks (RFC 7959 section 2.6)


def test_large_notification_is_fetched():
    step, request, number = observing()
    step.notifies(request.token, 44, TEXT[:64], ETAG, block2=(0, True, 2))
    for num in range(1, 5):
        part = step.request()
        assert (b2(part), part.option(Option.OBSERVE)) == ((num, False, 2), None)
        assert part.token != request.token
        step.serves(part)
    *progress, event = step.events()
    assert (event.exchange, event.response.payload) == (number, TEXT)
    assert all(isinstance(each, TransferProgressed) and each.exchange == number for each in progress)
    step.notifies(request.token, 45, b"small")
    assert payloads(step) == [b"small"]


def test_large_first_response():
    step = Client()
    step.observes()
    request = step.request()
    step.answers(request, payload=TEXT[:64], options=(*FIRST, *ETAG), block2=(0, True, 2))
    for _ in range(4):
        step.serves(step.request())
    assert payloads(step) == [TEXT]
    step.notifies(request.token, 44, b"1")
    assert payloads(step) == [b"1"]


def test_newer_notification_overtakes_the_blocks_of_an_older_one():
    step, request, _ = observing()
    step.notifies(request.token, 44, TEXT[:64], ETAG, block2=(0, True, 2))
    outdated = step.request()
    step.notifies(request.token, 45, TEXT[::-1][:64], ((Option.ETAG, b"two"),), block2=(0, True, 2))
    part = step.request()
    step.serves(outdated)
    for _ in range(4):
        step.serves(part, TEXT[::-1], options=((Option.ETAG, b"two"),))
        part = step.request() if not (found := payloads(step)) else part
    assert found == [TEXT[::-1]]


def test_state_that_changes_while_it_is_fetched():
    """Another ETag: what is there now is read from the start, without registering again."""
    step, request, _ = observing()
    step.notifies(request.token, 44, TEXT[:64], ETAG, block2=(0, True, 2))
    two = ((Option.ETAG, b"two"),)
    step.serves(step.request(), TEXT[::-1], options=two)
    for num in range(5):
        part = step.request()
        assert (b2(part), part.option(Option.OBSERVE)) == ((num, False, 2), None)
        step.serves(part, TEXT[::-1], options=two)
    assert payloads(step) == [TEXT[::-1]]


def test_state_that_changes_too_fast():
    step, request, _ = observing()
    step.notifies(request.token, 44, TEXT[:64], ETAG, block2=(0, True, 2))
    for n in range(7):
        step.serves(step.request(), options=((Option.ETAG, b"e%d" % n),))
    step.silent()
    assert payloads(step) == []
    step.notifies(request.token, 45, b"1")
    assert payloads(step) == [b"1"], "the observation goes on"


def test_state_that_is_gone_while_it_is_fetched():
    step, request, _ = observing()
    step.notifies(request.token, 44, TEXT[:64], ETAG, block2=(0, True, 2))
    step.answers(step.request(), Code.NOT_FOUND)
    assert payloads(step) == []
    step.notifies(request.token, None, code=Code.NOT_FOUND)
    assert step.event().response.code == Code.NOT_FOUND


def test_state_that_is_too_large():
    step, request, number = observing(limits=Limits(body_bytes=100))
    step.notifies(request.token, 44, TEXT[:64], ETAG, block2=(0, True, 2))
    step.serves(step.request())
    assert step.events()[-1] == RequestFailed(number, PEER, Failure.LIMIT)
    mid = step.notifies(request.token, 45, b"1")
    step.says(f"7000{mid:04x}")


def test_cancelled_while_blocks_come():
    step, request, number = observing()
    step.notifies(request.token, 44, TEXT[:64], ETAG, block2=(0, True, 2))
    part = step.request()
    step.events()
    step.endpoint.cancel(number, step.now)
    assert step.event() == RequestFailed(number, PEER, Failure.CANCELLED)
    step.serves(part)
    step.wait(400)
    step.silent()
    assert step.events() == []
    assert step.endpoint.next_timeout() is None


def test_last_response_in_blocks():
    """A resource that can not be observed, and is large."""
    step = Client()
    number = step.observes()
    request = step.request()
    for _ in range(5):
        step.serves(request)
        if isinstance((events := step.events())[-1], ResponseReceived):
            break
        request = step.request()
    assert (events[-1].exchange, events[-1].response.payload) == (number, TEXT)


# Bounds and misuse


def test_limit_of_own_observations():
    step = Client(limits=Limits(observing=1))
    step.observes()
    number = step.observes()
    assert step.event() == RequestFailed(number, PEER, Failure.LIMIT)
    assert step.count("coap_limit_reached", "observing") == 1


def test_what_can_not_ask_to_observe():
    step = Client()
    with pytest.raises(ValueError):
        step.endpoint.observe(Message(Code.POST, build_options("x")), PEER, step.now)
    with pytest.raises(ValueError):
        step.endpoint.observe(Message(Code.FETCH, build_options("x"), bytes(1025)), PEER, step.now)


def test_fetch_is_observed():
    """RFC 8132 section 2.4: each notification answers the question; so do the blocks."""
    step = Client()
    step.endpoint.observe(Message(Code.FETCH, build_options("x"), b"q"), PEER, step.now)
    request = step.request()
    assert (request.code, request.payload) == (Code.FETCH, b"q")
    step.answers(request, payload=b"0", options=FIRST)
    step.notifies(request.token, 44, TEXT[:64], ETAG, block2=(0, True, 2))
    part = step.request()
    assert (part.code, part.payload) == (Code.FETCH, b"q")


def test_peers_record_stays_while_it_is_observed():
    step, request, _ = observing()
    for n in range(20):
        step.wait(60)
        step.notifies(request.token, 100 + n, b"")
    assert len(step.events()) == 20

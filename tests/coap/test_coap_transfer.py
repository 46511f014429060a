"""Block-wise transfers, the client side, against a server scripted block by block (RFC 7959; RFC 9175 section 3)."""

import pytest
from coap_asking import ETAG, TEXT, Client, b1, b2
from coap_lockstep import PEER

from vitalgate.coap import (
    Code,
    Failure,
    Limits,
    Message,
    Option,
    RequestFailed,
    ResponseReceived,
    TransferProgressed,
    Type,
    build_options,
    decode,
    decode_uint,
    encode,
)


def outcome(step):
    """The one event besides progress."""
    (event,) = [event for event in step.events() if not isinstance(event, TransferProgressed)]
    return event


# Responses


def test_response_in_blocks_is_put_together():
    """Figure 2: further requests have the same options and a Block2 option; each its own token and Message ID."""
    step = Client()
    number = step.asks(more=((Option.ACCEPT, b""),))
    request = step.request()
    assert request.options == build_options("x", accept=0)
    requests = [request]
    step.serves(request)
    for num in range(1, 5):
        request = step.request()
        assert (b2(request), request.payload, request.type) == ((num, False, 2), b"", Type.CON)
        assert [pair for pair in request.options if pair[0] != Option.BLOCK2] == list(build_options("x", accept=0))
        requests.append(request)
        step.serves(request)
    event = outcome(step)
    assert event == ResponseReceived(number, event.response, PEER)
    assert (event.response.code, event.response.payload, event.response.options) == (Code.CONTENT, TEXT, ETAG)
    assert len({request.mid for request in requests}) == len({request.token for request in requests}) == 5
    step.wait(300)
    step.silent()
    assert step.endpoint.next_timeout() is None
    assert step.count("coap_transfers") == 1


def test_progress_of_a_response():
    step = Client()
    number = step.asks()
    request = step.request()
    size = ((Option.SIZE2, (300).to_bytes(2, "big")),)
    step.answers(request, payload=TEXT[:64], options=size, block2=(0, True, 2))
    assert step.event() == TransferProgressed(number, PEER, 0, 0, 64, 300)
    for num in range(1, 5):
        step.answers(step.request(), payload=TEXT[num * 64 : num * 64 + 64], block2=(num, num < 4, 2))
    events = step.events()
    assert [event.received for event in events[:-1]] == [128, 192, 256, 300]
    assert events[-1].response.payload == TEXT


def test_one_block_is_a_whole_response():
    step = Client()
    step.asks()
    step.answers(step.request(), payload=b"small", block2=(0, False, 2))
    assert step.event().response.payload == b"small"
    step.silent()


def test_smaller_blocks_are_asked_for_from_the_start():
    """Figure 3: early negotiation, where our size is not the largest."""
    step = Client(block_size=32)
    step.asks()
    request = step.request()
    assert b2(request) == (0, False, 1)
    for _ in range(10):
        step.serves(request, szx=6)
        if (events := step.events()) and isinstance(events[-1], ResponseReceived):
            break
        request = step.request()
    assert events[-1].response.payload == TEXT


def test_smaller_blocks_are_asked_for_later():
    """Figure 4: a server that began with a larger block goes on in ours."""
    step = Client(block_size=32)
    step.asks()
    step.answers(step.request(), payload=TEXT[:128], block2=(0, True, 3))
    assert b2(step.request()) == (4, False, 1)


def test_server_that_goes_on_in_smaller_blocks():
    """Section 2.4: the server may use a smaller size than asked for, but only its first answer sets it."""
    step = Client()
    step.asks()
    step.answers(step.request(), payload=TEXT[:128], block2=(0, True, 3))
    request = step.request()
    assert b2(request) == (1, False, 3)
    step.answers(request, payload=TEXT[128:192], block2=(2, True, 2))
    request = step.request()
    assert b2(request) == (3, False, 2)
    step.answers(request, payload=TEXT[192:256], block2=(3, True, 2))
    step.answers(step.request(), payload=TEXT[256:], block2=(4, False, 2))
    assert outcome(step).response.payload == TEXT


def test_representation_that_changes_is_read_again():
    """Section 2.4: another ETag; the blocks that came first are not used."""
    step = Client()
    step.asks()
    step.serves(step.request())
    step.serves(step.request(), TEXT[::-1], options=((Option.ETAG, b"two"),))
    request = step.request()
    assert b2(request) == (0, False, 2), "from the start, in the size that is known by now"
    step.serves(request, TEXT[::-1], options=((Option.ETAG, b"two"),))
    for _ in range(4):
        step.serves(step.request(), TEXT[::-1], options=((Option.ETAG, b"two"),))
    assert outcome(step).response.payload == TEXT[::-1]
    assert step.count("coap_transfers_restarted", "changed") == 1


def test_representation_that_keeps_changing():
    step = Client()
    number = step.asks()
    for n in range(8):
        step.serves(step.request(), options=((Option.ETAG, bytes([n + 1])),))
    assert outcome(step) == RequestFailed(number, PEER, Failure.INCOMPLETE)
    step.silent()


def test_server_that_forgot_a_representation():
    """4.08 to a later block: a read starts again, what changed something does not."""
    step = Client()
    step.asks()
    step.serves(step.request())
    step.answers(step.request(), Code.REQUEST_ENTITY_INCOMPLETE)
    assert b2(step.request()) == (0, False, 2)
    step = Client()
    number = step.asks(Code.POST, payload=b"do")
    step.serves(step.request(), code=Code.CHANGED)
    request = step.request()
    assert (b2(request), request.payload) == ((1, False, 2), b"")
    step.answers(request, Code.REQUEST_ENTITY_INCOMPLETE)
    assert outcome(step) == RequestFailed(number, PEER, Failure.INCOMPLETE)


def test_error_on_the_way_is_the_response():
    step = Client()
    step.asks()
    step.serves(step.request())
    step.answers(step.request(), Code.NOT_FOUND, b"gone")
    response = outcome(step).response
    assert (response.code, response.payload) == (Code.NOT_FOUND, b"gone")


@pytest.mark.parametrize(
    ("block", "payload"),
    [
        ((2, True, 2), TEXT[:64]),  # not the one asked for
        ((0, True, 2), TEXT[:64]),
        ((1, True, 2), TEXT[:63]),  # no whole block
        ((1, True, 2), TEXT[:65]),
        ((1, False, 2), TEXT[:65]),
        ((1, True, 7), TEXT[:64]),  # reserved
        (None, TEXT[:64]),
    ],
)
def test_blocks_that_make_no_whole(block, payload):
    step = Client()
    number = step.asks()
    step.serves(step.request())
    step.answers(step.request(), payload=payload, options=ETAG, block2=block)
    assert outcome(step) == RequestFailed(number, PEER, Failure.INCOMPLETE)
    step.silent()


@pytest.mark.parametrize("block", [(1, True, 2), (0, True, 7)])
def test_first_block_that_is_none(block):
    step = Client()
    number = step.asks()
    step.answers(step.request(), payload=TEXT[:64], block2=block)
    assert outcome(step) == RequestFailed(number, PEER, Failure.INCOMPLETE)


def test_response_that_is_too_large():
    step = Client(limits=Limits(body_bytes=299))
    number = step.asks()
    for _ in range(5):
        step.serves(step.request())
    assert outcome(step) == RequestFailed(number, PEER, Failure.LIMIT)
    assert step.count("coap_limit_reached", "body_bytes") == 1
    number = step.asks()
    step.answers(step.request(), payload=TEXT[:64], options=((Option.SIZE2, b"\x01\x2c"),), block2=(0, True, 2))
    assert outcome(step) == RequestFailed(number, PEER, Failure.LIMIT)
    step.silent()


def test_block_that_never_comes():
    step = Client()
    number = step.asks()
    step.serves(step.request())
    step.wait(100)
    assert len(step.said()) == 5
    assert outcome(step) == RequestFailed(number, PEER, Failure.TIMEOUT)
    assert len(step.endpoint._calls) == 0


def test_cancelled_on_the_way():
    step = Client()
    number = step.asks()
    step.serves(step.request())
    request = step.request()
    step.endpoint.cancel(number, step.now)
    assert outcome(step) == RequestFailed(number, PEER, Failure.CANCELLED)
    step.serves(request)
    step.wait(300)
    step.silent()
    assert step.events() == []
    assert step.endpoint.next_timeout() is None


def test_application_that_asks_for_blocks_itself_gets_them():
    step = Client()
    step.asks(more=((Option.BLOCK2, b"\x1a"),))
    step.answers(step.request(), payload=TEXT[64:128], block2=(1, True, 2))
    response = step.event().response
    assert (b2(response), response.payload) == ((1, True, 2), TEXT[64:128])
    step.silent()


def test_limit_of_transfers():
    step = Client(limits=Limits(transfers=1), nstart=4)
    step.asks()
    second = step.asks()
    first, other = (decode(data) for data in step.said())
    step.serves(first)
    step.request()
    step.events()
    step.serves(other)
    assert outcome(step) == RequestFailed(second, PEER, Failure.LIMIT)
    assert step.count("coap_limit_reached", "transfers") == 1
    third = step.asks(Code.PUT, payload=bytes(2000))
    assert outcome(step) == RequestFailed(third, PEER, Failure.LIMIT)


def test_non_confirmable_transfer():
    step = Client()
    step.asks(confirmable=False)
    request = step.request()
    assert request.type == Type.NON
    block = ((Option.BLOCK2, b"\x0a"), *ETAG)
    step.hears(encode(Message(Code.CONTENT, build_options(more=block), TEXT[:64], Type.NON, 9, request.token)))
    request = step.request()
    assert (request.type, b2(request)) == (Type.NON, (1, False, 2))


# Requests


def sends(step, body=TEXT, code=Code.PUT, **how):
    return step.asks(code, payload=body, **how)


def test_body_goes_out_in_blocks():
    """Figure 7: Size1 with the first; If-None-Match only there (section 2.10)."""
    step = Client(block_size=64)
    number = sends(step, more=((Option.IF_NONE_MATCH, b""), (Option.CONTENT_FORMAT, b"")))
    body = b""
    for num in range(5):
        request = step.request()
        assert b1(request) == (num, num < 4, 2)
        first = [number for number in (Option.SIZE1, Option.IF_NONE_MATCH) if request.option(number) is not None]
        assert len(first) == (2 if num == 0 else 0)
        assert request.option(Option.CONTENT_FORMAT) == b""
        assert request.option(Option.REQUEST_TAG) is None
        body += request.payload
        if num < 4:
            step.answers(request, Code.CONTINUE, block1=(num, True, 2))
            assert step.event() == TransferProgressed(number, PEER, num * 64 + 64, 300, 0, None)
    step.answers(request, Code.CREATED, block1=(4, False, 2))
    assert body == TEXT
    done, event = step.events()
    assert (done.sent, done.to_send) == (300, 300)
    assert (event.exchange, event.response.code, event.response.options) == (number, Code.CREATED, ())
    assert step.endpoint.next_timeout() is not None
    step.wait(300)
    step.silent()


def test_body_that_fits_is_one_message():
    step = Client(block_size=64)
    sends(step, TEXT[:64])
    assert b1(step.request()) is None


def test_server_asks_for_smaller_blocks():
    """Figure 8: the number of the next counts in the smaller size."""
    step = Client(block_size=128)
    sends(step)
    step.answers(step.request(), Code.CONTINUE, block1=(0, True, 2))
    request = step.request()
    assert (b1(request), request.payload) == ((2, True, 2), TEXT[128:192])
    step.answers(request, Code.CONTINUE, block1=(2, True, 4))
    assert b1(step.request()) == (3, True, 2), "and does not grow again"


def test_too_large_with_a_smaller_size():
    """Section 2.9.3: 4.13 with a smaller size is a hint to use that."""
    step = Client(block_size=128)
    sends(step)
    step.answers(step.request(), Code.REQUEST_ENTITY_TOO_LARGE, block1=(0, True, 1))
    request = step.request()
    assert (b1(request), request.payload) == ((0, True, 1), TEXT[:32])
    step.answers(request, Code.REQUEST_ENTITY_TOO_LARGE, block1=(0, True, 1))
    assert outcome(step).response.code == Code.REQUEST_ENTITY_TOO_LARGE
    assert step.count("coap_transfers_restarted", "size") == 1


def test_too_large_without_blocks():
    """Section 2.5: 4.13 to a request without Block1 is a hint to use it."""
    step = Client()
    sends(step)
    request = step.request()
    assert (b1(request), request.payload) == (None, TEXT)
    step.answers(request, Code.REQUEST_ENTITY_TOO_LARGE, block1=(0, False, 2))
    for num in range(4):
        request = step.request()
        assert b1(request) == (num, True, 2)
        step.answers(request, Code.CONTINUE, block1=(num, True, 2))
    step.answers(step.request(), Code.CHANGED)
    assert outcome(step).response.code == Code.CHANGED


def test_too_large_without_blocks_or_a_size():
    step = Client()
    sends(step)
    step.answers(step.request(), Code.REQUEST_ENTITY_TOO_LARGE)
    assert b1(step.request()) == (0, True, 4), "the largest block that is smaller than what was too large"


def test_too_large_is_final_where_size1_says_so():
    step = Client()
    sends(step)
    step.answers(step.request(), Code.REQUEST_ENTITY_TOO_LARGE, options=((Option.SIZE1, b"\xff"),))
    response = step.event().response
    assert (response.code, decode_uint(response.option(Option.SIZE1))) == (Code.REQUEST_ENTITY_TOO_LARGE, 255)
    small = Client(block_size=64)
    sends(small)
    most = ((Option.SIZE1, b"\xff"),)
    small.answers(small.request(), Code.REQUEST_ENTITY_TOO_LARGE, options=most, block1=(0, True, 0))
    assert outcome(small).response.option(Option.SIZE1) == b"\xff"


def test_server_that_lost_the_body():
    """4.08: once more from the start, as another body (RFC 9175 section 3.4); then it is the answer."""
    step = Client(block_size=64)
    sends(step)
    step.answers(step.request(), Code.CONTINUE, block1=(0, True, 2))
    step.answers(step.request(), Code.REQUEST_ENTITY_INCOMPLETE)
    request = step.request()
    tag = request.option(Option.REQUEST_TAG)
    assert (b1(request), request.payload, tag) == ((0, True, 2), TEXT[:64], b"\x01")
    step.answers(request, Code.CONTINUE, block1=(0, True, 2))
    request = step.request()
    assert request.option(Option.REQUEST_TAG) == tag
    step.answers(request, Code.REQUEST_ENTITY_INCOMPLETE)
    assert outcome(step).response.code == Code.REQUEST_ENTITY_INCOMPLETE
    assert step.count("coap_transfers_restarted", "request") == 1
    step.silent()


def test_error_on_the_way_out():
    step = Client(block_size=64)
    sends(step)
    step.answers(step.request(), Code.CONTINUE, block1=(0, True, 2))
    step.answers(step.request(), Code.UNPROCESSABLE_ENTITY, b"no")
    response = outcome(step).response
    assert (response.code, response.payload) == (Code.UNPROCESSABLE_ENTITY, b"no")
    step.silent()


def test_server_that_acts_on_each_block():
    """Sections 2.3 and 2.10: 2.01 for the first dominates the 2.04 of the others."""
    step = Client(block_size=64)
    sends(step)
    for num in range(5):
        step.answers(step.request(), Code.CHANGED if num else Code.CREATED, block1=(num, False, 2))
    assert outcome(step).response.code == Code.CREATED


def test_continue_after_the_last_block_is_no_answer():
    step = Client(block_size=64)
    number = sends(step, TEXT[:100])
    for _ in range(2):
        step.answers(step.request(), Code.CONTINUE)
    assert outcome(step) == RequestFailed(number, PEER, Failure.INCOMPLETE)


def test_two_bodies_for_one_resource_have_tags():
    """RFC 9175 section 3.5.2: the second one, while the first is under way; none for another resource."""
    step = Client(block_size=64, nstart=4)
    sends(step)
    assert step.request().option(Option.REQUEST_TAG) is None
    sends(step)
    assert step.request().option(Option.REQUEST_TAG) == b"\x01"
    sends(step, path="y")
    assert step.request().option(Option.REQUEST_TAG) is None


def test_blocks_both_ways():
    """Section 2.7 and figure 11."""
    step = Client(block_size=64)
    sends(step, TEXT[:100], Code.POST)
    first = step.request()
    assert (b1(first), b2(first)) == ((0, True, 2), None)
    step.answers(first, Code.CONTINUE, block1=(0, True, 2))
    last = step.request()
    assert (b1(last), b2(last)) == ((1, False, 2), (0, False, 2)), "the size for the answer is asked for with the last"
    step.answers(last, Code.CHANGED, TEXT[:64], block1=(1, False, 2), block2=(0, True, 2))
    request = step.request()
    assert (b1(request), b2(request), request.payload) == (None, (1, False, 2), b"")
    assert request.option(Option.SIZE1) is None
    step.answers(request, Code.CHANGED, TEXT[64:100], block2=(1, False, 2))
    response = outcome(step).response
    assert (response.code, response.payload, response.options) == (Code.CHANGED, TEXT[:100], ())


def test_fetch_repeats_its_question():
    """RFC 8132: which answer a block is of is said by the payload; a large one was said in blocks."""
    step = Client()
    step.asks(Code.FETCH, payload=b"question")
    step.serves(step.request())
    assert step.request().payload == b"question"
    step = Client(block_size=64)
    step.asks(Code.FETCH, payload=TEXT[:100])
    step.answers(step.request(), Code.CONTINUE, block1=(0, True, 2))
    step.serves(step.request())
    assert step.request().payload == b""


def test_echo_on_the_way():
    """RFC 9175 section 2.3: the block is sent again with the value; the transfer does not notice."""
    step = Client(block_size=64)
    sends(step, TEXT[:100])
    request = step.request()
    step.answers(request, Code.UNAUTHORIZED, options=((Option.ECHO, b"fresh"),))
    again = step.request()
    assert (again.option(Option.ECHO), b1(again), again.payload) == (b"fresh", (0, True, 2), request.payload)
    step.answers(again, Code.CONTINUE, block1=(0, True, 2))
    assert b1(step.request()) == (1, False, 2)


def test_more_blocks_than_can_be_numbered():
    step = Client(block_size=16)
    number = sends(step, bytes((1 << 20) * 16 + 1))
    request = step.request()
    transfer = step.endpoint._calls._transfers[number]
    transfer._offset = ((1 << 20) - 1) * 16  # all but the last two are acknowledged
    step.answers(request, Code.CONTINUE)
    assert outcome(step) == RequestFailed(number, PEER, Failure.LIMIT)
    assert step.count("coap_limit_reached", "block_number") == 1


def test_no_response_is_not_asked_of_blocks():
    step = Client(block_size=64)
    sends(step, more=((Option.NO_RESPONSE, b"\x1a"),))
    assert step.request().option(Option.NO_RESPONSE) is None


def test_what_is_no_request_is_the_callers_mistake():
    step = Client(block_size=64)
    with pytest.raises(ValueError):
        step.asks(Code.CONTENT, payload=TEXT)
    assert len(step.endpoint._calls) == 0

"""No-Response, the server side (RFC 7967)."""

import pytest
from coap_blocks import TEXT, Server

from vitalgate.coap import (
    Code,
    Message,
    Option,
    Type,
    build_options,
    decode,
    encode,
    encode_uint,
)
from vitalgate.coap.blocks import Block


@pytest.mark.parametrize(
    ("value", "muted"),
    [(0, ()), (2, (2,)), (8, (4,)), (16, (5,)), (18, (2, 5)), (26, (2, 4, 5)), (127, (2, 4, 5))],
)
def test_no_response_by_class(value, muted):
    """Table 2: bit n - 1 is for class n."""
    for class_, code in ((2, Code.CHANGED), (4, Code.CONFLICT), (5, Code.SERVICE_UNAVAILABLE)):
        for kind in (Type.CON, Type.NON):
            step = Server()
            step.sink.code = code
            options = build_options("sink", more=((Option.NO_RESPONSE, encode_uint(value)),))
            step.hears(encode(Message(Code.PUT, options, b"x", kind, 7, b"T")))
            said = step.said()
            if class_ not in muted:
                assert [decode(data).code for data in said] == [code]
            elif kind is Type.CON:
                assert said == [bytes.fromhex("60000007")], "an Empty acknowledgement"
            else:
                assert said == []
            step.hears(encode(Message(Code.PUT, options, b"x", kind, 7, b"T")))
            assert step.said() == (said if kind is Type.CON else []), "the same for a duplicate"
            assert step.sink.bodies == [b"x"]
            assert step.count("coap_responses_undelivered", "no_response") == (class_ in muted)


def test_no_response_for_errors_of_the_layer():
    step = Server()
    options = build_options("nothing", more=((Option.NO_RESPONSE, b"\x08"),))
    step.hears(encode(Message(Code.GET, options, b"", Type.NON, 7)))
    step.silent()
    step.hears(encode(Message(Code.GET, options, b"", Type.CON, 8)))
    step.says("60000008")


@pytest.mark.parametrize("kind", [Type.CON, Type.NON])
def test_no_response_of_a_resource_that_answers_later(kind):
    step = Server()
    options = build_options("later", more=((Option.NO_RESPONSE, b"\x02"),))
    step.hears(encode(Message(Code.POST, options, b"", kind, 7)))
    step.endpoint.respond(step.event().exchange, Message(Code.CHANGED), step.now)
    step.says(*(["60000007"] if kind is Type.CON else []))
    step.hears(encode(Message(Code.POST, options, b"", kind, 8)))
    step.wait(1)
    step.said()
    step.endpoint.respond(step.event().exchange, Message(Code.CHANGED), step.now)
    step.silent()
    step.hears(encode(Message(Code.POST, options, b"", kind, 9)))
    step.endpoint.respond(step.event().exchange, Message(Code.NOT_FOUND), step.now)
    assert decode(step.said()[0]).code == Code.NOT_FOUND


def test_no_response_still_lets_blocks_go_on():
    step = Server()
    quiet = ((Option.NO_RESPONSE, b"\x1a"),)
    assert step.puts(0, True, 2, TEXT, more=quiet).code == Code.CONTINUE
    block = ((Option.BLOCK1, Block(1, False, 2).encode()), *quiet)
    step.hears(encode(Message(Code.PUT, build_options("sink", more=block), TEXT[64:128], Type.CON, 77)))
    step.says("6000004d")
    assert step.sink.bodies == [TEXT[:128]]

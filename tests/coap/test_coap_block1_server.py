"""Request bodies in blocks, the server side (RFC 7959 sections 2.5 to 2.10; RFC 9175 section 3; RFC 8132)."""

import pytest
from coap_blocks import OTHER, TEXT, Resource, Server, b1, b2, size
from coap_lockstep import Lockstep, seeded

from vitalgate.coap import (
    Code,
    Endpoint,
    Limits,
    Message,
    Option,
    RequestReceived,
    ResponseError,
    Site,
    Type,
    build_options,
    decode,
    encode,
    encode_uint,
)
from vitalgate.coap.blocks import Block


def test_body_in_blocks_is_taken_whole():
    """Figure 7: 2.31 for each, the result for the last; nothing is done before (section 2.5)."""
    step = Server()
    for num in range(4):
        response = step.puts(num, True, 2, TEXT)
        assert (response.code, b1(response), response.payload) == (Code.CONTINUE, (num, True, 2), b"")
        assert step.sink.requests == []
    last = step.puts(4, False, 2, TEXT)
    assert (last.code, b1(last)) == (Code.CHANGED, (4, False, 2))
    assert step.sink.bodies == [TEXT]
    assert step.sink.requests[0].options == build_options("sink"), "the resource sees no blocks"
    assert step.count("coap_bodies_assembled") == 1
    assert len(step.endpoint._server.extensions.blocks) == 0


def test_one_block_is_a_whole_body():
    step = Server()
    response = step.puts(0, False, 2, b"short")
    assert (response.code, b1(response)) == (Code.CHANGED, (0, False, 2))
    assert step.sink.bodies == [b"short"]


def test_size_negotiation_of_a_body():
    """Figure 8: 128 bytes were sent, 64 are asked for: the next block is number 2."""
    step = Server()
    first = step.puts(0, True, 3, TEXT)
    assert (first.code, b1(first)) == (Code.CONTINUE, (0, True, 2))
    for num in (2, 3):
        assert step.puts(num, True, 2, TEXT).code == Code.CONTINUE
    assert step.puts(4, False, 2, TEXT).code == Code.CHANGED
    assert step.sink.bodies == [TEXT]


def test_block_sent_again_in_a_new_message():
    """Its acknowledgement was lost and the client restarted it: the answer is the same, the body does not grow."""
    step = Server()
    step.puts(0, True, 2, TEXT)
    for _ in range(3):
        assert step.puts(1, True, 2, TEXT).code == Code.CONTINUE
    for num in (2, 3):
        step.puts(num, True, 2, TEXT)
    step.puts(4, False, 2, TEXT)
    assert step.sink.bodies == [TEXT]


def test_duplicate_of_a_block_and_of_the_last_one():
    step = Server()
    for num in range(4):
        step.puts(num, True, 2, TEXT)
    block = ((Option.BLOCK1, Block(4, False, 2).encode()),)
    last = encode(Message(Code.PUT, build_options("sink", more=block), TEXT[256:], Type.CON, 500, b"T"))
    answers = []
    for _ in range(3):
        step.hears(last)
        answers += step.said()
    assert len(set(answers)) == 1
    assert step.sink.bodies == [TEXT]


def test_block_without_its_body_is_incomplete():
    """Section 2.9.2: 4.08."""
    step = Server()
    assert step.puts(1, True, 2, TEXT).code == Code.REQUEST_ENTITY_INCOMPLETE
    assert step.puts(4, False, 2, TEXT).code == Code.REQUEST_ENTITY_INCOMPLETE
    assert step.count("coap_bodies_refused", "unknown") == 2
    assert step.sink.requests == []


def test_block_left_out():
    step = Server()
    step.puts(0, True, 2, TEXT)
    assert step.puts(2, True, 2, TEXT).code == Code.REQUEST_ENTITY_INCOMPLETE
    assert step.puts(1, True, 2, TEXT).code == Code.CONTINUE, "the body so far is kept; the client may go on"
    assert step.puts(4, False, 2, TEXT).code == Code.REQUEST_ENTITY_INCOMPLETE
    assert step.count("coap_bodies_refused", "order") == 2
    assert step.sink.requests == []


def test_other_content_for_a_block_that_was_taken():
    step = Server()
    step.puts(0, True, 2, TEXT)
    step.puts(1, True, 2, TEXT)
    assert step.puts(1, True, 2, TEXT[::-1]).code == Code.REQUEST_ENTITY_INCOMPLETE


def test_client_starts_again():
    """Section 2.5: a new block 0 overwrites what was there."""
    step = Server()
    step.puts(0, True, 2, TEXT)
    step.puts(1, True, 2, TEXT)
    for num in range(4):
        assert step.puts(num, True, 2, TEXT[::-1]).code == Code.CONTINUE
    step.puts(4, False, 2, TEXT[::-1])
    assert step.sink.bodies == [TEXT[::-1]]


def test_content_format_may_not_change():
    """Section 2.9.2."""
    step = Server()
    text, cbor = ((Option.CONTENT_FORMAT, b""),), ((Option.CONTENT_FORMAT, b"\x3c"),)
    step.puts(0, True, 2, TEXT, more=text)
    response = step.puts(1, False, 2, TEXT[:128], more=cbor)
    assert response.code == Code.REQUEST_ENTITY_INCOMPLETE
    assert step.count("coap_bodies_refused", "content_format") == 1
    assert step.puts(1, False, 2, TEXT[:128], more=text).code == Code.CHANGED
    assert step.sink.requests[0].option(Option.CONTENT_FORMAT) == b""


@pytest.mark.parametrize(("more", "length"), [(True, 63), (True, 65), (True, 0), (False, 65)])
def test_payload_that_is_no_block(more, length):
    step = Server()
    response = step.asks("sink", code=Code.PUT, block1=(0, more, 2), payload=bytes(length))
    assert response.code == Code.BAD_REQUEST
    assert step.sink.requests == []


def test_too_large_by_size1():
    """Section 2.9.3: at once, with the most that would be taken."""
    step = Server(limits=Limits(body_bytes=256))
    response = step.puts(0, True, 2, TEXT, more=((Option.SIZE1, encode_uint(300)),))
    assert (response.code, b1(response)) == (Code.REQUEST_ENTITY_TOO_LARGE, (0, False, 2))
    assert size(response, Option.SIZE1) == 256
    assert step.count("coap_limit_reached", "body_bytes") == 1
    assert len(step.endpoint._server.extensions.blocks) == 0


def test_too_large_as_it_grows():
    step = Server(limits=Limits(body_bytes=256))
    for num in range(4):
        assert step.puts(num, True, 2, TEXT, more=((Option.SIZE1, b"\x01"),)).code == Code.CONTINUE
    response = step.puts(4, False, 2, TEXT)
    assert (response.code, size(response, Option.SIZE1)) == (Code.REQUEST_ENTITY_TOO_LARGE, 256)
    assert step.sink.requests == []
    assert len(step.endpoint._server.extensions.blocks) == 0
    assert Server(limits=Limits(body_bytes=63)).puts(0, False, 2, TEXT[:64]).code == Code.REQUEST_ENTITY_TOO_LARGE


def test_limit_of_bodies():
    step = Server(limits=Limits(assemblies=1))
    step.puts(0, True, 2, TEXT)
    response = step.puts(0, True, 2, TEXT, via=OTHER)
    assert (response.code, response.option(Option.MAX_AGE)) == (Code.SERVICE_UNAVAILABLE, b"\x0a")
    assert step.count("coap_limit_reached", "assemblies") == 1
    assert step.puts(1, False, 2, TEXT[:128]).code == Code.CHANGED, "the body that was there is not harmed"
    assert step.puts(0, True, 2, TEXT, via=OTHER).code == Code.CONTINUE


def test_limit_of_their_bytes():
    step = Server(limits=Limits(assembly_bytes=130))
    step.puts(0, True, 2, TEXT)
    step.puts(0, True, 2, TEXT, via=OTHER)
    assert step.puts(1, True, 2, TEXT).code == Code.SERVICE_UNAVAILABLE
    assert step.count("coap_limit_reached", "assembly_bytes") == 1
    assert step.puts(1, True, 2, TEXT).code == Code.REQUEST_ENTITY_INCOMPLETE, "that body is forgotten"
    assert step.puts(1, True, 2, TEXT, via=OTHER).code == Code.CONTINUE, "and its room is free"
    assert step.puts(0, True, 2, TEXT).code == Code.SERVICE_UNAVAILABLE


def test_abandoned_body_is_forgotten():
    """Section 2.5: EXCHANGE_LIFETIME after the last block."""
    step = Server()
    step.puts(0, True, 2, TEXT)
    step.wait(246)
    assert step.puts(1, True, 2, TEXT).code == Code.CONTINUE
    step.wait(246)
    assert step.puts(2, True, 2, TEXT).code == Code.CONTINUE
    step.wait(248)
    assert step.count("coap_bodies_refused", "abandoned") == 1
    assert len(step.endpoint._server.extensions.blocks) == 0
    assert step.puts(3, True, 2, TEXT).code == Code.REQUEST_ENTITY_INCOMPLETE
    step.wait(600)
    assert step.endpoint.next_timeout() is None


def test_bodies_of_two_clients_are_apart():
    step = Server()
    for via, body in ((None, TEXT), (OTHER, TEXT[::-1])):
        step.puts(0, True, 2, body, via=via)
    for via, body in ((OTHER, TEXT[::-1]), (None, TEXT)):
        step.puts(1, False, 2, body[:128], via=via)
    assert step.sink.bodies == [TEXT[::-1][:128], TEXT[:128]]


def test_request_tags_keep_two_bodies_of_one_client_apart():
    """RFC 9175 section 3.3: with different lists of Request-Tags they are different operations."""
    step = Server()
    tags = {(): TEXT, ((Option.REQUEST_TAG, b""),): TEXT[::-1], ((Option.REQUEST_TAG, b"1"),): TEXT[1:] + b"!"}
    for num in range(4):
        for tag, body in tags.items():
            assert step.puts(num, True, 2, body, more=tag).code == Code.CONTINUE
    for tag, body in tags.items():
        assert step.puts(4, False, 2, body, more=tag).code == Code.CHANGED
    assert step.sink.bodies == list(tags.values())


def test_early_negotiation_goes_with_the_last_block():
    """Sections 2.7 and 3.3, figure 11: the response's size is named with the request's last block."""
    step = Server()
    for num in range(4):
        assert step.puts(num, True, 2, TEXT, "both", code=Code.POST).code == Code.CONTINUE
    first = step.puts(4, False, 2, TEXT, "both", code=Code.POST, block2=(0, False, 1))
    assert (first.code, b1(first), b2(first), len(first.payload)) == (Code.CHANGED, (4, False, 2), (0, True, 1), 32)
    assert first.option(Option.ETAG) is None, "the answer to a POST can not be fetched again"
    body = first.payload
    for num in range(1, 10):
        response = step.asks("both", code=Code.POST, block2=(num, False, 1))
        assert b1(response) is None
        body += response.payload
    assert body == TEXT
    assert step.both.bodies == [TEXT], "done once"


@pytest.mark.parametrize("code", [Code.POST, Code.PATCH, Code.IPATCH])
def test_answer_that_is_not_kept_any_more_is_not_made_again(code):
    step = Server()
    step.asks("both", code=code, payload=b"do it")
    assert step.asks("both", code=code, block2=(1, False, 2)).payload == TEXT[64:128]
    step.wait(248)
    assert step.asks("both", code=code, block2=(1, False, 2)).code == Code.REQUEST_ENTITY_INCOMPLETE
    assert step.both.bodies == [b"do it"]


def test_fetch_with_blocks_both_ways():
    """RFC 8132 section 2: the question is the payload. Blocks of the answer come with it or without it."""
    step = Server()
    for num in range(4):
        assert step.puts(num, True, 2, TEXT, "large", code=Code.FETCH).code == Code.CONTINUE
    assert b2(step.puts(4, False, 2, TEXT, "large", code=Code.FETCH)) == (0, True, 2)
    assert step.large.bodies == [TEXT]
    assert step.asks("large", code=Code.FETCH, block2=(1, False, 2)).payload == TEXT[64:128]
    step.asks("large", code=Code.FETCH, payload=b"question")
    assert step.asks("large", code=Code.FETCH, block2=(1, False, 2), payload=b"question").payload == TEXT[64:128]
    assert step.large.bodies == [TEXT, b"question"]
    step.large.content = TEXT[::-1]
    other = step.asks("large", code=Code.FETCH, block2=(1, False, 2), payload=b"another")
    assert other.payload == TEXT[::-1][64:128], "another question is not answered out of the first one's"
    assert step.large.bodies[2:] == [b"another"]


def test_fetch_without_its_question_can_not_be_made_again():
    step = Server()
    step.asks("large", code=Code.FETCH, payload=b"question")
    step.wait(248)
    assert step.asks("large", code=Code.FETCH, block2=(1, False, 2)).code == Code.REQUEST_ENTITY_INCOMPLETE
    assert step.large.bodies == [b"question"]


def test_conditions_are_those_of_the_first_request():
    """Section 2.10: If-None-Match is not repeated; If-Match is in every block."""
    step = Server()
    match = ((Option.IF_MATCH, b"x"),)
    step.puts(0, True, 2, TEXT, more=match)
    step.puts(1, False, 2, TEXT[:128], more=match)
    assert step.sink.requests[0].option(Option.IF_MATCH) == b"x"
    assert step.puts(0, True, 2, TEXT, more=((Option.IF_NONE_MATCH, b""),)).code == Code.BAD_OPTION


def test_non_confirmable_blocks():
    step = Server()
    for num in range(4):
        response = step.puts(num, True, 2, TEXT, kind=Type.NON)
        assert (response.type, response.code) == (Type.NON, Code.CONTINUE)
    assert step.puts(4, False, 2, TEXT, kind=Type.NON).code == Code.CHANGED
    assert step.sink.bodies == [TEXT]
    for num in range(5):
        assert step.asks("large", block2=(num, False, 2), kind=Type.NON).payload == TEXT[num * 64 : num * 64 + 64]


def test_resource_that_answers_later():
    step = Server()
    for num in range(4):
        assert step.puts(num, True, 2, TEXT, "later", code=Code.POST).code == Code.CONTINUE
    block = ((Option.BLOCK1, Block(4, False, 2).encode()),)
    step.hears(encode(Message(Code.POST, build_options("later", more=block), TEXT[256:], Type.CON, 900, b"T")))
    step.silent()
    event = step.event()
    assert isinstance(event, RequestReceived)
    assert (event.request.payload, event.request.options) == (TEXT, build_options("later"))
    step.wait(1)
    step.said()
    step.endpoint.respond(event.exchange, Message(Code.CHANGED, (), TEXT), step.now)
    (data,) = step.said()
    response = decode(data)
    assert (response.type, b1(response), b2(response)) == (Type.CON, (4, False, 2), (0, True, 2))
    step.hears(encode(Message(0, type=Type.ACK, mid=response.mid)))
    assert step.asks("later", code=Code.POST, block2=(4, False, 2)).payload == TEXT[256:]


def test_error_of_the_resource_names_the_block():
    step = Server()

    def refuse(request, path, identity, now):
        raise ResponseError(Code.UNPROCESSABLE_ENTITY)

    step.endpoint._server._site.add("refused", refuse)
    step.puts(0, True, 2, TEXT, "refused")
    response = step.puts(1, False, 2, TEXT[:128], "refused")
    assert (response.code, b1(response)) == (Code.UNPROCESSABLE_ENTITY, (1, False, 2))


def test_unknown_resource_refuses_the_first_block():
    step = Server()
    assert step.puts(0, True, 2, TEXT, "nothing").code == Code.NOT_FOUND
    assert step.puts(0, True, 2, TEXT, "large").code == Code.METHOD_NOT_ALLOWED
    assert len(step.endpoint._server.extensions.blocks) == 0


def test_strangers_take_no_room():
    """What an address that is not verified may have us keep: no blocks of bodies, no representations."""
    step = Server(verify_addresses=True)
    response = step.puts(0, True, 2, TEXT)
    assert response.code == Code.UNAUTHORIZED
    echo = response.option(Option.ECHO)
    response = step.asks("large")
    assert (response.code, response.payload) == (Code.UNAUTHORIZED, b"")
    assert len(step.endpoint._server.extensions.blocks) == 0
    assert step.puts(0, True, 2, TEXT, more=((Option.ECHO, echo),)).code == Code.CONTINUE
    assert step.puts(1, False, 2, TEXT[:128]).code == Code.CHANGED
    assert len(step.asks("large").payload) == 64


def test_endpoint_without_the_layers():
    """A security layer has them inside; outside, Block is a critical option that nobody knows."""
    site = Site(randomness=seeded(7))
    site.add("large", Resource(TEXT), methods=[Code.GET])
    step = Lockstep(Endpoint(site=site, verify_addresses=False, randomness=seeded(), extensions=False))
    block = ((Option.BLOCK2, Block(0, False, 2).encode()),)
    step.hears(encode(Message(Code.GET, build_options("large", more=block), b"", Type.CON, 1)))
    assert decode(step.said()[0]).code == Code.BAD_OPTION
    step.hears(encode(Message(Code.GET, build_options("large"), b"", Type.CON, 2)))
    assert decode(step.said()[0]).payload == TEXT

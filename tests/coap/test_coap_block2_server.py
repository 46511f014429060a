"""Large responses in blocks, the server side (RFC 7959 sections 2.2, 2.4)."""

import pytest
from coap_blocks import OTHER, TEXT, Server, b2, size

from vitalgate.coap import (
    Code,
    Limits,
    Option,
    Parameters,
)
from vitalgate.coap.blocks import Block, decode_block, szx_of


def test_values_of_section_2_2():
    assert Block(0, False, 0).encode() == b""
    assert Block(3, True, 2).encode() == b"\x3a"
    assert decode_block(b"\x3a") == (3, True, 2)
    assert decode_block(b"") == (0, False, 0)
    assert decode_block(b"\xff\xff\xff") == ((1 << 20) - 1, True, 7)
    assert (Block(3, True, 2).size, Block(3, True, 2).offset) == (64, 192)
    assert [szx_of(16 << n) for n in range(7)] == list(range(7))
    for wrong in (0, 8, 15, 48, 2048):
        with pytest.raises(ValueError):
            szx_of(wrong)


def test_parameters_refuse_what_is_no_block_size():
    with pytest.raises(ValueError):
        Parameters(block_size=100)


def test_large_response_comes_in_blocks():
    """Figure 2: the server starts; Size2 once; the same ETag in every block; the resource is asked once."""
    step = Server()
    first = step.asks("large")
    assert (first.code, b2(first), size(first, Option.SIZE2), len(first.payload)) == (69, (0, True, 2), 300, 64)
    tag = first.option(Option.ETAG)
    assert tag is not None
    assert len(tag) == 8
    body = first.payload
    for num in range(1, 5):
        response = step.asks("large", block2=(num, False, 2))
        assert b2(response) == (num, num < 4, 2)
        assert response.option(Option.ETAG) == tag
        assert response.option(Option.SIZE2) is None
        body += response.payload
    assert body == TEXT
    assert len(step.large.requests) == 1


def test_early_negotiation():
    """Figure 3: the client names a smaller size in its first request; a larger one is not used."""
    step = Server()
    first = step.asks("large", block2=(0, False, 1))
    assert (b2(first), len(first.payload)) == ((0, True, 1), 32)
    assert b2(step.asks("large", block2=(0, False, 6))) == (0, True, 2)
    assert b2(step.asks("large", block2=(0, True, 2))) == (0, True, 2), "M in a request is ignored (section 2.4)"


def test_late_negotiation():
    """Figure 4: the first response was larger; from the second request on the client's size holds."""
    step = Server()
    body = step.asks("large").payload
    for num in range(2, 10):
        response = step.asks("large", block2=(num, False, 1))
        assert b2(response) == (num, num < 9, 1)
        body += response.payload
    assert body == TEXT


def test_body_that_fits_names_its_block_only_if_asked():
    step = Server()
    step.large.content = b"small"
    assert step.asks("large").options == ()
    response = step.asks("large", block2=(0, False, 2))
    assert (b2(response), response.payload) == ((0, False, 2), b"small")
    assert response.option(Option.SIZE2) is None


@pytest.mark.parametrize("length", [64, 65, 128, 129])
def test_last_blocks(length):
    step = Server()
    step.large.content = TEXT[:length]
    found, num = b"", 0
    while True:
        response = step.asks("large", block2=(num, False, 2))
        found += response.payload
        if not b2(response).more:
            break
        num += 1
    assert found == TEXT[:length]
    assert num == (length - 1) // 64


def test_random_access_needs_no_first_block():
    """Section 2.4: no state is required of the server; a GET for any block is answered by itself."""
    step = Server()
    for num in (3, 1, 4, 0, 2):
        response = step.asks("large", block2=(num, False, 2))
        assert response.payload == TEXT[num * 64 : num * 64 + 64]
    tags = {step.asks("large", block2=(num, False, 2)).option(Option.ETAG) for num in range(5)}
    assert len(tags) == 1


def test_beyond_the_last_block():
    step = Server()
    assert step.asks("large", block2=(5, False, 2)).code == Code.BAD_REQUEST
    step.asks("large")
    assert step.asks("large", block2=(5, False, 2)).code == Code.BAD_REQUEST


def test_change_of_representation_midway():
    """The blocks of one transfer are of one representation while it is kept, and it begins anew with block 0."""
    step = Server()
    old = step.asks("large")
    step.large.content = TEXT[::-1]
    second = step.asks("large", block2=(1, False, 2))
    assert (second.payload, second.option(Option.ETAG)) == (TEXT[64:128], old.option(Option.ETAG))
    new = step.asks("large")
    assert new.option(Option.ETAG) != old.option(Option.ETAG)
    assert step.asks("large", block2=(1, False, 2)).payload == TEXT[::-1][64:128]


def test_representation_is_forgotten_and_made_again_with_its_own_tag():
    step = Server()
    old = step.asks("large")
    step.wait(246)
    step.large.content = TEXT[::-1]
    assert step.asks("large", block2=(1, False, 2)).payload == TEXT[64:128], "246 s: still kept, and again from here"
    step.wait(248)
    response = step.asks("large", block2=(2, False, 2))
    assert response.payload == TEXT[::-1][128:192]
    assert response.option(Option.ETAG) != old.option(Option.ETAG), "so that the client sees it"


def test_resources_own_tag_and_format_are_in_every_block():
    step = Server()
    step.large.options = ((Option.ETAG, b"own"), (Option.CONTENT_FORMAT, b"\x2a"))
    for num in range(5):
        response = step.asks("large", block2=(num, False, 2))
        assert (response.option(Option.ETAG), response.option(Option.CONTENT_FORMAT)) == (b"own", b"\x2a")


def test_resource_that_does_its_own_blocks_is_left_alone():
    step = Server()
    step.large.options = ((Option.BLOCK2, Block(7, True, 1).encode()),)
    assert step.asks("large", block2=(7, False, 1)).payload == TEXT


def test_representations_of_two_clients_are_apart():
    step = Server()
    step.asks("large")
    step.large.content = TEXT[::-1]
    step.asks("large", via=OTHER)
    assert step.asks("large", block2=(1, False, 2)).payload == TEXT[64:128]
    assert step.asks("large", block2=(1, False, 2), via=OTHER).payload == TEXT[::-1][64:128]


def test_size_exponent_7_is_reserved():
    """Section 2.2."""
    step = Server()
    assert step.asks("large", block2=(0, False, 7)).code == Code.BAD_REQUEST
    assert step.asks("sink", code=Code.PUT, block1=(0, True, 7), payload=TEXT).code == Code.BAD_REQUEST
    assert step.sink.requests == []
    assert step.large.requests == []


def test_errors_are_not_cut():
    step = Server()
    step.large.code = Code.NOT_FOUND
    assert step.asks("large").payload == TEXT


def test_limits_of_representations():
    """Full: the oldest goes, and its GET is answered anew."""
    step = Server(limits=Limits(representations=1))
    step.asks("large")
    step.asks("large", via=OTHER)
    assert step.count("coap_limit_reached", "representations") == 1
    assert len(step.large.requests) == 2
    assert step.asks("large", block2=(1, False, 2)).payload == TEXT[64:128]
    assert len(step.large.requests) == 3
    small = Server(limits=Limits(representation_bytes=299))
    for num in range(5):
        assert small.asks("large", block2=(num, False, 2)).payload == TEXT[num * 64 : num * 64 + 64]
    assert small.count("coap_limit_reached", "representation_bytes") == 4, "the last block leaves nothing to keep"
    two = Server(limits=Limits(representation_bytes=599))
    two.asks("large")
    two.asks("large", via=OTHER)
    assert two.count("coap_limit_reached", "representation_bytes") == 1

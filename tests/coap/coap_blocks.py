"""A server with resources for block-wise transfers, and its client block by block."""

import itertools

from coap_lockstep import Lockstep, seeded

from vitalgate.coap import (
    Code,
    Endpoint,
    Limits,
    Message,
    Option,
    Parameters,
    Site,
    Type,
    build_options,
    decode,
    decode_uint,
    encode,
)
from vitalgate.coap.blocks import Block, block_option

TEXT = bytes(n % 251 for n in range(300))
OTHER = ("192.0.2.9", 5683)


class Resource:
    """Keeps the bodies that it is given and answers with ``content``."""

    def __init__(self, content=b"", code=Code.CONTENT, options=()):
        self.content = content
        self.code = code
        self.options = options
        self.requests = []

    def __call__(self, request, path, identity, now):
        self.requests.append(Message(request.code, request.options, request.payload))
        return Message(self.code, self.options, self.content)

    @property
    def bodies(self):
        return [request.payload for request in self.requests]


class Server(Lockstep):
    def __init__(self, *, verify_addresses=False, limits=Limits(), **parameters):  # noqa: B008  # frozen
        site = Site(randomness=seeded(7))
        self.large = Resource(TEXT)
        self.sink = Resource(code=Code.CHANGED)
        self.both = Resource(TEXT, Code.CHANGED)
        site.add("large", self.large, methods=[Code.GET, Code.FETCH], idempotent=True)
        site.add(
            "sink", self.sink, methods=[Code.PUT, Code.POST, Code.FETCH], small=True, understands=[Option.IF_MATCH]
        )
        site.add("both", self.both, methods=[Code.POST, Code.PATCH, Code.IPATCH], small=True)
        site.add("later", lambda request, path, identity, now: None)
        endpoint = Endpoint(
            site=site, verify_addresses=verify_addresses, randomness=seeded(), limits=limits,
            parameters=Parameters(**{"block_size": 64, **parameters}),
        )  # fmt: skip
        super().__init__(endpoint)
        self.mids = itertools.count(1)

    def asks(self, path, *, block1=None, block2=None, code=Code.GET, payload=b"", more=(), kind=Type.CON, via=None):
        """One request, its one response."""
        blocks = ((Option.BLOCK1, block1), (Option.BLOCK2, block2))
        pairs = [(number, Block(*block).encode()) for number, block in blocks if block]
        mid = next(self.mids)
        request = Message(code, build_options(path, more=(*more, *pairs)), payload, kind, mid, b"T")
        self.hears(encode(request), path=via)
        ((data, to),) = self.endpoint.datagrams_to_send(self.now)
        assert to == (self.path if via is None else via)
        response = decode(data)
        assert response.token == b"T"
        assert kind is Type.NON or (response.type, response.mid) == (Type.ACK, mid)
        return response

    def puts(self, num, follows, szx, body, path="sink", *, code=Code.PUT, **rest):
        """Block ``num`` of ``body``."""
        part = body[num * (16 << szx) : (num + 1) * (16 << szx)]
        return self.asks(path, code=code, block1=(num, follows, szx), payload=part, **rest)


def b1(response):
    return block_option(response, Option.BLOCK1)


def b2(response):
    return block_option(response, Option.BLOCK2)


def size(response, number):
    value = response.option(number)
    return None if value is None else decode_uint(value)

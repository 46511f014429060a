"""A client whose server is scripted datagram by datagram."""

from coap_lockstep import PEER, Lockstep, seeded

from vitalgate.coap import Code, Endpoint, Limits, Message, Option, Parameters, Type, build_options, decode, encode
from vitalgate.coap.blocks import Block, block_option

TEXT = bytes(n % 251 for n in range(300))
ETAG = ((Option.ETAG, b"one"),)


class Client(Lockstep):
    def __init__(self, *, limits=Limits(), seed=0, **parameters):  # noqa: B008  # frozen
        super().__init__(Endpoint(limits=limits, parameters=Parameters(**parameters), randomness=seeded(seed)))
        self.mid = 0x7000

    def asks(self, code=Code.GET, path="x", payload=b"", more=(), **how):
        return self.endpoint.request(Message(code, build_options(path, more=more), payload), PEER, self.now, **how)

    def observes(self, path="x", more=(), **how):
        return self.endpoint.observe(Message(Code.GET, build_options(path, more=more)), PEER, self.now, **how)

    def request(self):
        """The one message that it sends."""
        (data,) = self.said()
        return decode(data)

    def answers(self, request, code=Code.CONTENT, payload=b"", options=(), *, block1=None, block2=None):
        """Piggybacked."""
        pairs = [*options]
        pairs += [(Option.BLOCK1, Block(*block1).encode())] if block1 else []
        pairs += [(Option.BLOCK2, Block(*block2).encode())] if block2 else []
        options = build_options(more=pairs)
        self.hears(encode(Message(code, options, payload, Type.ACK, request.mid, request.token)))

    def serves(self, request, body=TEXT, szx=2, code=Code.CONTENT, options=ETAG):
        """Answers with the block that is asked for."""
        asked = block_option(request, Option.BLOCK2) or Block(0, False, szx)
        size, szx = (asked.size, asked.szx) if asked.szx < szx else (16 << szx, szx)
        part = body[asked.num * size : (asked.num + 1) * size]
        more = (asked.num + 1) * size < len(body)
        self.answers(request, code, part, options, block2=(asked.num, more, szx))

    def notifies(self, token, sequence, payload=b"", options=(), *, kind=Type.NON, code=Code.CONTENT, block2=None):
        """A notification, or where ``sequence`` is None the response that ends it."""
        self.mid += 1
        pairs = list(options)
        pairs += [(Option.OBSERVE, sequence.to_bytes(3, "big").lstrip(b"\0"))] if sequence is not None else []
        pairs += [(Option.BLOCK2, Block(*block2).encode())] if block2 else []
        self.hears(encode(Message(code, build_options(more=pairs), payload, kind, self.mid, token)))
        return self.mid


def b1(message):
    return block_option(message, Option.BLOCK1)


def b2(message):
    return block_option(message, Option.BLOCK2)

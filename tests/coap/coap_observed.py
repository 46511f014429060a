"""A server with resources to observe, and a client scripted datagram by datagram."""

import itertools

from coap_blocks import TEXT
from coap_lockstep import PEER, Lockstep, seeded

from vitalgate.coap import (
    Code,
    Endpoint,
    Limits,
    Message,
    Option,
    Parameters,
    ResponseError,
    Site,
    Type,
    build_options,
    decode,
    decode_uint,
    encode,
)

DAY = 86400.0


class Thing:
    """A resource with a value that may change, or be gone."""

    def __init__(self, value=b"0"):
        self.value = value
        self.code = Code.CONTENT
        self.options = ()
        self.runs = 0

    def __call__(self, request, path, identity, now):
        self.runs += 1
        assert request.option(Option.OBSERVE) is None, "the resource is asked as by a GET"
        if self.value is None:
            raise ResponseError(Code.NOT_FOUND)
        return Message(self.code, self.options, self.value)


class Server(Lockstep):
    def __init__(self, *, limits=Limits(), verify_addresses=False, site=True, **parameters):  # noqa: B008  # frozen
        self.site = Site(randomness=seeded(7))
        self.con, self.non, self.plain, self.large = Thing(), Thing(), Thing(), Thing(TEXT)
        get = {"methods": [Code.GET, Code.FETCH], "idempotent": True}
        self.site.add("con", self.con, observable=True, **get)
        self.site.add("non", self.non, observable=True, confirmable=False, **get)
        self.site.add("large", self.large, observable=True, **get)
        self.site.add("plain", self.plain, **get)
        self.site.add("later", lambda request, path, identity, now: None, observable=True)
        super().__init__(
            Endpoint(
                site=self.site if site else None, limits=limits, verify_addresses=verify_addresses,
                parameters=Parameters(**{"block_size": 64, **parameters}), randomness=seeded(),
            )
        )  # fmt: skip
        self.mids = itertools.count(1)

    def asks(self, path, observe=0, *, token=b"T", code=Code.GET, more=(), kind=Type.CON, payload=b"", via=PEER):
        pairs = list(more) if observe is None else [(Option.OBSERVE, bytes([observe]).lstrip(b"\0")), *more]
        options = build_options(path, more=pairs)
        self.hears(encode(Message(code, options, payload, kind, next(self.mids), token)), path=via)
        ((data, to),) = self.endpoint.datagrams_to_send(self.now)
        response = decode(data)
        assert (to, response.token) == (via, token)
        return response

    def changes(self, path, value):
        getattr(self, path).value = value
        return self.site.notify(path, self.now)

    def sent(self):
        return [decode(data) for data in self.said()]

    def one(self):
        (message,) = self.sent()
        return message

    def acks(self, message, kind=Type.ACK):
        self.hears(encode(Message(0, type=kind, mid=message.mid)))

    @property
    def observers(self):
        return len(self.endpoint._server.extensions.observations)


def order(message):
    value = message.option(Option.OBSERVE)
    return None if value is None else decode_uint(value)

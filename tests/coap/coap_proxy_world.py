"""A proxy between a client and an origin server that a test writes out, message by message; time driven by hand."""

from dataclasses import replace

from coap_lockstep import seeded

from vitalgate.coap import Endpoint, Message, Parameters, Site, Type, decode, encode
from vitalgate.coap.cache import CacheLimits, ResponseCache
from vitalgate.coap.message import Code
from vitalgate.coap.options import Option, build_options, sort_options
from vitalgate.coap.proxy import Proxy
from vitalgate.coap.proxyevents import ProxyLimits
from vitalgate.coap.proxypolicy import Policy, parse_rule
from vitalgate.coap.proxyrequest import parse_route

CLIENT = ("198.51.100.7", 40000)
ORIGIN = ("93.184.216.34", 5683)


class World:
    """One client, one proxy, one origin server; both are written out by the test."""

    def __init__(self, *rules, routes=(), trusted=True, limits=None, schemes=("coap", "http"), site=None, **more):
        self.now = 1000.0
        self.mid = 100
        rules = rules or ("coap://origin.example", "coap://93.184.216.34", "http://origin.example")
        self.cache = ResponseCache(CacheLimits(cache_entries=16))
        self.site = Site() if site is None else site
        self.back = Endpoint(randomness=seeded(1), relays=True, parameters=Parameters(ack_random_factor=1.0))
        self.proxy = Proxy(
            Policy(parse_rule(rule) for rule in rules),
            reach=lambda address, port: (self.back, (address, port)),
            routes=[parse_route(route) for route in routes],
            schemes=schemes,
            cache=self.cache,
            limits=limits or ProxyLimits(),
            site=self.site,
            own=lambda address, port: (address, port) == ("192.0.2.99", 5683),
            name="p1",
            **more,
        )
        self.front = Endpoint(randomness=seeded(2), site=self.site, forwarding=self.proxy, trusted=lambda path: trusted)
        self.front_counters = self.front.counters

    def turn(self):
        self.proxy.take_requests(self.front, self.now)
        self.proxy.take_responses(self.back, self.now)
        self.proxy.take_requests(self.front, self.now)

    def wait(self, seconds):
        end = self.now + seconds
        while True:
            due = [t for each in (self.front, self.back, self.proxy) if (t := each.next_timeout()) is not None]
            if not due or min(due) > end:
                break
            self.now = max(self.now, min(due))
            for each in (self.front, self.back, self.proxy):
                each.handle_timeout(self.now)
            self.turn()
        self.now = end

    def client_says(self, request, *, token=b"\xaa"):
        """The client's request; returns what the proxy answers it at once."""
        self.mid += 1
        sent = replace(request, mid=self.mid, token=token)
        self.front.receive_datagram(encode(sent), CLIENT, self.now)
        self.turn()
        return self.to_client()

    def to_client(self):
        return [decode(data) for data, path in self.front.datagrams_to_send(self.now) if path == CLIENT]

    def to_origin(self, address=ORIGIN):
        sent = self.back.datagrams_to_send(self.now)
        assert all(path == address for _, path in sent), sent
        return [decode(data) for data, _ in sent]

    def origin_says(self, request, response, address=ORIGIN):
        sent = replace(response, type=Type.ACK, mid=request.mid, token=request.token)
        self.back.receive_datagram(encode(sent), address, self.now)
        self.turn()

    def exchange(self, request, response):
        """One request through the proxy: (what the origin server got, what the client got)."""
        at_once = self.client_says(request)
        asked = self.to_origin()
        if not asked:
            (answer,) = at_once
            return None, answer
        (got,) = asked
        self.origin_says(got, response)
        (answer,) = self.to_client()
        assert answer.token == (b"\xaa" if answer.code else b"")
        return got, answer


def proxy_uri(uri="coap://93.184.216.34/t", *more, code=Code.GET, payload=b""):
    return Message(code, sort_options([(Option.PROXY_URI, uri.encode()), *more]), payload)


def content(payload=b"21.5", *more, max_age=None, code=Code.CONTENT):
    return Message(code, build_options(max_age=max_age, more=more), payload)


def plain(options):
    """Options without the Hop-Limit that every forwarded request has."""
    return [pair for pair in options if pair[0] != Option.HOP_LIMIT]

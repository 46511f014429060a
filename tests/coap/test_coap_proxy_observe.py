"""Observing through the proxy (RFC 7641 section 5): one observation at the origin server for all clients."""

from dataclasses import replace

import pytest
from coap_proxy_world import CLIENT, ORIGIN, World, content, proxy_uri

from vitalgate.coap import Code, Message, Type, encode
from vitalgate.coap.options import Option, uint_option
from vitalgate.coap.proxyevents import ProxyLimits

REGISTER = (int(Option.OBSERVE), b"")
DEREGISTER = (int(Option.OBSERVE), b"\x01")


def observe(uri="coap://93.184.216.34/t", *more):
    return proxy_uri(uri, REGISTER, *more)


def state(payload, sequence, *more, max_age=60):
    return content(payload, (int(Option.OBSERVE), bytes([sequence])), *more, max_age=max_age)


class Watched(World):
    def changes(self, asked, response):
        """A notification of the origin server; what it is told in return."""
        self.mid += 1
        sent = replace(response, type=Type.CON, mid=self.mid, token=asked.token)
        self.back.receive_datagram(encode(sent), ORIGIN, self.now)
        self.turn()
        return self.to_origin()

    def acknowledge(self, notification):
        self.front.receive_datagram(encode(Message(0, type=Type.ACK, mid=notification.mid)), CLIENT, self.now)
        self.turn()


def test_two_clients_one_observation():
    world = Watched()
    assert world.client_says(observe(), token=b"\x01") == []
    (asked,) = world.to_origin()
    assert uint_option(asked, Option.OBSERVE) == 0
    assert world.client_says(observe(), token=b"\x02") == [], "joins the request that is under way"
    assert world.to_origin() == []
    world.origin_says(asked, state(b"20", 5))
    first = world.to_client()
    assert {each.token: each.payload for each in first} == {b"\x01": b"20", b"\x02": b"20"}
    assert all(each.option(Option.OBSERVE) for each in first)
    world.wait(10)
    (third,) = world.client_says(observe(), token=b"\x03")
    assert (third.payload, uint_option(third, Option.MAX_AGE)) == (b"20", 50), "joins what is observed"
    assert third.option(Option.OBSERVE)
    (reply,) = world.changes(asked, state(b"21", 6))
    assert (reply.type, reply.code) == (Type.ACK, Code.EMPTY)
    seen = {}
    for _ in range(3):  # NSTART: one notification after the other
        (notification,) = world.to_client()
        assert (notification.type, notification.payload) == (Type.CON, b"21")
        before = next(each for each in [*first, third] if each.token == notification.token)
        assert uint_option(notification, Option.OBSERVE) > uint_option(before, Option.OBSERVE)
        seen[notification.token] = True
        world.acknowledge(notification)
    assert seen.keys() == {b"\x01", b"\x02", b"\x03"}
    got, answer = world.exchange(proxy_uri(), None)
    assert (got, answer.payload) == (None, b"21"), "a notification refreshes the cache"


def test_the_last_client_to_leave_closes_the_door():
    world = Watched()
    world.client_says(observe())
    (asked,) = world.to_origin()
    world.origin_says(asked, state(b"20", 5))
    world.to_client()
    (answer,) = world.client_says(proxy_uri("coap://93.184.216.34/t", DEREGISTER))
    assert (answer.payload, answer.option(Option.OBSERVE)) == (b"20", None)
    replies = world.changes(asked, state(b"21", 6))
    assert world.to_client() == []
    assert [uint_option(each, Option.OBSERVE) for each in replies if each.code] == [1]
    assert len(world.proxy._watches) == 0


def test_a_resource_that_cannot_be_observed_is_read():
    world = Watched()
    got, answer = world.exchange(observe(), content(b"20"))
    assert uint_option(got, Option.OBSERVE) == 0
    assert (answer.payload, answer.option(Option.OBSERVE)) == (b"20", None)
    got, answer = world.exchange(observe(), Message(Code.NOT_FOUND))
    assert answer.code == Code.NOT_FOUND
    assert (len(world.proxy), len(world.proxy._watches), world.proxy._registering) == (0, 0, {})


@pytest.mark.parametrize(
    ("last", "code"),
    [(Message(Code.NOT_FOUND), Code.NOT_FOUND), (content(b"no more"), Code.SERVICE_UNAVAILABLE)],
)
def test_when_the_origin_server_ends_it_the_clients_are_told(last, code):
    world = Watched()
    world.client_says(observe())
    (asked,) = world.to_origin()
    world.origin_says(asked, state(b"20", 5))
    world.to_client()
    world.changes(asked, last)
    (notification,) = world.to_client()
    assert (notification.code, notification.option(Option.OBSERVE)) == (code, None)
    assert len(world.proxy._watches) == 0


def test_an_origin_server_that_is_gone_ends_it_too():
    world = Watched()
    world.client_says(observe())
    (asked,) = world.to_origin()
    world.origin_says(asked, state(b"20", 5, max_age=1))
    world.to_client()
    world.wait(300)
    codes = [each.code for each in world.to_client()]
    assert codes[-1] in (Code.GATEWAY_TIMEOUT, Code.SERVICE_UNAVAILABLE)
    assert len(world.proxy._watches) == 0


def test_full_of_observations_a_client_is_answered_all_the_same():
    world = Watched(limits=ProxyLimits(watches=1))
    world.client_says(observe())
    (asked,) = world.to_origin()
    world.origin_says(asked, state(b"20", 5))
    world.to_client()
    got, answer = world.exchange(observe("coap://93.184.216.34/u"), content(b"u"))
    assert got.option(Option.OBSERVE) is None
    assert (answer.payload, answer.option(Option.OBSERVE)) == (b"u", None)
    assert world.proxy.counters["coap_limit_reached{watches}"] == 1


def test_a_failure_answers_everybody_who_waits():
    world = Watched(limits=ProxyLimits(wait=5.0))
    for token in (b"\x01", b"\x02"):
        world.client_says(observe(), token=token)
    world.to_origin()
    world.wait(5.0)
    answers = [each for each in world.to_client() if each.code]
    assert {each.token: each.code for each in answers} == dict.fromkeys((b"\x01", b"\x02"), Code.GATEWAY_TIMEOUT)
    assert world.proxy._registering == {}


def test_once_a_day_a_client_has_to_say_that_it_is_there():
    world = Watched()
    world.client_says(observe())
    (asked,) = world.to_origin()
    world.origin_says(asked, state(b"20", 5, max_age=200_000))
    world.to_client()
    world.wait(86400.0)
    notification = world.to_client()[0]
    assert (notification.payload, notification.type) == (b"20", Type.CON)
    assert uint_option(notification, Option.MAX_AGE) == 113600
    assert world.to_origin() == []


def test_a_route_and_large_states():
    body = bytes(range(256)) * 6
    world = Watched(routes=["/in=coap://93.184.216.34"])
    request = Message(Code.GET, ((Option.OBSERVE, b""), (Option.URI_PATH, b"in"), (Option.URI_PATH, b"t")))
    world.client_says(request)
    (asked,) = world.to_origin()
    world.origin_says(asked, state(body[:1024], 5, (int(Option.BLOCK2), b"\x0e"), (int(Option.ETAG), b"e")))
    (more,) = world.to_origin()
    world.origin_says(more, content(body[1024:], (int(Option.BLOCK2), b"\x16"), (int(Option.ETAG), b"e")))
    (answer,) = world.to_client()
    assert (answer.payload, uint_option(answer, Option.BLOCK2)) == (body[:1024], 0x0E)
    assert answer.option(Option.OBSERVE)


def test_no_stranger_is_entered_in_a_list():
    world = Watched(trusted=False)
    (challenge,) = world.client_says(observe())
    assert challenge.code == Code.UNAUTHORIZED
    assert world.to_origin() == []

"""The proxy between a scripted client and a scripted origin server, message by message, time driven by hand."""

from dataclasses import replace

import pytest
from coap_proxy_world import CLIENT, ORIGIN, World, content, plain, proxy_uri

from vitalgate.coap import Code, Endpoint, Failure, Message, Site, Type, decode, encode
from vitalgate.coap.options import Option, build_options, uint_option
from vitalgate.coap.proxyevents import TROUBLE, HttpAsk, LocalRequest, ProxyLimits, Resolve, Trouble
from vitalgate.coap.proxypolicy import Target
from vitalgate.coap.proxyrequest import RouteError, parse_route

SAFE_KNOWN_TO_NOBODY = 2049  # critical, Safe-to-Forward, part of the Cache-Key
UNSAFE_ELECTIVE = 2050
UNSAFE_CRITICAL = 2051
NO_CACHE_KEY = 0x801C


# Who is asked what


def test_a_request_is_taken_apart_and_sent_on_with_token_and_message_id_of_our_own():
    world = World()
    got, answer = world.exchange(proxy_uri("coap://93.184.216.34/a/b?c=1&d"), content(b"21.5", (Option.ETAG, b"e")))
    assert plain(got.options) == [
        (Option.URI_PATH, b"a"), (Option.URI_PATH, b"b"), (Option.URI_QUERY, b"c=1"), (Option.URI_QUERY, b"d"),
    ]  # fmt: skip
    assert uint_option(got, Option.HOP_LIMIT) == 16
    assert got.token != b"\xaa"
    assert len(got.token) == 8
    assert got.mid != world.mid
    assert (answer.code, answer.payload, answer.type) == (Code.CONTENT, b"21.5", Type.ACK)
    assert answer.options == ((Option.ETAG, b"e"),)
    assert world.proxy.counters["coap_proxy_requests{forwarded}"] == 1


def test_a_name_is_looked_up_once_and_the_address_that_was_judged_is_used():
    world = World("coap://origin.example:5690")
    assert world.client_says(proxy_uri("coap://Origin.EXAMPLE:5690/t")) == []
    event = world.proxy.next_event()
    assert event == Resolve(1, Target("coap", "origin.example", 5690))
    world.proxy.resolved(event.ticket, ["10.0.0.8", "93.184.216.34"], world.now)
    (got,) = world.to_origin(("93.184.216.34", 5690))
    assert plain(got.options) == [(Option.URI_HOST, b"origin.example"), (Option.URI_PATH, b"t")]
    world.origin_says(got, content(), ("93.184.216.34", 5690))
    assert world.to_client()[0].payload == b"21.5"
    world.proxy.resolved(event.ticket, ["93.184.216.34"], world.now)
    assert world.to_origin() == [], "said twice, heard once"


def test_proxy_scheme_with_the_uri_in_its_options():
    world = World("coap://93.184.216.34:*")
    where = ((Option.URI_HOST, b"93.184.216.34"), (Option.URI_PORT, b"\x16\x33"))
    what = ((Option.URI_PATH, b"a/b"), (Option.URI_QUERY, b"c&d"), (Option.PROXY_SCHEME, b"coap"))
    assert world.client_says(Message(Code.GET, (*where, *what))) == []
    (got,) = world.to_origin(("93.184.216.34", 5683))
    assert plain(got.options) == [(Option.URI_PATH, b"a/b"), (Option.URI_QUERY, b"c&d")]


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (proxy_uri("coaps://93.184.216.34/"), Code.PROXYING_NOT_SUPPORTED),
        (proxy_uri("ftp://93.184.216.34/"), Code.PROXYING_NOT_SUPPORTED),
        (proxy_uri("t"), Code.PROXYING_NOT_SUPPORTED),
        (proxy_uri("coap://"), Code.BAD_REQUEST),
        (proxy_uri("coap://93.184.216.34/#f"), Code.BAD_REQUEST),
        (proxy_uri("coap://user@93.184.216.34/"), Code.BAD_REQUEST),
        (proxy_uri("coap://93.184.216.34:99999/"), Code.BAD_REQUEST),
        (proxy_uri("coap://93.184.216.34/\r\nx"), Code.BAD_REQUEST),
        (proxy_uri("coap://93.184.216.34/ä"), Code.BAD_REQUEST),
        (proxy_uri("coap://93.184.216.34/%ff"), Code.BAD_REQUEST),
        (proxy_uri("coap://93.184.216.34/a/../b"), Code.BAD_REQUEST),
        (proxy_uri("coap://" + "a" * 300 + "/"), Code.BAD_REQUEST),
        (proxy_uri("http://a b/"), Code.BAD_REQUEST),
        (proxy_uri("http://origin.example\\@127.0.0.1/"), Code.BAD_REQUEST),
        (proxy_uri("coap://93.184.216.34/", (Option.PROXY_SCHEME, b"coap")), Code.BAD_REQUEST),
        (proxy_uri("coap://93.184.216.34/", (Option.HOP_LIMIT, b"\x00")), Code.BAD_REQUEST),
        (proxy_uri("coap://93.184.216.34/", (Option.HOP_LIMIT, b"")), Code.BAD_REQUEST),
        (proxy_uri("coap://93.184.216.34/", (Option.HOP_LIMIT, b"\x01\x00")), Code.BAD_REQUEST),
        (proxy_uri("coap://93.184.216.34/", code=0x0F), Code.METHOD_NOT_ALLOWED),
    ],
)
def test_what_is_refused_without_asking_anybody(request_, code):
    world = World("0.0.0.0/0")
    (answer,) = world.client_says(request_)
    assert answer.code == code
    assert world.to_origin() == []
    assert world.proxy.next_event() is None
    assert len(world.proxy) == 0


def test_an_endpoint_that_is_no_proxy_says_so():
    endpoint = Endpoint(site=Site(), trusted=lambda path: True)
    for option in ((Option.PROXY_URI, b"coap://93.184.216.34/"), (Option.PROXY_SCHEME, b"coap")):
        endpoint.receive_datagram(encode(Message(Code.GET, (option,), mid=7)), CLIENT, 0.0)
        ((data, _),) = endpoint.datagrams_to_send(0.0)
        assert decode(data).code == Code.PROXYING_NOT_SUPPORTED


# Denials


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("coap://93.184.216.35/", "not_allowed"),
        ("coap://other.example/", "not_allowed"),
        ("coap://origin.example:5684/", "not_allowed"),
        ("coap://127.0.0.1/", "not_allowed"),
        ("coap://[::1]/", "not_allowed"),
        ("coap://224.0.1.187/", "group_address"),
        ("http://93.184.216.34/", "not_allowed"),
    ],
)
def test_what_no_rule_permits_is_denied_and_counted(uri, reason):
    world = World("coap://origin.example", "http://origin.example")
    (answer,) = world.client_says(proxy_uri(uri))
    assert answer.code == Code.FORBIDDEN
    assert world.proxy.next_event() is None, "no name is looked up"
    assert world.proxy.counters[f"coap_proxy_denied{{{reason}}}"] == 1
    assert world.to_origin() == []


@pytest.mark.parametrize("addresses", [["127.0.0.1"], ["10.1.1.1", "::1"], ["169.254.169.254"], ["::ffff:127.0.0.1"]])
def test_a_permitted_name_that_leads_inside_is_denied(addresses):
    world = World()
    assert world.client_says(proxy_uri("coap://origin.example/")) == []
    world.proxy.resolved(world.proxy.next_event().ticket, addresses, world.now)
    (answer,) = world.to_client()
    assert answer.code == Code.FORBIDDEN
    assert world.proxy.counters["coap_proxy_denied{special_address}"] == 1
    assert world.to_origin() == []


def test_a_name_that_is_nobodys():
    world = World()
    world.client_says(proxy_uri("coap://origin.example/"))
    world.proxy.resolved(world.proxy.next_event().ticket, [], world.now)
    assert world.to_client()[0].code == Code.BAD_GATEWAY


def test_an_address_that_is_not_verified_has_nothing_forwarded():
    world = World(trusted=False)
    request = proxy_uri()
    (challenge,) = world.client_says(request)
    assert challenge.code == Code.UNAUTHORIZED
    assert world.to_origin() == []
    echo = (int(Option.ECHO), challenge.option(Option.ECHO))
    got, answer = world.exchange(proxy_uri("coap://93.184.216.34/t", echo), content(bytes(500)))
    assert got.option(Option.ECHO) is None, "it was ours"
    assert len(answer.payload) == 500


# Options


def test_options_go_on_by_their_class():
    world = World()
    more = [
        (Option.IF_MATCH, b"m"), (Option.ETAG, b"e"), (Option.ACCEPT, b"\x32"), (Option.OSCORE, b"\x09\x01"),
        (SAFE_KNOWN_TO_NOBODY, b"1"), (SAFE_KNOWN_TO_NOBODY - 1, b"2"), (NO_CACHE_KEY, b"3"),
    ]  # fmt: skip
    of_this_hop = [
        (Option.NO_RESPONSE, b""), (Option.BLOCK2, b"\x06"), (Option.SIZE2, b""), (Option.OBSERVE, b"\x01"),
        (Option.REQUEST_TAG, b"r"), (Option.SIZE1, b"\x01"),
    ]  # fmt: skip
    got, _ = world.exchange(proxy_uri("coap://93.184.216.34/", *more, *of_this_hop), content())
    assert sorted(plain(got.options)) == sorted(more)


@pytest.mark.parametrize("number", [UNSAFE_ELECTIVE, UNSAFE_CRITICAL, Option.Q_BLOCK1, Option.MAX_AGE])
def test_an_unsafe_option_that_is_not_recognised_in_a_request_is_bad(number):
    world = World()
    (answer,) = world.client_says(proxy_uri("coap://93.184.216.34/", (number, b"\x01")))
    assert answer.code == Code.BAD_OPTION
    assert world.to_origin() == []


@pytest.mark.parametrize("number", [UNSAFE_ELECTIVE, UNSAFE_CRITICAL, Option.PROXY_URI])
def test_an_unsafe_option_that_is_not_recognised_in_a_response_is_a_bad_gateway(number):
    _, answer = World().exchange(proxy_uri(), content(b"x", (number, b"\x01")))
    assert (answer.code, answer.options) == (Code.BAD_GATEWAY, ())


def test_safe_options_of_a_response_go_on_known_or_not():
    more = ((Option.OSCORE, b""), (SAFE_KNOWN_TO_NOBODY, b"1"), (SAFE_KNOWN_TO_NOBODY, b"2"), (NO_CACHE_KEY, b"3"))
    _, answer = World().exchange(proxy_uri(), content(b"x", *more))
    assert answer.options == more


def test_no_response_is_between_client_and_proxy():
    world = World()
    got, answer = world.exchange(proxy_uri("coap://93.184.216.34/t", (Option.NO_RESPONSE, b"\x02"), code=Code.POST),
                                 content(code=Code.CHANGED))  # fmt: skip
    assert got.option(Option.NO_RESPONSE) is None
    assert (answer.code, answer.type) == (Code.EMPTY, Type.ACK)


def test_echo_is_answered_on_each_hop():
    world = World()
    world.client_says(proxy_uri(code=Code.PUT, payload=b"on"))
    (first,) = world.to_origin()
    world.origin_says(first, Message(Code.UNAUTHORIZED, ((Option.ECHO, b"fresh"),)))
    assert world.to_client() == []
    (second,) = world.to_origin()
    assert (second.option(Option.ECHO), second.payload) == (b"fresh", b"on")
    world.origin_says(second, Message(Code.CHANGED, ((Option.ECHO, b"next"),)))
    (answer,) = world.to_client()
    assert (answer.code, answer.options) == (Code.CHANGED, ())


# Hops


def test_hops_are_counted_down_and_the_last_one_goes_nowhere():
    world = World()
    got, _ = world.exchange(proxy_uri("coap://93.184.216.34/t", (Option.HOP_LIMIT, b"\x02")), content(max_age=10))
    assert uint_option(got, Option.HOP_LIMIT) == 1
    (answer,) = world.client_says(proxy_uri("coap://93.184.216.34/u", (Option.HOP_LIMIT, b"\x01")))
    assert (answer.code, answer.payload) == (Code.HOP_LIMIT_REACHED, b"p1")
    assert world.to_origin() == []
    (answer,) = world.client_says(proxy_uri("coap://93.184.216.34/t", (Option.HOP_LIMIT, b"\x01")))
    assert answer.code == Code.CONTENT, "the cache needs no hop"


@pytest.mark.parametrize(
    ("said", "code", "passed"),
    [
        (b"p3 p2", Code.HOP_LIMIT_REACHED, b"p1 p3 p2"),
        (b"", Code.HOP_LIMIT_REACHED, b"p1"),
        (b"p3 p1", Code.BAD_GATEWAY, b"loop"),
        (b"p11", Code.HOP_LIMIT_REACHED, b"p1 p11"),
        (b"p" * 1024, Code.HOP_LIMIT_REACHED, b"p" * 1024),
    ],
)
def test_who_relays_a_loop_says_so_once(said, code, passed):
    _, answer = World().exchange(proxy_uri(), Message(Code.HOP_LIMIT_REACHED, (), said))
    assert (answer.code, answer.payload) == (code, passed)


def test_a_loop_through_the_proxy_itself_ends():
    world = World("coap://loop.example")
    world.client_says(proxy_uri("coap://loop.example/.well-known/core"))
    world.proxy.resolved(world.proxy.next_event().ticket, ["192.0.2.99"], world.now)
    (answer,) = world.to_client()
    assert uint_option(answer, Option.CONTENT_FORMAT) == 40, "a request for the proxy itself is a local one"
    assert world.to_origin() == []


@pytest.mark.parametrize(
    "request_",
    [
        proxy_uri("coap://192.0.2.99/here"),
        Message(Code.GET, ((Option.URI_PATH, b"here"), (Option.PROXY_SCHEME, b"coap"))),
        Message(Code.GET, ((Option.URI_PATH, b"here"),)),
    ],
)
def test_its_own_resources(request_):
    site = Site()
    site.add("here", lambda request, path, identity, now: content(b"own"), methods=[Code.GET])
    world = World(site=site)
    assert world.client_says(request_)[0].payload == b"own"


def test_requests_for_the_application_are_the_applications():
    site = Site()
    site.add("later", lambda request, path, identity, now: None, methods=[Code.GET])
    world = World(site=site)
    world.client_says(Message(Code.GET, ((Option.URI_PATH, b"later"),)))
    event = world.proxy.next_event()
    assert isinstance(event, LocalRequest)
    event.front.respond(event.received.exchange, content(b"now"), world.now)
    assert world.to_client()[0].payload == b"now"


# Failures


def test_an_origin_server_that_says_nothing():
    world = World()
    assert world.client_says(proxy_uri()) == []
    world.wait(1.0)
    assert [(each.code, each.type) for each in world.to_client()] == [(Code.EMPTY, Type.ACK)]
    world.wait(61.0)
    (answer,) = world.to_client()
    assert (answer.code, answer.type, answer.token) == (Code.GATEWAY_TIMEOUT, Type.CON, b"\xaa")
    assert len(world.to_origin()) == 5
    assert len(world.proxy) == 0


def test_a_proxy_that_waits_less_gives_up_and_forgets():
    world = World(limits=ProxyLimits(wait=5.0))
    world.client_says(proxy_uri())
    (got,) = world.to_origin()
    world.wait(5.0)
    assert world.to_client()[-1].code == Code.GATEWAY_TIMEOUT
    world.origin_says(got, content())
    assert world.to_client() == []
    assert (len(world.proxy), world.proxy.next_timeout()) == (0, None)
    world.to_origin()
    world.wait(100)
    assert world.to_origin() == [], "the request is not retransmitted any more"


def test_a_name_that_is_never_found():
    world = World(limits=ProxyLimits(wait=5.0))
    world.client_says(proxy_uri("coap://origin.example/"))
    event = world.proxy.next_event()
    world.wait(5.0)
    assert world.to_client()[-1].code == Code.GATEWAY_TIMEOUT
    world.proxy.resolved(event.ticket, ["93.184.216.34"], world.now)
    assert world.to_origin() == []


def test_an_origin_server_that_resets():
    world = World()
    world.client_says(proxy_uri())
    (got,) = world.to_origin()
    world.back.receive_datagram(encode(Message(0, type=Type.RST, mid=got.mid)), ORIGIN, world.now)
    world.turn()
    assert world.to_client()[0].code == Code.BAD_GATEWAY


def test_a_target_that_there_is_no_way_to():
    world = World()
    world.proxy._reach = lambda address, port: None
    (answer,) = world.client_says(proxy_uri())
    assert answer.code == Code.BAD_GATEWAY


def test_full_of_requests_under_way():
    world = World(limits=ProxyLimits(forwards=2))
    for _ in range(2):
        assert world.client_says(proxy_uri("coap://origin.example/")) == []
    (answer,) = world.client_says(proxy_uri("coap://origin.example/"))
    assert (answer.code, uint_option(answer, Option.MAX_AGE)) == (Code.SERVICE_UNAVAILABLE, 10)
    assert world.proxy.counters["coap_limit_reached{forwards}"] == 1
    world.wait(100.0)
    world.to_client()
    assert world.client_says(proxy_uri("coap://origin.example/")) == [], "there is room again"


def test_too_many_requests_for_one_origin_server():
    world = World("coap://93.184.216.34")
    most = world.back._core.limits.queued_per_peer
    for _ in range(most + 1):
        assert world.client_says(proxy_uri(code=Code.POST)) == []
    (answer,) = world.client_says(proxy_uri(code=Code.POST))
    assert answer.code == Code.SERVICE_UNAVAILABLE
    assert len(world.to_origin()) == 1, "NSTART holds for a proxy too"


def test_requests_of_strangers_to_the_back_are_not_served():
    world = World("0.0.0.0/0", trusted=False)
    for request in (proxy_uri(), Message(Code.GET)):
        world.back.receive_datagram(encode(replace(request, mid=9)), ("203.0.113.5", 1), world.now)
        world.turn()
    assert world.proxy.next_event() is None
    answers = [decode(data) for data, _ in world.back.datagrams_to_send(world.now)]
    assert [each.code for each in answers] in ([Code.PROXYING_NOT_SUPPORTED], [Code.PROXYING_NOT_SUPPORTED, 0x84])


def test_every_failure_has_a_response():
    assert {TROUBLE[reason].response().code >> 5 for reason in Failure} == {5}


# Blocks are each hop's own


def test_a_large_representation_comes_in_blocks_on_either_side():
    body = bytes(range(256)) * 5
    world = World()
    assert world.client_says(proxy_uri("coap://93.184.216.34/t", (Option.BLOCK2, b"\x06"))) == []
    (got,) = world.to_origin()
    assert got.option(Option.BLOCK2) is None
    world.origin_says(got, content(body[:512], (Option.ETAG, b"e"), (Option.BLOCK2, b"\x0d"), max_age=60))
    for num in (1, 2):
        assert world.to_client() == []
        (got,) = world.to_origin()
        assert uint_option(got, Option.BLOCK2) == num << 4 | 5
        more = 8 if num < 2 else 0
        block = (int(Option.BLOCK2), bytes([num << 4 | more | 5]))
        world.origin_says(got, content(body[num * 512 :][:512], (Option.ETAG, b"e"), block, max_age=60))
    (first,) = world.to_client()
    assert (first.payload, uint_option(first, Option.BLOCK2)) == (body[:1024], 0x0E)
    (second,) = world.client_says(proxy_uri("coap://93.184.216.34/t", (Option.BLOCK2, b"\x16")))
    assert (second.payload, uint_option(second, Option.BLOCK2)) == (body[1024:], 0x16)
    assert second.option(Option.ETAG) == first.option(Option.ETAG) == b"e"
    assert world.to_origin() == []
    (again,) = world.client_says(proxy_uri())
    assert again.payload == body[:1024], "whole in the cache"


def test_a_large_request_is_put_together_and_cut_up_again():
    body = bytes(range(256)) * 5
    world = World()
    for num in range(3):
        block = (int(Option.BLOCK1), bytes([num << 4 | (8 if num < 2 else 0) | 5]))
        answers = world.client_says(
            proxy_uri("coap://93.184.216.34/t", block, code=Code.PUT, payload=body[num * 512 :][:512])
        )
        assert [each.code for each in answers] == ([Code.CONTINUE] if num < 2 else [])
    (got,) = world.to_origin()
    assert (got.payload, uint_option(got, Option.BLOCK1)) == (body[:1024], 0x0E)
    world.origin_says(got, Message(Code.CONTINUE, ((Option.BLOCK1, b"\x0e"),)))
    (got,) = world.to_origin()
    assert (got.payload, uint_option(got, Option.BLOCK1)) == (body[1024:], 0x16)
    world.origin_says(got, Message(Code.CHANGED, ((Option.BLOCK1, b"\x16"),)))
    (answer,) = world.to_client()
    assert (answer.code, uint_option(answer, Option.BLOCK1)) == (Code.CHANGED, 0x25)


# The cache in its place


def test_what_is_fresh_is_not_asked_for_again():
    world = World()
    world.exchange(proxy_uri(), content(b"x", max_age=30))
    world.wait(10)
    got, answer = world.exchange(proxy_uri(), None)
    assert got is None
    assert (answer.payload, uint_option(answer, Option.MAX_AGE)) == (b"x", 20)
    world.wait(25)
    got, answer = world.exchange(proxy_uri(), content(b"y"))
    assert answer.payload == b"y"


def test_what_is_stale_is_validated_for_a_client_that_has_nothing():
    world = World()
    world.exchange(proxy_uri(), content(b"x", (Option.ETAG, b"v1"), max_age=5))
    world.wait(6)
    got, answer = world.exchange(proxy_uri(), Message(Code.VALID, ((Option.ETAG, b"v1"), (Option.MAX_AGE, b"\x05"))))
    assert got.all(Option.ETAG) == [b"v1"]
    assert (answer.code, answer.payload) == (Code.CONTENT, b"x")
    got, answer = world.exchange(proxy_uri("coap://93.184.216.34/t", (Option.ETAG, b"v1")), None)
    assert (got, answer.code) == (None, Code.VALID)


def test_a_valid_that_nobody_asked_for_is_a_bad_gateway():
    _, answer = World().exchange(proxy_uri(), Message(Code.VALID, ((Option.ETAG, b"?"),)))
    assert answer.code == Code.BAD_GATEWAY


def test_a_change_through_the_proxy_overtakes_a_response_on_its_way():
    world = World("coap://93.184.216.34", "coap://origin.example")
    world.client_says(proxy_uri("coap://origin.example/t"))
    world.client_says(proxy_uri("coap://origin.example/t", code=Code.PUT), token=b"\xbb")
    for event in (world.proxy.next_event(), world.proxy.next_event()):
        world.proxy.resolved(event.ticket, ["93.184.216.34"], world.now)
    (read,) = world.to_origin()
    # NSTART lets the write go only once the read was acknowledged, and its response comes after the write's.
    world.back.receive_datagram(encode(Message(0, type=Type.ACK, mid=read.mid)), ORIGIN, world.now)
    (write,) = world.to_origin()
    world.origin_says(write, content(b"", code=Code.CHANGED))
    late = replace(content(b"before"), type=Type.NON, mid=77, token=read.token)
    world.back.receive_datagram(encode(late), ORIGIN, world.now)
    world.turn()
    assert {each.token: each.code for each in world.to_client()} == {b"\xaa": Code.CONTENT, b"\xbb": Code.CHANGED}
    assert len(world.cache) == 1
    world.client_says(proxy_uri("coap://origin.example/t"))
    assert isinstance(world.proxy.next_event(), Resolve), "it is asked for again"


# Reverse


def test_a_reverse_route_needs_no_rule_and_maps_both_ways():
    world = World("coap://nobody.example", routes=["/ward=coap://10.0.0.5:61616/v1/", "/ward/b=coap://10.0.0.6"])
    request = Message(Code.POST, build_options("ward/bed/3", query=["x"], more=((Option.URI_HOST, b"front"),)), b"p")
    world.client_says(request)
    (got,) = world.to_origin(("10.0.0.5", 61616))
    assert plain(got.options) == list(build_options("v1/bed/3", query=["x"]))
    made = ((Option.LOCATION_PATH, b"v1"), (Option.LOCATION_PATH, b"bed"), (Option.LOCATION_PATH, b"4"))
    world.origin_says(got, Message(Code.CREATED, made), ("10.0.0.5", 61616))
    (answer,) = world.to_client()
    assert answer.all(Option.LOCATION_PATH) == [b"ward", b"bed", b"4"]
    world.client_says(Message(Code.GET, build_options("ward/b/c")))
    (got,) = world.to_origin(("10.0.0.6", 5683))
    assert plain(got.options) == [(Option.URI_PATH, b"c")], "the longest prefix counts"
    assert world.client_says(Message(Code.GET, build_options("wards")))[0].code == Code.NOT_FOUND


def test_what_came_through_a_route_is_not_given_away_to_who_asks_a_forward_proxy():
    world = World("93.0.0.0/8", "coap://inside.example", routes=["/in=coap://inside.example"])
    world.client_says(Message(Code.GET, build_options("in/t")))
    world.proxy.resolved(world.proxy.next_event().ticket, ["10.0.0.5"], world.now)
    (got,) = world.to_origin(("10.0.0.5", 5683))
    world.origin_says(got, content(b"secret"), ("10.0.0.5", 5683))
    assert world.to_client()[0].payload == b"secret"
    assert world.client_says(proxy_uri("coap://inside.example/t")) == []
    world.proxy.resolved(world.proxy.next_event().ticket, ["10.0.0.5"], world.now)
    assert world.to_client()[0].code == Code.FORBIDDEN


@pytest.mark.parametrize(
    "text",
    ["", "x=coap://h", "/x", "/x=http://h/", "/x=coap://h/?q", "/x?q=coap://h/", "/x=coap://h/#f", "/x=coaps://h"],
)
def test_what_is_no_route(text):
    with pytest.raises(RouteError):
        parse_route(text)


# HTTP, and who asks from elsewhere


def test_an_http_uri_becomes_a_question_to_an_http_server():
    world = World()
    world.client_says(proxy_uri("http://origin.example/x?y=1", (Option.ACCEPT, b"\x32")))
    world.proxy.resolved(world.proxy.next_event().ticket, ["93.184.216.34"], world.now)
    asked = world.proxy.next_event()
    assert isinstance(asked, HttpAsk)
    assert (asked.address, asked.url, asked.target.port) == ("93.184.216.34", "http://origin.example/x?y=1", 80)
    assert plain(asked.request.options) == [(Option.ACCEPT, b"\x32")]
    world.proxy.answered(asked.ticket, content(b"{}", max_age=9), world.now)
    assert world.to_client()[0].payload == b"{}"
    got, answer = world.exchange(proxy_uri("http://origin.example/x?y=1", (Option.ACCEPT, b"\x32")), None)
    assert got is None
    assert answer.payload == b"{}", "cached as any other"
    assert world.client_says(proxy_uri("http://origin.example/x?y=2", (Option.ACCEPT, b"\x32"))) == []
    world.proxy.resolved(world.proxy.next_event().ticket, ["93.184.216.34"], world.now)
    world.proxy.failed(world.proxy.next_event().ticket, Trouble.TIMEOUT, world.now)
    assert world.to_client()[0].code == Code.GATEWAY_TIMEOUT


def test_without_the_scheme_http_is_not_proxied():
    world = World(schemes=("coap",))
    (answer,) = world.client_says(proxy_uri("http://origin.example/"))
    assert answer.code == Code.PROXYING_NOT_SUPPORTED


def test_somebody_who_is_no_coap_endpoint_asks():
    world = World()
    answers = []
    world.proxy.ask(Message(Code.GET), "coap://93.184.216.34/t", lambda response, now: answers.append(response), 1000.0)
    (got,) = world.to_origin()
    world.origin_says(got, content())
    for uri, code in (
        ("coap://93.184.216.34/t", Code.CONTENT),
        ("coap://127.0.0.1/", Code.FORBIDDEN),
        ("x", Code.PROXYING_NOT_SUPPORTED),
    ):
        world.proxy.ask(Message(Code.GET), uri, lambda response, now: answers.append(response), world.now)
        assert answers[-1].code == code
    assert len(answers) == 4

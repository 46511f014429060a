"""The endpoint: requests and responses under OSCORE, with everything that may be wrong with them."""

import pytest
from oscore_world import CHANGED, CLOUD, GATEWAY, POST, World, again, events, site_of

from vitalgate.coap import (
    Code,
    Failure,
    Message,
    Option,
    RequestFailed,
    RequestReceived,
    ResponseReceived,
    Site,
)
from vitalgate.coap.codec import decode
from vitalgate.coap.endpoint import MessageEndpoint
from vitalgate.oscore.context import Parameters, SecurityContext
from vitalgate.oscore.contexts import Contexts
from vitalgate.oscore.endpoint import Endpoint
from vitalgate.oscore.errors import SequenceError
from vitalgate.oscore.option import Header, encode
from vitalgate.oscore.protect import protect_request
from vitalgate.oscore.requests import ECHOES
from vitalgate.oscore.sequence import MemorySequenceStore


def recorder(response=CHANGED):
    """(handler, what it was called with)."""
    calls = []

    def handler(request, path, identity, now):
        calls.append((request, path, identity))
        return response

    return handler, calls


def counted(world, name, label=""):
    return world.server.counters[f"{name}{{{label}}}" if label else name]


def test_a_request_and_its_response_inline():
    handler, calls = recorder()
    world = World(site=site_of(handler))
    exchange = world.request()
    world.exchange()
    assert [(r.code, r.options, r.payload, p, i) for r, p, i in calls] == [
        (POST.code, POST.options, POST.payload, GATEWAY, GATEWAY)
    ]
    (event,) = events(world.client)
    assert isinstance(event, ResponseReceived)
    assert (event.exchange, event.response.code, event.response.payload) == (exchange, CHANGED.code, CHANGED.payload)
    assert len(world.sent) == 2
    for _, data in world.sent:
        assert not any(clear in data for clear in (b"ingest", b"heartbeat", b"stored", GATEWAY.encode()))
    assert [decode(data).code for _, data in world.sent] == [Code.POST, Code.CHANGED]


def test_it_is_a_message_endpoint():
    endpoint: MessageEndpoint = World().client
    assert isinstance(endpoint, Endpoint)


def test_without_a_site_requests_are_events_and_answers_may_come_late():
    world = World()
    sent = [world.request(Message(Code.POST, POST.options, bytes((n,)))) for n in range(3)]
    for n in range(3):  # one after the other: NSTART is 1
        world.exchange()
        (event,) = events(world.server)
        assert isinstance(event, RequestReceived)
        assert (event.request.payload, event.path, event.identity) == (bytes((n,)), GATEWAY, GATEWAY)
        if n == 1:
            world.wait(1.0)  # past the piggyback window: an Empty acknowledgement, then a separate response
        world.server.respond(event.exchange, Message(Code.CHANGED, (), bytes((n,))), world.now)
    world.exchange()
    got = events(world.client)
    assert [(e.exchange, e.response.payload) for e in got] == [(x, bytes((n,))) for n, x in enumerate(sent)]
    for _, data in world.sent:
        message = decode(data)
        assert message.code == Code.EMPTY or message.option(Option.OSCORE) is not None


def test_an_answer_is_given_once():
    world = World()
    world.request()
    world.exchange()
    (event,) = events(world.server)
    for _ in range(2):
        world.server.respond(event.exchange, CHANGED, world.now)
    world.exchange()
    assert len(world.sent) == 2
    assert counted(world, "coap_responses_undelivered", "late") == 1


def test_requests_that_are_never_answered_are_forgotten():
    world = World()
    world.request()
    world.exchange()
    (event,) = events(world.server)
    world.wait(400.0)
    assert not world.server._waiting
    world.server.respond(event.exchange, CHANGED, world.now)
    assert counted(world, "coap_responses_undelivered", "late") == 1
    assert [type(e) for e in events(world.client)] == [RequestFailed]
    assert not world.client._requests._sent
    assert len(world.client._requests) == 0


def test_the_resources_errors_are_protected():
    world = World(site=Site())
    world.request()
    world.exchange()
    (event,) = events(world.client)
    assert event.response.code == Code.NOT_FOUND
    assert [decode(data).code for _, data in world.sent] == [Code.POST, Code.CHANGED]


def test_an_unknown_critical_option_inside_is_refused_inside():
    handler, calls = recorder()
    world = World(site=site_of(handler))
    world.request(Message(Code.POST, ((11, b"ingest"), (2049, b"?"))))
    world.exchange()
    (event,) = events(world.client)
    assert event.response.code == Code.BAD_OPTION
    assert calls == []
    assert decode(world.sent[-1][1]).code == Code.CHANGED


def test_an_unknown_critical_option_in_a_response_fails_the_request():
    world = World(site=site_of(lambda *_: Message(Code.CHANGED, ((2049, b"?"),))))
    exchange = world.request()
    world.exchange()
    assert events(world.client) == [RequestFailed(exchange, CLOUD, Failure.REJECTED)]


# Requests in clear (policy: none, unless the path is left open)


def plain(path=b"ingest", mid=7, code=Code.POST):
    from vitalgate.coap.codec import encode as encode_message

    return encode_message(Message(code, ((11, path),), b"in clear", 0, mid, b"tok"))


def test_a_request_in_clear_is_refused_and_counted():
    handler, calls = recorder()
    world = World(site=site_of(handler))
    for mid, path in enumerate((b"ingest", b"", b".well-known", b"nothing")):
        world.to_server(plain(path, mid))
        assert [decode(data).code for data in world.from_server()] == [Code.UNAUTHORIZED]
    assert calls == []
    assert counted(world, "oscore_requests_refused", "unprotected") == 4


@pytest.mark.parametrize("with_site", [True, False])
def test_a_path_left_open_is_served_in_clear_and_no_other(with_site):
    handler, calls = recorder()
    site = site_of(handler, "enroll") if with_site else None
    if site is not None:
        site.add("enroll/more", handler)
        site.add("ingest", handler)
    world = World(site=site, unprotected={("enroll",)})
    for mid in range(2):  # the second time the outer endpoint knows the way
        world.to_server(plain(b"enroll", mid))
        if not with_site:
            (event,) = events(world.server)
            assert event.identity == ""
            world.server.respond(event.exchange, CHANGED, world.now)
        (data,) = world.from_server()
        assert decode(data).payload == CHANGED.payload
    assert [identity for _, _, identity in calls] == ["", ""][: len(calls)]
    world.to_server(plain(b"ingest", 3))
    world.to_server(plain(b"enroll/more", 4))
    assert [decode(data).code for data in world.from_server()] == [Code.UNAUTHORIZED] * 2
    world.request(Message(Code.POST, ((11, b"enroll"),)))
    world.exchange()
    if with_site:
        assert calls[-1][2] == GATEWAY, "an open path may be reached protected too"


def test_a_resource_added_later_is_found():
    handler, _ = recorder()
    site = site_of(handler, "enroll")
    world = World(site=site, unprotected={("enroll",), ("late",)})
    world.to_server(plain(b"enroll", 1))
    world.to_server(plain(b"late", 2))
    assert [decode(data).code for data in world.from_server()] == [Code.CHANGED, Code.NOT_FOUND]
    site.add("late", handler)
    world.to_server(plain(b"late", 3))
    assert [decode(data).code for data in world.from_server()] == [Code.CHANGED]


def test_our_own_request_in_clear_is_named_so():
    handler, calls = recorder()
    world = World(site=site_of(handler, "enroll"), unprotected={("enroll",)})
    exchange = world.client.request_unprotected(Message(Code.POST, ((11, b"enroll"),), b"hello"), CLOUD, world.now)
    world.exchange()
    assert calls[0][2] == ""
    (event,) = events(world.client)
    assert (event.exchange, event.response.payload) == (exchange, CHANGED.payload)


# Section 8.2: requests that do not verify


def refused(world, data):
    """(code, Max-Age, diagnostic) of the answer to a datagram."""
    world.to_server(data)
    (reply,) = world.from_server()
    message = decode(reply)
    assert message.option(Option.OSCORE) is None
    return message.code, message.option(Option.MAX_AGE), message.payload


def test_the_errors_of_section_8_2():
    handler, calls = recorder()
    world = World(site=site_of(handler))
    world.request()
    (request,) = world.from_client()
    world.to_server(request)
    world.from_server()
    fresh = Header(b"\x09", b"g")
    cases = [
        ({"options": ((9, b"\xff\x01"),)}, Code.BAD_OPTION, b"Failed to decode COSE", "malformed"),
        ({"options": ((9, b""),)}, Code.BAD_OPTION, b"Failed to decode COSE", "malformed"),
        ({"options": ((9, encode(Header(b"\0"))),)}, Code.BAD_OPTION, b"Failed to decode COSE", "malformed"),
        ({"options": ((9, encode(Header(b"", b"g"))),)}, Code.BAD_OPTION, b"Failed to decode COSE", "malformed"),
        ({"payload": b""}, Code.BAD_OPTION, b"Failed to decode COSE", "malformed"),
        (
            {"options": ((9, encode(Header(b"\0", b"?"))),)},
            Code.UNAUTHORIZED,
            b"Security context not found",
            "no-context",
        ),
        (
            {"options": ((9, encode(Header(b"\0", b"g", b"c"))),)},
            Code.UNAUTHORIZED,
            b"Security context not found",
            "no-context",
        ),
        ({}, Code.UNAUTHORIZED, b"Replay detected", "replay"),
        ({"options": ((9, encode(fresh)),)}, Code.BAD_REQUEST, b"Decryption failed", "decryption"),
    ]
    for mid, (changes, code, diagnostic, reason) in enumerate(cases):
        before = counted(world, "oscore_requests_refused", reason)
        answer = refused(world, again(request, mid=40000 + mid, **changes))
        assert answer == (code, b"", diagnostic)
        assert counted(world, "oscore_requests_refused", reason) == before + 1
    assert len(calls) == 1


def test_two_oscore_options_are_one_too_many():
    world = World(site=site_of(recorder()[0]))
    world.request()
    (request,) = world.from_client()
    value = decode(request).option(Option.OSCORE)
    assert refused(world, again(request, options=((9, value), (9, value))))[0] == Code.BAD_OPTION


def test_a_retransmission_gets_the_same_answer_and_no_second_run():
    handler, calls = recorder()
    world = World(site=site_of(handler))
    world.request()
    (request,) = world.from_client()
    for _ in range(3):
        world.to_server(request)
    first, second, third = world.from_server()
    assert first == second == third
    assert len(calls) == 1
    assert counted(world, "oscore_requests_refused", "replay") == 0


def test_a_replay_from_another_address_is_refused():
    handler, calls = recorder()
    world = World(site=site_of(handler))
    world.request()
    (request,) = world.from_client()
    world.to_server(request)
    world.to_server(request, "attacker")
    assert len(calls) == 1
    assert counted(world, "oscore_requests_refused", "replay") == 1


# Section 8.4: responses that do not verify


def test_a_response_that_does_not_verify_is_ignored_and_the_right_one_taken():
    world = World(site=site_of(recorder()[0]))
    exchange = world.request()
    (request,) = world.from_client()
    world.to_server(request)
    (response,) = world.from_server()
    payload = decode(response).payload
    forgeries = [
        again(response, payload=payload[:-1] + bytes((payload[-1] ^ 1,))),
        again(response, payload=b""),
        again(response, options=((9, b"\xff"),)),
        again(response, options=((9, b"\x01\x05"),)),
        again(response, options=(), payload=b"a success in clear"),
        again(response, options=(), code=Code.CONTENT),
        again(response, type=0, mid=9, payload=b"separate forgery"),
        again(response, type=1, mid=10, options=(), payload=b"separate in clear"),
        again(request, type=2, code=Code.CHANGED),
    ]
    for forged in forgeries:
        world.to_client(forged)
        assert world.from_client() == [], "no sign of it goes out"
        assert events(world.client) == []
    assert world.client.counters.total("oscore_responses_ignored") == len(forgeries)
    world.to_client(response)
    (event,) = events(world.client)
    assert (event.exchange, event.response.payload) == (exchange, CHANGED.payload)


def test_only_forgeries_end_in_a_timeout():
    world = World(site=site_of(recorder()[0]))
    exchange = world.request()
    (request,) = world.from_client()
    deadline = world.now + 300
    while not (got := events(world.client)):
        world.to_client(again(request, type=2, code=Code.CHANGED, payload=b"forged"))
        world.now = world.client.next_timeout()
        assert world.now < deadline
        world.client.handle_timeout(world.now)
    assert got == [RequestFailed(exchange, CLOUD, Failure.TIMEOUT)]


def test_a_response_to_another_request_of_ours_is_ignored():
    world = World(site=site_of(recorder()[0]))
    world.request()
    (first,) = world.from_client()
    world.to_server(first)
    (old,) = world.from_server()
    world.to_client(old)
    events(world.client)
    world.request()
    (second,) = world.from_client()
    world.to_client(again(old, mid=decode(second).mid, token=decode(second).token))
    assert events(world.client) == []
    assert world.client.counters["oscore_responses_ignored{decryption}"] == 1


@pytest.mark.parametrize("code", [Code.UNAUTHORIZED, Code.BAD_REQUEST, Code.SERVICE_UNAVAILABLE])
def test_an_error_in_clear_ends_the_request(code):
    world = World()
    exchange = world.request()
    (request,) = world.from_client()
    world.to_client(again(request, type=2, code=code, options=((14, b""),), payload=b"Security context not found"))
    assert events(world.client) == [RequestFailed(exchange, CLOUD, Failure.PROTECTION)]
    assert world.client.counters["oscore_errors_received"] == 1


# Our own side fails closed


def test_without_a_context_nothing_is_sent():
    world = World()
    exchange = world.client.request(POST, "elsewhere", world.now)
    named = world.client.request(POST, CLOUD, world.now, identity="nobody")
    assert events(world.client) == [
        RequestFailed(exchange, "elsewhere", Failure.PROTECTION),
        RequestFailed(named, CLOUD, Failure.PROTECTION),
    ]
    assert world.from_client() == []


class FullDisk(MemorySequenceStore):
    full = False

    def reserve(self, record, end):
        if self.full:
            raise SequenceError("no space left")
        super().reserve(record, end)


def test_a_sender_whose_disk_is_full_sends_nothing():
    world = World()
    store = FullDisk()
    context = SecurityContext(CLOUD, Parameters(b"other", b"g", b""), store, fresh=True, block=1)
    contexts = Contexts()
    contexts.add(context, path=CLOUD)
    client = Endpoint(contexts=contexts)
    client.request(POST, CLOUD, 0.0)
    assert len(client.datagrams_to_send(0.0)) == 1
    store.full = True
    exchange = client.request(POST, CLOUD, 0.0)
    assert client.datagrams_to_send(0.0) == []
    assert events(client) == [RequestFailed(exchange, CLOUD, Failure.PROTECTION)]
    assert world.from_client() == []


def test_a_server_whose_disk_is_full_says_nothing_in_clear():
    world = World()
    world.server_store = FullDisk()
    world.start_server(fresh=True)
    world.server_store.full = True
    world.start_server(fresh=False)
    world.request()
    (request,) = world.from_client()
    assert refused(world, request) == (Code.SERVICE_UNAVAILABLE, b"", b"")
    assert counted(world, "oscore_not_protected", "sequence") == 1


def test_what_is_no_request_or_response_is_the_callers_mistake():
    world = World()
    with pytest.raises(ValueError):
        world.request(Message(Code.CONTENT))
    with pytest.raises(ValueError):
        world.client.request_unprotected(Message(Code.CONTENT), CLOUD, world.now)
    with pytest.raises(ValueError):
        world.server.respond(1, Message(Code.GET), world.now)


def test_a_request_that_cannot_be_protected_fails():
    world = World()
    exchange = world.request(Message(Code.GET, ((Option.PROXY_URI, b"coap://elsewhere/a"),)))
    assert events(world.client) == [RequestFailed(exchange, CLOUD, Failure.PROTECTION)]
    assert world.from_client() == []


def test_cancel():
    world = World()
    exchange = world.request()
    world.client.cancel(exchange, world.now)
    world.client.cancel(exchange, world.now)
    world.client.cancel(999, world.now)
    assert events(world.client) == [RequestFailed(exchange, CLOUD, Failure.CANCELLED)]


def test_a_request_towards_the_gateway_names_its_identity():
    world = World()
    exchange = world.server.request(POST, GATEWAY, world.now, identity=GATEWAY)
    world.exchange()
    (event,) = events(world.client)
    assert event.identity == CLOUD
    world.client.respond(event.exchange, CHANGED, world.now)
    world.exchange()
    (event,) = events(world.server)
    assert (event.exchange, event.response.payload) == (exchange, CHANGED.payload)


# Appendix B.1.2 through the endpoints


def test_a_restarted_server_asks_once_and_the_client_answers_by_itself():
    handler, calls = recorder()
    world = World(site=site_of(handler))
    world.request()
    world.exchange()
    old = world.sent[0][1]
    events(world.client)
    world.start_server(fresh=False)
    world.to_server(old)  # a replay of what the earlier run has processed
    world.from_server()
    assert len(calls) == 1
    exchange = world.request()
    world.exchange()
    (event,) = events(world.client)
    assert (event.exchange, event.response.payload) == (exchange, CHANGED.payload)
    assert len(calls) == 2
    assert calls[1][0].payload == POST.payload
    assert world.client.counters["oscore_echoes_answered"] == 1
    assert counted(world, "oscore_challenges") == 2
    world.to_server(again(old, mid=50000))
    assert counted(world, "oscore_requests_refused", "replay") == 1
    world.request()
    world.exchange()
    assert len(calls) == 3
    assert counted(world, "oscore_challenges") == 2, "it asks no more"
    piggybacked = [decode(data).option(Option.OSCORE) for sender, data in world.sent if sender == CLOUD]
    own = [value for value in piggybacked if value]
    assert len(own) == len(set(own)) == 2


def test_challenges_are_answered_a_few_times_and_then_handed_on():
    world = World(site=site_of(recorder()[0]))
    exchange = world.request()
    for _ in range(ECHOES + 1):
        assert events(world.client) == []
        world.start_server(fresh=False)  # once more, between its challenge and the answer
        for data in world.from_client():
            world.to_server(data)
        for data in world.from_server():
            world.to_client(data)
    (event,) = events(world.client)
    assert isinstance(event, ResponseReceived)
    assert event.exchange == exchange
    assert event.response.code == Code.UNAUTHORIZED
    assert event.response.option(Option.ECHO) is not None
    assert world.client.counters["oscore_echoes_answered"] == ECHOES


def test_a_resource_that_wants_fresh_requests_gets_them_even_after_a_restart():
    handler, calls = recorder()
    world = World(site=site_of(handler, fresh_within=10.0))
    world.start_server(fresh=False)
    for _ in range(2):
        exchange = world.request()
        world.exchange()
        (event,) = events(world.client)
        assert (event.exchange, event.response.payload) == (exchange, CHANGED.payload)
    assert len(calls) == 2
    assert world.client.counters["oscore_echoes_answered"] == 3


def test_requests_in_flight_while_the_server_restarts_all_arrive_once():
    handler, calls = recorder()
    world = World(site=site_of(handler))
    world.start_server(fresh=False)
    for n in range(10):
        world.request(Message(Code.POST, POST.options, bytes((n,))))
    world.exchange()
    assert sorted(request.payload for request, _, _ in calls) == [bytes((n,)) for n in range(10)]
    assert [event.response.code for event in events(world.client)] == [Code.CHANGED] * 10


def test_challenges_are_bounded():
    world = World(site=site_of(recorder()[0]))
    world.start_server(fresh=False)
    world.request()
    (request,) = world.from_client()
    for mid in range(100):
        world.to_server(again(request, mid=mid))
    replies = [decode(data) for data in world.from_server()]
    assert [r.code for r in replies] == [Code.CHANGED] * 64 + [Code.SERVICE_UNAVAILABLE] * 36
    assert world.server_context.sequence.used == 64
    world.now += 1.0
    world.to_server(again(request, mid=200))
    assert [decode(data).code for data in world.from_server()] == [Code.CHANGED]


# Address verification (RFC 9175 section 2.4) below OSCORE


def test_an_unverified_address_costs_one_round_trip_and_no_second_run():
    handler, calls = recorder()
    world = World(site=site_of(handler), verify_addresses=True)
    for _ in range(2):
        exchange = world.request()
        world.exchange()
        (event,) = events(world.client)
        assert (event.exchange, event.response.payload) == (exchange, CHANGED.payload)
    assert len(calls) == 2
    assert len(world.sent) == 6
    assert counted(world, "coap_challenges") == 1
    assert counted(world, "oscore_requests_refused", "replay") == 0


def test_a_fetch_outside_is_held_back_the_same_way():
    handler, calls = recorder(Message(Code.CONTENT, (), bytes(500)))
    world = World(site=site_of(handler), verify_addresses=True)
    world.request(Message(Code.GET, ((6, b"\1"), (11, b"ingest"))))  # Observe: the outer code is FETCH
    world.exchange()
    (event,) = events(world.client)
    assert len(event.response.payload) == 500
    assert len(calls) == 1


# Rotation and revocation


def rotated(world):
    keys = Parameters(b"the next secret ", b"g", b"", b"salt")
    client = SecurityContext(CLOUD, keys, world.client_store, fresh=True)
    server = SecurityContext(GATEWAY, keys.reversed(), world.server_store, fresh=True)
    return client, server


def test_old_and_new_keys_overlap_for_a_while():
    handler, calls = recorder()
    world = World(site=site_of(handler))
    world.request()
    (under_old,) = world.from_client()
    client, server = rotated(world)
    world.server.contexts.add(server)
    world.server.contexts.retire(world.server_context, world.now + 30.0)
    world.client.contexts.add(client)
    world.client.contexts.retire(world.client_context, world.now + 30.0)
    assert world.server.next_timeout() <= world.now + 30.0
    world.to_server(under_old)
    world.exchange()
    assert [type(e) for e in events(world.client)] == [ResponseReceived]
    world.request()
    world.exchange()
    assert [identity for _, _, identity in calls] == [GATEWAY, GATEWAY]
    assert client.sequence.used == 1
    # A replay under either is seen as one, whichever is tried first.
    for _, data in [each for each in world.sent if each[0] == GATEWAY][-2:]:
        assert refused(world, again(data, mid=60000 + len(data)))[0] in (Code.UNAUTHORIZED, Code.BAD_REQUEST)
    assert len(calls) == 2
    world.wait(31.0)
    assert len(world.server.contexts) == len(world.client.contexts) == 1
    unseen, _ = protect_request(world.client_context, POST)
    datagram = again(under_old, mid=1, options=unseen.options, payload=unseen.payload)
    assert refused(world, datagram)[2] == b"Decryption failed"


def test_revocation_takes_effect_at_once():
    world = World()
    exchange = world.request()
    world.exchange()
    (waiting,) = events(world.server)
    world.server.contexts.revoke(GATEWAY)
    world.server.respond(waiting.exchange, Message(Code.CONTENT, (), b"a patient's data"), world.now)
    world.exchange()
    assert events(world.client) == [RequestFailed(exchange, CLOUD, Failure.PROTECTION)]
    world.request()
    world.exchange()
    assert events(world.server) == []
    assert counted(world, "oscore_requests_refused", "no-context") == 1
    assert not any(b"patient" in data for _, data in world.sent)


def test_a_revoked_server_is_no_longer_believed():
    world = World(site=site_of(recorder()[0]))
    world.request()
    (request,) = world.from_client()
    world.to_server(request)
    world.client.contexts.revoke(CLOUD)
    for data in world.from_server():
        world.to_client(data)
    assert events(world.client) == []
    assert world.client.counters["oscore_responses_ignored{no-context}"] == 1


def test_different_peers_have_different_names():
    handler, calls = recorder()
    world = World(site=site_of(handler))
    other = Parameters(b"another gateway!", b"h", b"", b"salt")
    world.server.contexts.add(SecurityContext("other", other.reversed(), MemorySequenceStore(), fresh=True))
    contexts = Contexts()
    contexts.add(SecurityContext(CLOUD, other, MemorySequenceStore(), fresh=True), path=CLOUD)
    client = Endpoint(contexts=contexts)
    client.request(POST, CLOUD, world.now)
    for data, _ in client.datagrams_to_send(world.now):
        world.to_server(data, GATEWAY)  # even from the first one's address
    world.request()
    for data in world.from_client():
        world.to_server(data)
    assert [identity for _, _, identity in calls] == ["other", GATEWAY]

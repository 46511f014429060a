"""Blocks (RFC 8613 section 4.1.3.4.1) and observations (sections 4.1.3.5, 7.4.1, 8.3.1) inside the protection."""

import pytest
from oscore_world import CLOUD, GATEWAY, World, again, events

from vitalgate.coap import (
    Code,
    Failure,
    Limits,
    Message,
    NotificationReceived,
    Option,
    Parameters,
    RequestFailed,
    RequestReceived,
    ResponseError,
    ResponseReceived,
    Site,
    TransferProgressed,
    build_options,
)
from vitalgate.coap.codec import decode
from vitalgate.oscore.option import decode as decode_header

BODY = bytes(n % 251 for n in range(5000))
GET = Message(Code.GET, build_options("state"))


class State:
    """A resource that is read, replaced and observed."""

    def __init__(self, value=b"0"):
        self.value = value
        self.requests = []
        self.site = Site()
        self.site.add("state", self.get, methods=[Code.GET], idempotent=True, observable=True)
        self.site.add("state", self.post, methods=[Code.POST, Code.PUT])
        self.site.add("later", lambda request, path, identity, now: None, observable=True)

    def get(self, request, path, identity, now):
        assert (path, identity) == (GATEWAY, GATEWAY)
        if self.value is None:
            raise ResponseError(Code.NOT_FOUND)
        return Message(Code.CONTENT, (), self.value)

    def post(self, request, path, identity, now):
        self.requests.append(request)
        return Message(Code.CHANGED, (), request.payload[::-1])


def world(value=b"0", **server):
    state = State(value)
    found = World(site=state.site, **server)
    found.state = state
    return found


def got(found, kind):
    return [event for event in events(found.client) if isinstance(event, kind)]


def payloads(found):
    return [event.response.payload for event in got(found, NotificationReceived)]


def observing(value=b"0", **server):
    found = world(value, **server)
    number = found.client.observe(GET, CLOUD, found.now)
    found.exchange()
    assert payloads(found) == [value]
    return found, number


def changes(found, value):
    found.state.value = value
    count = found.state.site.notify("state", found.now)
    found.exchange()
    return count


# Blocks


def test_bodies_in_blocks_both_ways():
    found = world()
    number = found.request(Message(Code.POST, build_options("state"), BODY))
    found.exchange()
    *progress, event = events(found.client)
    assert (event.exchange, event.response.code, event.response.payload) == (number, Code.CHANGED, BODY[::-1])
    assert [each.sent for each in progress[:5]] == [1024, 2048, 3072, 4096, 5000]
    assert all(isinstance(each, TransferProgressed) for each in progress)
    (request,) = found.state.requests
    assert request.payload == BODY
    for _, data in found.sent:
        message = decode(data)
        assert len(data) < 1200
        numbers = {number for number, _ in message.options}
        assert numbers == {Option.OSCORE}, "nothing of the blocks is outside"


def test_every_body_has_a_tag_of_its_own():
    """RFC 9175 section 3.5.1: no tag twice under one context, so that blocks of bodies cannot be mixed up."""
    found = world()
    tags = []

    def record(request, path, identity, now):
        tags.append(request.option(Option.REQUEST_TAG))
        return Message(Code.CHANGED)

    found.state.site.add("sink", record)
    for _ in range(3):
        found.request(Message(Code.POST, build_options("sink"), BODY))
        found.exchange()
    assert len(set(tags)) == 3
    assert None not in tags


def test_large_representation():
    found = world(BODY)
    found.request(GET)
    found.exchange()
    (event,) = got(found, ResponseReceived)
    assert event.response.payload == BODY
    assert len(event.response.option(Option.ETAG)) == 8


def test_bounds_hold_inside():
    found = world(limits=Limits(body_bytes=2000))
    found.request(Message(Code.POST, build_options("state"), BODY))
    found.exchange()
    (event,) = got(found, ResponseReceived)
    assert event.response.code == Code.REQUEST_ENTITY_TOO_LARGE
    assert found.state.requests == []


def test_abandoned_bodies_are_forgotten():
    found = world()
    number = found.request(Message(Code.POST, build_options("state"), BODY))
    for data in found.from_client():
        found.to_server(data)
    found.client.cancel(number, found.now)
    assert got(found, RequestFailed) == [RequestFailed(number, CLOUD, Failure.CANCELLED)]
    found.from_server()
    blocks = found.server._inner._extensions.blocks
    assert len(blocks) == 1
    found.wait(300)
    assert len(blocks) == 0
    assert len(found.client._calls) == len(found.client._requests) == 0


def test_resource_that_answers_later():
    found = world()
    number = found.request(Message(Code.POST, build_options("later"), BODY))
    found.exchange()
    (event,) = events(found.server)
    assert isinstance(event, RequestReceived)
    assert (event.request.payload, event.identity) == (BODY, GATEWAY)
    found.server.respond(event.exchange, Message(Code.CHANGED, (), BODY), found.now)
    found.exchange()
    (event,) = got(found, ResponseReceived)
    assert (event.exchange, event.response.payload) == (number, BODY)


def test_transfer_survives_a_server_that_starts_again():
    """Appendix B.1.2 in the middle of it: the block is sent again with Echo; the body is gone, so it starts again."""
    found = world()
    found.request(Message(Code.POST, build_options("state"), BODY))
    for _ in range(2):
        for data in found.from_client():
            found.to_server(data)
        for data in found.from_server():
            found.to_client(data)
    found.start_server(fresh=False)
    found.exchange()
    (event,) = got(found, ResponseReceived)
    assert (event.response.code, event.response.payload) == (Code.CHANGED, BODY[::-1])


def test_context_that_is_taken_out_of_service_on_the_way():
    found = world()
    number = found.request(Message(Code.POST, build_options("state"), BODY))
    for data in found.from_client():
        found.to_server(data)
    found.client.contexts.remove(found.client_context)
    found.exchange()
    found.wait(100)
    assert got(found, RequestFailed) == [RequestFailed(number, CLOUD, Failure.TIMEOUT)]


# Observations


def test_states_come_under_protection():
    found, _number = observing()
    for value in (b"1", b"2", b"3"):
        assert changes(found, value) == 1
    assert payloads(found) == [b"1", b"2", b"3"]
    outside = [decode(data) for _, data in found.sent]
    registration, first, *rest = (message for message in outside if message.code)
    assert (registration.code, registration.option(Option.OBSERVE)) == (Code.FETCH, b"")
    assert first.code == Code.CONTENT
    assert decode_header(first.option(Option.OSCORE)).piv == b"", "the first may use the request's nonce"
    pivs = [decode_header(message.option(Option.OSCORE)).piv for message in rest]
    assert all(pivs), "every later one has a number of its own (section 4.1.3.5)"
    assert len(set(pivs)) == len(pivs)
    assert all(message.code == Code.CONTENT and message.option(Option.OBSERVE) for message in rest)
    assert all(b"state" not in data for _, data in found.sent)


def test_value_inside_is_empty_and_the_clients_order_is_of_the_numbers():
    """Section 4.1.3.5.2: an intermediary can change the value outside to no effect."""
    found, _ = observing()
    found.state.value = b"1"
    found.state.site.notify("state", found.now)
    (data,) = found.from_server()
    options, payload = decode(data).options, decode(data).payload
    assert len(payload) == len(b"\x45\x60\xff1") + 8, "code, Observe without a value, payload, tag"
    forged = tuple((n, b"\xff\xff\xff" if n == Option.OBSERVE else value) for n, value in options)
    found.to_client(again(data, options=forged))
    assert payloads(found) == [b"1"]
    found.exchange()
    assert changes(found, b"2") == 1
    assert payloads(found) == [b"2"]


def test_replayed_notification_is_ignored():
    """Section 7.4.1."""
    found, _ = observing()
    found.state.value = b"1"
    found.state.site.notify("state", found.now)
    (data,) = found.from_server()
    found.to_client(data)
    found.to_client(again(data, mid=4711))
    assert payloads(found) == [b"1"]
    assert found.client.counters["oscore_responses_ignored{replay}"] == 1
    found.exchange()
    assert changes(found, b"2") == 1
    assert payloads(found) == [b"2"], "and the observation goes on"


def test_forged_end_is_ignored():
    found, _ = observing()
    found.state.value = b"1"
    found.state.site.notify("state", found.now)
    (data,) = found.from_server()
    found.to_client(again(data, payload=bytes(20)))
    assert found.client.counters["oscore_responses_ignored{decryption}"] == 1
    found.to_client(data)
    assert payloads(found) == [b"1"]


def test_deregistration():
    found, number = observing()
    found.client.deregister(number, found.now)
    found.exchange()
    (event,) = got(found, ResponseReceived)
    assert (event.exchange, event.response.payload) == (number, b"0")
    assert changes(found, b"1") == 0
    ending = decode([data for sender, data in found.sent if sender == GATEWAY][-1])
    assert (ending.code, ending.option(Option.OBSERVE)) == (Code.FETCH, b"\1")


def test_forgotten_observation_is_reset():
    found, number = observing()
    found.client.cancel(number, found.now)
    assert got(found, RequestFailed) == [RequestFailed(number, CLOUD, Failure.CANCELLED)]
    assert changes(found, b"1") == 1
    assert changes(found, b"2") == 0
    assert payloads(found) == []
    assert found.server.counters["coap_observations_ended{reset}"] == 1


def test_error_ends_it_and_is_protected():
    found, number = observing()
    assert changes(found, None) == 1
    (event,) = got(found, ResponseReceived)
    assert (event.exchange, event.response.code) == (number, Code.NOT_FOUND)
    assert all(decode(data).code in (Code.EMPTY, Code.FETCH, Code.CONTENT, Code.CHANGED) for _, data in found.sent)
    assert changes(found, b"1") == 0


def test_renewed_when_max_age_is_over():
    """Section 4.1.3.5.1: under a new number, to which the notifications are bound from then on."""
    found, _ = observing()
    before = len(found.sent)
    found.wait(80)
    renewed = [decode(data) for sender, data in found.sent[before:] if sender == GATEWAY]
    first = decode(found.sent[0][1])
    assert [message.token for message in renewed] == [first.token]
    assert renewed[0].option(Option.OSCORE) != first.option(Option.OSCORE)
    assert payloads(found) == [b"0"]
    assert changes(found, b"1") == 1
    assert payloads(found) == [b"1"]
    assert found.server._inner._listed.__len__() == 1


def test_notification_of_the_registration_before_is_still_good():
    """It was under way when the registration was renewed."""
    found, _ = observing()
    found.state.value = b"1"
    found.state.site.notify("state", found.now)
    (note,) = found.from_server()
    while not (renewal := found.from_client()):
        found.now = found.client.next_timeout()
        found.client.handle_timeout(found.now)
    found.to_client(note)
    assert payloads(found) == [b"1"]
    for data in renewal:
        found.to_server(data)
    found.exchange()
    changes(found, b"2")
    assert payloads(found)[-1] == b"2"


def test_large_notifications():
    found, _ = observing()
    assert changes(found, BODY) == 1
    assert payloads(found) == [BODY]
    assert changes(found, BODY[::-1]) == 1
    assert payloads(found) == [BODY[::-1]]


def test_revoked_context_gets_no_more_notifications():
    found, _number = observing()
    found.server.contexts.revoke(GATEWAY)
    assert changes(found, b"secret") == 1
    assert changes(found, b"secret") == 0
    assert found.server.counters["oscore_not_protected{revoked}"] == 1
    assert payloads(found) == []
    assert b"secret" not in b"".join(data for _, data in found.sent)


def test_retransmitted_notification_carries_the_newest_state_under_a_new_number():
    found, _ = observing()
    found.state.value = b"1"
    found.state.site.notify("state", found.now)
    (lost,) = found.from_server()
    found.state.value = b"2"
    found.state.site.notify("state", found.now)
    assert found.from_server() == []
    found.wait(5)
    assert payloads(found) == [b"2"]
    found.to_client(lost)
    assert payloads(found) == []
    assert found.client.counters["oscore_responses_ignored{replay}"] == 1


def test_application_gives_states_later():
    found = world()
    number = found.client.observe(Message(Code.GET, build_options("later")), CLOUD, found.now)
    found.exchange()
    (event,) = events(found.server)
    found.server.respond(event.exchange, Message(Code.CONTENT, (), b"0"), found.now)
    found.exchange()
    assert payloads(found) == [b"0"]
    assert found.server.notify("later", found.now) == 1
    (event,) = events(found.server)
    assert (event.identity, event.request.options) == (GATEWAY, build_options("later"))
    found.server.respond(event.exchange, Message(Code.CONTENT, (), b"1"), found.now)
    found.exchange()
    (note,) = got(found, NotificationReceived)
    assert (note.exchange, note.response.payload) == (number, b"1")
    found.server.respond(event.exchange, Message(Code.CONTENT, (), b"1"), found.now)
    assert found.server.counters["coap_responses_undelivered{late}"] == 1
    assert found.server.notify("later", found.now, Message(Code.CONTENT, (), b"given")) == 1
    found.exchange()
    assert payloads(found) == [b"given"]


def test_client_that_has_no_context_observes_nothing():
    found = world()
    number = found.client.observe(GET, "elsewhere", found.now)
    assert got(found, RequestFailed) == [RequestFailed(number, "elsewhere", Failure.PROTECTION)]
    assert len(found.client._calls) == 0


def test_server_that_starts_again_is_registered_with_again():
    found, _ = observing(parameters=Parameters())
    found.start_server(fresh=False)
    assert found.state.site.notify("state", found.now) <= 1, "the new one knows of nobody"
    found.wait(80)
    assert payloads(found) == [b"0"]
    found.state.value = b"1"
    found.server.notify("state", found.now)
    found.exchange()
    assert payloads(found) == [b"1"]


@pytest.mark.parametrize("seed", range(8))
def test_under_loss_nothing_is_mixed_up(seed):
    """Bodies arrive whole and once, states in order and the newest last, whatever is lost or doubled."""
    found = world()
    number = found.client.observe(GET, CLOUD, found.now)
    bodies = [bytes([65 + n]) * 3000 for n in range(3)]
    posts = [found.request(Message(Code.POST, build_options("state"), body)) for body in bodies]
    states, outcomes, changed = [], {}, 0
    for _ in range(3000):
        for sent, deliver in ((found.from_client(), found.to_server), (found.from_server(), found.to_client)):
            for data in sent:
                for _ in range(found.random.choices((0, 1, 2), (0.12, 0.83, 0.05))[0]):
                    deliver(data)
        for event in events(found.client):
            if isinstance(event, NotificationReceived):
                states.append(int(event.response.payload))
            elif isinstance(event, ResponseReceived | RequestFailed):
                outcomes[event.exchange] = event
        if changed < 10 and found.random.random() < 0.1:
            changed += 1
            found.state.value = b"%d" % changed
            found.state.site.notify("state", found.now)
        dues = [due for each in (found.client, found.server) if (due := each.next_timeout()) is not None]
        found.now = max(found.now, min([*dues, found.now + 5]))
        for each in (found.client, found.server):
            each.handle_timeout(found.now)
        if states and states[-1] == 10 and all(post in outcomes for post in posts):
            break
    assert states[-1] == 10
    assert states == sorted(states)
    assert number not in outcomes
    assert [outcomes[post].response.payload for post in posts] == bodies
    assert [request.payload for request in found.state.requests] == bodies

"""Observe, the server side: the list of observers (RFC 7641 sections 4.1, 4.2, 4.4, 4.5, appendix A)."""

import itertools

import pytest
from coap_observed import DAY, TEXT, Server, Thing, order

from vitalgate.coap import Code, Limits, Message, Option, RequestReceived, Type, build_options, encode
from vitalgate.coap.blocks import Block, block_option


def test_registration_and_notification():
    """Figures 2 and 7: the response carries Observe, and so does each notification, under the request's token."""
    step = Server()
    first = step.asks("con", token=b"\x4a")
    assert (first.code, first.payload, first.type) == (Code.CONTENT, b"0", Type.ACK)
    assert order(first) is not None
    step.wait(1)
    assert step.changes("con", b"1") == 1
    note = step.one()
    assert (note.type, note.code, note.token, note.payload) == (Type.CON, Code.CONTENT, b"\x4a", b"1")
    assert order(note) > order(first)
    step.acks(note)
    step.wait(1)
    step.changes("con", b"2")
    assert step.one().payload == b"2"
    assert step.count("coap_observations_started") == 1
    assert step.count("coap_notifications_sent") == 2


def test_non_confirmable_notifications():
    step = Server()
    step.asks("non")
    step.changes("non", b"1")
    note = step.one()
    assert (note.type, note.payload, note.token) == (Type.NON, b"1", b"T")
    step.wait(100)
    step.silent()


def test_what_can_not_be_observed_is_answered_as_a_get():
    """Section 4.1: the server that does not add the client to the list answers without the option."""
    step = Server()
    assert order(step.asks("plain")) is None
    assert order(step.asks("con", observe=None)) is None
    assert order(step.asks("con", observe=2)) is None, "what is neither register nor deregister is ignored"
    assert step.observers == 0
    assert step.changes("plain", b"1") == 0
    step.silent()


def test_error_makes_no_observation():
    step = Server()
    step.con.value = None
    response = step.asks("con")
    assert (response.code, order(response)) == (Code.NOT_FOUND, None)
    assert step.observers == 0


def test_sequence_is_of_the_clock_and_increases_within_a_tick():
    """Section 4.4: strictly increasing, under 2^23 in 256 seconds."""
    step = Server()
    values = [order(step.asks("con"))]
    for n in range(20):
        step.changes("con", b"%d" % n)
        note = step.one()
        values.append(order(note))
        step.acks(note)
    assert all(b - a == 1 for a, b in itertools.pairwise(values)), "all within one tick of the clock"
    step.wait(256)
    step.changes("con", b"later")
    note = step.one()
    assert 0 < (order(note) - values[-1]) % 2**24 <= 2**23


def test_sequence_wraps_at_24_bits():
    step = Server()
    step.now = 511.99999
    before = order(step.asks("non"))
    step.now = 512.0001
    step.changes("non", b"1")
    after = order(step.one())
    assert before > 2**24 - 10
    assert after < 10
    assert (after - before) % 2**24 < 10


def test_deregistration():
    """Section 4.1 and figure 2 backwards: Observe 1, same token; the answer is without the option."""
    step = Server()
    step.asks("con")
    step.asks("con", token=b"U")
    response = step.asks("con", observe=1)
    assert (response.code, response.payload, order(response)) == (Code.CONTENT, b"0", None)
    assert step.observers == 1
    assert step.count("coap_observations_ended", "deregistered") == 1
    step.changes("con", b"1")
    assert step.one().token == b"U"
    assert order(step.asks("con", observe=1, token=b"V")) is None, "nothing there: still a GET"
    assert step.observers == 1


def test_duplicate_registration_does_not_bring_back_what_was_ended():
    step = Server()
    request = encode(Message(Code.GET, build_options("con", more=((Option.OBSERVE, b""),)), b"", Type.CON, 900, b"T"))
    step.hears(request)
    (first,) = step.said()
    step.asks("con", observe=1)
    step.hears(request)
    step.says(first)
    assert step.observers == 0


def test_registering_again_replaces_the_entry():
    """Section 4.1: same client, same token: updated, not added."""
    step = Server()
    first = step.asks("con")
    again = step.asks("con")
    assert order(again) > order(first)
    assert step.observers == 1
    step.asks("non")
    assert step.changes("con", b"1") == 0
    assert step.changes("non", b"1") == 1


@pytest.mark.parametrize("path", ["con", "non"])
def test_reset_of_a_notification_ends_the_observation(path):
    """Section 4.5: whether it was Confirmable or not."""
    step = Server()
    step.asks(path)
    step.changes(path, b"1")
    step.acks(step.one(), Type.RST)
    assert step.observers == 0
    assert step.count("coap_observations_ended", "reset") == 1
    assert step.count("coap_rejected", "unexpected_reset") == 0
    step.wait(10)
    assert step.changes(path, b"2") == 0
    step.wait(100)
    step.silent()


def test_reset_that_is_about_nothing():
    step = Server()
    step.asks("non")
    step.changes("non", b"1")
    note = step.one()
    step.hears(encode(Message(0, type=Type.RST, mid=note.mid + 1 & 0xFFFF)))
    step.endpoint.receive_datagram(encode(Message(0, type=Type.RST, mid=note.mid)), ("192.0.2.9", 1), step.now)
    assert step.count("coap_rejected", "unexpected_reset") == 2
    assert step.observers == 1


def test_client_that_is_gone():
    """Section 4.5: a Confirmable notification that times out ends it."""
    step = Server()
    step.asks("con")
    step.asks("non", token=b"U")
    step.changes("con", b"1")
    step.wait(100)
    assert [message.payload for message in step.sent()] == [b"1"] * 5
    assert step.count("coap_observations_ended", "timeout") == 1
    assert step.changes("con", b"2") == 0
    assert step.changes("non", b"2") == 1


def test_error_ends_the_observation():
    """Section 4.2: the notification with the error is the last and without the option."""
    step = Server()
    step.asks("con")
    step.changes("con", None)
    note = step.one()
    assert (note.type, note.code, note.token, order(note)) == (Type.CON, Code.NOT_FOUND, b"T", None)
    assert step.observers == 0
    assert step.count("coap_observations_ended", "error") == 1
    step.con.value = b"back"
    assert step.site.notify("con", step.now) == 0
    step.wait(3)
    assert step.one().code == Code.NOT_FOUND, "it is retransmitted as any Confirmable message"
    step.acks(note)
    step.wait(100)
    step.silent()
    step.wait(DAY)
    assert step.endpoint.next_timeout() is None, "nothing is left of it"


def test_content_format_that_changes_ends_the_observation():
    """Section 4.2: 4.06 when the format of the first response cannot be kept."""
    step = Server()
    step.con.options = build_options(content_format=0)
    step.asks("con")
    step.con.options = build_options(content_format=50)
    step.changes("con", b"{}")
    assert step.one().code == Code.NOT_ACCEPTABLE
    assert step.observers == 0


def test_client_that_had_the_representation_already():
    """Section 3.3: a registration may validate; 2.03 tells no format, and the next notification sets it."""
    step = Server()
    step.con.code, step.con.options, step.con.value = Code.VALID, ((Option.ETAG, b"1"),), b""
    first = step.asks("con", more=((Option.ETAG, b"1"),))
    assert (first.code, order(first) is not None) == (Code.VALID, True)
    step.con.code, step.con.options = Code.CONTENT, build_options(content_format=50, more=((Option.ETAG, b"2"),))
    step.changes("con", b"{}")
    note = step.one()
    assert (note.code, note.payload) == (Code.CONTENT, b"{}")
    step.acks(note)
    step.con.options = build_options(content_format=0)
    step.changes("con", b"x")
    assert step.one().code == Code.NOT_ACCEPTABLE


def test_given_representation_is_sent_as_it_is():
    step = Server()
    step.asks("con")
    runs = step.con.runs
    step.endpoint.notify("con", step.now, Message(Code.CONTENT, (), b"given"))
    note = step.one()
    assert (note.payload, step.con.runs) == (b"given", runs)
    step.acks(note)
    step.site.notify("con", step.now, Message(Code.NOT_FOUND))
    assert step.one().code == Code.NOT_FOUND
    assert step.observers == 0


def test_one_change_may_be_confirmable_or_not():
    step = Server()
    step.asks("con")
    step.asks("non", token=b"U")
    step.endpoint.notify("con", step.now, confirmable=False)
    assert step.one().type == Type.NON
    step.wait(3)
    step.endpoint.notify("non", step.now, confirmable=True)
    assert step.one().type == Type.CON


def test_resource_that_answers_later():
    step = Server()
    options = build_options("later", more=((Option.OBSERVE, b""),))
    step.hears(encode(Message(Code.GET, options, b"", Type.CON, 500, b"T")))
    event = step.event()
    assert isinstance(event, RequestReceived)
    step.endpoint.respond(event.exchange, Message(Code.CONTENT, (), b"0"), step.now)
    assert order(step.one()) is not None
    assert step.site.notify("later", step.now) == 1
    step.silent()
    asked = step.event()
    assert isinstance(asked, RequestReceived)
    assert (asked.request.code, asked.request.options) == (Code.GET, build_options("later"))
    step.endpoint.respond(asked.exchange, Message(Code.CONTENT, (), b"1"), step.now)
    note = step.one()
    assert (note.payload, order(note) is not None) == (b"1", True)
    step.endpoint.respond(asked.exchange, Message(Code.CONTENT, (), b"1"), step.now)
    assert step.count("coap_responses_undelivered", "late") == 1
    step.acks(note)
    step.site.notify("later", step.now)
    outdated = step.event()
    step.site.notify("later", step.now)
    newest = step.event()
    step.endpoint.respond(outdated.exchange, Message(Code.CONTENT, (), b"2"), step.now)
    step.silent()
    step.endpoint.respond(newest.exchange, Message(Code.CONTENT, (), b"3"), step.now)
    assert step.one().payload == b"3"


def test_observation_that_ends_while_the_application_is_asked():
    step = Server()
    step.hears(
        encode(Message(Code.GET, build_options("later", more=((Option.OBSERVE, b""),)), b"", Type.CON, 500, b"T"))
    )
    step.endpoint.respond(step.event().exchange, Message(Code.CONTENT, (), b"0"), step.now)
    step.said()
    step.site.notify("later", step.now)
    asked = step.event()
    step.hears(
        encode(Message(Code.GET, build_options("later", more=((Option.OBSERVE, b"\1"),)), b"", Type.CON, 501, b"T"))
    )
    step.endpoint.respond(step.event().exchange, Message(Code.CONTENT, (), b"0"), step.now)
    step.one()
    step.endpoint.respond(asked.exchange, Message(Code.CONTENT, (), b"1"), step.now)
    step.silent()
    assert step.count("coap_responses_undelivered", "late") == 1


def test_without_a_site_the_application_says_what_is_observed():
    """By an Observe option in its response, whose value is set here."""
    step = Server(site=False)
    step.hears(encode(Message(Code.GET, build_options("x", more=((Option.OBSERVE, b""),)), b"", Type.CON, 1, b"T")))
    step.endpoint.respond(step.event().exchange, Message(Code.CONTENT, ((Option.OBSERVE, b""),), b"0"), step.now)
    first = step.one()
    assert order(first) == int(step.now * 32768) & 0xFFFFFF
    step.hears(encode(Message(Code.GET, build_options("y", more=((Option.OBSERVE, b""),)), b"", Type.CON, 2, b"U")))
    step.endpoint.respond(step.event().exchange, Message(Code.CONTENT, (), b"0"), step.now)
    assert order(step.one()) is None
    assert step.endpoint.notify("x", step.now, Message(Code.CONTENT, (), b"1")) == 1
    assert step.one().payload == b"1"
    assert step.endpoint.notify("y", step.now) == 0


def test_limit_of_observations():
    """Full: answered as a GET."""
    step = Server(limits=Limits(observations=2))
    assert order(step.asks("con", token=b"A")) is not None
    assert order(step.asks("con", token=b"B", via=("192.0.2.9", 1))) is not None
    third = step.asks("con", token=b"C")
    assert (third.code, order(third)) == (Code.CONTENT, None)
    assert step.count("coap_limit_reached", "observations") == 1
    assert order(step.asks("con", token=b"A")) is not None, "renewing takes no room"
    step.asks("con", observe=1, token=b"A")
    assert order(step.asks("con", token=b"C")) is not None


def test_limit_of_observations_per_peer():
    step = Server(limits=Limits(observations_per_peer=1))
    assert order(step.asks("con", token=b"A")) is not None
    assert order(step.asks("con", token=b"B")) is None
    assert step.count("coap_limit_reached", "observations_per_peer") == 1
    assert order(step.asks("con", token=b"B", via=("192.0.2.9", 1))) is not None


def test_limit_of_peers():
    step = Server(limits=Limits(peers=1))
    assert order(step.asks("con")) is not None
    other = step.asks("plain", observe=None, via=("192.0.2.9", 1))
    assert other.code == Code.CONTENT
    assert step.asks("con", via=("192.0.2.9", 1)).code == Code.SERVICE_UNAVAILABLE
    assert step.observers == 1


def test_observer_is_not_forgotten_as_an_idle_peer():
    step = Server()
    step.asks("non")
    step.wait(DAY / 2)
    step.changes("non", b"1")
    assert step.one().payload == b"1"


def test_address_that_is_not_verified_observes_nothing():
    """Notifications to who has not shown to receive them would be amplification (RFC 9175 section 2.4)."""
    step = Server(verify_addresses=True)
    response = step.asks("con")
    assert (response.code, order(response)) == (Code.UNAUTHORIZED, None)
    assert order(step.asks("plain")) is None
    assert step.observers == 0
    echo = ((Option.ECHO, response.option(Option.ECHO)),)
    assert order(step.asks("con", more=echo)) is not None


def test_method_that_changes_something_is_not_observed():
    step = Server()
    step.site.add("post", Thing(), methods=[Code.POST], observable=True)
    step.hears(encode(Message(Code.POST, build_options("post"), b"", Type.CON, 77, b"T")))
    assert order(step.one()) is None
    assert step.observers == 0


def test_fetch_is_observed_with_its_question():
    """RFC 8132 section 2.4."""
    step = Server()
    questions = []

    def answer(request, path, identity, now):
        questions.append(request.payload)
        return Message(Code.CONTENT, (), request.payload[::-1])

    step.site.add("fetch", answer, methods=[Code.FETCH], observable=True)
    assert step.asks("fetch", code=Code.FETCH, payload=b"abc").payload == b"cba"
    step.site.notify("fetch", step.now)
    assert step.one().payload == b"cba"
    assert questions == [b"abc", b"abc"]


def test_large_notifications():
    """RFC 7959 section 2.6: the first block, in the size that the client asked for; the rest is fetched."""
    step = Server()
    first = step.asks("large", more=((Option.BLOCK2, Block(0, False, 1).encode()),))
    assert (block_option(first, Option.BLOCK2), order(first) is not None) == ((0, True, 1), True)
    step.changes("large", TEXT[::-1])
    note = step.one()
    assert (block_option(note, Option.BLOCK2), note.payload) == ((0, True, 1), TEXT[::-1][:32])
    assert note.option(Option.ETAG) != first.option(Option.ETAG)
    step.acks(note)
    runs = step.large.runs
    body = note.payload
    for num in range(1, 10):
        part = step.asks("large", None, token=b"%d" % num, more=((Option.BLOCK2, Block(num, False, 1).encode()),))
        assert (part.option(Option.ETAG), order(part)) == (note.option(Option.ETAG), None)
        body += part.payload
    assert (body, step.large.runs) == (TEXT[::-1], runs)


def test_observe_with_a_later_block_is_no_registration():
    """RFC 7959 section 2.6: an observation is of the whole."""
    step = Server()
    assert order(step.asks("large", more=((Option.BLOCK2, Block(1, False, 2).encode()),))) is None
    assert step.observers == 0


def test_message_ids_that_ran_out():
    """Section 4.4 of RFC 7252: none is used again too early; the notification waits and is the newest then."""
    step = Server(nstart=1)
    step.asks("con")
    (peer,) = step.endpoint._core.peers.values()
    peer.mids._used = [step.now] * 16
    peer.mids._next = 0
    step.changes("con", b"1")
    step.silent()
    assert step.count("coap_limit_reached", "message_ids") == 1
    step.changes("con", b"2")
    step.wait(249)
    assert step.one().payload == b"2"


def test_confirmable_ones_without_room_go_non_confirmable():
    step = Server(limits=Limits(transmissions=0))
    step.asks("con")
    step.changes("con", b"1")
    assert step.one().type == Type.NON


def test_handler_that_notifies():
    """A PUT tells who observes, the one that put among them."""
    step = Server()

    def put(request, path, identity, now):
        step.con.value = request.payload
        step.site.notify("con", now)
        return Message(Code.CHANGED)

    step.site.add("con", put, methods=[Code.PUT], small=True)
    step.asks("con")
    step.hears(encode(Message(Code.PUT, build_options("con"), b"new", Type.CON, 600, b"P")))
    note, response = sorted(step.sent(), key=lambda message: message.type)
    assert (response.type, response.code, response.token) == (Type.ACK, Code.CHANGED, b"P")
    assert (note.type, note.payload, note.token) == (Type.CON, b"new", b"T")

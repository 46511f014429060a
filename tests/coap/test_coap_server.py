"""The server side against a peer scripted datagram by datagram (RFC 7252 sections 4.2 to 5.10, appendix A)."""

import pytest
from coap_lockstep import PEER, Lockstep, seeded

from vitalgate.coap import (
    Code,
    Endpoint,
    Limits,
    Message,
    Option,
    RequestReceived,
    ResponseError,
    Site,
    Type,
    build_options,
    decode,
    encode,
)


class Counting:
    """A resource that counts how often it runs."""

    def __init__(self, response=None):
        self.runs = 0
        self.requests = []
        self.response = Message(Code.CONTENT, (), b"22.3 C") if response is None else response

    def __call__(self, request, path, identity, now):
        self.runs += 1
        self.requests.append(request)
        return self.response


def later(request, path, identity, now):
    return None


def server(*, verify_addresses=False, site=True, **kwargs):
    temperature = Counting()
    resources = Site(randomness=seeded(7))
    resources.add("temperature", temperature, methods=[Code.GET])
    resources.add("again", temperature, methods=[Code.GET], idempotent=True)
    resources.add("later", later)
    kwargs.setdefault("randomness", seeded())
    endpoint = Endpoint(site=resources if site else None, verify_addresses=verify_addresses, **kwargs)
    step = Lockstep(endpoint)
    step.site = resources
    step.temperature = temperature
    return step


def ask(path="temperature", *, mid=1, kind=Type.CON, code=Code.GET, token=b"\x20", payload=b"", more=()):
    return encode(Message(code, build_options(path, more=more), payload, kind, mid, token))


def said(step) -> Message:
    (data,) = step.said()
    return decode(data)


def test_piggybacked_responses_of_appendix_a():
    """Figures 16 and 17."""
    step = server()
    step.hears("40017d34bb74656d7065726174757265")
    step.says("60457d34ff32322e332043")
    step.hears("41017d3520bb74656d7065726174757265")
    step.says("61457d3520ff32322e332043")
    assert step.count("coap_requests_received") == 2


def test_duplicate_gets_the_same_reply_and_does_nothing_again():
    """Figure 19; section 4.5, for EXCHANGE_LIFETIME."""
    step = server()
    for _ in range(3):
        step.hears("41017d3742bb74656d7065726174757265")
        step.says("61457d3742ff32322e332043")
        step.wait(82)
    assert step.temperature.runs == 1
    step.wait(1.5)  # 247.5 s after the first
    step.hears("41017d3742bb74656d7065726174757265")
    assert said(step).code == Code.CONTENT
    assert step.temperature.runs == 2


def test_duplicates_are_judged_by_exact_time():
    step = server()
    start = step.now
    step.hears(ask(mid=5))
    step.now = start + 246.999
    step.hears(ask(mid=5))
    assert step.temperature.runs == 1
    step.now = start + 247.0
    step.hears(ask(mid=5))
    assert step.temperature.runs == 2


def test_duplicates_are_by_peer():
    step = server()
    for host in ("192.0.2.1", "192.0.2.2"):
        step.endpoint.receive_datagram(ask(), (host, 1), step.now)
    assert step.temperature.runs == 2


def test_duplicate_non_confirmable_is_ignored_for_non_lifetime():
    """Figure 22; section 4.5."""
    step = server()
    start = step.now
    step.hears("51017d4075bb74656d7065726174757265")
    response = said(step)
    assert (response.type, response.code, response.token, response.payload) == (Type.NON, 69, b"\x75", b"22.3 C")
    step.now = start + 144.9
    step.hears("51017d4075bb74656d7065726174757265")
    step.silent()
    step.now = start + 145
    step.hears("51017d4075bb74656d7065726174757265")
    assert said(step).mid != response.mid
    assert step.temperature.runs == 2


def test_idempotent_resource_runs_again_and_stores_nothing():
    step = server()
    for _ in range(3):
        step.hears(ask("again", mid=9))
        assert said(step).payload == b"22.3 C"
    assert step.temperature.runs == 3
    assert step.endpoint.next_timeout() is None
    step.hears(ask("again", mid=9, kind=Type.NON))
    first = said(step)
    step.hears(ask("again", mid=9, kind=Type.NON))
    assert said(step) == first, "a duplicate's response is a duplicate too"
    step.hears(ask("again", mid=10, kind=Type.NON))
    assert said(step).mid != first.mid


def test_separate_response():
    """Figure 20: an Empty acknowledgement after the piggyback window, then a Confirmable response."""
    step = server()
    step.hears(ask("later", mid=0x7D38, token=b"\x53"))
    event = step.event()
    assert isinstance(event, RequestReceived)
    assert (event.path, event.identity, event.request.options) == (PEER, "", build_options("later"))
    step.wait(0.49)
    step.silent()
    step.wait(0.02)
    step.says("60007d38")
    step.hears(ask("later", mid=0x7D38, token=b"\x53"))  # section 5.2.2: the Empty acknowledgement again
    step.says("60007d38")
    step.wait(10)
    step.endpoint.respond(event.exchange, Message(Code.CONTENT, (), b"22.3 C"), step.now)
    (data,) = step.said()
    response = decode(data)
    assert (response.type, response.code, response.token, response.payload) == (Type.CON, 69, b"\x53", b"22.3 C")
    step.hears(ask("later", mid=0x7D38, token=b"\x53"))
    step.says("60007d38")
    assert step.events() == []
    step.wait(3)
    step.says(data)  # retransmitted
    step.hears(encode(Message(0, type=Type.ACK, mid=response.mid)))
    step.wait(100)
    step.silent()


def test_late_response_within_the_window_is_piggybacked():
    step = server()
    step.hears(ask("later", mid=3))
    event = step.event()
    step.hears(ask("later", mid=3))  # still being worked on
    step.silent()
    step.wait(0.4)
    step.endpoint.respond(event.exchange, Message(Code.CONTENT), step.now)
    response = said(step)
    assert (response.type, response.mid, response.token) == (Type.ACK, 3, b"\x20")
    step.hears(ask("later", mid=3))
    assert said(step) == response
    step.wait(10)
    step.silent()


def test_deferred_non_confirmable():
    step = server()
    step.hears(ask("later", kind=Type.NON))
    event = step.event()
    step.wait(5)
    step.silent()
    step.endpoint.respond(event.exchange, Message(Code.CONTENT), step.now)
    assert said(step).type == Type.NON
    step.hears(ask("later", kind=Type.NON))
    step.silent()


@pytest.mark.parametrize("payload", ["", "45", "ff61"])
def test_any_acknowledgement_stops_a_separate_response(payload):
    """Section 5.2.2: code and payload of it are ignored."""
    step = server()
    step.hears(ask("later"))
    event = step.event()
    step.wait(1)
    step.said()
    step.endpoint.respond(event.exchange, Message(Code.CONTENT), step.now)
    response = said(step)
    code, tail = ("45", "ff61") if payload else ("00", "")
    step.hears(f"60{code}{response.mid:04x}{tail}")
    step.wait(100)
    step.silent()


def test_reset_stops_a_separate_response():
    """Figure 21, from the server's side."""
    step = server()
    step.hears(ask("later"))
    event = step.event()
    step.wait(1)
    step.said()
    step.endpoint.respond(event.exchange, Message(Code.CONTENT), step.now)
    step.hears(encode(Message(0, type=Type.RST, mid=said(step).mid)))
    step.wait(100)
    step.silent()
    assert step.count("coap_responses_undelivered", "reset") == 1


def test_separate_response_that_is_never_acknowledged():
    step = server()
    step.hears(ask("later"))
    event = step.event()
    step.wait(1)
    step.said()
    step.endpoint.respond(event.exchange, Message(Code.CONTENT), step.now)
    step.wait(100)
    assert len(step.said()) == 5
    assert step.count("coap_responses_undelivered", "timeout") == 1


@pytest.mark.parametrize("kind", [Type.CON, Type.NON])
def test_request_that_the_application_never_answers(kind):
    step = server()
    step.hears(ask("later", kind=kind))
    event = step.event()
    step.wait(248)
    step.said()
    assert step.count("coap_responses_undelivered", "unanswered") == 1
    step.endpoint.respond(event.exchange, Message(Code.CONTENT), step.now)
    step.silent()
    assert step.count("coap_responses_undelivered", "late") == 1
    step.hears(ask("later", kind=kind))
    assert isinstance(step.event(), RequestReceived), "the Message ID is free again"


def test_late_answer_of_a_forgotten_request_leaves_no_trace():
    """The driver was away for longer than EXCHANGE_LIFETIME: nothing may stay in the table for ever."""
    step = server()
    step.hears(ask("later", mid=77))
    event = step.event()
    step.now += 400
    step.hears(ask("again", mid=5))  # purges
    step.said()
    step.endpoint.respond(event.exchange, Message(Code.CHANGED), step.now)
    step.said()
    step.hears(ask("temperature", mid=77))
    assert said(step).code == Code.CONTENT


def test_without_a_site_every_request_is_an_event():
    step = server(site=False)
    step.hears(ask("anything", code=Code.POST, payload=b"x"))
    event = step.event()
    assert event.request.payload == b"x"
    step.endpoint.respond(event.exchange, Message(Code.CHANGED), step.now)
    assert said(step).code == Code.CHANGED


def test_respond_refuses_what_is_no_response():
    step = server()
    step.hears(ask("later"))
    with pytest.raises(ValueError):
        step.endpoint.respond(step.event().exchange, Message(Code.GET), step.now)


# What peers do wrong


def test_ping():
    """Section 4.3: an Empty Confirmable message elicits a Reset."""
    step = server()
    step.hears("40001234")
    step.says("70001234")
    assert step.count("coap_pings") == 1


@pytest.mark.parametrize(
    ("datagram", "answer", "reason"),
    [
        ("", None, "short"),
        ("40", None, "short"),
        ("400112", None, "short"),
        ("00011234", None, "version"),
        ("c0011234", None, "version"),
        ("50001234", None, "empty_non"),
        ("40001234ff", "70001234", "empty_with_data"),
        ("4100123400", "70001234", "empty_with_data"),
        ("5000123400", None, "empty_with_data"),
        ("40201234", "70001234", "reserved_code"),  # class 1
        ("40c11234", "70001234", "reserved_code"),  # class 6
        ("40e11234", "70001234", "reserved_code"),  # class 7
        ("40611234", "70001234", "reserved_code"),  # class 3 has no codes
        ("50e11234", None, "reserved_code"),
        ("49011234" + "00" * 9, "70001234", "token_length"),
        ("59011234" + "00" * 9, None, "token_length"),
        ("48011234", "70001234", "truncated"),
        ("40011234ff", "70001234", "payload_empty"),
        ("50011234ff", None, "payload_empty"),
        ("40011234f1", "70001234", "option_delta"),
        ("4001123401", "70001234", "truncated"),
        ("40011234e0fef2c0", "70001234", "option_number"),
        ("4045123400f0", "70001234", "option_delta"),  # a response, equally
        ("60011234", None, "reserved_code"),  # a request in an acknowledgement
        ("70011234", None, "reset_with_code"),
        ("6001123401", None, "truncated"),
        ("7000123401", None, "empty_with_data"),
    ],
)
def test_faults_are_counted_and_answered_as_the_rfc_says(datagram, answer, reason):
    step = server()
    step.hears(datagram)
    step.says(*([answer] if answer else []))
    assert step.count("coap_rejected", reason) == 1
    assert step.events() == []
    assert step.endpoint.next_timeout() is None, "no state for it"


@pytest.mark.parametrize("kind", [Type.CON, Type.NON])
def test_unrecognised_critical_option(kind):
    """Section 5.4.1 as corrected: 4.02 with a diagnostic payload, for Non-confirmable requests too."""
    step = server()
    step.hears(ask(kind=kind, more=[(65001, b"")]))
    response = said(step)
    assert (response.code, response.type) == (Code.BAD_OPTION, Type.ACK if kind is Type.CON else Type.NON)
    assert b"65001" in response.payload
    assert step.temperature.runs == 0


@pytest.mark.parametrize("more", [[(65000, b"x")], [(14, b"\1")], [(12, b"123")]])
def test_unrecognised_elective_options_are_ignored(more):
    step = server()
    step.hears(ask(more=more))
    assert said(step).code == Code.CONTENT
    assert step.temperature.requests[0].options == build_options("temperature")


@pytest.mark.parametrize(
    "more", [[(3, b"")], [(3, b"a"), (3, b"b")], [(7, b"123")], [(11, b"\xff")], [(11, b"..")], [(19, b"")], [(9, b"")]]
)
def test_wrong_critical_options(more):
    step = server()
    step.hears(ask(more=more))
    assert said(step).code == Code.BAD_OPTION


def test_option_that_a_layer_above_understands():
    step = server(understands=frozenset({Option.OSCORE}))
    step.hears(ask(more=[(Option.OSCORE, b"\x09")]))
    assert said(step).code == Code.CONTENT


def test_conditional_options_are_a_resources_own():
    """Sections 5.10.8 and 5.4.1: who does not heed If-Match must not act."""
    step = server()
    step.hears(ask(more=[(Option.IF_MATCH, b"")]))
    assert said(step).code == Code.BAD_OPTION
    heeding = Counting()
    step.site.add("heeding", heeding, understands=[Option.IF_MATCH])
    step.hears(ask("heeding", mid=2, more=[(Option.IF_MATCH, b"tag")]))
    assert said(step).code == Code.CONTENT
    assert heeding.requests[0].option(Option.IF_MATCH) == b"tag"


@pytest.mark.parametrize("code", [8, 15, 31])
@pytest.mark.parametrize("kind", [Type.CON, Type.NON])
def test_unknown_method(code, kind):
    """Section 5.8 as corrected: 4.05, piggybacked where the request is Confirmable."""
    step = server()
    step.hears(ask(code=code, kind=kind))
    response = said(step)
    assert (response.code, response.type) == (Code.METHOD_NOT_ALLOWED, Type.ACK if kind is Type.CON else Type.NON)


def test_method_not_allowed_and_not_found():
    step = server()
    step.hears(ask(code=Code.DELETE))
    assert said(step).code == Code.METHOD_NOT_ALLOWED
    step.hears(ask("nothing", mid=2))
    assert said(step).code == Code.NOT_FOUND
    step.hears(ask("", mid=3))
    assert said(step).code == Code.NOT_FOUND
    assert step.count("coap_errors_sent", "4.04") == 2


@pytest.mark.parametrize("more", [[(Option.PROXY_URI, b"coap://a/")], [(3, b"a"), (Option.PROXY_SCHEME, b"coap")]])
def test_no_proxy(more):
    """Section 5.7.2."""
    step = server()
    step.hears(ask(more=more))
    assert said(step).code == Code.PROXYING_NOT_SUPPORTED


def test_handler_may_answer_with_an_error():
    def refuse(request, path, identity, now):
        raise ResponseError(Code.FORBIDDEN, "not you")

    step = server()
    step.site.add("refuse", refuse)
    for _ in range(2):
        step.hears(ask("refuse", mid=4))
        response = said(step)
        assert (response.code, response.payload) == (Code.FORBIDDEN, b"not you")


def known_site():
    step = server()
    step.site.add("temperature", Counting(Message(Code.CHANGED)), methods=[Code.POST])
    step.site.add("a", Counting(Message(Code.DELETED)), methods=[Code.DELETE])
    step.site.add("", Counting(Message(Code.VALID)))
    return step


@pytest.mark.parametrize(
    "request_",
    [
        ask(), ask(payload=b"\xff\xffpay"), ask(code=Code.POST, payload=b"load"), ask(token=b"\xff" * 8),
        ask(token=b""),
        ask(code=Code.PUT), ask("a", code=Code.DELETE), ask(kind=Type.NON), ask(""), ask("", payload=b"\xff"),
        ask(more=[(4, b"\xff")], payload=b"x"), ask(more=[(65000, b"")]), ask(more=[(65001, b"")]),
        ask(more=[(12, b"\xff" * 2)]),
        # damaged: an empty payload, token lengths of 8 and 15, cut short
        ask() + b"\xff", ask("") + b"\xff", b"\x48" + ask()[1:], b"\x4f" + ask()[1:], ask()[:-1],
        ask("", token=b"12")[:5],
        b"\x49" + ask("", token=b"12345678")[1:] + b"9", b"\x49" + ask("", token=b"12345678")[1:] + b"9\xffx",
        bytes.fromhex("48010001"), bytes.fromhex("4801000161"), bytes.fromhex("4d010001"),
    ],
)  # fmt: skip
def test_what_is_known_of_an_option_block_is_used_rightly(request_):
    """Requests whose options were met before go a shorter way through the code; nothing about the answer may differ."""
    fresh, warm = known_site(), known_site()
    for mid, request in enumerate((ask(), ask(code=Code.POST), ask("a", code=Code.DELETE), ask(""), ask(payload=b"x"))):
        warm.hears(request[:2] + (mid + 100).to_bytes(2, "big") + request[4:])
    warm.said()
    seen = []
    for step in (fresh, warm, warm):
        step.hears(request_[:2] + len(seen).to_bytes(2, "big") + request_[4:])
        answer = decode(step.said()[0])
        seen.append((answer.type, answer.code, answer.token, answer.options, answer.payload))
    assert seen[0] == seen[1] == seen[2]
    assert [r.payload for r in warm.temperature.requests[2:]] == [r.payload for r in fresh.temperature.requests] * 2


def test_resource_added_later_is_found():
    step = server()
    step.site.add("tree", Counting(Message(Code.CONTENT, (), b"root")), methods=[Code.GET], subtree=True)
    step.hears(ask("tree/leaf", mid=1))
    assert said(step).payload == b"root"
    step.site.add("tree/leaf", Counting(Message(Code.CONTENT, (), b"leaf")), methods=[Code.GET])
    step.hears(ask("tree/leaf", mid=2))
    assert said(step).payload == b"leaf"


# Limits and their answers


def busy(step) -> None:
    response = said(step)
    assert response.code == Code.SERVICE_UNAVAILABLE
    assert response.option(Option.MAX_AGE), "when to try again"


def test_full_deduplication_table_refuses_and_evicts_nobody():
    step = server(limits=Limits(messages=3))
    for mid in range(3):
        step.hears(ask(mid=mid))
        assert said(step).code == Code.CONTENT
    step.hears(ask(mid=3))
    busy(step)
    for mid in range(3):
        step.hears(ask(mid=mid))
        assert said(step).code == Code.CONTENT
    assert step.temperature.runs == 3
    step.hears(ask("again", mid=4))
    assert said(step).code == Code.CONTENT, "what runs again needs no place"
    step.wait(248)
    step.hears(ask(mid=3))
    assert said(step).code == Code.CONTENT
    assert step.count("coap_limit_reached", "messages") == 1


def test_one_peer_cannot_take_the_whole_table():
    step = server(limits=Limits(messages_per_peer=2))
    for mid in range(2):
        step.hears(ask(mid=mid))
        step.said()
    step.hears(ask(mid=2))
    busy(step)
    step.endpoint.receive_datagram(ask(mid=2), ("192.0.2.2", 1), step.now)
    ((data, _),) = step.endpoint.datagrams_to_send(step.now)
    assert decode(data).code == Code.CONTENT
    assert step.count("coap_limit_reached", "messages_per_peer") == 1


def test_full_peer_table():
    step = server(limits=Limits(peers=1))
    step.hears(ask())
    assert said(step).code == Code.CONTENT
    step.path = ("192.0.2.2", 1)
    step.hears(ask())
    busy(step)
    step.hears(ask("again", mid=2))
    assert said(step).code == Code.CONTENT
    step.wait(600)  # the first peer is forgotten once nothing of it is needed
    step.hears(ask(mid=3))
    assert said(step).code == Code.CONTENT
    assert step.count("coap_limit_reached", "peers") == 1


@pytest.mark.parametrize(
    ("limits", "name"), [({"deferred": 2}, "deferred"), ({"deferred_per_peer": 2}, "deferred_per_peer")]
)
def test_full_table_of_deferred_requests(limits, name):
    step = server(limits=Limits(**limits))
    for mid in range(2):
        step.hears(ask("later", mid=mid))
    step.silent()
    step.hears(ask("later", mid=2))
    busy(step)
    first, second = step.events()
    step.endpoint.respond(first.exchange, Message(Code.CONTENT), step.now)
    step.said()
    step.hears(ask("later", mid=2))
    assert isinstance(step.event(), RequestReceived)
    step.hears(ask("later", mid=3))
    busy(step)
    assert step.count("coap_limit_reached", name) == 2
    step.wait(300)
    step.said()
    step.hears(ask("later", mid=4))
    assert isinstance(step.event(), RequestReceived), "what was never answered gives its place back"
    del second


def test_too_long_a_request():
    step = server(limits=Limits(message_bytes=100))
    step.hears(ask(payload=b"x" * 100))
    response = said(step)
    assert (response.code, response.option(Option.SIZE1)) == (Code.REQUEST_ENTITY_TOO_LARGE, b"\x64")
    step.hears(ask(payload=b"x" * 100, mid=2))
    assert said(step).code == Code.REQUEST_ENTITY_TOO_LARGE
    assert step.temperature.runs == 0
    assert step.count("coap_limit_reached", "message_bytes") == 2


def test_too_long_a_response():
    step = server(limits=Limits(message_bytes=100))
    step.site.add("long", Counting(Message(Code.CONTENT, (), b"x" * 100)))
    step.hears(ask("long"))
    response = said(step)
    assert (response.code, response.payload) == (Code.INTERNAL_SERVER_ERROR, b"")


def test_no_place_for_a_transmission_sends_the_response_non_confirmable():
    step = server(limits=Limits(transmissions=0))
    step.hears(ask("later"))
    event = step.event()
    step.wait(1)
    step.said()
    step.endpoint.respond(event.exchange, Message(Code.CONTENT), step.now)
    assert said(step).type == Type.NON
    assert step.count("coap_limit_reached", "transmissions") == 1


def test_known_option_blocks_are_bounded():
    step = server(limits=Limits(known_options=4, known_option_bytes=16))
    for number in range(50):
        step.hears(ask("again", mid=number, more=[(15, b"%d" % number)]))
        assert said(step).code == Code.CONTENT
        step.hears(ask("again", mid=1000 + number, more=[(15, b"a" * 40)]))
        assert said(step).code == Code.CONTENT
    assert step.count("coap_limit_reached", "known_options") == 12


def test_message_ids_towards_one_peer_run_out():
    """Section 4.4: without a Message ID that may be used there is no Non-confirmable response."""
    step = server()
    step.hears(ask(mid=0))  # the peer is known now
    step.said()
    answered = 0
    for mid in range(70000):
        step.hears(
            ask("again", mid=mid & 0xFFFF, kind=Type.NON) if mid & 0xFFFF else ask("again", mid=1, kind=Type.NON)
        )
        answered += len(step.said())
    assert 65536 - 4096 <= answered <= 65536
    assert step.count("coap_limit_reached", "message_ids") == 70000 - answered
    step.wait(248)
    step.hears(ask("again", mid=2, kind=Type.NON))
    assert said(step).type == Type.NON


def test_message_ids_go_on_while_a_peer_is_spoken_to():
    """Its record must not be forgotten between two Non-confirmable responses that it has not made us remember."""
    step = server()
    step.hears(ask(mid=0))
    step.said()
    mids = []
    for turn in range(12):
        step.hears(ask("again", mid=turn + 1, kind=Type.NON))
        mids.append(said(step).mid)
        step.wait(100)
    assert mids == [(mids[0] + turn) & 0xFFFF for turn in range(12)]


def test_everything_is_forgotten_in_the_end():
    step = server()
    for mid in range(100):
        step.endpoint.receive_datagram(ask(mid=mid), (f"192.0.2.{mid}", 1), step.now)
        step.endpoint.receive_datagram(ask("later", mid=mid + 200), (f"192.0.2.{mid}", 1), step.now)
    step.endpoint.datagrams_to_send(step.now)
    for event in step.events():
        step.endpoint.respond(event.exchange, Message(Code.CONTENT), step.now)
    step.endpoint.datagrams_to_send(step.now)
    core = step.endpoint._core
    assert (len(core.peers), len(core.deduplication)) == (100, 200)
    step.wait(1000)
    assert (len(core.peers), len(core.deduplication), len(core.timers)) == (0, 0, 0)
    assert step.endpoint.next_timeout() is None

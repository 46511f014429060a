"""Requests to groups (RFC 7252 section 8), both sides, datagram by datagram."""

import pytest
from coap_lockstep import PEER, Lockstep, seeded

from vitalgate.coap import (
    Code,
    Endpoint,
    Failure,
    GroupPath,
    GroupRequestEnded,
    Limits,
    Message,
    Option,
    Parameters,
    RequestFailed,
    RequestReceived,
    ResponseError,
    Site,
    Type,
    build_options,
    decode,
    encode,
)

GROUP = ("224.0.1.187", 5683)
CORE = Message(Code.GET, build_options(".well-known/core"))


class Member(Lockstep):
    """A server that is a member of the group."""

    def __init__(self, **kwargs):
        site = Site(randomness=seeded(1))
        self.runs = []
        self.site = site
        self.on_put = lambda: 0

        def put(request, path, identity, now):
            self.runs.append(request)
            self.on_put()
            return Message(Code.CHANGED)

        def fail(request, path, identity, now):
            raise ResponseError(Code.CONFLICT)

        site.add("light", put, methods=[Code.PUT], groups=True, rt="light", title="t" * 100)
        site.add("light", lambda *_: Message(Code.CONTENT, (), b"on"), methods=[Code.GET], groups=True, observable=True)
        site.add("private", lambda *_: Message(Code.CONTENT, (), b"mine"))
        site.add("failing", fail, groups=True)
        site.add("later", lambda *_: None, groups=True)
        kwargs.setdefault("trusted", lambda path: True)
        super().__init__(Endpoint(site=site, randomness=kwargs.pop("randomness", seeded()), **kwargs))

    def asked(self, path="light", *, code=Code.GET, kind=Type.NON, mid=1, more=(), query=(), payload=b"", group=GROUP):
        options = build_options(path, query=query, more=more)
        self.hears_group(encode(Message(code, options, payload, kind, mid, b"tok")), group)

    def hears_group(self, data, group=GROUP):
        raw = bytes.fromhex(data) if isinstance(data, str) else data
        self.endpoint.receive_multicast(raw, GroupPath(PEER, group), self.now)

    def later(self, most=5.0) -> list[tuple[float, Message]]:
        """What is said within ``most`` seconds, and when."""
        start, end = self.now, self.now + most
        found = [(0.0, decode(data)) for data in self.said()]
        while (due := self.endpoint.next_timeout()) is not None and due < end:
            self.turn()
            found += [(self.now - start, decode(data)) for data in self.said()]
        self.now = end
        return found


def test_a_response_comes_within_the_leisure():
    step = Member()
    step.asked()
    step.silent()
    ((moment, response),) = step.later()
    assert 0 < moment < 5
    assert (response.type, response.code, response.token, response.payload) == (Type.NON, Code.CONTENT, b"tok", b"on")
    assert step.count("coap_group_requests_received") == 1


def test_moments_are_spread_over_the_whole_leisure():
    """DEFAULT_LEISURE is 5 s; many members must not all answer at once."""
    moments = []
    for seed in range(100):
        step = Member(randomness=seeded(seed))
        step.asked()
        ((moment, _),) = step.later()
        moments.append(moment)
    assert min(moments) < 0.3
    assert max(moments) > 4.7
    assert 2 < sum(moments) / len(moments) < 3


def test_leisure_is_a_parameter():
    step = Member(parameters=Parameters(default_leisure=0.1))
    step.asked()
    ((moment, _),) = step.later()
    assert moment < 0.1
    with pytest.raises(ValueError):
        Parameters(default_leisure=-1)


def test_a_new_leisure_period_starts_after_the_one_before():
    step = Member()
    for mid in range(3):
        step.asked(mid=mid)
    step.asked(mid=3, group=("224.0.1.188", 5683))  # another membership has its own
    moments = sorted(moment for moment, _ in step.later(15))
    first, other, second, third = moments
    assert first < 5
    assert other < 5
    assert 5 <= second < 10
    assert 10 <= third < 15


@pytest.mark.parametrize(
    ("datagram", "reason"),
    [
        ("40010001 b56c69676874", "group_confirmable"),
        ("40000001", "group_no_request"),
        ("60000001", "group_no_request"),
        ("70000001", "group_no_request"),
        ("50450001", "group_no_request"),
        ("50200001", "group_no_request"),
        ("60010001 b56c69676874", "group_confirmable"),
        ("5001", "short"),
        ("90010001", "version"),
        ("59010001" + "00" * 9, "token_length"),
        ("50010001 ff", "payload_empty"),
        ("40010001 ff", "payload_empty"),
        ("50010001 b56c69676874 e0ffff", "option_number"),
        ("50010001 b56c69676874 0e00", "option_length"),
        ("50010001 b56c69676874 20", "bad_option"),
        ("50010001 b76e6f7468696e67", "group_resource"),
        ("50010001 b770726976617465", "group_resource"),
        ("50050001 b56c69676874", "group_resource"),
        ("501f0001 b56c69676874", "group_resource"),
        ("50010001 b56c69676874 d80b 636f61703a2f2f78", "bad_option"),
    ],
)
def test_what_is_wrong_is_ignored(datagram, reason):
    """Sections 8.1 and 8.2: Non-confirmable requests only; never a Reset, no error response."""
    step = Member()
    step.hears_group(datagram.replace(" ", ""))
    assert step.later() == []
    assert step.events() == []
    assert step.count("coap_rejected", reason) == 1
    assert step.endpoint.next_timeout() is None


def test_errors_stay_unsaid():
    step = Member()
    step.asked("failing")
    assert step.later() == []
    assert step.count("coap_responses_undelivered", "group") == 1


def test_a_client_may_want_to_know_errors():
    """RFC 7967 section 2.1: a No-Response option says which classes are wanted; 0 is all of them."""
    step = Member()
    step.asked("failing", more=[(Option.NO_RESPONSE, b"")])
    ((_, response),) = step.later()
    assert response.code == Code.CONFLICT
    step.asked("failing", mid=2, more=[(Option.NO_RESPONSE, b"\x08")])
    step.asked("light", mid=3, more=[(Option.NO_RESPONSE, b"\x02")])
    assert step.later() == []


def test_a_filter_that_matches_nothing_is_not_answered():
    """RFC 6690 section 4.1, RFC 7252 section 8.2."""
    step = Member()
    step.asked(".well-known/core", query=["rt=light"])
    ((_, response),) = step.later()
    assert response.payload.startswith(b"</light>")
    step.asked(".well-known/core", query=["rt=door"], mid=2)
    assert step.later() == []
    assert step.count("coap_responses_undelivered", "group") == 1


def test_what_changes_something_is_done_once():
    step = Member()
    step.asked(code=Code.PUT, payload=b"off")
    step.asked(code=Code.PUT, payload=b"off")
    ((_, response),) = step.later(20)
    assert response.code == Code.CHANGED
    assert [request.payload for request in step.runs] == [b"off"]
    assert step.count("coap_duplicates") == 1


def test_a_change_is_told_to_observers_at_once():
    """Only the response has its leisure."""
    step = Member()
    observer = ("192.0.2.77", 5683)
    step.hears(
        encode(Message(Code.GET, build_options("light", more=[(6, b"")]), b"", Type.CON, 5, b"obs")), path=observer
    )
    assert [path for _, path in step.endpoint.datagrams_to_send(step.now)] == [observer]
    step.on_put = lambda: step.site.notify("light", step.now)
    step.asked(code=Code.PUT)
    ((data, path),) = step.endpoint.datagrams_to_send(step.now)
    assert (path, decode(data).token) == (observer, b"obs")
    step.hears(b"\x60\x00" + data[2:4], path=observer)
    ((_, response),) = step.later()
    assert (response.code, response.token) == (Code.CHANGED, b"tok")


def test_nobody_observes_by_a_group_request():
    step = Member()
    step.asked(more=[(Option.OBSERVE, b"")])
    ((_, response),) = step.later()
    assert response.option(Option.OBSERVE) is None
    assert step.endpoint.notify("light", step.now) == 0


def test_an_answer_of_the_application_has_its_leisure_too():
    step = Member()
    step.asked("later")
    event = step.event()
    assert isinstance(event, RequestReceived)
    assert event.path == PEER
    step.now += 1
    step.endpoint.respond(event.exchange, Message(Code.CONTENT, (), b"at last"), step.now)
    step.silent()
    ((moment, response),) = step.later()
    assert moment > 0
    assert response.payload == b"at last"
    step.asked("later", mid=2)
    exchange = step.event().exchange
    step.endpoint.respond(exchange, Message(Code.NOT_FOUND), step.now)
    assert step.later() == []


def test_an_answer_that_never_comes_leaves_nothing():
    step = Member()
    for mid in range(3):
        step.asked("later", mid=mid)
        step.events()
        step.wait(500)
    assert len(step.endpoint._group_server._deferred) == 1
    assert step.count("coap_responses_undelivered", "unanswered") == 3


def test_an_unverified_client_gets_a_challenge_in_place_of_a_large_answer():
    """RFC 9175 section 2.4: it then asks this server alone, with the Echo value."""
    step = Member(trusted=None)
    step.asked(".well-known/core")
    ((moment, response),) = step.later()
    assert moment > 0
    assert response.code == Code.UNAUTHORIZED
    value = response.option(Option.ECHO)
    options = build_options(".well-known/core", more=[(Option.ECHO, value)])
    step.hears(encode(Message(Code.GET, options, b"", Type.CON, 9, b"t")))
    (data,) = step.said()
    assert b"</light>" in decode(data).payload


def test_responses_that_wait_are_bounded():
    step = Member(limits=Limits(group_responses=2))
    for mid in range(5):
        step.asked(mid=mid)
    assert step.count("coap_limit_reached", "group_responses") == 3
    assert len(step.later(60)) == 2
    step.asked(mid=9)
    assert len(step.later(60)) == 1


# Our own requests


def client(**kwargs) -> Lockstep:
    return Lockstep(Endpoint(randomness=seeded(5), **kwargs), path=GROUP)


def answer(request: Message, payload=b"x", *, mid=7, kind=Type.NON, code=Code.CONTENT, options=()) -> bytes:
    return encode(Message(code, options, payload, kind, mid, request.token))


def test_responses_of_many_and_an_end():
    step = client()
    number = step.endpoint.request_group(CORE, GROUP, step.now)
    (sent,) = step.said()
    request = decode(sent)
    assert (request.type, len(request.token)) == (Type.NON, 8)
    for host in range(3):
        step.wait(1)
        step.hears(answer(request, b"%d" % host, mid=7), path=("192.0.2.1", host))
    events = step.events()
    assert [(event.exchange, event.path, event.response.payload) for event in events] == [
        (number, ("192.0.2.1", host), b"%d" % host) for host in range(3)
    ]
    step.hears(answer(request, b"0", mid=7), path=("192.0.2.1", 0))
    assert step.events() == []
    assert step.count("coap_duplicates") == 1
    step.silent()
    step.wait(6.9)
    assert step.events() == []
    step.wait(0.2)
    assert step.event() == GroupRequestEnded(number, GROUP, 3)
    step.hears(answer(request, b"late"), path=("192.0.2.9", 1))
    assert step.endpoint.datagrams_to_send(step.now) == [(bytes.fromhex("70000007"), ("192.0.2.9", 1))]
    assert len(step.endpoint._core.peers) == 0, "who answers a group leaves no record"


def test_it_is_sent_once_and_not_again():
    step = client()
    step.endpoint.request_group(CORE, GROUP, step.now, wait=300)
    assert len(step.said()) == 1
    step.wait(400)
    step.silent()


def test_a_confirmable_response_is_acknowledged_each_time():
    step = client()
    step.endpoint.request_group(CORE, GROUP, step.now)
    request = decode(step.said()[0])
    for _ in range(2):
        step.hears(answer(request, kind=Type.CON, mid=0x1234), path=PEER)
        assert step.endpoint.datagrams_to_send(step.now) == [(bytes.fromhex("60001234"), PEER)]
    assert len(step.events()) == 1


def test_a_response_with_a_critical_option_is_dropped():
    step = client()
    step.endpoint.request_group(CORE, GROUP, step.now)
    request = decode(step.said()[0])
    step.hears(answer(request, options=((65001, b""),)), path=PEER)
    step.hears(answer(request, options=((65001, b""),), kind=Type.CON, mid=1), path=PEER)
    assert step.endpoint.datagrams_to_send(step.now) == [(bytes.fromhex("70000001"), PEER)]
    assert step.events() == []
    assert step.count("coap_rejected", "bad_option") == 2


def test_cancel():
    step = client()
    number = step.endpoint.request_group(CORE, GROUP, step.now)
    step.endpoint.cancel(number, step.now)
    assert step.event() == GroupRequestEnded(number, GROUP, 0)
    assert step.endpoint.next_timeout() is None


def test_what_may_not_go_to_a_group():
    """Section 8.2.1: no ETag."""
    step = client()
    for message in (Message(Code.GET, ((Option.ETAG, b"x"),)), Message(Code.CONTENT)):
        with pytest.raises(ValueError):
            step.endpoint.request_group(message, GROUP, step.now)


@pytest.mark.parametrize(
    ("limits", "before", "name"),
    [({"group_requests": 2}, 2, "group_requests"), ({"message_bytes": 20}, 0, "message_bytes")],
)
def test_own_limits(limits, before, name):
    step = client(limits=Limits(**limits))
    for _ in range(before):
        step.endpoint.request_group(CORE, GROUP, step.now)
    number = step.endpoint.request_group(CORE, GROUP, step.now)
    assert step.event() == RequestFailed(number, GROUP, Failure.LIMIT)
    assert step.count("coap_limit_reached", name) == 1


def test_answers_to_one_request_are_bounded():
    step = client(limits=Limits(group_answers=3))
    number = step.endpoint.request_group(CORE, GROUP, step.now)
    request = decode(step.said()[0])
    for host in range(5):
        step.hears(answer(request), path=("192.0.2.1", host))
    assert len(step.events()) == 3
    assert step.count("coap_limit_reached", "group_answers") == 2
    step.silent()
    step.wait(11)
    assert step.event() == GroupRequestEnded(number, GROUP, 3)


def test_message_ids_of_groups_and_peers_keep_apart():
    """Section 8.1: a member that had a Message ID from us must not take the group's message for a duplicate, nor for
    EXCHANGE_LIFETIME another message for the group's."""
    step = Lockstep(Endpoint(randomness=seeded(5), parameters=Parameters(nstart=70000)))
    unicast = set()
    for _ in range(30000):
        step.endpoint.request(CORE, PEER, step.now, confirmable=False)
    for data, _ in step.endpoint.datagrams_to_send(step.now):
        unicast.add(decode(data).mid)
    group = set()
    for _ in range(60):
        step.endpoint.request_group(CORE, GROUP, step.now)
    for data, path in step.endpoint.datagrams_to_send(step.now):
        assert path == GROUP
        group.add(decode(data).mid)
    assert len(group) == 60
    assert not unicast & group
    for _ in range(30000):
        step.endpoint.request(CORE, PEER, step.now, confirmable=False)
    for data, _ in step.endpoint.datagrams_to_send(step.now):
        unicast.add(decode(data).mid)
    assert len(unicast) > 55000
    assert not unicast & group


def test_no_message_id_left_for_a_group():
    step = client()
    step.endpoint._core.peers.avoided.update(dict.fromkeys(range(65536), step.now + 1))
    number = step.endpoint.request_group(CORE, GROUP, step.now)
    assert step.event() == RequestFailed(number, GROUP, Failure.LIMIT)
    assert step.count("coap_limit_reached", "message_ids") == 1
    step.now += 1
    step.endpoint.request_group(CORE, GROUP, step.now)
    assert len(step.said()) == 1
    assert len(step.endpoint._core.peers.avoided) == 1, "what is over is forgotten"

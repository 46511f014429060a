"""Echo (RFC 9175): reachability of addresses, freshness of requests, and the client that answers a challenge."""

import pytest
from coap_lockstep import PEER, Lockstep, seeded

from vitalgate.coap import (
    Code,
    Echo,
    Endpoint,
    Limits,
    Message,
    Option,
    Parameters,
    RequestReceived,
    ResponseReceived,
    Site,
    Type,
    build_options,
    decode,
    encode,
)

STRANGER = ("198.51.100.66", 40000)


class Server(Lockstep):
    def __init__(self, **kwargs):
        self.runs = []
        self.site = Site(randomness=seeded(3))
        self.site.add("big", self.answering(b"x" * 100), methods=[Code.GET])
        self.site.add("huge", self.answering(b"x" * 137), methods=[Code.GET], idempotent=True)
        self.site.add("tiny", self.answering(b"x"))
        self.site.add("small", self.answering(b"x"), small=True)
        self.site.add("small-not", self.answering(b"x" * 200), small=True)
        self.site.add(
            "sized", lambda r, path, identity, now: Message(69, (), bytes(int(r.option(15)))), idempotent=True
        )
        self.site.add("later", lambda request, path, identity, now: None)
        self.site.add("lock", self.answering(b""), methods=[Code.PUT], fresh_within=10)
        super().__init__(Endpoint(site=self.site, randomness=seeded(), **kwargs))

    def answering(self, payload):
        def handler(request, path, identity, now):
            self.runs.append(request)
            return Message(Code.CHANGED if request.code != Code.GET else Code.CONTENT, (), payload)

        return handler

    def asks(
        self, path="big", *, code=Code.GET, kind=Type.CON, echo=None, payload=b"", source=None, mid=None
    ) -> Message:
        """Feed a request and return the one response."""
        self.mid = getattr(self, "mid", 0) + 1 if mid is None else mid
        options = build_options(path, more=[] if echo is None else [(Option.ECHO, echo)])
        self.asked = encode(Message(code, options, payload, kind, self.mid, b"12345678"))
        source = PEER if source is None else source
        self.hears(self.asked, path=source)
        ((data, path_back),) = self.endpoint.datagrams_to_send(self.now)
        assert path_back == source
        self.answer = data
        return decode(data)


def challenged(response: Message) -> bytes:
    assert response.code == Code.UNAUTHORIZED
    value = response.option(Option.ECHO)
    assert value is not None
    assert 1 <= len(value) <= 40
    return value


def test_a_response_above_three_times_the_request_is_held_back():
    step = Server()
    value = challenged(step.asks())
    assert step.endpoint.datagrams_to_send(step.now) == []
    response = step.asks(echo=value)
    assert (response.code, len(response.payload)) == (Code.CONTENT, 100)
    assert step.asks().code == Code.CONTENT, "once verified is enough"
    challenged(step.asks(source=STRANGER))
    challenged(step.asks(source=STRANGER, echo=value))  # another peer's value


def test_a_small_response_goes_at_once():
    step = Server()
    response = step.asks("tiny")
    assert response.code == Code.CONTENT
    assert len(step.answer) <= 3 * len(step.asked)


@pytest.mark.parametrize("kind", [Type.CON, Type.NON])
def test_136_bytes_are_the_most_whatever_the_request(kind):
    step = Server()
    challenged(step.asks("huge", payload=b"y" * 500, kind=kind))
    assert step.asks("big", payload=b"y" * 500, kind=kind).code == Code.CONTENT
    assert len(step.answer) == 4 + 8 + 1 + 100


@pytest.mark.parametrize(("padding", "most"), [(0, 3 * (4 + 8 + 6 + 3)), (11, 3 * (4 + 8 + 6 + 3 + 12)), (60, 136)])
@pytest.mark.parametrize("kind", [Type.CON, Type.NON])
def test_the_bound_to_the_byte(padding, most, kind):
    step = Server()
    for over in (0, 1):
        size = most - (4 + 8 + 1) + over
        options = build_options("sized", query=[f"{size:02d}"])
        raw = encode(Message(Code.GET, options, b"p" * padding, kind, over, b"12345678"))
        step.hears(raw)
        (data,) = step.said()
        assert decode(data).code == (Code.UNAUTHORIZED if over else Code.CONTENT), (len(raw), len(data))
        assert over or len(data) == most <= 3 * len(raw)


@pytest.mark.parametrize("code", [Code.POST, Code.PUT, Code.DELETE, Code.PATCH, Code.IPATCH])
def test_what_changes_something_is_not_processed_before_the_address_is_verified(code):
    step = Server()
    value = challenged(step.asks("tiny", code=code, payload=b"do"))
    assert step.runs == []
    assert step.asks("tiny", code=code, payload=b"do", echo=value).code == Code.CHANGED
    assert len(step.runs) == 1


def test_challenges_store_nothing():
    step = Server()
    for number in range(200):
        challenged(step.asks("tiny", code=Code.POST, source=("198.51.100.1", number)))
        challenged(step.asks("huge", source=("198.51.100.1", number)))
    assert step.endpoint.next_timeout() is None
    assert step.count("coap_challenges") == 400


def test_resources_that_promise_small_responses():
    step = Server()
    assert step.asks("small", code=Code.POST).code == Code.CHANGED
    response = step.asks("small-not", code=Code.POST)
    assert (response.code, response.payload) == (Code.CHANGED, b""), "processed once, so answered, but without payload"
    assert step.count("coap_limit_reached", "unverified_response_bytes") == 1


def test_an_echo_value_ages():
    step = Server()
    value = challenged(step.asks())
    step.wait(61)
    challenged(step.asks(echo=value))
    value = challenged(step.asks())
    step.wait(59)
    assert step.asks(echo=value).code == Code.CONTENT


def test_verification_ends():
    """Also for a peer that is spoken to all the time: somebody else may have its address by now."""
    step = Server(parameters=Parameters(verified_lifetime=1000))
    value = challenged(step.asks())
    for _ in range(10):
        assert step.asks(echo=value).code == Code.CONTENT
        step.wait(99)
        value = None
    step.wait(20)
    challenged(step.asks())


@pytest.mark.parametrize("flip", range(12))
def test_forged_values_are_worth_nothing(flip):
    step = Server()
    value = bytearray(challenged(step.asks("huge")))
    value[flip] ^= 1
    challenged(step.asks("huge", echo=bytes(value)))
    for wrong in (b"\0", bytes(12), bytes(40), bytes(value[:11])):
        challenged(step.asks("huge", echo=wrong))


def test_trusted_and_unguarded_endpoints():
    step = Server(trusted=lambda path: path[0] == "192.0.2.1")
    assert step.asks("tiny", code=Code.POST).code == Code.CHANGED
    assert step.asks("huge").code == Code.CONTENT
    challenged(step.asks("huge", source=STRANGER))
    step = Server(verify_addresses=False)
    assert step.asks("huge", source=STRANGER).code == Code.CONTENT


def test_room_for_unverified_peers_is_small_and_full_room_is_answered_without_state():
    step = Server(limits=Limits(unverified_peers=2, messages_per_unverified_peer=3))
    for number in range(2):
        assert step.asks("tiny", source=("198.51.100.1", number)).code == Code.CONTENT
    value = challenged(step.asks("tiny", source=("198.51.100.1", 9)))
    assert step.asks("tiny", source=("198.51.100.1", 9), echo=value).code == Code.CONTENT
    for _ in range(2):
        assert step.asks("tiny", source=("198.51.100.1", 0)).code == Code.CONTENT
    challenged(step.asks("tiny", source=("198.51.100.1", 0)))
    assert step.count("coap_limit_reached", "unverified_peers") == 1
    assert step.count("coap_limit_reached", "messages_per_unverified_peer") == 1
    step.wait(600)
    assert step.asks("tiny", source=("198.51.100.1", 77)).code == Code.CONTENT


def test_deferred_response_to_an_unverified_address():
    """RFC 9175 section 2.4 item 3: within the budget, and never with retransmission."""
    step = Server()

    def defers(mid, wait, response):
        step.hears(encode(Message(Code.GET, build_options("later"), b"", Type.CON, mid, b"12345678")))
        event = step.event()
        assert isinstance(event, RequestReceived)
        step.wait(wait)
        acknowledged = step.said()
        step.endpoint.respond(event.exchange, response, step.now)
        (data,) = step.said()
        step.wait(100)
        step.silent()
        return len(acknowledged), decode(data)

    assert defers(1, 0, Message(Code.CONTENT, (), b"y"))[1].payload == b"y"
    acknowledged, response = defers(2, 1, Message(Code.CONTENT, (), b"y"))
    assert (acknowledged, response.type, response.payload) == (1, Type.NON, b"y")
    assert challenged(defers(3, 0, Message(Code.CONTENT, (), b"y" * 100))[1])
    acknowledged, response = defers(4, 1, Message(Code.CONTENT, (), b"y" * 100))
    assert (acknowledged, response.type) == (1, Type.NON)
    challenged(response)


def test_a_quarter_of_the_deferred_table_is_for_unverified_addresses():
    step = Server(limits=Limits(deferred=4))
    step.hears(encode(Message(Code.GET, build_options("later"), b"", Type.CON, 1, b"1")), path=STRANGER)
    value = challenged(step.asks("later"))
    step.hears(encode(Message(Code.GET, build_options("later", more=[(Option.ECHO, value)]), b"", Type.CON, 50, b"1")))
    assert [event.path for event in step.events()] == [STRANGER, PEER]


def test_a_peer_that_answered_us_is_verified():
    step = Server()
    step.endpoint.request(Message(Code.GET), PEER, step.now)
    request = decode(step.said()[0])
    step.hears(encode(Message(Code.CONTENT, (), b"", Type.ACK, request.mid, request.token)))
    step.events()
    assert step.asks("huge").code == Code.CONTENT


# Freshness


def test_freshness_of_requests():
    """RFC 9175 section 2.3 and its time-based example, with T = 10 s."""
    step = Server(verify_addresses=False)
    value = challenged(step.asks("lock", code=Code.PUT, payload=b"0"))
    assert step.runs == []
    step.wait(1)
    assert step.asks("lock", code=Code.PUT, payload=b"0", echo=value).code == Code.CHANGED
    step.wait(8)
    assert step.asks("lock", code=Code.PUT, payload=b"1", echo=value).code == Code.CHANGED
    step.wait(2)
    newer = challenged(step.asks("lock", code=Code.PUT, payload=b"0", echo=value))
    assert step.asks("lock", code=Code.PUT, payload=b"0", echo=newer).code == Code.CHANGED
    assert len(step.runs) == 3
    challenged(step.asks("lock", code=Code.PUT, payload=b"0", echo=newer, source=STRANGER))


def test_one_round_trip_for_address_and_freshness():
    step = Server()
    value = challenged(step.asks("lock", code=Code.PUT))
    assert step.asks("lock", code=Code.PUT, echo=value).code == Code.CHANGED


def test_values_are_bound_to_an_identity():
    echo = Echo(seeded())
    value = echo.make(PEER, 5.0, "gateway-1")
    assert echo.age(value, PEER, 7.5, "gateway-1") == 2.5
    assert echo.age(value, PEER, 7.5, "gateway-2") is None
    assert echo.age(value, PEER, 7.5) is None
    assert Echo(seeded(1)).age(value, PEER, 7.5, "gateway-1") is None
    assert echo.age(value, PEER, 4.0, "gateway-1") > 1e7, "a value from the future is as stale as can be"


# The client


def client(**kwargs) -> Lockstep:
    return Lockstep(Endpoint(randomness=seeded(9), **kwargs))


def sent(step) -> Message:
    (data,) = step.said()
    return decode(data)


def test_the_client_answers_a_challenge_once():
    step = client()
    request = Message(Code.POST, build_options("ingest", content_format=112), b"pack")
    number = step.endpoint.request(request, PEER, step.now)
    waiting = step.endpoint.request(request, PEER, step.now)
    first = sent(step)
    step.hears(encode(Message(0x81, ((Option.ECHO, b"value"),), b"", Type.ACK, first.mid, first.token)))
    second = sent(step)
    assert second.options == build_options("ingest", content_format=112, more=[(Option.ECHO, b"value")])
    assert second.payload == b"pack"
    assert second.token != first.token
    assert second.mid != first.mid
    assert step.events() == []
    step.hears(encode(Message(0x81, ((Option.ECHO, b"other"),), b"", Type.ACK, second.mid, second.token)))
    event = step.event()
    assert isinstance(event, ResponseReceived)
    assert (event.exchange, event.response.code) == (number, Code.UNAUTHORIZED)
    third = sent(step)  # the next request takes the newest value along, once
    assert third.option(Option.ECHO) == b"other"
    step.hears(encode(Message(0x44, (), b"", Type.ACK, third.mid, third.token)))
    assert step.event().exchange == waiting
    step.endpoint.request(request, PEER, step.now)
    assert sent(step).option(Option.ECHO) is None


def test_challenge_by_separate_response_and_to_a_non_confirmable_request():
    for kind in (Type.CON, Type.NON):
        step = client()
        step.endpoint.request(Message(Code.GET), PEER, step.now, confirmable=kind is Type.CON)
        first = sent(step)
        step.hears(encode(Message(0x81, ((Option.ECHO, b"v"),), b"", kind, 4, first.token)))
        again = [decode(data) for data in step.said()][-1]
        assert (again.type, again.option(Option.ECHO)) == (kind, b"v")


def test_unauthorized_without_echo_is_the_applications():
    step = client()
    step.endpoint.request(Message(Code.GET), PEER, step.now)
    first = sent(step)
    step.hears(encode(Message(0x81, (), b"", Type.ACK, first.mid, first.token)))
    assert step.event().response.code == Code.UNAUTHORIZED
    step.silent()


def test_values_go_only_to_where_they_came_from():
    step = client()
    step.endpoint.request(Message(Code.GET), PEER, step.now)
    first = sent(step)
    step.hears(encode(Message(0x45, ((Option.ECHO, b"preemptive"),), b"", Type.ACK, first.mid, first.token)))
    step.endpoint.request(Message(Code.GET), STRANGER, step.now)
    ((data, _),) = step.endpoint.datagrams_to_send(step.now)
    assert decode(data).options == ()
    step.endpoint.request(Message(Code.GET), PEER, step.now)
    assert sent(step).option(Option.ECHO) == b"preemptive"


def test_two_endpoints_with_loss():
    """Client and server of this room against each other, every third datagram lost."""
    site = Site(randomness=seeded(1))
    got = []

    def take(request, path, identity, now):
        got.append(request.payload)
        return Message(Code.CHANGED)

    site.add("ingest", take, methods=[Code.POST])
    a = Endpoint(randomness=seeded(2))
    b = Endpoint(site=site, randomness=seeded(3))
    for number in range(20):
        a.request(Message(Code.POST, build_options("ingest"), b"%d" % number), "b", 0.0)
    now, turn, codes = 0.0, 0, []
    while len(codes) < 20:
        for source, target, name in ((a, b, "a"), (b, a, "b")):
            for data, _ in source.datagrams_to_send(now):
                turn += 1
                if turn % 3:
                    target.receive_datagram(data, name, now)
        while (event := a.next_event()) is not None:
            assert isinstance(event, ResponseReceived)
            codes.append(event.response.code)
        now += 0.25
        a.handle_timeout(now)
        b.handle_timeout(now)
        assert now < 1000
    assert codes == [Code.CHANGED] * 20
    assert got == [b"%d" % number for number in range(20)], "each once and in order"


def test_a_short_datagram_with_the_message_id_of_a_long_one_is_not_answered_at_length():
    """Who may make a server send 136 bytes once may not have them sent again for 4 bytes each (RFC 9175 2.4)."""
    step = Server()
    assert len(step.asks("big", payload=b"y" * 60, mid=1).payload) == 100
    step.hears(step.asked)
    step.says(step.answer)
    step.hears("40010001")
    (challenge,) = step.said()
    challenged(decode(challenge))
    assert len(challenge) == 18
    step.hears("4f010001" + "00" * 15)
    step.silent()
    assert len(step.runs) == 1


def test_a_response_with_the_message_id_of_a_request_is_not_answered_at_length():
    """The same through the other door: duplicates are by Message ID alone (RFC 7252 section 4.5)."""
    step = Server()
    step.asks("big", payload=b"y" * 60, mid=1)
    step.hears("40450001")
    step.silent()
    assert step.count("coap_duplicates") == 1

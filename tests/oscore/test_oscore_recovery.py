"""RFC 8613 Appendix B.1.2, in lockstep: a server that restarts accepts nothing that an earlier run may have seen."""

import itertools

from vitalgate.coap.message import Code, Message
from vitalgate.coap.options import Option
from vitalgate.oscore.context import Parameters, SecurityContext
from vitalgate.oscore.errors import OscoreError, Refusal
from vitalgate.oscore.option import decode
from vitalgate.oscore.protect import protect_request, protect_response, unprotect_request, unprotect_response
from vitalgate.oscore.recovery import challenge_in, synchronise, with_echo
from vitalgate.oscore.sequence import MemorySequenceStore

PARAMETERS = Parameters(b"sixteen secret b", b"g", b"c")
POST = Message(Code.POST, ((11, b"ingest"),), b"beat")
serial = itertools.count(1)


def randomness(size):
    return next(serial).to_bytes(size, "big")


class Server:
    """The pure functions in the order in which an endpoint calls them."""

    def __init__(self, store, *, fresh, block=4):
        self.context = SecurityContext("gateway", PARAMETERS.reversed(), store, fresh=fresh, block=block)
        self.processed = []

    def receive(self, message):
        try:
            request, binding = unprotect_request(self.context, message, decode(message.option(Option.OSCORE)))
        except OscoreError as error:
            return error.refusal
        challenge = synchronise(self.context, request, binding, 0.0, randomness)
        if challenge is not None:
            return challenge
        self.processed.append(request.payload)
        return protect_response(self.context, binding, Message(Code.CHANGED))


def test_the_exchange_of_appendix_b_1_2():
    store = MemorySequenceStore()
    client = SecurityContext("cloud", PARAMETERS, MemorySequenceStore(), fresh=True)
    server = Server(store, fresh=True)
    before = [protect_request(client, POST) for _ in range(3)]
    assert unprotect_response(client, before[0][1], server.receive(before[0][0])).code == Code.CHANGED
    assert server.receive(before[1][0]).option(Option.OSCORE) == b""

    server = Server(store, fresh=False)  # it crashed, and its window is gone
    for message, sent in before:  # replays and a request that was under way: each is challenged, none processed
        answer = server.receive(message)
        assert answer.code == Code.CHANGED
        assert answer.option(Option.OSCORE) != b"", "a Partial IV of the server's own"
        shown = unprotect_response(client, sent, answer)
        assert shown.code == Code.UNAUTHORIZED
        assert [number for number, _ in shown.options] == [Option.ECHO]
        assert shown.payload == b""
    assert server.processed == []
    assert server.context.window is None

    late, _ = protect_request(client, POST)
    again, sent = protect_request(client, with_echo(POST, challenge_in(shown)))
    assert unprotect_response(client, sent, server.receive(again)).code == Code.CHANGED
    assert server.processed == [POST.payload]
    # The verified request's number is the lower limit of the window.
    for message in (again, late, *(m for m, _ in before)):
        assert server.receive(message) is Refusal.REPLAY
    following, sent = protect_request(client, POST)
    assert unprotect_response(client, sent, server.receive(following)).code == Code.CHANGED


def test_an_echo_of_an_earlier_run_or_of_the_clients_own_making_shows_nothing():
    store = MemorySequenceStore()
    client = SecurityContext("cloud", PARAMETERS, MemorySequenceStore(), fresh=True)
    Server(store, fresh=True)
    server = Server(store, fresh=False)
    first, sent = protect_request(client, POST)
    old = challenge_in(unprotect_response(client, sent, server.receive(first)))
    server = Server(store, fresh=False)
    for value in (old, b"", b"\0" * 8, b"x" * 40):
        message, sent = protect_request(client, with_echo(POST, value))
        assert unprotect_response(client, sent, server.receive(message)).code == Code.UNAUTHORIZED
    assert server.processed == []


def test_a_forged_or_broken_request_is_not_challenged():
    store = MemorySequenceStore()
    client = SecurityContext("cloud", PARAMETERS, MemorySequenceStore(), fresh=True)
    Server(store, fresh=True)
    server = Server(store, fresh=False)
    message, _ = protect_request(client, POST)
    message.payload = message.payload[:-1] + bytes((message.payload[-1] ^ 1,))
    assert server.receive(message) is Refusal.DECRYPTION
    assert server.context.sequence.used == store.load(server.context.record)


def test_many_restarts_repeat_no_nonce_under_the_servers_key():
    store = MemorySequenceStore()
    client = SecurityContext("cloud", PARAMETERS, MemorySequenceStore(), fresh=True)
    Server(store, fresh=True)
    kept = [protect_request(client, POST)[0] for _ in range(5)]
    numbers = []
    for _ in range(10):
        server = Server(store, fresh=False, block=3)
        for message in kept:
            numbers.append(decode(server.receive(message).option(Option.OSCORE)).piv)
    assert len(set(numbers)) == 50


def test_a_4_01_without_echo_and_an_echo_without_4_01_are_no_challenge():
    assert challenge_in(Message(Code.UNAUTHORIZED)) is None
    assert challenge_in(Message(Code.CONTENT, ((Option.ECHO, b"e"),))) is None


def test_the_echo_takes_its_place_among_the_options():
    request = with_echo(Message(Code.GET, ((11, b"a"), (Option.ECHO, b"old"), (258, b"\2")), b"p"), b"new")
    assert request == Message(Code.GET, ((11, b"a"), (Option.ECHO, b"new"), (258, b"\2")), b"p")

"""Protecting and verifying: what goes in comes out, and nothing else gets in."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vitalgate.coap.message import Code, Message, Type
from vitalgate.coap.options import Option
from vitalgate.oscore.algorithms import AEADS, HKDFS
from vitalgate.oscore.classes import OPTION_CLASSES, OUTER_ONLY, Class
from vitalgate.oscore.context import ContextError, Parameters, SecurityContext
from vitalgate.oscore.contexts import Contexts
from vitalgate.oscore.errors import OscoreError, ProtectionError, Refusal, SequenceError
from vitalgate.oscore.option import Header, decode, encode
from vitalgate.oscore.protect import protect_request, protect_response, unprotect_request, unprotect_response
from vitalgate.oscore.sequence import LIMIT, MemorySequenceStore

quick = settings(derandomize=True, deadline=None, max_examples=200)

BASE = Parameters(b"sixteen secret b", b"g", b"", b"salt")


def pair(parameters=BASE, **keywords):
    """(client, server) under one context, each with a store of its own."""
    return (
        SecurityContext("server", parameters, MemorySequenceStore(), fresh=True, **keywords),
        SecurityContext("client", parameters.reversed(), MemorySequenceStore(), fresh=True, **keywords),
    )


def opened(server, message):
    return unprotect_request(server, message, decode(message.option(Option.OSCORE)))


def refusal(call, *arguments):
    with pytest.raises(OscoreError) as caught:
        call(*arguments)
    return caught.value.refusal


numbers = st.sampled_from([int(n) for n in OPTION_CLASSES if n not in (9, 35, 6)]) | st.integers(300, 65535)
option_lists = st.lists(st.tuples(numbers, st.binary(max_size=300)), max_size=6).map(
    lambda pairs: tuple(sorted(pairs, key=lambda pair: pair[0]))
)
headers = (st.sampled_from(Type), st.integers(0, 65535), st.binary(max_size=8))
requests = st.builds(Message, st.integers(1, 31), option_lists, st.binary(max_size=80), *headers)
responses = st.builds(Message, st.integers(64, 95) | st.integers(128, 191), option_lists, st.binary(max_size=80))
POST = Message(Code.POST, ((11, b"ingest"), (12, b"p")), b"one heartbeat")
CHANGED = Message(Code.CHANGED, (), b"done")


@quick
@given(request=requests, response=responses, own_piv=st.booleans())
def test_round_trip(request, response, own_piv):
    client, server = pair()
    protected, sent = protect_request(client, request)
    assert protected.code == Code.POST
    received, bound = opened(server, protected)
    assert received == request
    answer = protect_response(server, bound, response, own_piv=own_piv)
    assert answer.code == Code.CHANGED
    assert unprotect_response(client, sent, answer) == response


@pytest.mark.parametrize("hkdf", sorted(HKDFS))
@pytest.mark.parametrize("aead", sorted(AEADS))
def test_every_algorithm_both_ways(aead, hkdf):
    row = AEADS[aead]
    kid = bytes(range(row.longest_id))
    parameters = Parameters(b"s" * 32, kid, b"", id_context=b"\0" * 8, aead=aead, hkdf=hkdf)
    client, server = pair(parameters)
    protected, sent = protect_request(client, POST)
    assert len(protected.payload) == 1 + len("\xb6ingest\x11p") + 1 + len(POST.payload) + row.tag
    received, bound = opened(server, protected)
    assert received == POST
    assert unprotect_response(client, sent, protect_response(server, bound, CHANGED)) == CHANGED
    # The algorithm is bound into the messages: another one with keys of the same size does not open them.
    for other in AEADS:
        if other != aead and len(kid) <= AEADS[other].longest_id:
            stranger = pair(Parameters(b"s" * 32, kid, b"", id_context=b"\0" * 8, aead=other, hkdf=hkdf))[1]
            assert refusal(opened, stranger, protected) is Refusal.DECRYPTION


def test_only_class_u_options_show():
    secret = Message(
        Code.GET, ((3, b"host"), (4, b"etag"), (7, b"\x16\x33"), (11, b"patient"), (15, b"name=x"), (39, b"coap"))
    )
    protected, _ = protect_request(pair()[0], secret)
    assert [number for number, _ in protected.options] == [3, 7, 9, 39]
    assert b"patient" not in protected.payload
    assert b"name=x" not in b"".join(value for _, value in protected.options)


def test_the_option_table_says_what_figure_5_says():
    both = {6, 14, 23, 27, 28, 60, 258} | {19, 31, 252, 292}
    only_u = {3, 7, 9, 35, 39} | {16, 21}
    assert {n for n, kind in OPTION_CLASSES.items() if kind == Class.E | Class.U} == both
    assert only_u == OUTER_ONLY


@quick
@given(
    received=st.lists(st.tuples(st.integers(0, 300), st.binary(max_size=5)), max_size=8).filter(
        lambda pairs: all(number != 9 for number, _ in pairs)
    )
)
def test_what_a_proxy_adds_outside_never_gets_in_as_class_e(received):
    client, server = pair()
    protected, sent = protect_request(client, POST)
    protected.options = tuple(sorted((*protected.options, *received), key=lambda pair: pair[0]))
    protected.code = Code.FETCH
    request, bound = opened(server, protected)
    assert [o for o in request.options if o[0] not in OUTER_ONLY] == list(POST.options)
    assert request.code == Code.POST
    assert [o for o in request.options if o[0] in OUTER_ONLY] == sorted(
        (o for o in received if o[0] in OUTER_ONLY), key=lambda pair: pair[0]
    )
    answer = protect_response(server, bound, CHANGED)
    answer.options = tuple(sorted((*answer.options, (4, b"e"), (14, b"\xff")), key=lambda pair: pair[0]))
    assert unprotect_response(client, sent, answer) == CHANGED


def test_every_flipped_bit_is_refused():
    parameters = Parameters(b"sixteen secret b", b"gw", b"c", b"salt", b"site")
    client, server = pair(parameters)
    protected, sent = protect_request(client, POST)
    answer = protect_response(server, opened(server, protected)[1], CHANGED, own_piv=True)

    def as_a_server_would(message):
        contexts = Contexts()
        contexts.add(pair(parameters)[1])
        header = decode(message.option(Option.OSCORE))
        for context in contexts.find(header):
            return unprotect_request(context, message, header)
        raise OscoreError(Refusal.NO_CONTEXT)

    def as_the_client_would(message):
        return unprotect_response(client, sent, message)

    assert as_a_server_would(protected)[0] == POST
    for verify, message in ((as_a_server_would, protected), (as_the_client_would, answer)):
        value = message.option(Option.OSCORE)
        for bit in range(8 * len(message.payload)):
            payload = bytearray(message.payload)
            payload[bit // 8] ^= 1 << bit % 8
            flipped = Message(message.code, message.options, bytes(payload))
            assert refusal(verify, flipped) is Refusal.DECRYPTION
        for bit in range(8 * len(value)):
            option = bytearray(value)
            option[bit // 8] ^= 1 << bit % 8
            flipped = Message(message.code, ((9, bytes(option)),), message.payload)
            assert refusal(verify, flipped) is not Refusal.REPLAY
    assert as_the_client_would(answer) == CHANGED, "what was refused has used nothing up"


def test_every_truncation_is_refused():
    client, server = pair()
    protected, _ = protect_request(client, POST)
    for size in range(len(protected.payload)):
        cut = Message(protected.code, protected.options, protected.payload[:size])
        assert refusal(opened, server, cut) is (Refusal.DECRYPTION if size else Refusal.MALFORMED)
    assert opened(server, protected)[0] == POST


def test_another_key_opens_nothing():
    client, server = pair()
    strangers = pair(Parameters(b"another secret b", b"g", b"", b"salt"))
    protected, sent = protect_request(client, POST)
    assert refusal(opened, strangers[1], protected) is Refusal.DECRYPTION
    _, bound = opened(server, protected)
    answer = protect_response(server, bound, CHANGED)
    assert refusal(unprotect_response, strangers[0], sent, answer) is Refusal.DECRYPTION


def test_a_replay_is_refused_before_the_cryptography_and_a_forgery_marks_nothing():
    client, server = pair()
    protected, _ = protect_request(client, POST)
    forged = Message(protected.code, protected.options, bytes(len(protected.payload)))
    assert refusal(opened, server, forged) is Refusal.DECRYPTION
    assert opened(server, protected)[0] == POST
    assert refusal(opened, server, protected) is Refusal.REPLAY
    assert refusal(opened, server, forged) is Refusal.REPLAY, "asked before decryption"


def test_requests_out_of_order_within_the_window_pass_once_each():
    client, server = pair(window=8)
    messages = [protect_request(client, POST)[0] for _ in range(12)]
    assert opened(server, messages[11])[0] == POST
    for number in (10, 4, 9, 5):
        assert opened(server, messages[number])[0] == POST
    for number in (11, 10, 4, 3, 0):
        assert refusal(opened, server, messages[number]) is Refusal.REPLAY


def test_a_response_answers_its_request_alone():
    client, server = pair()
    first, first_sent = protect_request(client, POST)
    second, second_sent = protect_request(client, POST)
    for own_piv in (False, True):
        _, bound = opened(server, first) if not own_piv else opened(server, second)
        answer = protect_response(server, bound, CHANGED, own_piv=own_piv)
        right, wrong = (second_sent, first_sent) if own_piv else (first_sent, second_sent)
        assert refusal(unprotect_response, client, wrong, answer) is Refusal.DECRYPTION
        assert unprotect_response(client, right, answer) == CHANGED


def test_the_request_nonce_serves_one_response():
    client, server = pair()
    protected, _ = protect_request(client, POST)
    _, bound = opened(server, protected)
    answers = [protect_response(server, bound, Message(Code.CONTENT, (), bytes((n,)))) for n in range(3)]
    assert [a.option(Option.OSCORE) for a in answers] == [b"", b"\x01\x00", b"\x01\x01"]


def test_a_reflected_request_is_no_request_to_its_maker():
    client, _ = pair()
    protected, sent = protect_request(client, POST)
    assert refusal(opened, client, protected) is Refusal.DECRYPTION
    assert refusal(unprotect_response, client, sent, protected) is Refusal.NO_CONTEXT


@pytest.mark.parametrize("code", [Code.EMPTY, Code.CONTENT, Code.BAD_REQUEST, 0xE1])
def test_a_verified_request_has_a_method(code):
    client, server = pair()
    protected, _ = protect_request(client, Message(code, (), b"x"))
    assert refusal(opened, server, protected) is Refusal.MALFORMED
    assert refusal(opened, server, protected) is Refusal.REPLAY, "it verified, so its number is used"


@pytest.mark.parametrize("code", [Code.EMPTY, Code.GET, 0xE1])
def test_a_verified_response_has_a_response_code(code):
    client, server = pair()
    protected, sent = protect_request(client, POST)
    answer = protect_response(server, opened(server, protected)[1], Message(code))
    assert refusal(unprotect_response, client, sent, answer) is Refusal.MALFORMED


@settings(derandomize=True, deadline=None, max_examples=500)
@given(plaintext=st.binary(max_size=60))
def test_any_verified_plaintext_is_a_message_or_malformed(plaintext):
    client, server = pair()
    refused = set()
    for cut in range(len(plaintext) + 1):
        sealed = client.sender.key.encrypt(client.sender.nonce(cut), plaintext[:cut], client.sender.aad(bytes((cut,))))
        header = Header(bytes((cut,)), b"g")
        try:
            request, _ = unprotect_request(server, Message(Code.POST, ((9, encode(header)),), sealed), header)
        except OscoreError as error:
            refused.add(error.refusal)
            continue
        assert 0 < request.code < 32
        assert not OUTER_ONLY & {number for number, _ in request.options}
    assert refused <= {Refusal.MALFORMED}


def test_what_cannot_be_protected_is_an_error_and_uses_no_number():
    client, _ = pair()
    for message in (
        Message(Code.GET, ((Option.OSCORE, b""),)),
        Message(Code.GET, ((Option.PROXY_URI, b"coap://a/b"),)),
        Message(Code.GET, ((12, b""), (11, b"a"))),
        Message(Code.GET, ((70000, b""),)),
        Message(Code.POST, (), bytes(65536)),
    ):
        with pytest.raises(ProtectionError):
            protect_request(client, message)
    assert client.sequence.used == 0


def test_an_overlong_ciphertext_is_refused():
    client, server = pair()
    protected, _ = protect_request(client, POST)
    protected.payload = bytes(70000)
    assert refusal(opened, server, protected) is Refusal.DECRYPTION


def test_a_sender_without_numbers_protects_nothing():
    store = MemorySequenceStore()
    client = SecurityContext("server", BASE, store, fresh=True)
    store.reserve(client.record, LIMIT)
    client = SecurityContext("server", BASE, store, fresh=False)
    with pytest.raises(SequenceError):
        protect_request(client, POST)


def test_a_key_is_fresh_once():
    store = MemorySequenceStore()
    with pytest.raises(SequenceError):
        SecurityContext("server", BASE, store, fresh=False)
    SecurityContext("server", BASE, store, fresh=True)
    with pytest.raises(SequenceError):
        SecurityContext("another name", BASE, store, fresh=True)
    assert SecurityContext("server", BASE, store, fresh=False).window is None


# Observe (sections 4.1.3.5, 7.4.1, 8.3.1, 8.4.2)


def observe(value: bytes = b"") -> Message:
    return Message(Code.GET, ((Option.OBSERVE, value), (11, b"hr")))


def test_notifications_have_numbers_of_their_own_and_an_order():
    client, server = pair()
    protected, sent = protect_request(client, observe())
    assert protected.code == Code.FETCH
    assert protected.option(Option.OBSERVE) == b""
    request, bound = opened(server, protected)
    assert request.option(Option.OBSERVE) == b""
    notes = [protect_response(server, bound, Message(Code.CONTENT, ((6, b""),), bytes((n,)))) for n in range(4)]
    assert all(note.code == Code.CONTENT for note in notes)
    assert [note.option(Option.OSCORE) for note in notes] == [b"", b"\x01\x00", b"\x01\x01", b"\x01\x02"]
    assert unprotect_response(client, sent, notes[0]).payload == b"\0"
    assert refusal(unprotect_response, client, sent, notes[0]) is Refusal.REPLAY
    late = unprotect_response(client, sent, notes[2])
    assert (late.payload, late.option(Option.OBSERVE)) == (b"\2", b"\1")
    for old in (notes[1], notes[2]):
        assert refusal(unprotect_response, client, sent, old) is Refusal.REPLAY
    assert unprotect_response(client, sent, notes[3]).payload == b"\3"


def test_an_observe_in_answer_to_a_plain_request_is_refused():
    client, server = pair()
    for request in (POST, observe(b"\1")):
        protected, sent = protect_request(client, request)
        note = protect_response(server, opened(server, protected)[1], Message(Code.CONTENT, ((6, b""),)))
        assert refusal(unprotect_response, client, sent, note) is Refusal.MALFORMED


# Contexts


@pytest.mark.parametrize(
    "change",
    [
        {"aead": 0},
        {"aead": 5},  # HMAC: no AEAD
        {"hkdf": -12},
        {"master_secret": b""},
        {"sender_id": b"c"},
        {"sender_id": bytes(8)},
        {"recipient_id": bytes(8)},
        {"sender_id": b"ab", "aead": 12},
        {"id_context": bytes(242)},
    ],
)
def test_parameters_that_make_no_context(change):
    fields = {"master_secret": b"s", "sender_id": b"g", "recipient_id": b"c", **change}
    with pytest.raises(ContextError):
        Parameters(**fields)


def test_the_longest_id_context_fits_the_option():
    parameters = Parameters(b"s", bytes(7), b"c", id_context=bytes(241))
    store = MemorySequenceStore()
    client = SecurityContext("c", parameters, store, fresh=True)
    store.reserve(client.record, LIMIT - 1)
    client = SecurityContext("c", parameters, store, fresh=False)
    assert len(protect_request(client, POST)[0].option(Option.OSCORE)) == 255


def test_an_empty_id_context_is_not_none():
    plain, empty = (Parameters(b"s", b"g", b"c", id_context=value) for value in (None, b""))
    message, _ = protect_request(pair(empty)[0], POST)
    assert decode(message.option(Option.OSCORE)) == Header(b"\0", b"g", b"")
    assert refusal(opened, pair(plain)[1], message) is Refusal.DECRYPTION


def test_an_id_context_may_stay_out_of_requests():
    parameters = Parameters(b"s", b"g", b"c", id_context=b"site")
    message, _ = protect_request(pair(parameters, send_id_context=False)[0], POST)
    assert decode(message.option(Option.OSCORE)) == Header(b"\0", b"g")
    assert opened(pair(parameters)[1], message)[0] == POST


def test_nothing_shows_a_secret():
    import pickle

    parameters = Parameters(b"VERYSECRETMASTER", b"g", b"c", b"SALTSALT")
    context = pair(parameters)[0]
    shown = repr(parameters) + repr(context) + repr(context.sender) + str(context)
    for secret in ("VERYSECRET", "SALTSALT", b"VERYSECRETMASTER".hex()):
        assert secret not in shown
    with pytest.raises(TypeError):
        pickle.dumps(context)

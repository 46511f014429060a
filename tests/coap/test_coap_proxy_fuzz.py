"""Whatever client and origin server say, the proxy answers the client something that can be sent, and forgets it."""

from coap_proxy_world import World, proxy_uri
from hypothesis import given, settings
from hypothesis import strategies as st

from vitalgate.coap import Code, Message, Type, decode, encode
from vitalgate.coap.httpback import to_http
from vitalgate.coap.httpfront import Asked, from_coap
from vitalgate.coap.httpvalues import EtagTable, HttpRequest
from vitalgate.coap.options import OPTIONS, Option, sort_options
from vitalgate.coap.proxyrequest import Local, Plan, plan_forward

NUMBERS = st.one_of(
    st.sampled_from([number for number in OPTIONS if number not in (Option.OBSERVE,)]),
    st.integers(1, 70),
    st.sampled_from([2048, 2049, 2050, 2051, 0x801C, 65535]),
)
OPTION_LISTS = st.lists(st.tuples(NUMBERS, st.binary(max_size=20)), max_size=6)
METHODS = st.integers(1, 9)
CODES = st.sampled_from([*(code for code in Code if code >> 5 in (2, 4, 5)), 0x5E, 0x9E, 0xBE])
URIS = st.one_of(
    st.sampled_from(["coap://93.184.216.34/t", "coap://93.184.216.34", "http://origin.example/x", "coap://[::1]/"]),
    st.text(st.characters(max_codepoint=0x17F), min_size=1, max_size=40),
    st.text("/:.?#[]@%a1", max_size=30).map(lambda text: "coap://93.184.216.34" + text),
)


@settings(max_examples=300)
@given(METHODS, URIS, OPTION_LISTS, CODES, OPTION_LISTS, st.binary(max_size=30))
def test_any_request_and_any_response(method, uri, asked, code, said, payload):
    world = World()
    more = [pair for pair in asked if pair[0] != Option.PROXY_URI]
    answers = world.client_says(proxy_uri(uri, *more, code=method, payload=payload))
    while (event := world.proxy.next_event()) is not None:
        world.proxy.resolved(event.ticket, ["93.184.216.34"], world.now)
        if world.proxy.next_event() is not None:
            world.proxy.answered(event.ticket, Message(code, sort_options(said), payload), world.now)
    for got in world.to_origin(("93.184.216.34", 5683)):
        assert decode(encode(got)).code == method
        world.origin_says(got, Message(code, sort_options(said), payload))
    world.wait(200.0)
    answers += world.to_client()
    muted = any(number == Option.NO_RESPONSE for number, _ in more)
    assert muted or any(each.code or each.type == Type.RST for each in answers)
    assert (len(world.proxy), world.proxy._exchanges, world.proxy._registering) == (0, {}, {})


@settings(max_examples=300)
@given(METHODS, URIS, OPTION_LISTS, st.binary(max_size=30))
def test_any_plan_and_any_translation(method, uri, options, payload):
    request = Message(method, sort_options([(Option.PROXY_URI, uri.encode()), *options]), payload)
    plan = plan_forward(request)
    assert isinstance(plan, Plan | Local | Message)
    if isinstance(plan, Plan):
        assert encode(plan.request)
        translated = to_http(plan.request, "http://origin.example/", EtagTable(), name="p")
        if isinstance(translated, HttpRequest):
            assert all(value.isascii() and value.isprintable() for _, value in translated.headers)


@given(CODES, OPTION_LISTS, st.binary(max_size=30), st.sampled_from(["GET", "HEAD", "POST"]))
def test_any_response_for_http(code, options, payload, method):
    asked = Asked(Message(Code.GET), "coap://192.0.2.1/t", method, conditional=True)
    response = from_coap(Message(code, sort_options(options), payload), asked)
    assert 200 <= response.status < 600
    assert all(value.isascii() and value.isprintable() for _, value in response.headers)

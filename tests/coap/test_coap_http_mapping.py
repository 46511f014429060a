"""The HTTP mapping both ways, table by table; no sockets."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitalgate.coap.codec import encode
from vitalgate.coap.httpback import from_http, to_http
from vitalgate.coap.httpfront import LINKS, Asked, from_coap, target_uri, to_coap
from vitalgate.coap.httpvalues import (
    MAX_ETAGS,
    EtagTable,
    HttpRequest,
    HttpResponse,
    accepted,
    coap_etags,
    content_format_of,
    content_type,
    loose_content_format,
    remaining_freshness,
)
from vitalgate.coap.message import Code, Message
from vitalgate.coap.options import Option, build_options, sort_options, uint_option

HOST = ("host", "127.0.0.1:8080")
URI = "coap://192.0.2.1/t"


def http(method="GET", target="/hc/" + URI, *headers, body=b""):
    return HttpRequest(method, target, (HOST, *headers), body)


def asked(method="GET", *, conditional=False, uri=URI):
    return Asked(Message(Code.GET), uri, method, conditional)


# Values


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("application/json", 50),
        ("Application/JSON; charset=UTF-8", 50),
        ("text/plain", 0),
        ('text/plain; charset="utf-8"', 0),
        ("text/plain;charset=iso-8859-1", None),
        ('application/cose; cose-type="cose-encrypt0"', 16),
        ("application/cose", None),
        ("application/senml+cbor", 112),
        ("application/coap-payload;cf=65000", 65000),
        ("application/coap-payload;cf=65536", None),
        ("application/coap-payload;cf=x", None),
        ("application/coap-payload", None),
        ("text/html", None),
        ("", None),
    ],
)
def test_media_types(text, number):
    assert content_format_of(text) == number
    if number is not None:
        assert content_format_of(content_type(number)) == number


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("application/json", 50),
        ("application/problem+json", 50),
        ("image/svg+xml", 41),
        ("text/xml", 41),
        ("text/html; charset=utf-8", 0),
        ("text/html; charset=latin1", 42),
        ("image/png", 42),
    ],
)
def test_media_types_taken_loosely(text, number):
    assert loose_content_format(text) == number


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("", None),
        ("*/*", None),
        ("application/cbor", 60),
        ("text/html, application/json;q=0.5, application/cbor;q=0.9", 60),
        ("application/json;q=0.5, */*;q=0.1", 50),
        ("application/json;q=0.5, */*", None),
        ("application/json;q=0, application/cbor ; q=0.1", 60),
    ],
)
def test_accept(text, number):
    assert accepted(text) == number


@pytest.mark.parametrize("text", ["text/html", "application/json;q=0", "application/json;q=x", "image/png, text/css"])
def test_accept_of_what_has_no_number(text):
    with pytest.raises(LookupError):
        accepted(text)


def test_entity_tags():
    assert coap_etags('"0102", W/"ff", "xyz", "001122334455667788", ""', weak=True) == [b"\x01\x02", b"\xff"]
    assert coap_etags('"0102", W/"ff"', weak=False) == [b"\x01\x02"]
    table = EtagTable()
    option = table.option('"a-tag-longer-than-eight-bytes"')
    assert len(option) == 8
    assert table.text(option) == '"a-tag-longer-than-eight-bytes"'
    assert [table.option(text) for text in ('W/"weak"', "", "bare", '"a", "b"')] == [None] * 4
    for number in range(MAX_ETAGS):
        table.option(f'"{number}"')
    assert (len(table), table.text(option)) == (MAX_ETAGS, None), "the oldest is forgotten"


@pytest.mark.parametrize(
    ("headers", "left"),
    [
        ({}, 0),
        ({"cache-control": "max-age=60"}, 60),
        ({"cache-control": "max-age=60", "age": "50"}, 10),
        ({"cache-control": "max-age=60", "age": "70"}, 0),
        ({"cache-control": "max-age=60", "age": "?"}, 0),
        ({"cache-control": 'public, max-age="60", s-maxage=7'}, 7),
        ({"cache-control": "no-store, max-age=60"}, 0),
        ({"cache-control": "private=x, max-age=60"}, 0),
        ({"cache-control": "max-age=60", "vary": "*"}, 0),
        ({"cache-control": "max-age=99999999999999999999"}, 0xFFFFFFFF),
        ({"cache-control": "max-age=-1"}, 0),
        ({"date": "Sun, 22 Nov 2026 10:00:00 GMT", "expires": "Sun, 22 Nov 2026 10:01:00 GMT"}, 60),
        ({"date": "Sun, 22 Nov 2026 10:00:00 GMT", "expires": "0"}, 0),
        ({"expires": "Sun, 22 Nov 2026 10:01:00 GMT"}, 0),
    ],
)
def test_remaining_freshness(headers, left):
    assert remaining_freshness(HttpResponse(200, tuple(headers.items()))) == left


# HTTP clients (RFC 8075)


@pytest.mark.parametrize(
    ("target", "uri"),
    [
        ("/hc/coap://s.example.com/light", "coap://s.example.com/light"),
        ("/hc/coap://s.example.com/light?on&b=%26", "coap://s.example.com/light?on&b=%26"),
        ("/hc/coap://%5B2001:db8::1%5D:61616/light?on", "coap://[2001:db8::1]:61616/light?on"),
        ("/hc/coap://h/a%5Bb", "coap://h/a%5Bb"),
        ("/hc/?target_uri=coap://s.example.com/light?a&b", "coap://s.example.com/light?a&b"),
        ("/hc?target_uri=coap%3A%2F%2Fs.example.com%2Fl%3Fa", "coap://s.example.com/l?a"),
        ("/hc/s.example.com/light", "s.example.com/light"),
        ("/other", None),
        ("/hc", None),
    ],
)
def test_the_target_uri_in_a_hosting_uri(target, uri):
    assert target_uri(target) == uri


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (http("OPTIONS"), 501),
        (http("TRACE"), 501),
        (http("CONNECT", "host:443"), 501),
        (http("GET", "/"), 404),
        (http("GET", "/hc/s.example.com/light"), 400),  # section 5.3.1
        (http("GET", "/hc/http://s.example.com/"), 400),
        (http("POST", "/hc/" + URI, ("content-type", "text/html"), body=b"x"), 415),
        (http("POST", "/hc/" + URI, ("content-encoding", "gzip"), body=b"x"), 415),
        (http("GET", "/hc/" + URI, ("accept", "image/png")), 406),
        (http("PUT", "/hc/" + URI, ("if-match", '"not one of ours"')), 412),
        (http("PUT", "/hc/" + URI, ("if-match", 'W/"01"')), 412),
        (http("PUT", "/hc/" + URI, ("if-none-match", '"01"')), 412),
        (http("GET", "/hc/" + URI, ("via", "1.0 x, 1.1 p1")), 508),
        (http("POST", "/hc/" + URI, ("origin", "https://evil.example")), 403),
        (http("POST", "/hc/" + URI, ("origin", "null")), 403),
        (http("GET", "/hc/" + URI, ("sec-fetch-site", "cross-site")), 403),
        (HttpRequest("GET", "/hc/" + URI, (("host", "rebound.evil.example:8080"),)), 421),
        (HttpRequest("GET", "/hc/" + URI), 421),
    ],
)
def test_http_requests_that_are_refused(request_, status):
    response = to_coap(request_, via="p1")
    assert isinstance(response, HttpResponse)
    assert response.status == status


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]:8080", "localhost:80", "Proxy.example"])
def test_hosts_that_it_goes_by(host):
    request = HttpRequest("GET", "/hc/" + URI, (("host", host), ("origin", f"http://{host}".lower())))
    assert isinstance(to_coap(request, names=["proxy.example"]), Asked)


def test_what_http_requests_become():
    found = to_coap(http("GET", "/hc/" + URI, ("accept", "application/json"), ("if-none-match", '"01", W/"02"')))
    assert found == Asked(
        Message(Code.GET, ((Option.ETAG, b"\x01"), (Option.ETAG, b"\x02"), (Option.ACCEPT, b"\x32"))), URI, "GET", True
    )
    found = to_coap(http("PUT", "/hc/" + URI, ("content-type", "text/plain"), ("if-match", '"01"'), body=b"on"))
    assert found.request == Message(Code.PUT, ((Option.IF_MATCH, b"\x01"), (Option.CONTENT_FORMAT, b"")), b"on")
    found = to_coap(http("PUT", "/hc/" + URI, ("if-none-match", "*"), body=b"on"))
    assert found.request == Message(Code.PUT, ((Option.IF_NONE_MATCH, b""),), b"on")
    for method, code in (("HEAD", 1), ("GET", 1), ("POST", 2), ("PUT", 3), ("DELETE", 4), ("PATCH", 6)):
        assert to_coap(http(method)).request.code == code
    assert to_coap(http("GET", "/hc/" + URI, body=b"in vain")).request.payload == b""
    found = to_coap(HttpRequest("GET", "coap://192.0.2.1/t", (("host", "192.0.2.1"),)))
    assert found.uri == URI, "as a forward-proxy (RFC 7252 section 10.2)"


def test_discovery():
    response = to_coap(http("GET", "/.well-known/core?rt=core.hc"))
    assert (response.status, response.body) == (200, LINKS.encode())
    assert 'rt="core.hc"' in LINKS


@pytest.mark.parametrize(
    ("code", "payload", "status"),
    [
        (Code.CREATED, b"", 201), (Code.CREATED, b"x", 201), (Code.DELETED, b"", 204), (Code.DELETED, b"x", 200),
        (Code.CHANGED, b"", 204), (Code.CHANGED, b"x", 200), (Code.CONTENT, b"x", 200), (Code.CONTENT, b"", 200),
        (Code.BAD_REQUEST, b"why", 400), (Code.UNAUTHORIZED, b"", 403), (Code.BAD_OPTION, b"", 500),
        (Code.FORBIDDEN, b"", 403), (Code.NOT_FOUND, b"", 404), (Code.METHOD_NOT_ALLOWED, b"", 400),
        (Code.NOT_ACCEPTABLE, b"", 406), (Code.CONFLICT, b"", 409), (Code.PRECONDITION_FAILED, b"", 412),
        (Code.REQUEST_ENTITY_TOO_LARGE, b"", 413), (Code.UNSUPPORTED_CONTENT_FORMAT, b"", 415),
        (Code.UNPROCESSABLE_ENTITY, b"", 422), (Code.TOO_MANY_REQUESTS, b"", 429),
        (Code.INTERNAL_SERVER_ERROR, b"", 500),
        (Code.NOT_IMPLEMENTED, b"", 501), (Code.BAD_GATEWAY, b"", 502), (Code.SERVICE_UNAVAILABLE, b"", 503),
        (Code.GATEWAY_TIMEOUT, b"", 504), (Code.PROXYING_NOT_SUPPORTED, b"", 502), (Code.HOP_LIMIT_REACHED, b"", 508),
        (Code.VALID, b"", 502), (0x5E, b"x", 200), (0x9E, b"", 400), (0xBE, b"", 502),
    ],
)  # fmt: skip
def test_response_codes_for_http(code, payload, status):
    response = from_coap(Message(code, (), payload), asked("DELETE"))
    assert (response.status, response.body) == (status, payload)
    if payload and code == Code.BAD_REQUEST:
        assert response.header("content-type") == "text/plain;charset=utf-8"
        assert response.reason == "", "a diagnostic is no reason phrase"
    if code == Code.METHOD_NOT_ALLOWED:
        assert response.reason.startswith("CoAP server returned 4.05")


def test_response_options_for_http():
    more = ((Option.ETAG, b"\xab\xcd"),)
    response = from_coap(
        Message(Code.CONTENT, build_options(content_format=60, max_age=7, more=more), b"\xa0"), asked()
    )
    assert response.headers == (
        ("content-type", "application/cbor"), ("etag", '"abcd"'), ("cache-control", "max-age=7"),
    )  # fmt: skip
    assert from_coap(Message(Code.CONTENT), asked()).header("cache-control") == "max-age=60", "what CoAP implies"
    response = from_coap(Message(Code.VALID, more), asked(conditional=True))
    assert (response.status, response.header("etag")) == (304, '"abcd"')
    assert from_coap(Message(Code.CONTENT, build_options(content_format=65000)), asked()).header("content-type") == (
        "application/coap-payload;cf=65000"
    )
    response = from_coap(Message(Code.SERVICE_UNAVAILABLE, build_options(max_age=9)), asked("POST"))
    assert response.headers == (("retry-after", "9"),)
    location = ((Option.LOCATION_PATH, b"a/b"), (Option.LOCATION_PATH, b"c"), (Option.LOCATION_QUERY, b"d&e"))
    response = from_coap(Message(Code.CREATED, location), asked("POST", uri="coap://[::1]:99/x"))
    assert response.header("location") == "/hc/coap://%5B::1%5D:99/a%2Fb/c?d%26e"
    assert target_uri(response.header("location")).startswith("coap://[::1]:99/a%2Fb")
    assert from_coap(Message(Code.CONTENT, ((2049, b""),)), asked()).status == 502


# HTTP servers (RFC 7252 section 10.1)


def coap(code=Code.GET, *options, payload=b""):
    return Message(code, sort_options(options), payload)


URL = "http://origin.example/x/y?z"


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (coap(Code.FETCH), Code.NOT_IMPLEMENTED),
        (coap(Code.IPATCH), Code.NOT_IMPLEMENTED),
        (coap(Code.GET, (Option.OSCORE, b"")), Code.BAD_OPTION),
        (coap(Code.GET, (2049, b"")), Code.BAD_OPTION),
        (coap(Code.PUT, (Option.IF_MATCH, b"unknown")), Code.PRECONDITION_FAILED),
    ],
)
def test_coap_requests_that_http_has_no_words_for(request_, code):
    assert to_http(request_, URL, EtagTable()).code == code


def test_what_coap_requests_become():
    tags = EtagTable()
    tag = tags.option('"v1"')
    request = to_http(
        coap(Code.GET, (Option.ETAG, tag), (Option.ETAG, b"?"), (Option.ACCEPT, b"\x32")), URL, tags, name="p"
    )
    assert request == HttpRequest(
        "GET", URL, (("accept", "application/json"), ("if-none-match", '"v1"'), ("via", "1.1 p"))
    )  # fmt: skip
    request = to_http(coap(Code.PUT, (Option.IF_MATCH, tag), (Option.CONTENT_FORMAT, b""), payload=b"on"), URL, tags)
    assert request == HttpRequest(
        "PUT", URL,
        (("content-type", "text/plain;charset=utf-8"), ("if-match", '"v1"'), ("content-length", "2")), b"on",
    )  # fmt: skip
    request = to_http(coap(Code.POST, (Option.IF_NONE_MATCH, b"")), URL, tags)
    assert request.headers == (("if-none-match", "*"), ("content-length", "0"))
    assert ("if-match", "*") in to_http(coap(Code.PUT, (Option.IF_MATCH, b"")), URL, tags).headers


@pytest.mark.parametrize(
    ("method", "status", "code"),
    [
        (Code.GET, 200, Code.CONTENT), (Code.PUT, 200, Code.CHANGED), (Code.PUT, 201, Code.CREATED),
        (Code.PUT, 204, Code.CHANGED), (Code.POST, 200, Code.CHANGED), (Code.POST, 201, Code.CREATED),
        (Code.DELETE, 204, Code.DELETED), (Code.DELETE, 404, Code.DELETED), (Code.GET, 301, Code.BAD_GATEWAY),
        (Code.GET, 302, Code.BAD_GATEWAY), (Code.GET, 206, Code.BAD_GATEWAY), (Code.GET, 400, Code.BAD_REQUEST),
        (Code.GET, 401, Code.UNAUTHORIZED), (Code.GET, 403, Code.FORBIDDEN), (Code.GET, 404, Code.NOT_FOUND),
        (Code.GET, 405, Code.METHOD_NOT_ALLOWED), (Code.GET, 406, Code.NOT_ACCEPTABLE),
        (Code.GET, 418, Code.BAD_REQUEST),
        (Code.GET, 429, Code.TOO_MANY_REQUESTS), (Code.GET, 500, Code.INTERNAL_SERVER_ERROR),
        (Code.GET, 503, Code.SERVICE_UNAVAILABLE), (Code.GET, 508, Code.HOP_LIMIT_REACHED),
        (Code.GET, 599, Code.BAD_GATEWAY), (Code.GET, 304, Code.BAD_GATEWAY),
    ],
)  # fmt: skip
def test_statuses_for_coap(method, status, code):
    assert from_http(HttpResponse(status), coap(method), URL, EtagTable()).code == code


def test_response_headers_for_coap():
    tags = EtagTable()
    headers = (("content-type", "application/problem+json"), ("etag", '"v1"'), ("cache-control", "max-age=5"))
    response = from_http(HttpResponse(200, headers, b"{}"), coap(), URL, tags)
    assert (response.code, response.payload) == (Code.CONTENT, b"{}")
    assert (uint_option(response, Option.CONTENT_FORMAT), uint_option(response, Option.MAX_AGE)) == (50, 5)
    tag = response.option(Option.ETAG)
    assert tags.text(tag) == '"v1"'
    assert uint_option(from_http(HttpResponse(200), coap(), URL, tags), Option.MAX_AGE) == 0, "unsaid is not fresh"
    for headers in ((("etag", '"v1"'),), ()):
        response = from_http(HttpResponse(304, headers), coap(Code.GET, (Option.ETAG, tag)), URL, tags)
        assert (response.code, response.option(Option.ETAG)) == (Code.VALID, tag)
    wanted = coap(Code.GET, (Option.ACCEPT, b"\x3c"))
    assert from_http(HttpResponse(200, headers, b"{}"), wanted, URL, tags).code == Code.NOT_ACCEPTABLE
    packed = HttpResponse(200, (("content-encoding", "gzip"),), b"?")
    assert from_http(packed, coap(), URL, tags).code == Code.BAD_GATEWAY
    busy = from_http(HttpResponse(503, (("retry-after", "30"),)), coap(), URL, tags)
    assert uint_option(busy, Option.MAX_AGE) == 30
    page = HttpResponse(404, (("content-type", "text/html"),), b"<html>")
    assert from_http(page, coap(), URL, tags).payload == b""
    text = HttpResponse(404, (("content-type", "text/plain"),), "é".encode() * 999)
    assert from_http(text, coap(), URL, tags).payload == "é".encode() * 256


@pytest.mark.parametrize(
    ("location", "options"),
    [
        ("/a/b%2Fc?d&e=1", [(8, b"a"), (8, b"b/c"), (20, b"d"), (20, b"e=1")]),
        ("z", [(8, b"x"), (8, b"z")]),
        ("http://ORIGIN.example/a", [(8, b"a")]),
        ("https://origin.example/a", []),
        ("http://elsewhere.example/a", []),
        ("//elsewhere.example/a", []),
        ("http://[", []),
        ("/" + "a" * 256, []),
        ("/%ff", []),
        ("/%00", []),
        ("", []),
    ],
)
def test_locations_for_coap(location, options):
    response = from_http(HttpResponse(201, (("location", location),)), coap(Code.POST), URL, EtagTable())
    assert list(response.options) == options


TEXT = st.text(st.characters(max_codepoint=255), max_size=40)
NAMES = st.sampled_from(
    ["host", "accept", "content-type", "if-match", "if-none-match", "origin", "via", "cache-control", "age", "etag",
     "expires", "date", "location", "retry-after", "vary", "content-encoding"]
)  # fmt: skip


@given(st.sampled_from(["GET", "PUT", "X"]), TEXT, st.lists(st.tuples(NAMES, TEXT), max_size=5), st.binary(max_size=9))
def test_any_http_request_is_a_question_or_an_answer(method, target, headers, body):
    for prefix in ("", "/hc/coap://"):
        found = to_coap(HttpRequest(method, prefix + target, (HOST, *headers), body))
        assert isinstance(found, Asked | HttpResponse)


@given(
    st.integers(100, 599), st.lists(st.tuples(NAMES, TEXT), max_size=6), st.binary(max_size=9),
    st.sampled_from([Code.GET, Code.POST, Code.DELETE]),
)  # fmt: skip
def test_any_http_response_is_a_coap_one_that_can_be_encoded(status, headers, body, method):
    response = from_http(HttpResponse(status, tuple(headers), body), coap(method), URL, EtagTable())
    assert encode(response)

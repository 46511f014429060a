"""The option table against RFC 7252 table 4 and its successors, and what a recipient does with options."""

import pytest

from vitalgate.coap import (
    OPTIONS,
    Code,
    ContentFormat,
    Format,
    Message,
    Option,
    Use,
    build_options,
    check_options,
    content_format,
    decode_uint,
    encode_uint,
    media_type,
    path_segments,
    path_text,
    queries,
    uri_path,
    with_option,
)
from vitalgate.coap.options import RFC7252_CRITICAL
from vitalgate.coap.server import SERVER_CRITICAL
from vitalgate.coap.uri import UriError, compose_uri, parse_uri

# number: (C U N R as the RFCs' tables print them, name, format, min, max)
PRINTED = {
    1: ("C__R", "If-Match", "opaque", 0, 8),
    3: ("CU__", "Uri-Host", "string", 1, 255),
    4: ("___R", "ETag", "opaque", 1, 8),
    5: ("C___", "If-None-Match", "empty", 0, 0),
    7: ("CU__", "Uri-Port", "uint", 0, 2),
    8: ("___R", "Location-Path", "string", 0, 255),
    11: ("CU_R", "Uri-Path", "string", 0, 255),
    12: ("____", "Content-Format", "uint", 0, 2),
    14: ("_U__", "Max-Age", "uint", 0, 4),
    15: ("CU_R", "Uri-Query", "string", 0, 255),
    17: ("C___", "Accept", "uint", 0, 2),
    20: ("___R", "Location-Query", "string", 0, 255),
    35: ("CU__", "Proxy-Uri", "string", 1, 1034),
    39: ("CU__", "Proxy-Scheme", "string", 1, 255),
    60: ("__N_", "Size1", "uint", 0, 4),
    6: ("_U__", "Observe", "uint", 0, 3),
    23: ("CU__", "Block2", "uint", 0, 3),
    27: ("CU__", "Block1", "uint", 0, 3),
    28: ("__N_", "Size2", "uint", 0, 4),
    258: ("_U__", "No-Response", "uint", 0, 1),
    9: ("C___", "OSCORE", "opaque", 0, 255),
    16: ("____", "Hop-Limit", "uint", 1, 1),
    252: ("__N_", "Echo", "opaque", 1, 40),
    292: ("___R", "Request-Tag", "opaque", 0, 8),
    19: ("CU__", "Q-Block1", "uint", 0, 3),
    31: ("CU_R", "Q-Block2", "uint", 0, 3),
    21: ("C___", "EDHOC", "empty", 0, 0),
}


@pytest.mark.parametrize("number", sorted(PRINTED.keys() | OPTIONS.keys()))
def test_table_is_as_printed(number):
    flags, name, form, least, most = PRINTED[number]
    row = OPTIONS[number]
    derived = ("C" if row.critical else "_") + ("U" if row.unsafe else "_") + ("N" if row.no_cache_key else "_")
    assert derived + ("R" if row.repeatable else "_") == flags
    assert (row.number, row.name, row.format, row.min, row.max) == (number, name, Format(form), least, most)


@pytest.mark.parametrize(("value", "encoded"), [(0, ""), (1, "01"), (255, "ff"), (256, "0100"), (65535, "ffff")])
def test_uint(value, encoded):
    assert encode_uint(value) == bytes.fromhex(encoded)
    assert decode_uint(bytes.fromhex("0000" + encoded)) == value


def request(*options, understood=SERVER_CRITICAL):
    return check_options(options, Use.REQUEST, understood)


def test_known_options_pass_untouched():
    options = build_options("a/b", query=["x=1"], accept=50, content_format=0)
    kept, bad = request(*options)
    assert kept is options or kept == options
    assert bad == ()


@pytest.mark.parametrize(
    ("options", "kept", "bad"),
    [
        (((65001, b""),), (), (65001,)),
        (((65000, b""), (65002, b"x")), (), ()),
        (((9, b""), (27, b"")), (), (9, 27)),  # known, but nothing here takes care of them
        (((3, b""),), (), (3,)),  # too short
        (((3, b"a" * 256),), (), (3,)),  # too long
        (((7, b"123"),), (), (7,)),
        (((12, b"123"),), (), ()),  # elective: ignored
        (((3, b"a"), (3, b"b")), ((3, b"a"),), (3,)),  # supernumerary
        (((12, b"1"), (12, b"2")), ((12, b"1"),), ()),
        (((11, b"a"), (11, b"b")), ((11, b"a"), (11, b"b")), ()),
        (((4, b"1"), (4, b"2")), ((4, b"1"), (4, b"2")), ()),  # ETag repeats in requests
        (((11, b"\xff\xfe"),), (), (11,)),
        (((11, b"."),), (), (11,)),
        (((11, b".."),), (), (11,)),
        (((11, b"..."),), ((11, b"..."),), ()),
        (((14, b"\x05"),), (), ()),  # Max-Age is a response's
        (((8, b"a"),), (), ()),  # as is Location-Path
    ],
)
def test_requests(options, kept, bad):
    assert request(*options) == (kept, bad)


def test_responses():
    def check(*options):
        return check_options(options, Use.RESPONSE, ())

    assert check((11, b"a")) == ((), (11,))  # a request's option, critical
    assert check((4, b"1"), (4, b"2")) == (((4, b"1"),), ())  # ETag does not repeat in responses
    assert check((8, b"a"), (8, b"b"), (14, b"")) == (((8, b"a"), (8, b"b"), (14, b"")), ())
    assert check((9, b"")) == ((), (9,))
    assert check_options(((9, b""),), Use.RESPONSE, {9}) == (((9, b""),), ())


def test_a_server_understands_the_uri_options():
    assert all(number & 1 for number in RFC7252_CRITICAL)
    assert request(*build_options("a", query=["b"], more=[(3, b"h"), (7, b"\x16\x33")]))[1] == ()


def test_helpers():
    assert uri_path("") == uri_path("/") == ()
    assert uri_path("/a//b/") == ((11, b"a"), (11, b""), (11, b"b"), (11, b""))
    options = build_options("vitals/ä", query=["a=1", "b"], content_format=112, max_age=0, more=[(4, b"t"), (1, b"")])
    assert [number for number, _ in options] == [1, 4, 11, 11, 12, 14, 15, 15]
    assert path_segments(options) == (b"vitals", "ä".encode())
    assert path_text(options) == "/vitals/ä"
    assert queries(options) == ("a=1", "b")
    message = Message(Code.POST, options)
    assert content_format(message) == ContentFormat.SENML_CBOR
    assert content_format(Message(Code.POST)) is None
    assert message.all(Option.URI_QUERY) == [b"a=1", b"b"]
    assert with_option(options, Option.ETAG, b"u") == tuple((n, b"u" if n == 4 else v) for n, v in options)
    assert media_type(112) == "application/senml+cbor"
    assert media_type(999) == "999"


def test_every_format_has_its_media_type():
    assert all("/" in media_type(number) for number in ContentFormat)


# RFC 7252 appendix B
APPENDIX_B = [
    ((), "2001:db8::2:1", 5683, "coap://[2001:db8::2:1]/"),
    (((3, b"example.net"),), "2001:db8::2:1", 5683, "coap://example.net/"),
    (
        ((3, b"example.net"), (11, b".well-known"), (11, b"core")),
        "2001:db8::2:1",
        5683,
        "coap://example.net/.well-known/core",
    ),
    (
        ((3, b"xn--18j4d.example"), (11, "こんにちは".encode())),
        "2001:db8::2:1",
        5683,
        "coap://xn--18j4d.example/%E3%81%93%E3%82%93%E3%81%AB%E3%81%A1%E3%81%AF",
    ),
    (
        ((11, b""), (11, b"/"), (11, b""), (11, b""), (15, b"//"), (15, b"?&")),
        "198.51.100.1",
        61616,
        "coap://198.51.100.1:61616//%2F//?//&?%26",
    ),
]


@pytest.mark.parametrize(("options", "host", "port", "uri"), APPENDIX_B)
def test_appendix_b(options, host, port, uri):
    # The RFC's last example writes '//' of a query as '%2F%2F'; section 6.5 step 8 lets '/' stand; both mean the same.
    assert compose_uri(options, host, port) == uri
    parsed = parse_uri(uri)
    assert parsed.options == options
    assert parsed.port == port
    assert parse_uri("coap://198.51.100.1:61616//%2F//?%2F%2F&?%26").options == APPENDIX_B[-1][0]


def test_uris_that_mean_the_same():
    # RFC 7252 section 6.3
    same = ["coap://example.com:5683/~sensors/temp.xml", "coap://EXAMPLE.com/%7Esensors/temp.xml"]
    assert parse_uri(same[0]) == parse_uri(same[1]) == parse_uri("coap://EXAMPLE.com:/%7esensors/temp.xml")
    assert parse_uri("coaps://h").port == 5684
    assert parse_uri("coap://h?").options == ((3, b"h"), (15, b""))


@pytest.mark.parametrize(
    "uri",
    [
        "", "/a", "http://a/", "coap:/a", "coap:///a", "coap://h/#f", "coap://h/#", "coap://u@h/", "coap://h:0/",
        "coap://h:99999/", "coap://h:x/", "coap://[::1/", "coap://h/%ff", "coap://h/%2e%2e", "coap://h/" + "a" * 256,
        "coap://" + "a" * 256 + "/",
    ],
)  # fmt: skip
def test_bad_uris(uri):
    with pytest.raises(UriError):
        parse_uri(uri)


@pytest.mark.parametrize(
    ("uri", "segments", "arguments"),
    [
        ("coap://authority", [], []),
        ("coap://authority/", [], []),
        ("coap://authority/?", [], [b""]),
        ("coap://authority?", [], [b""]),
        ("coap://authority//", [b"", b""], []),
        ("coap://authority///", [b"", b"", b""], []),
        ("coap://authority/foo", [b"foo"], []),
        ("coap://authority/foo/", [b"foo", b""], []),
        ("coap://authority/foo/?a&", [b"foo", b""], [b"a", b""]),
    ],
)
def test_empty_segments_of_uris(uri, segments, arguments):
    """RFC 7252 section 6.4 with erratum 4895: a trailing slash is a segment, except right behind the authority."""
    options = parse_uri(uri).options
    assert [value for number, value in options if number == Option.URI_PATH] == segments
    assert [value for number, value in options if number == Option.URI_QUERY] == arguments
    if uri not in ("coap://authority", "coap://authority?"):
        assert compose_uri(options, "authority", 5683) == uri

"""Faults that made other implementations fail (CVE numbers and issues), replayed against a live engine.

`CASES` names for each the test that holds it, here or in the room whose fault it would be; classes of DTLS handshakes
(CVE-2025-65499, CVE-2022-2576, CVE-2022-39368, CVE-2021-34433, CVE-2020-27222, CVE-2017-7243, CVE-2021-42141,
CVE-2026-9267) belong to the tests of that room and are not listed.
"""

import ast
import re
from pathlib import Path

import pytest
from coap_lockstep import PEER, Lockstep, seeded

from vitalgate.coap import (
    Code,
    Endpoint,
    Limits,
    Message,
    MessageFormatError,
    Option,
    ResponseReceived,
    Site,
    Type,
    build_options,
    decode,
    encode,
)
from vitalgate.oscore.contexts import Contexts
from vitalgate.oscore.endpoint import Endpoint as OscoreEndpoint

ROOT = Path(__file__).parents[2]
HERE = "tests/coap/test_coap_cves.py"
CASES = {
    "CVE-2018-12679, CVE-2018-12680: CoAPthon, an exception that the decoder's caller does not expect": (
        f"{HERE}::test_no_bytes_raise_anything_out_of_the_engine"
    ),
    "CoAPthon#146: a token that is no UTF-8": f"{HERE}::test_a_token_that_is_no_text",
    "CVE-2020-12883 to -12887: mbed-coap, missing extension bytes, lengths past 65535, an option parsed twice": (
        f"{HERE}::test_option_headers_cut_off_at_every_byte"
    ),
    "CVE-2020-12886, -12887: a parser that does not advance": f"{HERE}::test_many_empty_options_are_read_once_each",
    "openthread#13578: 65535 + 12 wraps to Uri-Path": f"{HERE}::test_an_option_number_does_not_wrap",
    "contiki#2491: an option number indexes past a bitmap": f"{HERE}::test_every_option_number_is_judged",
    "CVE-2023-30362: libcoap, a diagnostic payload taken for a C string": f"{HERE}::test_diagnostic_payload_of_5_08",
    "CVE-2023-35862, CVE-2025-59391: libcoap, a credentials file": (
        "tests/gateway/test_enrolment_messages.py::test_any_bytes"
    ),
    "CVE-2025-34468: libcoap, a proxy target longer than 255 bytes": f"{HERE}::test_a_host_name_longer_than_255_bytes",
    "CVE-2026-29013: libcoap, an OSCORE message without payload": f"{HERE}::test_an_oscore_message_without_payload",
    "CVE-2021-34430: TinyDTLS, weak keys": f"{HERE}::test_nothing_on_the_wire_is_from_a_weak_generator",
    "CVE-2024-31029, FreeCoAP#38, #39: one datagram read over its end": (
        f"{HERE}::test_option_headers_cut_off_at_every_byte"
    ),
    "FreeCoAP#51: an HTTP chunk of FFFFFFFE bytes": (
        "tests/net/test_http_proxy_sockets.py::test_wrong_bytes_get_an_answer_or_the_door"
    ),
    "GHSA-p9hp-2jxm-6rqp: nanocoap, 4 bytes with token length 13 or 14": f"{HERE}::test_four_bytes_of_every_kind",
    "CVE-2026-27703: RIOT, long option values to /.well-known/core": f"{HERE}::test_long_queries_to_well_known_core",
    "CVE-2020-3162: Cisco IoT FND, a malformed message stops the server": (
        f"{HERE}::test_no_bytes_raise_anything_out_of_the_engine"
    ),
    "libcoap#2150: malformed acknowledgements and Resets answered": f"{HERE}::test_two_hosts_cannot_loop",
}


@pytest.mark.parametrize("case", CASES)
def test_every_class_has_its_test(case):
    file, _, name = CASES[case].partition("::")
    assert re.search(rf"^(async )?def {name}\(", (ROOT / file).read_text(), re.MULTILINE)


def serving(**kwargs) -> Lockstep:
    site = Site(randomness=seeded(1))
    site.add("t", lambda *_: Message(Code.CONTENT, (), b"22 C"), methods=[Code.GET], rt="temperature")
    return Lockstep(Endpoint(site=site, randomness=seeded(2), verify_addresses=False, **kwargs))


def alive(step: Lockstep) -> bool:
    """It still serves."""
    step.said()
    step.hears(encode(Message(Code.GET, build_options("t"), b"", Type.CON, 0xFFFF, b"alive")))
    return [decode(data).payload for data in step.said()] == [b"22 C"]


def test_no_bytes_raise_anything_out_of_the_engine():
    """Every first byte with every code, alone and before bytes that no decoder likes."""
    step = serving(limits=Limits(messages_per_peer=1 << 20))
    tails = (
        b"",
        b"\xff",
        b"\xb1\xff",
        b"\xf0",
        b"\xdd\xff\xff",
        b"\xee\xff\xff\xff\xff",
        b"\x00" * 9,
        bytes(range(64)),
    )
    for first in range(256):
        for code in range(256):
            for tail in tails[:: 1 if code in (0, 1, 69) else 3]:
                step.hears(bytes((first, code, 0, 1)) + tail)
        step.said()
    assert alive(step)


def test_a_token_that_is_no_text():
    step = serving()
    step.hears(encode(Message(Code.GET, build_options("t"), b"", Type.CON, 1, b"\xff\xfe\xc0\x80")))
    (data,) = step.said()
    assert decode(data).token == b"\xff\xfe\xc0\x80"


def test_option_headers_cut_off_at_every_byte():
    """All option headers with and without their extension bytes, the value never whole."""
    step = serving()
    for header in range(255):  # 0xFF is the payload marker
        for more in (b"", b"\xff", b"\xff\xff", b"\xff\xff\xff", b"\xff\xff\xff\xff", b"\xff" * 16):
            datagram = bytes((0x40, 1, 0, 1, header)) + more
            needed = _option_size(datagram[4:])
            step.hears(datagram)
            (answer,) = step.said()
            if needed is None or needed > len(datagram) - 4:
                assert answer.hex() == "70000001", "a message format error, nothing read beyond the end"
    assert alive(step)


def _option_size(data: bytes) -> int | None:
    # Bytes that one option takes, or None where its header is cut off or says nothing valid.
    delta, length = data[0] >> 4, data[0] & 15
    if 15 in (delta, length):
        return None
    extra = [{13: 1, 14: 2}.get(nibble, 0) for nibble in (delta, length)]
    if len(data) < 1 + sum(extra):
        return None
    value = data[1 + extra[0] : 1 + sum(extra)]
    size = int.from_bytes(value, "big") + {0: length, 1: 13, 2: 269}[extra[1]]
    return 1 + sum(extra) + size


def test_many_empty_options_are_read_once_each():
    step = serving()
    step.hears(bytes.fromhex("40010001") + bytes([0xB0]) + bytes(16000))
    (answer,) = step.said()
    assert decode(answer).code == Code.NOT_FOUND
    message = decode(bytes.fromhex("40010001") + bytes([0xB0]) + bytes(16000))
    assert len(message.options) == 16001
    assert alive(step)


def test_an_option_number_does_not_wrap():
    step = serving()
    for tail in ("e0fef2c0", "e0fef2c174", "e0fef2 d0ff", "e0fef3b174"):
        step.hears(bytes.fromhex("40010001" + tail.replace(" ", "")))
        step.says("70000001")
    assert step.count("coap_rejected", "option_number") == 4


def test_every_option_number_is_judged():
    """All 65,536, empty and with a value: refused or ignored, never a fault."""
    step = serving()
    for number in range(1, 65536):
        options = ((number, b""), (number, b"x" * 9)) if number % 7 == 0 else ((number, b"x" * (number % 3)),)
        step.hears(encode(Message(Code.GET, options, b"", Type.CON, number & 0xFF, b"")))
        (answer,) = step.said()
        code = decode(answer).code
        assert code >> 5 in (4, 5)
        if number & 1 and number > 292:
            assert code == Code.BAD_OPTION
    assert alive(step)


def test_diagnostic_payload_of_5_08():
    """A payload is bytes with a length: no terminator is looked for, none is missed."""
    for payload in (b"", b"\0", b"192.0.2.1", b"\xff\xfe", b"x" * 1000):
        step = serving()
        step.endpoint.request(Message(Code.GET, build_options("t")), PEER, step.now)
        request = decode(step.said()[0])
        step.hears(encode(Message(Code.HOP_LIMIT_REACHED, (), payload, Type.ACK, request.mid, request.token)))
        event = step.event()
        assert isinstance(event, ResponseReceived)
        assert event.response.payload == payload


@pytest.mark.parametrize("size", [255, 256, 1034, 1035, 16000])
def test_a_host_name_longer_than_255_bytes(size):
    step = serving()
    for options in (
        ((Option.URI_HOST, b"h" * size), (Option.URI_PATH, b"t")),
        ((Option.URI_HOST, b"h" * size), (Option.URI_PATH, b"t"), (Option.PROXY_SCHEME, b"coap")),
        ((Option.PROXY_URI, b"coap://" + b"h" * (size - 7)),),
    ):
        step.hears(encode(Message(Code.GET, options, b"", Type.CON, 1, b"")))
        (answer,) = step.said()
        assert decode(answer).code in (Code.CONTENT, Code.BAD_OPTION, Code.PROXYING_NOT_SUPPORTED)
        assert (decode(answer).code == Code.CONTENT) == (size == 255 and len(options) == 2)
        step.endpoint._core.peers.clear()


@pytest.mark.parametrize("value", [b"", b"\x09\x00", b"\x09\x14", b"\x19\x05\x00", b"\x00", b"\xff" * 255])
@pytest.mark.parametrize("code", [Code.POST, Code.FETCH, Code.GET, Code.CONTENT])
def test_an_oscore_message_without_payload(value, code):
    site = Site(randomness=seeded(1))
    site.add("t", lambda *_: Message(Code.CONTENT, (), b"22 C"), methods=[Code.GET], rt="temperature")
    endpoint = OscoreEndpoint(
        contexts=Contexts(), site=site, unprotected={("t",)}, randomness=seeded(3), verify_addresses=False
    )
    step = Lockstep(endpoint)
    step.hears(encode(Message(code, ((Option.OSCORE, value),), b"", Type.CON, 1, b"t")))
    (answer,) = step.said()
    assert decode(answer).code >> 5 in (0, 4)
    assert alive(step)


def test_nothing_on_the_wire_is_from_a_weak_generator():
    """Tokens, Message IDs, Echo keys, nonces, cookies: the rooms that make them know no module `random`."""
    for room in ("coap", "oscore", "dtls", "ipsec", "gateway", "cloud"):
        for path in (ROOT / "src" / "vitalgate" / room).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
                assert not {"random", "numpy.random"} & set(names), path
    asked = []

    def counting(size: int) -> bytes:
        asked.append(size)
        return seeded(len(asked))(size)

    step = Lockstep(Endpoint(randomness=counting))
    step.endpoint.request(Message(Code.GET), PEER, step.now)
    request = decode(step.said()[0])
    drawn = [seeded(number)(size) for number, size in enumerate(asked, 1)]
    assert request.token in drawn, "whole from the randomness given, which is os.urandom"
    assert request.mid.to_bytes(2, "big") in drawn


def test_four_bytes_of_every_kind():
    step = serving()
    for first in range(256):
        for code in (0, 1, 2, 69, 132, 255):
            step.hears(bytes((first, code, 0x12, 0x34)))
            for answer in step.said():
                assert len(answer) <= 4 + 1 + 20
    assert alive(step)


def test_long_queries_to_well_known_core():
    step = serving()
    core = build_options(".well-known/core")
    for query in (b"x" * 255, b"rt=" + b"t" * 252, b"=" * 255, b"rt=" + b"*" * 252, b"href=" + b"\xc3\xa9" * 125):
        step.hears(encode(Message(Code.GET, (*core, (Option.URI_QUERY, query)), b"", Type.CON, 1, b"")))
        (answer,) = step.said()
        assert decode(answer).code == Code.CONTENT
    for more in (((Option.URI_QUERY, b"x" * 256),), ((Option.URI_QUERY, b"x" * 15000),)):
        step.hears(encode(Message(Code.GET, (*core, *more), b"", Type.CON, 1, b"")))
        (answer,) = step.said()
        assert decode(answer).code == Code.BAD_OPTION
    many = tuple((Option.URI_QUERY, b"rt=temperature") for _ in range(1000))
    step.hears(encode(Message(Code.GET, (*core, *many), b"", Type.CON, 1, b"")))
    (answer,) = step.said()
    assert b"</t>" in decode(answer).payload


def test_two_hosts_cannot_loop():
    """What one of ours says to the other about something wrong is never answered in turn."""
    for first in range(256):
        for code in (0, 1, 0x20, 69, 255):
            for tail in (b"", b"\0", b"\xff"):
                one, other = serving(), serving()
                datagrams = [bytes((first, code, 0, 1)) + tail]
                for _ in range(4):
                    for data in datagrams:
                        one.hears(data)
                    datagrams = one.said()
                    one, other = other, one
                assert datagrams == []


def test_the_one_error_of_the_decoder():
    """No bytes make it raise anything else (property tests: test_coap_codec.py; coverage-guided: fuzz/)."""
    for first in range(256):
        for size in range(24):
            data = bytes([first, 1]) + bytes(range(256 - size, 256))
            try:
                decode(data)
            except MessageFormatError as error:
                assert error.reason  # noqa: PT017  # either outcome is right

"""RFC 8613 Appendix C, byte by byte."""

import struct

import pytest

from vitalgate.coap.message import Message
from vitalgate.coap.options import Option
from vitalgate.oscore.context import Parameters, SecurityContext, derive, info
from vitalgate.oscore.option import Header, decode, encode
from vitalgate.oscore.protect import protect_request, protect_response, unprotect_request, unprotect_response
from vitalgate.oscore.sequence import MemorySequenceStore

h = bytes.fromhex
SECRET = h("0102030405060708090a0b0c0d0e0f10")
SALT = h("9e7ca92223786340")

C1 = Parameters(SECRET, b"", b"\x01", SALT)
C2 = Parameters(SECRET, b"\x00", b"\x01")
C3 = Parameters(SECRET, b"", b"\x01", SALT, h("37cbf3210017a2d3"))


def context_at(parameters: Parameters, number: int) -> SecurityContext:
    """A context whose next sequence number is ``number``."""
    context = SecurityContext("peer", parameters, MemorySequenceStore(), fresh=True)
    for _ in range(number):
        context.sequence.next()
    return context


def parse(datagram: bytes) -> Message:
    """A reader of RFC 7252 section 3 that shares nothing with the code under test."""
    first, code, mid = struct.unpack_from(">BBH", datagram)
    at = 4 + (first & 15)
    options, number = [], 0
    while at < len(datagram) and datagram[at] != 0xFF:
        delta, length = datagram[at] >> 4, datagram[at] & 15
        at += 1
        if delta == 13:
            delta, at = datagram[at] + 13, at + 1
        if length == 13:
            length, at = datagram[at] + 13, at + 1
        number += delta
        options.append((number, datagram[at : at + length]))
        at += length
    return Message(code, tuple(options), datagram[at + 1 :], first >> 4 & 3, mid, datagram[4 : 4 + (first & 15)])


@pytest.mark.parametrize(
    ("parameters", "infos", "keys", "nonces"),
    [
        (
            C1,
            ("8540f60a634b657910", "854101f60a634b657910", "8540f60a6249560d"),
            ("f0910ed7295e6ad4b54fc793154302ff", "ffb14e093c94c9cac9471648b4f98710", "4622d4dd6d944168eefb54987c"),
            ("4622d4dd6d944168eefb54987c", "4722d4dd6d944169eefb54987c"),
        ),
        (
            C2,
            ("854100f60a634b657910", "854101f60a634b657910", "8540f60a6249560d"),
            ("321b26943253c7ffb6003b0b64d74041", "e57b5635815177cd679ab4bcec9d7dda", "be35ae297d2dace910c52e99f9"),
            ("bf35ae297d2dace910c52e99f9", "bf35ae297d2dace810c52e99f9"),
        ),
        (
            C3,
            (
                "85404837cbf3210017a2d30a634b657910",
                "8541014837cbf3210017a2d30a634b657910",
                "85404837cbf3210017a2d30a6249560d",
            ),
            ("af2a1300a5e95788b356336eeecd2b92", "e39a0c7c77b43f03b4b39ab9a268699f", "2ca58fb85ff1b81c0b7181b85e"),
            ("2ca58fb85ff1b81c0b7181b85e", "2da58fb85ff1b81d0b7181b85e"),
        ),
    ],
    ids=["C.1", "C.2", "C.3"],
)
@pytest.mark.parametrize("role", ["client", "server"])
def test_key_derivation(parameters, infos, keys, nonces, role):
    if role == "server":
        parameters = parameters.reversed()
        infos, keys, nonces = (infos[1], infos[0], infos[2]), (keys[1], keys[0], keys[2]), nonces[::-1]
    assert info(parameters, parameters.sender_id, "Key", 16) == h(infos[0])
    assert info(parameters, parameters.recipient_id, "Key", 16) == h(infos[1])
    assert info(parameters, b"", "IV", 13) == h(infos[2])
    derived = derive(parameters)
    assert (derived.sender_key, derived.recipient_key, derived.common_iv) == tuple(map(h, keys))
    context = context_at(parameters, 0)
    assert (context.sender.nonce(0), context.recipient.nonce(0)) == tuple(map(h, nonces))


def test_the_aad_of_section_5_4():
    context = context_at(C2, 0)
    assert context.sender.aad(b"\x25") == h("8368456e63727970743040498501810a4100412540")
    long = context_at(Parameters(SECRET, b"ABCDEFG", b"\x01"), 0).sender.aad(bytes(4) + b"\x01")
    # 19 bytes: no length of Sender ID and Partial IV leaves the one-byte head of a byte string.
    assert long == h("8368456e63727970743040") + h("538501810a") + b"\x47ABCDEFG" + h("45000000000140")


REQUESTS = [
    (
        C1,
        "44015d1f00003974396c6f63616c686f737483747631",
        "44025d1f00003974396c6f63616c686f7374620914ff612f1092f1776f1c1668b3825e",
    ),
    (
        C2,
        "440171c30000b932396c6f63616c686f737483747631",
        "440271c30000b932396c6f63616c686f737463091400ff4ed339a5a379b0b8bc731fffb0",
    ),
    (
        C3,
        "44012f8eef9bbf7a396c6f63616c686f737483747631",
        "44022f8eef9bbf7a396c6f63616c686f73746b19140837cbf3210017a2d3ff72cd7273fd331ac45cffbe55c3",
    ),
]


@pytest.mark.parametrize(("parameters", "plain", "protected"), REQUESTS, ids=["C.4", "C.5", "C.6"])
def test_requests(parameters, plain, protected):
    message, _ = protect_request(context_at(parameters, 20), parse(h(plain)))
    assert message == parse(h(protected))
    request, _ = unprotect_request(
        context_at(parameters.reversed(), 0), parse(h(protected)), decode(message.option(Option.OSCORE))
    )
    assert request == parse(h(plain))


@pytest.mark.parametrize(
    ("own_piv", "protected"),
    [
        (False, "64445d1f0000397490ffdbaad1e9a7e7b2a813d3c31524378303cdafae119106"),
        (True, "64445d1f00003974920100ff4d4c13669384b67354b2b6175ff4b8658c666a6cf88e"),
    ],
    ids=["C.7", "C.8"],
)
def test_responses(own_piv, protected):
    plain = parse(h("64455d1f00003974ff48656c6c6f20576f726c6421"))
    client, server = context_at(C1, 20), context_at(C1.reversed(), 0)
    message, sent = protect_request(client, parse(h(REQUESTS[0][1])))
    _, received = unprotect_request(server, message, decode(message.option(Option.OSCORE)))
    response = protect_response(server, received, plain, own_piv=own_piv)
    assert response == parse(h(protected))
    assert unprotect_response(client, sent, response) == plain


@pytest.mark.parametrize(
    ("header", "value"),
    [
        (Header(b"\x05", b"\x25"), "090525"),
        (Header(b"\x00", b""), "0900"),
        (Header(b"\x05", b"", h("44616c656b")), "19050544616c656b"),
        (Header(), ""),
        (Header(b"\x07"), "0107"),
    ],
)
def test_compressed_headers_of_section_6_3(header, value):
    assert encode(header) == h(value)
    assert decode(h(value)) == header

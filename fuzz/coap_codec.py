#!/usr/bin/env python3
"""Fuzzing of the message format: any bytes are a message or the one error, and what was understood is written back.

    python fuzz/coap_codec.py -max_total_time=60 NEW_INPUTS fuzz/corpus/coap_codec

The first folder takes what the fuzzer finds, further ones are only read; `docs/fuzzing.md` says more.
"""

import sys

import atheris

with atheris.instrument_imports(include=["vitalgate.coap"]):
    from vitalgate.coap import (
        Answer,
        Message,
        MessageFormatError,
        Type,
        Use,
        check_options,
        decode,
        decode_options,
        encode,
        encode_options,
        encode_payload,
    )
    from vitalgate.coap.blocks import decode_block
    from vitalgate.coap.options import OPTIONS, RFC7252_CRITICAL
    from vitalgate.coap.uri import UriError, compose_uri, parse_uri

HOST = "192.0.2.1"


def one_input(data: bytes) -> None:
    """One datagram through everything that reads it. Raises AssertionError where a promise is broken."""
    message = _decoded(data)
    if message is None:
        return
    numbers = [number for number, _ in message.options]
    assert numbers == sorted(numbers)
    assert all(0 <= number <= 65535 for number in numbers)
    assert len(message.token) <= 8
    again = encode(message)
    assert len(again) <= len(data), "extended forms that are longer than need be are read, never written"
    assert decode(again) == message
    assert decode_options(encode_options(message.options) + encode_payload(message.payload)) == (
        message.options,
        message.payload,
    )
    for use in (Use.REQUEST, Use.RESPONSE):
        kept, bad = check_options(message.options, use, RFC7252_CRITICAL)
        assert all(number & 1 for number in bad), "elective options are never bad"
        assert all(number in OPTIONS for number, _ in kept)
        assert check_options(kept, use, RFC7252_CRITICAL) == (kept, ())
        if use is Use.REQUEST and not bad:
            _uri_and_back(kept)


def _decoded(data: bytes) -> Message | None:
    try:
        return decode(data)
    except MessageFormatError as caught:
        error = caught
    assert error.reason
    assert (error.answer is Answer.RESET) == (error.type is Type.CON)
    return None


def _uri_and_back(options: tuple[tuple[int, bytes], ...]) -> None:
    uri = compose_uri(options, HOST, 5683)
    try:
        parsed = parse_uri(uri)
    except UriError:
        return  # options can say what no URI may: a Uri-Host with a space in it, a port of 0
    assert parse_uri(compose_uri(parsed.options, parsed.host, parsed.port)) == parsed
    for number, value in options:
        if number in (23, 27):
            assert decode_block(value).num < 1 << 20


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()

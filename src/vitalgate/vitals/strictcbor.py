"""CBOR from strangers (RFC 8949): exactly one item, of definite length, without doubled keys, hardly any tag, not deep.

Decoders with many built-in tags make dates, patterns, fractions, networks or cycles of what a peer sends; none of that
has a place in SenML, where only decimal fractions (tag 4) and the bignums within them occur (RFC 8428 section 6).
"""

import io
from typing import Any, Final, NoReturn

import cbor2


class CborError(ValueError):
    """Bytes that are not one CBOR item of the kind allowed here."""


def _refuse(value: object, immutable: bool) -> NoReturn:
    raise ValueError("a tag that has no place here")


_TAGS: Final = dict.fromkeys(
    (0, 1, 5, 25, 28, 29, 30, 35, 36, 37, 52, 54, 100, 256, 258, 260, 261, 1004, 43000, 55799), _refuse
)
_FAILURES: Final = (cbor2.CBORError, ValueError, TypeError, ArithmeticError, RecursionError, MemoryError)


def loads(data: bytes, *, max_depth: int, indefinite: bool = False) -> Any:
    """The one item that ``data`` holds, nested at most ``max_depth`` deep. Raises `CborError`.

    Of tags other than 4, 2 and 3 that the library does not know, `cbor2.CBORTag` remains for the caller to refuse.
    """
    stream = io.BytesIO(data)
    try:
        decoder = cbor2.CBORDecoder(
            stream,
            max_depth=max_depth,
            allow_indefinite=indefinite,
            allow_duplicate_keys=False,
            semantic_decoders=_TAGS,
        )
        item = decoder.decode()
    except _FAILURES as error:
        raise CborError("not CBOR, or more than is allowed here") from error
    if stream.tell() != len(data):
        raise CborError("bytes behind the item")
    return item

"""The one-time enrolment code: what the cloud shows, a person types, and a gateway proves to know.

A code is 36 symbols of Crockford's base 32 in six groups of six: a public identifier (8 symbols, 40 bits) that only
says which code is meant, a secret (26 symbols, 130 bits), and two check symbols. Because the secret is uniform and
longer than 128 bits, a MAC under it can be sent in the open: nobody finds it by trying, on line or off.

The check is the number of the first 34 symbols modulo 1021, a prime below 1024: it finds every single mistyped symbol
and every exchange of neighbours, because 1021 divides neither d * 32^k nor d * 31 * 32^k for 0 < |d| < 32.

The cloud stores the *code key* (HKDF of the secret), never the code.
"""

import os
from dataclasses import dataclass, field
from typing import Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from vitalgate.engine import Randomness

ALPHABET: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
CODE_ID_BYTES: Final = 5
_ID_SYMBOLS: Final = 8
_SECRET_SYMBOLS: Final = 26
_CHECK_SYMBOLS: Final = 2
_SYMBOLS: Final = _ID_SYMBOLS + _SECRET_SYMBOLS + _CHECK_SYMBOLS
_GROUP: Final = 6
_CHECK_MODULUS: Final = 1021
_SECRET_BITS: Final = 5 * _SECRET_SYMBOLS
_SECRET_BYTES: Final = (_SECRET_BITS + 7) // 8
_LENIENT: Final = {**{symbol: value for value, symbol in enumerate(ALPHABET)}, "O": 0, "I": 1, "L": 1}
_MAX_TEXT: Final = 4 * _SYMBOLS


class CodeError(ValueError):
    """Text that is no enrolment code: mistyped or incomplete. The text itself is never part of the message."""


def _symbols(number: int, count: int) -> str:
    return "".join(ALPHABET[number >> 5 * at & 31] for at in reversed(range(count)))


@dataclass(frozen=True, slots=True)
class EnrolmentCode:
    """A code: ``code_id`` (5 bytes, public) and ``secret`` (130 bits in 17 bytes, big-endian, never shown by repr)."""

    code_id: bytes
    secret: bytes = field(repr=False)

    @classmethod
    def create(cls, randomness: Randomness = os.urandom) -> "EnrolmentCode":
        """A fresh code."""
        secret = int.from_bytes(randomness(_SECRET_BYTES), "big") >> 8 * _SECRET_BYTES - _SECRET_BITS
        return cls(randomness(CODE_ID_BYTES), secret.to_bytes(_SECRET_BYTES, "big"))

    @classmethod
    def from_text(cls, text: str) -> "EnrolmentCode":
        """Read what was typed: either case, O for 0, I and L for 1, blanks and hyphens ignored. Raises `CodeError`."""
        if len(text) > _MAX_TEXT:
            raise CodeError("an enrolment code has 36 symbols in six groups; this text is far longer")
        bare = [symbol for symbol in text.upper() if symbol not in "- \t\r\n"]
        if len(bare) != _SYMBOLS:
            raise CodeError(f"an enrolment code has 36 symbols in six groups; {len(bare)} were given")
        number = 0
        for position, symbol in enumerate(bare):
            if symbol not in _LENIENT:
                raise CodeError(f"symbol {position + 1} of the enrolment code is none that codes use")
            number = number << 5 | _LENIENT[symbol]
        body, check = number >> 5 * _CHECK_SYMBOLS, number & (1 << 5 * _CHECK_SYMBOLS) - 1
        if body % _CHECK_MODULUS != check:
            raise CodeError("the enrolment code was mistyped: its check symbols do not match")
        secret = body & (1 << _SECRET_BITS) - 1
        return cls((body >> _SECRET_BITS).to_bytes(CODE_ID_BYTES, "big"), secret.to_bytes(_SECRET_BYTES, "big"))

    def text(self) -> str:
        """The code as it is shown, once: ``XXXXXX-XXXXXX-XXXXXX-XXXXXX-XXXXXX-XXXXXX``."""
        body = int.from_bytes(self.code_id, "big") << _SECRET_BITS | int.from_bytes(self.secret, "big")
        symbols = _symbols(body, _ID_SYMBOLS + _SECRET_SYMBOLS) + _symbols(body % _CHECK_MODULUS, _CHECK_SYMBOLS)
        return "-".join(symbols[at : at + _GROUP] for at in range(0, _SYMBOLS, _GROUP))

    def key(self) -> bytes:
        """The code key, 32 bytes: what both sides use and the cloud stores. One-way from the secret."""
        return HKDF(hashes.SHA256(), 32, self.code_id, b"vitalgate enrolment code 1").derive(self.secret)


def code_id_text(code_id: bytes) -> str:
    """A code's public identifier as listings show it: the code's first eight symbols."""
    return _symbols(int.from_bytes(code_id, "big"), _ID_SYMBOLS)

"""RC5 with 32-bit words in CBC mode (RFC 2040): legacy, and the one cipher that no library has.

It is slow and not constant in time; its row in the table is refused unless legacy algorithms are allowed.
"""

import struct
from typing import Final

BLOCK: Final = 8
ROUNDS: Final = 16
"""What ESP uses (RFC 2451 section 2.5)."""
_WORD: Final = 0xFFFFFFFF
_P: Final = 0xB7E15163
_Q: Final = 0x9E3779B9
_WORDS: Final = struct.Struct("<II")


def _rotate(value: int, by: int) -> int:
    by &= 31
    return (value << by | value >> (32 - by)) & _WORD


def expand(key: bytes, rounds: int) -> tuple[int, ...]:
    """The expanded key table: 2 * (rounds + 1) words (RFC 2040 section 4)."""
    padded = key + bytes(-len(key) % 4) or bytes(4)
    words = list(struct.unpack(f"<{len(padded) // 4}I", padded))
    size = 2 * (rounds + 1)
    table = [(_P + _Q * i) & _WORD for i in range(size)]
    i = j = a = b = 0
    for _ in range(3 * max(size, len(words))):
        a = table[i] = _rotate((table[i] + a + b) & _WORD, 3)
        b = words[j] = _rotate((words[j] + a + b) & _WORD, a + b)
        i, j = (i + 1) % size, (j + 1) % len(words)
    return tuple(table)


class RC5:
    """One key made ready. IVs are 8 bytes, data whole blocks of 8."""

    __slots__ = ("_table",)

    def __init__(self, key: bytes, rounds: int = ROUNDS) -> None:
        self._table = expand(key, rounds)

    def encrypt(self, iv: bytes, data: bytes) -> bytes:
        """CBC encryption without padding."""
        table = self._table
        left, right = _WORDS.unpack(iv)
        out = []
        for one, two in _WORDS.iter_unpack(data):
            a, b = ((one ^ left) + table[0]) & _WORD, ((two ^ right) + table[1]) & _WORD
            for at in range(2, len(table), 2):
                a = (_rotate(a ^ b, b) + table[at]) & _WORD
                b = (_rotate(b ^ a, a) + table[at + 1]) & _WORD
            left, right = a, b
            out.append(_WORDS.pack(a, b))
        return b"".join(out)

    def decrypt(self, iv: bytes, data: bytes) -> bytes:
        """CBC decryption."""
        table = self._table
        left, right = _WORDS.unpack(iv)
        out = []
        for one, two in _WORDS.iter_unpack(data):
            a, b = one, two
            for at in range(len(table) - 2, 0, -2):
                b = _rotate((b - table[at + 1]) & _WORD, 32 - (a & 31)) ^ a
                a = _rotate((a - table[at]) & _WORD, 32 - (b & 31)) ^ b
            b, a = (b - table[1]) & _WORD, (a - table[0]) & _WORD
            out.append(_WORDS.pack(a ^ left, b ^ right))
            left, right = one, two
        return b"".join(out)

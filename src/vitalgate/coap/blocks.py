"""The Block options' value and what makes messages parts of one block-wise transfer (RFC 7959, RFC 9175 section 3)."""

from typing import NamedTuple

from vitalgate.coap.message import Message, Options
from vitalgate.coap.options import Option, decode_uint, encode_uint, is_no_cache_key

MAX_SZX = 6
RESERVED_SZX = 7
MAX_NUM = (1 << 20) - 1
BLOCK_OPTIONS = frozenset((int(Option.BLOCK1), int(Option.BLOCK2)))
NOT_IN_KEY = frozenset(
    (
        Option.ETAG, Option.IF_NONE_MATCH, Option.OBSERVE, Option.CONTENT_FORMAT, Option.BLOCK2, Option.BLOCK1,
        Option.SIZE2, Option.SIZE1, Option.ECHO, Option.NO_RESPONSE,
    )
)  # fmt: skip
"""Options that may differ between the requests of one transfer: those that describe the block or the exchange,
conditions that belong to the first request, and Content-Format, whose change has an answer of its own (4.08)."""


class Block(NamedTuple):
    """A Block1 or Block2 value (RFC 7959 section 2.2): block number, more blocks follow, size exponent."""

    num: int
    more: bool
    szx: int

    @property
    def size(self) -> int:
        """Bytes in a block."""
        return 16 << self.szx

    @property
    def offset(self) -> int:
        """Where the block starts in the body, in bytes."""
        return self.num << (self.szx + 4)

    def encode(self) -> bytes:
        """The option's value."""
        return encode_uint(self.num << 4 | self.more << 3 | self.szx)


def decode_block(value: bytes) -> Block:
    """The block of an option's value (0 to 3 bytes)."""
    number = decode_uint(value)
    return Block(number >> 4, bool(number & 8), number & 7)


def block_option(message: Message, number: int) -> Block | None:
    """The block of option ``number`` of ``message``, or None."""
    value = message.option(number)
    return None if value is None else decode_block(value)


def szx_of(size: int) -> int:
    """The exponent of a block size in bytes. ValueError for what is none of 16, 32 .. 1024."""
    szx = size.bit_length() - 5
    if not 0 <= szx <= MAX_SZX or size != 16 << szx:
        raise ValueError(f"a block size is a power of two from 16 to 1024, not {size}")
    return szx


def without_options(options: Options, numbers: frozenset[int]) -> Options:
    """``options`` without any of ``numbers``."""
    return tuple(pair for pair in options if pair[0] not in numbers)


def transfer_key(code: int, options: Options) -> tuple[int, Options]:
    """What the requests of one transfer have in common besides their endpoints: the method and every option but those
    that may differ (RFC 7959 sections 2.4, 2.5); Request-Tags are among them (RFC 9175 section 3.3)."""
    return code, tuple(pair for pair in options if pair[0] not in NOT_IN_KEY and not is_no_cache_key(pair[0]))

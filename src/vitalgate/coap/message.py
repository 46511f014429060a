"""`Message`, codes and types of RFC 7252 section 3, shared by every CoAP layer."""

import enum
from dataclasses import dataclass


class Type(enum.IntEnum):
    """Message types (RFC 7252 section 3)."""

    CON = 0
    NON = 1
    ACK = 2
    RST = 3


class Code(enum.IntEnum):
    """Request and response codes as class * 32 + detail (RFC 7252 section 12.1, 8132, 8516, 8768, 9175)."""

    EMPTY = 0
    GET = 1
    POST = 2
    PUT = 3
    DELETE = 4
    FETCH = 5
    PATCH = 6
    IPATCH = 7
    CREATED = 0x41
    DELETED = 0x42
    VALID = 0x43
    CHANGED = 0x44
    CONTENT = 0x45
    CONTINUE = 0x5F
    BAD_REQUEST = 0x80
    UNAUTHORIZED = 0x81
    BAD_OPTION = 0x82
    FORBIDDEN = 0x83
    NOT_FOUND = 0x84
    METHOD_NOT_ALLOWED = 0x85
    NOT_ACCEPTABLE = 0x86
    REQUEST_ENTITY_INCOMPLETE = 0x88
    CONFLICT = 0x89
    PRECONDITION_FAILED = 0x8C
    REQUEST_ENTITY_TOO_LARGE = 0x8D
    UNSUPPORTED_CONTENT_FORMAT = 0x8F
    UNPROCESSABLE_ENTITY = 0x96
    TOO_MANY_REQUESTS = 0x9D
    INTERNAL_SERVER_ERROR = 0xA0
    NOT_IMPLEMENTED = 0xA1
    BAD_GATEWAY = 0xA2
    SERVICE_UNAVAILABLE = 0xA3
    GATEWAY_TIMEOUT = 0xA4
    PROXYING_NOT_SUPPORTED = 0xA5
    HOP_LIMIT_REACHED = 0xA8


def code_text(code: int) -> str:
    """A code as people write it: 69 is '2.05'."""
    return f"{code >> 5}.{code & 31:02d}"


def is_request(code: int) -> bool:
    """True for method codes 0.01 to 0.31."""
    return 0 < code < 32


def is_response(code: int) -> bool:
    """True for response codes of classes 2, 4 and 5."""
    return code >> 5 in (2, 4, 5)


Options = tuple[tuple[int, bytes], ...]
"""(number, value) pairs in ascending order of number; repeated options keep their order."""


@dataclass(slots=True, repr=False)
class Message:
    """A CoAP message apart from its version. ``options`` are sorted by number; ``type``, ``mid`` and ``token`` are the
    message layer's to fill, so an application leaves them at their defaults."""

    code: int
    options: Options = ()
    payload: bytes = b""
    type: int = Type.CON
    mid: int = 0
    token: bytes = b""

    def option(self, number: int) -> bytes | None:
        """The first value of option ``number``, or None."""
        for found, value in self.options:
            if found == number:
                return value
        return None

    def all(self, number: int) -> list[bytes]:
        """Every value of option ``number`` in order."""
        return [value for found, value in self.options if found == number]

    def __repr__(self) -> str:
        # Sizes and numbers only: values may be a patient's data or a secret, and a repr ends in logs.
        numbers = ",".join(str(int(number)) for number, _ in self.options)
        return (
            f"Message({code_text(self.code)} {Type(self.type).name} mid={self.mid} "
            f"token={self.token.hex()} options=[{numbers}] payload={len(self.payload)}B)"
        )

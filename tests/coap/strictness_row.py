"""One row of the strictness table, how its datagrams are written, and the rows that come in families.

A datagram is written as hexadecimal bytes, "text" for its ASCII bytes, `{mid}` and `{token}` for those of a request of
ours that is under way, and `????` for a Message ID that the engine chooses.
"""

from collections.abc import Iterator
from dataclasses import dataclass

SILENCE = ""
RESET = "70 00 1234"

# What the engine is doing when the datagram comes
SERVER = "server"
EXTENDED = "server, max_token_length 300"
MULTICAST = "server, sent to a group"
CON_REQUEST = "client, CON request under way"
NON_REQUEST = "client, NON request under way"
ACKNOWLEDGED = "client, CON request acknowledged"

# What becomes of a request of ours
GOES_ON = "request goes on"
ANSWERED = "request answered"
REJECTED = "request fails: rejected"
RESET_BY_PEER = "request fails: reset"

KINDS = ("CON", "NON", "ACK", "RST")


@dataclass(frozen=True, slots=True)
class Row:
    """``counted``: every counter that rises, by one each. ``answer``: the one datagram sent, or silence."""

    group: str
    what: str
    given: str
    answer: str
    counted: tuple[str, ...]
    source: str
    setting: str = SERVER
    then: str = ""


def rejected(reason: str) -> tuple[str, ...]:
    """A message that was wrong."""
    return (f"coap_rejected{{{reason}}}",)


def error(code: str, *more: str) -> tuple[str, ...]:
    """An error response of the layer itself."""
    return (*more, f"coap_errors_sent{{{code}}}")


def first(kind: str, token_length: int = 0) -> str:
    """The first byte of a message."""
    return f"{0x40 | KINDS.index(kind) << 4 | token_length:02x}"


def malformed(group: str, what: str, rest: str, reason: str, source: str, token_length: int = 0) -> Iterator[Row]:
    """A message format error: Reset to a Confirmable message, silence to any other (sections 4.2, 4.3)."""
    for kind in KINDS:
        yield Row(
            group, f"{kind}: {what}", f"{first(kind, token_length)} 01 1234 {rest}".strip(),
            RESET if kind == "CON" else SILENCE, rejected(reason), f"{source}, 4.2, 4.3",
        )  # fmt: skip


def refused(
    group: str, what: str, options: str, code: str, source: str, payload: str = "", *more: str
) -> Iterator[Row]:
    """A request that gets an error response: piggybacked to a Confirmable one, else Non-confirmable."""
    digits = f"{int(code[0]) << 5 | int(code[2:]):02x}"
    tail = f" ff {payload}" if payload else ""
    for kind, head in (("CON", f"61 {digits} 1234 aa"), ("NON", f"51 {digits} ???? aa")):
        yield Row(
            group, f"{kind}: {what}", f"{first(kind, 1)} 01 1234 aa {options}", head + tail, error(code, *more), source
        )


def bad_option(group: str, what: str, options: str, number: int, source: str) -> Iterator[Row]:
    """A request with a critical option that cannot be heeded: 4.02 with its number."""
    yield from refused(group, what, options, "4.02", source, f'"option {number}"', *rejected("bad_option"))


def served(group: str, what: str, options: str, source: str) -> Iterator[Row]:
    """A request that is served in spite of it."""
    for kind, head in (("CON", "61 45 1234 aa"), ("NON", "51 45 ???? aa")):
        yield Row(
            group, f"{kind}: {what}", f"{first(kind, 1)} 01 1234 aa {options}", f'{head} ff "22 C"',
            ("coap_requests_received",), source,
        )  # fmt: skip


def option(number: int, length: int, previous: int = 0) -> str:
    """An option of ``length`` bytes "0", written in hexadecimal."""
    delta = number - previous

    def extend(value: int) -> tuple[int, str]:
        if value < 13:
            return value, ""
        return (13, f"{value - 13:02x}") if value < 269 else (14, f"{value - 269:04x}")

    (a, b), (c, d) = extend(delta), extend(length)
    return f"{a << 4 | c:02x}{b}{d}{'30' * length}"


def datagram(text: str, **known: bytes) -> bytes:
    """The bytes of the notation; `????` is b'????' and ``known`` are `{mid}` and `{token}`."""
    out = b""
    for number, part in enumerate(text.split('"')):
        if number & 1:
            out += part.encode()
            continue
        for word in part.split():
            if word == "????":
                out += b"????"[:2]
            elif word.startswith("{"):
                out += known[word[1:-1]]
            else:
                out += bytes.fromhex(word)
    return out

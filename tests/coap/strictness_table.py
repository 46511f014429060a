"""Every way in which a datagram can be wrong, and what exactly is done about it: one table.

`test_coap_strictness.py` plays each row against a live engine; ``python tests/coap/strictness_table.py`` prints the
document `docs/coap-strictness.md`, which that test holds equal to it.
"""

from collections.abc import Iterator

from strictness_responses import responses
from strictness_row import (
    EXTENDED,
    KINDS,
    MULTICAST,
    RESET,
    SERVER,
    SILENCE,
    Row,
    bad_option,
    error,
    first,
    malformed,
    option,
    refused,
    rejected,
    served,
)

from vitalgate.coap.options import OPTIONS, Option, OptionRow, Use


def header() -> Iterator[Row]:
    """Datagrams that are no message, and token lengths."""
    group = "Header and token"
    section = "RFC 7252 section 3"
    for given in ("", "40", "40 01", "40 01 12"):
        yield Row(group, f"{len(given.split())} bytes", given, SILENCE, rejected("short"), section)
    for version in (0, 2, 3):
        yield Row(
            group, f"CON: version {version}", f"{version << 6:02x} 01 1234", SILENCE, rejected("version"), section
        )
    for length in range(9, 16):
        token = "00" * length
        yield from malformed(
            group, f"token length {length}, the bytes there", token, "token_length", f"{section}; RFC 8974 2.1", length
        )
    for length in (9, 13, 14, 15):
        yield from malformed(group, f"token length {length}, nothing there", "", "token_length", section, length)
    for length, there in ((1, ""), (8, "00" * 7)):
        yield from malformed(group, f"token of {length} cut off", there, "truncated", section, length)


def extended_tokens() -> Iterator[Row]:
    """RFC 8974, where a server was told to take longer tokens."""
    group = "Extended tokens (max_token_length 300)"
    source = "RFC 8974 section 2.1"
    tail, answer = "b1 74", 'ff "22 C"'

    def row(what: str, given: str, reply: str, counted: tuple[str, ...], more: str = "") -> Row:
        return Row(group, what, given, reply, counted, source + more, EXTENDED)

    run = ("coap_requests_received",)
    for size, field in ((9, ""), (12, ""), (13, "00"), (268, "ff"), (269, "0000"), (300, "001f")):
        nibble = size if size < 13 else 13 if size < 269 else 14
        token = "ab" * size
        yield row(
            f"CON: token of {size}", f"{first('CON', nibble)} 01 1234 {field} {token} {tail}",
            f"{first('ACK', nibble)} 45 1234 {field} {token} {answer}", run,
        )  # fmt: skip
    for what, given, reason in (
        ("token of 301", f"4e 01 1234 0020 {'ab' * 301} {tail}", "token_length"),
        ("token of 65804 announced", "4e 01 1234 feff", "token_length"),
        ("token length 15", f"4f 01 1234 {'00' * 15}", "token_length"),
        ("token length 13, its byte missing", "4d 01 1234", "truncated"),
        ("token length 14, a byte missing", "4e 01 1234 00", "truncated"),
        ("token of 13 cut off", f"4d 01 1234 00 {'ab' * 12}", "truncated"),
    ):
        yield row(f"CON: {what}", given, RESET, rejected(reason), "; RFC 7252 4.2")
        yield row(f"NON: {what}", f"5{given[1:]}", SILENCE, rejected(reason), "; RFC 7252 4.3")


def empty_messages() -> Iterator[Row]:
    """Code 0.00."""
    group = "Empty messages"
    source = "RFC 7252 section 4.1"
    yield Row(group, "CON: ping", "40 00 1234", RESET, ("coap_pings",), "RFC 7252 section 4.3")
    yield Row(group, "NON", "50 00 1234", SILENCE, rejected("empty_non"), "RFC 7252 sections 4.2, 4.3, table 1")
    yield Row(
        group, "ACK of nothing", "60 00 1234", SILENCE, rejected("unexpected_acknowledgement"), "RFC 7252 section 4.2"
    )
    yield Row(group, "RST of nothing", "70 00 1234", SILENCE, rejected("unexpected_reset"), "RFC 7252 section 4.2")
    for what, length, rest in (
        ("a token", 1, "00"), ("an option", 0, "b1 74"), ("a marker", 0, "ff"), ("a payload", 0, "ff 00"),
    ):  # fmt: skip
        for kind in KINDS:
            yield Row(
                group, f"{kind} with {what}", f"{first(kind, length)} 00 1234 {rest}",
                RESET if kind == "CON" else SILENCE, rejected("empty_with_data"), f"{source}, 4.2, 4.3",
            )  # fmt: skip
    yield Row(
        group, "CON: token length 1, no token", "41 00 1234", RESET, rejected("empty_with_data"), f"{source}, 4.2"
    )


def option_format() -> Iterator[Row]:
    """Options and payloads that cannot be read."""
    group = "Format of options and payload"
    section = "RFC 7252 section 3"
    one = f"{section}.1"
    yield from malformed(group, "marker without payload", "ff", "payload_empty", section)
    yield from malformed(group, "marker without payload behind an option", "b1 74 ff", "payload_empty", section)
    yield from malformed(group, "delta 15 that is no marker", "f1 74", "option_delta", one)
    yield from malformed(group, "length 15", "0f" + "00" * 15, "option_length", one)
    yield from malformed(group, "delta 13, its byte missing", "d0", "option_delta", one)
    yield from malformed(group, "delta 14, both bytes missing", "e0", "option_delta", one)
    yield from malformed(group, "delta 14, a byte missing", "e0 00", "option_delta", one)
    yield from malformed(group, "length 13, its byte missing", "0d", "option_length", one)
    yield from malformed(group, "length 14, both bytes missing", "0e", "option_length", one)
    yield from malformed(group, "length 14, a byte missing", "0e 00", "option_length", one)
    yield from malformed(group, "delta there, length's bytes missing", "de 00", "option_length", one)
    yield from malformed(group, "value cut off", "b2 74", "truncated", one)
    yield from malformed(group, "no value at all", "b1", "truncated", one)
    yield from malformed(group, "length 65804, 16 bytes there", "0e ffff" + "00" * 16, "truncated", one)
    yield from malformed(group, "number 65536", "e0 fef3", "option_number", f"{one}, 12.2")
    yield from malformed(group, "number 65804", "e0 ffff", "option_number", f"{one}, 12.2")
    yield from malformed(group, "number 65535 + 12, 11 if it wrapped", "e0 fef2 c0", "option_number", f"{one}, 12.2")


def critical_options() -> Iterator[Row]:
    """Requests with options that are not understood, repeated or of the wrong length."""
    group = "Unrecognised options in requests"
    source = "RFC 7252 section 5.4.1 as updated for NON"
    for number in (2049, 65001, 65535):
        yield from bad_option(group, f"critical {number}", f"b1 74 {option(number, 0, 11)}", number, source)
    yield from bad_option(group, "critical 13 behind a served path", "b1 74 20", 13, source)
    yield from bad_option(group, "OSCORE, without that layer", "90 21 74", 9, f"{source}; RFC 8613 section 2")
    yield from bad_option(group, "Q-Block1, not served", "b1 74 80", 19, f"{source}; RFC 9177 section 4.1")
    for what, options, number in (("If-Match", "10 a1 74", 1), ("If-None-Match", "50 61 74", 5)):
        heed = "RFC 7252 sections 5.10.8, 5.4.1"
        yield from refused(group, f"{what}, not heeded by the resource", options, "4.02", heed, f'"option {number}"')
    for number in (10, 2050, 65000, 65534):
        at = f"{option(number, 1)} 11 74" if number < 11 else f"b1 74 {option(number, 1, 11)}"
        yield from served(group, f"elective {number}", at, "RFC 7252 section 5.4.1")
    yield from served(group, "elective Location-Path, a response's", "81 61 31 74", "RFC 7252 section 5.4")
    yield from served(group, "elective Max-Age, a response's", "b1 74 31 05", "RFC 7252 section 5.4")
    group = "Repeated options in requests"
    source = "RFC 7252 section 5.4.5"
    yield from bad_option(group, "Uri-Host twice", "31 61 01 62 81 74", 3, source)
    yield from bad_option(group, "Uri-Port twice", "71 01 01 02 41 74", 7, source)
    yield from bad_option(group, "Accept twice", "b1 74 60 00", 17, source)
    yield from bad_option(group, "If-None-Match twice", "50 00 61 74", 5, source)
    yield from bad_option(group, "Block2 twice", "b1 74 c0 00", 23, f"{source}; RFC 7959 section 2.1")
    yield from bad_option(group, "Block1 twice", "b1 74 d003 00", 27, f"{source}; RFC 7959 section 2.1")
    yield from bad_option(group, "Proxy-Uri twice", "d116 61 01 62", 35, source)
    yield from served(group, "Content-Format twice: the second is dropped", "b1 74 10 00", source)
    yield from served(group, "Size1 twice: the second is dropped", "b1 74 d024 00", source)
    group = "Lengths of options in requests"
    for row in OPTIONS.values():
        if Use.REQUEST in row.use and row.number not in NEEDS_A_LAYER:
            yield from wrong_lengths(group, row)
    group = "Text in requests"
    text = "RFC 7252 sections 3.2, 5.4.3; RFC 3629"
    yield from bad_option(group, "Uri-Host, not UTF-8", "31 ff 81 74", 3, text)
    yield from bad_option(group, "Uri-Path, not UTF-8", "b1 ff", 11, text)
    yield from bad_option(group, "Uri-Path, a surrogate", "b3 eda080", 11, text)
    yield from bad_option(group, "Uri-Path, an overlong form", "b2 c0af", 11, text)
    yield from bad_option(group, "Uri-Query, not UTF-8", "b1 74 41 fe", 15, text)
    yield from bad_option(group, 'Uri-Path "."', "b1 2e 01 74", 11, "RFC 7252 section 5.10.1")
    yield from bad_option(group, 'Uri-Path ".."', "b1 74 02 2e2e", 11, "RFC 7252 section 5.10.1")
    yield from bad_option(group, "Proxy-Uri, not UTF-8", "d116 ff", 35, text)
    yield from served(group, "token, not UTF-8 (a token is no text)", "b1 74", "RFC 7252 section 5.3.1")


NEEDS_A_LAYER = frozenset(
    (Option.OSCORE, Option.Q_BLOCK1, Option.Q_BLOCK2, Option.EDHOC, Option.IF_MATCH, Option.IF_NONE_MATCH)
)
"""Critical whatever their length here; rows of their own above."""


def wrong_lengths(group: str, row: OptionRow) -> Iterator[Row]:
    """One byte too few and too many: as if unrecognised (section 5.4.3)."""
    for length in (row.min - 1, row.max + 1):
        if length < 0:
            continue
        if row.number < Option.URI_PATH:
            options = f"{option(row.number, length)} {option(Option.URI_PATH, 0, row.number)[0]}1 74"
        elif row.number == Option.URI_PATH:
            options = option(row.number, length)
        else:
            options = f"b1 74 {option(row.number, length, Option.URI_PATH)}"
        what = f"{row.name} of {length} bytes"
        source = "RFC 7252 section 5.4.3"
        if row.critical:
            yield from bad_option(group, what, options, row.number, source)
        else:
            yield from served(group, what, options, source)


def methods() -> Iterator[Row]:
    """Requests that are right and cannot be served."""
    group = "Requests that are not served"
    for detail in (8, 15, 31):
        for kind, head in (("CON", "60 85 1234"), ("NON", "50 85 ????")):
            yield Row(
                group, f"{kind}: method 0.{detail:02d}", f"{first(kind)} {detail:02x} 1234 b1 74", head, error("4.05"),
                "RFC 7252 section 5.8; corr-clar 5.8",
            )  # fmt: skip
    yield Row(
        group,
        "CON: DELETE of a resource without it",
        "40 04 1234 b1 74",
        "60 85 1234",
        error("4.05"),
        "RFC 7252 section 5.8",
    )
    yield from refused(group, "no such path", 'b1 "x"', "4.04", "RFC 7252 section 5.9.2.5")
    yield from refused(
        group, "Proxy-Uri", 'd70a16 "coap://x"'.replace("d70a16", "d816"), "5.05", "RFC 7252 section 5.7.2"
    )
    yield from refused(group, "Proxy-Scheme", '31 "x" d417 "coap"', "5.05", "RFC 7252 section 5.7.2")
    yield from refused(group, "Accept of a format that is not there", "b1 74 61 32", "4.06", "RFC 7252 section 5.10.4")


def matrix() -> Iterator[Row]:
    """Types and codes that do not go together (RFC 7252 table 1); requests, responses and empty messages above."""
    group = "Types and codes"
    source = "RFC 7252 sections 4.2, 4.3, table 1"
    for code, name in ((0x20, "1.00"), (0x3F, "1.31"), (0x60, "3.00"), (0x7F, "3.31"), (0xC0, "6.00"), (0xFF, "7.31")):
        for kind in KINDS:
            yield Row(
                group, f"{kind} {name}", f"{first(kind)} {code:02x} 1234", RESET if kind == "CON" else SILENCE,
                rejected("reset_with_code" if kind == "RST" else "reserved_code"), source,
            )  # fmt: skip
    for code, name in ((0x01, "request"), (0x1F, "request with unknown method")):
        yield Row(group, f"ACK {name}", f"60 {code:02x} 1234", SILENCE, rejected("reserved_code"), source)
        yield Row(group, f"RST {name}", f"70 {code:02x} 1234", SILENCE, rejected("reset_with_code"), source)
    for code, name in ((0x40, "2.00"), (0x45, "2.05"), (0x84, "4.04"), (0xBF, "5.31")):
        what = "a response nobody asked for"
        own = "RFC 7252 section 5.3.2"
        yield Row(group, f"CON {name}: {what}", f"40 {code:02x} 1234", RESET, rejected("unexpected_response"), own)
        yield Row(group, f"NON {name}: {what}", f"50 {code:02x} 1234", RESET, rejected("unexpected_response"), own)
        yield Row(
            group, f"ACK {name}: {what}", f"60 {code:02x} 1234", SILENCE, rejected("unexpected_acknowledgement"),
            "RFC 7252 section 4.2",
        )  # fmt: skip
        yield Row(group, f"RST {name}", f"70 {code:02x} 1234", SILENCE, rejected("reset_with_code"), source)


def groups() -> Iterator[Row]:
    """What was sent to a group: never a Reset message, no error response (RFC 7252 sections 8.1, 8.2)."""
    group = "Sent to a group"
    source = "RFC 7252 sections 8.1, 8.2"
    for what, given, reason in (
        ("CON request", "40 01 1234 b1 74", "group_confirmable"),
        ("CON ping", "40 00 1234", "group_no_request"),
        ("NON, empty", "50 00 1234", "group_no_request"),
        ("ACK", "60 00 1234", "group_no_request"),
        ("RST", "70 00 1234", "group_no_request"),
        ("CON response", "40 45 1234", "group_no_request"),
        ("NON response", "50 45 1234", "group_no_request"),
        ("NON, reserved class", "50 c0 1234", "group_no_request"),
        ("CON, token length 9", f"49 01 1234 {'00' * 9}", "token_length"),
        ("NON, marker without payload", "50 01 1234 b1 74 ff", "payload_empty"),
        ("CON, number past 65535", "40 01 1234 e0 ffff", "option_number"),
        ("3 bytes", "50 01 12", "short"),
        ("version 2", "90 01 1234", "version"),
        ("NON, critical option 65001", f"50 01 1234 b1 74 {option(65001, 0, 11)}", "bad_option"),
        ("NON, Uri-Path that is no UTF-8", "50 01 1234 b1 ff", "group_resource"),
        ("NON, no such path", "50 01 1234 b1 78", "group_resource"),
        ("NON, a method that the resource has not", "50 04 1234 b1 74", "group_resource"),
        ("NON, unknown method", "50 1f 1234 b1 74", "group_resource"),
    ):
        yield Row(group, what, given, SILENCE, rejected(reason), source, MULTICAST)


def table() -> tuple[Row, ...]:
    """Every row, in the document's order."""
    return tuple(
        row
        for part in (
            header, extended_tokens, empty_messages, option_format, critical_options, methods, matrix, responses,
            groups,
        )
        for row in part()
    )  # fmt: skip


def document() -> str:
    """The table as Markdown."""
    lines = [INTRODUCTION]
    group = ""
    for row in table():
        if row.group != group:
            group = row.group
            lines.append(
                f"\n## {group}\n\n| What arrives | Datagram | Answer | Counted | Source |\n|---|---|---|---|---|"
            )
        what = row.what if row.setting in (SERVER, EXTENDED, MULTICAST) else f"{row.what} ({row.setting})"
        answer = f"`{short(row.answer)}`" if row.answer else "silence"
        if row.then:
            answer += f"; {row.then}"
        given = f"`{short(row.given)}`" if row.given else "(nothing)"
        counted = ", ".join(f"`{name}`" for name in row.counted)
        lines.append(f"| {what} | {given} | {answer} | {counted} | {row.source} |")
    return "\n".join(lines) + "\n"


def short(text: str) -> str:
    """Long runs of one byte, abbreviated."""
    words = []
    for word in text.split():
        size = len(word) // 2
        tail = word[-2:]
        run = 0
        while run < size and word[len(word) - 2 * run - 2 : len(word) - 2 * run] == tail:
            run += 1
        words.append(f"{word[: len(word) - 2 * run]}{tail}x{run}" if run > 8 and '"' not in word else word)
    return " ".join(words)


INTRODUCTION = """# What CoAP datagrams that are wrong get

This table is printed by `python tests/coap/strictness_table.py`, and `tests/coap/test_coap_strictness.py` plays each
row of it against a live engine: the answer is compared byte by byte, and the counters named are all that rise, by one
each. Datagrams are hexadecimal, "text" stands for its ASCII bytes, `{mid}` and `{token}` for those of the request under
way, `????` for a Message ID that the engine chooses, `30x9` for nine bytes 30.

Sources: RFC 7252 with its errata, RFC 8974, and draft-ietf-core-corr-clar ("corr-clar"). Four choices that they leave:

* A Non-confirmable message that cannot be processed is ignored, as section 4.3 allows, and not answered with a Reset
  message; except a response that nobody asked for, whose sender may be notifying an observer that is gone.
* A Non-confirmable request with a critical option that is not understood gets 4.02, as the update of section 5.4.1
  has it, and no silence.
* Codes of class 3 are reserved as much as those of 1, 6 and 7: section 3 knows requests and responses of no such class.
* Wrong critical options are named in the diagnostic payload by number."""


if __name__ == "__main__":
    print(document(), end="")

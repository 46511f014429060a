"""The rows of the strictness table about what comes for a request of ours."""

from collections.abc import Iterator

from strictness_row import (
    ACKNOWLEDGED,
    ANSWERED,
    CON_REQUEST,
    GOES_ON,
    NON_REQUEST,
    REJECTED,
    RESET,
    RESET_BY_PEER,
    SILENCE,
    Row,
    option,
    rejected,
)


def responses() -> Iterator[Row]:
    """What comes for a request of ours."""
    group = "Responses"
    ours = ("coap_responses_received",)
    ack = "68 45 {mid} {token}"
    con = "48 45 1234 {token}"
    non = "58 45 1234 {token}"
    acked = "60 00 1234"

    def row(
        what: str, given: str, answer: str, counted: tuple[str, ...], source: str, then: str, where: str = ""
    ) -> Row:
        return Row(group, what, given, answer, counted, source, where or CON_REQUEST, then)

    match = "RFC 7252 section 5.3.2"
    critical = "RFC 7252 sections 5.4.1, 4.2, 4.3"
    yield row("ACK with it", ack, SILENCE, ours, match, ANSWERED)
    yield row("CON with it, before any acknowledgement", con, acked, ours, "RFC 7252 section 5.2.2", ANSWERED)
    yield row("CON with it", con, acked, ours, "RFC 7252 section 5.2.2", ANSWERED, ACKNOWLEDGED)
    yield row("NON with it", non, SILENCE, ours, "RFC 7252 section 5.2.2", ANSWERED, ACKNOWLEDGED)
    yield row("NON for NON", non, SILENCE, ours, "RFC 7252 section 5.2.3", ANSWERED, NON_REQUEST)
    yield row("CON for NON", con, acked, ours, "RFC 7252 section 5.2.3", ANSWERED, NON_REQUEST)
    yield row("ACK, another token", "68 45 {mid} 0000000000000000", SILENCE, rejected("token"), match, GOES_ON)
    yield row("ACK, no token", "60 45 {mid}", SILENCE, rejected("token"), match, GOES_ON)
    yield row(
        "CON, another token", "48 45 1234 0000000000000000", RESET, rejected("unexpected_response"), match, GOES_ON
    )
    yield row(
        "NON, another token", "58 45 1234 0000000000000000", RESET, rejected("unexpected_response"), match, GOES_ON
    )
    yield row(
        "ACK, another Message ID", "68 45 1234 {token}", SILENCE, rejected("unexpected_acknowledgement"),
        "RFC 7252 section 4.2", GOES_ON,
    )  # fmt: skip
    yield row(
        "ACK for NON", "68 45 {mid} {token}", SILENCE, rejected("unexpected_acknowledgement"), "RFC 7252 section 4.3",
        GOES_ON, NON_REQUEST,
    )  # fmt: skip
    yield row("RST", "70 00 {mid}", SILENCE, ("coap_requests_failed{reset}",), "RFC 7252 section 4.2", RESET_BY_PEER)
    yield row(
        "RST for NON", "70 00 {mid}", SILENCE, ("coap_requests_failed{reset}",), "RFC 7252 section 4.3", RESET_BY_PEER,
        NON_REQUEST,
    )  # fmt: skip
    yield row("RST with a code", "70 45 {mid}", SILENCE, rejected("reset_with_code"), "RFC 7252 section 4.2", GOES_ON)
    yield row(
        "RST with a token", "71 00 {mid} 00", SILENCE, rejected("empty_with_data"), "RFC 7252 section 4.2", GOES_ON
    )
    yield row(
        "ACK, empty, with a payload",
        "60 00 {mid} ff 00",
        SILENCE,
        rejected("empty_with_data"),
        "RFC 7252 section 4.1",
        GOES_ON,
    )
    yield row(
        "ACK with a request", "68 01 {mid} {token}", SILENCE, rejected("reserved_code"), "RFC 7252 section 4.2", GOES_ON
    )
    for code, name in (("3f", "1.31"), ("60", "3.00"), ("c1", "6.01"), ("e5", "7.05")):
        yield row(
            f"ACK {name}",
            f"68 {code} {{mid}} {{token}}",
            SILENCE,
            rejected("reserved_code"),
            "RFC 7252 section 4.2",
            GOES_ON,
        )
        yield row(
            f"CON {name}",
            f"48 {code} 1234 {{token}}",
            RESET,
            rejected("reserved_code"),
            "RFC 7252 section 4.2",
            GOES_ON,
        )
        yield row(
            f"NON {name}",
            f"58 {code} 1234 {{token}}",
            SILENCE,
            rejected("reserved_code"),
            "RFC 7252 section 4.3",
            GOES_ON,
        )
    for code, name in (("5e", "2.30"), ("9e", "4.30"), ("be", "5.30")):
        yield row(
            f"ACK {name}, unknown in a known class", f"68 {code} {{mid}} {{token}}", SILENCE, ours,
            "RFC 7252 section 5.9", ANSWERED,
        )  # fmt: skip
    for what, rest, reason in (
        ("marker without payload", "ff", "payload_empty"), ("option cut off", "42 61", "truncated"),
        ("number past 65535", "e0 ffff", "option_number"),
    ):  # fmt: skip
        yield row(f"ACK, {what}", f"{ack} {rest}", SILENCE, rejected(reason), "RFC 7252 section 4.2", GOES_ON)
        yield row(f"CON, {what}", f"{con} {rest}", RESET, rejected(reason), "RFC 7252 section 4.2", GOES_ON)
        yield row(f"NON, {what}", f"{non} {rest}", SILENCE, rejected(reason), "RFC 7252 section 4.3", GOES_ON)
    failed = (*rejected("bad_option"), "coap_requests_failed{rejected}")
    for what, rest in (
        ("critical option 65001", option(65001, 0)), ("Uri-Path, critical and a request's", "b1 61"),
        ("If-Match, critical and a request's", "10"), ("OSCORE, not asked for", "90"),
    ):  # fmt: skip
        yield row(f"ACK, {what}", f"{ack} {rest}", SILENCE, failed, critical, REJECTED)
        yield row(f"CON, {what}", f"{con} {rest}", RESET, failed, critical, REJECTED)
        yield row(f"NON, {what}", f"{non} {rest}", SILENCE, failed, critical, REJECTED)
    for what, rest in (
        ("elective option 65000", option(65000, 0)), ("ETag of 9 bytes", option(4, 9)), ("ETag twice", "4161 0162"),
        ("Max-Age of 5 bytes", option(14, 5)), ("Location-Path, not UTF-8", "81ff"), ("Content-Format twice", "c0 00"),
    ):  # fmt: skip
        source = "RFC 7252 sections 5.4.1, 5.4.3, 5.4.5"
        yield row(f"ACK, {what}: dropped", f"{ack} {rest}", SILENCE, ours, source, ANSWERED)
    yield row(
        "ACK 4.04, diagnostic payload that is no UTF-8", "68 84 {mid} {token} ff fffe", SILENCE, ours,
        "RFC 7252 section 5.5.2", ANSWERED,
    )  # fmt: skip

"""The registry of protection stacks: one row a way to carry CoAP, one slug a row.

What a row is called here is what configuration, the dashboard, the summary of the demo and the comparison call it.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Stack:
    """One row. ``security`` is the value of `--security`; ``protects`` False means that anyone on the way can read and
    change what is carried; ``words`` say it to people; ``port`` is the protocol's registered port."""

    slug: str
    security: str
    title: str
    words: str
    protects: bool
    port: int = 5683


STACKS: dict[str, Stack] = {
    row.slug: row
    for row in (
        Stack(
            "coap-nosec",
            "nosec",
            "CoAP without protection",
            "UNPROTECTED: anyone on the way can read, change and invent readings",
            protects=False,
        ),
        Stack(
            "coap-oscore",
            "oscore",
            "CoAP with OSCORE (RFC 8613, AES-CCM-16-64-128)",
            "protected end to end between gateway and cloud with OSCORE: encrypted, authenticated, no replays",
            protects=True,
        ),
    )
}

DEFAULT_OF: dict[str, str] = {"nosec": "coap-nosec", "oscore": "coap-oscore"}
"""The stack meant by a value of `--security` alone."""

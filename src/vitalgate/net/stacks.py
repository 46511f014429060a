"""The registry of protection stacks: one row a way to carry CoAP, one slug a row.

What a row is called here is what configuration, the dashboard, the summary of the demo and the comparison call it.
"""

from dataclasses import dataclass
from typing import Final

from vitalgate.dtls.credentials import Mode
from vitalgate.dtls.records import DTLS_1_2, DTLS_1_3


@dataclass(frozen=True, slots=True)
class Dtls:
    """What a stack under DTLS takes and nothing else: one version (as on the wire) and one way to authenticate."""

    version: int
    mode: Mode


@dataclass(frozen=True, slots=True)
class Stack:
    """One row. ``security`` is the value of `--security`; ``protects`` False means that anyone on the way can read and
    change what is carried; ``label`` and ``words`` say it to people, in short and in full; ``port`` is the protocol's
    registered port; ``dtls`` says how, where it is DTLS."""

    slug: str
    security: str
    label: str
    title: str
    words: str
    protects: bool
    port: int = 5683
    dtls: Dtls | None = None


VERSIONS: Final[dict[str, int]] = {"1.2": DTLS_1_2, "1.3": DTLS_1_3}
"""DTLS versions as people write them."""
_MODES: Final = {Mode.RPK: "raw public keys", Mode.PSK: "a pre-shared key"}


def _dtls(version: str, mode: Mode) -> Stack:
    return Stack(
        dtls_slug(version, mode.value),
        "dtls",
        f"DTLS {version} {mode.value.upper()}",
        f"CoAP over DTLS {version} with {_MODES[mode]} and connection IDs",
        f"protected from gateway to cloud with DTLS {version} and {_MODES[mode]}: encrypted, authenticated, no replays",
        protects=True,
        port=5684,
        dtls=Dtls(VERSIONS[version], mode),
    )


def dtls_slug(version: str, mode: str) -> str:
    """The slug of the stack with DTLS of ``version`` ('1.2', '1.3') and the mode's value ('rpk', 'psk')."""
    return f"coap-dtls{version.replace('.', '')}-{mode}"


STACKS: dict[str, Stack] = {
    row.slug: row
    for row in (
        Stack(
            "coap-nosec",
            "nosec",
            "UNPROTECTED",
            "CoAP without protection",
            "UNPROTECTED: anyone on the way can read, change and invent readings",
            protects=False,
        ),
        Stack(
            "coap-oscore",
            "oscore",
            "OSCORE",
            "CoAP with OSCORE (RFC 8613, AES-CCM-16-64-128)",
            "protected end to end between gateway and cloud with OSCORE: encrypted, authenticated, no replays",
            protects=True,
        ),
        *(_dtls(version, mode) for version in ("1.3", "1.2") for mode in _MODES),
    )
}

DEFAULT_OF: dict[str, str] = {"nosec": "coap-nosec", "oscore": "coap-oscore", "dtls": dtls_slug("1.3", "rpk")}
"""The stack meant by a value of `--security` alone."""


_BY_DTLS: Final = {(row.dtls.version, row.dtls.mode): row.slug for row in STACKS.values() if row.dtls is not None}


def stack_of(version: int, mode: Mode) -> str:
    """The slug of what an association of DTLS was agreed to be, or '' where that is no row."""
    return _BY_DTLS.get((version, mode), "")

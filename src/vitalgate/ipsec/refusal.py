"""Why a packet is dropped: one closed list, which is counters' labels and audit records' reasons."""

import enum


class Drop(enum.Enum):
    """Reasons. Those marked auditable in RFC 4301 to 4303 are in `AUDITABLE`."""

    SHORT = "short"
    MALFORMED = "malformed"
    FRAGMENT = "fragment"
    SPI = "spi_reserved"
    UNKNOWN_SA = "unknown_sa"
    REPLAY = "replay"
    INTEGRITY = "integrity"
    PADDING = "padding"
    INNER = "inner"
    ECN = "ecn"
    POLICY = "policy"
    DISCARD = "discard"
    NO_SA = "no_sa"
    OVERFLOW = "overflow"
    EXPIRED = "expired"
    TOO_BIG = "too_big"
    NESTED = "nested"
    QUEUE = "queue"
    RESERVATION = "reservation"


AUDITABLE = frozenset(
    (
        Drop.FRAGMENT,  # RFC 4303 section 3.4.1
        Drop.UNKNOWN_SA,  # 3.4.2
        Drop.SPI,
        Drop.REPLAY,  # 3.4.3
        Drop.INTEGRITY,  # 3.4.4
        Drop.OVERFLOW,  # 3.3.3
        Drop.POLICY,  # RFC 4301 section 5.2
        Drop.ECN,  # RFC 6040 section 4.2
        Drop.PADDING,
    )
)


class Refused(Exception):
    """A packet that is dropped, with the reason: what transforms raise and the engine counts."""

    def __init__(self, reason: Drop) -> None:
        super().__init__(reason.value)
        self.reason = reason

"""How each option is protected (RFC 8613 section 4.1, figure 5, and later registrations): one row an option."""

import enum


class Class(enum.Flag):
    """E: encrypted, travels inside. U: unprotected, travels outside. Some options have an instance of either kind.
    There is no Class I option yet (integrity protected only, section 4.1)."""

    E = 1
    U = 2


OBSERVE = 6
MAX_AGE = 14
PROXY_URI = 35
ECHO = 252

OPTION_CLASSES: dict[int, Class] = {
    1: Class.E,  # If-Match
    3: Class.U,  # Uri-Host
    4: Class.E,  # ETag
    5: Class.E,  # If-None-Match
    OBSERVE: Class.E | Class.U,
    7: Class.U,  # Uri-Port
    8: Class.E,  # Location-Path
    9: Class.U,  # OSCORE
    11: Class.E,  # Uri-Path
    12: Class.E,  # Content-Format
    MAX_AGE: Class.E | Class.U,
    15: Class.E,  # Uri-Query
    16: Class.U,  # Hop-Limit (RFC 8768): proxies count it down
    17: Class.E,  # Accept
    19: Class.E | Class.U,  # Q-Block1 (RFC 9177)
    20: Class.E,  # Location-Query
    23: Class.E | Class.U,  # Block2
    27: Class.E | Class.U,  # Block1
    28: Class.E | Class.U,  # Size2
    31: Class.E | Class.U,  # Q-Block2 (RFC 9177)
    PROXY_URI: Class.U,
    39: Class.U,  # Proxy-Scheme
    60: Class.E | Class.U,  # Size1
    ECHO: Class.E | Class.U,  # RFC 9175
    258: Class.E | Class.U,  # No-Response
    292: Class.E | Class.U,  # Request-Tag (RFC 9175)
}
"""Options without a row are Class E (section 4.1)."""

OUTER_ONLY: frozenset[int] = frozenset(number for number, kind in OPTION_CLASSES.items() if kind is Class.U)
"""What is never inside. Everything else that arrives outside is the business of proxies and is discarded on receipt
(sections 8.2 and 8.4, step 1), and is put inside when an application sends it."""

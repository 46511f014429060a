"""How each option is protected (RFC 8613 section 4.1, figure 5, and later registrations): one row an option."""

import enum

from vitalgate.coap.options import Option


class Class(enum.Flag):
    """E: encrypted, travels inside. U: unprotected, travels outside. Some options have an instance of either kind.
    There is no Class I option yet (integrity protected only, section 4.1)."""

    E = 1
    U = 2


OPTION_CLASSES: dict[int, Class] = {
    Option.IF_MATCH: Class.E,
    Option.URI_HOST: Class.U,
    Option.ETAG: Class.E,
    Option.IF_NONE_MATCH: Class.E,
    Option.OBSERVE: Class.E | Class.U,
    Option.URI_PORT: Class.U,
    Option.LOCATION_PATH: Class.E,
    Option.OSCORE: Class.U,
    Option.URI_PATH: Class.E,
    Option.CONTENT_FORMAT: Class.E,
    Option.MAX_AGE: Class.E | Class.U,
    Option.URI_QUERY: Class.E,
    Option.HOP_LIMIT: Class.U,  # proxies count it down
    Option.ACCEPT: Class.E,
    Option.Q_BLOCK1: Class.E | Class.U,
    Option.LOCATION_QUERY: Class.E,
    Option.EDHOC: Class.U,
    Option.BLOCK2: Class.E | Class.U,
    Option.BLOCK1: Class.E | Class.U,
    Option.SIZE2: Class.E | Class.U,
    Option.Q_BLOCK2: Class.E | Class.U,
    Option.PROXY_URI: Class.U,
    Option.PROXY_SCHEME: Class.U,
    Option.SIZE1: Class.E | Class.U,
    Option.ECHO: Class.E | Class.U,
    Option.NO_RESPONSE: Class.E | Class.U,
    Option.REQUEST_TAG: Class.E | Class.U,
}
"""Options without a row are Class E (section 4.1)."""

OUTER_ONLY: frozenset[int] = frozenset(int(number) for number, kind in OPTION_CLASSES.items() if kind is Class.U)
"""What is never inside. Everything else that arrives outside is the business of proxies and is discarded on receipt
(sections 8.2 and 8.4, step 1), and is put inside when an application sends it."""

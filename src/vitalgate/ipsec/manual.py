"""What keys that people configure may be used for: nothing then agrees on fresh ones after a restart."""

from vitalgate.ipsec.algorithms import SuiteError
from vitalgate.ipsec.association import Parameters
from vitalgate.ipsec.outbound import Reserve


def manual(parameters: Parameters, *, allow_manual_aead: bool = False, reserve: Reserve | None = None) -> Parameters:
    """``parameters`` if they may have manual keys. Raises `SuiteError`.

    Where a number used twice under a key breaks it (AEADs, CTR, GMAC), ``allow_manual_aead`` is needed and a
    ``reserve`` that makes numbers durable before they are used (RFC 8221 section 3). Implicit IVs are refused, as are
    extended numbers, whose high half a restarted receiver would have lost.
    """
    encryption = parameters.suite.encryption
    if parameters.esn:
        raise SuiteError("manual keys have no extended sequence numbers")
    if encryption is None or not encryption.counts:
        return parameters
    if encryption.implicit_iv:
        raise SuiteError(f"{encryption.name}: implicit IVs are not for manual keys")
    if not allow_manual_aead:
        raise SuiteError(f"{encryption.name} with manual keys is refused unless allow_manual_aead = true")
    if reserve is None:
        raise SuiteError(f"{encryption.name} with manual keys needs numbers reserved ahead")
    return parameters

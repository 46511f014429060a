"""How a link is protected: the endpoint that it sends with, and what fresh keys mean for it. One class a protocol.

Both fail closed: before `use` was called there is nothing to protect with, and nothing but what is asked for in clear
(the key exchange, which protects itself) is sent.
"""

from collections import deque
from typing import Final, Protocol

from vitalgate.coap.endpoint import Endpoint as CoapEndpoint
from vitalgate.coap.endpoint import MessageEndpoint
from vitalgate.coap.message import Message
from vitalgate.coap.parameters import Parameters
from vitalgate.counters import Counters
from vitalgate.dtls.coaps import Endpoint as CoapsEndpoint
from vitalgate.dtls.credentials import Credentials
from vitalgate.engine import Path, Randomness, Wall
from vitalgate.gateway.dtlskeys import CLOUD, dtls_of, gateway_credentials, gateway_parameters
from vitalgate.gateway.vault import GatewayVault
from vitalgate.net.sharedport import SharedPort
from vitalgate.oscore.context import SecurityContext
from vitalgate.oscore.contexts import Contexts
from vitalgate.oscore.endpoint import Endpoint as OscoreEndpoint

OVERLAP: Final = 60.0
"""Seconds for which the former keys of OSCORE still verify what was under way."""
FORMER: Final = 2
"""Former keys that are kept so at a time, the newest: the cloud's name for itself is the same in all of them."""
SILENCE: Final = 5.0
"""Seconds without a record of the cloud, while it owes answers, before the gateway shakes hands anew: the first
retransmission of CoAP and an answer to it fit in (RFC 7252 section 4.8)."""


class ProtectedEndpoint(MessageEndpoint, Protocol):
    """An endpoint that can also send in clear."""

    def request_unprotected(self, request: Message, path: Path, now: float, *, confirmable: bool = True) -> int:
        """Send a request in clear, as the key exchange needs, and return its exchange number."""


class Protection(Protocol):
    """One way to protect a link."""

    @property
    def endpoint(self) -> ProtectedEndpoint:
        """What the link sends with."""

    def use(self, context: SecurityContext, now: float) -> None:
        """Go on with the keys of this session, which the vault holds now. May raise `VaultError`."""


class OscoreProtection:
    """Messages protected by OSCORE."""

    def __init__(
        self, path: Path, parameters: Parameters, counters: Counters, randomness: Randomness, wall: Wall
    ) -> None:
        self._path = path
        self._contexts = Contexts()
        self._context: SecurityContext | None = None
        self._former: deque[SecurityContext] = deque()
        self._endpoint = OscoreEndpoint(
            contexts=self._contexts, parameters=parameters, counters=counters, randomness=randomness, wall=wall
        )

    @property
    def endpoint(self) -> ProtectedEndpoint:
        """What the link sends with."""
        return self._endpoint

    def use(self, context: SecurityContext, now: float) -> None:
        """Protect with ``context`` from now on; what is under way may still be answered under the former one."""
        if self._context is not None:
            self._contexts.retire(self._context, now + OVERLAP)
            self._former.append(self._context)
        if len(self._former) > FORMER:
            self._contexts.remove(self._former.popleft())
        self._context = context
        self._contexts.add(context, path=self._path)


class DtlsProtection:
    """Messages under an association of DTLS, which begins with the first of them and begins anew with fresh keys."""

    def __init__(
        self,
        stack: str,
        vault: GatewayVault,
        path: Path,
        parameters: Parameters,
        counters: Counters,
        randomness: Randomness,
        wall: Wall,
    ) -> None:
        self._mode = dtls_of(stack).mode
        self._vault = vault
        self._path = path
        secured = CoapsEndpoint(
            Credentials(),
            targets={path: CLOUD},
            dtls=gateway_parameters(stack),
            parameters=parameters,
            counters=counters,
            randomness=randomness,
            wall=wall,
        )
        plain = CoapEndpoint(parameters=parameters, counters=counters, randomness=randomness, wall=wall)
        self._port = SharedPort(secured, plain, silence=SILENCE, counters=counters)

    @property
    def endpoint(self) -> ProtectedEndpoint:
        """What the link sends with."""
        return self._port

    def use(self, context: SecurityContext, now: float) -> None:
        """Shake hands by what enrolment and session hold now."""
        self._port.use(gateway_credentials(self._vault, self._mode), self._path, now)

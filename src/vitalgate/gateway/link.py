"""The gateway's link to the cloud as one engine: uplink, endpoint, protection, and fresh keys whenever they are needed.

Fails closed: without a security context nothing but the key exchange itself (which proves and protects itself) is sent.
"""

import os
import time
from collections import deque
from dataclasses import dataclass
from typing import Final

from vitalgate.coap.endpoint import Endpoint as CoapEndpoint
from vitalgate.coap.endpoint import MessageEndpoint
from vitalgate.coap.events import RequestFailed, ResponseReceived
from vitalgate.coap.parameters import Parameters
from vitalgate.counters import Counters
from vitalgate.engine import Datagram, Path, Randomness, Wall
from vitalgate.gateway.enrolment import EnrolmentClient, EnrolmentFailed, KeysEstablished, rekey
from vitalgate.gateway.protection import DtlsProtection, OscoreProtection, Protection
from vitalgate.gateway.storage import SpoolStorage
from vitalgate.gateway.uplink import EntryRefused, LinkDown, LinkUp, RekeyNeeded, Uplink, UplinkParameters
from vitalgate.gateway.vault import CLOUD_NAME, GatewayVault, Standing
from vitalgate.net.stacks import STACKS
from vitalgate.oscore.context import SecurityContext
from vitalgate.oscore.sequence import SequenceStore

CHECK_KEYS_EVERY: Final = 5.0
"""Seconds between looks at whether the keys are due (their age, a rotation asked for on the command line)."""
FIRST_REKEY_PAUSE: Final = 5.0
LONGEST_REKEY_PAUSE: Final = 300.0
"""Seconds before another run after one that failed, doubled from the first to the longest."""


class NotEnrolledError(RuntimeError):
    """This gateway has no identity at the cloud; the text says how it gets one."""


@dataclass(frozen=True, slots=True)
class KeysRenewed:
    """Fresh session keys are in service."""


@dataclass(frozen=True, slots=True)
class KeysRefused:
    """A run for fresh keys failed; another follows in ``pause`` seconds."""

    reason: str
    pause: float


LinkEvent = LinkUp | LinkDown | EntryRefused | KeysRenewed | KeysRefused


class Link:
    """A `DatagramEngine`. ``path`` leads to the cloud; ``stack`` is a slug of `STACKS`.

    Raises `NotEnrolledError` when a protected stack is asked for and the vault holds no enrolment, and `VaultError`.
    """

    def __init__(
        self,
        spool: SpoolStorage,
        vault: GatewayVault,
        sequences: SequenceStore,
        path: Path,
        *,
        stack: str,
        name: str = "",
        uplink: UplinkParameters | None = None,
        counters: Counters | None = None,
        randomness: Randomness = os.urandom,
        wall: Wall = time.time,
    ) -> None:
        self._vault = vault
        self._sequences = sequences
        self._path = path
        self._counters = Counters() if counters is None else counters
        self._randomness = randomness
        self._events: deque[LinkEvent] = deque()
        self._has_keys = False
        self._client: EnrolmentClient | None = None
        self._rekey_pause = FIRST_REKEY_PAUSE
        self._rekey_at: float | None = None
        self._check_at: float | None = None
        parameters = uplink or UplinkParameters()
        coap = Parameters(nstart=parameters.window + parameters.alarm_slots + 1)
        self._protection: Protection | None = None
        endpoint: MessageEndpoint
        query: tuple[str, ...] = ()
        row = STACKS[stack]
        if row.protects:
            standing = vault.load_session(sequences)
            if standing is Standing.NOT_ENROLLED:
                raise NotEnrolledError(f"this gateway is {standing.value}")
            if row.dtls is None:
                self._protection = OscoreProtection(path, coap, self._counters, randomness, wall)
            else:
                self._protection = DtlsProtection(stack, vault, path, coap, self._counters, randomness, wall)
            endpoint = self._protection.endpoint
            self._check_at = 0.0
            if isinstance(standing, SecurityContext):
                self._use(standing, 0.0)
            else:
                self._rekey_at = 0.0
        else:
            endpoint = CoapEndpoint(parameters=coap, counters=self._counters, randomness=randomness, wall=wall)
            query = (f"gw={name}",) if name else ()
        self._uplink = Uplink(
            endpoint, spool, path, parameters=parameters, query=query, counters=self._counters, randomness=randomness
        )
        if self._rekey_at is not None:
            self._uplink.pause(0.0)

    @property
    def is_up(self) -> bool:
        """Whether the cloud took what was sent last."""
        return self._uplink.is_up

    @property
    def in_flight(self) -> int:
        """POSTs that wait for their answer."""
        return self._uplink.in_flight

    def receive_datagram(self, data: bytes, path: Path, now: float) -> None:
        """Feed one datagram."""
        self._uplink.receive_datagram(data, path, now)
        self._turn(now)

    def datagrams_to_send(self, now: float) -> list[Datagram]:
        """Send what waits in the spool as far as may be, and take the datagrams."""
        self._turn(now)
        return self._uplink.datagrams_to_send(now)

    def next_timeout(self) -> float | None:
        """The nearest deadline of the uplink and the keys."""
        client = self._client.next_timeout() if self._client is not None else None
        soonest = self._uplink.next_timeout()
        for due in (client, self._rekey_at, self._check_at):
            if due is not None and (soonest is None or due < soonest):
                soonest = due
        return soonest

    def handle_timeout(self, now: float) -> None:
        """A deadline has passed."""
        self._uplink.handle_timeout(now)
        if self._client is not None:
            self._client.handle_timeout(now)
        if self._check_at is not None and now >= self._check_at:
            self._check_at = now + CHECK_KEYS_EVERY
            if self._client is None and self._rekey_at is None and self._vault.rekey_due():
                self._rekey_at = now
        if self._rekey_at is not None and now >= self._rekey_at:
            self._begin_rekey(now)
        self._turn(now)

    def next_event(self) -> LinkEvent | None:
        """Take the oldest event, or None."""
        return self._events.popleft() if self._events else None

    # fresh keys

    def _begin_rekey(self, now: float) -> None:
        self._rekey_at = None
        if self._client is not None or self._protection is None:
            return
        self._counters.add("gateway_rekeys", "begun")
        self._uplink.pause(now)
        self._client = EnrolmentClient(
            self._protection.endpoint.request_unprotected,
            self._path,
            rekey(self._vault),
            counters=self._counters,
            randomness=self._randomness,
        )
        self._client.start(now)

    def _turn(self, now: float) -> None:
        while (event := self._uplink.next_event()) is not None:
            if isinstance(event, RekeyNeeded):
                if self._protection is not None and self._client is None and self._rekey_at is None:
                    self._begin_rekey(now)
            elif isinstance(event, LinkUp | LinkDown | EntryRefused):
                self._events.append(event)
            elif self._client is not None and isinstance(event, ResponseReceived | RequestFailed):
                self._client.offer(event, now)
        if self._client is None:
            return
        outcome = self._client.next_event()
        if isinstance(outcome, KeysEstablished):
            self._client = None
            self._counters.add("gateway_rekeys", "done")
            self._rekey_pause = FIRST_REKEY_PAUSE
            self._use(self._vault.adopt(outcome.established, self._sequences), now)
            self._events.append(KeysRenewed())
            self._uplink.resume(now)
        elif isinstance(outcome, EnrolmentFailed):
            self._client = None
            self._counters.add("gateway_rekeys", "failed")
            self._rekey_at = now + self._rekey_pause
            self._events.append(KeysRefused(f"{outcome.failure.value} ({outcome.detail})", self._rekey_pause))
            self._rekey_pause = min(2 * self._rekey_pause, LONGEST_REKEY_PAUSE)
            if self._has_keys:
                self._uplink.resume(now)  # a refusal can be forged: the former keys may be good all the same

    def _use(self, context: SecurityContext, now: float) -> None:
        assert context.name == CLOUD_NAME
        assert self._protection is not None  # nothing else asks for keys
        self._protection.use(context, now)
        self._has_keys = True

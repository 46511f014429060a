"""The gateway's enrolment and rekey as an engine: it POSTs the messages of `gateway.exchange`, repeats what got lost,
begins again what got stale, and ends with one event.

An answer that cannot be authenticated proves nothing: a refusal may be forged by whoever sees the path, so it ends the
run but changes nothing that the gateway keeps, and the caller may try again later.
"""

import enum
import os
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, TypeAlias

from vitalgate.coap.events import Event as CoapEvent
from vitalgate.coap.events import RequestFailed, ResponseReceived
from vitalgate.coap.formats import ContentFormat
from vitalgate.coap.message import Code, Message, Options, code_text
from vitalgate.coap.options import Option
from vitalgate.counters import Counters
from vitalgate.engine import Datagram, DatagramEngine, Path, Randomness
from vitalgate.gateway import handshake
from vitalgate.gateway.code import EnrolmentCode
from vitalgate.gateway.exchange import Established, GatewayExchange, begin_enrolment, begin_rekey
from vitalgate.gateway.handshake import HandshakeError
from vitalgate.gateway.vault import GatewayVault, VaultError

RESOURCES: Final = {handshake.ENROL: b"enroll", handshake.REKEY: b"rekey"}
_MAX_DETAIL: Final = 64
_AGAIN: Final = (Code.TOO_MANY_REQUESTS, Code.SERVICE_UNAVAILABLE, Code.INTERNAL_SERVER_ERROR, Code.GATEWAY_TIMEOUT)


class ClientFailure(enum.Enum):
    """Why a run ended without keys; the value is what people read."""

    REFUSED = "the cloud refused"
    UNREACHABLE = "the cloud did not answer, or was too busy"
    NOT_PROVEN = "something answered that could not prove to be the right cloud"


@dataclass(frozen=True, slots=True)
class KeysEstablished:
    """The run is done: `GatewayVault.adopt` is to be called with ``established``."""

    established: Established


@dataclass(frozen=True, slots=True)
class EnrolmentFailed:
    """The run is over without keys; nothing was changed. ``detail`` may come from the peer (printable, short)."""

    failure: ClientFailure
    detail: str


Event: TypeAlias = KeysEstablished | EnrolmentFailed
Begin: TypeAlias = Callable[[], GatewayExchange]
Send: TypeAlias = Callable[[Message, Path, float], int]
"""Sends an unprotected confirmable request and returns its exchange number, as `coap.Endpoint.request` does."""


@dataclass(frozen=True, slots=True)
class ClientParameters:
    """How patient a run is: requests in all, and the pause in seconds before the second, which doubles up to a limit
    and is stretched by up to half at random."""

    requests: int = 10
    pause: float = 2.0
    longest_pause: float = 60.0


def enrolment(vault: GatewayVault, code: EnrolmentCode) -> list[Begin]:
    """What `EnrolmentClient` needs to enrol the vault's identity key, which is made and stored now if there is none."""
    identity = vault.identity()
    return [lambda: begin_enrolment(identity, code, vault.randomness)]


def rekey(vault: GatewayVault) -> list[Begin]:
    """What `EnrolmentClient` needs for fresh keys; a waiting next identity key is put into service by the same run.

    When an earlier run proposed the next key and heard no more, the cloud may count it already: so it is tried as the
    gateway's key first, and proposed once more only if that is refused. Raises `VaultError` when not enrolled.
    """
    enrolled = vault.enrolment()
    if enrolled is None:
        raise VaultError("this gateway is not enrolled: run `vitalgate enroll gateway` with a code from the cloud")
    identity, following = vault.identity(), vault.next_identity()
    if following is None:
        return [lambda: begin_rekey(identity, enrolled, vault.randomness)]

    def propose() -> GatewayExchange:
        vault.mark_next_identity_sent()
        return begin_rekey(identity, enrolled, vault.randomness, following)

    if vault.next_identity_sent():
        return [lambda: begin_rekey(following, enrolled, vault.randomness), propose]
    return [propose]


class EnrolmentClient:
    """One run towards ``path``. Call `start`, hand it the endpoint's events through `offer`, and keep its one timer;
    it ends with one event. ``begins``: the exchanges to try in turn, the next one when the cloud refuses (`enrolment`,
    `rekey`)."""

    def __init__(
        self,
        send: Send,
        path: Path,
        begins: Sequence[Begin],
        *,
        parameters: ClientParameters | None = None,
        counters: Counters | None = None,
        randomness: Randomness = os.urandom,
    ) -> None:
        self._send = send
        self._path = path
        self._begins = list(begins)
        self._parameters = parameters or ClientParameters()
        self.counters: Final = Counters() if counters is None else counters
        self._randomness = randomness
        self._events: deque[Event] = deque()
        self._exchange: GatewayExchange | None = None
        self._confirm = b""  # message 3 once there is one: what is sent instead of message 1
        self._echo: bytes | None = None
        self._waiting: int | None = None
        self._retry_at: float | None = None
        self._requests = 0
        self._last = (ClientFailure.UNREACHABLE, "no answer")

    @property
    def running(self) -> bool:
        """Whether the run is under way."""
        return self._waiting is not None or self._retry_at is not None

    def start(self, now: float) -> None:
        """Begin; once."""
        self._begin(now)

    def offer(self, event: CoapEvent, now: float) -> bool:
        """Take one event of the endpoint; False when it belongs to someone else."""
        if not isinstance(event, ResponseReceived | RequestFailed) or event.exchange != self._waiting:
            return False
        self._waiting = None
        if isinstance(event, RequestFailed):
            self._again(now, ClientFailure.UNREACHABLE, event.reason.value)
        else:
            self._answered(event.response, now)
        return True

    def next_timeout(self) -> float | None:
        """When the next request is due, or None."""
        return self._retry_at

    def handle_timeout(self, now: float) -> None:
        """Send what is due."""
        if self._retry_at is not None and now >= self._retry_at:
            self._request(now)

    def next_event(self) -> Event | None:
        """How the run ended, once."""
        return self._events.popleft() if self._events else None

    def _begin(self, now: float) -> None:
        self._exchange = self._begins[0]()
        self._confirm = b""
        self._request(now)

    def _request(self, now: float) -> None:
        exchange = self._exchange
        assert exchange is not None  # `start` made it
        self._retry_at = None
        self._requests += 1
        options: Options = (
            (Option.URI_PATH, RESOURCES[exchange.kind]),
            (Option.CONTENT_FORMAT, bytes([ContentFormat.CBOR])),
        )
        if self._echo is not None:
            options, self._echo = (*options, (Option.ECHO, self._echo)), None
        self._waiting = self._send(Message(Code.POST, options, self._confirm or exchange.hello), self._path, now)

    def _answered(self, response: Message, now: float) -> None:
        if response.code == Code.CHANGED:
            self._proceed(response.payload, now)
            return
        detail = "".join(chr(byte) for byte in response.payload[:_MAX_DETAIL] if 32 <= byte < 127)
        detail = f"{code_text(response.code)} {detail}".rstrip()
        echo = response.option(Option.ECHO)
        if response.code == Code.UNAUTHORIZED and echo is not None:
            self.counters.add("gateway_enrolment_messages", "echo")
            self._echo = echo
            if self._requests < self._parameters.requests:
                self._request(now)
            else:
                self._fail(ClientFailure.UNREACHABLE, detail)
        elif response.code in _AGAIN:
            self._again(now, ClientFailure.UNREACHABLE, detail)
        elif response.code == Code.UNAUTHORIZED and self._confirm:
            # The cloud no longer knows the offer (its restart, its age, another run that finished first).
            self._confirm = b""
            self._exchange = self._begins[0]()
            self._again(now, ClientFailure.REFUSED, detail)
        elif len(self._begins) > 1:
            self.counters.add("gateway_enrolment_messages", "refused")
            del self._begins[0]
            self._begin(now)
        else:
            self._fail(ClientFailure.REFUSED, detail)

    def _proceed(self, payload: bytes, now: float) -> None:
        exchange = self._exchange
        assert exchange is not None  # an answer follows a request
        try:
            if self._confirm:
                established = exchange.finish(payload)
            else:
                self._confirm = exchange.confirm(payload)
                self.counters.add("gateway_enrolment_messages", "offer")
                self._request(now)
                return
        except HandshakeError as error:
            self._again(now, ClientFailure.NOT_PROVEN, str(error))
            return
        self.counters.add("gateway_enrolment_messages", "done")
        self._exchange = None
        self._events.append(KeysEstablished(established))

    def _again(self, now: float, failure: ClientFailure, detail: str) -> None:
        """Send the same message after a pause, unless enough was tried."""
        if self._requests >= self._parameters.requests:
            self._fail(failure, detail)
            return
        self.counters.add("gateway_enrolment_messages", _LABELS[failure])
        pause = min(self._parameters.pause * 2 ** (self._requests - 1), self._parameters.longest_pause)
        self._retry_at = now + pause * (1 + self._randomness(1)[0] / 512)

    def _fail(self, failure: ClientFailure, detail: str) -> None:
        self.counters.add("gateway_enrolment_messages", _LABELS[failure])
        self._exchange = None
        self._events.append(EnrolmentFailed(failure, detail))


_LABELS: Final = {
    ClientFailure.REFUSED: "refused",
    ClientFailure.UNREACHABLE: "no-answer",
    ClientFailure.NOT_PROVEN: "not-proven",
}


class RequestEndpoint(DatagramEngine, Protocol):
    """What `EnrolmentRun` needs of `coap.Endpoint`."""

    def request(self, request: Message, path: Path, now: float, *, confirmable: bool = True) -> int:
        """Send a request."""


class EnrolmentRun:
    """A run with an endpoint of its own, as one engine with the five calls: what `vitalgate enroll gateway` drives."""

    def __init__(
        self,
        endpoint: RequestEndpoint,
        path: Path,
        begins: Sequence[Begin],
        *,
        parameters: ClientParameters | None = None,
        counters: Counters | None = None,
        randomness: Randomness = os.urandom,
    ) -> None:
        self._endpoint = endpoint
        self.client: Final = EnrolmentClient(
            endpoint.request,
            path,
            begins,
            parameters=parameters,
            counters=counters,
            randomness=randomness,
        )

    def start(self, now: float) -> None:
        """Begin."""
        self.client.start(now)

    def receive_datagram(self, data: bytes, path: Path, now: float) -> None:
        """Feed one datagram."""
        self._endpoint.receive_datagram(data, path, now)
        self._drain(now)

    def datagrams_to_send(self, now: float) -> list[Datagram]:
        """Take what is to be sent."""
        return self._endpoint.datagrams_to_send(now)

    def next_timeout(self) -> float | None:
        """The endpoint's deadline or the run's."""
        deadlines = (self._endpoint.next_timeout(), self.client.next_timeout())
        return min((deadline for deadline in deadlines if deadline is not None), default=None)

    def handle_timeout(self, now: float) -> None:
        """A deadline has passed."""
        self._endpoint.handle_timeout(now)
        self._drain(now)
        self.client.handle_timeout(now)

    def next_event(self) -> Event | None:
        """How the run ended, once."""
        return self.client.next_event()

    def _drain(self, now: float) -> None:
        while (event := self._endpoint.next_event()) is not None:
            if isinstance(event, ResponseReceived | RequestFailed):
                self.client.offer(event, now)

"""The ingest engine: POST /ingest becomes committed entries, and only then 2.04.

It wraps the endpoint that speaks CoAP (with or without OSCORE inside) and is turned in its place. Requests are
collected while datagrams are fed; when the driver asks what to send, all of them go into one commit of the store, and
then each gets its answer:

====================================  ==============================================================================
4.13 with Size1, 4.15                 a payload too large, a Content-Format that is not SenML-CBOR
4.01                                  no security where that was not explicitly allowed; a revoked gateway, which keeps
                                      what it holds until it is enrolled anew
4.00 with a diagnostic                what is no delivery (`DeliveryError`)
4.03, 4.22                            another gateway's epoch or device; numbers out of range
4.29 with Max-Age                     a table of the store is full
5.03 with Max-Age                     the store cannot be written now: nothing of the turn is acknowledged
2.04                                  everything in it is durable
====================================  ==============================================================================
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from vitalgate.cloud.live import LiveBoard
from vitalgate.cloud.store.commit import Committed, Delivery, Refusal
from vitalgate.cloud.store.errors import Reason, StoreError, StoreUnavailable
from vitalgate.cloud.store.store import Store
from vitalgate.coap.endpoint import MessageEndpoint
from vitalgate.coap.events import Event, RequestReceived
from vitalgate.coap.formats import ContentFormat
from vitalgate.coap.message import Code, Message
from vitalgate.coap.options import Option, build_options, content_format, encode_uint, path_segments, queries
from vitalgate.coap.site import Site
from vitalgate.counters import Counters
from vitalgate.engine import Datagram, Path
from vitalgate.gateway.delivery import DeliveryError, unpack
from vitalgate.gateway.entry import Entry
from vitalgate.gateway.notice import DeviceGap, EpochOpened, Gap, Quarantined
from vitalgate.net.stacks import DEFAULT_OF
from vitalgate.quick import quick
from vitalgate.vitals.observation import Observation, Samples

RESOURCE: Final = "ingest"
_PATH: Final = (RESOURCE.encode(),)
NOSEC: Final = DEFAULT_OF["nosec"]
UNPROTECTED: Final = "unprotected"
"""What a gateway is called that comes without security and names itself by no query ``gw=NAME``."""
MAX_NAME: Final = 64


@dataclass(frozen=True, slots=True)
class IngestLimits:
    """``payload``: the longest request payload in bytes; ``turn``: requests in one commit; ``waiting``: requests held
    until the next one (more are answered 5.03); ``retry_after``: Max-Age of 5.03 and 4.29 in seconds."""

    payload: int = 8192
    turn: int = 256
    waiting: int = 1024
    retry_after: int = 10


_REFUSALS: Final[dict[Refusal, tuple[Code, str]]] = {
    Refusal.REVOKED: (Code.UNAUTHORIZED, "this gateway's identity is revoked"),
    Refusal.FOREIGN_EPOCH: (Code.FORBIDDEN, "the epoch belongs to another gateway"),
    Refusal.FOREIGN_DEVICE: (Code.FORBIDDEN, "the device belongs to another gateway"),
    Refusal.OUT_OF_RANGE: (Code.UNPROCESSABLE_ENTITY, "a number is out of range"),
    Refusal.LIMIT: (Code.TOO_MANY_REQUESTS, "no room for more gateways, devices or epochs"),
}


@quick
@dataclass(frozen=True, slots=True)
class _Waiting:
    exchange: int
    delivery: Delivery


def under_oscore(_: RequestReceived) -> str:
    """The stack of every authenticated request, where there is OSCORE alone."""
    return DEFAULT_OF["oscore"]


class Ingest:
    """An engine round ``endpoint``; events of the endpoint that are not its own come out of `next_event`.

    ``security`` tells the stack (`vitalgate.net.stacks`) under which the authenticated peer of a request speaks; '' is
    one that is not accepted, and the peer is taken for unauthenticated. Peers without
    identity are refused unless ``allow_nosec``; each delivery taken from one is counted and shown as unprotected. One
    ingest writes to ``store`` at a time; ``board`` shows what was committed.
    """

    def __init__(
        self,
        endpoint: MessageEndpoint,
        store: Store,
        *,
        board: LiveBoard | None = None,
        security: Callable[[RequestReceived], str] = under_oscore,
        allow_nosec: bool = False,
        limits: IngestLimits | None = None,
        counters: Counters | None = None,
    ) -> None:
        self.limits = limits or IngestLimits()
        self.counters = Counters() if counters is None else counters
        self._endpoint = endpoint
        self._store = store
        self._board = board
        self._security = security
        self._allow_nosec = allow_nosec
        self._waiting: deque[_Waiting] = deque()
        self._events: deque[Event] = deque()
        self.on_committed: Callable[[Sequence[Entry]], None] | None = None
        """Called with the new entries of each delivery after its commit (the demo's and the benchmarks' meter)."""

    def attach(self, site: Site) -> None:
        """Add the resource to the endpoint's site, which answers for every other path."""
        site.add(
            RESOURCE,
            self._admit,
            methods=[Code.POST],
            idempotent=True,  # the store takes each entry once, so a duplicate may run again
            small=True,
            rt="vitalgate.ingest",
            title="deliveries of gateways",
        )

    def _admit(self, request: Message, path: Path, identity: str, now: float) -> Message | None:
        """The site's handler: refuse at once what needs no look at the store; None: answered by `turn`."""
        return self._refuse_early(request, identity)

    # the engine's calls

    def receive_datagram(self, data: bytes, path: Path, now: float) -> None:
        """Feed one datagram."""
        self._endpoint.receive_datagram(data, path, now)
        self._collect(now)

    def datagrams_to_send(self, now: float) -> list[Datagram]:
        """Commit what came, answer it, and take what is to be sent."""
        self.turn(now)
        return self._endpoint.datagrams_to_send(now)

    def next_timeout(self) -> float | None:
        """The endpoint's deadline."""
        return self._endpoint.next_timeout()

    def handle_timeout(self, now: float) -> None:
        """A deadline has passed."""
        self._endpoint.handle_timeout(now)
        self._collect(now)

    def next_event(self) -> Event | None:
        """An event of the endpoint that is not ingest's own."""
        return self._events.popleft() if self._events else None

    def turn(self, now: float) -> None:
        """Commit everything collected and answer it; at most ``limits.turn`` requests in one transaction."""
        self._collect(now)
        while self._waiting:
            batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), self.limits.turn))]
            self._commit(batch, now)

    # one request

    def _collect(self, now: float) -> None:
        while (event := self._endpoint.next_event()) is not None:
            if not isinstance(event, RequestReceived) or path_segments(event.request.options) != _PATH:
                self._events.append(event)
                continue
            answer = self._take(event)
            if answer is not None:
                self._endpoint.respond(event.exchange, answer, now)

    def _take(self, event: RequestReceived) -> Message | None:
        """The answer to what cannot be committed, or None: it waits for the turn."""
        request = event.request
        security = self._security(event) if event.identity else ""
        refused = self._refuse_early(request, security)
        if refused is not None:
            return refused
        if len(self._waiting) >= self.limits.waiting:
            return self._answer(Code.SERVICE_UNAVAILABLE, "busy", retry=True)
        try:
            entries = tuple(unpack(request.payload))
        except DeliveryError as error:
            return self._answer(Code.BAD_REQUEST, "malformed", str(error))
        if not entries:
            return self._answer(Code.BAD_REQUEST, "malformed", "a delivery without entries")
        if security:
            delivery = Delivery(event.identity, entries, security)
        else:
            self.counters.add("cloud_unprotected_deliveries")
            delivery = Delivery(_named(request), entries, NOSEC)
        self._waiting.append(_Waiting(event.exchange, delivery))
        return None

    def _refuse_early(self, request: Message, authenticated: str) -> Message | None:
        if request.code != Code.POST:
            return self._answer(Code.METHOD_NOT_ALLOWED, "method")
        if not authenticated and not self._allow_nosec:
            return self._answer(Code.UNAUTHORIZED, "unprotected", "this cloud takes protected deliveries only")
        if len(request.payload) > self.limits.payload:
            size = ((Option.SIZE1, encode_uint(self.limits.payload)),)
            self.counters.add("cloud_deliveries", "too_large")
            return Message(Code.REQUEST_ENTITY_TOO_LARGE, size)
        if content_format(request) != ContentFormat.SENML_CBOR:
            return self._answer(Code.UNSUPPORTED_CONTENT_FORMAT, "format")
        return None

    def _answer(self, code: Code, outcome: str, text: str = "", *, retry: bool = False) -> Message:
        self.counters.add("cloud_deliveries", outcome)
        options = build_options(max_age=self.limits.retry_after) if retry else ()
        return Message(code, options, text.encode()[:200])

    # one commit

    def _commit(self, batch: list[_Waiting], now: float) -> None:
        try:
            outcomes = self._store.commit([waiting.delivery for waiting in batch])
        except StoreError as error:
            reason = error.reason if isinstance(error, StoreUnavailable) else Reason.DAMAGED
            self.counters.add("cloud_store_unavailable", reason.value)
            for waiting in batch:
                answer = self._answer(Code.SERVICE_UNAVAILABLE, "unavailable", reason.value, retry=True)
                self._endpoint.respond(waiting.exchange, answer, now)
            return
        self.counters.add("cloud_commits")
        for waiting, outcome in zip(batch, outcomes, strict=True):
            self._endpoint.respond(waiting.exchange, self._outcome(outcome), now)
        for waiting, outcome in zip(batch, outcomes, strict=True):
            self._publish(waiting.delivery, outcome)

    def _outcome(self, outcome: Committed) -> Message:
        if outcome.refusal is not None:
            code, text = _REFUSALS[outcome.refusal]
            return self._answer(code, outcome.refusal.value, text, retry=outcome.refusal is Refusal.LIMIT)
        self.counters.add("cloud_entries_duplicate", by=outcome.duplicates)
        self.counters.add("cloud_entries_stored", by=len(outcome.new))
        return self._answer(Code.CHANGED, "stored" if outcome.new else "duplicate")

    def _publish(self, delivery: Delivery, outcome: Committed) -> None:
        board = self._board
        if outcome.refusal is not None:
            if board is not None and outcome.refusal is Refusal.REVOKED:
                board.revoke(delivery.gateway)
            return
        shown: dict[str, list[Observation]] = {}
        samples = 0
        for entry in outcome.new:
            if entry.observations:
                shown.setdefault(entry.device, []).extend(entry.observations)
                samples += sum(len(o.value) for o in entry.observations if isinstance(o.value, Samples))
        self.counters.add("cloud_observations_stored", by=sum(map(len, shown.values())))
        self.counters.add("cloud_samples_stored", by=samples)
        if self.on_committed is not None:
            self.on_committed(outcome.new)
        if board is None:
            return
        for device, observations in shown.items():
            board.publish(delivery.gateway, delivery.security, device, observations, outcome.received_at)
        if not shown:
            board.heard(delivery.gateway, delivery.security, outcome.received_at)
        for entry in outcome.new:
            notice = entry.notice
            if isinstance(notice, Gap):
                board.add_gap(
                    delivery.gateway, notice.device, "dropped", notice.cause, notice.start, notice.end, notice.count
                )
            elif isinstance(notice, DeviceGap):
                board.add_gap(delivery.gateway, notice.device, "device", notice.cause, notice.start, notice.end, 0)
            elif isinstance(notice, EpochOpened):
                board.release_until(delivery.gateway, entry.gateway_time)
            elif isinstance(notice, Quarantined) and not notice.frames:
                board.release(delivery.gateway, kind=notice.kind, port=notice.port, serial=notice.serial)
            elif isinstance(notice, Quarantined):
                board.quarantined(
                    delivery.gateway,
                    kind=notice.kind,
                    port=notice.port,
                    serial=notice.serial,
                    frames=notice.frames,
                    first=notice.since,
                    last=entry.gateway_time,
                )


def _named(request: Message) -> str:
    """What an unprotected gateway calls itself: its word only, so it is never taken for an authenticated one."""
    for query in queries(request.options):
        name, _, value = query.partition("=")
        if name == "gw" and 0 < len(value) <= MAX_NAME and value.isprintable():
            return f"{UNPROTECTED}:{value}"
    return UNPROTECTED


def fill_board(store: Store, board: LiveBoard, *, entries: int = 60, gaps: int = 64) -> None:
    """Put on the board what the store last knew: each device's newest ``entries``, names, gaps, quarantine."""
    homes = {row.id: row for row in store.read.gateways()}
    for home in homes.values():
        if home.is_revoked:
            board.revoke(home.name)
    for device in store.read.devices():
        home = homes[device.gateway_id]
        for entry in reversed(store.read.latest(device.urn, entries)):
            if entry.observations:
                board.publish(home.name, home.security, device.urn, entry.observations, entry.received_at)
        if device.label:
            board.name(device.urn, device.label)
    for gap in reversed(store.read.gaps(limit=gaps)):
        board.add_gap(gap.gateway, gap.device, gap.kind, gap.cause, gap.start, gap.end, gap.count)
    for row in reversed(store.read.quarantine()):
        board.quarantined(
            row.gateway,
            kind=row.kind,
            port=row.port,
            serial=row.serial,
            frames=row.frames,
            first=row.first_seen,
            last=row.last_seen,
        )

"""The uplink engine: entries go from the spool to the cloud, and are let go when the cloud has said 2.04.

It wraps the endpoint that speaks CoAP (with or without protection) and is turned in its place. Each POST to ``/ingest``
carries whole entries, the most urgent first. What the cloud answers decides:

==========================================  ============================================================================
2.04                                        durable there: the spool lets go
4.00, 4.03, 4.13, 4.22                      halved until single entries are left; one that is refused alone is set
                                            aside with a numbered gap. Many in a row are slowed down: then it is rather
                                            the cloud or this gateway that is wrong
4.01, or protection failed                  back off; again and again: `RekeyNeeded`
4.29, 5.03                                  back off for Max-Age
anything else, time-out, reset              back off
==========================================  ============================================================================

Backing off is one delay for all, doubled from failure to failure up to a limit; when it ends one POST goes ahead and
the rest follow its success. What was in flight already when one failed and fails later is no further failure: a cloud
that started again, say, refuses all of it but the newest as replays. An alarm waits for none of this: it has a place of
its own among the POSTs in flight, takes that of a less urgent one where it must, and cuts a long delay short.
"""

import math
import os
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from vitalgate.coap.endpoint import MessageEndpoint
from vitalgate.coap.events import Event as CoapEvent
from vitalgate.coap.events import Failure, RequestFailed, ResponseReceived
from vitalgate.coap.message import Code, Message, code_text
from vitalgate.coap.options import Option, build_options, uint_option
from vitalgate.counters import Counters
from vitalgate.engine import Datagram, Path, Randomness
from vitalgate.gateway.delivery import CONTENT_FORMAT, join
from vitalgate.gateway.storage import SpoolStorage, Stored
from vitalgate.quick import quick
from vitalgate.vitals.observation import TrafficClass

RESOURCE: Final = "ingest"


@dataclass(frozen=True, slots=True)
class UplinkParameters:
    """How the uplink sends. The endpoint's NSTART must be at least ``window`` + ``alarm_slots``, or its queue would
    hold alarms up."""

    payload: int = 1024
    """Bytes of a payload, unless a single entry is larger."""
    window: int = 8
    """POSTs in flight."""
    alarm_slots: int = 1
    """POSTs in flight beyond ``window``, for alarms alone."""
    first_delay: float = 1.0
    """Seconds before going on after a failure; doubled from failure to failure, and up to half longer at random."""
    longest_delay: float = 30.0
    longest_max_age: float = 300.0
    """Most seconds that a Max-Age of the cloud is honoured."""
    alarm_delay: float = 2.0
    """Most seconds that a delay holds up an alarm at first; doubled while alarms too fail, up to ``longest_delay``."""
    rekey_after: int = 3
    """Failures of protection in a row that ask for fresh keys; asked again after as many more."""
    refusals: int = 8
    """Entries refused in a row before refusals are slowed down."""


@dataclass(frozen=True, slots=True)
class LinkUp:
    """The cloud took something: for the first time, or again."""


@dataclass(frozen=True, slots=True)
class LinkDown:
    """The cloud takes nothing, for ``reason``: a `Failure`'s value or a response code."""

    reason: str


@dataclass(frozen=True, slots=True)
class RekeyNeeded:
    """Protection failed ``failures`` times in a row: the keys are probably not the cloud's any more."""

    failures: int


@dataclass(frozen=True, slots=True)
class EntryRefused:
    """The cloud would not take an entry; it was set aside with a gap."""

    code: str


UplinkEvent = LinkUp | LinkDown | RekeyNeeded | EntryRefused | CoapEvent

_SPLIT: Final = (Code.BAD_REQUEST, Code.FORBIDDEN, Code.REQUEST_ENTITY_TOO_LARGE, Code.UNPROCESSABLE_ENTITY)
_BUSY: Final = (Code.SERVICE_UNAVAILABLE, Code.TOO_MANY_REQUESTS)
_MAX_EVENTS: Final = 1024


@quick
@dataclass(frozen=True, slots=True)
class _Post:
    entries: tuple[Stored, ...]
    is_alarm: bool
    sent_at: float


class Uplink:
    """A `DatagramEngine` round ``endpoint``; ``path`` leads to the cloud.

    Events of the endpoint that are not the uplink's own (enrolment and rekey use it too) come out of `next_event`.
    ``query`` is added to each request: an unprotected gateway names itself by ``gw=NAME``.
    """

    def __init__(
        self,
        endpoint: MessageEndpoint,
        spool: SpoolStorage,
        path: Path,
        *,
        parameters: UplinkParameters | None = None,
        query: Sequence[str] = (),
        counters: Counters | None = None,
        randomness: Randomness = os.urandom,
    ) -> None:
        self._endpoint = endpoint
        self._spool = spool
        self._path = path
        self._parameters = parameters or UplinkParameters()
        self._counters = Counters() if counters is None else counters
        self._randomness = randomness
        self._options = build_options(RESOURCE, query=query, content_format=CONTENT_FORMAT)
        self._posts: dict[int, _Post] = {}
        self._cancelled: set[int] = set()  # by us; the endpoint tells it once
        self._pieces: deque[tuple[Stored, ...]] = deque()  # halves of refused payloads, oldest first
        self._events: deque[UplinkEvent] = deque()
        self._up: bool | None = None
        self._failures = 0
        self._unprotected = 0
        self._refusals = 0
        self._alarm_failures = 0
        self._failed_at = -math.inf
        self._resume_at: float | None = None
        self._paused = False

    @property
    def is_up(self) -> bool:
        """Whether the cloud took what was sent last."""
        return bool(self._up)

    @property
    def in_flight(self) -> int:
        """POSTs that wait for their answer."""
        return len(self._posts)

    # the engine's five calls

    def receive_datagram(self, data: bytes, path: Path, now: float) -> None:
        """Feed one datagram."""
        self._endpoint.receive_datagram(data, path, now)
        self._drain(now)

    def datagrams_to_send(self, now: float) -> list[Datagram]:
        """Send what waits in the spool as far as may be, and take the datagrams."""
        self._drain(now)
        self._pump(now)
        return self._endpoint.datagrams_to_send(now)

    def next_timeout(self) -> float | None:
        """The endpoint's deadline, or the end of a delay while something waits for it."""
        deadline = self._endpoint.next_timeout()
        if self._resume_at is None or self._paused or not (self._pieces or self._spool.waiting()):
            return deadline
        resume = self._resume_at
        if self._spool.waiting(TrafficClass.ALARM):
            resume = min(resume, self._alarm_resumes_at())
        return resume if deadline is None else min(deadline, resume)

    def handle_timeout(self, now: float) -> None:
        """A deadline has passed."""
        self._endpoint.handle_timeout(now)
        self._drain(now)
        if self._resume_at is not None:
            alarm = self._spool.waiting(TrafficClass.ALARM) and now >= self._alarm_resumes_at()
            if alarm or now >= self._resume_at:
                self._resume_at = None

    def _alarm_resumes_at(self) -> float:
        """When an alarm may cut the delay short."""
        parameters = self._parameters
        doubled = parameters.alarm_delay * 2.0 ** min(self._alarm_failures, 32)
        return self._failed_at + min(doubled, parameters.longest_delay)

    def next_event(self) -> UplinkEvent | None:
        """Take the oldest event, or None."""
        return self._events.popleft() if self._events else None

    def pause(self, now: float) -> None:
        """Send nothing until `resume` (keys are being made); what is in flight is given back."""
        self._drain(now)
        self._paused = True
        for exchange, post in list(self._posts.items()):
            self._forget(exchange, post, now)
        self._give_back_pieces()

    def resume(self, now: float) -> None:
        """Go on, at once and with a clean slate."""
        self._paused = False
        self._resume_at = None
        self._failures = self._unprotected = self._alarm_failures = 0

    # sending

    def _pump(self, now: float) -> None:
        if self._paused or self._resume_at is not None:
            return
        parameters = self._parameters
        # After a failure one POST goes ahead, whatever is in flight from before; its success opens the window again.
        window = parameters.window if self._failures == 0 else 1
        under_way = len(self._posts)
        if self._failures:
            under_way = sum(post.sent_at > self._failed_at for post in self._posts.values())
        while under_way < window:
            entries = self._pieces.popleft() if self._pieces else None
            if entries is None:
                entries = tuple(self._spool.next_batch(parameters.payload, now))
            if not entries:
                return
            self._post(entries, now)
            under_way += 1
        while self._spool.waiting(TrafficClass.ALARM):
            if len(self._posts) >= window + parameters.alarm_slots and not self._make_way(now):
                return
            entries = tuple(self._spool.next_batch(parameters.payload, now, TrafficClass.ALARM))
            if not entries:
                return
            self._post(entries, now)

    def _make_way(self, now: float) -> bool:
        """Take back the POST without an alarm that has waited longest; False when all carry alarms."""
        others = [(post.sent_at, exchange) for exchange, post in self._posts.items() if not post.is_alarm]
        if not others:
            return False
        exchange = min(others)[1]
        self._forget(exchange, self._posts[exchange], now)
        self._counters.add("gateway_uplink_preempted")
        return True

    def _forget(self, exchange: int, post: _Post, now: float) -> None:
        del self._posts[exchange]
        self._cancelled.add(exchange)
        self._endpoint.cancel(exchange, now)
        self._spool.give_back([stored.id for stored in post.entries])

    def _post(self, entries: tuple[Stored, ...], now: float) -> None:
        payload = join([stored.packed for stored in entries])
        exchange = self._endpoint.request(Message(Code.POST, self._options, payload), self._path, now)
        is_alarm = any(stored.traffic_class is TrafficClass.ALARM for stored in entries)
        self._posts[exchange] = _Post(entries, is_alarm, now)
        self._counters.add("gateway_uplink_posts")
        self._counters.add("gateway_uplink_payload_bytes", by=len(payload))

    # what comes back

    def _drain(self, now: float) -> None:
        while (event := self._endpoint.next_event()) is not None:
            post = None
            if isinstance(event, ResponseReceived | RequestFailed):
                if event.exchange in self._cancelled:
                    self._cancelled.discard(event.exchange)
                    continue
                post = self._posts.pop(event.exchange, None)
            if post is None:
                self._emit(event)
            elif isinstance(event, ResponseReceived):
                self._answered(post, event.response, now)
            elif isinstance(event, RequestFailed):
                self._failed(post, event.reason.value, now, protection=event.reason is Failure.PROTECTION)

    def _answered(self, post: _Post, response: Message, now: float) -> None:
        code = response.code
        self._counters.add("gateway_uplink_answers", code_text(code))
        if code == Code.CHANGED:
            self._spool.release([stored.id for stored in post.entries])
            self._succeeded()
            self._refusals = 0
        elif code in _SPLIT:
            self._refused(post, code, now)
        elif code in _BUSY:
            self._failed(post, code_text(code), now, max_age=uint_option(response, Option.MAX_AGE))
        else:
            self._failed(post, code_text(code), now, protection=code == Code.UNAUTHORIZED)

    def _succeeded(self) -> None:
        self._failures = self._unprotected = self._alarm_failures = 0
        self._resume_at = None
        if not self._up:
            self._up = True
            self._emit(LinkUp())

    def _refused(self, post: _Post, code: int, now: float) -> None:
        """Halve it; a single entry is set aside."""
        entries = post.entries
        if len(entries) > 1:
            middle = len(entries) // 2
            self._pieces.extendleft((entries[middle:], entries[:middle]))
            return
        self._spool.refuse([entries[0].id], f"refused {code_text(code)}")
        self._refusals += 1
        self._emit(EntryRefused(code_text(code)))
        if self._refusals >= self._parameters.refusals:
            self._back_off(post, now, code_text(code), None)

    def _failed(
        self, post: _Post, reason: str, now: float, *, protection: bool = False, max_age: int | None = None
    ) -> None:
        self._spool.give_back([stored.id for stored in post.entries])
        self._counters.add("gateway_uplink_failed", reason)
        if protection and post.sent_at > self._failed_at:
            self._unprotected += 1
            if self._unprotected % self._parameters.rekey_after == 0:
                self._emit(RekeyNeeded(self._unprotected))
        self._alarm_failures += post.is_alarm
        self._back_off(post, now, reason, max_age)

    def _back_off(self, post: _Post, now: float, reason: str, max_age: int | None) -> None:
        parameters = self._parameters
        if post.sent_at > self._failed_at:
            self._failures += 1
            self._failed_at = now
            delay = min(parameters.first_delay * 2.0 ** min(self._failures - 1, 32), parameters.longest_delay)
            self._resume_at = now + delay * (1 + self._randomness(1)[0] / 512)
        elif max_age is None:
            return
        self._give_back_pieces()
        if max_age is not None:
            self._resume_at = max(self._resume_at or now, now + min(max_age, parameters.longest_max_age))
        if self._up is not False:
            self._up = False
            self._emit(LinkDown(reason))

    def _give_back_pieces(self) -> None:
        for piece in self._pieces:
            self._spool.give_back([stored.id for stored in piece])
        self._pieces.clear()

    def _emit(self, event: UplinkEvent) -> None:
        if len(self._events) < _MAX_EVENTS:  # nobody listens: the counters still say what happened
            self._events.append(event)

"""The server side of Observe (RFC 7641 section 4): who observes what, and the notifications on their way.

A client has at most NSTART notifications outstanding. What changes in the meantime is marked, so that the state sent
next is the newest and those between are skipped; a Confirmable notification that has to be sent again carries the
newest state too (section 4.5.2).
"""

from collections import OrderedDict
from collections.abc import Callable

from vitalgate.coap.blocks import Block
from vitalgate.coap.blockserver import BlockServer
from vitalgate.coap.codec import VERSION_BITS
from vitalgate.coap.core import Core
from vitalgate.coap.events import RequestReceived
from vitalgate.coap.message import Code, Message, Type
from vitalgate.coap.options import Option, content_format, encode_uint, path_segments, with_option
from vitalgate.coap.peers import Peer
from vitalgate.coap.reliability import Transmission
from vitalgate.coap.site import ResponseError, Route
from vitalgate.engine import Path

REGISTER = 0
DEREGISTER = 1
UNKNOWN = -1
"""The Content-Format of an observation whose client had the representation already (2.03)."""
TICKS = 32768
"""Sequence numbers a second: the clock's ticks that section 4.4 proposes, at most 2^23 in 256 s."""
CON_BITS = VERSION_BITS
NON_BITS = VERSION_BITS | Type.NON << 4

Encode = Callable[[int, int, bytes, Message], bytes]
"""``encode(version and type bits, Message ID, token, message)``: the datagram."""
Resource = tuple[bytes, ...]
"""The segments of its path."""
Seal = Callable[[Message, float], Message]
"""``seal(notification, now)``: what leaves of it where a security layer protects it."""


class Observer:
    """A client: its observations and the notifications that are outstanding with it."""

    __slots__ = ("observations", "outstanding", "peer", "waiting")

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.observations: dict[bytes, Observation] = {}
        """By token."""
        self.outstanding = 0
        self.waiting: OrderedDict[Observation, None] = OrderedDict()
        """Those whose state changed since it was last sent, in the order in which they are to be served."""


class Observation:
    """One entry of the list of observers (section 4.1): the request to answer again and how that goes."""

    __slots__ = (
        "_owner", "block", "checked", "confirmable", "due", "exchange", "format", "given", "identity", "non_mid",
        "observer", "request", "resource", "route", "seal", "sequence", "token", "transmission",
    )  # fmt: skip

    def __init__(
        self, owner: "Observations", observer: Observer, request: Message, route: Route, identity: str, now: float
    ) -> None:
        self._owner = owner
        self.observer = observer
        self.request = request
        self.token = request.token
        self.route = route
        self.identity = identity
        self.resource: Resource = path_segments(request.options)
        self.seal: Seal | None = None
        self.block: Block | None = None
        """The block size that the client asked for (RFC 7959 section 2.6)."""
        self.format: int | None = None
        self.sequence = 0
        self.given: Message | None = None
        """The representation to send next where the application gave it; else the resource is asked for it."""
        self.confirmable = False
        """True where the next notification must be Confirmable."""
        self.checked = now
        """When the client last had to say that it is still there."""
        self.exchange: int | None = None
        """The exchange by which the application gives the representation later."""
        self.transmission: Transmission | None = None
        self.non_mid: int | None = None
        self.due: float | None = None

    def on_due(self, now: float) -> None:
        """A day without a Confirmable notification is over (section 4.5)."""
        self.confirmable = True
        self._owner.changed(self, now)

    def acknowledged(self, now: float) -> None:
        """The client has the notification and wants more."""
        self.checked = now
        self._owner.concluded(self, now)

    def reset(self, now: float) -> None:
        """The client does not want any more."""
        self._owner.remove(self, "reset", now)

    def timed_out(self, now: float) -> None:
        """The client is gone."""
        self._owner.remove(self, "timeout", now)

    def renew(self, transmission: Transmission, now: float) -> None:
        """The notification is about to be sent again; where the state changed since, the new one goes instead."""
        self._owner.renew(self, transmission, now)


class Pause:
    """The time after a Non-confirmable notification during which it counts as outstanding (section 4.5.1)."""

    __slots__ = ("_observer", "_owner", "due")

    def __init__(self, owner: "Observations", observer: Observer) -> None:
        self._owner = owner
        self._observer = observer
        self.due: float | None = None

    def on_due(self, now: float) -> None:
        """The next notification may go."""
        self._owner.free(self._observer, now)


class Observations:
    """The list of observers of a server, of all its resources."""

    __slots__ = ("_by_mid", "_core", "_deferred", "_encode", "_observers", "_resources", "_total", "blocks")

    def __init__(self, core: Core, blocks: BlockServer, encode: Encode) -> None:
        self._core = core
        self._encode = encode
        self.blocks = blocks
        self._observers: dict[Path, Observer] = {}
        self._resources: dict[Resource, dict[Observation, None]] = {}
        self._deferred: dict[int, Observation] = {}
        self._by_mid: dict[tuple[Path, int], Observation] = {}
        self._total = 0

    def __len__(self) -> int:
        return self._total

    # Requests

    def register(
        self, request: Message, whole: Message, response: Message, route: Route, block: Block | None, path: Path,
        identity: str, now: float, *, asked: bool, seal: Seal | None = None,
    ) -> Message:  # fmt: skip
        """Enter the client of ``request`` into the list and return ``response`` with the Observe option; without it
        where the resource cannot be observed (nor did it ask by an Observe option of its own), the request failed, or
        there is no room. ``whole`` is the response before it was cut into blocks, ``seal`` what protects notifications.
        An entry of the same client and token is replaced."""
        old = self.find(path, request.token)
        sequence = None if old is None else old.sequence
        if old is not None:
            self._drop(old, now)
        if response.code >> 5 != 2 or not (route.observable or asked):
            return response
        peer = self._admit(path, now)
        if peer is None:
            return response
        observer = self._observers.get(path)
        if observer is None:
            observer = self._observers[path] = Observer(peer)
            peer.observed = True
        kept = Message(request.code, request.options, request.payload, request.type, request.mid, request.token)
        added = Observation(self, observer, kept, route, identity, now)
        added.seal = seal
        added.block = None if block is None else Block(0, False, block.szx)
        added.format = content_format(whole) if whole.code == Code.CONTENT else UNKNOWN
        added.sequence = self._next(sequence, now)
        observer.observations[added.token] = added
        self._resources.setdefault(added.resource, {})[added] = None
        self._total += 1
        self._core.timers.set(added, now + self._core.parameters.observe_check)
        self._core.counters.add("coap_observations_started")
        return _observed(response, added.sequence)

    def deregister(self, path: Path, token: bytes, now: float) -> None:
        """Remove the entry of this client and token, if there is one (section 4.1)."""
        found = self.find(path, token)
        if found is not None:
            self.remove(found, "deregistered", now)

    def find(self, path: Path, token: bytes) -> Observation | None:
        """The entry of this client and token, or None."""
        observer = self._observers.get(path)
        return None if observer is None else observer.observations.get(token)

    def reset(self, path: Path, mid: int, now: float) -> bool:
        """A Reset message came: True where it was for a Non-confirmable notification, whose observation then ends."""
        found = self._by_mid.get((path, mid))
        if found is None:
            return False
        self.remove(found, "reset", now)
        return True

    # Changes

    def notify(self, resource: Resource, now: float, response: Message | None, *, confirmable: bool | None) -> int:
        """The state of ``resource`` changed; returns how many observe it."""
        observations = list(self._resources.get(resource, ()))
        for observation in observations:
            self._update(observation, now, response, confirmable)
        return len(observations)

    def notify_one(self, path: Path, token: bytes, response: Message, now: float) -> bool:
        """The state that one client observes is ``response`` now; False where it observes nothing by ``token``."""
        found = self.find(path, token)
        if found is None:
            return False
        self._update(found, now, response, None)
        return True

    def _update(self, observation: Observation, now: float, response: Message | None, confirmable: bool | None) -> None:
        observation.given = response
        if observation.exchange is not None:
            # What the application was asked for is not the newest state any more.
            del self._deferred[observation.exchange]
            observation.exchange = None
        if confirmable if confirmable is not None else observation.route.confirmable:
            observation.confirmable = True
        self.changed(observation, now)

    def changed(self, observation: Observation, now: float) -> None:
        """Send the newest state as soon as may be."""
        observation.observer.waiting[observation] = None
        self._pump(observation.observer, now)

    def respond(self, exchange: int, response: Message, now: float) -> bool:
        """The application gives the representation of a notification; False where the exchange is none of these."""
        found = self._deferred.pop(exchange, None)
        if found is None:
            return False
        found.exchange = None
        found.given = response
        self.changed(found, now)
        return True

    def waits_for(self, exchange: int) -> bool:
        """True where `respond` is awaited for this exchange."""
        return exchange in self._deferred

    def concluded(self, observation: Observation, now: float) -> None:
        """A Confirmable notification was acknowledged."""
        observation.transmission = None
        self.free(observation.observer, now)

    def free(self, observer: Observer, now: float) -> None:
        """One notification less is outstanding."""
        observer.outstanding -= 1
        self._pump(observer, now)
        self._release(observer)

    def remove(self, observation: Observation, reason: str, now: float) -> None:
        """Take an entry off the list."""
        if self.find(observation.observer.peer.path, observation.token) is observation:
            self._core.counters.add("coap_observations_ended", reason)
        self._drop(observation, now)

    def renew(self, observation: Observation, transmission: Transmission, now: float) -> None:
        """See `Observation.renew`."""
        observer = observation.observer
        if observation not in observer.waiting or self.find(observer.peer.path, observation.token) is not observation:
            return
        response = self._representation(observation, now)
        mid = None if response is None else observer.peer.mids.take(now, self._core.parameters.exchange_lifetime)
        if response is None or mid is None:
            observation.given = response
            return
        del observer.waiting[observation]
        self._core.counters.add("coap_notifications_superseded")
        finished = self._finished(observation, response, now)
        data = self._encode(CON_BITS, mid, observation.token, finished)
        self._core.reliability.supersede(transmission, mid, data)
        if finished.option(Option.OBSERVE) is None:
            self._forget(observation, "error")

    # How notifications go out

    def _pump(self, observer: Observer, now: float) -> None:
        limit = self._core.parameters.nstart
        ready = [each for each in observer.waiting if each.transmission is None and each.exchange is None]
        for observation in ready:
            if observer.outstanding >= limit:
                return
            if observation in observer.waiting:  # a handler may have ended it meanwhile
                self._send(observation, now)

    def _send(self, observation: Observation, now: float) -> None:
        core = self._core
        observer = observation.observer
        peer = observer.peer
        response = self._representation(observation, now)
        if response is None:
            del observer.waiting[observation]
            return
        mid = peer.mids.take(now, core.parameters.exchange_lifetime)
        if mid is None:
            core.counters.add("coap_limit_reached", "message_ids")
            observer.outstanding += 1
            core.timers.set(Pause(self, observer), max(now, peer.mids.free_at(core.parameters.exchange_lifetime)) + 1)
            observation.given = response
            return
        del observer.waiting[observation]
        overdue = now - observation.checked >= core.parameters.observe_check
        confirmable = (observation.confirmable or overdue) and not core.reliability.full
        finished = self._finished(observation, response, now)
        data = self._encode(CON_BITS if confirmable else NON_BITS, mid, observation.token, finished)
        core.counters.add("coap_notifications_sent")
        peer.heard = now
        observer.outstanding += 1
        if confirmable:
            observation.confirmable = False
            transmission = core.reliability.send(data, peer.path, mid, observation, now)
            transmission.renew = observation.renew
            observation.transmission = transmission
            core.timers.set(observation, now + core.parameters.observe_check)
        else:
            core.outgoing.append((data, peer.path))
            core.timers.set(Pause(self, observer), now + core.parameters.observe_interval)
            if observation.non_mid is not None:
                self._by_mid.pop((peer.path, observation.non_mid), None)
            observation.non_mid = mid
            self._by_mid[peer.path, mid] = observation
        if finished.option(Option.OBSERVE) is None:
            self._forget(observation, "error")

    def _representation(self, observation: Observation, now: float) -> Message | None:
        # What a GET would get now; None where the application is asked for it and answers later.
        given, observation.given = observation.given, None
        if given is not None:
            return given
        request = observation.request
        path = observation.observer.peer.path
        again = Message(request.code, request.options, request.payload, request.type, request.mid, request.token)
        try:
            response = observation.route.handler(again, path, observation.identity, now)
        except ResponseError as error:
            response = error.response()
        if response is None:
            exchange = observation.exchange = self._core.new_exchange()
            self._deferred[exchange] = observation
            self._core.events.append(RequestReceived(exchange, again, path, observation.identity))
        return response

    def _finished(self, observation: Observation, response: Message, now: float) -> Message:
        response = self._complete(observation, response, now)
        return response if observation.seal is None else observation.seal(response, now)

    def _complete(self, observation: Observation, response: Message, now: float) -> Message:
        # Section 4.2: other than success ends the observation, and so does a Content-Format that cannot be kept.
        options = tuple(pair for pair in response.options if pair[0] != Option.OBSERVE)
        response = Message(response.code, options, response.payload)
        if response.code >> 5 != 2:
            return response
        if response.code == Code.CONTENT:
            given = content_format(response)
            if observation.format == UNKNOWN:
                observation.format = given
            elif given != observation.format:
                return Message(Code.NOT_ACCEPTABLE)
        path = observation.observer.peer.path
        response = self.blocks.cut(observation.request, response, observation.block, path, observation.identity, now)
        observation.sequence = self._next(observation.sequence, now)
        return _observed(response, observation.sequence)

    @staticmethod
    def _next(previous: int | None, now: float) -> int:
        # Section 4.4: strictly increasing for one observer; the clock, and one more within a tick.
        tick = int(now * TICKS)
        return tick if previous is None else max(tick, previous + 1)

    # The list

    def _admit(self, path: Path, now: float) -> Peer | None:
        limits = self._core.limits
        observer = self._observers.get(path)
        limit = ""
        if self._total >= limits.observations:
            limit = "observations"
        elif observer is not None and len(observer.observations) >= limits.observations_per_peer:
            limit = "observations_per_peer"
        if limit:
            self._core.counters.add("coap_limit_reached", limit)
            return None
        return self._core.peers.admit(path, now)

    def _drop(self, observation: Observation, now: float) -> None:
        # Nothing of it is sent any more; its share of NSTART is free.
        observer = observation.observer
        transmission = observation.transmission
        if transmission is not None:
            observation.transmission = None
            self._core.reliability.stop(transmission)
            observer.outstanding -= 1
        self._unlist(observation)
        self._pump(observer, now)
        self._release(observer)

    def _forget(self, observation: Observation, reason: str) -> None:
        # Its last notification is on its way still; a retransmission of that must not be renewed.
        self._core.counters.add("coap_observations_ended", reason)
        if observation.transmission is not None:
            observation.transmission.renew = None
        self._unlist(observation)

    def _unlist(self, observation: Observation) -> None:
        observer = observation.observer
        path = observer.peer.path
        if observer.observations.get(observation.token) is not observation:
            return
        del observer.observations[observation.token]
        observer.waiting.pop(observation, None)
        self._total -= 1
        self._core.timers.clear(observation)
        listed = self._resources[observation.resource]
        del listed[observation]
        if not listed:
            del self._resources[observation.resource]
        if observation.exchange is not None:
            del self._deferred[observation.exchange]
        if observation.non_mid is not None:
            self._by_mid.pop((path, observation.non_mid), None)

    def _release(self, observer: Observer) -> None:
        # What is outstanding counts for NSTART even where its observation has ended.
        path = observer.peer.path
        if not observer.observations and observer.outstanding <= 0 and self._observers.get(path) is observer:
            del self._observers[path]
            observer.peer.observed = False


def _observed(response: Message, sequence: int) -> Message:
    value = encode_uint(sequence & 0xFFFFFF)
    return Message(response.code, with_option(response.options, Option.OBSERVE, value), response.payload)

"""The layer above requests of ours: large ones and large responses go in blocks (`transfer`), resources are observed
(`watch`), and a server that said 4.29 is left in peace (RFC 8516). It sits on a `Carrier`: the message layer, or a
security layer on top of that. Plain requests pass it by."""

from collections import OrderedDict
from collections.abc import Hashable
from typing import Protocol

from vitalgate.coap.blocks import MAX_SZX, block_option, szx_of, transfer_key
from vitalgate.coap.client import Owner
from vitalgate.coap.events import Event, Failure, NotificationReceived, RequestFailed, ResponseReceived
from vitalgate.coap.message import Code, Message, is_request
from vitalgate.coap.options import Option, encode_uint, uint_option, without_option
from vitalgate.coap.parameters import Limits, Parameters
from vitalgate.coap.site import SAFE_METHODS
from vitalgate.coap.timers import Timers
from vitalgate.coap.transfer import Transfer
from vitalgate.coap.watch import Watch
from vitalgate.counters import Counters
from vitalgate.engine import Path, Randomness

MAX_AGE = 60
"""Of a response without the option, in seconds (RFC 7252 section 5.10.5)."""
_KIND = frozenset((Option.URI_HOST, Option.URI_PORT, Option.URI_PATH, Option.URI_QUERY))


class Carrier(Protocol):
    """What carries single messages. A response goes to the ``owner`` named with the request."""

    protects: bool
    """True where messages are protected: then no Request-Tag is used twice (RFC 9175 section 3.5.1)."""

    def send(
        self, request: Message, path: Path, identity: str, now: float, owner: Owner, *, confirmable: bool,
        observing: bool,
    ) -> int:  # fmt: skip
        """Send a request and return its number; ``observing``: notifications may follow."""

    def renew(self, exchange: int, request: Message, now: float, *, ending: bool) -> bool:
        """Send a request under the token of one that observes; False where that cannot be now."""

    def drop(self, exchange: int, now: float) -> None:
        """Lose interest in a request; its owner hears nothing."""


class Ground(Protocol):
    """What an endpoint lends to its layers."""

    parameters: Parameters
    limits: Limits
    counters: Counters
    timers: Timers
    randomness: Randomness

    def new_exchange(self) -> int:
        """A number for an exchange."""

    def tell(self, event: Event) -> None:
        """Queue an event for the application."""


class _Call:
    """A request of the application that is carried out by a transfer."""

    __slots__ = ("_calls", "transfer")

    def __init__(self, calls: "Calls") -> None:
        self._calls = calls
        self.transfer: Transfer | None = None

    def answered(self, response: Message, now: float, *, more: bool) -> None:
        """The whole response."""
        if self.transfer is not None:
            self._calls.ended(self.transfer, response, now)

    def failed(self, reason: Failure, now: float) -> None:
        """There is none."""
        if self.transfer is not None:
            self._calls.broke(self.transfer, reason)


class Calls:
    """Requests of ours that are more than one message, by the application's number."""

    __slots__ = (
        "_back_offs", "_carrier", "_ground", "_tags", "_transfers", "_watches", "counters", "limits", "ordered", "szx",
    )  # fmt: skip

    def __init__(self, ground: Ground, carrier: Carrier) -> None:
        self._ground = ground
        self._carrier = carrier
        self.counters = ground.counters
        self.limits = ground.limits
        self.ordered = carrier.protects
        self.szx = szx_of(ground.parameters.block_size)
        self._transfers: dict[int, Transfer] = {}
        self._watches: dict[int, Watch] = {}
        self._back_offs: OrderedDict[Hashable, float] = OrderedDict()
        self._tags = 0

    def __len__(self) -> int:
        return len(self._transfers) + len(self._watches)

    # The application's

    def request(self, request: Message, path: Path, now: float, *, identity: str = "", confirmable: bool) -> int | None:
        """The number of a request that is carried out here; None for one that is a plain message."""
        if self._back_offs and self._holds(request, path, identity, now):
            return self._refuse(path, Failure.BACK_OFF)
        if len(request.payload) <= 16 << self.szx and self.szx == MAX_SZX:
            return None
        if _does_blocks_itself(request):
            return None
        if not is_request(request.code):
            raise ValueError(f"code {request.code} is no request's")
        exchange = self._ground.new_exchange()
        transfer = self._add(exchange, request, path, identity, confirmable=confirmable)
        if transfer is not None:
            transfer.start(now)
        return exchange

    def continues(self, request: Message, response: Message, path: Path, now: float, identity: str = "") -> bool:
        """Whether there is more to do after ``response`` to the plain message ``request``: `resume` does it then."""
        if response.code == Code.TOO_MANY_REQUESTS:
            self.back_off(request, response, path, now, identity)
            return False
        if _does_blocks_itself(request):
            return False
        if response.code == Code.REQUEST_ENTITY_TOO_LARGE:
            most = uint_option(response, Option.SIZE1)
            return len(request.payload) > 16 and (most is None or most >= len(request.payload))
        return response.code >> 5 == 2 and block_option(response, Option.BLOCK2) is not None

    def resume(
        self, exchange: int, request: Message, response: Message, path: Path, now: float, *, identity: str = "",
        confirmable: bool,
    ) -> None:  # fmt: skip
        """Go on with ``exchange`` from the response to its plain message."""
        transfer = self._add(exchange, request, path, identity, confirmable=confirmable)
        if transfer is not None:
            transfer.resume(response, now)

    def observe(self, request: Message, path: Path, now: float, *, identity: str = "", confirmable: bool) -> int:
        """Observe a resource; returns the number of the observation. ValueError for what cannot ask to."""
        if request.code not in SAFE_METHODS:
            raise ValueError("what can be observed is the answer to a GET or a FETCH")
        if len(request.payload) > 16 << self.szx:
            raise ValueError("the question of an observation has to fit one block")
        request = Message(request.code, without_option(request.options, Option.OBSERVE), request.payload)
        if self._back_offs and self._holds(request, path, identity, now):
            return self._refuse(path, Failure.BACK_OFF)
        if len(self._watches) >= self.limits.observing:
            self.counters.add("coap_limit_reached", "observing")
            return self._refuse(path, Failure.LIMIT)
        exchange = self._ground.new_exchange()
        watch = self._watches[exchange] = Watch(self, exchange, request, path, identity, confirmable=confirmable)
        watch.start(now)
        return exchange

    def deregister(self, exchange: int, now: float) -> None:
        """Ask the server to end an observation; harmless where it has ended."""
        watch = self._watches.get(exchange)
        if watch is not None:
            watch.deregister(now)

    def cancel(self, exchange: int, now: float) -> bool:
        """Lose interest; False where the number is none of these."""
        transfer = self._transfers.get(exchange)
        watch = self._watches.get(exchange)
        if transfer is not None:
            transfer.abort(now)
            self.broke(transfer, Failure.CANCELLED)
        elif watch is not None:
            watch.abort(now)
            self.lost(watch, Failure.CANCELLED)
        else:
            return False
        return True

    # For transfers and observations

    def send(self, request: Message, path: Path, identity: str, now: float, owner: Owner, *, confirmable: bool) -> int:
        """See `transfer.Blocks`."""
        return self._carrier.send(request, path, identity, now, owner, confirmable=confirmable, observing=False)

    def subscribe(
        self, request: Message, path: Path, identity: str, now: float, owner: Owner, *, confirmable: bool
    ) -> int:
        """Send a request to observe."""
        return self._carrier.send(request, path, identity, now, owner, confirmable=confirmable, observing=True)

    def renew(self, exchange: int, request: Message, now: float, *, ending: bool) -> bool:
        """See `Carrier.renew`."""
        return self._carrier.renew(exchange, request, now, ending=ending)

    def drop(self, exchange: int, now: float) -> None:
        """See `Carrier.drop`."""
        self._carrier.drop(exchange, now)

    def tell(self, event: Event) -> None:
        """Queue an event."""
        self._ground.tell(event)

    def tag(self, transfer: Transfer) -> bytes | None:
        """RFC 9175 sections 3.5.1, 3.5.2: none, as long as no other body could be taken for this one."""
        key = transfer.path, transfer.identity, transfer_key(transfer.request.code, transfer.request.options)
        others = (
            other
            for other in self._transfers.values()
            if other is not transfer
            and key == (other.path, other.identity, transfer_key(other.request.code, other.request.options))
        )
        if not self._carrier.protects and not transfer.restarts and next(others, None) is None:
            return None
        self._tags += 1
        return encode_uint(self._tags)

    def wake(self, watch: Watch, due: float) -> None:
        """Have ``watch`` called at ``due``."""
        self._ground.timers.set(watch, due)

    def rest(self, watch: Watch) -> None:
        """Have ``watch`` not called."""
        self._ground.timers.clear(watch)

    def random(self) -> float:
        """A number from 0 to 1."""
        return int.from_bytes(self._ground.randomness(2), "big") / 65535

    def ended(self, transfer: Transfer, response: Message, now: float) -> None:
        """The whole response of a call is there."""
        if self._transfers.pop(transfer.exchange, None) is not None:
            if response.code == Code.TOO_MANY_REQUESTS:
                self.back_off(transfer.request, response, transfer.path, now, transfer.identity)
            self.tell(ResponseReceived(transfer.exchange, response, transfer.path))

    def broke(self, transfer: Transfer, reason: Failure) -> None:
        """A call has failed."""
        if self._transfers.pop(transfer.exchange, None) is not None:
            self.tell(RequestFailed(transfer.exchange, transfer.path, reason))

    def notified(self, watch: Watch, response: Message) -> None:
        """A new state of what ``watch`` observes."""
        self.tell(NotificationReceived(watch.exchange, response, watch.path))

    def concluded(self, watch: Watch, response: Message, now: float) -> None:
        """An observation ended with a last response."""
        if self._watches.pop(watch.exchange, None) is not None:
            if response.code == Code.TOO_MANY_REQUESTS:
                self.back_off(watch.request, response, watch.path, now, watch.identity)
            self.tell(ResponseReceived(watch.exchange, response, watch.path))

    def lost(self, watch: Watch, reason: Failure) -> None:
        """An observation ended without one."""
        if self._watches.pop(watch.exchange, None) is not None:
            self.tell(RequestFailed(watch.exchange, watch.path, reason))

    def back_off(self, request: Message, response: Message, path: Path, now: float, identity: str) -> None:
        """The server answered 4.29: nothing like ``request`` goes to it before Max-Age is over (RFC 8516 section 4)."""
        age = uint_option(response, Option.MAX_AGE)
        if len(self._back_offs) >= self.limits.back_offs:
            self.counters.add("coap_limit_reached", "back_offs")
            self._back_offs.popitem(last=False)
        self._back_offs[_kind(request, path, identity)] = now + (MAX_AGE if age is None else age)

    def _holds(self, request: Message, path: Path, identity: str, now: float) -> bool:
        kind = _kind(request, path, identity)
        until = self._back_offs.get(kind)
        if until is None:
            return False
        if now >= until:
            del self._back_offs[kind]
            return False
        self.counters.add("coap_back_offs")
        return True

    def _refuse(self, path: Path, reason: Failure) -> int:
        exchange = self._ground.new_exchange()
        self.counters.add("coap_requests_failed", reason.value)
        self.tell(RequestFailed(exchange, path, reason))
        return exchange

    def _add(self, exchange: int, request: Message, path: Path, identity: str, *, confirmable: bool) -> Transfer | None:
        if len(self._transfers) >= self.limits.transfers:
            self.counters.add("coap_limit_reached", "transfers")
            self.counters.add("coap_requests_failed", Failure.LIMIT.value)
            self.tell(RequestFailed(exchange, path, Failure.LIMIT))
            return None
        call = _Call(self)
        transfer = Transfer(self, exchange, request, path, identity, call, confirmable=confirmable)
        call.transfer = transfer
        self._transfers[exchange] = transfer
        self.counters.add("coap_transfers")
        return transfer


def _kind(request: Message, path: Path, identity: str) -> Hashable:
    return path, identity, request.code, tuple(pair for pair in request.options if pair[0] in _KIND)


def _does_blocks_itself(request: Message) -> bool:
    # The application, or the client of a proxy, that names blocks gets what it asks for, message by message.
    return any(number in (Option.BLOCK1, Option.BLOCK2) for number, _ in request.options)

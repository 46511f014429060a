"""What a proxy observes at origin servers for its clients (RFC 7641 section 5): once for all who ask the same.

The proxy is a client of the origin server's list of observers, and its own endpoints keep lists for its clients. A
client that left is noticed at the next notification; with the last one the proxy leaves too.
"""

from dataclasses import dataclass, field

from vitalgate.coap.cache import CacheKey, max_age
from vitalgate.coap.endpoint import Endpoint
from vitalgate.coap.message import Code, Message
from vitalgate.coap.options import Option, build_options, encode_uint, sort_options, with_option
from vitalgate.coap.proxyrequest import Plan
from vitalgate.engine import Path

ENDED_SECONDS = 0
"""Max-Age of the 5.03 that ends the observations of clients whose origin server does not let us observe any longer:
they may ask again at once."""


@dataclass(frozen=True, slots=True)
class Client:
    """Somebody who observes through the proxy: the endpoint that it speaks to, its path there, its token."""

    front: Endpoint
    path: Path
    token: bytes


@dataclass(slots=True)
class Watch:
    """One resource that is observed at its origin server."""

    key: CacheKey
    plan: Plan
    back: Endpoint
    exchange: int
    latest: Message
    received: float
    clients: dict[Client, None] = field(default_factory=dict)

    def state(self, now: float) -> Message:
        """The newest state, with what is left of its Max-Age."""
        left = max(0, int(max_age(self.latest) - (now - self.received)))
        options = with_option(self.latest.options, Option.MAX_AGE, encode_uint(left))
        return Message(self.latest.code, options, self.latest.payload)


def observed(response: Message) -> Message:
    """``response`` as the one that makes its client an observer."""
    options = sort_options([*response.options, (int(Option.OBSERVE), b"")])
    return Message(response.code, options, response.payload)


class Watches:
    """The table of what is observed, at most ``most``."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._by_key: dict[CacheKey, Watch] = {}
        self._by_exchange: dict[tuple[int, int], Watch] = {}

    def __len__(self) -> int:
        return len(self._by_key)

    def get(self, key: CacheKey) -> Watch | None:
        """What is observed by this Cache-Key, or None."""
        return self._by_key.get(key)

    def find(self, back: Endpoint, exchange: int) -> Watch | None:
        """What is observed by this exchange, or None."""
        return self._by_exchange.get((id(back), exchange))

    def full(self, more: int) -> bool:
        """True where there is no room for ``more`` than there are."""
        return len(self._by_key) + more >= self._most

    def add(self, watch: Watch) -> None:
        """Enter one that is not in the table."""
        self._by_key[watch.key] = watch
        self._by_exchange[id(watch.back), watch.exchange] = watch

    def remove(self, watch: Watch) -> None:
        """Take one out."""
        del self._by_key[watch.key]
        del self._by_exchange[id(watch.back), watch.exchange]

    def changed(self, watch: Watch, response: Message, now: float) -> None:
        """Tell the clients the newest state; where none is left, leave the origin server's list."""
        watch.latest, watch.received = response, now
        for client in list(watch.clients):
            if not client.front.notify_client(client.path, client.token, response, now):
                del watch.clients[client]
        if not watch.clients:
            self.remove(watch)
            watch.back.deregister(watch.exchange, now)

    def ended(self, watch: Watch, response: Message, now: float) -> None:
        """The origin server does not let us observe any longer: neither can the clients. ``response`` says why where it
        is an error."""
        self.remove(watch)
        if response.code >> 5 == 2:
            response = Message(Code.SERVICE_UNAVAILABLE, build_options(max_age=ENDED_SECONDS))
        for client in watch.clients:
            client.front.notify_client(client.path, client.token, response, now)

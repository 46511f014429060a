"""`Endpoint`: RFC 7252's message layer, client and server at once, as one sans-IO engine."""

import os
import time
from collections.abc import Callable
from typing import Protocol

from vitalgate.coap.blocks import BLOCK_OPTIONS
from vitalgate.coap.blockserver import BlockServer
from vitalgate.coap.calls import Calls
from vitalgate.coap.client import Client
from vitalgate.coap.codec import HEADER, VERSION_BITS
from vitalgate.coap.core import Core
from vitalgate.coap.deduplication import FOREVER
from vitalgate.coap.events import Event
from vitalgate.coap.forwarding import Forwarding
from vitalgate.coap.groupclient import GroupClient
from vitalgate.coap.message import Message, Type, is_response
from vitalgate.coap.multicast import GroupPath, GroupServer
from vitalgate.coap.observe import Observations
from vitalgate.coap.options import Option, uint_option, uri_path
from vitalgate.coap.parameters import Limits, Parameters
from vitalgate.coap.server import FIRST_NON, Server
from vitalgate.coap.site import Site
from vitalgate.counters import Counters
from vitalgate.engine import Datagram, DatagramEngine, Path, Randomness, Wall

FIRST_ACK = VERSION_BITS | Type.ACK << 4
FIRST_RST = VERSION_BITS | Type.RST << 4
_NO_RESPONSE = int(Option.NO_RESPONSE)
PURGE_EVERY = 1.0
"""Idle endpoints are woken no more often than this, in seconds, to forget what has expired."""


class MessageEndpoint(DatagramEngine, Protocol):
    """What an application sees of an endpoint, with or without a security layer round it."""

    def request(self, request: Message, path: Path, now: float, *, confirmable: bool = True) -> int:
        """Send a request and return its exchange number; `ResponseReceived` or `RequestFailed` follows."""

    def cancel(self, exchange: int, now: float) -> None:
        """Lose interest in a request."""

    def respond(self, exchange: int, response: Message, now: float) -> None:
        """Answer a `RequestReceived`."""

    def next_event(self) -> Event | None:
        """The oldest event, or None."""


class Endpoint:
    """One CoAP endpoint for any number of peers; every method is one of the engine's five calls or the application's.

    ``site`` answers requests; without one each becomes a `RequestReceived`. ``verify_addresses`` holds responses to
    addresses that have not shown to receive them to RFC 9175 section 2.4, except where ``trusted(path)`` is true.
    ``understands`` are numbers of critical options that a layer above takes care of (OSCORE, Block). With
    ``accepts(exchange, response, path)`` it ignores a response that it cannot verify: the request stays under way then.
    Without ``extensions`` it knows neither blocks (RFC 7959) nor observations (RFC 7641): a layer above has its own.
    ``forwarding`` makes it the side of a proxy that clients speak to, ``relays`` the side that asks origin servers.
    """

    def __init__(
        self,
        *,
        parameters: Parameters = Parameters(),  # noqa: B008  # frozen
        limits: Limits = Limits(),  # noqa: B008  # frozen
        site: Site | None = None,
        counters: Counters | None = None,
        randomness: Randomness = os.urandom,
        wall: Wall = time.time,
        verify_addresses: bool = True,
        trusted: Callable[[Path], bool] | None = None,
        understands: frozenset[int] = frozenset(),
        accepts: Callable[[int, Message, Path], bool] | None = None,
        extensions: bool = True,
        forwarding: Forwarding | None = None,
        relays: bool = False,
    ) -> None:
        self.counters = Counters() if counters is None else counters
        self.wall = wall
        """For layers above; RFC 7252 itself needs no date."""
        if extensions:
            understands |= BLOCK_OPTIONS
        self._core = Core(parameters, limits, self.counters, randomness, understands, accepts)
        self._core.forwarding = forwarding
        self._core.relays = relays
        self._deduplication = self._core.deduplication
        self._outgoing = self._core.outgoing
        self._client = Client(self._core)
        self._calls = Calls(self._core, self._client) if extensions else None
        self._core.calls = self._calls
        self._server = Server(self._core, site, trusted, gate=verify_addresses, extensions=extensions)
        self._group_server = GroupServer(self._core, self._server, site)
        self._group_client = GroupClient(self._core)
        self._core.group_response = self._group_client.respond

    # The engine's five calls

    def receive_datagram(self, data: bytes, path: Path, now: float) -> None:
        """Feed one datagram. What is wrong with it is counted by reason and answered as the RFC says."""
        if now >= self._deduplication.next_purge:
            self._deduplication.purge(now)
        if len(data) < HEADER.size:
            self._core.reject(path, 0, "short", reset=False)
            return
        first, code, mid = HEADER.unpack_from(data)
        if first & 0xC0 != VERSION_BITS:
            self._core.reject(path, mid, "version", reset=False)
        elif first >= FIRST_ACK:
            if first >= FIRST_RST:
                self._client.receive_reset(data, path, now, mid)
            else:
                self._client.receive_acknowledgement(data, path, now, mid)
        elif 0 < code < 32:
            self._server.receive(data, path, now, first, code, mid)
        elif is_response(code):
            self._client.receive_response(data, path, now, Type.CON if first < FIRST_NON else Type.NON, mid)
        else:
            self._receive_empty_or_reserved(data, path, first, code, mid)

    def receive_multicast(self, data: bytes, path: GroupPath, now: float) -> None:
        """Feed one datagram that was sent to a group (RFC 7252 section 8); drivers know, for they joined it. Resources
        that were added with ``groups`` answer such requests, a while later, to ``path.peer``."""
        if now >= self._deduplication.next_purge:
            self._deduplication.purge(now)
        self._group_server.receive(data, path, now)

    def datagrams_to_send(self, now: float) -> list[Datagram]:
        """Take what is to be sent now."""
        taken = self._outgoing[:]
        self._outgoing.clear()
        return taken

    def next_timeout(self) -> float | None:
        """The one deadline that matters next, or None."""
        due = self._core.timers.next()
        purge = self._deduplication.next_purge
        if purge == FOREVER:
            return due
        return purge + PURGE_EVERY if due is None else min(due, purge + PURGE_EVERY)

    def handle_timeout(self, now: float) -> None:
        """A deadline has passed; harmless when it has not."""
        if now >= self._deduplication.next_purge:
            self._deduplication.purge(now)
        self._core.timers.run(now)

    def next_event(self) -> Event | None:
        """Take the oldest event, or None."""
        return self._core.events.popleft() if self._core.events else None

    # The application's

    def request(self, request: Message, path: Path, now: float, *, confirmable: bool = True) -> int:
        """Send a request and return its exchange number; `ResponseReceived` or `RequestFailed` follows, or where its
        No-Response option wants nothing back (RFC 7967) `RequestSent`. Its type, Message ID and token are chosen here.
        What is larger than a block goes in blocks either way (RFC 7959; `TransferProgressed` tells how far it is),
        unless the request names blocks itself. ValueError for what is no request or cannot be encoded."""
        quiet = 0
        if self._calls is not None:
            exchange = self._calls.request(request, path, now, confirmable=confirmable)
            if exchange is not None:
                return exchange
            options = request.options
            if options and options[-1][0] >= _NO_RESPONSE:
                quiet = uint_option(request, _NO_RESPONSE) or 0
        return self._client.request(request, path, now, confirmable=confirmable, quiet=quiet)

    def observe(self, request: Message, path: Path, now: float, *, confirmable: bool = True) -> int:
        """Observe the resource that a GET or FETCH asks for (RFC 7641) and return the exchange number: each state comes
        as `NotificationReceived`, in order and whole. The registration is renewed when Max-Age is over, until
        `deregister` or `cancel`, or until `ResponseReceived` or `RequestFailed` says that it has ended. ValueError for
        another method, for a payload larger than a block, and where the layer above has the observations."""
        if self._calls is None:
            raise ValueError("this endpoint leaves observations to the layer above")
        return self._calls.observe(request, path, now, confirmable=confirmable)

    def deregister(self, exchange: int, now: float) -> None:
        """End an observation by asking the server to (RFC 7641 section 3.6): `ResponseReceived` with its answer, of
        which a large one is the first block, or `RequestFailed` follows. Harmless where it has ended."""
        if self._calls is not None:
            self._calls.deregister(exchange, now)

    def cancel(self, exchange: int, now: float) -> None:
        """Lose interest in a request: `RequestFailed` with `Failure.CANCELLED`; nothing where it has ended. What is
        observed is forgotten, and the next notification rejected, which tells the server (RFC 7641 section 3.6)."""
        if self._calls is not None and self._calls.cancel(exchange, now):
            return
        if not self._group_client.cancel(exchange):
            self._client.cancel(exchange, now)

    def has_message_id(self, path: Path, now: float) -> bool:
        """False where a request to ``path`` would have to wait for a Message ID (RFC 7252 section 4.4)."""
        peer = self._core.peers.get(path)
        return peer is None or peer.mids.free_at(self._core.parameters.exchange_lifetime) <= now

    def request_group(self, request: Message, group: Path, now: float, *, wait: float | None = None) -> int:
        """Send a Non-confirmable request to ``group`` and return its exchange number. Each server that answers within
        ``wait`` seconds (two DEFAULT_LEISURE where None) gives a `ResponseReceived` with its own path; then
        `GroupRequestEnded` comes. ValueError for what is no request, has an ETag or cannot be encoded."""
        wait = 2 * self._core.parameters.default_leisure if wait is None else wait
        return self._group_client.request(request, group, now, wait)

    def respond(self, exchange: int, response: Message, now: float) -> None:
        """Answer a `RequestReceived`: piggybacked if in time, else separate (RFC 7252 section 5.2). One that nobody
        waits for any more is counted and dropped. ValueError for what is no response or cannot be encoded."""
        if not self._group_server.respond(exchange, response, now):
            self._server.respond(exchange, response, now)

    def notify(self, path: str, now: float, response: Message | None = None, *, confirmable: bool | None = None) -> int:
        """Say that the state of resource ``path`` changed (RFC 7641 section 4.2), as `Site.notify` does for every
        endpoint of a site; returns how many observe it. Without ``response`` the resource's handler is asked, or where
        that answers later or there is no site, a `RequestReceived` comes for each of them."""
        segments = tuple(segment for _, segment in uri_path(path))
        return self._server.notify(segments, now, response, confirmable)

    def notify_client(self, path: Path, token: bytes, response: Message, now: float) -> bool:
        """The same for one observer alone, by the token of its request: where what it observes is no resource of a
        site but a proxy's. False where it observes no longer."""
        return self._server.notify_client(path, token, response, now)

    # For a layer above that has blocks and observations of its own

    @property
    def client(self) -> Client:
        """What carries single requests (`calls.Carrier`)."""
        return self._client

    def observations_over(self, blocks: BlockServer) -> Observations:
        """A list of observers whose notifications go out here, cut up by ``blocks``."""
        found = Observations(self._core, blocks, self._server.encode)
        self._core.reset_notification = found.reset
        return found

    def _receive_empty_or_reserved(self, data: bytes, path: Path, first: int, code: int, mid: int) -> None:
        # RFC 7252 sections 4.1 to 4.3: rejected; an Empty Confirmable message is a ping, and Reset its pong.
        confirmable = first < FIRST_NON
        if code:
            reason = "reserved_code"
        elif len(data) > HEADER.size or first & 15:
            reason = "empty_with_data"
        elif confirmable:
            self.counters.add("coap_pings")
            self._core.reset(path, mid)
            return
        else:
            reason = "empty_non"
        self._core.reject(path, mid, reason, reset=confirmable)

"""CoAP for asyncio programs: `CoapClient` and `CoapServer`, thin over `coap.Endpoint` and the UDP driver.

>>> import asyncio
>>> async def main() -> bytes:
...     site = Site()
...     site.add("hello", lambda request, path, identity, now: Message(Code.CONTENT, (), b"hi"), methods=[Code.GET])
...     async with CoapServer(site) as server, CoapClient() as client:
...         host, port = server.bind("127.0.0.1", 0)
...         response = await client.get(f"coap://{host}:{port}/hello")
...         return response.payload
>>> asyncio.run(main())
b'hi'
"""

import asyncio
import contextlib
import ipaddress
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable
from types import TracebackType
from typing import Any, NamedTuple, Self, TypedDict, Unpack

from vitalgate.coap.endpoint import Endpoint, MessageEndpoint
from vitalgate.coap.events import RequestReceived
from vitalgate.coap.message import Code, Message
from vitalgate.coap.options import build_options
from vitalgate.coap.parameters import Limits, Parameters
from vitalgate.coap.site import METHODS, Handler, ResponseError, Route, Site
from vitalgate.coap.uri import UriError, parse_uri
from vitalgate.counters import Counters
from vitalgate.engine import Path
from vitalgate.net.groups import ALL_COAP_NODES, Answer, GroupMembership, ask_group, group_socket, is_group
from vitalgate.net.requests import Progress, RequestError, Requests
from vitalgate.net.udp import AddressError, SocketAddress, UdpDriver, bind, client_socket, resolve

__all__ = ["AsyncHandler", "CoapClient", "CoapServer", "How", "RequestError", "is_loopback"]

AsyncHandler = Callable[[Message], Awaitable[Message]]
"""``await handler(request)`` gives the response; it may raise `ResponseError`."""

MAX_KNOWN_PEERS = 1024
"""Peers whose socket a client keeps in mind; with more of them the table is emptied and filled anew."""


class How(TypedDict, total=False):
    """What a request may have besides method, URI and payload."""

    content_format: int
    """Content-Format of the payload."""
    accept: int
    """Content-Format wanted."""
    options: Iterable[tuple[int, bytes]]
    """Any other options as (number, value)."""
    confirmable: bool
    """False: a Non-confirmable message, sent once."""
    progress: Progress
    """Called as a block-wise transfer goes on (RFC 7959)."""


class Source(NamedTuple):
    """One port that a client speaks from."""

    host: str
    endpoint: Endpoint
    requests: Requests


class CoapClient:
    """A CoAP client: an asynchronous context manager. One socket for each local address that it speaks from, and up to
    ``source_ports`` of them towards a server that is asked more than 265 times a second for minutes.

    Requests to one server wait for each other as NSTART says (RFC 7252 section 4.7). Cancelling the awaiting task, for
    example by ``asyncio.timeout``, cancels the request.
    """

    def __init__(
        self,
        *,
        parameters: Parameters = Parameters(),  # noqa: B008  # frozen
        limits: Limits = Limits(),  # noqa: B008  # frozen
        counters: Counters | None = None,
        source_ports: int = 16,
    ) -> None:
        self.counters = Counters() if counters is None else counters
        self._parameters = parameters
        self._limits = limits
        self._source_ports = source_ports
        self._sockets: dict[str, list[Source]] = {}
        """Local address to the ports in use there."""
        self._by_peer: dict[Path, Source] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the sockets; requests under way fail with `Failure.CANCELLED`."""
        for sources in self._sockets.values():
            for source in sources:
                source.requests.close()
        self._sockets.clear()
        self._by_peer.clear()

    async def request(self, code: int, uri: str, payload: bytes = b"", **how: Unpack[How]) -> Message:
        """Send a request with method ``code`` to ``uri`` ('coap://host/path?query') and return the response.

        Raises `RequestError` where there is none, `UriError` for a URI that cannot be asked, `AddressError` for a host
        that is not found. What is too large for a message goes in blocks, either way (RFC 7959). With a No-Response
        option that wants nothing back (RFC 7967) the result is an Empty message (code 0.00).
        """
        request, path = await _message(code, uri, payload, how)
        return await self._requests(path).send(
            request, path, uri, confirmable=how.get("confirmable", True), progress=how.get("progress")
        )

    async def observe(
        self, uri: str, payload: bytes = b"", *, code: int = Code.GET, **how: Unpack[How]
    ) -> AsyncGenerator[Message, None]:
        """Observe a resource (RFC 7641): yields its state now and each later one, in order and whole. Where the server
        ends it, or cannot have it observed, its last response is the last to come. Leaving the loop deregisters; who
        reads slowly misses the oldest states. ``code``: GET or FETCH. Raises as `request` does."""
        request, path = await _message(code, uri, payload, how)
        confirmable = how.get("confirmable", True)
        states = self._requests(path).observe(request, path, uri, confirmable=confirmable, progress=how.get("progress"))
        async with contextlib.aclosing(states):
            async for state in states:
                yield state

    async def get(self, uri: str, **how: Unpack[How]) -> Message:
        """GET (RFC 7252 section 5.8.1)."""
        return await self.request(Code.GET, uri, **how)

    async def post(self, uri: str, payload: bytes = b"", **how: Unpack[How]) -> Message:
        """POST (RFC 7252 section 5.8.2)."""
        return await self.request(Code.POST, uri, payload, **how)

    async def put(self, uri: str, payload: bytes = b"", **how: Unpack[How]) -> Message:
        """PUT (RFC 7252 section 5.8.3)."""
        return await self.request(Code.PUT, uri, payload, **how)

    async def delete(self, uri: str, **how: Unpack[How]) -> Message:
        """DELETE (RFC 7252 section 5.8.4)."""
        return await self.request(Code.DELETE, uri, **how)

    async def fetch(self, uri: str, payload: bytes = b"", **how: Unpack[How]) -> Message:
        """FETCH: a GET whose question is in the payload (RFC 8132 section 2)."""
        return await self.request(Code.FETCH, uri, payload, **how)

    async def patch(self, uri: str, payload: bytes = b"", **how: Unpack[How]) -> Message:
        """PATCH: change a part (RFC 8132 section 3)."""
        return await self.request(Code.PATCH, uri, payload, **how)

    async def ipatch(self, uri: str, payload: bytes = b"", **how: Unpack[How]) -> Message:
        """iPATCH: change a part, and doing it twice does no harm (RFC 8132 section 3)."""
        return await self.request(Code.IPATCH, uri, payload, **how)

    async def ask_group(
        self,
        code: int,
        uri: str,
        payload: bytes = b"",
        *,
        wait: float | None = None,
        interface: str = "",
        **how: Unpack[How],
    ) -> AsyncIterator[Answer]:
        """Send a request to the group that ``uri`` names (coap://224.0.1.187/...) by ``interface`` and yield what each
        server answers within ``wait`` seconds (two DEFAULT_LEISURE where None). Raises as `request` does, and
        `GroupRequestError`."""
        target = parse_uri(uri)
        if target.scheme != "coap" or not is_group(target.host):
            raise UriError(f"{uri!r} names no group")
        pairs = [*target.options, *how.get("options", ())]
        options = build_options(content_format=how.get("content_format"), accept=how.get("accept"), more=pairs)
        endpoint = Endpoint(parameters=self._parameters, limits=self._limits, counters=self.counters)
        group = await _resolve(target.host, target.port)
        async for answer in ask_group(endpoint, Message(code, options, payload), group, wait=wait, interface=interface):
            yield answer

    def _requests(self, path: SocketAddress) -> Requests:
        found = self._by_peer.get(path)
        now = asyncio.get_running_loop().time()
        if found is not None and found.endpoint.has_message_id(path, now):
            return found.requests
        sock = None
        if found is None:
            sock = client_socket(path)
            host = sock.getsockname()[0]
        else:
            host = found.host
        sources = self._sockets.setdefault(host, [])
        # RFC 7252 section 4.4: no Message ID twice within EXCHANGE_LIFETIME, which is 65,536 messages from one port in
        # 247 s; beyond that other ports serve, and when all are in use the request waits.
        found = next((source for source in sources if source.endpoint.has_message_id(path, now)), None)
        if found is None and len(sources) < self._source_ports:
            endpoint = Endpoint(parameters=self._parameters, limits=self._limits, counters=self.counters)
            requests = Requests(endpoint, client_socket(path) if sock is None else sock, self.counters)
            found = Source(host, endpoint, requests)
            sources.append(found)
        elif sock is not None:
            sock.close()
        found = found or sources[0]
        if len(self._by_peer) >= MAX_KNOWN_PEERS:
            self._by_peer.clear()
        self._by_peer[path] = found
        return found.requests


def is_loopback(path: Path) -> bool:
    """True where a datagram to ``path`` stays on this machine, so that nobody else can be flooded by it."""
    host = path[0] if isinstance(path, tuple) else ""
    return host.startswith("127.") or host in ("::1", "::ffff:127.0.0.1")


class CoapServer:
    """Serves a `Site` on any number of sockets: an asynchronous context manager, closed on the way out.

    A plain function given to ``site.add`` answers inside the receiving callback, which is the fast way; a coroutine
    given to `add` may wait. Addresses that have not shown that they receive what is sent to them get small answers
    only (RFC 9175 section 2.4) while ``verify_addresses`` holds, except those that ``trusted`` says yes to.
    """

    def __init__(
        self,
        site: Site | None = None,
        *,
        parameters: Parameters = Parameters(),  # noqa: B008  # frozen
        limits: Limits = Limits(),  # noqa: B008  # frozen
        counters: Counters | None = None,
        verify_addresses: bool = True,
        trusted: Callable[[Path], bool] | None = is_loopback,
    ) -> None:
        self.site = Site() if site is None else site
        self.counters = Counters() if counters is None else counters
        self._parameters = parameters
        self._limits = limits
        self._verify = verify_addresses
        self._trusted = trusted
        self._drivers: list[UdpDriver] = []
        self._endpoints: list[Endpoint] = []
        self._groups: list[GroupMembership] = []
        self._coroutines: dict[Handler, AsyncHandler] = {}
        self._tasks: set[asyncio.Task[Message]] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def add(self, path: str, handler: AsyncHandler, *, methods: Iterable[int] = METHODS, **more: Any) -> None:
        """Serve ``methods`` of ``path`` with a coroutine; ``more`` is what `Site.add` takes besides.

        The request is acknowledged by itself where the coroutine takes longer than ``piggyback_window``; an exception
        other than `ResponseError` is reported to the event loop and answered 5.00.
        """

        def later(_request: Message, _path: Path, _identity: str, _now: float) -> None:
            return None

        self.site.add(path, later, methods=methods, **more)
        self._coroutines[later] = handler

    def bind(self, host: str, port: int = 5683) -> tuple[str, int]:
        """Serve ``host``:``port`` (0: a free port) from now on and return the address. Raises `AddressError`."""
        endpoint = Endpoint(
            parameters=self._parameters, limits=self._limits, site=self.site, counters=self.counters,
            verify_addresses=self._verify, trusted=self._trusted,
        )  # fmt: skip
        clock = asyncio.get_running_loop().time
        sock = bind(host, port)

        def take_events(now: float) -> None:
            while (event := endpoint.next_event()) is not None:
                if isinstance(event, RequestReceived):
                    self._start(endpoint, event, now, turn)

        def turn() -> None:
            driver.turn()

        driver = UdpDriver(endpoint, sock, on_turn=take_events, counters=self.counters, clock=clock)
        self._drivers.append(driver)
        self._endpoints.append(endpoint)
        return driver.address

    def join(self, group: str = ALL_COAP_NODES, port: int = 5683, interface: str = "") -> None:
        """Also answer requests that are sent to ``group``:``port`` (RFC 7252 section 8) on ``interface``, from the
        address that `bind` gave first: those for `.well-known/core` and for resources added with ``groups``. Raises
        `AddressError`."""
        sock = group_socket(group, port, interface)
        self._groups.append(GroupMembership(self._endpoints[0], sock, self._drivers[0].turn, self.counters))

    def notify(self, path: str, response: Message | None = None, *, confirmable: bool | None = None) -> int:
        """Say that the state of ``path`` changed: whoever observes it gets a notification (RFC 7641 section 4.2), with
        ``response`` or what the resource's handler answers; returns how many they are. See `Site.notify`."""
        loop = asyncio.get_running_loop()
        count = self.site.notify(path, loop.time(), response, confirmable=confirmable)
        for driver in self._drivers:
            loop.call_soon(driver.turn)  # later, for a handler may say so, whose own response goes first
        return count

    async def serve(self, host: str, port: int = 5683) -> None:
        """Serve ``host``:``port`` until cancelled. Raises `AddressError`."""
        self.bind(host, port)
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            self.close()

    def close(self) -> None:
        """Close the sockets; coroutines that are answering are cancelled."""
        for membership in self._groups:
            membership.close()
        self._groups.clear()
        for driver in self._drivers:
            driver.close()
        self._drivers.clear()
        self._endpoints.clear()
        for task in self._tasks:
            task.cancel()

    def _start(self, endpoint: MessageEndpoint, event: RequestReceived, now: float, turn: Callable[[], None]) -> None:
        route = self.site.find(event.request.code, event.request.options)
        handler = self._coroutines.get(route.handler) if isinstance(route, Route) else None
        if handler is None:  # a plain handler that returned None
            endpoint.respond(event.exchange, Message(Code.INTERNAL_SERVER_ERROR), now)
            return
        loop = asyncio.get_running_loop()

        def answered(task: asyncio.Task[Message]) -> None:
            self._tasks.discard(task)
            if task.cancelled():
                return
            error = task.exception()
            if error is None:
                response = task.result()
            elif isinstance(error, ResponseError):
                response = error.response()
            else:
                loop.call_exception_handler({"message": "a CoAP handler failed", "exception": error, "task": task})
                response = Message(Code.INTERNAL_SERVER_ERROR)
            endpoint.respond(event.exchange, response, loop.time())
            turn()

        # Bounded by `Limits.deferred`: beyond it the engine answers 5.03 and there is no event.
        task = loop.create_task(_await(handler(event.request)))
        self._tasks.add(task)
        task.add_done_callback(answered)


async def _message(code: int, uri: str, payload: bytes, how: How) -> tuple[Message, SocketAddress]:
    target = parse_uri(uri)
    if target.scheme != "coap":
        raise UriError(f"{uri!r}: this client speaks coap, not {target.scheme}")
    pairs = [*target.options, *how.get("options", ())]
    options = build_options(content_format=how.get("content_format"), accept=how.get("accept"), more=pairs)
    return Message(code, options, payload), await _resolve(target.host, target.port)


async def _await(awaitable: Awaitable[Message]) -> Message:
    return await awaitable


async def _resolve(host: str, port: int) -> SocketAddress:
    # As the kernel will name the peer: an IPv6 address has more than one spelling.
    try:
        version = ipaddress.ip_address(host).version
    except ValueError:
        pass
    else:
        return (host, port) if version == 4 else resolve(host, port)[1]
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_DGRAM)
    except (OSError, UnicodeError) as error:
        raise AddressError(f"{host!r} port {port}: {error}") from error
    return found[0][4]  # type: ignore[return-value]  # the stubs also name Bluetooth's forms

"""`CoapProxy`: `coap.proxy.Proxy` on real sockets, for asyncio programs.

A name is looked up once for each request. The addresses found are judged by the policy, and the one that passes is the
one that is spoken to.
"""

import asyncio
import os
import socket
from collections.abc import Callable, Coroutine, Sequence
from types import TracebackType
from typing import Any, Final, Self

from vitalgate.coap.cache import CacheLimits, ResponseCache
from vitalgate.coap.endpoint import Endpoint
from vitalgate.coap.message import Code, Message
from vitalgate.coap.parameters import Limits, Parameters
from vitalgate.coap.proxy import Proxy
from vitalgate.coap.proxyevents import HttpAsk, LocalRequest, ProxyEvent, ProxyLimits, Resolve, Trouble
from vitalgate.coap.proxypolicy import Policy
from vitalgate.coap.proxyrequest import HOP_LIMIT, ReverseRoute
from vitalgate.coap.site import Site
from vitalgate.counters import Counters
from vitalgate.engine import Path
from vitalgate.net.coap import is_loopback
from vitalgate.net.udp import AddressError, SocketAddress, UdpDriver, bind, client_socket, resolve

MAX_LOOKUPS: Final = 64
"""Names being looked up at once, also for clients that are not waiting any more. Full: 5.03."""
MAX_KNOWN_TARGETS: Final = 1024
"""Targets whose socket is kept in mind; with more of them the table is emptied and filled anew."""

HttpClient = Callable[[HttpAsk], Coroutine[Any, Any, Message | Trouble]]
"""Asks an HTTP server."""


class CoapProxy:
    """A CoAP proxy: an asynchronous context manager. What it is for is in `Proxy`, whose arguments it takes.

    Clients whose address is not verified (RFC 9175 section 2.4) have nothing forwarded before they answered an Echo
    challenge, except those that ``trusted`` says yes to. ``http`` asks HTTP servers; with it the schemes http and
    https are served.
    """

    def __init__(
        self,
        policy: Policy,
        *,
        routes: Sequence[ReverseRoute] = (),
        http: HttpClient | None = None,
        limits: Limits = Limits(),  # noqa: B008  # frozen
        proxy_limits: ProxyLimits = ProxyLimits(),  # noqa: B008  # frozen
        cache_limits: CacheLimits = CacheLimits(),  # noqa: B008  # frozen
        parameters: Parameters = Parameters(),  # noqa: B008  # frozen
        counters: Counters | None = None,
        site: Site | None = None,
        verify_addresses: bool = True,
        trusted: Callable[[Path], bool] | None = is_loopback,
        name: str = "",
        hop_limit: int = HOP_LIMIT,
    ) -> None:
        self.counters = Counters() if counters is None else counters
        self.site = Site() if site is None else site
        self._limits = limits
        self._parameters = parameters
        self._verify = verify_addresses
        self._trusted = trusted
        self._http = http
        self._fronts: list[tuple[Endpoint, UdpDriver]] = []
        self._backs: dict[str, tuple[Endpoint, UdpDriver]] = {}
        self._by_target: dict[Path, Endpoint] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._lookups = 0
        self._kicked = False
        self._closed = False
        self._timer: asyncio.TimerHandle | None = None
        self.proxy = Proxy(
            policy, reach=self._reach, routes=routes, schemes=("coap",) if http is None else ("coap", "http", "https"),
            cache=ResponseCache(cache_limits, counters=self.counters), limits=proxy_limits, counters=self.counters,
            site=self.site, own=self._own, name=name or f"vitalgate-{os.urandom(4).hex()}", hop_limit=hop_limit,
        )  # fmt: skip

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def bind(self, host: str, port: int = 5683) -> tuple[str, int]:
        """Take requests at ``host``:``port`` (0: a free port) from now on; the address. Raises `AddressError`."""
        endpoint = Endpoint(
            parameters=self._parameters, limits=self._limits, site=self.site, counters=self.counters,
            verify_addresses=self._verify, trusted=self._trusted, forwarding=self.proxy,
        )  # fmt: skip
        driver = self._drive(endpoint, bind(host, port), self.proxy.take_requests)
        self._fronts.append((endpoint, driver))
        return driver.address

    def close(self) -> None:
        """Close the sockets; what is under way is forgotten."""
        self._closed = True
        for _, driver in (*self._fronts, *self._backs.values()):
            driver.close()
        for task in self._tasks:
            task.cancel()
        if self._timer is not None:
            self._timer.cancel()

    async def ask(self, request: Message, uri: str) -> Message:
        """The response to ``request`` for ``uri``, as a client of the proxy would get it."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Message] = loop.create_future()

        def answer(response: Message, _now: float) -> None:
            if not future.done():  # who asked may have gone; what came is in the cache
                future.set_result(response)

        self.proxy.ask(request, uri, answer, loop.time())
        self._kick()
        return await future

    # Turning it

    def _drive(self, endpoint: Endpoint, sock: socket.socket, take: Callable[[Endpoint, float], int]) -> UdpDriver:
        def on_turn(now: float) -> None:
            if take(endpoint, now):
                self._kick()

        clock = asyncio.get_running_loop().time
        return UdpDriver(endpoint, sock, on_turn=on_turn, counters=self.counters, clock=clock)

    def _kick(self) -> None:
        # What one socket heard may be for another to say: all of them get their turn, once for many.
        if not self._kicked and not self._closed:
            self._kicked = True
            asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        self._kicked = False
        if self._closed:
            return
        now = asyncio.get_running_loop().time()
        for endpoint, _ in self._fronts:
            self.proxy.take_requests(endpoint, now)
        for endpoint, _ in list(self._backs.values()):
            self.proxy.take_responses(endpoint, now)
        while (event := self.proxy.next_event()) is not None:
            self._serve(event, now)
        for _, driver in (*self._fronts, *self._backs.values()):
            driver.turn()
        self._arm()

    def _arm(self) -> None:
        deadline = self.proxy.next_timeout()
        if self._timer is not None:
            self._timer.cancel()
        loop = asyncio.get_running_loop()
        self._timer = None if deadline is None else loop.call_at(deadline, self._due)

    def _due(self) -> None:
        self.proxy.handle_timeout(asyncio.get_running_loop().time())
        self._kick()

    def _serve(self, event: ProxyEvent, now: float) -> None:
        if isinstance(event, Resolve):
            if self._lookups >= MAX_LOOKUPS:
                self.counters.add("coap_limit_reached", "lookups")
                self.proxy.failed(event.ticket, Trouble.BUSY, now)
                return
            self._lookups += 1
            self._start(self._look_up(event))
        elif isinstance(event, HttpAsk):
            if self._http is not None:
                self._start(self._ask_http(event, self._http))
        elif isinstance(event, LocalRequest):
            # The proxy's own resources answer at once; one that does not has nobody here to answer for it.
            event.front.respond(event.received.exchange, Message(Code.NOT_IMPLEMENTED), now)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _look_up(self, event: Resolve) -> None:
        loop = asyncio.get_running_loop()
        addresses: list[str] = []
        try:
            found = await loop.getaddrinfo(event.target.host, event.target.port, type=socket.SOCK_DGRAM)
            addresses = list(dict.fromkeys(str(each[4][0]) for each in found))
        except (OSError, UnicodeError):
            pass  # no such name, and the same to the client as one without an address
        finally:
            self._lookups -= 1
        self.proxy.resolved(event.ticket, addresses, loop.time())
        self._kick()

    async def _ask_http(self, event: HttpAsk, http: HttpClient) -> None:
        answer = await http(event)
        now = asyncio.get_running_loop().time()
        if isinstance(answer, Trouble):
            self.proxy.failed(event.ticket, answer, now)
        else:
            self.proxy.answered(event.ticket, answer, now)
        self._kick()

    # Where it is, and where others are

    def _reach(self, address: str, port: int) -> tuple[Endpoint, Path] | None:
        try:
            path: SocketAddress = resolve(address, port)[1] if ":" in address else (address, port)
            endpoint = self._by_target.get(path)
            if endpoint is None:
                endpoint = self._back(client_socket(path))
                if len(self._by_target) >= MAX_KNOWN_TARGETS:
                    self._by_target.clear()
                self._by_target[path] = endpoint
        except AddressError:
            return None
        return endpoint, path

    def _back(self, sock: socket.socket) -> Endpoint:
        # One endpoint for each local address that requests go out from; strangers get nothing there.
        host = sock.getsockname()[0]
        found = self._backs.get(host)
        if found is not None:
            sock.close()
            return found[0]
        endpoint = Endpoint(parameters=self._parameters, limits=self._limits, counters=self.counters, relays=True)
        self._backs[host] = endpoint, self._drive(endpoint, sock, self.proxy.take_responses)
        return endpoint

    def _own(self, address: str, port: int) -> bool:
        return any(port == driver.address[1] and _is_here(address, driver.address[0]) for _, driver in self._fronts)


def _is_here(address: str, bound: str) -> bool:
    # Of a socket that listens on all addresses, an own address is one that the system would speak to itself from.
    if bound not in ("0.0.0.0", "::"):  # noqa: S104  # compared, not bound
        return address == bound
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((address, 9))  # sends nothing; the kernel only chooses a route
        except OSError:
            return False
        return bool(probe.getsockname()[0] == address)

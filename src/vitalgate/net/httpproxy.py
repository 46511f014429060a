"""The HTTP sides of a CoAP proxy on real sockets: a client that asks HTTP servers, a server for HTTP clients.

HTTP/1.1 itself is h11's: strict about framing, with bounds of its own for what is incomplete. The words are
`coap.httpfront`'s and `coap.httpback`'s.
"""

import asyncio
import contextlib
import ssl
from collections.abc import Collection
from dataclasses import dataclass
from email.utils import formatdate
from typing import Final
from urllib.parse import urlsplit

import h11

from vitalgate.coap.httpback import from_http, to_http
from vitalgate.coap.httpfront import from_coap, to_coap
from vitalgate.coap.httpvalues import EtagTable, Headers, HttpRequest, HttpResponse
from vitalgate.coap.message import Message
from vitalgate.coap.proxyevents import HttpAsk, Trouble
from vitalgate.counters import Counters
from vitalgate.net.coapproxy import CoapProxy
from vitalgate.net.udp import AddressError

CHUNK: Final = 8192
LINGER: Final = 0.5
"""Seconds that a client who was told that the connection ends may take to hear it, before it is closed."""
AGENT: Final = "vitalgate"


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """The bounds of the HTTP sides; those reached are counted as ``coap_limit_reached`` with the name here."""

    http_body_bytes: int = 1 << 20
    """Longest body. Of a request: 413; of a response: 5.02."""
    http_connections: int = 256
    """Connections of HTTP clients. Full: 503, and the connection is closed."""
    header_bytes: int = 16384
    """Longest request line with its header section, give or take what one read brings. Beyond: 431; of a response:
    5.02."""
    idle: float = 30.0
    """Seconds that a client may take for a request, from opening the connection or from the last response. Then the
    connection is closed."""
    wait: float = 30.0
    """Seconds that an HTTP server may take from connecting to the end of its response. Then: 5.04."""


class HttpAsker:
    """Asks HTTP servers for a `CoapProxy`, one connection for each request, to the address that was judged."""

    def __init__(
        self,
        *,
        limits: HttpLimits = HttpLimits(),
        counters: Counters | None = None,
        name: str = "",
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.counters = Counters() if counters is None else counters
        self.name = name
        self._limits = limits
        self._etags = EtagTable()
        self._tls = tls

    async def __call__(self, asked: HttpAsk) -> Message | Trouble:
        """The response in CoAP's words, or what went wrong."""
        request = to_http(asked.request, asked.url, self._etags, name=self.name)
        if isinstance(request, Message):
            return request
        try:
            async with asyncio.timeout(self._limits.wait):
                response = await self._exchange(asked, request)
        except TimeoutError:
            return Trouble.TIMEOUT
        except OSError:
            return Trouble.UNREACHABLE
        except (h11.ProtocolError, ValueError):  # ValueError: a host name that TLS cannot ask for
            return Trouble.NOT_UNDERSTOOD
        if response is None:
            self.counters.add("coap_limit_reached", "http_body_bytes")
            return Trouble.TOO_LARGE
        return from_http(response, asked.request, asked.url, self._etags)

    async def _exchange(self, asked: HttpAsk, request: HttpRequest) -> HttpResponse | None:
        # None where the response is too large.
        tls = None
        if asked.target.scheme == "https":
            self._tls = self._tls or ssl.create_default_context()
            tls = self._tls
        reader, writer = await asyncio.open_connection(
            asked.address, asked.target.port, ssl=tls, server_hostname=asked.target.host if tls else None
        )
        try:
            connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=self._limits.header_bytes)
            url = urlsplit(request.target)
            path = (url.path or "/") + (f"?{url.query}" if url.query else "")
            headers = [("host", url.netloc), ("user-agent", AGENT), ("connection", "close"), *request.headers]
            sent = connection.send(h11.Request(method=request.method, target=path, headers=headers))
            if request.body:
                sent = (sent or b"") + (connection.send(h11.Data(data=request.body)) or b"")
            sent = (sent or b"") + (connection.send(h11.EndOfMessage()) or b"")
            writer.write(sent)
            await writer.drain()
            return await self._response(connection, reader)
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _response(self, connection: h11.Connection, reader: asyncio.StreamReader) -> HttpResponse | None:
        head: h11.Response | None = None
        body = bytearray()
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                connection.receive_data(await reader.read(CHUNK))
            elif isinstance(event, h11.Response):
                head = event
            elif isinstance(event, h11.Data):
                body += event.data
                if len(body) > self._limits.http_body_bytes:
                    return None
            elif isinstance(event, h11.EndOfMessage) and head is not None:
                return HttpResponse(head.status_code, _headers(head), bytes(body))
            elif isinstance(event, h11.ConnectionClosed):
                raise ConnectionError("closed before the response")


class HttpFront:
    """Serves HTTP clients from ``proxy``. ``names`` are host names that it goes by besides addresses and localhost."""

    def __init__(
        self,
        proxy: CoapProxy,
        *,
        names: Collection[str] = (),
        limits: HttpLimits = HttpLimits(),
    ) -> None:
        self._proxy = proxy
        self._names = frozenset(name.lower() for name in names)
        self._limits = limits
        self._servers: list[asyncio.Server] = []
        self._connections: set[asyncio.Task[None]] = set()

    async def bind(self, host: str, port: int) -> tuple[str, int]:
        """Take connections at ``host``:``port`` (0: a free port); the address. Raises `AddressError`."""
        try:
            server = await asyncio.start_server(self._connected, host, port, limit=CHUNK)
        except (OSError, OverflowError) as error:
            raise AddressError(f"cannot listen on {host}:{port}: {error}") from error
        self._servers.append(server)
        name = server.sockets[0].getsockname()
        return name[0], name[1]

    def close(self) -> None:
        """Close the sockets; what is under way is forgotten."""
        for server in self._servers:
            server.close()
        for task in self._connections:
            task.cancel()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        full = len(self._connections) >= self._limits.http_connections
        if task is not None and not full:
            self._connections.add(task)
        try:
            if full:
                self._proxy.counters.add("coap_limit_reached", "http_connections")
                connection = h11.Connection(h11.SERVER)
                await _send(writer, connection, HttpResponse(503, (("connection", "close"),)), self._name)
            else:
                await self._serve(reader, writer)
            await _part(reader, writer)
        except (OSError, TimeoutError, h11.LocalProtocolError):
            pass  # the client went away, said nothing for too long, or closed early: there is nobody to tell
        except asyncio.CancelledError:
            pass  # `close` was called; this task is nobody else's to wait for, and asyncio would complain of it
        finally:
            if task is not None:
                self._connections.discard(task)
            writer.close()

    @property
    def _name(self) -> str:
        return self._proxy.proxy.name

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=self._limits.header_bytes)
        while True:
            try:
                async with asyncio.timeout(self._limits.idle):
                    request = await self._request(reader, writer, connection)
            except h11.RemoteProtocolError as error:
                if connection.our_state in (h11.IDLE, h11.SEND_RESPONSE):
                    refusal = HttpResponse(error.error_status_hint, (("connection", "close"),))
                    await _send(writer, connection, refusal, self._name)
                return
            if request is None:
                return
            response = request if isinstance(request, HttpResponse) else await self._answer(request)
            head = isinstance(request, HttpRequest) and request.method == "HEAD"
            await _send(writer, connection, response, self._name, head=head)
            if connection.our_state is not h11.DONE or connection.their_state is not h11.DONE:
                return
            connection.start_next_cycle()

    async def _answer(self, request: HttpRequest) -> HttpResponse:
        asked = to_coap(request, names=self._names, via=self._name)
        if isinstance(asked, HttpResponse):
            self._proxy.counters.add("coap_proxy_requests", "refused")
            return asked
        return from_coap(await self._proxy.ask(asked.request, asked.uri), asked)

    async def _request(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, connection: h11.Connection
    ) -> HttpRequest | HttpResponse | None:
        # The next request, the response where it is too large, or None where the client closed.
        head: h11.Request | None = None
        body = bytearray()
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                if connection.they_are_waiting_for_100_continue:
                    writer.write(connection.send(h11.InformationalResponse(status_code=100, headers=[])) or b"")
                connection.receive_data(await reader.read(CHUNK))
            elif isinstance(event, h11.Request):
                head = event
            elif isinstance(event, h11.Data):
                body += event.data
                if len(body) > self._limits.http_body_bytes:
                    self._proxy.counters.add("coap_limit_reached", "http_body_bytes")
                    return HttpResponse(413, (("connection", "close"),))
            elif isinstance(event, h11.EndOfMessage) and head is not None:
                method, target = head.method.decode("latin-1"), head.target.decode("latin-1")
                return HttpRequest(method, target, _headers(head), bytes(body))
            else:
                return None


async def _part(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    # Closed with unread bytes, the connection would be reset and the response lost on its way (RFC 9112 section 9.6).
    if writer.can_write_eof():
        writer.write_eof()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LINGER):
            while await reader.read(CHUNK):
                pass


async def _send(
    writer: asyncio.StreamWriter, connection: h11.Connection, response: HttpResponse, name: str, *, head: bool = False
) -> None:
    # To HEAD everything but the body (RFC 9110 section 9.3.2).
    headers = [*response.headers, ("date", formatdate(usegmt=True)), ("via", f"1.1 {name}")]
    if response.status not in (204, 304):
        headers.append(("content-length", str(len(response.body))))
    start = h11.Response(status_code=response.status, headers=headers, reason=response.reason.encode())
    sent = connection.send(start) or b""
    if response.body and not head:
        sent += connection.send(h11.Data(data=response.body)) or b""
    writer.write(sent + (connection.send(h11.EndOfMessage()) or b""))
    await writer.drain()


def _headers(head: h11.Request | h11.Response) -> Headers:
    return tuple((name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in head.headers)

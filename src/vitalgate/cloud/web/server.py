"""Serving the pages: uvicorn in a thread of its own, with an event loop of its own.

The rest of the cloud runs in the main thread; pages read the board and the store, both safe for threads.

Slow peers: a request must be whole within `REQUEST_SECONDS`, and an answer must be taken within `STALL_SECONDS` of the
moment its buffer filled; otherwise the connection is cut. So neither a peer that trickles a request nor a screen that
stopped reading holds anything for long.
"""

import asyncio
import ipaddress
import socket
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import h11
import uvicorn
from cryptography import x509
from starlette.applications import Starlette
from uvicorn.protocols.http.h11_impl import H11Protocol

from vitalgate.cloud.web.access import Web
from vitalgate.cloud.web.door import MAX_CONNECTIONS, MAX_OF_ADDRESS, Door
from vitalgate.cloud.web.guard import host_name

REQUEST_SECONDS: Final = 10.0
STALL_SECONDS: Final = 10.0
KEEP_ALIVE_SECONDS: Final = 15
STOP_SECONDS: Final = 2
MAX_HEAD: Final = 16_384
SEND_BUFFER: Final = 131_072
"""Bytes the kernel holds for a peer that does not read; what does not fit waits in one message of the program."""


class ServeError(RuntimeError):
    """The pages cannot be served; the text says why and what helps."""


@dataclass(frozen=True, slots=True)
class Tls:
    """The certificate chain and key (PEM files) that the pages are served with."""

    certificate: Path
    key: Path

    def context(self) -> ssl.SSLContext:
        """TLS 1.2 at least. Raises `ServeError` when a file cannot be used."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        try:
            context.load_cert_chain(self.certificate, self.key)
        except (OSError, ssl.SSLError) as error:
            raise ServeError(
                f"the certificate {self.certificate} or its key {self.key} cannot be used: {error}"
            ) from error
        return context

    def names(self) -> tuple[str, ...]:
        """The host names and addresses the certificate is for, as a Host header has them (wildcards left out)."""
        try:
            certificate = x509.load_pem_x509_certificates(self.certificate.read_bytes())[0]
            subject = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except (OSError, ValueError, x509.ExtensionNotFound):
            return ()
        addresses = subject.get_values_for_type(x509.IPAddress)
        shown = [f"[{address}]" if address.version == 6 else str(address) for address in addresses]
        return tuple(name for name in (*subject.get_values_for_type(x509.DNSName), *shown) if "*" not in name)


class _Protocol(H11Protocol):
    """uvicorn's HTTP/1.1 with deadlines for what a peer must do."""

    _late: asyncio.TimerHandle | None = None
    _stalled: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._await_request()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._await_request()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._await_request()

    def _await_request(self) -> None:
        """A deadline runs while a request has begun and is not whole, and from the connection's start to the first."""
        partial = self.conn.their_state is h11.SEND_BODY or bool(self.conn.trailing_data[0]) or self.cycle is None
        if self.conn.their_state not in (h11.IDLE, h11.SEND_BODY):
            partial = False
        if not partial and self._late is not None:
            self._late.cancel()
            self._late = None
        elif partial and self._late is None:
            self._late = self.loop.call_later(REQUEST_SECONDS, self.transport.abort)

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._stalled is None:
            self._stalled = self.loop.call_later(STALL_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._late, self._stalled):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)


class _Server(uvicorn.Server):
    """Says when it serves; leaves signals to the main thread."""

    def __init__(self, config: uvicorn.Config, started: Callable[[], None]) -> None:
        super().__init__(config)
        self._say_started = started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._say_started()


@dataclass(slots=True)
class WebServer:
    """Pages that are being served. ``origin`` is where, without a path: 'http://127.0.0.1:43210'."""

    origin: str
    host: str
    port: int
    _stop: Callable[[], None]
    _thread: threading.Thread

    @property
    def is_alive(self) -> bool:
        """Whether the thread still serves."""
        return self._thread.is_alive()

    def stop(self, timeout: float = 10.0) -> None:
        """End every stream, finish what is being answered, close the port; harmless when it is closed already."""
        self._stop()
        self._thread.join(timeout)


def _listen(host: str, port: int, each: int) -> Door:
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE | socket.AI_NUMERICHOST
        )[0]
    except socket.gaierror as error:
        raise ServeError(f"{host!r} is not an IP address: give for example 127.0.0.1") from error
    listener = Door(family, each=each)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)  # accepted connections inherit it
        listener.bind(address)
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise ServeError(f"the pages cannot listen on {host} port {port}: {error.strerror}") from error
    return listener


def serve(app: Starlette, host: str = "127.0.0.1", port: int = 0, tls: Tls | None = None) -> WebServer:
    """Serve ``app`` until `WebServer.stop`; ``port`` 0 takes a free one. Returns once it listens and serves.

    ``host`` is an IP address or 'localhost'. With ``tls`` the names in the certificate become names under which
    browsers may ask, besides those of `WebSettings.hosts`. Raises `ServeError` for an address that is not loopback
    without ``tls`` (what the pages show must not cross a network in clear), for an unusable address or certificate, and
    where application and server disagree on TLS (cookies depend on it).
    """
    web: Web = app.state.web
    address = "127.0.0.1" if host == "localhost" else host.strip("[]")
    try:
        loopback = ipaddress.ip_address(address.partition("%")[0]).is_loopback
    except ValueError as error:
        raise ServeError(f"{host!r} is not an IP address: give for example 127.0.0.1") from error
    if not loopback and tls is None:
        raise ServeError(f"the pages are served on {host} over TLS only: give a certificate, or listen on 127.0.0.1")
    if web.settings.secure != (tls is not None):
        raise ServeError("the application was made with another idea of TLS than the server (WebSettings.secure)")
    context = tls.context() if tls is not None else None
    listener = _listen(address, port, MAX_CONNECTIONS if loopback else MAX_OF_ADDRESS)
    web.hosts.update(host_name(name) for name in (tls.names() if tls is not None else ()))
    bound = listener.getsockname()[1]
    config = uvicorn.Config(
        app,
        loop="asyncio",
        http=_Protocol,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=MAX_CONNECTIONS,
        h11_max_incomplete_event_size=MAX_HEAD,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=STOP_SECONDS,
        ssl_context_factory=(lambda _config, _default: context) if context is not None else None,
    )
    started = threading.Event()
    loops: list[asyncio.AbstractEventLoop] = []
    server = _Server(config, started.set)

    async def run() -> None:
        loops.append(asyncio.get_running_loop())
        await server.serve(sockets=[listener])

    def stop() -> None:
        server.should_exit = True
        if loops and not loops[0].is_closed() and thread.is_alive():
            loops[0].call_soon_threadsafe(web.hub.close)  # open streams would keep the server from ending

    def body() -> None:
        try:
            asyncio.run(run())
        finally:
            listener.close()

    thread = threading.Thread(target=body, name="vitalgate-web", daemon=True)
    thread.start()
    while not started.wait(0.05):
        if not thread.is_alive():
            raise ServeError("the pages did not start; the log says why")
    scheme = "https" if tls is not None else "http"
    shown = f"[{address}]" if ":" in address else address
    return WebServer(f"{scheme}://{shown}:{bound}", address, bound, stop, thread)

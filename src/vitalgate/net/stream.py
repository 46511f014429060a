"""Byte streams for device engines: serial lines that are opened again, TCP listeners, TCP callers.

Reconnecting, back-off and the bounds on what waits to be written exist here once, for every device protocol. A driver
tells its owner through three callbacks: opened(conn), data(conn, bytes), closed(conn, reason).
"""

import asyncio
import contextlib
import ipaddress
import os
import termios
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from typing import Protocol

import serial

from vitalgate.counters import Counters
from vitalgate.net.line import LineSettings

FIRST_RETRY = 0.2
LAST_RETRY = 15.0
"""Seconds between attempts to open a line again: doubled from the first to the last."""
READ_SIZE = 4096
READS_PER_WAKEUP = 16
MAX_PENDING_WRITE = 65536
"""Bytes a peer may leave unread before its connection is closed."""
MAX_CONNECTIONS = 64
"""Connections one listener holds at once."""
SILENT_AFTER = 60.0
"""Seconds after which a connection that says nothing gives its place to a new one, where a listener is full."""

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class StreamOwner(Protocol):
    """Who is told what happens on a stream."""

    def opened(self, conn: Hashable) -> None:
        """A stream is open."""

    def data(self, conn: Hashable, data: bytes) -> None:
        """Bytes arrived."""

    def closed(self, conn: Hashable, reason: str) -> None:
        """The stream is gone; ``reason`` is for people."""


class Backoff:
    """Retry delays that double up to a bound, and start over after a success."""

    __slots__ = ("_delay",)

    def __init__(self) -> None:
        self._delay = FIRST_RETRY

    def next(self) -> float:
        """The delay before the next attempt, in seconds."""
        delay, self._delay = self._delay, min(self._delay * 2, LAST_RETRY)
        return delay

    def reset(self) -> None:
        """An attempt succeeded."""
        self._delay = FIRST_RETRY


class SerialLine:
    """One serial port, opened exclusively and opened again when it goes away (an adapter unplugged, a pty gone)."""

    def __init__(self, port: str, settings: LineSettings, owner: StreamOwner, counters: Counters | None = None) -> None:
        self.port = port
        self._settings = settings
        self._owner = owner
        self._counters = Counters() if counters is None else counters
        self._loop = asyncio.get_running_loop()
        self._line: serial.Serial | None = None
        self._backoff = Backoff()
        self._retry: asyncio.TimerHandle | None = None
        self._closed = False
        self.error = ""
        self._open()

    def write(self, data: bytes) -> None:
        """Write to the device; a line that takes no bytes drops them (serial devices have no flow promise)."""
        if self._line is None or not data:
            return
        try:
            written = os.write(self._line.fileno(), data)
        except BlockingIOError:
            written = 0
        except OSError as error:
            self._lost(error.strerror or str(error))
            return
        if written < len(data):
            self._counters.add("net_line_write_dropped", by=len(data) - written)

    def close(self) -> None:
        """Close for good."""
        self._closed = True
        if self._retry is not None:
            self._retry.cancel()
        if self._line is not None:
            self._release("closed")

    def _open(self) -> None:
        self._retry = None
        settings = self._settings
        try:
            line = serial.Serial(
                self.port,
                settings.baud,
                bytesize=settings.bits,
                parity=settings.parity,
                stopbits=settings.stop,
                timeout=0,
                exclusive=True,
            )
        except (serial.SerialException, OSError, ValueError) as error:
            self.error = str(error)
            self._again()
            return
        self._line = line
        self.error = ""
        self._backoff.reset()
        self._counters.add("net_lines_opened")
        os.set_blocking(line.fileno(), False)
        # With VMIN 0, which pyserial sets, "nothing yet" and "hung up" would both read as no bytes.
        attributes = termios.tcgetattr(line.fileno())
        attributes[6][termios.VMIN] = 1
        termios.tcsetattr(line.fileno(), termios.TCSANOW, attributes)
        self._loop.add_reader(line.fileno(), self._readable)
        self._owner.opened(self.port)

    def _readable(self) -> None:
        for _ in range(READS_PER_WAKEUP):
            if self._line is None:
                return
            try:
                data = os.read(self._line.fileno(), READ_SIZE)
            except BlockingIOError:
                return
            except OSError as error:
                self._lost(error.strerror or str(error))
                return
            if not data:
                self._lost("the line hung up")
                return
            self._owner.data(self.port, data)

    def _lost(self, reason: str) -> None:
        self.error = reason
        self._counters.add("net_lines_lost")
        self._release(reason)
        self._again()

    def _release(self, reason: str) -> None:
        assert self._line is not None
        self._loop.remove_reader(self._line.fileno())
        with contextlib.suppress(OSError):
            self._line.close()
        self._line = None
        self._owner.closed(self.port, reason)

    def _again(self) -> None:
        if not self._closed:
            self._retry = self._loop.call_later(self._backoff.next(), self._open)


class _Stream(asyncio.Protocol):
    """One TCP connection, accepted or dialled."""

    def __init__(self, owner: StreamOwner, admit: Callable[["_Stream", str], bool], gone: Callable[["_Stream"], None]):
        self._owner = owner
        self._admit = admit
        self._gone = gone
        self._admitted = False
        self.conn: Hashable = None
        self.transport: asyncio.Transport | None = None
        self.address = ""
        self.heard_at = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        peer = transport.get_extra_info("peername")
        self.transport = transport
        if peer is None:  # gone again before anyone looked
            transport.abort()
            return
        self.conn = (peer[0], peer[1])
        self.address = peer[0]
        self.heard_at = asyncio.get_running_loop().time()
        if not self._admit(self, peer[0]):
            transport.abort()
            return
        self._admitted = True
        self._owner.opened(self.conn)

    def data_received(self, data: bytes) -> None:
        if self._admitted:
            self.heard_at = asyncio.get_running_loop().time()
            self._owner.data(self.conn, data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(str(exc) if exc else "the peer closed")

    def drop(self, reason: str) -> None:
        """Close at once: the owner has heard of it when this returns."""
        self._end(reason)
        if self.transport is not None:
            self.transport.abort()

    def _end(self, reason: str) -> None:
        if self._admitted:
            self._admitted = False
            self._gone(self)
            self._owner.closed(self.conn, reason)

    def write(self, data: bytes) -> bool:
        """Write unless too much waits already; False when the connection was given up for that."""
        if self.transport is None or not data:
            return True
        self.transport.write(data)
        if self.transport.get_write_buffer_size() > MAX_PENDING_WRITE:
            self.transport.abort()
            return False
        return True


class TcpListener:
    """A TCP listener for devices that dial in: a bind address, a source allow-list, a bound on connections.

    Where it is full, a new connection takes the place of one of the address that holds most of them, so that no device
    keeps the others out; where its own address holds as many, of one that has been silent for `SILENT_AFTER` seconds
    (a device that lost its power never hangs up).
    """

    def __init__(
        self, owner: StreamOwner, allow: Sequence[Network], *, maximum: int = MAX_CONNECTIONS, counters: Counters
    ) -> None:
        self._owner = owner
        self._allow = allow
        self._maximum = maximum
        self._counters = counters
        self._streams: dict[Hashable, _Stream] = {}
        self._server: asyncio.Server | None = None

    async def start(self, host: str, port: int) -> tuple[str, int]:
        """Listen; returns the bound (host, port). Raises OSError."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: _Stream(self._owner, self._admit, lambda stream: self._forget(stream.conn)), host, port
        )
        name = self._server.sockets[0].getsockname()
        return name[0], name[1]

    def write(self, conn: Hashable, data: bytes) -> None:
        """Write to one connection; unknown ones are gone already."""
        stream = self._streams.get(conn)
        if stream is not None and not stream.write(data):
            self._counters.add("net_connections_refused", "peer-does-not-read")

    def close(self) -> None:
        """Stop listening and close every connection."""
        if self._server is not None:
            self._server.close()
        for stream in list(self._streams.values()):
            if stream.transport is not None:
                stream.transport.abort()

    def _admit(self, stream: _Stream, peer: str) -> bool:
        address = ipaddress.ip_address(peer)
        if not any(address in network for network in self._allow):
            self._counters.add("net_connections_refused", "source-not-allowed")
            return False
        if len(self._streams) >= self._maximum:
            other = self._dispensable(peer)
            if other is None:
                self._counters.add("net_connections_refused", "too-many")
                return False
            self._counters.add("net_connections_refused", "replaced")
            other.drop("gave its place to a new connection")
        self._counters.add("net_connections_accepted")
        self._streams[stream.conn] = stream
        return True

    def _dispensable(self, newcomer: str) -> _Stream | None:
        """Whose place a connection from ``newcomer`` takes, or None."""
        held = Counter(stream.address for stream in self._streams.values())
        most, count = held.most_common(1)[0]
        if count > held[newcomer] + 1:
            return min((s for s in self._streams.values() if s.address == most), key=lambda s: s.heard_at)
        quietest = min(self._streams.values(), key=lambda s: s.heard_at)
        return quietest if asyncio.get_running_loop().time() - quietest.heard_at >= SILENT_AFTER else None

    def _forget(self, conn: Hashable) -> None:
        self._streams.pop(conn, None)


class TcpCaller:
    """Keeps one TCP connection to ``host``:``port`` open, dialling again with back-off."""

    def __init__(self, host: str, port: int, owner: StreamOwner) -> None:
        self._host, self._port, self._owner = host, port, owner
        self._stream: _Stream | None = None
        self._backoff = Backoff()
        self._lost = asyncio.Event()
        self._task = asyncio.get_running_loop().create_task(self._keep())

    def write(self, data: bytes) -> None:
        """Write when connected; otherwise the bytes are lost, as on a cut cable."""
        if self._stream is not None:
            self._stream.write(data)

    async def close(self) -> None:
        """Close and stop dialling."""
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        if self._stream is not None and self._stream.transport is not None:
            self._stream.transport.abort()

    def _admit(self, stream: _Stream, _peer: str) -> bool:
        self._stream = stream  # before the owner hears of it, who may write at once
        return True

    async def _keep(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._lost.clear()
            try:
                _, stream = await loop.create_connection(
                    lambda: _Stream(self._owner, self._admit, lambda _: self._lost.set()), self._host, self._port
                )
            except OSError:
                stream = None
            if stream is None or stream.conn is None:
                await asyncio.sleep(self._backoff.next())
                continue
            self._backoff.reset()
            await self._lost.wait()
            self._stream = None

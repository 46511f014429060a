"""The asyncio UDP driver: one socket, one engine, one timer.

asyncio's own DatagramProtocol reads one datagram a loop turn and is an order of magnitude slower than a non-blocking
drain, so the socket is watched with ``add_reader`` and drained to a bound per wake-up (the bound keeps timers and other
sockets alive under a flood).
"""

import asyncio
import socket
import time
from collections.abc import Callable

from vitalgate.counters import Counters
from vitalgate.engine import DatagramEngine, Path

DRAIN = 64
"""Datagrams read per wake-up at most."""
MAX_DATAGRAM = 65535
RECEIVE_BUFFER = 1 << 20

SocketAddress = tuple[str, int] | tuple[str, int, int, int]


class AddressError(ValueError):
    """A host and port that name no usable UDP address; the text says which and why."""


def resolve(host: str, port: int) -> tuple[socket.AddressFamily, SocketAddress]:
    """The first UDP address of ``host``:``port`` as (family, socket address). Raises `AddressError`."""
    if not 0 <= port <= 65535:
        raise AddressError(f"{host!r} port {port}: a port is a number from 0 to 65535")
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
    except (OSError, UnicodeError, OverflowError) as error:
        raise AddressError(f"{host!r} port {port}: {error}") from error
    family, _, _, _, address = found[0]
    return family, address  # type: ignore[return-value]  # the stubs also name Bluetooth's forms


def bind(host: str, port: int) -> socket.socket:
    """A non-blocking UDP socket bound to ``host``:``port`` (0 = the system chooses). Raises `AddressError`."""
    family, address = resolve(host, port)
    sock = socket.socket(family, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        sock.bind(address)
    except OSError as error:
        sock.close()
        raise AddressError(f"cannot listen on {host}:{port}: {error.strerror}") from error
    return sock


def client_socket(peer: SocketAddress) -> socket.socket:
    """A non-blocking UDP socket on a free port of the address that the system would use towards ``peer``.

    Bound to that one address and not to all, so that a client's port is open only where it is needed.
    Raises `AddressError` when there is no way to ``peer``.
    """
    family = socket.AF_INET6 if len(peer) == 4 else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(peer)  # sends nothing; the kernel only chooses a route
        except OSError as error:
            raise AddressError(f"no way to {peer[0]}: {error.strerror}") from error
        host = probe.getsockname()[0]
    return bind(host, 0)


class UdpDriver:
    """Turns ``engine`` on ``sock``; a path is the peer's socket address as the kernel gives it.

    ``on_turn(now)`` runs after datagrams or a deadline were fed and before what is to be sent is taken: that is where
    an application takes the engine's events. Whoever feeds the engine from elsewhere calls `turn` afterwards.
    """

    def __init__(
        self,
        engine: DatagramEngine,
        sock: socket.socket,
        *,
        on_turn: Callable[[float], None] | None = None,
        counters: Counters | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine = engine
        self._socket = sock
        self._on_turn = on_turn
        self._counters = Counters() if counters is None else counters
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._armed = 0.0
        self._closed = False
        self.bytes_sent = 0
        self.datagrams_sent = 0
        self._loop.add_reader(sock.fileno(), self._readable)
        self.turn()

    @property
    def address(self) -> tuple[str, int]:
        """Where the socket is bound: (host, port)."""
        name = self._socket.getsockname()
        return name[0], name[1]

    def turn(self) -> None:
        """Take the engine's events, send what it has to send, arm the one timer."""
        if self._closed:
            return
        now = self._clock()
        if self._on_turn is not None:
            self._on_turn(now)
        datagrams = self._engine.datagrams_to_send(now)
        if datagrams:
            self._send(datagrams)
        self._arm()

    def close(self) -> None:
        """Stop watching and close the socket; the engine is left as it is."""
        if self._closed:
            return
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        self._loop.remove_reader(self._socket.fileno())
        self._socket.close()

    def _readable(self) -> None:
        receive, engine_receive, now = self._socket.recvfrom, self._engine.receive_datagram, self._clock()
        count = 0
        try:
            while count < DRAIN:
                data, path = receive(MAX_DATAGRAM)
                count += 1
                engine_receive(data, path, now)
        except BlockingIOError:
            pass
        except OSError:
            # An ICMP error of an earlier send surfaces here; the engine's own timers deal with the silence.
            self._counters.add("net_receive_failed")
        if count:
            self._counters["net_datagrams_received"] += count
        self.turn()

    def _send(self, datagrams: list[tuple[bytes, Path]]) -> None:
        send, sent, size = self._socket.sendto, 0, 0
        for data, path in datagrams:
            try:
                send(data, path)  # type: ignore[call-overload]  # this driver's paths are socket addresses
            except BlockingIOError:
                self._counters.add("net_send_failed", "buffer-full")
            except OSError as error:
                self._counters.add("net_send_failed", _SEND_FAILURES.get(error.errno or 0, "other"))
            else:
                sent += 1
                size += len(data)
        self.datagrams_sent += sent
        self.bytes_sent += size
        self._counters["net_datagrams_sent"] += sent

    def _arm(self) -> None:
        deadline = self._engine.next_timeout()
        if deadline is None:
            return  # an armed timer may fire for nothing; that is cheaper than cancelling it
        if self._timer is not None:
            if self._armed <= deadline:
                return  # fires earlier, finds nothing due, and arms again
            self._timer.cancel()
        self._armed = deadline
        self._timer = self._loop.call_later(max(0.0, deadline - self._clock()), self._due)

    def _due(self) -> None:
        self._timer = None
        self._engine.handle_timeout(self._clock())
        self.turn()


_SEND_FAILURES = {90: "too-long", 101: "network-unreachable", 111: "refused", 113: "host-unreachable", 1: "forbidden"}
"""Errno values as reason labels: EMSGSIZE, ENETUNREACH, ECONNREFUSED, EHOSTUNREACH, EPERM."""

"""CoAP groups on real sockets (RFC 7252 section 8): a server joins one, a client asks one and collects the answers.

A socket bound to the group's own address receives nothing but what was sent to the group, so that the engine is told
which datagrams these are; answers leave from the server's unicast socket.
"""

import asyncio
import contextlib
import ipaddress
import socket
import struct
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from vitalgate.coap.blocks import block_option
from vitalgate.coap.endpoint import Endpoint
from vitalgate.coap.events import GroupRequestEnded, RequestFailed, ResponseReceived
from vitalgate.coap.message import Code, Message
from vitalgate.coap.multicast import GroupPath
from vitalgate.coap.options import Option, with_option
from vitalgate.coap.uri import compose_uri
from vitalgate.counters import Counters
from vitalgate.engine import Path
from vitalgate.net.udp import DRAIN, MAX_DATAGRAM, AddressError, SocketAddress, UdpDriver, resolve

ALL_COAP_NODES = "224.0.1.187"
"""RFC 7252 section 12.8; for IPv6 ff02::fd on the link and ff05::fd on the site."""


def is_group(host: str) -> bool:
    """True where ``host`` is a multicast address."""
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_multicast
    except ValueError:
        return False


def group_socket(group: str, port: int, interface: str = "") -> socket.socket:
    """A non-blocking socket that receives what is sent to ``group``:``port`` on ``interface`` (a name, or for IPv4 also
    one of its addresses; '' leaves the choice to the system). Raises `AddressError`."""
    if not is_group(group):
        raise AddressError(f"{group} is no multicast address")
    family, address = resolve(group, port)
    sock = socket.socket(family, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a group's port is everybody's
        if family == socket.AF_INET6:
            index = _index(interface) or address[-1]
            sock.bind((address[0], port, 0, index))
            membership = socket.inet_pton(family, address[0].partition("%")[0]) + struct.pack("@I", index)
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, membership)
        else:
            sock.bind(address)
            membership = socket.inet_aton(address[0]) + _interface_v4(interface)
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, membership)
    except OSError as error:
        sock.close()
        raise AddressError(f"cannot join {group} port {port}: {error.strerror}") from error
    return sock


def sending_socket(group: SocketAddress, interface: str = "", hops: int = 1) -> socket.socket:
    """A non-blocking socket on a free port, bound to the address from which datagrams to ``group`` leave by
    ``interface`` and go over at most ``hops`` - 1 routers. Raises `AddressError`."""
    family = socket.AF_INET6 if len(group) == 4 else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, _index(interface) or group[-1])
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, hops)
        else:
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, bytes(4) + _interface_v4(interface))
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, hops)
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            if family == socket.AF_INET6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, _index(interface) or group[-1])
            else:
                probe.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, bytes(4) + _interface_v4(interface))
            probe.connect(group)  # sends nothing; the kernel only chooses the address
            host = probe.getsockname()[0]
        sock.bind((host, 0))
    except OSError as error:
        sock.close()
        raise AddressError(f"no way to {group[0]}: {error.strerror}") from error
    return sock


def _index(interface: str) -> int:
    return socket.if_nametoindex(interface) if interface else 0


def _interface_v4(interface: str) -> bytes:
    # struct ip_mreqn without its first field, the group: an address of the interface, or its index.
    with contextlib.suppress(OSError):
        return socket.inet_aton(interface) + struct.pack("@i", 0) if interface else bytes(8)
    return bytes(4) + struct.pack("@i", _index(interface))


class GroupMembership:
    """What is sent to a group goes to ``endpoint`` as such; ``turn`` is its driver's."""

    def __init__(self, endpoint: Endpoint, sock: socket.socket, turn: Callable[[], None], counters: Counters) -> None:
        self._endpoint = endpoint
        self._socket = sock
        self._turn = turn
        self._counters = counters
        self._loop = asyncio.get_running_loop()
        self.group: Path = sock.getsockname()
        self._loop.add_reader(sock.fileno(), self._readable)

    def close(self) -> None:
        """Leave the group."""
        self._loop.remove_reader(self._socket.fileno())
        self._socket.close()

    def _readable(self) -> None:
        now = self._loop.time()
        try:
            for _ in range(DRAIN):
                data, peer = self._socket.recvfrom(MAX_DATAGRAM)
                self._counters["net_datagrams_received"] += 1
                self._endpoint.receive_multicast(data, GroupPath(peer, self.group), now)
        except BlockingIOError:
            pass
        except OSError:
            self._counters.add("net_receive_failed")
        self._turn()


@dataclass(frozen=True, slots=True)
class Answer:
    """A server's response to a request to a group; ``uri`` is what its links are relative to (section 8.2)."""

    source: SocketAddress
    uri: str
    response: Message


class GroupRequestError(Exception):
    """A request to a group that was not sent."""


async def ask_group(
    endpoint: Endpoint, request: Message, group: SocketAddress, *, wait: float | None = None, interface: str = ""
) -> AsyncIterator[Answer]:
    """Send ``request`` to ``group`` and yield each answer as it comes, for ``wait`` seconds (two DEFAULT_LEISURE where
    None). A server that wants to know first that its answer arrives (4.01 with Echo, RFC 9175 section 2.4), or whose
    answer is the first of several blocks, is then asked alone. ``endpoint`` is for this alone, with a socket made here.

    Raises `AddressError` where there is no way to the group, `GroupRequestError` where a limit is reached.
    """
    loop = asyncio.get_running_loop()
    events: asyncio.Queue[object] = asyncio.Queue()

    def take(_now: float) -> None:
        while (event := endpoint.next_event()) is not None:
            events.put_nowait(event)

    driver = UdpDriver(
        endpoint, sending_socket(group, interface), on_turn=take, counters=endpoint.counters, clock=loop.time
    )
    try:
        number = endpoint.request_group(request, group, loop.time(), wait=wait)
        driver.turn()
        alone: set[int] = set()
        ended = False
        while alone or not ended:
            event = await events.get()
            if isinstance(event, GroupRequestEnded):
                ended = True
            elif isinstance(event, RequestFailed):
                if event.exchange == number:
                    raise GroupRequestError(event.reason.value)
                alone.discard(event.exchange)
            elif isinstance(event, ResponseReceived):
                source: SocketAddress = event.path  # type: ignore[assignment]  # this driver's paths are socket addresses
                again = _asked_alone(request, event.response) if event.exchange == number else None
                if again is None:
                    alone.discard(event.exchange)
                    uri = compose_uri(request.options, source[0], source[1])
                    yield Answer(source, uri, event.response)
                else:
                    alone.add(endpoint.request(again, source, loop.time()))
                    driver.turn()
    finally:
        driver.close()


def _asked_alone(request: Message, response: Message) -> Message | None:
    # The request with which the server is asked alone, or None where its answer is one.
    options = request.options
    echo = response.option(Option.ECHO)
    block = block_option(response, Option.BLOCK2)
    if response.code == Code.UNAUTHORIZED and echo is not None:
        options = with_option(options, Option.ECHO, echo)
    elif block is None or not block.more:
        return None
    return Message(request.code, options, request.payload)

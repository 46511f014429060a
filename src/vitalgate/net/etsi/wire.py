"""The wire between a client and a server under test: a relay that writes down every datagram and may lose some.

It is the lossy gateway of the test descriptions (CoAP_CFG_LOSSY) and the eyes of every check: whatever the client, what
is judged is what it sent and what it got.
"""

import asyncio
import socket
from collections.abc import Callable
from dataclasses import dataclass

from vitalgate.coap.codec import MessageFormatError, decode
from vitalgate.coap.message import Message, Type, code_text
from vitalgate.coap.options import OPTIONS, Format, decode_uint
from vitalgate.net.udp import DRAIN, MAX_DATAGRAM, SocketAddress, bind, client_socket

MAX_SEEN = 20_000
"""Datagrams that are written down; more of them are relayed all the same."""


@dataclass(frozen=True, slots=True)
class Seen:
    """One datagram: when (seconds since the relay began), which way, whether it was lost on purpose, and what it says
    (None where it is no CoAP message)."""

    at: float
    to_server: bool
    data: bytes
    message: Message | None
    lost: bool = False

    def __str__(self) -> str:
        way = ("->" if self.to_server else "<-") + (" LOST" if self.lost else "")
        if self.message is None:
            return f"{self.at:8.3f} {way} no CoAP message, {len(self.data)} bytes"
        return f"{self.at:8.3f} {way} {in_words(self.message)}"


def in_words(message: Message) -> str:
    """A message in one line, without its payload."""
    options = []
    for number, value in message.options:
        row = OPTIONS.get(number)
        name = row.name if row else str(number)
        if row is None or row.format is Format.OPAQUE:
            options.append(f"{name}:{value.hex() or '-'}")
        elif row.format is Format.STRING:
            options.append(f"{name}:{value.decode(errors='replace')}")
        elif row.format is Format.UINT and name.startswith("Block"):
            block = decode_uint(value)
            options.append(f"{name}:{block >> 4}/{block >> 3 & 1}/{16 << (block & 7)}")
        else:
            options.append(f"{name}:{decode_uint(value)}")
    return (
        f"{Type(message.type).name} {code_text(message.code)} mid={message.mid} token={message.token.hex() or '-'} "
        f"[{' '.join(options)}] {len(message.payload)} bytes"
    )


Lose = Callable[[Seen], bool]
"""``lose(seen)``: True where this datagram is not to arrive."""


class Relay:
    """Stands between one client under test and ``target``: clients speak to `address`. ``lose`` decides what is lost.

    Each address that a client speaks from gets a port of its own towards the server, as through a NAT.
    """

    def __init__(self, target: SocketAddress) -> None:
        self.seen: list[Seen] = []
        self.lose: Lose | None = None
        self._target = target
        self._loop = asyncio.get_running_loop()
        self._began = self._loop.time()
        self._news = asyncio.Event()
        self._front = bind("127.0.0.1", 0)
        self._upstream: dict[SocketAddress, socket.socket] = {}
        self._client_of: dict[socket.socket, SocketAddress] = {}
        self._heir: socket.socket | None = None
        self._off: set[SocketAddress] = set()
        self.resetting = False
        """True until the next Confirmable message of the server is answered with Reset, see `answer_with_reset`."""
        self._loop.add_reader(self._front, self._from_client)

    @property
    def address(self) -> tuple[str, int]:
        """Where clients find the server."""
        host, port = self._front.getsockname()
        return host, port

    def close(self) -> None:
        """Close all sockets."""
        for sock in (self._front, *self._client_of):
            self._loop.remove_reader(sock)
            sock.close()
        self._client_of.clear()

    def reboot(self) -> None:
        """The client is switched off: from now on the server's datagrams reach whoever speaks next from a new address,
        as a device that came back with its old address would get them."""
        for sock in list(self._client_of)[-1:]:
            self._heir = sock
            self._off.add(self._client_of[sock])

    def answer_with_reset(self) -> None:
        """Answer the server's next Confirmable message with Reset in the client's name; the client gets neither."""
        self.resetting = True

    async def until(self, condition: Callable[[], bool], within: float) -> bool:
        """Wait for ``condition``, looked at after every datagram; False where it does not hold ``within`` seconds."""
        try:
            async with asyncio.timeout(within):
                while not condition():
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            return condition()
        return True

    def _note(self, data: bytes, *, to_server: bool) -> bool:
        # True where it is to be passed on.
        try:
            message = decode(data)
        except MessageFormatError:
            message = None
        seen = Seen(self._loop.time() - self._began, to_server, data, message)
        if self.lose is not None and self.lose(seen):
            seen = Seen(seen.at, to_server, data, message, lost=True)
        if len(self.seen) < MAX_SEEN:
            self.seen.append(seen)
        self._news.set()
        return not seen.lost

    def _from_client(self) -> None:
        for _ in range(DRAIN):
            try:
                data, client = self._front.recvfrom(MAX_DATAGRAM)
            except BlockingIOError:
                return
            except OSError:
                continue  # a client that is gone: the datagram sent to it was refused
            if client in self._off:
                continue
            sock = self._upstream.get(client)
            if sock is None:
                sock = self._open(client)
            if self._note(data, to_server=True):
                self._send(sock, data, self._target)

    def _open(self, client: SocketAddress) -> socket.socket:
        if self._heir is not None:
            sock, self._heir = self._heir, None
        else:
            sock = client_socket(self._target)
            self._loop.add_reader(sock, self._from_server, sock)
        self._upstream[client] = sock
        self._client_of[sock] = client
        return sock

    def _from_server(self, sock: socket.socket) -> None:
        for _ in range(DRAIN):
            try:
                data, _ = sock.recvfrom(MAX_DATAGRAM)
            except BlockingIOError:
                return
            except OSError:
                continue  # a server that is gone
            if self.resetting and data[0] & 0x30 == 0:
                self.resetting = False
                self._send(sock, b"\x70\x00" + data[2:4], self._target)
                self._news.set()
                continue
            if self._note(data, to_server=False):
                self._send(self._front, data, self._client_of[sock])

    @staticmethod
    def _send(sock: socket.socket, data: bytes, address: SocketAddress) -> None:
        try:
            sock.sendto(data, address)
        except OSError:
            return  # lost, which datagrams may be

"""Our client as a client under test."""

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator
from dataclasses import replace

from vitalgate.coap.codec import MessageFormatError, decode, encode
from vitalgate.coap.message import Message, Type
from vitalgate.coap.parameters import Parameters
from vitalgate.net.coap import CoapClient, How
from vitalgate.net.etsi.asking import Ask, Shown
from vitalgate.net.requests import RequestError


class OurClient:
    """`CoapClient`. A ping and an empty token, which it never sends by itself, are sent by hand."""

    name = "vitalgate"

    def __init__(self, parameters: Parameters, timeout: float) -> None:
        self._parameters = parameters
        self._timeout = timeout
        self._clients: dict[int, CoapClient] = {}

    def _client(self, block: int | None = None) -> CoapClient:
        # The block size is a parameter of the whole client.
        size = self._parameters.block_size if block is None else block
        if size not in self._clients:
            self._clients[size] = CoapClient(parameters=replace(self._parameters, block_size=size))
        return self._clients[size]

    async def ask(self, address: tuple[str, int], ask: Ask) -> Shown | None:
        """Send the request; None where no response came."""
        if ask.token is not None:
            mid = int.from_bytes(os.urandom(2), "big")
            message = Message(ask.code, ask.options(), ask.payload, Type.CON, mid, ask.token)
            return _shown(await _by_hand(address, encode(message), self._timeout))
        how = _how(ask)
        try:
            async with asyncio.timeout(self._timeout):
                return _shown(await self._client(ask.block).request(ask.code, ask.uri(address), ask.payload, **how))
        except (RequestError, TimeoutError):
            return None

    async def ping(self, address: tuple[str, int]) -> bool:
        """Send a ping and wait for its Reset."""
        mid = os.urandom(2)
        answer = await _by_hand(address, b"\x40\x00" + mid, self._timeout)
        return answer is not None and answer.type == Type.RST and answer.mid == int.from_bytes(mid, "big")

    @contextlib.asynccontextmanager
    async def observe(self, address: tuple[str, int], ask: Ask) -> AsyncIterator[list[Shown]]:
        """Observe while inside."""
        shown: list[Shown] = []

        async def watch() -> None:
            async for state in self._client().observe(ask.uri(address), **_how(ask)):
                shown.append(Shown(state.code, state.payload))

        watching = asyncio.create_task(watch())
        try:
            yield shown
        finally:
            watching.cancel()
            with contextlib.suppress(asyncio.CancelledError, RequestError):
                await watching

    async def reboot(self) -> None:
        """A new client in the place of the old."""
        await self.close()

    async def close(self) -> None:
        """Close its sockets."""
        for client in self._clients.values():
            client.close()
        self._clients.clear()


def _how(ask: Ask) -> How:
    how: How = {"confirmable": ask.confirmable, "options": ask.extra()}
    if ask.content_format is not None:
        how["content_format"] = ask.content_format
    if ask.accept is not None:
        how["accept"] = ask.accept
    return how


def _shown(response: Message | None) -> Shown | None:
    return None if response is None else Shown(response.code, response.payload)


async def _by_hand(address: tuple[str, int], data: bytes, within: float) -> Message | None:
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.connect(address)
        sock.send(data)
        try:
            async with asyncio.timeout(within):
                return decode(await loop.sock_recv(sock, 2048))
        except (TimeoutError, OSError, MessageFormatError):
            return None

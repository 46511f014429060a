"""Our client as a client under test."""

import asyncio
import os
import socket

from vitalgate.coap.codec import MessageFormatError, decode, encode
from vitalgate.coap.message import Message, Type
from vitalgate.coap.parameters import Parameters
from vitalgate.net.coap import CoapClient, How, RequestError
from vitalgate.net.etsi.asking import Ask, Shown


class OurClient:
    """`CoapClient`. A ping and an empty token, which it never sends by itself, are sent by hand."""

    name = "vitalgate"

    def __init__(self, parameters: Parameters, timeout: float) -> None:
        self._parameters = parameters
        self._timeout = timeout
        self._client = CoapClient(parameters=parameters)

    async def ask(self, address: tuple[str, int], ask: Ask) -> Shown | None:
        """Send the request; None where no response came."""
        if ask.token is not None:
            mid = int.from_bytes(os.urandom(2), "big")
            message = Message(ask.code, ask.options(), ask.payload, Type.CON, mid, ask.token)
            return _shown(await _by_hand(address, encode(message), self._timeout))
        how: How = {"confirmable": ask.confirmable, "options": ask.extra()}
        if ask.content_format is not None:
            how["content_format"] = ask.content_format
        if ask.accept is not None:
            how["accept"] = ask.accept
        try:
            async with asyncio.timeout(self._timeout):
                return _shown(await self._client.request(ask.code, ask.uri(address), ask.payload, **how))
        except (RequestError, TimeoutError):
            return None

    async def ping(self, address: tuple[str, int]) -> bool:
        """Send a ping and wait for its Reset."""
        mid = os.urandom(2)
        answer = await _by_hand(address, b"\x40\x00" + mid, self._timeout)
        return answer is not None and answer.type == Type.RST and answer.mid == int.from_bytes(mid, "big")

    async def close(self) -> None:
        """Close its sockets."""
        self._client.close()


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

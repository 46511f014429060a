"""The servers of `vitalgate bench coap`, processes of their own: ``python -m vitalgate.cli.coappeers NAME PORT CORE``.

All of them answer GET /time with the same 15 bytes, and hold /large (5120 bytes) and /example_data (observable, PUT);
libcoap's is the one that Debian ships. The bare echo shows what sockets and Python cost before any CoAP.
"""

import asyncio
import logging
import os
import socket
import sys

TIME = b"Nov 22 12:00:00"
LARGE = bytes(0x20 + number % 64 for number in range(5120))


def echo(port: int) -> None:
    """Send every datagram back."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        sock.bind(("127.0.0.1", port))
        receive, send = sock.recvfrom, sock.sendto
        while True:
            data, address = receive(2048)
            send(data, address)


def vitalgate(port: int) -> None:
    """`CoapServer` as anyone starts it."""
    from vitalgate.coap.message import Code, Message  # noqa: PLC0415  # a peer imports nothing of the others
    from vitalgate.coap.options import build_options  # noqa: PLC0415
    from vitalgate.coap.site import Site  # noqa: PLC0415
    from vitalgate.net.coap import CoapServer  # noqa: PLC0415

    text = build_options(content_format=0)
    server = CoapServer(Site())
    content = b""

    def fixed(path: str, payload: bytes) -> None:
        server.site.add(path, lambda *_: Message(Code.CONTENT, text, payload), methods=[Code.GET], idempotent=True)

    def put(request: Message, *_: object) -> Message:
        nonlocal content
        content = request.payload
        server.notify("example_data")
        return Message(Code.CHANGED)

    fixed("time", TIME)
    fixed("large", LARGE)

    def get(*_: object) -> Message:
        return Message(Code.CONTENT, text, content)

    server.site.add("example_data", get, methods=[Code.GET], idempotent=True, observable=True)
    server.site.add("example_data", put, methods=[Code.PUT])
    asyncio.run(server.serve("127.0.0.1", port))


def aiocoap(port: int) -> None:
    """aiocoap's server with its own resource classes."""
    import aiocoap  # type: ignore[import-untyped]  # noqa: PLC0415  # it comes without types
    from aiocoap import resource  # noqa: PLC0415

    logging.getLogger("coap-server").setLevel(logging.ERROR)

    class Fixed(resource.Resource):  # type: ignore[misc]  # aiocoap's base classes have no types
        def __init__(self, content: bytes) -> None:
            super().__init__()
            self.content = content

        async def render_get(self, request: aiocoap.Message) -> aiocoap.Message:
            return aiocoap.Message(payload=self.content, content_format=0)

    class Observed(resource.ObservableResource):  # type: ignore[misc]
        content = b""

        async def render_get(self, request: aiocoap.Message) -> aiocoap.Message:
            return aiocoap.Message(payload=self.content, content_format=0)

        async def render_put(self, request: aiocoap.Message) -> aiocoap.Message:
            self.content = request.payload
            self.updated_state()
            return aiocoap.Message(code=aiocoap.CHANGED)

    async def serve() -> None:
        site = resource.Site()
        site.add_resource(["time"], Fixed(TIME))
        site.add_resource(["large"], Fixed(LARGE))
        site.add_resource(["example_data"], Observed())
        await aiocoap.Context.create_server_context(site, bind=("127.0.0.1", port))
        await asyncio.get_running_loop().create_future()

    asyncio.run(serve())


def main() -> None:
    """Pin this process and serve until killed."""
    name, port, core = sys.argv[1:]
    os.sched_setaffinity(0, {int(core)})
    logging.basicConfig(level=logging.ERROR)
    {"echo": echo, "aiocoap": aiocoap, "vitalgate": vitalgate}[name](int(port))


if __name__ == "__main__":
    main()

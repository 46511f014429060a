"""A CoAP server with three resources: ``python coap_server.py [PORT]``, 5683 by default."""

import asyncio
import sys
import time

from vitalgate.coap import Code, Message, Site
from vitalgate.net.coap import CoapServer


def hello(request, path, identity, now):
    """Answers at once: the fast way."""
    return Message(Code.CONTENT, payload=b"Hello!")


async def slow(request):
    """May wait; the client gets its acknowledgement meanwhile."""
    await asyncio.sleep(1)
    return Message(Code.CONTENT, payload=b"It took a second.")


def clock(request, path, identity, now):
    """What can be observed: clients are told when it changes."""
    return Message(Code.CONTENT, payload=time.strftime("%H:%M:%S").encode())


async def tick(server):
    """Says every second that /clock has changed."""
    while True:
        await asyncio.sleep(1)
        server.notify("clock")


async def main(port: int) -> None:
    """Serve until interrupted."""
    site = Site()
    site.add("hello", hello, methods=[Code.GET], idempotent=True)
    site.add("clock", clock, methods=[Code.GET], idempotent=True, observable=True)
    server = CoapServer(site)
    server.add("slow", slow, methods=[Code.GET])
    await asyncio.gather(server.serve("127.0.0.1", port), tick(server))


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 5683))

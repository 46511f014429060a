"""A CoAP server with two resources: ``python coap_server.py [PORT]``, 5683 by default."""

import asyncio
import sys

from vitalgate.coap import Code, Message, Site
from vitalgate.net.coap import CoapServer


def hello(request, path, identity, now):
    """Answers at once: the fast way."""
    return Message(Code.CONTENT, payload=b"Hello!")


async def slow(request):
    """May wait; the client gets its acknowledgement meanwhile."""
    await asyncio.sleep(1)
    return Message(Code.CONTENT, payload=b"It took a second.")


async def main(port: int) -> None:
    """Serve until interrupted."""
    site = Site()
    site.add("hello", hello, methods=[Code.GET], idempotent=True)
    server = CoapServer(site)
    server.add("slow", slow, methods=[Code.GET])
    await server.serve("127.0.0.1", port)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 5683))

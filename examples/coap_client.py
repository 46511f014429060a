"""Ask a CoAP server for a resource: ``python coap_client.py coap://127.0.0.1/test``."""

import asyncio
import sys

from vitalgate.net.coap import CoapClient


async def main(uri: str) -> None:
    """Print what is at ``uri``."""
    async with CoapClient() as client:
        response = await client.get(uri)
        print(response.payload.decode())


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))

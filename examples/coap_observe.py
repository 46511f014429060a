"""Watch a resource: ``python coap_observe.py coap://127.0.0.1/clock`` prints three states and stops."""

import asyncio
import sys

from vitalgate.net.coap import CoapClient


async def main(uri: str, count: int = 3) -> None:
    """Print the next ``count`` states of what is at ``uri``."""
    async with CoapClient() as client:
        async for state in client.observe(uri):
            print(state.payload.decode(), flush=True)
            count -= 1
            if count == 0:
                break


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))

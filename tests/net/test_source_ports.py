"""A client under load: no Message ID is used twice within EXCHANGE_LIFETIME; there are more source ports, or it waits
(RFC 7252 section 4.4)."""

import asyncio

from vitalgate.coap import Code, Message, Parameters, Site
from vitalgate.net.coap import CoapClient, CoapServer

LIFETIME = Parameters().exchange_lifetime


def seen(site: Site) -> list:
    """Where each request came from, with its Message ID."""
    found: list = []

    def handler(request, path, identity, now):
        found.append((path, request.mid))
        return Message(Code.CONTENT, (), b"x")

    site.add("x", handler, methods=[Code.GET], idempotent=True)
    return found


def use_up(client: CoapClient) -> None:
    """As if the Message IDs of every port in use had gone to the server: one by one that takes half a minute."""
    now = asyncio.get_running_loop().time()
    for sources in client._sockets.values():
        for source in sources:
            for peer in source.endpoint._core.peers.values():
                while peer.mids.take(now, LIFETIME) is not None:
                    pass


def test_more_ports_and_then_waiting():
    async def main():
        site = Site()
        found = seen(site)
        async with CoapServer(site) as server, CoapClient(source_ports=3) as client:
            host, port = server.bind("127.0.0.1", 0)
            uri = f"coap://{host}:{port}/x"
            for _ in range(3):
                for _ in range(3):
                    assert (await client.get(uri)).payload == b"x"
                use_up(client)
            ports = [path[1] for path, _ in found]
            assert len(set(ports)) == 3
            assert [ports.count(each) for each in dict.fromkeys(ports)] == [3, 3, 3]
            try:
                async with asyncio.timeout(0.3):
                    await client.get(uri)
            except TimeoutError:
                pass
            else:
                raise AssertionError("a Message ID was used again")
            assert client.counters["coap_limit_reached{message_ids}"] == 1
            (sources,) = client._sockets.values()
            assert len(sources) == 3
            # 247 s later: the deadline that the engine named, turned by hand
            first = sources[0].endpoint
            due = first.next_timeout()
            assert due is not None
            waiting = asyncio.create_task(client.get(uri))
            await asyncio.sleep(0)  # it is queued now
            later = asyncio.get_running_loop().time() + LIFETIME
            first.handle_timeout(later)
            sources[0].requests._driver.turn()
            assert (await waiting).payload == b"x"
            assert found[-1][0][1] == ports[0], "the first port again"

    asyncio.run(main())


def test_another_server_needs_no_other_port():
    async def main():
        site = Site()
        found = seen(site)
        async with CoapServer(site) as server, CoapClient() as client:
            one = server.bind("127.0.0.1", 0)
            other = server.bind("127.0.0.1", 0)
            await client.get(f"coap://127.0.0.1:{one[1]}/x")
            use_up(client)
            await client.get(f"coap://127.0.0.1:{other[1]}/x")
            assert len({path for path, _ in found}) == 1, "Message IDs are for each peer"

    asyncio.run(main())

"""Bodies in blocks, observations and requests without response through CoapClient and CoapServer on real sockets."""

import asyncio
import contextlib

import pytest

from vitalgate.coap import Code, Failure, Message, Option, Parameters, Site
from vitalgate.net.coap import CoapClient, CoapServer, RequestError
from vitalgate.net.requests import MAX_STATES

LARGE = bytes(n % 251 for n in range(5000))


def run(scenario):
    return asyncio.run(asyncio.wait_for(scenario(), 30))


async def until(condition):
    """Let the event loop turn until ``condition`` holds."""
    for _ in range(100_000):
        if condition():
            return
        await asyncio.sleep(0)
    pytest.fail("it does not come to pass")


class Thing:
    """A resource to read, replace and observe."""

    def __init__(self, server, content=b"0"):
        self.server = server
        self.content = content
        self.site = server.site
        self.site.add("thing", self.get, methods=[Code.GET], idempotent=True, observable=True)
        self.site.add("thing", self.put, methods=[Code.PUT, Code.POST])

    def get(self, request, path, identity, now):
        return Message(Code.CONTENT, (), self.content)

    def put(self, request, path, identity, now):
        self.content = request.payload
        self.site.notify("thing", now)
        return Message(Code.CHANGED, (), request.payload if request.code == Code.POST else b"")


@contextlib.asynccontextmanager
async def served(content=b"0", **how):
    async with CoapServer(Site()) as server, CoapClient(**how) as client:
        thing = Thing(server, content)
        host, port = server.bind("127.0.0.1", 0)
        yield server, client, thing, f"coap://{host}:{port}/thing"


def test_large_bodies_go_in_blocks_and_say_how_far_they_are():
    async def scenario():
        async with served() as (_, client, thing, uri):
            steps = []
            response = await client.post(uri, LARGE, progress=steps.append)
            assert (response.code, response.payload, thing.content) == (Code.CHANGED, LARGE, LARGE)
            assert [(step.sent, step.to_send) for step in steps[:5]] == [
                (n, 5000) for n in (1024, 2048, 3072, 4096, 5000)
            ]
            assert [(step.received, step.to_receive) for step in steps[-2:]] == [(4096, 5000), (5000, 5000)]
            assert (await client.get(uri)).payload == LARGE

    run(scenario)


def test_states_come_as_they_change():
    async def scenario():
        async with served(parameters=Parameters(block_size=64)) as (server, client, thing, uri):
            seen = []
            async for state in client.observe(uri):
                seen.append(state.payload)
                if len(seen) == 4:
                    break
                await client.put(uri, LARGE[: len(seen) * 100])
            assert seen == [b"0", LARGE[:100], LARGE[:200], LARGE[:300]]
            thing.content = b"after"
            await until(lambda: server.notify("thing") == 0)  # leaving the loop deregisters

    run(scenario)


def test_observation_that_the_server_ends():
    async def scenario():
        async with served() as (server, client, _, uri):
            codes = []
            async for state in client.observe(uri):
                codes.append(state.code)
                server.notify("thing", Message(Code.NOT_FOUND))
            assert codes == [Code.CONTENT, Code.NOT_FOUND]
            assert [state.code async for state in client.observe(uri + "/none")] == [Code.NOT_FOUND]

    run(scenario)


def test_observation_of_nobody():
    async def scenario():
        async with served(parameters=Parameters(ack_timeout=0.01, max_retransmit=1)) as (server, client, _, uri):
            server.close()
            with pytest.raises(RequestError) as error:
                async for _ in client.observe(uri):
                    pytest.fail("nobody is there")
            assert error.value.reason is Failure.TIMEOUT

    run(scenario)


def test_client_that_is_closed_ends_its_observations():
    async def scenario():
        async with served() as (server, client, _, uri):
            states = client.observe(uri)
            assert (await anext(states)).payload == b"0"
            client.close()
            with pytest.raises(RequestError) as error:
                await anext(states)
            assert error.value.reason is Failure.CANCELLED
            await until(lambda: server.notify("thing") == 0)

    run(scenario)


def test_who_reads_slowly_misses_the_oldest_states():
    async def scenario():
        async with served(parameters=Parameters()) as (server, client, _, uri):
            states = client.observe(uri)
            await anext(states)
            last = MAX_STATES + 20
            for n in range(1, last + 1):
                server.notify("thing", Message(Code.CONTENT, (), b"%d" % n))
                received = client.counters["coap_notifications_received"]
                await until(lambda before=received: client.counters["coap_notifications_received"] > before)
            assert (await anext(states)).payload == b"%d" % (last - MAX_STATES + 1)
            await states.aclose()

    run(scenario)


def test_request_that_wants_no_response():
    async def scenario():
        async with served() as (_, client, thing, uri):
            response = await client.put(uri, b"quiet", options=[(Option.NO_RESPONSE, b"\x1a")])
            assert (response.code, thing.content) == (Code.EMPTY, b"quiet")

    run(scenario)

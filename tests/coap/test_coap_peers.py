"""Against other implementations on loopback: libcoap's client and server, aiocoap's client."""

import asyncio
import contextlib
import os
import shutil
import socket

import aiocoap
import pytest

from vitalgate.coap import (
    Code,
    Endpoint,
    Message,
    Option,
    RequestFailed,
    RequestReceived,
    ResponseReceived,
    Site,
    build_options,
)
from vitalgate.net.udp import UdpDriver, bind

pytestmark = pytest.mark.peer


def tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        if os.environ.get("CI") == "true":
            pytest.fail(f"{name} (Debian package libcoap3-bin) is not installed")
        pytest.skip(f"{name} (Debian package libcoap3-bin) is not installed")
    return found


class Running:
    """An endpoint on a loopback socket; requests for /separate are answered after a while."""

    def __init__(self, site: Site | None = None, **kwargs):
        self.endpoint = Endpoint(site=site or Site(), **kwargs)
        self.driver = UdpDriver(self.endpoint, bind("127.0.0.1", 0), on_turn=self.turn)
        self.port = self.driver.address[1]
        self.results: dict[int, asyncio.Future] = {}

    def turn(self, now):
        while (event := self.endpoint.next_event()) is not None:
            if isinstance(event, RequestReceived):
                asyncio.get_running_loop().call_later(0.7, self.respond, event.exchange)
            elif isinstance(event, ResponseReceived):
                self.results.pop(event.exchange).set_result(event.response)
            elif isinstance(event, RequestFailed):
                self.results.pop(event.exchange).set_exception(TimeoutError(event.reason.value))

    def respond(self, exchange):
        self.endpoint.respond(exchange, Message(Code.CONTENT, (), b"separate"), asyncio.get_running_loop().time())
        self.driver.turn()

    async def request(self, message: Message, port: int, *, confirmable: bool = True) -> Message:
        now = asyncio.get_running_loop().time()
        number = self.endpoint.request(message, ("127.0.0.1", port), now, confirmable=confirmable)
        future = self.results[number] = asyncio.get_running_loop().create_future()
        self.driver.turn()
        return await asyncio.wait_for(future, 20)


@contextlib.contextmanager
def running(site: Site | None = None, **kwargs):
    made = Running(site, **kwargs)
    try:
        yield made
    finally:
        made.driver.close()


def resources() -> tuple[Site, dict[str, bytes]]:
    stored = {"stored": b"before"}

    def put(request, path, identity, now):
        stored["stored"] = request.payload
        return Message(Code.CHANGED)

    def says(payload):
        return lambda request, path, identity, now: Message(Code.CONTENT, build_options(content_format=0), payload)

    site = Site()
    site.add("test", says(b"small"), methods=[Code.GET], idempotent=True, rt="test")
    site.add("large", says(b"L" * 500), methods=[Code.GET])
    site.add("stored", put, methods=[Code.PUT])
    site.add("separate", lambda request, path, identity, now: None, methods=[Code.GET])
    return site, stored


async def libcoap(port: int, path: str, *arguments: str) -> str:
    process = await asyncio.create_subprocess_exec(
        tool("coap-client-notls"), "-B", "20", *arguments, f"coap://127.0.0.1:{port}/{path}",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    out, _ = await asyncio.wait_for(process.communicate(), 60)
    return out.decode(errors="replace").strip()


def test_libcoap_client():
    async def main():
        site, stored = resources()
        with running(site) as ours:
            assert await libcoap(ours.port, "test") == "small"
            assert await libcoap(ours.port, "test", "-N") == "small"
            assert await libcoap(ours.port, "large") == "L" * 500, "answers the challenge, then gets it"
            assert 'rt="test"' in await libcoap(ours.port, ".well-known/core?rt=te*")
            assert await libcoap(ours.port, "separate") == "separate"
            assert await libcoap(ours.port, "stored", "-m", "put", "-e", "after") == ""
            assert stored["stored"] == b"after"
            assert (await libcoap(ours.port, "none")).startswith("4.04")
            assert (await libcoap(ours.port, "test", "-m", "delete")).startswith("4.05")
            assert (await libcoap(ours.port, "test", "-O", "65001,0x01")).startswith("4.02")
            assert ours.endpoint.counters["coap_challenges"] >= 2
            assert ours.endpoint.counters.total("coap_rejected") == 1  # 65001

    asyncio.run(main())


def test_libcoap_server():
    async def main():
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        process = await asyncio.create_subprocess_exec(
            tool("coap-server-notls"), "-A", "127.0.0.1", "-p", str(port), stdout=-3, stderr=-3
        )
        try:
            with running() as ours:
                # The first request also waits for the server to start: that is what retransmission is for.
                root = await ours.request(Message(Code.GET), port)
                assert root.code == Code.CONTENT
                assert b"libcoap" in root.payload
                for confirmable in (True, False):
                    core = await ours.request(
                        Message(Code.GET, build_options(".well-known/core")), port, confirmable=confirmable
                    )
                    assert core.payload.startswith(b"</>")
                separate = await ours.request(Message(Code.GET, build_options("async", query=["1"])), port)
                assert separate.code == Code.CONTENT
                put = await ours.request(Message(Code.PUT, build_options("example_data"), b"hello"), port)
                assert put.code in (Code.CREATED, Code.CHANGED)
                got = await ours.request(Message(Code.GET, build_options("example_data")), port)
                assert got.payload == b"hello"
                # libcoap repeats the option that it does not know in its 4.02, where it is just as critical for us.
                with pytest.raises(TimeoutError, match="rejected"):
                    await ours.request(Message(Code.GET, build_options(more=[(65001, b"")])), port)
        finally:
            process.terminate()
            await process.wait()

    asyncio.run(main())


def test_aiocoap_client():
    async def main():
        site, _ = resources()
        with running(site, verify_addresses=False) as ours:
            context = await aiocoap.Context.create_client_context()
            try:
                for path, code, expected in (
                    ("test", aiocoap.GET, b"small"), ("large", aiocoap.GET, b"L" * 500),
                    ("separate", aiocoap.GET, b"separate"), ("stored", aiocoap.PUT, b""),
                ):  # fmt: skip
                    message = aiocoap.Message(code=code, uri=f"coap://127.0.0.1:{ours.port}/{path}", payload=b"")
                    response = await asyncio.wait_for(context.request(message).response, 20)
                    assert response.code.is_successful()
                    assert response.payload == expected
            finally:
                await context.shutdown()

    asyncio.run(main())


def test_two_of_ours_on_sockets():
    async def main():
        site, stored = resources()
        with running(site) as server, running() as client:
            large = await client.request(Message(Code.GET, build_options("large")), server.port)
            assert large.payload == b"L" * 500
            put = await client.request(Message(Code.PUT, build_options("stored"), b"x" * 1000), server.port)
            assert put.code == Code.CHANGED
            assert stored["stored"] == b"x" * 1000
            assert large.option(Option.ECHO) is None
            assert server.endpoint.counters["coap_challenges"] == 1

    asyncio.run(main())

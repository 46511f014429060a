"""CoapClient and CoapServer on real sockets of this machine, and the examples as anyone runs them."""

import asyncio
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vitalgate.coap import Code, ContentFormat, Failure, Message, Option, Parameters, ResponseError, Site, Type, decode
from vitalgate.coap.uri import UriError
from vitalgate.net.coap import CoapClient, CoapServer, RequestError, is_loopback
from vitalgate.net.udp import AddressError

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(scenario):
    return asyncio.run(asyncio.wait_for(scenario(), 30))


def echoing() -> Site:
    """A site that says what it was asked."""
    site = Site()

    def say(request, path, identity, now):
        options = b",".join(b"%d=%b" % pair for pair in request.options)
        return Message(Code.CONTENT, (), b"%d %b %b %d" % (request.code, options, request.payload, request.type))

    site.add("say", say, small=True)
    return site


def test_every_method_arrives_with_its_options_and_payload():
    async def scenario():
        async with CoapServer(echoing()) as server, CoapClient() as client:
            host, port = server.bind("127.0.0.1", 0)
            uri = f"coap://{host}:{port}/say?a=1"
            path = b"11=say,15=a=1"
            assert (await client.get(uri)).payload == b"1 %b  0" % path
            assert (await client.delete(uri)).payload == b"4 %b  0" % path
            for code, method in (
                (2, client.post),
                (3, client.put),
                (5, client.fetch),
                (6, client.patch),
                (7, client.ipatch),
            ):
                assert (await method(uri, b"body")).payload == b"%d %b body 0" % (code, path)
            response = await client.post(uri, b"{}", content_format=ContentFormat.JSON, accept=ContentFormat.TEXT)
            assert response.payload == b"2 11=say,12=2,15=a=1,17= {} 0"
            response = await client.put(uri, b"x", options=[(Option.SIZE1, b"\x01")], confirmable=False)
            assert response.payload == b"3 %b,60=\x01 x 1" % path
            assert response.type == Type.NON

    run(scenario)


def test_a_name_is_looked_up_and_sent_along():
    async def scenario():
        async with CoapServer(echoing()) as server, CoapClient() as client:
            _, port = server.bind("localhost", 0)
            response = await client.get(f"coap://localhost:{port}/say")
            assert response.payload == b"1 3=localhost,11=say  0"

    run(scenario)


@pytest.mark.parametrize("spelling", ["[::1]", "[0:0:0:0:0:0:0:1]"])
def test_ipv6_however_it_is_spelled(spelling):
    async def scenario():
        async with CoapServer(echoing()) as server, CoapClient() as client:
            try:
                _, port = server.bind("::1", 0)
            except AddressError as error:
                pytest.skip(str(error))
            assert (await client.get(f"coap://{spelling}:{port}/say")).code == Code.CONTENT

    run(scenario)


def test_errors_are_responses_and_silence_is_an_exception():
    async def scenario():
        parameters = Parameters(ack_timeout=0.02, max_retransmit=1)
        async with CoapServer() as server, CoapClient(parameters=parameters) as client:
            host, port = server.bind("127.0.0.1", 0)
            assert (await client.get(f"coap://{host}:{port}/none")).code == Code.NOT_FOUND
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
                silent.bind(("127.0.0.1", 0))
                with pytest.raises(RequestError, match="no answer") as caught:
                    await client.get(f"coap://127.0.0.1:{silent.getsockname()[1]}/x")
                assert caught.value.reason is Failure.TIMEOUT

    run(scenario)


@pytest.mark.parametrize(
    ("uri", "error"),
    [
        ("coaps://127.0.0.1/x", UriError),
        ("http://127.0.0.1/x", UriError),
        ("coap://127.0.0.1/x#y", UriError),
        ("coap://no-such-host.invalid/x", AddressError),
    ],
)
def test_what_cannot_be_asked(uri, error):
    async def scenario():
        async with CoapClient() as client:
            with pytest.raises(error):
                await client.get(uri)

    run(scenario)


def test_many_requests_at_once_to_one_server_wait_for_each_other():
    async def scenario():
        async with CoapServer(echoing()) as server, CoapClient() as client:
            host, port = server.bind("127.0.0.1", 0)
            uris = [f"coap://{host}:{port}/say?n={number}" for number in range(50)]
            responses = await asyncio.gather(*(client.get(uri) for uri in uris))
            assert [b"n=%d " % number in response.payload for number, response in enumerate(responses)] == [True] * 50

    run(scenario)


def test_a_request_that_its_caller_gave_up_makes_room_for_the_next():
    async def scenario():
        release = asyncio.Event()

        async def wait(request):
            await release.wait()
            return Message(Code.CONTENT, (), b"late")

        async with CoapServer(echoing(), parameters=Parameters(piggyback_window=10)) as server, CoapClient() as client:
            server.add("wait", wait)
            host, port = server.bind("127.0.0.1", 0)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await client.get(f"coap://{host}:{port}/wait")
            # NSTART is 1: this one is sent because the other was cancelled.
            assert (await client.get(f"coap://{host}:{port}/say")).code == Code.CONTENT
            release.set()

    run(scenario)


def test_closing_a_client_ends_its_requests():
    async def scenario():
        client = CoapClient()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
            silent.bind(("127.0.0.1", 0))
            silent.setblocking(False)
            asking = asyncio.create_task(client.get(f"coap://127.0.0.1:{silent.getsockname()[1]}/x"))
            await asyncio.get_running_loop().sock_recv(silent, 100)
            client.close()
            with pytest.raises(RequestError) as caught:
                await asking
            assert caught.value.reason is Failure.CANCELLED

    run(scenario)


def test_a_coroutine_that_takes_time_answers_separately():
    async def scenario():
        release = asyncio.Event()

        async def wait(request):
            await release.wait()
            return Message(Code.CONTENT, (), b"at last")

        async with CoapServer(parameters=Parameters(piggyback_window=0.01)) as server:
            server.add("wait", wait, methods=[Code.GET])
            address = server.bind("127.0.0.1", 0)
            loop = asyncio.get_running_loop()
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                client.setblocking(False)
                client.connect(address)
                client.send(bytes.fromhex("41 01 00 07 aa b4") + b"wait")
                assert await loop.sock_recv(client, 100) == bytes.fromhex("60 00 00 07")
                release.set()
                answer = decode(await loop.sock_recv(client, 100))
                assert (answer.type, answer.token, answer.payload) == (Type.CON, b"\xaa", b"at last")

    run(scenario)


def test_what_a_coroutine_raises():
    async def scenario():
        failures = []
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: failures.append(context["exception"]))

        async def refuse(request):
            raise ResponseError(Code.FORBIDDEN, "not you")

        async def stumble(request):
            raise LookupError("a mistake in the handler")

        async with CoapServer() as server, CoapClient() as client:
            server.add("refuse", refuse)
            server.add("stumble", stumble)
            host, port = server.bind("127.0.0.1", 0)
            response = await client.get(f"coap://{host}:{port}/refuse")
            assert (response.code, response.payload) == (Code.FORBIDDEN, b"not you")
            response = await client.get(f"coap://{host}:{port}/stumble")
            assert (response.code, response.payload) == (Code.INTERNAL_SERVER_ERROR, b"")
            assert [type(each) for each in failures] == [LookupError]

    run(scenario)


def test_which_addresses_stay_on_this_machine():
    assert is_loopback(("127.0.0.1", 1))
    assert is_loopback(("127.9.9.9", 1))
    assert is_loopback(("::1", 1, 0, 0))
    assert not is_loopback(("192.0.2.1", 1))
    assert not is_loopback(("::ffff:192.0.2.1", 1, 0, 0))
    assert not is_loopback("somewhere")


def test_the_examples_run_as_they_stand():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen([sys.executable, EXAMPLES / "coap_server.py", str(port)])
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ping:
            ping.settimeout(0.1)
            ping.connect(("127.0.0.1", port))
            end = time.monotonic() + 20
            while time.monotonic() < end:
                try:
                    ping.send(b"\x40\x00\x00\x01")
                    assert ping.recv(10) == b"\x70\x00\x00\x01"
                    break
                except (TimeoutError, ConnectionRefusedError):
                    assert server.poll() is None
        for path, expected in (("hello", "Hello!\n"), ("slow", "It took a second.\n")):
            uri = f"coap://127.0.0.1:{port}/{path}"
            client = [sys.executable, EXAMPLES / "coap_client.py", uri]
            done = subprocess.run(client, capture_output=True, text=True, timeout=30, check=False)
            assert (done.returncode, done.stdout) == (0, expected), done.stderr
        client = [sys.executable, EXAMPLES / "coap_observe.py", f"coap://127.0.0.1:{port}/clock"]
        done = subprocess.run(client, capture_output=True, text=True, timeout=30, check=False)
        assert done.returncode == 0, done.stderr
        states = done.stdout.splitlines()
        assert len(states) == 3
        assert len(set(states)) > 1
        assert all(re.fullmatch(r"\d\d:\d\d:\d\d", state) for state in states)
    finally:
        server.kill()
        server.wait()

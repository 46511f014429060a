"""Groups on the loopback interface: servers that joined one, and a client that asks it."""

import asyncio
import json
import socket
import subprocess
import sys

import pytest

from vitalgate.coap import Code, Limits, Message, Parameters, Site
from vitalgate.coap.uri import UriError
from vitalgate.net.coap import CoapClient, CoapServer
from vitalgate.net.groups import GroupRequestError, group_socket, is_group, sending_socket
from vitalgate.net.udp import AddressError

SOON = Parameters(default_leisure=0.1)
LO = "127.0.0.1"


def joined(name: str, group: str = "224.0.1.187", port: int = 0, **kwargs) -> tuple[CoapServer, int]:
    """A server that joined ``group`` with a port of its own choice, so that tests do not meet."""
    site = Site()
    site.add("name", lambda *_: Message(Code.CONTENT, (), name.encode()), methods=[Code.GET], groups=True, rt=name)
    site.add("large", lambda *_: Message(Code.CONTENT, (), name.encode() * 3000), methods=[Code.GET], groups=True)
    site.add("private", lambda *_: Message(Code.CONTENT, (), b"no"), methods=[Code.GET])
    server = CoapServer(site, parameters=SOON, **kwargs)
    server.bind(LO, 0)
    port = port or free_port()
    server.join(group, port, LO)
    return server, port


def free_port() -> int:
    """A port that no other test uses; skips where the loopback interface has no multicast."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind((LO, 0))
        port = probe.getsockname()[1]
    try:
        group_socket("224.0.1.187", port, LO).close()
        sending_socket(("224.0.1.187", port), LO).close()
    except AddressError as error:
        pytest.skip(f"no multicast on the loopback interface: {error}")
    return port


async def answers(client: CoapClient, uri: str, wait: float = 0.5, **how) -> list:
    return [answer async for answer in client.ask_group(Code.GET, uri, wait=wait, interface=LO, **how)]


def test_every_member_answers_from_its_own_address():
    async def main():
        first, port = joined("a")
        second, _ = joined("b", port=port)
        async with first, second, CoapClient(parameters=SOON) as client:
            found = await answers(client, f"coap://224.0.1.187:{port}/name")
            assert {answer.response.payload for answer in found} == {b"a", b"b"}
            for answer in found:
                assert answer.source[0] == LO
                again = await client.get(answer.uri)  # the base URI is the server's own
                assert again.payload == answer.response.payload
            filtered = await answers(client, f"coap://224.0.1.187:{port}/.well-known/core?rt=a", wait=0.3)
            (only,) = filtered
            assert b"</name>" in only.response.payload
            assert await answers(client, f"coap://224.0.1.187:{port}/private", wait=0.3) == []

    asyncio.run(main())


def test_a_large_answer_and_one_that_wants_proof_are_fetched_alone():
    async def main():
        server, port = joined("x", trusted=None)
        async with server, CoapClient(parameters=SOON) as client:
            (answer,) = await answers(client, f"coap://224.0.1.187:{port}/large")
            assert answer.response.payload == b"x" * 3000
            assert server.counters["coap_challenges"] >= 1

    asyncio.run(main())


def test_what_is_no_group():
    async def main():
        async with CoapClient(limits=Limits(group_requests=0)) as client:
            with pytest.raises(UriError, match="no group"):
                await answers(client, "coap://127.0.0.1/")
            with pytest.raises(GroupRequestError):
                await answers(client, "coap://224.0.1.187/")

    asyncio.run(main())
    with pytest.raises(AddressError, match="no multicast address"):
        group_socket("127.0.0.1", 5683)
    with pytest.raises(AddressError):
        group_socket("224.0.1.187", 5683, "no-such-interface")
    with pytest.raises(AddressError):
        sending_socket(("224.0.1.187", 5683), "no-such-interface")
    assert is_group("ff02::fd")
    assert is_group("ff02::fd%lo")
    assert not is_group("example")


def test_ipv6_membership():
    """RFC 7252 section 12.8: ff0X::fd. That a machine has a route for it on its loopback interface is rare."""
    sock = group_socket("ff02::fd", 5683, "lo")
    try:
        host, port, _, scope = sock.getsockname()
        assert (host.partition("%")[0], port, scope) == ("ff02::fd", 5683, socket.if_nametoindex("lo"))
    finally:
        sock.close()


def test_from_the_command_line():
    """Two processes: the plugtest server, and a client that asks the group and not the server."""
    port = free_port()
    vitalgate = [sys.executable, "-m", "vitalgate", "coap"]
    serving = subprocess.Popen(
        [*vitalgate, "server", "--bind", f"{LO}:0", "--join", f"224.0.1.187:{port}", "-i", LO],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert serving.stderr is not None
        address = serving.stderr.readline().split()[1]
        assert "answering the group" in serving.stderr.readline()
        asked = f"coap://224.0.1.187:{port}/.well-known/core?href=/test"
        done = subprocess.run(
            [*vitalgate, "get", asked, "-i", LO, "-t", "6", "--json"],
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
    finally:
        serving.terminate()
        serving.communicate(timeout=20)
    answer = json.loads(done.stdout)
    assert answer["uri"].startswith(address)
    assert answer["payload"].startswith("</test>")

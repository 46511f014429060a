"""The proxy on sockets of this machine: its own client, libcoap's client, and who is denied."""

import asyncio
import os
import shutil
import subprocess

import pytest

from vitalgate.coap import Code, Message, Option, Site
from vitalgate.coap.options import uint_option
from vitalgate.coap.proxypolicy import Policy, parse_rule
from vitalgate.coap.proxyrequest import parse_route
from vitalgate.net.coap import CoapClient, CoapServer
from vitalgate.net.coapproxy import CoapProxy

LIBCOAP = shutil.which("coap-client-openssl")


def run(scenario):
    return asyncio.run(asyncio.wait_for(scenario(), 30))


def policy(*rules):
    return Policy(parse_rule(rule) for rule in rules)


class Origin:
    """An origin server that counts what it is asked."""

    def __init__(self):
        self.site = Site()
        self.asked = []
        self.value = b"21.5"
        self.site.add("value", self.get, methods=[Code.GET])
        self.site.add("value", self.put, methods=[Code.PUT], understands=[Option.IF_MATCH])

    def get(self, request, path, identity, now):
        self.asked.append(request)
        return Message(Code.CONTENT, ((Option.ETAG, self.value[:8]), (Option.MAX_AGE, b"\x3c")), self.value)

    def put(self, request, path, identity, now):
        self.asked.append(request)
        self.value = request.payload
        return Message(Code.CHANGED)


def test_get_through_the_proxy_twice_asks_once_and_a_put_asks_again():
    async def scenario():
        origin = Origin()
        async with CoapServer(origin.site) as server, CoapClient() as client:
            _, port = server.bind("127.0.0.1", 0)
            async with CoapProxy(policy("127.0.0.1/32")) as proxy:
                host, proxy_port = proxy.bind("127.0.0.1", 0)
                here, there = f"coap://{host}:{proxy_port}/", f"coap://127.0.0.1:{port}/value".encode()
                ask = {"options": [(Option.PROXY_URI, there)]}
                for _ in range(3):
                    assert (await client.get(here, **ask)).payload == b"21.5"
                assert len(origin.asked) == 1
                assert uint_option(origin.asked[0], Option.HOP_LIMIT) == 16
                assert (await client.put(here, b"22", **ask)).code == Code.CHANGED
                assert (await client.get(here, **ask)).payload == b"22"
                assert proxy.counters["coap_cache_answers{fresh}"] == 2
                denied = await client.get(here, options=[(Option.PROXY_URI, b"coap://127.0.0.2/")])
                assert denied.code == Code.FORBIDDEN
                assert proxy.counters["coap_proxy_denied{not_allowed}"] == 1

    run(scenario)


def test_a_name_of_this_machine_is_denied_unless_the_address_is_allowed():
    async def scenario():
        origin = Origin()
        async with CoapServer(origin.site) as server, CoapClient() as client:
            _, port = server.bind("127.0.0.1", 0)
            ask = {"options": [(Option.PROXY_URI, f"coap://localhost:{port}/value".encode())]}
            for rules, code in (
                ([], Code.FORBIDDEN),
                ([f"coap://localhost:{port}"], Code.FORBIDDEN),
                (["0.0.0.0/0", "::/0"], Code.FORBIDDEN),
                (["127.0.0.0/8"], Code.CONTENT),
            ):
                async with CoapProxy(policy(*rules)) as proxy:
                    host, proxy_port = proxy.bind("127.0.0.1", 0)
                    assert (await client.get(f"coap://{host}:{proxy_port}/", **ask)).code == code
            unknown = {"options": [(Option.PROXY_URI, b"coap://nobody.invalid/")]}
            async with CoapProxy(policy("coap://nobody.invalid")) as proxy:
                host, proxy_port = proxy.bind("127.0.0.1", 0)
                assert (await client.get(f"coap://{host}:{proxy_port}/", **unknown)).code == Code.BAD_GATEWAY

    run(scenario)


def test_a_reverse_route_and_the_proxys_own_resources():
    async def scenario():
        origin = Origin()
        async with CoapServer(origin.site) as server, CoapClient() as client:
            _, port = server.bind("127.0.0.1", 0)
            async with CoapProxy(policy(), routes=[parse_route(f"/ward=coap://127.0.0.1:{port}")]) as proxy:
                host, proxy_port = proxy.bind("127.0.0.1", 0)
                assert (await client.get(f"coap://{host}:{proxy_port}/ward/value")).payload == b"21.5"
                for uri in (
                    f"coap://127.0.0.1:{proxy_port}/.well-known/core",
                    f"coap://localhost:{proxy_port}/.well-known/core",
                ):
                    ask = {"options": [(Option.PROXY_URI, uri.encode())]}
                    answer = await client.get(f"coap://{host}:{proxy_port}/", **ask)
                    assert answer.code == (Code.CONTENT if "127" in uri else Code.FORBIDDEN)

    run(scenario)


def test_who_is_not_trusted_answers_an_echo_first():
    async def scenario():
        origin = Origin()
        async with CoapServer(origin.site) as server, CoapClient() as client:
            _, port = server.bind("127.0.0.1", 0)
            async with CoapProxy(policy("127.0.0.1/32"), trusted=None) as proxy:
                host, proxy_port = proxy.bind("127.0.0.1", 0)
                ask = {"options": [(Option.PROXY_URI, f"coap://127.0.0.1:{port}/value".encode())]}
                assert (await client.get(f"coap://{host}:{proxy_port}/", **ask)).payload == b"21.5"
                assert proxy.counters["coap_challenges"] == 1
                assert proxy.counters["coap_addresses_verified"] == 1
                assert [each.option(Option.ECHO) for each in origin.asked] == [None]

    run(scenario)


def test_more_names_than_can_be_looked_up(monkeypatch):
    async def scenario():
        monkeypatch.setattr("vitalgate.net.coapproxy.MAX_LOOKUPS", 1)
        loop = asyncio.get_running_loop()
        release = asyncio.Event()

        async def slowly(*_args, **_more):
            await release.wait()
            return []

        monkeypatch.setattr(loop, "getaddrinfo", slowly)
        async with CoapProxy(policy("coap://a.example", "coap://b.example")) as proxy:
            asked = [asyncio.create_task(proxy.ask(Message(Code.GET), f"coap://{name}.example/")) for name in "ab"]
            done, waiting = await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
            assert [each.result().code for each in done] == [Code.SERVICE_UNAVAILABLE]
            assert proxy.counters["coap_limit_reached{lookups}"] == 1
            release.set()
            assert [(await each).code for each in waiting] == [Code.BAD_GATEWAY]

    run(scenario)


def test_two_proxies_that_send_each_other_round_in_a_circle_stop():
    async def scenario():
        async with CoapClient() as client, CoapProxy(policy(), name="b") as blank:
            _, a_port = blank.bind("127.0.0.1", 0)
            blank.close()  # its port is free now, and B can be told of A before A is there
            b = CoapProxy(policy(), routes=[parse_route(f"/x=coap://127.0.0.1:{a_port}/x")], name="b")
            _, b_port = b.bind("127.0.0.1", 0)
            a = CoapProxy(policy(), routes=[parse_route(f"/x=coap://127.0.0.1:{b_port}/x")], name="a")
            a.bind("127.0.0.1", a_port)
            response = await client.get(f"coap://127.0.0.1:{a_port}/x/t", options=[(Option.HOP_LIMIT, b"\x05")])
            # B was the last that had a hop, A's name and B's stand in it once; who meets its own stops it there.
            assert response.code in (Code.HOP_LIMIT_REACHED, Code.BAD_GATEWAY)
            assert a.counters["coap_proxy_requests{forwarded}"] + b.counters["coap_proxy_requests{forwarded}"] == 4
            a.close()
            b.close()

    run(scenario)


@pytest.mark.peer
def test_libcoaps_client_through_the_proxy():
    if LIBCOAP is None:
        reason = "no coap-client-openssl (Debian's libcoap3-bin)"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)

    def ask(*args):
        return subprocess.run([LIBCOAP, "-B", "10", *args], capture_output=True, timeout=20, check=False)

    async def scenario():
        origin = Origin()
        async with CoapServer(origin.site) as server:
            _, port = server.bind("127.0.0.1", 0)
            async with CoapProxy(policy("127.0.0.1/32")) as proxy:
                _, proxy_port = proxy.bind("127.0.0.1", 0)
                through = ("-P", f"coap://127.0.0.1:{proxy_port}")
                done = await asyncio.to_thread(ask, "-m", "get", *through, f"coap://127.0.0.1:{port}/value")
                assert done.stdout.strip() == b"21.5", done
                done = await asyncio.to_thread(ask, "-m", "put", "-e", "on", *through, f"coap://127.0.0.1:{port}/value")
                assert origin.value == b"on", done
                done = await asyncio.to_thread(ask, "-m", "get", *through, f"coap://127.0.0.1:{port}/value")
                assert done.stdout.strip() == b"on", done
                done = await asyncio.to_thread(ask, "-m", "get", *through, "coap://127.0.0.2/value")
                assert b"4.03" in done.stderr, done
                done = await asyncio.to_thread(ask, "-m", "get", "-H", "1", *through, f"coap://127.0.0.1:{port}/other")
                assert b"5.08" in done.stderr, done

    run(scenario)

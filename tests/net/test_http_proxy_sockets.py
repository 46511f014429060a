"""The HTTP sides of the proxy on sockets of this machine: curl and raw bytes in front, a scripted server behind."""

import asyncio
import http.client
import shutil
import ssl
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from vitalgate.coap import Code, ContentFormat, Message, Option, Site
from vitalgate.coap.options import build_options, uint_option
from vitalgate.coap.proxypolicy import Policy, parse_rule
from vitalgate.net.coap import CoapClient, CoapServer
from vitalgate.net.coapproxy import CoapProxy
from vitalgate.net.httpproxy import HttpAsker, HttpFront, HttpLimits


def run(scenario):
    return asyncio.run(asyncio.wait_for(scenario(), 30))


def policy(*rules):
    return Policy(parse_rule(rule) for rule in rules)


LOOPBACK = policy("127.0.0.1/32")


def things():
    """An origin server with one thing to read, change and delete."""
    site = Site()
    state = {"on": b"{}"}

    def get(request, path, identity, now):
        tag = b"v%d" % len(state["on"])
        if tag in request.all(Option.ETAG):
            return Message(Code.VALID, ((Option.ETAG, tag),))
        return Message(
            Code.CONTENT, build_options(content_format=50, max_age=30, more=((Option.ETAG, tag),)), state["on"]
        )

    def put(request, path, identity, now):
        state["on"] = request.payload
        return Message(Code.CHANGED)

    site.add("on", get, methods=[Code.GET], formats=[ContentFormat.JSON])
    site.add("on", put, methods=[Code.PUT])
    site.add("made", lambda *_: Message(Code.CREATED, ((Option.LOCATION_PATH, b"on"),)), methods=[Code.POST])
    return site


def ask(port, method, target, body=None, **headers):
    """One request of http.client: (status, headers, body)."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request(method, target, body, {name.replace("_", "-"): value for name, value in headers.items()})
    response = connection.getresponse()
    got = response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()
    connection.close()
    return got


async def raw(port, data, *, until=b""):
    """What comes back for bytes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    got = await (reader.readuntil(until) if until else reader.read())
    writer.close()
    return got


def test_http_clients_of_coap_servers():
    async def scenario():
        async with CoapServer(things()) as server, CoapProxy(LOOPBACK) as proxy:
            _, coap_port = server.bind("127.0.0.1", 0)
            front = HttpFront(proxy)
            _, port = await front.bind("127.0.0.1", 0)
            uri = f"/hc/coap://127.0.0.1:{coap_port}"

            def asks():
                status, headers, body = ask(port, "GET", f"{uri}/on")
                assert (status, body, headers["content-type"]) == (200, b"{}", "application/json")
                assert headers["cache-control"] == "max-age=30"
                status, headers, body = ask(port, "GET", f"{uri}/on", If_None_Match=headers["etag"])
                assert (status, body) == (304, b"")
                status, headers, body = ask(port, "HEAD", f"{uri}/on")
                assert (status, headers["content-length"], body) == (200, "2", b"")
                assert ask(port, "GET", f"{uri}/on", Accept="application/cbor")[0] == 406
                assert ask(port, "PUT", f"{uri}/on", b'{"a":1}', Content_Type="application/json")[0] == 204
                assert ask(port, "GET", f"/hc/?target_uri=coap%3A//127.0.0.1:{coap_port}/on")[2] == b'{"a":1}'
                status, headers, _ = ask(port, "POST", f"{uri}/made")
                assert status == 201
                assert ask(port, "GET", headers["location"])[2] == b'{"a":1}'
                assert ask(port, "GET", f"{uri}/none")[0] == 404
                assert ask(port, "GET", "/hc/coap://127.0.0.2/")[0] == 403
                assert ask(port, "GET", f"{uri}/on", Host="rebound.example")[0] == 421
                assert b"core.hc" in ask(port, "GET", "/.well-known/core")[2]
                return True

            assert await asyncio.to_thread(asks)
            assert proxy.counters["coap_proxy_denied{not_allowed}"] == 1
            front.close()

    run(scenario)


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl")
def test_curl_through_the_proxy_both_ways_of_naming_the_target():
    async def scenario():
        async with CoapServer(things()) as server, CoapProxy(LOOPBACK) as proxy:
            _, coap_port = server.bind("127.0.0.1", 0)
            front = HttpFront(proxy)
            _, port = await front.bind("127.0.0.1", 0)
            target = f"coap://127.0.0.1:{coap_port}/on"
            for more in (
                [f"http://127.0.0.1:{port}/hc/{target}"],
                ["-G", "--data-urlencode", f"target_uri={target}", f"http://127.0.0.1:{port}/hc/"],
                ["--request-target", target, f"http://127.0.0.1:{port}/"],
            ):
                process = await asyncio.create_subprocess_exec(
                    "curl", "-sS", "--noproxy", "*", "-m", "10", *more, stdout=asyncio.subprocess.PIPE
                )
                out, _ = await process.communicate()
                assert out == b"{}"
            front.close()

    run(scenario)


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", b"400"),
        (b"nonsense\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + b"a" * 20000, b"431"),
        (b"POST /hc/ HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 3000\r\n\r\n" + bytes(3000), b"413"),
        (b"POST /hc/ HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: -2\r\n\r\n", b"400"),
        (b"POST /hc/ HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nab", b"400"),
        (b"POST /hc/ HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFFE\r\nab", b""),
        (b"POST /hc/ HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\nab", b"400"),
        (
            b"POST /hc/ HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n" + b"F" * 21 + b"\r\nab",
            b"400",
        ),
        (b"", b""),
    ],
)
def test_wrong_bytes_get_an_answer_or_the_door(data, status):
    async def scenario():
        async with CoapProxy(LOOPBACK) as proxy:
            front = HttpFront(proxy, limits=HttpLimits(http_body_bytes=2000, idle=0.2))
            _, port = await front.bind("127.0.0.1", 0)
            assert (await raw(port, data)).split(b" ")[1:2] == ([status] if status else [])
            front.close()

    run(scenario)


def test_too_many_connections_and_two_requests_on_one():
    async def scenario():
        async with CoapProxy(LOOPBACK) as proxy:
            front = HttpFront(proxy, limits=HttpLimits(http_connections=1))
            _, port = await front.bind("127.0.0.1", 0)
            links = b"GET /.well-known/core HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            for _ in range(2):
                writer.write(links)
                head = await reader.readuntil(b"\r\n\r\n")
                assert head.startswith(b"HTTP/1.1 200")
                length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                assert b"core.hc" in await reader.readexactly(length)
            assert (await raw(port, links)).startswith(b"HTTP/1.1 503")
            assert proxy.counters["coap_limit_reached{http_connections}"] == 1
            writer.close()
            front.close()

    run(scenario)


class Script:
    """An HTTP server that says what the test wrote, and keeps what it heard."""

    def __init__(self, *answers, tls=None):
        self.answers = list(answers)
        self.tls = tls
        self.heard = []

    async def __aenter__(self):
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", 0, ssl=self.tls)
        self.port = self.server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_):
        self.server.close()

    async def serve(self, reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        length = 0
        for line in head.lower().split(b"\r\n"):
            if line.startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        self.heard.append(head + await reader.readexactly(length))
        answer = self.answers.pop(0)
        if answer is None:
            await reader.read()  # says nothing until the client goes
        else:
            writer.write(answer)
            await writer.drain()
        writer.close()


OK = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nETag: "one"\r\nCache-Control: max-age=0\r\n'


async def through(script, proxy, *options, code=Code.GET, payload=b"", path="/x?y", scheme="http"):
    async with CoapClient() as client:
        _, port = proxy.bind("127.0.0.1", 0)
        uri = f"{scheme}://127.0.0.1:{script.port}{path}".encode()
        more = [(Option.PROXY_URI, uri), *options]
        return await client.request(code, f"coap://127.0.0.1:{port}/", payload, options=more)


def test_coap_clients_of_http_servers():
    async def scenario():
        async with (
            Script(
                OK + b"Content-Length: 2\r\n\r\n{}",
                b'HTTP/1.1 304 Not Modified\r\nETag: "one"\r\nCache-Control: max-age=60\r\n\r\n',
                b"HTTP/1.1 201 Created\r\nLocation: /made/1\r\nContent-Length: 0\r\n\r\n",
                OK + b"Transfer-Encoding: chunked\r\n\r\n3\r\n[1]\r\n0\r\n\r\n",
            ) as script,
            CoapProxy(LOOPBACK, http=HttpAsker(name="p1")) as proxy,
        ):
            response = await through(script, proxy)
            assert (response.code, response.payload) == (Code.CONTENT, b"{}")
            lines = script.heard[0].decode().split("\r\n")
            assert lines[0] == "GET /x?y HTTP/1.1"
            assert {f"host: 127.0.0.1:{script.port}", "via: 1.1 p1", "connection: close"} <= set(map(str.lower, lines))
            response = await through(script, proxy)
            assert (response.code, response.payload) == (Code.CONTENT, b"{}"), "validated"
            assert b'if-none-match: "one"' in script.heard[1].lower()
            assert (await through(script, proxy)).payload == b"{}", "and fresh now"
            assert len(script.heard) == 2
            response = await through(script, proxy, (Option.CONTENT_FORMAT, b"\x32"), code=Code.POST, payload=b"{1}")
            assert response.code == Code.CREATED
            assert response.all(Option.LOCATION_PATH) == [b"made", b"1"]
            assert script.heard[2].endswith(b"\r\n\r\n{1}")
            response = await through(script, proxy, path="/chunked")
            assert (response.payload, uint_option(response, Option.CONTENT_FORMAT)) == (b"[1]", 50)

    run(scenario)


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (None, Code.GATEWAY_TIMEOUT),
        (b"", Code.BAD_GATEWAY),
        (b"nonsense\r\n\r\n", Code.BAD_GATEWAY),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc", Code.BAD_GATEWAY),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFFE\r\nabc", Code.BAD_GATEWAY),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-2\r\nabc", Code.BAD_GATEWAY),
        (b"HTTP/1.1 200 OK\r\n\r\n" + bytes(3000), Code.BAD_GATEWAY),
        (b"HTTP/1.1 200 OK\r\nX: " + b"a" * 40000 + b"\r\n\r\n", Code.BAD_GATEWAY),
        (b"HTTP/1.1 302 Found\r\nLocation: http://10.0.0.1/\r\nContent-Length: 0\r\n\r\n", Code.BAD_GATEWAY),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", Code.NOT_FOUND),
    ],
)
def test_http_servers_that_go_wrong(answer, code):
    async def scenario():
        limits = HttpLimits(http_body_bytes=2000, wait=0.2)
        async with Script(answer) as script, CoapProxy(LOOPBACK, http=HttpAsker(limits=limits)) as proxy:
            response = await through(script, proxy)
            assert response.code == code

    run(scenario)


def certificate(folder, address="127.0.0.1"):
    """A self-signed certificate for ``address``: the path of a file with it and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "origin")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address(address))]), critical=False)
        .sign(key, SHA256())
    )
    form = (Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path = folder / "both.pem"
    path.write_bytes(key.private_bytes(*form) + made.public_bytes(Encoding.PEM))
    return path


@pytest.mark.parametrize(("address", "believed", "code"), [
    ("127.0.0.1", True, Code.CONTENT), ("127.0.0.1", False, Code.BAD_GATEWAY), ("127.0.0.2", True, Code.BAD_GATEWAY),
])  # fmt: skip
def test_https_is_believed_by_its_certificate(tmp_path, address, believed, code):
    async def scenario():
        path = certificate(tmp_path, address)
        serving = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        serving.load_cert_chain(path)
        asking = ssl.create_default_context(cafile=path) if believed else None
        async with (
            Script(OK + b"Content-Length: 2\r\n\r\n{}", tls=serving) as script,
            CoapProxy(LOOPBACK, http=HttpAsker(tls=asking)) as proxy,
        ):
            assert (await through(script, proxy, scheme="https")).code == code
            assert len(script.heard) == (1 if code == Code.CONTENT else 0)

    run(scenario)


def test_a_server_that_is_not_there_and_one_that_is_not_allowed():
    async def scenario():
        async with Script() as script, CoapProxy(LOOPBACK, http=HttpAsker()) as proxy:
            script.server.close()
            await script.server.wait_closed()
            assert (await through(script, proxy)).code == Code.BAD_GATEWAY
        async with Script() as script, CoapProxy(policy("coap://127.0.0.1:*"), http=HttpAsker()) as proxy:
            assert (await through(script, proxy)).code == Code.FORBIDDEN
            assert script.heard == []

    run(scenario)

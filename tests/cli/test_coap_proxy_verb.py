"""`vitalgate coap proxy` as a process of its own, with clients that know nothing of it."""

import asyncio
import json
import re
import signal
import subprocess
import sys
import urllib.request
from contextlib import contextmanager

import pytest
from typer.testing import CliRunner

from vitalgate.cli.app import app
from vitalgate.coap import Code, Option
from vitalgate.net.coap import CoapClient
from vitalgate.net.plugtest import LARGE

VITALGATE = [sys.executable, "-m", "vitalgate"]


@contextmanager
def running(*args, lines):
    """The verb's process and, once it says so, what it listens on."""
    process = subprocess.Popen(
        [*VITALGATE, "coap", *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1
    )
    try:
        said = [process.stderr.readline() for _ in range(lines)]
        yield process, said
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=20)


def port_of(line):
    return int(re.search(r":(\d+)/", line)[1])


async def asks(*questions):
    """Responses to GETs of (URI, Proxy-Uri or '')."""
    async with asyncio.timeout(20), CoapClient() as client:
        return [
            await client.get(uri, options=[(Option.PROXY_URI, target.encode())] if target else [])
            for uri, target in questions
        ]


@pytest.mark.e2e
def test_the_proxy_from_the_command_line():
    with (
        running("server", "--bind", "127.0.0.1:0", lines=1) as (_, server),
        running(
            "proxy", "--bind", "127.0.0.1:0", "--http", "127.0.0.1:0", "--allow", "127.0.0.1/32",
            "--reverse", f"/plug=coap://127.0.0.1:{port_of(server[0])}", "--json", lines=2,
        ) as (process, said),
    ):  # fmt: skip
        origin, front, http = port_of(server[0]), port_of(said[0]), port_of(said[1])
        uri = f"coap://127.0.0.1:{origin}/test"
        through, route, denied = asyncio.run(
            asks(
                (f"coap://127.0.0.1:{front}/", uri),
                (f"coap://127.0.0.1:{front}/plug/large", ""),
                (f"coap://127.0.0.1:{front}/", "coap://127.0.0.2/"),
            )
        )
        assert b"This is the resource /test" in through.payload
        assert route.payload == LARGE, "in blocks"
        assert denied.code == Code.FORBIDDEN
        with urllib.request.urlopen(f"http://127.0.0.1:{http}/hc/{uri}", timeout=10) as response:
            assert response.headers["content-type"] == "text/plain;charset=utf-8"
            assert b"This is the resource /test" in response.read()
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=20)
        assert process.returncode == 0, err
        counters = json.loads(out)["counters"]
        assert counters["coap_proxy_denied{not_allowed}"] == 1
        assert counters["coap_cache_answers{fresh}"] >= 1


@pytest.mark.e2e
def test_without_a_rule_it_denies_and_says_so():
    with running("proxy", "--bind", "127.0.0.1:0", lines=2) as (_, said):
        assert "nothing is allowed" in said[1]

        here = f"coap://127.0.0.1:{port_of(said[0])}/"
        targets = ("coap://127.0.0.1/", "coap://93.184.216.34/", "coap://sensor.example/")
        answers = asyncio.run(asks(*((here, target) for target in targets)))
        assert [each.code for each in answers] == [Code.FORBIDDEN] * 3


@pytest.mark.parametrize(
    ("args", "word"),
    [
        (["--allow", "sensor.example"], "SCHEME://HOST"),
        (["--allow", "10.0.0.1/8"], "host bits"),
        (["--reverse", "/x=http://h/"], "coap"),
        (["--bind", "nowhere"], "HOST:PORT"),
        (["--http", "127.0.0.1:99999"], "HOST:PORT"),
        (["--name", "a b"], "spaces"),
    ],
)
def test_wrong_calls(args, word):
    got = CliRunner().invoke(app, ["coap", "proxy", *args])
    assert got.exit_code == 2
    assert word in got.output

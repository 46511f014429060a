"""The ETSI test cases, our client against our server; and that the runner finds what is wrong."""

import asyncio
import json
import subprocess
import sys

import pytest
from peerkit import FAST, TIMEOUT, judge, our_server, run

from vitalgate.coap import Code, Message, Site, build_options
from vitalgate.net.coap import CoapServer
from vitalgate.net.etsi.ours import OurClient
from vitalgate.net.etsi.runner import run_cases
from vitalgate.net.etsi.trial import CASES


@pytest.fixture(scope="module")
def outcomes():
    return run(our_server(), lambda: OurClient(FAST, TIMEOUT))


@pytest.mark.parametrize("id_", CASES)
def test_our_client_and_our_server(outcomes, id_):
    judge(outcomes[id_], {}, {})


def wrong_site() -> Site:
    """A server that gets everything a little wrong."""
    site = Site()
    text = build_options(content_format=0)
    site.add("test", lambda *_: Message(Code.VALID, text, b"not the right code"), methods=[Code.GET])
    site.add("test", lambda *_: Message(Code.CONTENT), methods=[Code.PUT, Code.POST, Code.DELETE], small=True)
    site.add("seg1/seg2/seg3", lambda *_: Message(Code.CONTENT, (), b"no format"), methods=[Code.GET])
    site.add("query", lambda *_: Message(Code.CONTENT, text), methods=[Code.GET])
    site.add("multi-format", lambda *_: Message(Code.CONTENT, text, b"always text"), methods=[Code.GET])
    site.add("separate", lambda *_: Message(Code.CONTENT, text, b"at once"), methods=[Code.GET])
    site.add("validate", lambda *_: Message(Code.CONTENT, (*text, (2048, b"")), b"no tag"), methods=[Code.GET])
    site.add("location-query", lambda *_: Message(Code.CREATED), methods=[Code.POST], small=True)
    site.add("link1", lambda *_: Message(Code.CONTENT, text, b""), methods=[Code.GET], rt="Type1")
    return site


WRONG = {
    "TD_COAP_CORE_01": {"response: Code = 2.05"},
    "TD_COAP_CORE_02": {"response: Code = 2.02"},
    "TD_COAP_CORE_04": {"response: Code = 2.04 or 2.01"},
    "TD_COAP_CORE_09": {
        "response: Type = 0 (CON)",
        "the client acknowledges the response: Type = 2 (ACK), Code = 0, its Message ID",
        "the server acknowledges the request: Type = 2 (ACK), Code = 0, its Message ID",
    },
    "TD_COAP_CORE_13": {"response: Content-Format with the payload"},
    "TD_COAP_CORE_14": {"response: a payload"},
    "TD_COAP_CORE_19": {"response: Location-Query = first=1, second=2"},
    "TD_COAP_CORE_20": {"response: Content-Format = 41", "the two formats have their own content"},
    "TD_COAP_CORE_21": {"response: one ETag of 1 to 8 bytes"},
    "TD_COAP_LINK_06": {"the server has links that match sz=*, and others"},
    "TD_COAP_LINK_09": {"/path is listed with ct=40"},
}


def test_a_wrong_server_does_not_pass():
    async def scenario():
        async with CoapServer(wrong_site(), parameters=FAST) as server:
            _, port = server.bind("127.0.0.1", 0)
            make = lambda: OurClient(FAST, TIMEOUT)  # noqa: E731
            return await run_cases("127.0.0.1", port, make, only=WRONG, parameters=FAST, patience=0.2)

    found = {
        each.case.id: {check.text for check in each.checks if not check.passed} for each in asyncio.run(scenario())
    }
    assert found == WRONG


def test_from_the_command_line():
    async def scenario():
        async with our_server() as port:
            command = [sys.executable, "-m", "vitalgate", "coap", "etsi", "--target", f"coap://127.0.0.1:{port}"]
            more = ["--only", "td_coap_core_01,TD_COAP_LINK_02", "--json"]
            process = await asyncio.create_subprocess_exec(*command, *more, stdout=subprocess.PIPE)
            return process.returncode, *(await process.communicate())[:1], await process.wait()

    _, output, status = asyncio.run(scenario())
    found = json.loads(output)
    assert status == 0
    assert (found["passed"], found["failed"], found["left_out"]) == (2, 0, 0)
    assert [each["id"] for each in found["cases"]] == ["TD_COAP_CORE_01", "TD_COAP_LINK_02"]
    assert all(check["passed"] for each in found["cases"] for check in each["checks"])
    assert "CON 0.01" in found["cases"][0]["wire"][0]

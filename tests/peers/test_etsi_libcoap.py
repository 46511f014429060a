"""The ETSI test cases with libcoap: its coap-client against our server, our client against its coap-server."""

import asyncio

import pytest
from peerkit import (
    FAST,
    TAKES_LONG,
    TIMEOUT,
    Deviation,
    LibcoapClient,
    judge,
    libcoap_server,
    our_server,
    port_of,
    run,
)

from vitalgate.coap import Code
from vitalgate.net.coap import CoapClient
from vitalgate.net.etsi.ours import OurClient
from vitalgate.net.etsi.trial import CASES

pytestmark = pytest.mark.peer

CLIENT_LEFT_OUT = {
    "TD_COAP_CORE_12": "coap-client's tokens have at least one byte",
    "TD_COAP_BLOCK_02": "coap-client asks for a block size from the start",
    "TD_COAP_OBS_04": "coap-client does not register again: it ends when its time is over",
    "TD_COAP_OBS_06": "coap-client is a process: what is rebooted has another port",
}
NO_RESOURCE = "coap-server has no such resource"
SERVER_NAMES = {"separate": "async?1"}
SERVER_LEFT_OUT = {
    "TD_COAP_CORE_18": "a POST to coap-server replaces what is there",
    "TD_COAP_CORE_19": NO_RESOURCE,
    "TD_COAP_CORE_20": NO_RESOURCE,
    "TD_COAP_CORE_21": "coap-server gives small resources no ETag",
    "TD_COAP_CORE_22": "coap-server gives small resources no ETag",
    "TD_COAP_BLOCK_05": "a POST to coap-server has no large response",
    "TD_COAP_OBS_02": "coap-server has to be told, see below",
    "TD_COAP_OBS_04": "what coap-server stores is fresh for 60 s",
    "TD_COAP_OBS_05": TAKES_LONG,
    "TD_COAP_LINK_06": "no resource of coap-server has the attribute sz",
    "TD_COAP_LINK_09": NO_RESOURCE,
}
NO_FORMAT = "response: Content-Format with the payload"
UNTYPED = Deviation("/async has no Content-Format", (NO_FORMAT,))
NO_BLOCK1 = "the response to the last block has no Block1 option"
BLOCK1_CHECKS = ("every response: Block1", "last response: Block1 M = 0")
SERVER_DEVIATIONS = {
    "TD_COAP_CORE_09": UNTYPED,
    "TD_COAP_CORE_11": UNTYPED,
    "TD_COAP_CORE_16": UNTYPED,
    "TD_COAP_CORE_17": UNTYPED,
    "TD_COAP_BLOCK_03": Deviation(NO_BLOCK1, BLOCK1_CHECKS),
    "TD_COAP_BLOCK_04": Deviation(
        NO_BLOCK1 + ", and a POST creates what it names",
        (*BLOCK1_CHECKS, "last response: Location-Path = large-create and a segment of the server's"),
    ),
    "TD_COAP_OBS_07": Deviation("the last notification is NON", ("notification: Type = 0 (CON)",)),
    "TD_COAP_OBS_08": Deviation("what is stored keeps its Content-Format", ("a notification: Code = 4.06",)),
    "TD_COAP_CORE_23": Deviation("If-None-Match is taken and not looked at", ("response: Code = 4.12",)),
}


@pytest.fixture(scope="module")
def as_client():
    return run(our_server(), LibcoapClient, left_out=CLIENT_LEFT_OUT)


@pytest.fixture(scope="module")
def as_server():
    return run(
        port_of(libcoap_server()), lambda: OurClient(FAST, TIMEOUT), left_out=SERVER_LEFT_OUT, names=SERVER_NAMES,
        nudge_after=0.2,
    )  # fmt: skip


@pytest.mark.parametrize("id_", CASES)
def test_coap_client_and_our_server(as_client, id_):
    judge(as_client[id_], CLIENT_LEFT_OUT, {})


@pytest.mark.parametrize("id_", CASES)
def test_our_client_and_coap_server(as_server, id_):
    judge(as_server[id_], SERVER_LEFT_OUT, SERVER_DEVIATIONS)


def test_our_client_and_non_confirmable_notifications_of_coap_server():
    found = run(
        port_of(libcoap_server("-N")), lambda: OurClient(FAST, TIMEOUT), only=["TD_COAP_OBS_02"], nudge_after=0.2
    )
    judge(found["TD_COAP_OBS_02"], {}, {})


def test_what_coap_server_loses_is_asked_for_again():
    lost = ("3", "5-7", "10", "12-13")

    async def scenario(port):
        async with CoapClient(parameters=FAST) as client:
            for _ in range(8):
                response = await client.get(f"coap://127.0.0.1:{port}/time")
                assert response.code == Code.CONTENT
            return client.counters["coap_retransmissions"]

    with libcoap_server("-l", ",".join(lost)) as port:
        assert asyncio.run(scenario(port)) >= 6  # of seven, had the set-up's pings taken more than one

"""The ETSI test cases with aiocoap: its client against our server, our client against its server."""

import pytest
from peerkit import (
    FAST,
    TAKES_LONG,
    TIMEOUT,
    AiocoapClient,
    Deviation,
    aiocoap_server,
    judge,
    our_server,
    port_of,
    run,
)

from vitalgate.net.etsi.ours import OurClient
from vitalgate.net.etsi.trial import CASES

pytestmark = pytest.mark.peer

CLIENT_LEFT_OUT = {
    "TD_COAP_CORE_12": "aiocoap's tokens are a counter of two bytes",
    "TD_COAP_CORE_31": "aiocoap's client has no ping",
    "TD_COAP_OBS_04": "aiocoap's client does not register again",
    "TD_COAP_OBS_12": "aiocoap's client ends an observation by Reset alone",
}
CLIENT_DEVIATIONS = {
    "TD_COAP_CORE_16": Deviation(
        "a request goes on being sent after its separate response came",
        ("the response ends the retransmission of the request",),
    ),
}  # fmt: skip
NOT_IN_BLOCKS = "aiocoap's server sends what is observed in one datagram, however large"
SERVER_LEFT_OUT = {
    "TD_COAP_OBS_05": TAKES_LONG,
    "TD_COAP_OBS_13": NOT_IN_BLOCKS,
    "TD_COAP_OBS_14": NOT_IN_BLOCKS,
}
SERVER_DEVIATIONS = {
    "TD_COAP_LINK_03": Deviation(
        "rt=* lets through what has no rt", ("the payload has the links that match rt=* and no other",)
    ),
    "TD_COAP_OBS_08": Deviation(
        "an observation goes on with another Content-Format", ("a notification: Code = 4.06",)
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def as_client():
    return run(our_server(), AiocoapClient, left_out=CLIENT_LEFT_OUT)


@pytest.fixture(scope="module")
def as_server():
    return run(port_of(aiocoap_server()), lambda: OurClient(FAST, TIMEOUT), left_out=SERVER_LEFT_OUT)


@pytest.mark.parametrize("id_", CASES)
def test_aiocoaps_client_and_our_server(as_client, id_):
    judge(as_client[id_], CLIENT_LEFT_OUT, CLIENT_DEVIATIONS)


@pytest.mark.parametrize("id_", CASES)
def test_our_client_and_aiocoaps_server(as_server, id_):
    judge(as_server[id_], SERVER_LEFT_OUT, SERVER_DEVIATIONS)

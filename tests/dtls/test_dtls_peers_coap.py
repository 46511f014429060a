"""libcoap's clients and servers, over OpenSSL and over GnuTLS, against our CoAP endpoint under DTLS 1.2."""

import dataclasses
import time

import pytest
from dtls_peers import Driver, Process, certificate_pem, free_port, key_pem, listening, need, public_pem, wait_for
from dtls_world import PSK, authority, certificate, key

from vitalgate.coap.events import RequestFailed, ResponseReceived
from vitalgate.coap.message import Code, Message
from vitalgate.coap.options import build_options
from vitalgate.coap.site import Site
from vitalgate.dtls.coaps import Endpoint
from vitalgate.dtls.credentials import Credentials, OwnKey, PinnedKeys, PskStore, spki
from vitalgate.dtls.judging import Target
from vitalgate.dtls.parameters import Parameters
from vitalgate.dtls.records import DTLS_1_2

pytestmark = pytest.mark.peer

CCM8 = Parameters(versions=(DTLS_1_2,), suites=(0xC0A8, 0xC0AE), retransmission=1.0)
ANY = Parameters(versions=(DTLS_1_2,), retransmission=1.0)
NOW = 1_790_000_000.0


def own(number, names, days=(-100_000 // 86400, 3650)):
    made = certificate(number, f"peer {number}", ca=9, issuer="test authority", names=names, days=days)
    return OwnKey(key(number), (made,))


@pytest.fixture
def files(tmp_path):
    """PEM files for peers: an authority, a client's and a server's certificate and keys."""
    (tmp_path / "ca.pem").write_bytes(certificate_pem(authority()))
    for number, role in ((3, "client"), (4, "server")):
        names = ("localhost", "127.0.0.1") if role == "server" else ("client-3",)
        (tmp_path / f"{role}.pem").write_bytes(certificate_pem(own(number, names).chain[0]))
        (tmp_path / f"{role}.key").write_bytes(key_pem(key(number)))
        (tmp_path / f"{role}_rpk.pem").write_bytes(key_pem(key(number)) + public_pem(key(number)))
    return tmp_path


def credentials(mode, *, client):
    ours, theirs = (3, 4) if client else (4, 3)
    if mode == "psk":
        return Credentials(psks=PskStore(ours=PSK) if client else PskStore((PSK,)))
    if mode == "rpk":
        return Credentials(own=OwnKey(key(ours)), pins=PinnedKeys({spki(key(theirs)): "pinned"}))
    names = ("client-3",) if client else ("localhost", "127.0.0.1")
    return Credentials(own=own(ours, names), anchors=(authority(),))


def arguments(mode, files, role):
    if mode == "psk":
        return ["-k", "0123456789abcdef", *(["-u", "client1"] if role == "client" else ["-h", "hint"])]
    if mode == "rpk":
        return ["-M", str(files / f"{role}_rpk.pem")]
    return ["-C", str(files / "ca.pem"), "-c", str(files / f"{role}.pem"), "-j", str(files / f"{role}.key")]


CASES = [("openssl", "psk"), ("gnutls", "psk"), ("gnutls", "rpk"), ("openssl", "x509"), ("gnutls", "x509")]


@pytest.mark.parametrize("parameters", [CCM8, ANY, dataclasses.replace(ANY, cid=4)], ids=["ccm8", "any", "cid"])
@pytest.mark.parametrize(("library", "mode"), CASES)
def test_libcoaps_client_gets_from_our_server(library, mode, parameters, files):
    need(f"coap-client-{library}")
    seen = []

    def answer(request, path, identity, now):
        seen.append(identity)
        return Message(Code.CONTENT, (), b"hello from vitalgate")

    site = Site()
    site.add("hello", answer, methods=[Code.GET])
    driver = Driver(
        Endpoint(credentials(mode, client=False), listening=True, site=site, dtls=parameters, wall=lambda: NOW)
    )
    # libcoap judges dates by the machine's clock; our certificates hold for ten years from NOW.
    uri = f"coaps://127.0.0.1:{driver.port}/hello"
    with Process(files, f"coap-client-{library}", "-B5", *arguments(mode, files, "client"), uri) as peer:
        assert driver.run(peer.ended), peer.said()
        assert b"hello from vitalgate" in peer.said()
    driver.close()
    assert seen == [{"psk": "bed-12", "rpk": "pinned", "x509": "client-3"}[mode]]
    assert driver.engine.counters[f"dtls_handshakes_completed{{{mode}}}"] == 1


@pytest.mark.parametrize("parameters", [CCM8, ANY], ids=["ccm8", "any"])
@pytest.mark.parametrize(("library", "mode"), CASES)
def test_our_client_gets_from_libcoaps_server(library, mode, parameters, files):
    need(f"coap-server-{library}")
    port = free_port(2)
    command = [f"coap-server-{library}", "-A", "127.0.0.1", "-p", str(port), *arguments(mode, files, "server")]
    with Process(files, *command) as peer:
        assert wait_for(lambda: listening(port + 1)), peer.said()
        path = ("127.0.0.1", port + 1)
        driver = Driver(
            Endpoint(
                credentials(mode, client=True),
                dtls=parameters,
                targets={path: Target(server_name="127.0.0.1")},
                wall=lambda: NOW,
            )
        )
        request = Message(Code.GET, build_options(path="time"))
        exchange = driver.engine.request(request, path, time.monotonic())
        assert driver.run(lambda: driver.found(ResponseReceived | RequestFailed)), peer.said()
        (response,) = driver.events
        assert isinstance(response, ResponseReceived), (response, driver.engine.counters)
        assert response.exchange == exchange
        assert response.response.code == Code.CONTENT
        # A second request goes through the same association.
        driver.events.clear()
        driver.engine.request(request, path, time.monotonic())
        assert driver.run(lambda: driver.found(ResponseReceived))
        driver.close()
    assert driver.engine.counters[f"dtls_handshakes_completed{{{mode}}}"] == 1

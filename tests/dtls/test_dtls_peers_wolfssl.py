"""wolfSSL's example client and server against our DTLS 1.3, the only peer of RFC 9147 that there is to be had.

They are built from Debian's source package of wolfSSL (5.5.4) by scripts/wolfssl, which make test calls.
"""

import dataclasses
import time
from pathlib import Path

import pytest
from dtls_peers import Driver, Process, certificate_pem, free_port, key_pem, listening, wait_for
from dtls_world import authority, certificate, key

from vitalgate.dtls.credentials import Credentials, OwnKey, Psk, PskStore
from vitalgate.dtls.endpoint import Endpoint
from vitalgate.dtls.events import Connected, Failed, Received
from vitalgate.dtls.judging import Target
from vitalgate.dtls.parameters import Parameters
from vitalgate.dtls.records import DTLS_1_3

pytestmark = pytest.mark.peer

P13 = Parameters(versions=(DTLS_1_3,), retransmission=1.0)
NOW = 1_790_000_000.0
PSK = Psk(b"Client_identitySHA256", bytes.fromhex("0123456789abcdef") * 4, "wolf")
SUITES = {
    0x1301: "TLS13-AES128-GCM-SHA256",
    0x1304: "TLS13-AES128-CCM-SHA256",
    0x1305: "TLS13-AES128-CCM-8-SHA256",
}
"""Without ChaCha20: 5.5.4 reads the counter of the sequence number mask with its bytes reversed wherever <endian.h> is
included, against RFC 8439 section 2.3; with the mask changed to match, everything else interoperates."""
CERTIFICATE_SUITES = {**SUITES, 0x1302: "TLS13-AES256-GCM-SHA384"}
CID = ["--cid", "ab"]


BUILT = Path(__file__).parents[2] / ".peers" / "wolfssl"


@pytest.fixture
def wolfssl():
    if not (BUILT / "examples/client/client").is_file():
        pytest.skip("no build of wolfSSL (scripts/wolfssl makes it, as root)")
    return BUILT


def own(number, names):
    made = certificate(number, f"peer {number}", ca=9, issuer="test authority", names=names, days=(-1, 3650))
    return OwnKey(key(number), (made,), raw=False)


@pytest.fixture
def files(tmp_path):
    (tmp_path / "ca.pem").write_bytes(certificate_pem(authority()))
    for number, role, name in ((3, "client", "client-3"), (4, "server", "localhost")):
        (tmp_path / f"{role}.pem").write_bytes(certificate_pem(own(number, (name,)).chain[0]))
        (tmp_path / f"{role}.key").write_bytes(key_pem(key(number)))
    return tmp_path


def arguments(mode, files, role):
    if mode == "psk":
        return ["-s"]
    return ["-c", f"{files}/{role}.pem", "-k", f"{files}/{role}.key", "-A", f"{files}/ca.pem"]


def credentials(mode, *, client):
    if mode == "psk":
        return Credentials(psks=PskStore(ours=PSK) if client else PskStore((PSK,)))
    return Credentials(own=own(3, ("client-3",)) if client else own(4, ("localhost",)), anchors=(authority(),))


CASES = [("psk", value) for value in SUITES] + [("x509", value) for value in CERTIFICATE_SUITES]


@pytest.mark.parametrize("cid", [None, 0, 3])
@pytest.mark.parametrize(("mode", "value"), CASES)
def test_its_client_to_our_server(mode, value, cid, wolfssl, files):
    driver = Driver(Endpoint(
        credentials(mode, client=False), listening=True, wall=lambda: NOW,
        parameters=dataclasses.replace(P13, suites=(value,), cid=cid),
    ))  # fmt: skip
    command = [str(wolfssl / "examples/client/client"), "-u", "-v", "4", "-h", "127.0.0.1", "-p", str(driver.port),
               "-l", CERTIFICATE_SUITES[value], *arguments(mode, files, "client"),
               *([] if cid is None else CID)]  # fmt: skip
    with Process(files, *command, cwd=wolfssl) as peer:
        assert driver.run(lambda: driver.found(Connected | Failed)), peer.said()
        (connected,) = driver.events[:1]
        assert isinstance(connected, Connected), (connected, peer.said())
        assert driver.run(lambda: driver.found(Received)), (peer.said(), driver.engine.counters)
        driver.engine.send(connected.association, b"I hear you fa shizzle!", time.monotonic())
        assert driver.run(peer.ended), (peer.said(), driver.engine.counters)
        assert b"I hear you fa shizzle!" in peer.said()
        assert peer.process.returncode == 0, peer.said()
    assert connected.suite == value
    assert connected.identity.name == ("wolf" if mode == "psk" else "client-3")
    driver.close()


@pytest.mark.parametrize("cid", [None, 0, 3])
@pytest.mark.parametrize("retry", [False, True])
@pytest.mark.parametrize(("mode", "value"), CASES)
def test_our_client_to_its_server(mode, value, cid, retry, wolfssl, files):
    port = free_port()
    command = [str(wolfssl / "examples/server/server"), "-u", "-v", "4", "-e", "-p", str(port),
               "-l", CERTIFICATE_SUITES[value], *arguments(mode, files, "server"),
               *([] if retry else ["-J", "n"]), *([] if cid is None else CID)]  # fmt: skip
    with Process(files, *command, cwd=wolfssl) as peer:
        assert wait_for(lambda: listening(port)), peer.said()
        driver = Driver(Endpoint(
            credentials(mode, client=True), wall=lambda: NOW,
            parameters=dataclasses.replace(P13, suites=(value,), cid=cid),
        ))  # fmt: skip
        number = driver.engine.connect(("127.0.0.1", port), time.monotonic(), Target(server_name="localhost"))
        assert driver.run(lambda: driver.found(Connected | Failed)), (peer.said(), driver.engine.counters)
        assert driver.found(Connected), (driver.events, peer.said())
        # Without -e its server takes an ACK that comes before the data for the data's end.
        driver.engine.send(number, b"hello wolfssl!", time.monotonic())
        assert driver.run(lambda: driver.found(Received)), (peer.said(), driver.engine.counters)
        assert driver.found(Received)[0].data == b"hello wolfssl!"
        driver.close()

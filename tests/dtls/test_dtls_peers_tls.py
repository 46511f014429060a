"""The command line programs of OpenSSL and GnuTLS, both roles, against our endpoint: application data, resumption."""

import dataclasses
import time

import pytest
from dtls_peers import Driver, Process, certificate_pem, free_port, key_pem, listening, need, public_pem, wait_for
from dtls_world import PSK, authority, certificate, key

from vitalgate.dtls.credentials import Credentials, OwnKey, PinnedKeys, PskStore, spki
from vitalgate.dtls.endpoint import Endpoint
from vitalgate.dtls.events import Closed, Connected, Failed, Received
from vitalgate.dtls.judging import Target
from vitalgate.dtls.parameters import Parameters
from vitalgate.dtls.records import DTLS_1_2
from vitalgate.dtls.suites import SUITES, Exchange

pytestmark = pytest.mark.peer

P12 = Parameters(versions=(DTLS_1_2,), retransmission=1.0)
NOW = 1_790_000_000.0
HEX = PSK.key.hex()

OPENSSL = {
    0xC0A8: "PSK-AES128-CCM8", 0xC0A4: "PSK-AES128-CCM", 0x00A8: "PSK-AES128-GCM-SHA256",
    0x00A9: "PSK-AES256-GCM-SHA384", 0xCCAB: "PSK-CHACHA20-POLY1305", 0xCCAC: "ECDHE-PSK-CHACHA20-POLY1305",
    0xC0AE: "ECDHE-ECDSA-AES128-CCM8", 0xC0AC: "ECDHE-ECDSA-AES128-CCM", 0xC02B: "ECDHE-ECDSA-AES128-GCM-SHA256",
    0xC02C: "ECDHE-ECDSA-AES256-GCM-SHA384", 0xCCA9: "ECDHE-ECDSA-CHACHA20-POLY1305",
}  # fmt: skip
"""Suites by OpenSSL's name; it has no other ECDHE_PSK with an AEAD."""

GNUTLS = {
    0xC0A8: "+PSK:-CIPHER-ALL:+AES-128-CCM-8", 0xC0A4: "+PSK:-CIPHER-ALL:+AES-128-CCM",
    0x00A8: "+PSK:-CIPHER-ALL:+AES-128-GCM", 0xCCAB: "+PSK:-CIPHER-ALL:+CHACHA20-POLY1305",
    0xCCAC: "+ECDHE-PSK:-CIPHER-ALL:+CHACHA20-POLY1305", 0xC0AE: "+ECDHE-ECDSA:-CIPHER-ALL:+AES-128-CCM-8",
    0xC0AC: "+ECDHE-ECDSA:-CIPHER-ALL:+AES-128-CCM", 0xC02B: "+ECDHE-ECDSA:-CIPHER-ALL:+AES-128-GCM",
    0xC02C: "+ECDHE-ECDSA:-CIPHER-ALL:+AES-256-GCM", 0xCCA9: "+ECDHE-ECDSA:-CIPHER-ALL:+CHACHA20-POLY1305",
}  # fmt: skip


def own(number, names):
    return OwnKey(
        key(number),
        (certificate(number, f"peer {number}", ca=9, issuer="test authority", names=names, days=(-1, 3650)),),
    )


def psk(value):
    return SUITES[value].exchange.psk


def credentials(value, *, client):
    if psk(value):
        return Credentials(psks=PskStore(ours=PSK) if client else PskStore((PSK,)))
    if client:
        return Credentials(own=own(3, ("client-3",)), anchors=(authority(),))
    return Credentials(own=own(4, ("localhost",)), anchors=(authority(),))


@pytest.fixture
def files(tmp_path):
    (tmp_path / "ca.pem").write_bytes(certificate_pem(authority()))
    for number, role, name in ((3, "client", "client-3"), (4, "server", "localhost")):
        (tmp_path / f"{role}.pem").write_bytes(certificate_pem(own(number, (name,)).chain[0]))
        (tmp_path / f"{role}.key").write_bytes(key_pem(key(number)))
        (tmp_path / f"{role}.pub").write_bytes(public_pem(key(number)))
    (tmp_path / "psk").write_text(f"client1:{HEX}\n")
    return tmp_path


def named(files, role):
    return str(files / f"{role}.pem"), str(files / f"{role}.key"), str(files / "ca.pem")


def serve(value, **more):
    return Driver(Endpoint(
        credentials(value, client=False), listening=True, wall=lambda: NOW,
        parameters=dataclasses.replace(P12, suites=(value,), **more),
    ))  # fmt: skip


def talk(driver, peer):
    """The peer's client connected and says a line; we answer it."""
    assert driver.run(lambda: driver.found(Connected | Failed)), peer.said()
    (connected,) = driver.events
    assert isinstance(connected, Connected), (connected, peer.said())
    peer.tell(b"ping\n")
    assert driver.run(lambda: driver.found(Received)), peer.said()
    assert driver.found(Received)[0].data == b"ping\n"
    driver.engine.send(connected.association, b"pong\n", time.monotonic())
    assert driver.run(lambda: b"pong" in peer.said()), peer.said()
    return connected


def connect(driver, port, peer, says=b"ping\n"):
    """Our client connects to the peer's server and says a line."""
    number = driver.engine.connect(("127.0.0.1", port), time.monotonic(), Target(server_name="localhost"))
    assert driver.run(lambda: driver.found(Connected | Failed)), peer.said()
    assert driver.found(Connected), (driver.events, peer.said())
    assert driver.engine.send(number, says, time.monotonic())
    return number


@pytest.mark.parametrize("value", OPENSSL, ids=OPENSSL.get)
def test_openssl_s_client(value, files):
    need("openssl")
    driver = serve(value)
    command = ["openssl", "s_client", "-dtls1_2", "-connect", f"127.0.0.1:{driver.port}", "-quiet", "-cipher",
               f"{OPENSSL[value]}:@SECLEVEL=0", "-attime", str(int(NOW))]  # fmt: skip
    if psk(value):
        command += ["-psk_identity", "client1", "-psk", HEX]
    else:
        certificate, own_key, ca = named(files, "client")
        command += ["-cert", certificate, "-key", own_key, "-CAfile", ca, "-verify_return_error", "-verify_hostname",
                    "localhost"]  # fmt: skip
    with Process(files, *command) as peer:
        connected = talk(driver, peer)
    assert connected.suite == value
    assert connected.identity.name == ("bed-12" if psk(value) else "client-3")
    driver.close()


@pytest.mark.parametrize("value", OPENSSL, ids=OPENSSL.get)
def test_openssl_s_server(value, files):
    need("openssl")
    port = free_port()
    command = ["openssl", "s_server", "-dtls1_2", "-accept", f"127.0.0.1:{port}", "-listen", "-quiet", "-cipher",
               f"{OPENSSL[value]}:@SECLEVEL=0", "-attime", str(int(NOW))]  # fmt: skip
    if psk(value):
        command += ["-nocert", "-psk_identity", "client1", "-psk", HEX]
    else:
        certificate, own_key, ca = named(files, "server")
        command += ["-cert", certificate, "-key", own_key, "-CAfile", ca, "-Verify", "2", "-verify_return_error"]
    with Process(files, *command) as peer:
        assert wait_for(lambda: listening(port)), peer.said()
        driver = Driver(Endpoint(
            credentials(value, client=True), wall=lambda: NOW, parameters=dataclasses.replace(P12, suites=(value,))
        ))  # fmt: skip
        connect(driver, port, peer)
        assert driver.run(lambda: b"ping" in peer.said()), peer.said()
        peer.tell(b"pong\n")
        assert driver.run(lambda: driver.found(Received)), peer.said()
        assert driver.found(Received)[0].data == b"pong\n"
        driver.close()


@pytest.mark.parametrize("value", GNUTLS, ids=lambda value: SUITES[value].name)
def test_gnutls_cli(value, files):
    need("gnutls-cli")
    driver = serve(value)
    command = ["gnutls-cli", "--udp", "-p", str(driver.port), "localhost", "--priority",
               f"NORMAL:-VERS-ALL:+VERS-DTLS1.2:-KX-ALL:{GNUTLS[value]}"]  # fmt: skip
    if psk(value):
        command += ["--pskusername", "client1", "--pskkey", HEX]
    else:
        certificate, own_key, ca = named(files, "client")
        command += ["--x509certfile", certificate, "--x509keyfile", own_key, "--x509cafile", ca]
    command += ["--insecure"]
    with Process(files, *command) as peer:
        if value == 0xCCAC:
            # gnutls-cli 3.7.9 completes this handshake and then falls over its own summary of it (signal 11).
            assert driver.run(peer.ended), peer.said()
            (connected,) = driver.found(Connected)
        else:
            connected = talk(driver, peer)
    assert connected.suite == value
    driver.close()


@pytest.mark.parametrize("value", GNUTLS, ids=lambda value: SUITES[value].name)
def test_gnutls_serv(value, files):
    need("gnutls-serv")
    port = free_port()
    command = ["gnutls-serv", "--udp", "-p", str(port), "--echo", "--priority",
               f"NORMAL:-VERS-ALL:+VERS-DTLS1.2:-KX-ALL:{GNUTLS[value]}"]  # fmt: skip
    if psk(value):
        command += ["--pskpasswd", str(files / "psk")]
    else:
        certificate, own_key, ca = named(files, "server")
        command += ["--x509certfile", certificate, "--x509keyfile", own_key, "--x509cafile", ca,
                    "--require-client-cert"]  # fmt: skip
    with Process(files, *command) as peer:
        assert wait_for(lambda: listening(port)), peer.said()
        driver = Driver(Endpoint(
            credentials(value, client=True), wall=lambda: NOW, parameters=dataclasses.replace(P12, suites=(value,))
        ))  # fmt: skip
        connect(driver, port, peer)
        assert driver.run(lambda: driver.found(Received)), peer.said()
        assert driver.found(Received)[0].data == b"ping\n"
        driver.close()


@pytest.mark.parametrize("ask_tickets", [True, False])
def test_we_resume_with_openssls_server(ask_tickets, files):
    need("openssl")
    port = free_port()
    certificate, own_key, _ = named(files, "server")
    command = ["openssl", "s_server", "-dtls1_2", "-accept", f"127.0.0.1:{port}", "-listen", "-quiet", "-cert",
               certificate, "-key", own_key, "-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256"]  # fmt: skip
    with Process(files, *command) as peer:
        assert wait_for(lambda: listening(port)), peer.said()
        driver = Driver(Endpoint(
            credentials(0xC02B, client=True), wall=lambda: NOW,
            parameters=dataclasses.replace(P12, ask_tickets=ask_tickets),
        ))  # fmt: skip
        for resumed in (False, True):
            driver.events.clear()
            number = connect(driver, port, peer, b"round\n")
            assert driver.found(Connected)[0].resumed == resumed
            assert driver.run(lambda: b"round" in peer.said()), peer.said()
            driver.engine.close(number, time.monotonic())
            assert driver.run(lambda: driver.found(Closed))
        driver.close()


def test_openssl_resumes_with_us(files):
    need("openssl")
    driver = serve(0xC02B)
    session = files / "session"
    certificate, own_key, ca = named(files, "client")
    base = ["openssl", "s_client", "-dtls1_2", "-connect", f"127.0.0.1:{driver.port}", "-cert", certificate, "-key",
            own_key, "-CAfile", ca, "-quiet"]  # fmt: skip
    for more, resumed in ((["-sess_out", str(session)], False), (["-sess_in", str(session)], True)):
        driver.events.clear()
        with Process(files, *base, *more) as peer:
            assert talk(driver, peer).resumed == resumed
            driver.engine.close(driver.found(Connected)[0].association, time.monotonic())
            assert driver.run(peer.ended), peer.said()
    driver.close()


def test_raw_public_keys_with_gnutls(files):
    need("gnutls-cli", "gnutls-serv")
    priority = "NORMAL:-VERS-ALL:+VERS-DTLS1.2:-CTYPE-ALL:+CTYPE-CLI-RAWPK:+CTYPE-SRV-RAWPK"
    parameters = dataclasses.replace(P12, suites=(0xC02B,))
    assert SUITES[0xC02B].exchange is Exchange.ECDHE_ECDSA
    ours = Credentials(own=OwnKey(key(4)), pins=PinnedKeys({spki(key(3)): "gnutls"}))
    driver = Driver(Endpoint(ours, listening=True, parameters=parameters))
    command = ["gnutls-cli", "--udp", "-p", str(driver.port), "localhost", "--priority", priority, "--insecure",
               "--rawpkkeyfile", str(files / "client.key"), "--rawpkfile", str(files / "client.pub")]  # fmt: skip
    with Process(files, *command) as peer:
        assert talk(driver, peer).identity.name == "gnutls"
    driver.close()
    port = free_port()
    command = ["gnutls-serv", "--udp", "-p", str(port), "--echo", "--priority", priority, "--rawpkkeyfile",
               str(files / "client.key"), "--rawpkfile", str(files / "client.pub")]  # fmt: skip
    with Process(files, *command) as peer:
        assert wait_for(lambda: listening(port)), peer.said()
        driver = Driver(Endpoint(ours, parameters=parameters))
        connect(driver, port, peer)
        assert driver.run(lambda: driver.found(Received)), peer.said()
        driver.close()

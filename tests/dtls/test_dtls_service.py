"""Credentials that change while an endpoint runs: peers whose credential ends, and a client that gets new ones."""

import dataclasses

import pytest
from dtls_world import PSK, Pair, drain, key, psk_pair, rpk_pair

from vitalgate.dtls.credentials import Credentials, OwnKey, PinnedKeys, Psk, PskStore, spki
from vitalgate.dtls.events import Closed, Connected, End, Failed
from vitalgate.dtls.parameters import Parameters
from vitalgate.dtls.records import DTLS_1_2, DTLS_1_3

BOTH = pytest.mark.parametrize("version", [DTLS_1_2, DTLS_1_3])


def pair(credentials, version):
    made = Pair(credentials, client=Parameters(versions=(version,), cid=2))
    made.connect()
    return made


@BOTH
def test_a_peer_whose_key_is_taken_out_of_service_loses_its_association_and_gets_no_other(version):
    client, server = rpk_pair()
    made = pair((client, server), version)
    assert made.server.version(1) == version
    server.pins.remove(spki(key(1)))
    assert made.server.end_peer("someone else", 1.0) == 0
    assert made.server.end_peer("gateway-7", 1.0) == 1
    ours, theirs = made.run()
    assert [event.reason for event in theirs if isinstance(event, Closed)] == [End.LOCAL]
    assert [event.reason for event in ours if isinstance(event, Closed)] == [End.PEER]
    assert (len(made.server), made.server.version(1)) == (0, 0)
    assert not made.client.send(made.number, b"reading", 1.0)
    # It asks to resume, which counts no more than the key.
    ours, theirs = made.connect()
    # A client of DTLS 1.3 is through before the server has judged its key.
    assert isinstance(ours[-1], Failed if version == DTLS_1_2 else Closed)
    assert ours[-1].reason is End.ALERT
    assert not any(isinstance(event, Connected) for event in theirs)


@BOTH
def test_a_peer_whose_shared_key_is_removed_does_not_come_back_by_resumption(version):
    client, server = psk_pair()
    made = pair((client, server), version)
    server.psks.remove(PSK.identity)
    made.server.end_peer("bed-12", 1.0)
    made.run()
    made.now = 1.0
    ours, theirs = made.connect()
    assert not any(isinstance(event, Connected) for event in (*ours, *theirs))


@BOTH
def test_a_client_with_new_credentials_shakes_hands_anew_and_in_full(version):
    client, server = rpk_pair()
    made = pair((client, server), version)
    server.pins.add(spki(key(5)), "gateway-7")
    made.client.use(Credentials(own=OwnKey(key(5)), pins=PinnedKeys({spki(key(2)): "cloud"})))
    _, theirs = made.connect()
    (connected,) = [event for event in theirs if isinstance(event, Connected)]
    assert not connected.resumed
    server.pins.remove(spki(key(5)))
    assert made.server.end_peer("gateway-7", 2.0) == 1
    drain(made.server)


def test_an_endpoint_without_credentials_sends_nothing():
    made = Pair((dataclasses.replace(psk_pair()[0], psks=None), psk_pair()[1]), client=Parameters())
    ours, _ = made.connect()
    assert [event.reason for event in ours] == [End.REFUSED]
    assert made.datagrams == []
    made.client.use(Credentials(psks=PskStore(ours=Psk(PSK.identity, PSK.key, "cloud"))))
    ours, _ = made.connect()
    assert any(isinstance(event, Connected) for event in ours)

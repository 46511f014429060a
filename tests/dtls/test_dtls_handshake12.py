"""Whole handshakes of DTLS 1.2 between our own client and server, over a perfect line."""

import dataclasses

import pytest
from dtls_world import NOBODY_NAMED, PSK, X509_TARGET, Pair, certificate, drain, psk_pair, rpk_pair, x509_pair

from vitalgate.dtls.credentials import Credentials, Identity, Mode, PinnedKeys, Psk, PskStore
from vitalgate.dtls.events import Closed, Connected, End, Failed, Received
from vitalgate.dtls.judging import Target
from vitalgate.dtls.ledger import Ledger
from vitalgate.dtls.parameters import Parameters
from vitalgate.dtls.records import DTLS_1_2
from vitalgate.dtls.suites import SUITES, Exchange

P12 = Parameters(versions=(DTLS_1_2,))
PAIRS = {"psk": (psk_pair, NOBODY_NAMED), "rpk": (rpk_pair, NOBODY_NAMED), "x509": (x509_pair, X509_TARGET)}
CASES = [
    (mode, value)
    for mode in PAIRS
    for value, suite in SUITES.items()
    if suite.version == DTLS_1_2 and (suite.exchange is not Exchange.ECDHE_ECDSA) == (mode == "psk")
]


def only(value, **more):
    return dataclasses.replace(P12, suites=(value,), **more)


def pair(mode, parameters=P12, **more):
    make, target = PAIRS[mode]
    return Pair(make(), target, client=parameters, **more)


@pytest.mark.parametrize(("mode", "suite"), CASES)
def test_every_suite_carries_data_both_ways(mode, suite):
    world = pair(mode, only(suite))
    (connected,), (accepted,) = world.connect()
    assert (connected.suite, accepted.suite, connected.version) == (suite, suite, DTLS_1_2)
    names = {"psk": ("bed-12", "bed-12"), "rpk": ("cloud", "gateway-7"), "x509": ("cloud.example", "client-3")}[mode]
    assert connected.identity == Identity(names[0], Mode(mode))
    assert accepted.identity == Identity(names[1], Mode(mode))
    for data in (b"", b"a", b"x" * 1000):
        assert world.client.send(world.number, data, 0.0)
        assert world.run()[1] == [Received(accepted.association, "C", data)]
        assert world.server.send(accepted.association, data, 0.0)
        assert world.run()[0] == [Received(world.number, "S", data)]


@pytest.mark.parametrize("group", [23, 24, 29])
def test_every_group_agrees(group):
    (connected,), _ = pair("rpk", dataclasses.replace(P12, groups=(group,))).connect()
    assert isinstance(connected, Connected)


@pytest.mark.parametrize("mode", PAIRS)
@pytest.mark.parametrize(("ours", "theirs"), [(None, 2), (2, None), (0, 3), (3, 0), (1, 8)])
def test_connection_ids_in_any_direction(mode, ours, theirs):
    client, server = dataclasses.replace(P12, cid=ours, pad=16), dataclasses.replace(P12, cid=theirs)
    make, target = PAIRS[mode]
    world = Pair(make(), target, client=client, server=server)
    world.connect()
    world.datagrams.clear()
    world.client.send(world.number, b"ping", 0.0)
    (received,) = world.run()[1]
    world.server.send(received.association, b"pong", 0.0)
    assert world.run()[0] == [Received(world.number, "S", b"pong")]
    (_, up), (_, down) = world.datagrams
    negotiated = ours is not None and theirs is not None
    assert up[0] == (25 if negotiated and theirs else 23)
    assert down[0] == (25 if negotiated and ours else 23)


@pytest.mark.parametrize("mode", PAIRS)
@pytest.mark.parametrize("by_ticket", [True, False])
def test_a_session_is_resumed_with_its_identity(mode, by_ticket):
    make, target = PAIRS[mode]
    world = Pair(make(), target, client=dataclasses.replace(P12, ask_tickets=by_ticket), server=P12)
    (first,), (accepted,) = world.connect()
    assert not first.resumed
    identities = first.identity, accepted.identity
    world.datagrams.clear()
    client, server = world.connect()
    (again,) = [event for event in client if isinstance(event, Connected)]
    (taken,) = [event for event in server if isinstance(event, Connected)]
    assert again.resumed
    assert taken.resumed
    assert (again.identity, taken.identity) == identities
    world.client.send(again.association, b"ping", 0.0)
    assert world.run()[1] == [Received(taken.association, "C", b"ping")]


def test_a_key_taken_out_of_service_resumes_nothing():
    client, server = psk_pair()
    world = Pair((client, server), client=P12)
    world.connect()
    server.psks.remove(PSK.identity)
    world.connect()
    assert world.server.counters["dtls_handshakes_completed{psk}"] == 1


def test_a_pin_taken_away_resumes_nothing():
    client, server = rpk_pair()
    world = Pair((client, server), client=P12)
    world.connect()
    for spki in list(server.pins._names):
        server.pins.remove(spki)
    world.connect()
    assert world.server.counters["dtls_handshakes_completed{rpk}"] == 1


def failure(world):
    client, server = world.connect()
    assert not [event for event in client + server if isinstance(event, Connected)]
    return [event for event in client + server if isinstance(event, Failed)]


def test_an_unknown_psk_identity_is_refused():
    client, _ = psk_pair(Psk(b"stranger", b"k" * 16))
    _, server = psk_pair()
    events = failure(Pair((client, server), client=P12))
    assert {event.alert for event in events} == {115}


def test_a_wrong_psk_never_connects():
    client, _ = psk_pair(Psk(PSK.identity, b"another key 1234"))
    _, server = psk_pair()
    world = Pair((client, server), client=P12)
    failure(world)
    assert world.server.counters["dtls_discarded{decryption}"] == 1


def test_a_raw_public_key_that_is_not_pinned_is_refused_by_either_end():
    client, server = rpk_pair()
    stranger = dataclasses.replace(server, pins=PinnedKeys({b"other": "other"}))
    assert {event.alert for event in failure(Pair((client, stranger), client=P12))} == {46}
    stranger = dataclasses.replace(client, pins=PinnedKeys({b"other": "other"}))
    assert {event.alert for event in failure(Pair((stranger, server), client=P12))} == {46}


def test_the_raw_public_key_of_another_known_peer_is_refused():
    assert {event.alert for event in failure(Pair(rpk_pair(), Target(pinned="elsewhere"), client=P12))} == {46}


def test_a_certificate_for_another_name_is_refused():
    events = failure(Pair(x509_pair(), Target(server_name="other.example"), client=P12))
    assert {event.alert for event in events} == {42}


def test_a_certificate_is_never_taken_without_a_name():
    assert failure(Pair(x509_pair(), NOBODY_NAMED, client=P12))


def test_an_expired_certificate_is_refused():
    world = Pair(x509_pair(), X509_TARGET, client=P12)
    world.client._core.wall = lambda: 1_790_000_000.0 + 400 * 86400
    assert {event.alert for event in failure(world)} == {45}


def test_a_client_without_a_certificate_is_refused_unless_it_need_not_have_one():
    client, server = x509_pair()
    client = dataclasses.replace(client, own=None)
    assert failure(Pair((client, server), X509_TARGET, client=P12))
    server = dataclasses.replace(server, require_client=False)
    (connected,), (accepted,) = Pair((client, server), X509_TARGET, client=P12).connect()
    assert accepted.identity.mode is Mode.NONE
    assert connected.identity.mode is Mode.X509


def test_a_chain_to_an_unknown_authority_is_refused():
    client, server = x509_pair()
    client = dataclasses.replace(client, anchors=(certificate(8, "another authority"),))
    assert {event.alert for event in failure(Pair((client, server), X509_TARGET, client=P12))} == {48}


def test_nothing_in_common_is_said_so():
    client = dataclasses.replace(P12, suites=(0xC0A8,))
    server = dataclasses.replace(P12, suites=(0x00A8,))
    assert {event.alert for event in failure(Pair(psk_pair(), client=client, server=server))} == {40}


def test_without_credentials_nothing_is_sent():
    world = Pair((Credentials(), psk_pair()[1]), client=P12)
    (failed,), _ = world.connect()
    assert failed.reason is End.REFUSED
    assert world.datagrams == []


def test_closing_tells_the_other_end():
    world = pair("psk")
    world.connect()
    world.client.close(world.number, 0.0)
    (ours,), (theirs,) = world.run()
    assert (ours.reason, theirs.reason) == (End.LOCAL, End.PEER)
    assert isinstance(ours, Closed)
    assert len(world.client) == len(world.server) == 0
    assert not world.client.send(world.number, b"too late", 0.0)


def test_a_client_begins_anew_from_the_same_address_and_the_old_association_goes_last():
    world = pair("psk", dataclasses.replace(P12, resume=False))
    _, (first,) = world.connect()
    # The client restarts and knows nothing of what was; the server learns of it only with the new Finished.
    fresh = pair("psk", dataclasses.replace(P12, resume=False))
    fresh.server = world.server
    _, events = fresh.connect()
    assert [type(event) for event in events] == [Closed, Connected]
    assert (events[0].association, events[0].reason) == (first.association, End.REPLACED)
    fresh.client.send(fresh.number, b"here again", 0.0)
    assert fresh.run()[1][0].data == b"here again"


def test_a_hello_on_a_live_address_does_not_disturb_it():
    world = pair("psk")
    _, (accepted,) = world.connect()
    other = pair("psk")
    other.client.connect("S", 0.0)
    for data, _ in other.client.datagrams_to_send(0.0):
        world.server.receive_datagram(data, "C", 0.0)
    ((verify, _),) = world.server.datagrams_to_send(0.0)
    other.client.receive_datagram(verify, "S", 0.0)
    for data, _ in other.client.datagrams_to_send(0.0):  # with a cookie: a handshake runs beside
        world.server.receive_datagram(data, "C", 0.0)
    world.server.datagrams_to_send(0.0)
    assert len(world.server) == 2
    world.client.send(world.number, b"still here", 0.0)
    assert world.run()[1] == [Received(accepted.association, "C", b"still here")]


def test_the_ledger_accounts_for_every_byte():
    world = pair("rpk", dataclasses.replace(P12, cid=2))
    ledgers = Ledger(), Ledger()
    world.client.attach(ledgers[0])
    world.server.attach(ledgers[1])
    world.connect()
    world.client.send(world.number, b"x" * 64, 0.0)
    world.run()
    for ledger, from_client in zip(ledgers, (True, False), strict=True):
        total = sum(len(data) for sender, data in world.datagrams if sender is from_client)
        assert sum(row.layout.total for row in ledger.rows) == total
    last = ledgers[0].rows[-1].layout
    assert (last.header, last.cid, last.nonce, last.content, last.inner_type, last.tag) == (13, 2, 8, 64, 1, 8)
    names = [name for row in ledgers[0].rows for name, _, _ in row.messages]
    assert names == [
        "CLIENT_HELLO", "CLIENT_HELLO", "CERTIFICATE", "CLIENT_KEY_EXCHANGE", "CERTIFICATE_VERIFY",
        "CHANGE_CIPHER_SPEC", "FINISHED",
    ]  # fmt: skip


def test_psk_handshake_sizes():
    """Bytes of each flight; the measured figures of other stacks stand beside them in docs/dtls.md."""
    world = Pair(psk_pair(), client=dataclasses.replace(only(0xC0A8), resume=False))
    world.connect()
    assert [len(data) for _, data in world.datagrams] == [75, 44, 91, 115, 101, 67]


def test_events_are_drained_in_order():
    world = pair("psk")
    world.connect()
    for data in (b"1", b"2", b"3"):
        world.client.send(world.number, data, 0.0)
    for data, _ in world.client.datagrams_to_send(0.0):
        world.server.receive_datagram(data, "C", 0.0)
    assert [event.data for event in drain(world.server)] == [b"1", b"2", b"3"]


def test_a_store_keeps_its_keys_to_itself():
    assert "0123456789abcdef" not in repr(PSK)
    assert "0123456789abcdef" not in repr(PskStore((PSK,)))
    assert "0123456789abcdef" not in repr(psk_pair()[0])

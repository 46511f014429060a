"""Whole handshakes of DTLS 1.3 between our own client and server, over a perfect line, and what comes after them."""

import dataclasses

import pytest
from dtls_world import NOBODY_NAMED, PSK, X509_TARGET, Pair, certificate, psk_pair, rpk_pair, x509_pair

from vitalgate.dtls.credentials import Identity, Mode, PinnedKeys, Psk
from vitalgate.dtls.events import Connected, End, Failed, Moved, Received
from vitalgate.dtls.judging import Target
from vitalgate.dtls.ledger import Ledger
from vitalgate.dtls.parameters import Parameters
from vitalgate.dtls.records import DTLS_1_2, DTLS_1_3
from vitalgate.dtls.suites import SUITES

P13 = Parameters(versions=(DTLS_1_3,))
BOTH = Parameters()
PAIRS = {"psk": (psk_pair, NOBODY_NAMED), "rpk": (rpk_pair, NOBODY_NAMED), "x509": (x509_pair, X509_TARGET)}
NAMES = {"psk": ("bed-12", "bed-12"), "rpk": ("cloud", "gateway-7"), "x509": ("cloud.example", "client-3")}
SUITES_13 = [value for value, suite in SUITES.items() if suite.version == DTLS_1_3]


def pair(mode, client=P13, server=None):
    make, target = PAIRS[mode]
    return Pair(make(), target, client=client, server=server)


def talk(world, accepted, up=b"ping", down=b"pong"):
    assert world.client.send(world.number, up, world.now)
    assert world.run() == ([], [Received(accepted.association, "C", up)])
    assert world.server.send(accepted.association, down, world.now)
    assert world.run() == ([Received(world.number, "S", down)], [])


# An external key goes with SHA-256 (RFC 8446 section 4.2.11).
CASES = [(mode, suite) for mode in PAIRS for suite in SUITES_13 if mode != "psk" or SUITES[suite].hash == "sha256"]


@pytest.mark.parametrize(("mode", "suite"), CASES)
def test_every_suite_carries_data_both_ways(mode, suite):
    world = pair(mode, dataclasses.replace(P13, suites=(suite,)))
    (connected,), (accepted,) = world.connect()
    assert (connected.suite, accepted.suite, connected.version) == (suite, suite, DTLS_1_3)
    assert (connected.identity, accepted.identity) == tuple(Identity(name, Mode(mode)) for name in NAMES[mode])
    for size in (0, 1, 7, 1000):
        talk(world, accepted, b"u" * size, b"d" * size)


@pytest.mark.parametrize("mode", PAIRS)
@pytest.mark.parametrize("group", [23, 24, 29])
@pytest.mark.parametrize("early", [True, False])
@pytest.mark.parametrize("cookies", [True, False])
def test_every_group_with_and_without_an_early_share_and_a_cookie(mode, group, early, cookies):
    client = dataclasses.replace(P13, early_key_share=early)
    server = dataclasses.replace(P13, groups=(group,), cookies=cookies)
    world = pair(mode, client, server)
    _, (accepted,) = world.connect()
    assert world.server.counters["dtls_cookies_sent"] == (0 if not cookies and early and group == 23 else 1)
    talk(world, accepted)


def test_psk_alone_costs_no_public_key_operation_and_says_so():
    only = dataclasses.replace(P13, psk_only=True, psk_dhe=False)
    world = pair("psk", only)
    _, (accepted,) = world.connect()
    talk(world, accepted)
    client, server = pair("psk", only, P13).connect()  # a server that insists on (EC)DHE
    assert {type(event) for event in client + server} == {Failed}


@pytest.mark.parametrize("mode", PAIRS)
@pytest.mark.parametrize(("ours", "theirs"), [(None, 2), (2, None), (0, 3), (3, 0), (1, 8)])
def test_connection_ids_in_any_direction(mode, ours, theirs):
    world = pair(mode, dataclasses.replace(P13, cid=ours, pad=16), dataclasses.replace(P13, cid=theirs))
    _, (accepted,) = world.connect()
    world.datagrams.clear()
    talk(world, accepted)
    (_, up), (_, down) = world.datagrams
    negotiated = ours is not None and theirs is not None
    assert bool(up[0] & 0x10) == bool(negotiated and theirs)
    assert bool(down[0] & 0x10) == bool(negotiated and ours)


@pytest.mark.parametrize("mode", PAIRS)
def test_a_session_is_resumed_with_its_identity(mode):
    world = pair(mode)
    (first,), (accepted,) = world.connect()
    for _ in range(3):
        client, server = world.connect()
        (again,) = [event for event in client if isinstance(event, Connected)]
        (taken,) = [event for event in server if isinstance(event, Connected)]
        assert again.resumed
        assert taken.resumed
        assert (again.identity, taken.identity) == (first.identity, accepted.identity)
        talk(world, taken)


def test_a_session_does_not_live_longer_by_being_resumed():
    world = pair("rpk")
    wall = [1_790_000_000.0]
    world.client._core.wall = world.server._core.wall = lambda: wall[0]
    world.connect()
    for resumed in (True, True, False):
        wall[0] += 40_000.0
        (connected,) = [event for event in world.connect()[0] if isinstance(event, Connected)]
        assert connected.resumed == resumed


def test_a_pin_taken_away_resumes_nothing():
    client, server = rpk_pair()
    world = Pair((client, server), client=P13)
    world.connect()
    for spki in list(server.pins._names):
        server.pins.remove(spki)
    world.connect()
    assert world.server.counters["dtls_handshakes_completed{rpk}"] == 1


@pytest.mark.parametrize("mode", PAIRS)
@pytest.mark.parametrize(
    ("ours", "theirs", "version"),
    [
        (BOTH, BOTH, DTLS_1_3),
        (BOTH, (DTLS_1_2,), DTLS_1_2),
        ((DTLS_1_2,), BOTH, DTLS_1_2),
        (BOTH, (DTLS_1_3,), DTLS_1_3),
        ((DTLS_1_3,), BOTH, DTLS_1_3),
        (BOTH, (DTLS_1_2, DTLS_1_3), DTLS_1_2),
    ],
)
def test_versions_are_negotiated(mode, ours, theirs, version):
    ours, theirs = (
        each if isinstance(each, Parameters) else dataclasses.replace(BOTH, versions=each) for each in (ours, theirs)
    )
    if version == DTLS_1_2 and theirs.versions != (DTLS_1_2,) and ours.versions != (DTLS_1_2,):
        # Such a server marks its choice (RFC 8446 section 4.1.3), and a client that can do better refuses.
        events = pair(mode, ours, theirs).connect()[0]
        assert [event.reason for event in events] == [End.REFUSED]
        return
    world = pair(mode, ours, theirs)
    (connected,), (accepted,) = world.connect()
    assert connected.version == accepted.version == version
    talk(world, accepted)


def test_versions_without_each_other_say_so():
    client, server = pair("psk", P13, dataclasses.replace(BOTH, versions=(DTLS_1_2,))).connect()
    assert [event.alert for event in client] == [70]
    assert server == []


def test_a_session_of_one_version_is_left_alone_by_the_other():
    world = pair("rpk", BOTH, dataclasses.replace(BOTH, versions=(DTLS_1_2,)))
    world.connect()
    other = pair("rpk", BOTH, P13)
    world.server = other.server
    (connected,) = [event for event in world.connect()[0] if isinstance(event, Connected)]
    assert connected.version == DTLS_1_3
    assert not connected.resumed


# After the handshake


@pytest.mark.parametrize("ask", [False, True])
@pytest.mark.parametrize("by_client", [False, True])
def test_keys_are_updated_again_and_again(ask, by_client):
    world = pair("psk", dataclasses.replace(P13, cid=2))
    _, (accepted,) = world.connect()
    end, number = (world.client, world.number) if by_client else (world.server, accepted.association)
    for _ in range(6):  # epochs 3 to 9: the two bits in the header come round
        end.update_keys(number, 0.0, ask=ask)
        world.run()
        talk(world, accepted)
    assert end.counters["dtls_key_updates{ours}"] == 6
    assert end.counters["dtls_key_updates{peer}"] == (6 if ask else 0)


def test_both_ends_update_at_once():
    world = pair("psk")
    _, (accepted,) = world.connect()
    world.client.update_keys(world.number, 0.0, ask=True)
    world.server.update_keys(accepted.association, 0.0, ask=True)
    world.run()
    talk(world, accepted)


def test_data_of_the_old_key_is_taken_until_the_new_one_shows():
    world = pair("psk")
    _, (accepted,) = world.connect()
    world.client.send(world.number, b"late", 0.0)
    ((late, _),) = world.client.datagrams_to_send(0.0)
    world.client.update_keys(world.number, 0.0, ask=False)
    world.run()
    world.server.receive_datagram(late, "C", 0.0)
    assert world.run()[1] == [Received(accepted.association, "C", b"late")]
    talk(world, accepted)


@pytest.mark.parametrize("immediate", [True, False])
def test_new_connection_ids(immediate):
    world = pair("psk", dataclasses.replace(P13, cid=4))
    _, (accepted,) = world.connect()
    before = world.client._core.associations[world.number].seal.cid
    assert world.server.give_cids(accepted.association, 2, 0.0, immediate=immediate) == 2
    world.run()
    after = world.client._core.associations[world.number].seal.cid
    assert (after != before) == immediate
    talk(world, accepted)
    if not immediate:
        assert world.client.use_spare_cid(world.number)
        assert world.client._core.associations[world.number].seal.cid not in (before, after)
        talk(world, accepted)


def test_connection_ids_on_request():
    world = pair("psk", dataclasses.replace(P13, cid=4))
    _, (accepted,) = world.connect()
    assert world.client.ask_cids(world.number, 3, 0.0)
    assert not world.client.ask_cids(world.number, 3, 0.0)  # one request at a time
    world.run()
    for _ in range(3):
        assert world.client.use_spare_cid(world.number)
        talk(world, accepted)
    assert not world.client.use_spare_cid(world.number)


def test_no_connection_ids_where_none_were_agreed_on():
    world = pair("psk")
    _, (accepted,) = world.connect()
    assert not world.client.ask_cids(world.number, 3, 0.0)
    assert world.server.give_cids(accepted.association, 1, 0.0, immediate=True) == 0


@pytest.mark.parametrize("version", [DTLS_1_2, DTLS_1_3])
def test_a_peer_moves_with_its_newest_record_alone(version):
    world = pair("psk", Parameters(versions=(version,), cid=4))
    _, (accepted,) = world.connect()
    world.client.send(world.number, b"1", 0.0)
    world.client.send(world.number, b"2", 0.0)
    (first, _), (second, _) = world.client.datagrams_to_send(0.0)
    world.server.receive_datagram(second, "elsewhere", 0.0)
    world.server.receive_datagram(first, "C", 0.0)  # older: read, but no move back
    world.server.receive_datagram(second, "C", 0.0)  # a replay: nothing
    events = [world.server.next_event() for _ in range(4)]
    assert events == [
        Moved(accepted.association, "elsewhere", "C"),
        Received(accepted.association, "elsewhere", b"2"),
        Received(accepted.association, "elsewhere", b"1"),
        None,
    ]
    world.server.send(accepted.association, b"found you", 0.0)
    assert [path for _, path in world.server.datagrams_to_send(0.0)] == ["elsewhere"]


# Refusals


def failure(world):
    client, server = world.connect()
    assert not [event for event in server if isinstance(event, Connected)]
    # A client of DTLS 1.3 is complete before the server judges it.
    return {event.alert for event in client + server if not isinstance(event, Connected)}


def test_a_wrong_psk_is_refused_by_its_binder():
    client, _ = psk_pair(Psk(PSK.identity, b"another key 1234"))
    assert failure(Pair((client, psk_pair()[1]), client=P13)) == {51}


def test_an_unknown_psk_identity_is_refused():
    client, _ = psk_pair(Psk(b"stranger", b"k" * 16))
    assert failure(Pair((client, psk_pair()[1]), client=P13)) == {115}


def test_a_raw_public_key_that_is_not_pinned_is_refused_by_either_end():
    client, server = rpk_pair()
    stranger = dataclasses.replace(server, pins=PinnedKeys({b"other": "other"}))
    assert failure(Pair((client, stranger), client=P13)) == {46}
    stranger = dataclasses.replace(client, pins=PinnedKeys({b"other": "other"}))
    assert failure(Pair((stranger, server), client=P13)) == {46}


def test_certificates_are_judged():
    assert failure(Pair(x509_pair(), Target(server_name="other.example"), client=P13)) == {42}
    client, server = x509_pair()
    unknown = dataclasses.replace(client, anchors=(certificate(8, "another authority"),))
    assert failure(Pair((unknown, server), X509_TARGET, client=P13)) == {48}
    world = Pair(x509_pair(), X509_TARGET, client=P13)
    world.client._core.wall = lambda: 1_790_000_000.0 + 400 * 86400
    assert failure(world) == {45}
    nobody = dataclasses.replace(client, own=None)
    assert failure(Pair((nobody, server), X509_TARGET, client=P13)) == {116}


def test_ccm_8_has_to_be_asked_for():
    assert 0x1305 not in P13.suites
    client = dataclasses.replace(P13, suites=(0x1305,))
    assert failure(pair("psk", client, P13)) == {40}


def test_the_ledger_accounts_for_every_byte():
    world = pair("rpk", dataclasses.replace(P13, cid=2))
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
    assert (last.header, last.cid, last.nonce, last.content, last.inner_type, last.tag) == (2, 2, 0, 64, 1, 16)


def test_psk_handshake_sizes():
    """Bytes of each flight, CCM_8, without tickets; other stacks' figures stand beside them in docs/dtls.md."""
    world = pair("psk", dataclasses.replace(P13, suites=(0x1305,), resume=False, tickets=0, groups=(23,)))
    world.connect()
    assert [len(data) for _, data in world.datagrams] == [219, 129, 277, 219, 55, 29]
